"""python -m wan_ui node: this machine's workers run jobs of another machine's page."""

import argparse

from wan_ui.commands.options import value_of
from wan_ui.settings import settings


def add(commands) -> None:
    parser = commands.add_parser("node", help="run jobs of the page of another machine (Ray)")
    parser.add_argument("--head", required=True, metavar="HOST:PORT", type=head, help="where its page says that Ray is")
    parser.add_argument("--name", default="", type=name, help="what this machine is called there (default: its host name)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from wan_ui.cluster.labels import own_name
    from wan_ui.cluster.node import serve_node

    serve_node(args.head, args.name or own_name(), settings())
    return 0
