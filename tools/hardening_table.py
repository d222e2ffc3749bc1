"""docs/hardening.md from the cases and the tests that bear their numbers: python -m tools.hardening_table"""

from tests.fuzz import counts
from tests.hardening.cases import CASES
from tests.hardening.marks import marked
from wan_ui.settings import ROOT

FILE = ROOT / "docs" / "hardening.md"
BEGIN = """# Hard to break

What may happen, what is promised, and the tests that try it on the real app or module. Made from
`tests/hardening/cases.py` and the marks of the tests by `python -m tools.hardening_table`; a test keeps it current.
All of them: `python -m pytest -m hardening`.

| # | case | promise | tests |
|---|---|---|---|
"""
FUZZED = """
## What was fuzzed

`python -m tests.fuzz` gives each parser of something from outside spoilt inputs until the number that is meant; so far
it has come as far as this. Nothing but a refusal in words may come out, in 10 s of CPU and 3 GB at most. A number
without seconds is of shorter runs by hand. What was found is in `tests/fuzz/corpus`; every run of the tests tries it.

"""


def table() -> str:
    tests: dict[int, dict[str, list[str]]] = {}
    for (file, name), numbers in marked("hardening").items():
        for number in numbers:
            tests.setdefault(number, {}).setdefault(file, []).append(name)
    rows, untried = [], []
    for case in CASES:
        found = tests.get(case.number, {})
        cells = [f"[{file.removeprefix('tests/')}](../{file}): {', '.join(names)}" for file, names in found.items()]
        rows.append(f"| {case.number} | {case.case} | {case.promise} | {'<br>'.join(cells)} |")
        untried += [f"- **{case.number}**: {case.untried}"] if case.untried else []
    untold = "\n\nNot tried where the tests run:\n\n" + "\n".join(untried) + "\n"
    return BEGIN + "\n".join(rows) + untold + FUZZED + counts.table()


if __name__ == "__main__":
    FILE.write_text(table(), encoding="utf-8")
