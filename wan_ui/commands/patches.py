"""python -m wan_ui patches: what is patched in LightX2V for a model, and why."""

import argparse
import json

from wan_ui import patches
from wan_ui.catalog import find_model
from wan_ui.engines import lightx2v_config
from wan_ui.files import found
from wan_ui.settings import settings


def add(commands) -> None:
    parser = commands.add_parser("patches", help="what is patched in LightX2V for a model, and why")
    parser.add_argument("--model", default="")
    parser.add_argument("--scheme", default="")
    parser.add_argument("--json", action="store_true", help="the whole report as JSON")
    parser.add_argument("--markdown", action="store_true", help="the README's table")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.markdown:
        print(patches.markdown())
        return 0
    config = settings()
    model = find_model(found.models(config), args.model or config.model)
    scheme = model.scheme(args.scheme)
    report = lightx2v_config.patch_report(model, scheme, config)
    if args.json:
        print(json.dumps({"model": model.name, "scheme": scheme.name, "commit": patches.COMMIT, "patches": report}))
        return 0
    for entry in report:
        print(f"{'applies' if entry['applies'] else '-':<8} {entry['name']:<15} {entry['why']}")
        if entry["target_found"] != "yes":
            print(f"{'':<8} {'':<15} target: {entry['target_found']}")
    return 0
