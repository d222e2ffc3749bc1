"""docs/hardening.md is what cases and marks say, and no case is without a test."""

from tests.hardening.cases import CASES
from tests.hardening.marks import marked
from tools.hardening_table import FILE, table


def test_the_table_is_current_and_every_case_has_a_test():
    numbers = {number for numbers in marked("hardening").values() for number in numbers}
    assert numbers == {case.number for case in CASES}
    assert FILE.read_text(encoding="utf-8") == table(), "run: python -m tools.hardening_table"
