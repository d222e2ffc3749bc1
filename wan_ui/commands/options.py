"""Options that several commands share."""

import argparse
from collections.abc import Callable, Iterable
from typing import Any

from wan_ui import rules
from wan_ui.catalog import parse_size
from wan_ui.crop import read_crop
from wan_ui.errors import UserError
from wan_ui.loras.choice import read_spec
from wan_ui.machine.offload import WAYS
from wan_ui.place import COMMAND
from wan_ui.queue.draft import MAX_SEED, MOST_CLIPS, Draft
from wan_ui.recipes import CACHES, MOTIONS, SOLVERS, read_shift
from wan_ui.request import LoraSpec
from wan_ui.rules import Rule
from wan_ui.settings import ENGINES, RULES
from wan_ui.speaking import LATEST, MOST_FACES, NAMES, PART, WORDS
from wan_ui.tasks import FORM, TASKS, Input


def by(rule: Rule) -> Callable:
    """A rule as the `type` of an option: argparse names the option, the value and what is allowed."""

    def read(value: str):
        try:
            return rule.read(value)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{value!r}: expected {rule.allowed}") from None

    return read


def by_setting(name: str) -> Callable:
    return by(RULES[name])


def engine(value: str) -> str:
    return value and by(rules.one_of(*ENGINES))(value)  # argparse reads the default "" as well


def any_of(names: Iterable[str]) -> Callable:
    """Of these, or nothing: argparse reads the default "" as well."""
    return lambda value: value and by(rules.one_of(*names))(value)


def shift(value: str) -> float:
    try:
        return read_shift(value)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("shift: ")) from None


def size(value: str) -> str:
    """WxH, or auto. Which sizes there are depends on the model."""
    if value != "auto":
        try:
            parse_size(value)
        except UserError:
            raise argparse.ArgumentTypeError(
                f"{value!r}: expected WIDTHxHEIGHT, for example 256x256, or auto"
            ) from None
    return value


def crop(value: str) -> str:
    try:
        read_crop(value, "crop")
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("crop: ")) from None
    return value


# What `add_model_options` adds, by the names of a Draft.
MODEL_OPTIONS = (
    *("model", "scheme", "engine", "size", "frames", "steps", "fps", "draft"),
    *("motion", "negative", "guidance", "shift", "solver", "cache", "overlap", "offload"),
    *("without_picture", "crop", "end_crop", "seconds"),
)
positive = by(rules.whole(1))
seconds = by(rules.number(0.1, 3600, "a number of seconds from 0.1 to 3600"))
second = by(rules.number(0, LATEST))
face = by(rules.whole(0, MOST_FACES))
clips = by(rules.whole(1, MOST_CLIPS))
seed = by(rules.whole(-1, MAX_SEED, f"a whole number from 0 to {MAX_SEED}, or -1 to draw one"))


def switch(value: str) -> bool:
    return bool(by(rules.one_of(0, 1))(value))


def task(value: str) -> str:
    return value and by(rules.one_of(*(task.short for task in TASKS.values() if task.short)))(value)


