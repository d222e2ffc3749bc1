"""Which room imports which: read from every import of wan_ui, those inside functions and for types alone included.

A room is a folder of wan_ui; `ground` is the files that lie beside the folders. What a person starts is a room each.
"""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

from wan_ui.settings import ROOT

# Each room imports those that are named behind it and no other. All of them stand above it, so there is no circle.
DOORS = {
    "ground": "",
    "words": "",
    "media": "ground",
    "machine": "ground",
    "files": "ground machine",
    "loras": "ground files",
    "patches": "ground machine files",
    "engines": "ground media machine files loras patches",
    "lipsync": "ground media files",
    "performance": "ground media lipsync",
    "afterwork": "ground media files",
    "qa": "ground media machine files engines",
    "queue": "ground media machine files loras engines lipsync performance afterwork qa",
    "cluster": "ground machine files loras queue",
    "reports": "ground media machine files loras engines performance qa queue",
    "ui": "ground words media machine files loras patches lipsync performance qa queue reports",
    "app": "ground machine queue cluster ui",
    "commands": "ground media machine files loras patches engines lipsync performance qa queue cluster reports app",
    "__main__": "ground words machine commands",
}
# Who may import a library, and from where no import may lead to it before a function is called.
LIBRARIES = {
    "lightx2v": ("engines/lightx2v", "patches/"),
    "lightx2v_platform": ("engines/lightx2v", "patches/"),
    "diffusers": ("engines/", "lipsync/"),
    "gradio": ("ui/",),
    "gradio_client": ("ui/",),
    "ray": ("cluster/",),
}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in (ROOT / "app.py", *sorted((ROOT / "wan_ui").rglob("*.py")))}


def room_of(module: str) -> str:
    name = module.split(".")[1] if "." in module else module
    return name if name in ("app", "__main__") or (ROOT / "wan_ui" / name).is_dir() else "ground"


def imports_of(tree: ast.AST, package: str) -> set[str]:
    """Full names of the modules that are imported below `tree`; of this repository's the very file."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{package}: imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else node.module)
    return found


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@cache
def all_imports() -> dict[str, set[str]]:
    return {module: imports_of(tree_of(module), module) for module in MODULES}


@cache
def at_import(module: str) -> set[str]:
    """What importing a module imports: what stands in functions waits, what is for types alone is never imported."""
    kept = []
    waiting = list(tree_of(module).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            kept.append(node)
        waiting += ast.iter_child_nodes(node)
    return imports_of(ast.Module(kept, []), module)


def all_at_import(module: str) -> set[str]:
    """The same of all that it imports in turn, the packages' own files included."""
    seen: set[str] = set()
    waiting = {module}
    while waiting:
        name = waiting.pop()
        seen.add(name)
        if name in MODULES:
            parents = {name.rsplit(".", count)[0] for count in range(1, name.count(".") + 1)}
            waiting |= (at_import(name) | parents) - seen
    return seen


def test_rooms_import_only_what_the_table_says_and_no_circle_is_possible():
    found = {room: set() for room in DOORS}
    for module, imported in all_imports().items():
        found[room_of(module)] |= {room_of(name) for name in imported if name in MODULES} - {room_of(module)}
    assert {room: " ".join(name for name in DOORS if name in doors) for room, doors in found.items()} == DOORS
    for number, room in enumerate(DOORS):
        assert set(DOORS[room].split()) <= set(list(DOORS)[:number]), f"{room} imports a room that stands below it"


def test_no_file_imports_itself_by_way_of_others():
    circles, done = [], set()

    def visit(module: str, way: list[str]) -> None:
        if module in way:
            circles.append(" -> ".join([*way[way.index(module) :], module]))
        if module in done or module in way:
            return
        for name in sorted(all_imports()[module] & MODULES.keys()):
            visit(name, [*way, module])
        done.add(module)

    for module in MODULES:
        visit(module, [])
    assert circles == []


def test_libraries_are_imported_where_they_belong():
    wrong = []
    for module, imported in all_imports().items():
        place = str(MODULES[module].relative_to(ROOT)).removeprefix("wan_ui/")
        for name in imported:
            allowed = LIBRARIES.get(name.partition(".")[0])
            if allowed is not None and not place.startswith(allowed):
                wrong.append(f"{place} imports {name}")
            if name.partition(".")[0] == "diffusers" and place.startswith("engines/lightx2v"):
                wrong.append(f"{place} imports {name}")
    assert wrong == []


def test_the_page_imports_no_torch():
    """Nor do the rooms of the page import it inside a function: only the worker and children may."""
    for start in ("app", "wan_ui.ui", "wan_ui.__main__"):
        loaded = all_at_import(start)
        assert not {name for name in loaded if name.partition(".")[0] in ("torch", "diffusers", "transformers")}, start
    for module, imported in all_imports().items():
        if room_of(module) in ("ground", "media", "loras", "ui", "app", "commands", "__main__"):
            assert not {name for name in imported if name.partition(".")[0] == "torch"}, module


def test_the_page_imports_no_ray():
    """It ends processes where it fails: only the dispatcher, the actors and what starts Ray may."""
    for start in ("app", "wan_ui.ui", "wan_ui.__main__", "wan_ui.cluster.cluster", "wan_ui.cluster.node"):
        assert not {name for name in all_at_import(start) if name.partition(".")[0] == "ray"}, start


def test_the_worker_imports_no_page():
    for start in ("wan_ui.queue.worker", "wan_ui.queue.desk", "wan_ui.engines.diffusers", "wan_ui.lipsync.speech"):
        assert not {name for name in all_at_import(start) if name.partition(".")[0] == "gradio"}, start


def test_importing_the_lightx2v_engine_loads_neither_diffusers_nor_the_examination():
    code = "import sys, wan_ui.engines.lightx2v; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    wrong = [name for name in loaded if name == "diffusers" or name.startswith(("wan_ui.qa", "wan_ui.queue"))]
    assert wrong == [] and "wan_ui.engines.lightx2v" in loaded
