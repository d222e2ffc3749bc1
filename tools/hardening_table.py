"""docs/hardening.md from the cases and the tests that bear their numbers: python -m tools.hardening_table"""

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
    return BEGIN + "\n".join(rows) + "\n\nNot tried where the tests run:\n\n" + "\n".join(untried) + "\n"


if __name__ == "__main__":
    FILE.write_text(table(), encoding="utf-8")
