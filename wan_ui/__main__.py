"""Command line: python -m wan_ui COMMAND, installed wan-ui COMMAND. Each command is a module of wan_ui/commands."""

import argparse
import contextlib
import logging
import sys
from typing import Any, NoReturn

from wan_ui import __version__
from wan_ui.commands import (
    after,
    backup,
    bench,
    check,
    compare,
    convert,
    doctor,
    download,
    generate,
    lipsync,
    loras,
    node,
    patches,
    pose,
    probe,
    serve,
    stages,
    workers,
)
from wan_ui.errors import UserError
from wan_ui.machine.preflight import say_anything
from wan_ui.place import COMMAND
from wan_ui.settings import terminal_language
from wan_ui.signals import Stop, stoppable
from wan_ui.words.terminal import Formatter, speaking

COMMANDS = (
    serve,
    generate,
    lipsync,
    after,
    pose,
    download,
    convert,
    loras,
    node,
    patches,
    backup,
    check,
    bench,
    stages,
    probe,
    compare,
    doctor,
    workers,
)


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage of every option before it."""

    def __init__(self, **options: Any):
        super().__init__(formatter_class=Formatter, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} ({self.prog} --help says more)\n")


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 done, 1 failed, 2 bad usage, 129, 130 and 143 cancelled with SIGHUP, Ctrl-C and SIGTERM."""
    say_anything()
    with speaking(terminal_language()) as Formatter.language:
        return _run(argv)


def _run(argv: list[str] | None) -> int:
    parser = Parser(prog=COMMAND, description="Wan2.2 video from pictures and words.")
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("-v", "--verbose", action="store_true", help="log what the app decides and why")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    args = parser.parse_args(argv)
    logging.basicConfig(
        level=logging.INFO if args.verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    try:
        with stoppable():
            code: int = args.run(args)
            return code
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Stop as stop:
        with contextlib.suppress(OSError):  # the terminal is gone
            print("cancelled", file=sys.stderr)
        return stop.code


def script() -> int:
    """`wan-ui` of the installed package: the page, where no command is named."""
    given = sys.argv[1:]
    general = ("-h", "--help", "--version", "-v", "--verbose")
    return main(given if given and (given[0] in general or not given[0].startswith("-")) else ["serve", *given])


if __name__ == "__main__":
    sys.exit(main())
