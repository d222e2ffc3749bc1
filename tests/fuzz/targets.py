"""What is fuzzed: of each parser of something from outside its good inputs, how they are spoilt, and how it is called.

A parser may raise UserError (rules of options and settings: ValueError as well, which is their word for it); whatever
else comes out is a find.
"""

import io
import json
import struct
import tempfile
import tomllib
import wave
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from tests.fuzz import mutations
from tests.job_requests import job_request
from wan_ui.catalog import load_catalog
from wan_ui.errors import UserError
from wan_ui.files.headers import check_pth, gguf_header, read_header, safetensors_header
from wan_ui.files.identify import identify
from wan_ui.loras.choice import read_spec
from wan_ui.loras.folder import read_file
from wan_ui.machine.probe_results import ProbeResult, read_entries, read_result
from wan_ui.media import muxer, sound, video
from wan_ui.media.images import fit, open_image
from wan_ui.queue.intake import Draft, resolve
from wan_ui.queue.jobs import _job
from wan_ui.queue.schema import COLUMNS
from wan_ui.request import LoraSpec, Result
from wan_ui.settings import ROOT, Settings, load_settings

Change = Callable[[Random, bytes, list[bytes]], bytes]


@dataclass(frozen=True)
class Target:
    """
    seeds   good inputs
    change  makes another input of one of them
    run     the parser, on a file that holds the input; raises what it raises
    suffix  of that file
    short   inputs of the short run
    full    inputs after which it counts as fuzzed
    """

    seeds: Callable[[], list[bytes]]
    change: Change
    run: Callable[[Path], None]
    suffix: str
    short: int
    full: int = 20_000


# ---------------------------------------------------------------- weights


def _entries(*shapes: tuple[int, ...], names: str = "blocks.{}.self_attn.q.weight") -> dict:
    entries, end = {}, 0
    for number, shape in enumerate(shapes):
        size = 4 * int(np.prod(shape))
        entries[names.format(number)] = {"dtype": "F32", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    return entries


def _safetensors(entries: dict) -> bytes:
    raw = json.dumps(entries).encode()
    return (
        struct.pack("<Q", len(raw))
        + raw
        + bytes(max((entry["data_offsets"][1] for entry in entries.values() if "data_offsets" in entry), default=0))
    )


def _safetensors_seeds() -> list[bytes]:
    dit = _entries((8, 8), (8, 4), (2,), names="blocks.{}.self_attn.q.weight")
    vae = _entries((4, 4, 1), (4,), names="decoder.{}.conv1.weight")
    return [
        _safetensors(dit),
        _safetensors({"__metadata__": {"format": "pt", "a": "high_noise"}, **vae}),
        _safetensors({}),
    ]


def _read_weights(path: Path) -> None:
    identify(path)  # never raises: what is wrong is said in its answer
    read_header(path)


def _safetensors_run(path: Path) -> None:
    identify(path)
    safetensors_header(path)


def _gguf_seeds() -> list[bytes]:
    def string(text: bytes) -> bytes:
        return struct.pack("<Q", len(text)) + text

    def tensor(name: bytes, dims: tuple[int, ...], kind: int, offset: int) -> bytes:
        return string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)

    metadata = string(b"general.architecture") + struct.pack("<I", 8) + string(b"wan")
    metadata += string(b"general.alignment") + struct.pack("<II", 4, 32)
    metadata += string(b"sizes") + struct.pack("<IIQ3I", 9, 4, 3, 1, 2, 3)
    metadata += string(b"words") + struct.pack("<IIQ", 9, 8, 2) + string(b"a") + string(b"bc")
    table = tensor(b"blocks.0.self_attn.q.weight", (32, 2), 8, 0) + tensor(b"head.bias", (8,), 0, 96)
    head = b"GGUF" + struct.pack("<IQQ", 3, 2, 4) + metadata + table
    whole = head + bytes(-len(head) % 32) + bytes(128)
    return [
        whole,
        b"GGUF" + struct.pack("<IQQ", 2, 0, 0),
        b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + tensor(b"x", (32,), 0, 0) + bytes(160),
    ]


def _gguf_run(path: Path) -> None:
    identify(path)
    gguf_header(path)


def _pth_seeds() -> list[bytes]:
    tables = (
        b"\x80\x02}q\x00(X\x00decoder.conv1.weight conv2.weight.",
        b"blocks.0.pos_embedding.embedding.weight",
        b"",
    )
    found = []
    for number, table in enumerate(tables):
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)[number % 2]) as archive:
            archive.writestr("archive/data.pkl", table)
            archive.writestr("archive/data/0", bytes(40))
        found.append(content.getvalue())
    return found