def add_model_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", default="", help="see configs/catalog.toml (default wan-tiny)")
    command.add_argument("--scheme", default="", help="how the weights are stored: bf16, fp8, gguf-Q8_0 ...")
    command.add_argument("--engine", type=engine, default="", help="auto | lightx2v | diffusers")
    command.add_argument(
        "--size", type=size, default="auto", metavar="WxH", help="default: the size nearest the picture's shape"
    )
    length = command.add_mutually_exclusive_group()
    length.add_argument("--frames", type=positive, metavar="N")
    length.add_argument(
        "--seconds", type=seconds, metavar="S", help="in place of --frames: the nearest length that the model makes"
    )
    command.add_argument(
        "--crop",
        type=crop,
        metavar="X,Y[,ZOOM]",
        help="part of the picture: its centre, 0 to 1, and 1 to 8 times closer",
    )
    command.add_argument("--end-crop", type=crop, metavar="X,Y[,ZOOM]", help="the same of the picture to end at")
    command.add_argument("--steps", type=positive, metavar="N", help="denoise steps (default: the model's)")
    command.add_argument("--motion", default="", type=any_of(MOTIONS), help=f"{' | '.join(MOTIONS)}: how it is sampled")
    command.add_argument(
        "--negative", metavar="TEXT", help="what the clip is to be pushed away from (default: the official text)"
    )
    command.add_argument(
        "--guidance", metavar="A[,B]", help="how strongly the prompt counts, 1 to 20: of the high, the low-noise expert"
    )
    command.add_argument("--shift", type=shift, metavar="X", help="1 to 20: how long the steps stay at high noise")
    command.add_argument("--solver", default="", type=any_of(SOLVERS), help=f"{' | '.join(SOLVERS)}")
    command.add_argument(
        "--cache", default="", type=any_of(CACHES), help=f"{' | '.join(CACHES)}: leave out what hardly changes a step"
    )
    command.add_argument(
        "--overlap", type=positive, metavar="N", help="frames that segments of a performed clip share: 1 (default) or 5"
    )
    command.add_argument(
        "--offload",
        default="",
        type=any_of(WAYS),
        metavar="WAY",
        help=f"{' | '.join(WAYS)}: where the weights are while a GPU makes the clip (default: what fits)",
    )
    command.add_argument(
        "--fps", type=positive, metavar="N", help="frames per second of the clip (default: what the model was made for)"
    )
    command.add_argument(
        "--without-picture", action="store_true", help="the MP4 does not carry the picture that it was made of"
    )
    command.add_argument(
        "--draft", action="store_true", help="quicker and less exact, where the engine and the GPU have the means"
    )


def add_inputs(command: argparse.ArgumentParser, inputs: Iterable[Input]) -> None:
    """One option for each input of a task."""
    for entry in inputs:
        value = "TEXT" if entry.kind == "text" else "FILE"
        option = entry.option or f"--{entry.name.replace('_', '-')}"
        command.add_argument(
            option, dest=entry.name, required=entry.required, default="", metavar=value, help=entry.help
        )


def add_speaking_options(command: argparse.ArgumentParser, lips: bool = True) -> None:
    """How a sound is spoken: see wan_ui.speaking. lips: are moved to it"""
    for name in PART:
        command.add_argument(f"--{name.replace('_', '-')}", type=second, metavar="S", help=WORDS[name])
    if lips:
        command.add_argument("--face", type=face, metavar="N", help=WORDS["face"])
        words = "leave the mouth as it was drawn, softer than the face around it"
        command.add_argument("--no-sharpen", action="store_false", dest="sharpen", help=words)
        command.add_argument("--every-sound", action="store_true", help=WORDS["every_sound"])


def speaking(args: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(args, name) for name in NAMES if getattr(args, name, None) is not None}


def add_lora_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--lora",
        action="append",
        default=[],
        type=lora_spec,
        metavar="FILE[:STRENGTH[:TARGET]]",
        help="a LoRA of the folder, or any file; strength -4 to 4 (default 1); target high_noise, low_noise or both "
        f"(default: what it was made for). Repeatable. `{COMMAND} loras` lists the folder",
    )


def lora_spec(text: str) -> LoraSpec:
    """See `loras.read_spec`. Raises argparse.ArgumentTypeError."""
    try:
        return read_spec(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def draft(args: argparse.Namespace, **more) -> Draft:
    """Of the options of `add_model_options` and `add_lora_option`, and of the inputs that the command has."""
    inputs = {entry.name: getattr(args, entry.name, "") for entry in FORM}
    settings = {name: getattr(args, name) for name in MODEL_OPTIONS}
    loras = tuple(getattr(args, "lora", ()))
    return Draft(inputs, loras=loras, lora_paths=True, speaking=speaking(args), **settings, **more)
