"""Text from outside -> text that can be stored, sent and drawn.

Python strings may hold halves of surrogate pairs: JSON's escapes bring them ("\\ud800"), and so do bytes of another
encoding on the command line and in file names (PEP 383). No encoder takes them, so that one such string in a row
that everybody draws would take the page from everybody.
"""

import re
from typing import Any

HALVES = re.compile("[\ud800-\udfff]")
MAX_DEPTH = 32  # of values; deeper ones are cut off


def valid_text(text: str) -> str:
    """With whole pairs joined and every half that is left replaced by U+FFFD."""
    if not HALVES.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def valid_name(name: str) -> str:
    r"""A file name as it can be shown and typed: bytes that are no UTF-8 become \xe9, which keeps names apart."""
    if not HALVES.search(name):
        return name
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a half that stands for no byte: it came from JSON, not from a folder
        return valid_text(name)


def valid_values(value: Any, depth: int = 0) -> Any:
    """JSON-able values with every text made valid, integers of at most 64 bits, and no more than MAX_DEPTH levels."""
    if isinstance(value, str):
        return valid_text(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return None
    if isinstance(value, (dict, list, tuple)) and depth >= MAX_DEPTH:
        return None
    if isinstance(value, dict):
        return {valid_text(str(key)): valid_values(entry, depth + 1) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [valid_values(entry, depth + 1) for entry in value]
    return value
