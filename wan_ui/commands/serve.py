"""python -m wan_ui serve: the page."""

import argparse
from dataclasses import replace

from wan_ui.commands.options import by_setting
from wan_ui.place import COMMAND
from wan_ui.settings import settings


def add(commands) -> None:
    parser = commands.add_parser("serve", help="start the page")
    parser.add_argument(
        "--host", type=by_setting("host"), help="address to listen on (default 127.0.0.1: this machine only)"
    )
    parser.add_argument("--port", type=by_setting("port"), help="default 7860")
    parser.add_argument(
        "--ray",
        nargs="?",
        const="auto",
        metavar="HOST:PORT",
        type=by_setting("ray"),
        help=f"let other machines run jobs too ({COMMAND} node): auto, or the address of a Ray head",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from wan_ui.app import serve  # gradio is only needed here

    given = {"host": args.host, "port": args.port, "ray": args.ray}
    chosen = {name: value for name, value in given.items() if value is not None}
    serve(replace(settings(), **chosen))
    return 0