def _pth_run(path: Path) -> None:
    identify(path)
    check_pth(path)


def _lora_seeds() -> list[bytes]:
    kohya = _entries((4, 8), (8, 4), (1,), names="lora_unet_blocks_0_self_attn_q.{}")
    kohya = dict(
        zip(
            (
                "lora_unet_blocks_0_self_attn_q.lora_down.weight",
                "lora_unet_blocks_0_self_attn_q.lora_up.weight",
                "lora_unet_blocks_0_self_attn_q.alpha",
            ),
            kohya.values(),
            strict=True,
        )
    )
    peft = dict(
        zip(
            ("diffusion_model.blocks.1.ffn.0.lora_A.weight", "diffusion_model.blocks.1.ffn.0.lora_B.weight"),
            _entries((4, 8), (8, 4)).values(),
            strict=True,
        )
    )
    texts = {
        "ss_base_model_version": "wan2.2_t2v_high",
        "ss_network_dim": "4",
        "ss_network_alpha": "4.0",
        "trigger": "sks",
        "ss_tag_frequency": '{"a": {"sks": 4}}',
        "modelspec.title": "x",
        "lora_adapter_metadata": '{"r": 4, "lora_alpha": 8, "alpha_pattern": {"a": 1}}',
    }
    shipped = (ROOT / "assets" / "loras" / "wan-tiny-teal-orange.safetensors").read_bytes()
    return [_safetensors({"__metadata__": texts, **kohya}), _safetensors({"__metadata__": texts, **peft}), shipped]


def _lora_run(path: Path) -> None:
    entry = read_file(path, path.name)  # never raises: the entry says what is wrong
    assert isinstance(entry.problem, str)


# ---------------------------------------------------------------- pictures, sound, video


