"""docs/architecture.md says what is there: its rooms are the folders, its doors the tested ones, its places exist."""

import ast
import re

from tests.unit.test_doors import DOORS
from wan_ui.settings import ROOT

TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def table(title: str) -> list[list[str]]:
    """The rows of the first table after a heading."""
    after = TEXT.partition(f"## {title}\n")[2].partition("\n|")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in after.splitlines()[2:]]


def test_its_rooms_are_the_folders_and_its_doors_those_that_are_tested():
    rows = {room.replace("\\", ""): doors for room, _, doors in table("The rooms")}
    assert rows == DOORS
    folders = {path.parent.name for path in (ROOT / "wan_ui").glob("*/__init__.py")}
    assert folders == set(rows) - {"ground", "app", "__main__"}
    assert all((ROOT / folder).is_dir() for folder, _ in table("Beside the package"))


def defined(body: list[ast.stmt], names: list[str]) -> bool:
    found = [node for node in body if getattr(node, "name", None) == names[0]]
    return bool(found) and (len(names) == 1 or any(defined(node.body, names[1:]) for node in found))


def test_its_files_and_functions_exist():
    hops = re.findall(r"`((?:wan_ui|tests|configs)/[\w/]+\.(?:py|toml|json))(?::([\w.]+))?`", TEXT)
    assert sum(bool(function) for _, function in hops) >= 14
    for file, function in hops:
        if "MODEL" in file:
            continue
        assert (ROOT / file).is_file(), file
        if function:
            tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
            assert defined(tree.body, function.split(".")), f"{file} has no {function}"
