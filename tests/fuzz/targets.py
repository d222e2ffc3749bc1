"""What is fuzzed: of each parser of something from outside its good inputs, how they are spoilt, and how it is called.

A parser may raise UserError (rules of options and settings: ValueError as well, which is their word for it); whatever
else comes out is a find.
"""

import contextlib
import io
import json
import os
import re
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
from unittest import mock
from urllib.parse import urlsplit

import numpy as np
import pillow_heif
from PIL import Image, ImageCms

from tests.fuzz import arrivals, containers, mutations, texts, weight_files
from tests.job_requests import job_request
from wan_ui.catalog import load_catalog
from wan_ui.errors import UserError
from wan_ui.files.dit_file import parameters, read_parameters
from wan_ui.files.headers import check_pth, gguf_header, safetensors_header
from wan_ui.files.identify import identify
from wan_ui.files.model_configs import DEFAULTS, for_diffusers, read_official
from wan_ui.files.names import original_vae
from wan_ui.files.parts import read_weights
from wan_ui.files.sizes import t5_parameters, t5_sizes, vae_layout
from wan_ui.loras import folder
from wan_ui.loras.scales import read_scales
from wan_ui.machine.probe_results import ProbeResult, read_entries, read_result
from wan_ui.media import muxer, sound, video
from wan_ui.media.images import fit, open_image
from wan_ui.queue.draft import clips_of
from wan_ui.queue.intake import resolve
from wan_ui.queue.jobs import _job
from wan_ui.queue.schema import COLUMNS
from wan_ui.request import Result
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


def _safetensors(entries: dict, holes: bool = False) -> bytes:
    """holes: without the data, see `_with_holes`."""
    raw = json.dumps(entries).encode()
    end = max((entry["data_offsets"][1] for entry in entries.values() if "data_offsets" in entry), default=0)
    return struct.pack("<Q", len(raw)) + raw + (b"" if holes else bytes(end))


