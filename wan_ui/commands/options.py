"""Options that several commands share."""

import argparse

from wan_ui.intake import Draft


def add_model_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", default="", help="see configs/catalog.toml (default wan-tiny)")
    command.add_argument("--scheme", default="", help="how the weights are stored: bf16, fp8, gguf-Q8_0 ...")
    command.add_argument("--engine", default="", help="auto | lightx2v | diffusers")
    command.add_argument("--size", default="auto", metavar="WxH", help="default: the size nearest the picture's shape")
    command.add_argument("--frames", type=int, default=0, metavar="N")
    command.add_argument("--steps", type=int, default=0, metavar="N", help="denoise steps (default: the model's)")


def draft(args: argparse.Namespace, **more) -> Draft:
    names = ("image", "prompt", "model", "scheme", "engine", "size", "frames", "steps")
    return Draft(**{name: getattr(args, name) for name in names}, **more)
