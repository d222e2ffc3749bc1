"""python -m wan_ui node: this machine's workers run jobs of another machine's page."""

import argparse

from wan_ui import rules
from wan_ui.cluster.labels import NAME, own_name
from wan_ui.cluster.node import serve_node
from wan_ui.commands.options import by
from wan_ui.settings import settings

HEAD = by(rules.text("HOST:PORT", r"[^\s:]+:[0-9]{1,5}"))
NAMED = by(rules.text("letters, digits, - _ and . (at most 63)", NAME.pattern))


def add(commands) -> None:
    parser = commands.add_parser("node", help="run jobs of the page of another machine (Ray)")
    parser.add_argument("--head", required=True, metavar="HOST:PORT", type=HEAD, help="where its page says that Ray is")
    parser.add_argument(
        "--name", default=own_name(), type=NAMED, help="what this machine is called there (default: its host name)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    serve_node(args.head, args.name, settings())
    return 0
