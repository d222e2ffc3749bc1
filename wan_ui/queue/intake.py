"""What a person asked for -> a Request in which everything is decided, or a UserError naming the field.

The page, the command line and the API all come through here, so a forged value is caught whatever
door it used.
"""

import reprlib
import secrets
from dataclasses import dataclass, replace
from pathlib import Path

from wan_ui import loras
from wan_ui.catalog import Model, find_model, load_catalog, parse_size
from wan_ui.errors import UserError
from wan_ui.files import places
from wan_ui.media.images import fit, open_image
from wan_ui.queue import words
from wan_ui.queue.speech_intake import take_audio
from wan_ui.request import LoraSpec, Request
from wan_ui.settings import ENGINES, Settings
from wan_ui.valid_text import valid_text

MAX_SEED = 2**32 - 1
TEXTS, PATHS = ("prompt", "model", "scheme", "engine", "size", "image", "audio"), ("image", "audio")


@dataclass(frozen=True)
class Draft:
    """A request as typed. None and empty strings mean "choose for me"; seed -1 means a random one."""

    image: str = ""
    prompt: str = ""
    model: str = ""
    scheme: str = ""
    engine: str = ""
    size: str = "auto"
    frames: int | None = None
    steps: int | None = None
    fps: int | None = None
    seed: int = -1
    loras: tuple[LoraSpec, ...] = ()
    audio: str = ""  # a sound file: the face in the clip is to speak it
    lora_paths: bool = False  # the command line may name any LoRA file; the page only those in the folder


def resolve(draft: Draft, settings: Settings, folder: Path) -> Request:
    """Check `draft`, write the cropped picture into `folder` as input.png. Raises UserError."""
    draft = replace(draft, **{name: _text(name, getattr(draft, name)) for name in TEXTS})
    model = find_model(load_catalog(settings.catalog), draft.model or settings.model)
    scheme = model.scheme(draft.scheme)
    engine = draft.engine or settings.engine
    if engine not in ENGINES:
        raise UserError(f"engine: {engine!r} is not known; choose one of {', '.join(ENGINES)}", field="engine")
    missing = places.availability(model, scheme, settings, engine)
    if missing:
        raise UserError(f"model: {model.name} with {scheme.name} cannot run here: {missing}", field="model")
    prompt = _prompt(draft.prompt, settings.max_prompt)
    frames = _whole("frames", model.default_frames if draft.frames is None else draft.frames)
    if frames not in model.frames:
        raise UserError(f"frames: {model.name} makes {_list(model.frames)} frames, not {frames}", field="frames")
    steps = _whole("steps", model.default_steps if draft.steps is None else draft.steps)
    fewest, most = model.steps
    if not fewest <= steps <= most:
        raise UserError(f"steps: {model.name} takes {fewest} to {most} steps, not {steps}", field="steps")
    fps = _whole("fps", model.fps if draft.fps is None else draft.fps)
    if fps not in model.rates:
        raise UserError(f"fps: {model.name} plays at {_list(model.rates)} frames a second, not {fps}", field="fps")
    seed = _seed(draft.seed)
    chosen = loras.check(draft.loras, model, settings, paths=draft.lora_paths)
    reading = words.read_for(model, prompt, chosen, settings)
    if not draft.image:
        raise UserError("image: choose a picture first", field="image")
    image = open_image(draft.image)
    width, height = _size(draft.size, model, image.size)
    folder.mkdir(parents=True, exist_ok=True)
    audio, seconds = take_audio(draft.audio, settings, folder) if draft.audio else ("", 0.0)
    fit(image, width, height).save(folder / "input.png")
    return Request(
        image=str(folder / "input.png"),
        prompt=prompt,
        model=model.name,
        scheme=scheme.name,
        engine=engine,
        width=width,
        height=height,
        frames=frames,
        steps=steps,
        seed=seed,
        fps=fps,
        loras=chosen,
        audio=audio,
        audio_seconds=seconds,
        given=reading.text if reading else "",
        understood=reading.words if reading else "",
    )


def _text(field: str, value) -> str:
    """A path keeps bytes that are no text: a file has that name."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(f"{field}: {reprlib.repr(value)} is not text", field=field)
    if field in PATHS:
        if "\0" in value:
            raise UserError(f"{field}: {value!r} is not the name of a file", field=field)
        return value
    return valid_text(value)


def _prompt(text: str, limit: int) -> str:
    text = " ".join((text or "").replace("\0", " ").split())
    if not text:
        raise UserError("prompt: say what should happen, for example “slowly zoom in, sunset light”", field="prompt")
    if len(text) > limit:
        raise UserError(f"prompt: {len(text):,} characters; the limit is {limit:,}", field="prompt")
    return text


def _size(text: str, model: Model, picture: tuple[int, int]) -> tuple[int, int]:
    if not text or text == "auto":
        return model.closest_size(*picture)
    size = parse_size(text)
    if size not in model.sizes:
        offered = _list(f"{width}x{height}" for width, height in model.sizes)
        raise UserError(f"size: {model.name} makes {offered}, not {size[0]}x{size[1]}", field="size")
    return size


def _seed(seed: int) -> int:
    seed = _whole("seed", seed)
    if seed == -1:
        return secrets.randbelow(MAX_SEED + 1)
    if not 0 <= seed <= MAX_SEED:
        raise UserError(f"seed: {seed} is not between 0 and {MAX_SEED} (-1 draws one)", field="seed")
    return seed


def _whole(field: str, value) -> int:
    """An int, or a float without a fraction: that is what JSON makes of a number. True is not 1, nor is "1"."""
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int:
        raise UserError(f"{field}: {reprlib.repr(value)} is not a whole number", field=field)
    if abs(value) >= 2**63:  # Python refuses to print one of 4,300 digits
        raise UserError(f"{field}: a number of {value.bit_length()} bits is too large", field=field)
    return value


def _list(values) -> str:
    shown = [str(value) for value in values]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}"
