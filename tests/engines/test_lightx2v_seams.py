"""The list of seams to LightX2V: one that is renamed fails the load by its name, and nothing is written beside it.

On the stand-in of upstream; tests/lightx2v/test_seams.py does the same on the real one.
"""

import ast
import inspect
import sys

import pytest

from tests.engines.lightx2v_standin import installed
from wan_ui.engines import lightx2v_seams as seams
from wan_ui.settings import ROOT

FILES = sorted(
    path
    for path in (ROOT / "wan_ui" / "engines").glob("*.py")
    if "lightx2v" in path.name and path.name != "lightx2v_seams.py"
)
SEAMS = [(place, name) for place, names in seams.SEAMS.items() for name in names if name != "__class__"]
METHODS = [
    (place, name)
    for place, names in seams.SEAMS.items()
    for name, parameters in names.items()
    if parameters is not None
]
OWN = [(place, name) for place, names in seams.OURS.items() for name in sorted(names)]


@pytest.fixture
def upstream():
    with installed([]):
        yield


def found(place: str):
    """The class of upstream, or the module."""
    module, _, name = place.partition(":")
    return getattr(sys.modules[module], name) if name else sys.modules[module]


def renamed(code, name):
    """The code with another name for an attribute, in the functions within it too."""
    constants = [renamed(item, name) if inspect.iscode(item) else item for item in code.co_consts]
    names = [f"{item}_of_old" if item == name else item for item in code.co_names]
    return code.replace(co_names=tuple(names), co_consts=tuple(constants))


def rename(place, name: str, monkeypatch) -> None:
    """As if upstream had given it another name: in the code of the class and of its bases, or in the module."""
    if not isinstance(place, type):
        monkeypatch.delattr(place, name)
        return
    for base in place.__mro__[:-1]:
        for key, member in list(vars(base).items()):
            function = inspect.unwrap(member) if callable(member) else getattr(member, "fget", member)
            if inspect.isfunction(function):
                monkeypatch.setattr(function, "__code__", renamed(function.__code__, name))
            if key == name:
                monkeypatch.delattr(base, key)


def ids(entries):
    return [f"{place.partition(':')[2]}.{name}" for place, name in entries]


def test_all_are_there(upstream):
    seams.verify()


@pytest.mark.parametrize(("place", "name"), SEAMS, ids=ids(SEAMS))
def test_a_renamed_one_is_named(upstream, monkeypatch, place, name):
    rename(found(place), name, monkeypatch)
    with pytest.raises(seams.SeamError, match=rf"^seam \S+\.{name}: it is gone .*--engine diffusers"):
        seams.verify()


@pytest.mark.parametrize(("place", "name"), METHODS, ids=ids(METHODS))
def test_one_that_takes_something_else_is_named(upstream, monkeypatch, place, name):
    monkeypatch.setattr(found(place), name, lambda self, something_else: None)
    with pytest.raises(seams.SeamError, match=rf"^seam \S+\.{name}: it takes \('self', 'something_else'\), expected"):
        seams.verify()


@pytest.mark.parametrize(
    "place", [place for place in seams.SEAMS if ":" in place], ids=lambda place: place.partition(":")[2]
)
def test_a_class_that_is_gone_is_named(upstream, monkeypatch, place):
    module, name = place.split(":")
    monkeypatch.delattr(sys.modules[module], name)
    with pytest.raises(seams.SeamError, match=rf"^seam {name}\..* {place} is gone"):
        seams.verify()


@pytest.mark.parametrize(("place", "name"), OWN, ids=ids(OWN))
def test_a_name_of_ours_that_upstream_takes_is_named(upstream, monkeypatch, place, name):
    monkeypatch.setattr(found(place), name, None, raising=False)
    with pytest.raises(seams.SeamError, match=rf"^seam \w+\.{name}: LightX2V has a use of its own"):
        seams.verify()


def test_what_is_not_in_the_list_is_not_written(upstream):
    blocks = found(seams.BLOCKS)()
    seams.put(blocks, "lora_variant", (1,))
    assert blocks.lora_variant == (1,)
    with pytest.raises(seams.SeamError, match=r"^seam WanTransformerInfer\.cur_model_index: it is written, but"):
        seams.put(blocks, "cur_model_index", 0)  # another class has that
    with pytest.raises(seams.SeamError, match="it is written, but"):
        seams.put(object(), "lora_variant", ())


# ---------------------------------------------------------------- nothing beside the list


def targets(node: ast.AST) -> list[ast.expr]:
    """What a statement assigns to or deletes, tuples taken apart."""
    match node:
        case ast.Assign():
            found = node.targets
        case ast.AugAssign() | ast.AnnAssign() | ast.For() | ast.NamedExpr():
            found = [node.target]
        case ast.Delete():
            found = node.targets
        case ast.With():
            found = [item.optional_vars for item in node.items if item.optional_vars]
        case _:
            return []
    return [
        leaf
        for target in found
        for leaf in ast.walk(target)
        if isinstance(getattr(leaf, "ctx", None), ast.Store | ast.Del)
    ]


def writes(tree: ast.AST) -> list[str]:
    """Attributes that are written on anything but `self`, and calls of setattr and delattr."""
    found = []
    for node in ast.walk(tree):
        for target in targets(node):
            if isinstance(target, ast.Attribute) and not (
                isinstance(target.value, ast.Name) and target.value.id == "self"
            ):
                found.append(f"line {node.lineno}: {ast.unparse(target)}")
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("setattr", "delattr", "object.__setattr__"):
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
        if isinstance(node, ast.Attribute) and node.attr == "__dict__":
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_other_place_writes(path):
    # What is not upstream's: torch's settings, objects of our own, and our copy of a record.
    allowed = {
        "lightx2v_compile": ["torch._dynamo.config.recompile_limit"],
        "lightx2v_build": ["graph.off", "graph.reason"],
        "lightx2v_steps": ["engine.entered"],
        "lightx2v_graphs": ["own.embed0", "own.context", "self.fused.turns"],
    }.get(path.stem, [])
    found = writes(ast.parse(path.read_text()))
    assert [line for line in found if line.partition(": ")[2] not in allowed] == []


def test_the_search_finds_them():
    code = "a.b = 1\na.b.c += 1\ndel a.b\nfor a.b in x: pass\nself.c, a.d = 1, 2\nsetattr(a, 'b', 1)\nself.e = f.g"
    assert len(writes(ast.parse(code))) == 6


def test_the_scheduler_overrides_and_adds_what_the_list_says():
    tree = ast.parse((ROOT / "wan_ui" / "engines" / "lightx2v_scheduler.py").read_text())
    (scheduler,) = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    assert [ast.unparse(base) for base in scheduler.bases] == ["WanScheduler"]
    methods = {node.name: node for node in scheduler.body if isinstance(node, ast.FunctionDef)}
    written = {
        node.attr for node in ast.walk(scheduler) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
    theirs, ours = seams.SEAMS[seams.SCHEDULER], seams.OURS[seams.SCHEDULER]
    assert set(methods) | written <= set(theirs) | ours
    for name, method in methods.items():
        if name in theirs:
            assert tuple(argument.arg for argument in method.args.args) == theirs[name]
