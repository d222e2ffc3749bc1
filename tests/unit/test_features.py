"""docs/features.md says what the app can do; each yes names a test that is there."""

import re

from wan_ui.settings import ROOT

ROW = re.compile(r"^\| (\d+) \| (.+?) \| (yes|no) \| (.+) \|$", re.MULTILINE)
PROOF = re.compile(r"^`(tests/[\w/]+\.py)::(test_\w+)`")


def test_each_yes_has_its_test_and_each_no_its_reason():
    text = (ROOT / "docs/features.md").read_text(encoding="utf-8")
    rows = ROW.findall(text)
    assert [int(number) for number, *_ in rows] == list(range(1, 81))
    for number, feature, answer, cell in rows:
        proof = PROOF.match(cell)
        if answer == "yes":
            assert proof, f"{number} {feature}: no test is named"
            file, name = proof.groups()
            assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), (
                f"{number} {feature}: {file} has no {name}"
            )
        else:
            assert not proof and len(cell.split()) > 2, f"{number} {feature}: why not?"
    there = sum(answer == "yes" for _, _, answer, _ in rows)
    assert f"{there} are there, {80 - there} are not." in text