def _with_holes(path: Path) -> None:
    """A file that ends with its header gets as many zeros as that says, which take no place: real sizes are tried."""
    content = path.read_bytes()
    with contextlib.suppress(ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError):
        if len(content) == 8 + int.from_bytes(content[:8], "little"):
            entries = json.loads(content[8:])
            end = max(entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__")
            if 0 < end < 2**36:
                os.truncate(path, len(content) + end)


def _of(shapes: dict[str, tuple[int, ...]]) -> dict:
    """Entries of tensors of these shapes."""
    entries, end = {}, 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        entries[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    return entries


VAE = {
    "decoder.conv1.weight": (8, 4, 3, 3, 3),
    "conv2.weight": (4, 4, 1, 1, 1),
    "encoder.conv1.weight": (8, 3, 3, 3, 3),
    "decoder.head.2.weight": (3, 8, 3, 3, 3),
    "encoder.downsamples.0.residual.2.weight": (8, 8, 3, 3, 3),
    "encoder.downsamples.1.resample.1.weight": (8, 8, 3, 3),
    "encoder.downsamples.1.time_conv.weight": (8, 8, 3, 1, 1),
    "encoder.downsamples.2.residual.2.weight": (16, 8, 3, 3, 3),
}
LARGER_VAE = {name: shape for name, shape in VAE.items() if "downsamples" not in name} | {
    "encoder.downsamples.0.downsamples.0.residual.2.weight": (8, 8, 3, 3, 3),
    "encoder.downsamples.1.downsamples.0.residual.2.weight": (16, 8, 3, 3, 3),
    "encoder.downsamples.1.downsamples.1.time_conv.weight": (16, 8, 3, 1, 1),
}


@cache
def _text_encoder() -> dict[str, tuple[int, ...]]:
    sizes = {"vocab_size": 32, "dim": 8, "dim_attn": 8, "dim_ffn": 16, "num_heads": 2, "num_buckets": 4}
    return t5_parameters({**sizes, "encoder_layers": 2})


@cache
def _transformer() -> dict[str, tuple[int, ...]]:
    """Names and shapes of Wan-Tiny's, two blocks of it."""
    path = ROOT / "assets" / "wan-tiny" / "HighNoise" / "wan-tiny-HighNoise-Q8_0.gguf"
    tensors = gguf_header(path).tensors
    first = ("blocks.0.", "blocks.1.")
    return {
        name: info.shape for name, info in tensors.items() if not name.startswith("blocks.") or name.startswith(first)
    }


def _safetensors_seeds() -> list[bytes]:
    dit = _entries((8, 8), (8, 4), (2,), names="blocks.{}.self_attn.q.weight")
    config = {"dim": 16, "ffn_dim": 8, "num_layers": 2, "in_dim": 16, "out_dim": 16, "num_heads": 2, "face_size": 16}
    s2v = {**config, "model_type": "s2v", "audio_dim": 8, "cond_dim": 4, "audio_inject_layers": [0, 1]}
    animate = {**config, "model_type": "animate", "motion_encoder_dim": 8, "face_width": 8, "clip_width": 8}
    said = {"wan_ui.config": json.dumps(s2v)}
    return [
        _safetensors(dit),
        _safetensors({"__metadata__": {"format": "pt", "a": "high_noise"}, **_of(VAE)}),
        _safetensors(_of(LARGER_VAE)),
        _safetensors({}),
        _safetensors({"__metadata__": said, **_of(parameters(s2v))}, holes=True),
        _safetensors(_of(parameters(animate)), holes=True),
        _safetensors(_of(_transformer()), holes=True),
        _safetensors(
            _of({f"model.diffusion_model.{name}": shape for name, shape in _transformer().items()}), holes=True
        ),
        _safetensors(_of(_text_encoder()), holes=True),
    ]


def _safetensors_run(path: Path) -> None:
    _with_holes(path)
    identify(path)  # never raises: what is wrong is said in its answer
    tensors = safetensors_header(path).tensors
    for read in (vae_layout, t5_sizes):  # what an engine or a conversion asks for next
        with contextlib.suppress(UserError):
            read(path, original_vae(tensors))


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


def _index_seeds() -> list[bytes]:
    parts = {"blocks.0.self_attn.q.weight": PARTS[0], "blocks.1.self_attn.q.weight": PARTS[1]}
    return [
        json.dumps({"metadata": {"total_size": 512}, "weight_map": parts}).encode(),
        json.dumps({"weight_map": parts}, indent=1).encode(),
    ]


PARTS = ("x-00001-of-00002.safetensors", "x-00002-of-00002.safetensors")


def _index_run(path: Path) -> None:
    for number, part in enumerate(PARTS):
        if not (path.parent / part).exists():
            whole = _safetensors(_entries((8, 8), names=f"blocks.{number}.self_attn.q.weight"))
            (path.parent / part).write_bytes(whole)
    identify(path)
    read_weights(path)


def _config_seeds() -> list[bytes]:
    tiny = (ROOT / "assets" / "wan-tiny" / "high_noise_model" / "config.json").read_bytes()
    own = json.loads(tiny)
    s2v = {**own, "model_type": "s2v", "audio_dim": 8, "cond_dim": 4, "audio_inject_layers": [0, 1]}
    animate = {**own, "model_type": "animate", "motion_encoder_dim": 8, "face_size": 16, "face_width": 8}
    return [tiny, *(json.dumps(values).encode() for values in (s2v, animate, for_diffusers({**DEFAULTS, **own})))]


def _config_run(path: Path) -> None:
    read_parameters(path)
    values = read_official(path)
    if "num_heads" in values:
        for_diffusers(values)


def _adapter_seeds() -> list[bytes]:
    peft = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_rslora": False, "use_dora": False}
    patterns = {"alpha_pattern": {"blocks.0.ffn.0": 4}, "rank_pattern": {"^x\\.y$": 2}, "init_lora_weights": True}
    return [json.dumps(values).encode() for values in (peft, {**peft, **patterns}, {"transformer": {**peft}})]


def _adapter_run(path: Path) -> None:
    """adapter_config.json beside a LoRA."""
    scales = read_scales({}, path.read_bytes().decode("utf-8-sig", "replace"), False, False)
    scales.of(("blocks.0.ffn.0", "x.y"), 4, False)


def _lora_run(path: Path) -> None:
    folder._read.cache_clear()  # by size and time, which two inputs may share
    _with_holes(path)
    entry = folder.read_file(path, path.name)  # never raises: the entry says what is wrong
    assert isinstance(entry.problem, str)


# ---------------------------------------------------------------- pictures, sound, video


def _picture_seeds() -> list[bytes]:
    pillow_heif.register_heif_opener()  # what reads them alone cannot write
    y, x = np.mgrid[0:20, 0:24]
    image = Image.fromarray(np.stack([x * 9, y * 9, x + y], -1).astype(np.uint8))
    turned, profile = Image.Exif(), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    turned[0x0112] = 6
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
        ("HEIF", {"quality": 60}),
        ("JPEG2000", {}),
        ("JPEG2000", {"no_jp2": True}),
        ("ICO", {"sizes": [(16, 16), (24, 20)]}),
        ("ICO", {"sizes": [(24, 20)], "bitmap_format": "bmp"}),
        ("PPM", {}),
        ("MPO", {"save_all": True, "append_images": [image]}),
        ("PNG", {"save_all": True, "append_images": [image.rotate(90)], "duration": 40}),
        ("WEBP", {"save_all": True, "append_images": [image.rotate(90)], "duration": 40}),
        ("GIF", {"save_all": True, "append_images": [image.rotate(90)], "duration": 40}),
        ("JPEG", {"exif": turned.tobytes(), "icc_profile": profile}),
        ("PNG", {"exif": turned.tobytes(), "icc_profile": profile}),
        ("WEBP", {"exif": turned.tobytes(), "icc_profile": profile}),
        ("TIFF", {"icc_profile": profile, "compression": "tiff_deflate"}),
        ("TIFF", {"compression": "jpeg"}),
    ):
        content = io.BytesIO()
        image.save(content, kind, **options)
        found.append(content.getvalue())
    for mode, kind in (
        ("I;16", "PNG"),
        ("P", "PNG"),
        ("LA", "PNG"),
        ("RGBA", "PNG"),
        ("1", "PNG"),
        ("CMYK", "TIFF"),
        ("CMYK", "JPEG"),
        ("F", "TIFF"),
        ("I;16", "TIFF"),
        ("I", "TIFF"),
    ):
        content = io.BytesIO()
        image.convert("L").convert(mode).save(content, kind)
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
    """Mostly the settings inside it, the boxes around them as long as they are then."""
    start = base.find(b'{"prompt"')
    if start < 0 or random.random() < 0.15:
        return containers.change(random, base, others)
    end = start + json.JSONDecoder().raw_decode(base[start:].decode("latin-1"))[1]
    change = random.choice((mutations.of_values, mutations.of_values, mutations.of_text))
    return containers.with_part(base, start, end, change(random, base[start:end], others))


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
    names = [name for name in tomllib.loads(text) if name != "repositories"]
    parts = ["[" + part for part in text.split("\n[")[1:]]
    # Each model by itself: the whole takes a hundred times as long.
    each = [[part for part in parts if re.match(rf"\[{name}[\].]", part)] for name in names]
    some = [part for part in parts if part.startswith("[repositories")][:3]
    return [text.encode(), *("\n".join([*own, *some]).encode() for own in each)]


def _catalog_run(path: Path) -> None:
    load_catalog.cache_clear()  # by its path
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
        "WAN_UI_WEBHOOK": "https://hooks.example:8443/done?key=1",
    }
    return [json.dumps(values).encode()]


