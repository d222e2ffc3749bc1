"""python -m wan_ui convert: weights into the layout of the official release, of Diffusers or of ComfyUI."""

import argparse
import time
from pathlib import Path

from tqdm import tqdm

from wan_ui.commands.progress import Lines, watched
from wan_ui.files import convert


def add(commands) -> None:
    parser = commands.add_parser("convert", help="weights into another layout: official, diffusers or comfyui")
    parser.add_argument("file", metavar="FILE", type=Path, help="a file, a folder of parts, or a model's whole folder")
    parser.add_argument("--to", required=True, metavar="LAYOUT", help="official | diffusers | comfyui")
    parser.add_argument("--out", type=Path, metavar="PLACE", help="default: beside FILE, its name and the layout's")
    parser.add_argument(
        "--dtype", default="keep", help="keep (default) | bf16 | fp16 | fp32: plain numbers, scales multiplied in"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be written")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    parts = convert.plan(args.file, args.to, args.dtype)
    target = args.out or default_target(args.file, parts, args.to)
    for part in parts:
        print(f"{part.nbytes / 1e9:8.2f} GB  {len(part.tensors)} tensors of {part.source} -> {target / part.file}")
        for note in part.notes:
            print(f"{'note':>11}  {note}")
    if args.dry_run:
        return 0
    lines, began = Lines(), time.monotonic()
    with tqdm(total=2 * sum(part.nbytes for part in parts), unit="B", unit_scale=True, disable=not watched()) as bar:

        def report(words: str, done: int, total: int) -> None:
            bar.set_description_str(words, refresh=False)
            bar.update(done - bar.n)
            if bar.disable:
                left = (time.monotonic() - began) * (total - done) / max(done, 1)
                lines.tell(words, f"{words}: {done / 1e9:.2f} of {total / 1e9:.2f} GB, about {left:.0f} s left")

        convert.write(parts, target, report)
    print(f"{target}: written, and every tensor compared with its source")
    return 0


def default_target(source: Path, parts: list[convert.Part], to: str) -> Path:
    """Beside the source: NAME-LAYOUT, with the suffix of a file where it is one."""
    name = source.name if source.is_dir() else source.name.removesuffix(".index.json").rpartition(".")[0]
    return source.absolute().with_name(f"{name}-{to}{parts[0].suffix}")
