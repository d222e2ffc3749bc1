"""Which names a function's code looks up: what tells whether a library still speaks of what we build on."""

from types import CodeType


def names_in(code: CodeType) -> set[str]:
    """All of them, in the functions within it as well."""
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return {*code.co_names, *(name for within in inner for name in names_in(within))}
