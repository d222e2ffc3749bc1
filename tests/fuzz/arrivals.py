"""What is fuzzed of that which comes in by the page: what a clip's file carries, LoRAs for the shelf with their
pictures and names, files of presets, bodies of requests, how a voice is to be spoken."""

import asyncio
import base64
import io
import json
import tempfile
import threading
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from tests.fuzz import containers, mutations
from wan_ui.errors import UserError
from wan_ui.loras import arrival, checksums, covers, folder
from wan_ui.media import carried
from wan_ui.media.images import open_image
from wan_ui.settings import Settings
from wan_ui.speaking import NAMES, read_speaking, stored_speaking


def _values(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"no JSON: {error}") from None  # such a request does not come that far


# ---------------------------------------------------------------- behind a clip


@cache
def picture() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (24, 20), "teal").save(content, "PNG")
    return content.getvalue()


def carried_seeds() -> list[bytes]:
    sums = json.dumps([{"file": "a.safetensors", "files": [{"size": 9, "sha256": "0" * 64}]}]).encode()
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "clip.mp4"
        path.write_bytes(b"\0\0\0\x10ftypisom\0\0\0\0\0\0\0\x08mdat")
        carried.append(path, {"image": picture(), "last_image": picture(), carried.LORAS: sums})
        whole = path.read_bytes()
    large = b"\0\0\0\1uuid" + (16 + 22 + len(sums)).to_bytes(8, "big") + carried.OURS + b"\5loras" + sums
    return [whole, whole[:24] + large, whole[:24] + b"\0\0\0\0uuid" + carried.OURS + b"\5loras" + sums]


def carried_change(random: Random, base: bytes, others: list[bytes]) -> bytes:
    """Often the list of LoRAs, whose box is as long as it is then."""
    start = base.find(b'[{"file"')
    if start < 0 or random.random() < 0.6:
        return containers.change(random, base, others)
    end = base.index(b"]}]", start) + 3
    change = random.choice((mutations.of_values, mutations.of_text))
    return containers.with_part(base, start, end, change(random, base[start:end], others))


def carried_run(path: Path) -> None:
    found = carried.read(path)
    checksums.read(found.get(carried.LORAS, b""))
    for name in ("image", "last_image"):
        if name in found:
            stored = path.with_name(f"{path.name}.{name}")
            stored.write_bytes(found[name])
            open_image(stored)


# ---------------------------------------------------------------- the shelf


def shelf_seeds() -> list[bytes]:
    from tests.fuzz.targets import _entries, _safetensors  # which takes this module in

    names = ("diffusion_model.blocks.1.ffn.0.lora_A.weight", "diffusion_model.blocks.1.ffn.0.lora_B.weight")
    tensors = dict(zip(names, _entries((4, 8), (8, 4)).values(), strict=True))
    inside = base64.b64encode(picture()).decode()
    return [
        _safetensors({"__metadata__": texts | {"modelspec.tags": "a, b", "trigger_phrase": "sks"}, **tensors})
        for texts in (
            {"modelspec.thumbnail": f"data:image/png;base64,{inside}"},
            {"thumbnail": inside, "ss_tag_frequency": '{"a": {"sks": 4}}'},
            {"ssmd_cover_images": json.dumps([inside])},
        )
    ]


def shelf_run(path: Path) -> None:
    """A tile of the shelf, with the picture that is in the file."""
    from wan_ui.ui.lora_pictures import _made

    folder._read.cache_clear()
    entry = folder.read_file(path, path.name)
    json.dumps([entry.notes, *entry.tags, *entry.trigger_words])
    if not entry.problem and (cover := covers.cover_of(entry)) is not None:
        _made(covers.content_of(cover))


def arrival_seeds() -> list[bytes]:
    names = ("my lora.safetensors", "水" * 119 + ".safetensors")
    links = ("owner/repo/file.safetensors", "https://huggingface.co/o/r/resolve/main/a%20b.safetensors?download=true")
    return [json.dumps({"link": link, "name": name}).encode() for link, name in zip(links, names, strict=True)]


