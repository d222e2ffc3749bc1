"""Which tests bear a mark, read from their source: `@pytest.mark.hardening(7)`, `@pytest.mark.limit("MAX_QUEUE")`."""

import ast
from functools import lru_cache
from pathlib import Path

from wan_ui.settings import ROOT


@lru_cache
def _functions() -> list[tuple[str, ast.FunctionDef]]:
    found = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        where = str(Path(path).relative_to(ROOT))
        found += [(where, node) for node in tree.body if isinstance(node, ast.FunctionDef)]
    return found


def marked(mark: str) -> dict[tuple[str, str], list]:
    """(file, test) -> what its marks of that name say."""
    found: dict[tuple[str, str], list] = {}
    for file, function in _functions():
        for decorator in function.decorator_list:
            if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == f"pytest.mark.{mark}":
                found.setdefault((file, function.name), []).extend(map(ast.literal_eval, decorator.args))
    return found


def sentence(file: str, name: str) -> str:
    """The docstring of a test; "" where it has none."""
    return next(ast.get_docstring(node) or "" for where, node in _functions() if (where, node.name) == (file, name))
