"""python -m wan_ui loras: what the LoRA folder holds, and what each file is."""

import argparse
import json

from wan_ui.loras import available, base_title
from wan_ui.settings import settings


def add(commands) -> None:
    parser = commands.add_parser("loras", help="what the LoRA folder holds, and what each file is")
    parser.add_argument("--json", action="store_true", help="all that is known of each, as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    config = settings()
    entries = available(config)
    if args.json:
        print(json.dumps({"folder": str(config.loras), "loras": [entry.to_dict() for entry in entries]}))
        return 0
    print(f"{config.loras} (WAN_UI_LORAS), and those that ship with Wan UI:")
    for entry in entries:
        print(f"\n{entry.name}")
        if entry.problem:
            print(f"  cannot be used: {entry.problem}")
            continue
        ranks = " to ".join(map(str, sorted({entry.ranks[0], entry.ranks[-1]}))) if entry.ranks else "none"
        layers = ", ".join(
            f"{count} layers" + ("" if side == "both" else f" ({side})") for side, count in entry.layers.items()
        )
        print(f"  for {base_title(entry.fits)}: {entry.fits_why}")
        print(f"  rank {ranks}, {layers}, {entry.key_format} keys, {entry.size / 1e6:.1f} MB")
        print(f"  expert: {entry.made_for.replace('_', ' ')} ({entry.made_for_why})")
        for line in (*entry.left_out, entry.strength_note):
            if line:
                print(f"  not used: {line}" if line in entry.left_out else f"  {line}")
        if entry.trigger_words:
            print(f"  trigger words: {', '.join(entry.trigger_words)}")
        if entry.notes:
            print(f"  {entry.notes}")
    return 0