def _picture_seeds() -> list[bytes]:
    y, x = np.mgrid[0:20, 0:24]
    image = Image.fromarray(np.stack([x * 9, y * 9, x + y], -1).astype(np.uint8))
    found = []
    for kind, options in (
        ("PNG", {}),
        ("JPEG", {"quality": 80}),
        ("JPEG", {"progressive": True}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("GIF", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("BMP", {}),
        ("AVIF", {}),
        ("JPEG2000", {}),
    ):
        content = io.BytesIO()
        image.save(content, kind, **options)
        found.append(content.getvalue())
    for mode in ("I;16", "P", "LA", "CMYK", "1"):
        content = io.BytesIO()
        image.convert("L").convert(mode).save(content, "TIFF" if mode == "CMYK" else "PNG")
        found.append(content.getvalue())
    return found


def _picture_run(path: Path) -> None:
    fit(open_image(path), 64, 64)


def _sound_seeds() -> list[bytes]:
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(16_000)
        file.writeframes((np.sin(np.arange(1600) / 9) * 9000).astype("<i2").tobytes())
    found = [content.getvalue()]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "voice.wav"
        path.write_bytes(content.getvalue())
        for suffix in ("mp3", "flac", "ogg", "m4a", "aiff"):
            target = Path(folder) / f"voice.{suffix}"
            muxer._run(muxer.ffmpeg.output(muxer._input(path).audio, str(target), ac=1, ar=16_000))
            found.append(target.read_bytes())
    return found


def _sound_run(path: Path) -> None:
    sound.read_voice(path, 5.0)


@cache
def _mp4(metadata: bool = True) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        frames = np.random.default_rng(1).integers(0, 255, (3, 32, 32, 3), np.uint8)
        muxer.write_mp4(
            frames, path, 16, {**job_request(prompt='a "wave"; é').public(), "facts": {"a": "b"}} if metadata else None
        )
        return path.read_bytes()


def _video_seeds() -> list[bytes]:
    content = io.BytesIO()
    pictures = [Image.new("RGB", (24, 24), colour) for colour in ("red", "green")]
    pictures[0].save(content, "GIF", save_all=True, append_images=pictures[1:])
    found = [_mp4(), content.getvalue()]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        path.write_bytes(_mp4())
        for suffix, codec in (("mkv", "libx264"), ("avi", "mpeg4"), ("webm", "libvpx"), ("ts", "libx264")):
            target = Path(folder) / f"clip.{suffix}"
            muxer._run(muxer.ffmpeg.output(muxer._input(path).video, str(target), vcodec=codec, pix_fmt="yuv420p"))
            found.append(target.read_bytes())
    return found


def _video_run(path: Path) -> None:
    for _ in video.frames(video.look(path)):
        pass


def _metadata_seeds() -> list[bytes]:
    return [_mp4(), _mp4(False)]


def _metadata_change(random: Random, base: bytes, others: list[bytes]) -> bytes:
    """Mostly the settings inside it, kept as long as they were: the boxes around them stay right."""
    start = base.find(b'{"prompt"')
    if start < 0 or random.random() < 0.2:
        return mutations.of_bytes(random, base, others)
    end = base.index(b"}}", start) + 2 if b"}}" in base[start:] else start + 40
    new = mutations.of_text(random, base[start:end], others)[: end - start]
    return base[:start] + new.ljust(end - start) + base[end:]


def _metadata_run(path: Path) -> None:
    from wan_ui import stored

    request, _ = stored.read_request(json.dumps(muxer.read_metadata(path)))
    json.dumps(request.public())


# ---------------------------------------------------------------- texts and values


def _probes_seeds() -> list[bytes]:
    result = ProbeResult("attention", "sdpa", "tiny 1x2", "ok", "", 0.1, 0.001, 0.01, "torch_sdpa", "cpu")
    return [json.dumps({"a": vars(result), "b": vars(replace(result, status="wrong"))}).encode(), b"{}"]


def _probes_run(path: Path) -> None:
    settings = _settings()
    for name in ("probes.json",):
        (settings.cache / name).write_bytes(path.read_bytes())
    for entry in read_entries(settings).values():
        if result := read_result(entry):
            hash(result.identity), f"{result.seconds:.3f} {result.error:.3g}"


def _catalog_seeds() -> list[bytes]:
    text = (ROOT / "configs" / "catalog.toml").read_text(encoding="utf-8")
    names = [name for name in tomllib.loads(text)]
    parts = ["[" + part for part in text.split("\n[")[1:]]
    small = [part for part in parts if part.startswith(("[wan-tiny", "[ti2v-5b"))]
    assert names and small
    return [text.encode(), "\n".join(small).encode()]


def _catalog_run(path: Path) -> None:
    for model in load_catalog(path).values():
        model.scheme(""), model.closest_size(640, 480)


def _settings_seeds() -> list[bytes]:
    values = {
        "WAN_UI_HOST": "0.0.0.0",
        "WAN_UI_PORT": "8000",
        "WAN_UI_AUTH": "a:b",
        "WAN_UI_HOSTS": "a.example,*.lan",
        "WAN_UI_PROXIES": "10.0.0.0/8",
        "WAN_UI_ROOT_PATH": "/wan",
        "WAN_UI_MAX_QUEUE": "20",
        "WAN_UI_GPUS": "0,1",
        "WAN_UI_RAY": "auto",
        "WAN_UI_HUB": "https://x.example",
        "WAN_UI_ENGINE": "auto",
        "WAN_UI_THREADS": "2",
        "WAN_UI_MAX_OUTPUTS_GB": "1.5",
        "WAN_UI_MODEL": "wan-tiny",
        "WAN_UI_COMFYUI": "",
        "WAN_UI_OUTPUTS": "outputs",
        "WAN_UI_LIGHTX2V_PLAIN": "vae,blocks",
        "WAN_UI_MAX_UPLOAD_MB": "32",
        "WAN_UI_PARALLEL": "1",
        "WAN_UI_GPU_GIB": "8",
        "GRADIO_SERVER_PORT": "7000",
        "HF_ENDPOINT": "https://hf.example",
    }
    return [json.dumps(values).encode()]


def _settings_run(path: Path) -> None:
    values = _object(path)
    load_settings({name: text for name, text in values.items() if isinstance(text, str)})


def _api_seeds() -> list[bytes]:
    return [
        json.dumps(
            {
                "inputs": {"image": "PICTURE", "prompt": "zoom in"},
                "model": "",
                "scheme": "",
                "engine": "auto",
                "size": "auto",
                "frames": 17,
                "steps": 4,
                "fps": 16,
                "seed": 5,
                "draft": False,
                "loras": ["wan-tiny-teal-orange.safetensors:0.5:both"],
                "motion": "",
                "negative": "",
                "guidance": None,
                "shift": None,
                "solver": "",
                "cache": "",
                "overlap": None,
                "task": "",
            }
        ).encode(),
        json.dumps(
            {"inputs": {"image": "PICTURE", "prompt": "a", "segments": "pan left | night"}, "frames": 17, "steps": 2}
        ).encode(),
    ]


def _api_run(path: Path) -> None:
    values, settings = _object(path), _settings()
    given = values.pop("inputs", {})
    inputs = {}
    for name, value in given.items() if isinstance(given, dict) else ():
        inputs[name] = str(settings.outputs / "picture.png") if value == "PICTURE" else value
        if isinstance(inputs[name], str) and inputs[name].startswith("/dev/"):
            return  # the page lets no path through that is not an upload
    specs, lines = [], values.pop("loras", [])
    for line in lines if isinstance(lines, list) else [lines]:
        try:
            specs.append(read_spec(line) if isinstance(line, str) else LoraSpec(line, 1.0, "both"))
        except ValueError:
            continue
    known = Draft.__dataclass_fields__
    draft = Draft(
        inputs, **{name: value for name, value in values.items() if name in known and name != "job"}, loras=tuple(specs)
    )
    with tempfile.TemporaryDirectory(dir=settings.cache) as folder:
        json.dumps(resolve(draft, settings, Path(folder)).to_dict())


def _rows_seeds() -> list[bytes]:
    import wan_ui.ui.markup  # noqa: F401 - takes long, and is no input's fault

    request = job_request(
        loras=[{"file": "a", "strength": 0.5, "target": "both"}], segments=[{"prompt": "b"}]
    ).to_dict()
    result = Result(
        clip="clip.mp4",
        poster="poster.jpg",
        frames=17,
        fps=16.0,
        seconds={"denoise": 1.0},
        step_seconds=(0.5,),
        facts={"engine": "diffusers"},
    )
    row = {
        "id": "a",
        "owner": "ann",
        "state": "done",
        "request": request,
        "result": result.to_dict(),
        "created": 1.5,
        "started": 2.0,
        "finished": 3.0,
        "stage": "denoise",
        "step": 1,
        "total": 4,
        "cancel": 0,
        "error": "",
        "turn": 1,
        "began": 1.0,
        "preview": "",
    }
    return [json.dumps(row).encode(), json.dumps({**row, "state": "running", "result": {}}).encode()]


def _rows_run(path: Path) -> None:
    from wan_ui.queue.estimate import eta, fraction
    from wan_ui.ui.markup import speaks, title

    values = _object(path)
    row = dict.fromkeys(COLUMNS)
    for name, value in values.items():
        if name in row:  # SQLite has texts, numbers and nothing
            whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
            row[name] = value if value is None or whole or isinstance(value, float | str) else json.dumps(value)
            if isinstance(row[name], str):
                row[name] = row[name].encode("utf-8", "replace").decode()
    job = _job(row)
    if job is None:
        return
    json.dumps(job.request.to_dict()), json.dumps(job.result.to_dict()), json.dumps(job.result.public())
    job.unread, title(job.request), speaks(job), job.request.stages()
    fraction(job, {}), eta(job, {})


# ---------------------------------------------------------------- all of them


@cache
def _settings() -> Settings:
    folder = Path(tempfile.mkdtemp(prefix="wan-ui-fuzz-"))
    for name in ("cache", "outputs"):
        (folder / name).mkdir()
    Image.new("RGB", (64, 48), "teal").save(folder / "outputs" / "picture.png")
    return replace(
        Settings(), outputs=folder / "outputs", cache=folder / "cache", models=folder / "models", loras=folder / "loras"
    )


def _object(path: Path) -> dict:
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"no JSON: {error}") from None  # such a request or row does not come that far
    return values if isinstance(values, dict) else {}


TARGETS = {
    "safetensors": Target(_safetensors_seeds, mutations.of_bytes, _safetensors_run, ".safetensors", 400, 200_000),
    "gguf": Target(_gguf_seeds, mutations.of_bytes, _gguf_run, ".gguf", 400, 200_000),
    "pth": Target(_pth_seeds, mutations.of_bytes, _pth_run, ".pth", 400, 200_000),
    "lora": Target(_lora_seeds, mutations.of_bytes, _lora_run, ".safetensors", 200),
    "picture": Target(_picture_seeds, mutations.of_bytes, _picture_run, ".png", 100),
    "sound": Target(_sound_seeds, mutations.of_bytes, _sound_run, ".wav", 2),
    "video": Target(_video_seeds, mutations.of_bytes, _video_run, ".mp4", 2),
    "mp4-metadata": Target(_metadata_seeds, _metadata_change, _metadata_run, ".mp4", 4),
    "probes": Target(_probes_seeds, mutations.of_text, _probes_run, ".json", 200),
    "catalog": Target(_catalog_seeds, mutations.of_text, _catalog_run, ".toml", 20),
    "settings": Target(_settings_seeds, mutations.of_values, _settings_run, ".json", 40),
    "api": Target(_api_seeds, mutations.of_values, _api_run, ".json", 40),
    "rows": Target(_rows_seeds, mutations.of_values, _rows_run, ".json", 300),
}
