"""What a patch is, and how its target is found and checked.

A patch replaces callables of LightX2V, named "module:qualified.name", whose parameters it knows.
Where a callable is gone or takes other parameters, upstream has moved on: `resolve` then fails by
the patch's name, which stops the load, since a patch that lands nowhere is worse than none.
Replacing is done once per process and never undone; each patch is right for every later load as well.
"""

import ast
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wan_ui.catalog import Scheme
from wan_ui.errors import UserError
from wan_ui.machine.hardware import Hardware

COMMIT = "f8aee98b5462"  # of ModelTC/LightX2V: what the patches were written for and tested with
MARK = "wan_ui_patch"  # attribute of a replaced callable: the patch's name


@dataclass(frozen=True)
class Facts:
    """All that `applies` may look at beside the scheme.

    kernel   upstream's name of the weight class: Default, fp8-torchao, fp8-sgl, gguf-Q8_0 ...
    offload  none | text | model | block: what waits in host memory
    dtype    BF16 | FP16: what the run computes in
    other_layout  whether the text encoder or the VAE is stored otherwise than in the release's `.pth`
    driven   voice | performance: what drives the model's clips; empty: nothing
    """

    hardware: Hardware
    embedded: bool = False
    kernel: str = "Default"
    offload: str = "none"
    dtype: str = "BF16"
    other_layout: bool = False
    driven: str = ""


@dataclass(frozen=True)
class Patch:
    """One patch. The file's docstring has the paragraphs Symptom, Mechanism and Remove when.

    phase       before_init: on the classes, before weights are read; after_init: on the loaded runner
    targets     the callables that are replaced or overruled: "module:qualified.name" -> upstream's parameters
    applies     whether this load needs it, and why (not)
    apply       put it in place; is given the runner after init, None before
    verify      look at what the consumer will call and compare numbers; what it found, in words;
                AssertionError if it did not land
    """

    name: str
    phase: str
    targets: dict[str, tuple[str, ...]]
    doc: str
    applies: Callable[[Facts, Scheme], tuple[bool, str]]
    apply: Callable[[Any], None]
    verify: Callable[[Any], str]

    def paragraph(self, title: str) -> str:
        """The paragraph of the docstring that starts with "<title>:", in one line."""
        for block in inspect.cleandoc(self.doc).split("\n\n"):
            if block.startswith(f"{title}:"):
                return " ".join(block.removeprefix(f"{title}:").split())
        raise ValueError(f"patch {self.name}: its docstring has no paragraph {title!r}")

    @property
    def target(self) -> str:
        return ", ".join(self.targets)

    @property
    def remove_when(self) -> str:
        return self.paragraph("Remove when")


class PatchError(UserError):
    """A patch is needed but cannot be put in place: the load stops. `field` is "patch " and its name."""

    def __init__(self, patch: Patch, why: str):
        super().__init__(
            f"patch {patch.name}: {why}. The patches are for LightX2V {COMMIT}; use that commit, "
            "or --engine diffusers, or see wan_ui/patches.",
            field=f"patch {patch.name}",
        )


def owner(target: str) -> tuple[Any, str]:
    """The module or class that holds the target, and the attribute's name. AttributeError or ImportError if gone."""
    module, _, qualified = target.partition(":")
    *path, name = qualified.split(".")
    place = importlib.import_module(module)
    for part in path:
        place = getattr(place, part)
    return place, name


def resolve(patch: Patch) -> bool:
    """Whether all targets are patched already; checks those that are not. Raises PatchError."""
    patched = True
    for target, parameters in patch.targets.items():
        try:
            place, name = owner(target)
            function = getattr(place, name)
        except (ImportError, AttributeError) as error:
            raise PatchError(patch, f"its target {target} is gone ({error})") from error
        if is_ours(function, patch.name):
            continue
        patched = False
        found = tuple(inspect.signature(function).parameters)
        if found != parameters:
            raise PatchError(patch, f"{target} takes {found}, expected {parameters}")
    return patched


def is_ours(function: Any, name: str) -> bool:
    """Whether the callable was put there by the patch called `name`."""
    return getattr(function, MARK, "") == name


def replace(patch_name: str, target: str, function: Callable) -> None:
    """Put `function` in the target's place, marked with the patch's name."""
    setattr(function, MARK, patch_name)
    place, name = owner(target)
    setattr(place, name, function)


def in_source(patch: Patch, checkout: Path) -> str:
    """ "" when all targets stand in the checkout with the expected parameters, else what is wrong. Imports nothing."""
    for target, parameters in patch.targets.items():
        module, _, qualified = target.partition(":")
        base = checkout.joinpath(*module.split("."))
        file = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        try:
            node: Any = ast.parse(file.read_text(encoding="utf-8"))  # then the class, then the function in it
        except (OSError, SyntaxError) as error:
            return f"{file}: {error}"
        for part in qualified.split("."):
            node = next((item for item in node.body if getattr(item, "name", None) == part), None)
            if node is None:
                return f"{file}: no {qualified}"
        found = tuple(arg.arg for arg in (*node.args.args, node.args.vararg, node.args.kwarg) if arg is not None)
        if found != parameters:
            return f"{file}: {qualified} takes {found}, expected {parameters}"
    return ""
