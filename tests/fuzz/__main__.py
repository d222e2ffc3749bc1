"""python -m tests.fuzz [NAME ...] [--minutes N | --inputs N]: go on fuzzing; finds are put into tests/fuzz/corpus/NAME.

Hypothesis draws where each batch of inputs begins; what follows from that is in `mutations`. Each target has a process
of its own that may use so much more memory than at its start, so many seconds for an input, and that may crash.
"""

import argparse
import json
import sys

from tests.fuzz.session import fuzz
from tests.fuzz.targets import TARGETS


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"of {', '.join(TARGETS)}; default: all")
    parser.add_argument(
        "--minutes", type=float, default=0.0, help="of each; default: until its number of inputs is reached"
    )
    parser.add_argument("--inputs", type=int, default=0, help="of each; default: 200,000 of headers, 20,000 of others")
    parser.add_argument("--seed", type=int, default=0, help="another one, other inputs")
    args = parser.parse_args(argv)
    for name in args.names:
        if name not in TARGETS:
            parser.error(f"{name!r}: expected {', '.join(TARGETS)}")
    results = [fuzz(name, args.inputs, args.minutes, args.seed) for name in args.names or TARGETS]
    print(json.dumps(results))
    return 1 if any(result["finds"] for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
