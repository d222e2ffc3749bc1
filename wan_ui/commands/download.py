"""python -m wan_ui download: fetch what a model and scheme need."""

import argparse

from tqdm import tqdm

from wan_ui import download
from wan_ui.catalog import find_model, load_catalog
from wan_ui.commands import options
from wan_ui.commands.progress import Lines, watched
from wan_ui.hardware import engine_name
from wan_ui.settings import settings


def add(commands) -> None:
    parser = commands.add_parser("download", help="fetch what a model and scheme need")
    parser.add_argument("model", metavar="MODEL", help="i2v-a14b, ti2v-5b ...: see configs/catalog.toml")
    parser.add_argument("scheme", metavar="SCHEME", nargs="?", default="", help="default: the model's")
    parser.add_argument(
        "--engine",
        type=options.engine,
        default="auto",
        help="auto | lightx2v | diffusers: they read different VAE files",
    )
    parser.add_argument("--dry-run", action="store_true", help="only show files and sizes")
    parser.add_argument("--check", action="store_true", help="compare files that are there with the hub's checksums")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    config = settings()
    model = find_model(load_catalog(config.catalog), args.model)
    scheme = model.scheme(args.scheme)
    engine = engine_name(args.engine, config)
    items = download.plan(model, scheme, config, engine, check=args.check)
    attached = {scheme.lora_high: "distill LoRA, high noise", scheme.lora_low: "distill LoRA, low noise"}
    for item in items:
        state = "there" if item.present else f"{item.have / 1e9:.2f} GB there" if item.have else "to download"
        role = attached.get(f"{item.repo}:{item.file}", "")
        name = f"{item.repo}/{item.file}" + (f" ({role})" if role else "")
        print(f"{item.size / 1e9:8.2f} GB  {state:<14}  {name} -> {item.target}")
    for repo in dict.fromkeys(item.repo for item in items):
        revision = model.revision(repo)
        print(f"{'revision':>11}  {revision}{' (no commit is pinned)' if revision == 'main' else ''}  {repo}")
    if not scheme.distilled:
        print(
            f"{'note':>11}  the files hold the base model; the distill LoRA pair is loaded with them, on both experts"
        )
    left = sum(item.left for item in items)
    print(f"{left / 1e9:8.2f} GB  to download for {model.name} {scheme.name} with {engine}")
    if args.dry_run:
        return 0
    lines = Lines()
    with tqdm(total=left, unit="B", unit_scale=True, disable=not left or not watched()) as bar:
        before = {item.file: item.have for item in items}

        def show(item: download.Item, done: int) -> None:
            bar.set_description_str(item.target.name, refresh=False)
            bar.update(done - before[item.file])  # less than nothing when a file starts again
            before[item.file] = done
            if bar.disable:
                lines.tell(item.file, f"{item.target.name}: {done / 1e9:.2f} of {item.size / 1e9:.2f} GB")

        download.fetch(items, show)
    print("all files are there")
    return 0
