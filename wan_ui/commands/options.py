"""Options that several commands share."""

import argparse
import re

from wan_ui.intake import Draft
from wan_ui.loras import TARGETS
from wan_ui.request import LoraSpec


def add_model_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", default="", help="see configs/catalog.toml (default wan-tiny)")
    command.add_argument("--scheme", default="", help="how the weights are stored: bf16, fp8, gguf-Q8_0 ...")
    command.add_argument("--engine", default="", help="auto | lightx2v | diffusers")
    command.add_argument("--size", default="auto", metavar="WxH", help="default: the size nearest the picture's shape")
    command.add_argument("--frames", type=int, default=0, metavar="N")
    command.add_argument("--steps", type=int, default=0, metavar="N", help="denoise steps (default: the model's)")


def add_lora_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--lora",
        action="append",
        default=[],
        type=lora_spec,
        metavar="FILE[:STRENGTH[:TARGET]]",
        help="a LoRA of the folder, or any file; strength -4 to 4 (default 1); target high_noise, low_noise or both "
        "(default: what it was made for). Repeatable. `python -m wan_ui loras` lists the folder",
    )


def lora_spec(text: str) -> LoraSpec:
    """ "sepia.safetensors:0.8:low_noise" -> LoraSpec. Raises argparse.ArgumentTypeError."""
    file, strength, target = re.fullmatch(r"(.+?)(?::([^:]*))?(?::([^:]*))?", text or " ").groups()
    if target is not None and target not in TARGETS:
        raise argparse.ArgumentTypeError(f"{text!r}: the target is one of {', '.join(TARGETS)}, not {target!r}")
    try:
        return LoraSpec(file, float(strength or 1), target or "auto")
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: the strength {strength!r} is not a number") from None


def draft(args: argparse.Namespace, **more) -> Draft:
    names = ("image", "prompt", "model", "scheme", "engine", "size", "frames", "steps")
    chosen = tuple(getattr(args, "lora", ()))
    return Draft(**{name: getattr(args, name) for name in names}, loras=chosen, lora_paths=True, **more)