def _settings_run(path: Path) -> None:
    values = _object(path)
    settings = load_settings({name: text for name, text in values.items() if isinstance(text, str)})
    for url in (settings.webhook, settings.hub):
        (urlsplit(url).hostname or "").encode("idna")  # as it is looked up


def _api_seeds() -> list[bytes]:
    import wan_ui.ui.api_jobs  # noqa: F401 - takes long, and is no input's fault

    every = {
        "image": "PICTURE",
        "prompt": "zoom in",
        "model": "",
        "scheme": "",
        "size": "auto",
        "frames": 17,
        "steps": 4,
        "fps": 16,
        "seed": 5,
        "draft": False,
        "loras": "wan-tiny-teal-orange.safetensors:0.5:both",
        "motion": "",
        "negative": None,
        "guidance": None,
        "shift": None,
        "solver": "",
        "cache": "",
        "overlap": None,
        "task": "",
        "clips": 1,
    }
    several = {"image": "PICTURE", "prompt": "a", "segments": "pan left\nnight", "frames": 17, "steps": 2}
    return [json.dumps(values).encode() for values in (every, several, {"image": "PICTURE", "prompt": "a", "job": ""})]


def _api_run(path: Path) -> None:
    """As POST /api/jobs does, but for the queue."""
    from wan_ui.ui import api_jobs, rest, security
    from wan_ui.ui.api_values import PARAMETERS
    from wan_ui.ui.body import BodyRefused, check_json

    settings = _settings()
    try:
        values = check_json(path.read_bytes())
    except BodyRefused as error:
        raise UserError(str(error)) from None
    if not isinstance(values, dict):
        raise UserError("no object")
    known = {name: value for name, value in values.items() if name in PARAMETERS}
    for name in rest.FILES & known.keys():
        own = str(settings.outputs / "picture.png")
        known[name] = {"path": own} if known[name] == "PICTURE" else rest._file(known[name])
    with mock.patch.object(security, "get_upload_folder", lambda: str(settings.outputs)):
        draft = api_jobs.draft_of({**PARAMETERS, **known})
    clips_of(api_jobs.clips_of({**PARAMETERS, **known}))
    with tempfile.TemporaryDirectory(dir=settings.cache) as place:
        json.dumps(resolve(draft, settings, Path(place)).to_dict())


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
    "safetensors": Target(
        _safetensors_seeds, weight_files.of_safetensors, _safetensors_run, ".safetensors", 400, 200_000
    ),
    "gguf": Target(_gguf_seeds, weight_files.of_gguf, _gguf_run, ".gguf", 400, 200_000),
    "pth": Target(_pth_seeds, weight_files.of_pth, _pth_run, ".pth", 400, 200_000),
    "lora": Target(_lora_seeds, weight_files.of_safetensors, _lora_run, ".safetensors", 200, 200_000),
    "index": Target(_index_seeds, texts.of_json, _index_run, ".safetensors.index.json", 60),
    "config": Target(_config_seeds, texts.of_json, _config_run, ".json", 60),
    "adapter": Target(_adapter_seeds, texts.of_json, _adapter_run, ".json", 60),
    "picture": Target(_picture_seeds, containers.change, _picture_run, ".png", 100),
    "sound": Target(_sound_seeds, containers.change, _sound_run, ".wav", 2),
    "video": Target(_video_seeds, containers.change, _video_run, ".mp4", 2),
    "mp4-metadata": Target(_metadata_seeds, _metadata_change, _metadata_run, ".mp4", 4),
    "probes": Target(_probes_seeds, texts.of_json, _probes_run, ".json", 200),
    "catalog": Target(_catalog_seeds, texts.of_toml, _catalog_run, ".toml", 20),
    "settings": Target(_settings_seeds, mutations.of_values, _settings_run, ".json", 40),
    "api": Target(_api_seeds, mutations.of_values, _api_run, ".json", 40),
    "rows": Target(_rows_seeds, mutations.of_values, _rows_run, ".json", 300),
    "carried": Target(arrivals.carried_seeds, arrivals.carried_change, arrivals.carried_run, ".mp4", 100),
    "shelf": Target(arrivals.shelf_seeds, weight_files.of_safetensors, arrivals.shelf_run, ".safetensors", 60),
    "arrival": Target(arrivals.arrival_seeds, mutations.of_values, arrivals.arrival_run, ".json", 200),
    "presets": Target(arrivals.presets_seeds, texts.of_json, arrivals.presets_run, ".json", 60),
    "multipart": Target(arrivals.multipart_seeds, mutations.of_bytes, arrivals.multipart_run, ".bin", 60),
    "body": Target(arrivals.body_seeds, texts.of_json, arrivals.body_run, ".json", 100),
    "speaking": Target(arrivals.speaking_seeds, texts.of_json, arrivals.speaking_run, ".json", 100),
}
