"""python -m wan_ui download: fetch what a model and scheme need, or the official weights for speech."""

import argparse
from pathlib import Path

from tqdm import tqdm

from wan_ui.catalog import find_model
from wan_ui.commands import options
from wan_ui.commands.progress import Lines, watched
from wan_ui.errors import UserError
from wan_ui.files import download, found, pinning
from wan_ui.lipsync import downloads
from wan_ui.lipsync.choice import can_run_dwpose
from wan_ui.machine.engine_choice import choose_engine
from wan_ui.settings import Settings, settings

MUSETALK = "musetalk"


def add(commands) -> None:
    parser = commands.add_parser("download", help="fetch what a model and scheme need")
    parser.add_argument("model", metavar="MODEL", help="i2v-a14b, ti2v-5b ...: see configs/catalog.toml; or musetalk")
    parser.add_argument(
        "scheme", metavar="SCHEME", nargs="?", default="", help="default: the model's; of musetalk: dwpose, or none"
    )
    parser.add_argument(
        "--engine",
        type=options.engine,
        default="auto",
        help="auto | lightx2v | diffusers: they read different VAE files",
    )
    parser.add_argument("--dry-run", action="store_true", help="only show files and sizes")
    parser.add_argument("--check", action="store_true", help="compare files that are there with the hub's checksums")
    parser.add_argument("--draft", action="store_true", help="the small decoder that drafts take, too")
    parser.add_argument(
        "--pin",
        action="store_true",
        help="ask the hub for the newest commit, sizes and checksums of these files, and write them into the catalog",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    config = settings()
    if args.model == MUSETALK:
        return _speech(args, config)
    model = find_model(found.models(config), args.model)
    scheme = model.scheme(args.scheme)
    engine = choose_engine(args.engine, config, family=model.family).name
    if args.pin:
        changes = pinning.pin(model, scheme, config, engine, write=not args.dry_run)
        print("\n".join(changes) or "the catalog says what the hub says")
        if changes:
            print(f"{config.catalog}: {'not changed (--dry-run)' if args.dry_run else 'written'}")
        return 0
    items = download.plan(model, scheme, config, engine, check=args.check, draft=args.draft)
    _list(items, {scheme.lora_high: "distill LoRA, high noise", scheme.lora_low: "distill LoRA, low noise"})
    for repo in dict.fromkeys(item.repo for item in items):
        revision = model.revision(repo)
        print(f"{'revision':>11}  {revision}{' (no commit is pinned)' if revision == 'main' else ''}  {repo}")
    if scheme.distill_loras:
        print(
            f"{'note':>11}  the files hold the base model; the distill LoRA pair is loaded with them, on both experts"
        )
    return _fetch(items, f"{model.name} {scheme.name} with {engine}", args.dry_run)


def _speech(args: argparse.Namespace, config: Settings) -> int:
    if args.scheme not in ("", "dwpose"):
        raise UserError(f"scheme: {args.scheme!r} is not available for musetalk; choose dwpose, or none")
    items = downloads.plan(config, dwpose=args.scheme == "dwpose", check=args.check)
    _list(items, {})
    if args.scheme and not can_run_dwpose():
        print(f"{'note':>11}  `make dwpose` installs what runs DWPose's files")
    return _fetch(items, "speech with MuseTalk 1.5", args.dry_run)


def _list(items: list[download.Item], roles: dict[str, str]) -> None:
    for item in items:
        state = "there" if item.present else f"{item.have / 1e9:.2f} GB there" if item.have else "to download"
        role = roles.get(f"{item.repo}:{item.file}", "")
        name = f"{item.repo}/{item.file}" + (f" ({role})" if role else "")
        print(f"{item.size / 1e9:8.2f} GB  {state:<14}  {name} -> {item.target}")


def _fetch(items: list[download.Item], purpose: str, dry_run: bool) -> int:
    left = sum(item.left for item in items)
    print(f"{left / 1e9:8.2f} GB  to download for {purpose}")
    if dry_run:
        return 0
    lines = Lines()
    with tqdm(total=left, unit="B", unit_scale=True, disable=not left or not watched()) as bar:
        before = {item.target: item.have for item in items}

        def show(item: download.Item, done: int) -> None:
            bar.set_description_str(item.target.name, refresh=False)
            bar.update(done - before[item.target])  # less than nothing when a file starts again
            before[item.target] = done
            if bar.disable:
                lines.tell(str(item.target), f"{item.target.name}: {done / 1e9:.2f} of {item.size / 1e9:.2f} GB")

        def found_here(item: download.Item, path: Path) -> None:
            bar.write(f"{'found':>11}  {item.target.name} in {path.parent}: linked, not downloaded")

        download.fetch(items, show, found_here)
    print("all files are there")
    return 0