def arrival_run(path: Path) -> None:
    values = _values(path)
    values = values if isinstance(values, dict) else {}
    link, name = (value if isinstance(value := values.get(key), str) else "" for key in ("link", "name"))
    for read in (lambda: arrival.read_link(link, Settings()).url(Settings()), lambda: arrival.safe_name(name)):
        try:
            kept = read()
        except UserError as error:
            assert str(error).strip()
        else:
            kept.encode()
            assert kept.startswith("https://") or (Path(kept).name == kept and len(kept.encode()) < 256), kept


# ---------------------------------------------------------------- presets, bodies, voices


def presets_seeds() -> list[bytes]:
    settings = {"model": "wan-tiny", "size": "96x64", "steps": 4, "guidance": 3.5, "draft": False, "prompt": "a wave"}
    loras = [{"file": "a.safetensors", "strength": 0.5, "target": "both"}]
    one, two = ({"name": name, "settings": settings, "loras": loras} for name in ("calm", "wild"))
    return [json.dumps({"presets": [one, two], "start": "wild"}).encode(), json.dumps({"presets": [one]}).encode()]


def presets_run(path: Path) -> None:
    from wan_ui.ui import presets

    found = presets.read_file(path.read_bytes().decode("utf-8", "replace"))
    for preset in found["presets"]:
        assert presets.read(preset) == preset
    presets.told_html("read", found).encode()


BOUNDARY = b"----wan-ui"


def multipart_seeds() -> list[bytes]:
    head = b'Content-Disposition: form-data; name="files"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    encoded = b"Content-Disposition: form-data; name=files; filename*=UTF-8''%e2%82%ac.png\r\n\r\n"
    file, other = (b"--" + BOUNDARY + b"\r\n" + part + picture() + b"\r\n" for part in (head, encoded))
    field = b"--" + BOUNDARY + b'\r\nContent-Disposition: form-data; name="text"\r\n\r\nwords\r\n'
    end = b"--" + BOUNDARY + b"--\r\n"
    return [file + end, other + end, file + field + end]


def multipart_run(path: Path) -> None:
    """A form with a file, as /api/upload and the page's own upload take it."""
    from starlette.datastructures import Headers
    from starlette.formparsers import MultiPartException

    from wan_ui.ui.security import OneFile

    content = path.read_bytes()

    async def stream():
        for start in range(0, len(content), 100):
            yield content[start : start + 100]
        yield b""

    async def parse() -> None:
        headers = Headers({"content-type": f"multipart/form-data; boundary={BOUNDARY.decode()}"})
        with tempfile.TemporaryDirectory(dir=path.parent) as place:
            form = await OneFile(headers, stream(), upload_dir=place, max_file_size=10_000).parse()
            for file in form.getlist("files"):
                Path(file.filename or "x").name.encode("utf-8", "replace")
                file.file.close()

    came: list[Exception] = []

    def run() -> None:
        try:
            asyncio.run(parse())
        except Exception as error:
            came.append(error)

    # A thread that drives a browser has a loop of events already. One that never ends is a find, and left alone.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join()
    try:
        for error in came:
            raise error
    except MultiPartException as error:
        raise UserError(error.message or "a form that cannot be read") from None


def body_seeds() -> list[bytes]:
    return [json.dumps({"data": ["a wave", 1, None, {"path": "x"}], "fn_index": 3}).encode(), b"[[[1, 2], 3.5], true]"]


def body_run(path: Path) -> None:
    from wan_ui.ui.body import BodyRefused, check_json

    try:
        values = check_json(path.read_bytes())
    except BodyRefused as error:
        raise UserError(str(error)) from None
    json.dumps(values, ensure_ascii=False).encode()


def speaking_seeds() -> list[bytes]:
    given = {"audio_start": 1.5, "audio_end": "3", "every_sound": True, "face": 2, "sharpen": "no"}
    return [json.dumps(values).encode() for values in (given, {**given, "sharpen": False, "face": "1"})]


def speaking_run(path: Path) -> None:
    values = _values(path)
    stored_speaking(values)
    given = values if isinstance(values, dict) else {}
    read_speaking({name: given[name] for name in NAMES if name in given}).part.encode()
