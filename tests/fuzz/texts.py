"""Texts of JSON and TOML that can be read and hold other values, and some that cannot."""

import copy
import json
import math
import tomllib
from functools import cache
from random import Random
from typing import Any

from tests.fuzz import mutations


def of_json(random: Random, base: bytes, others: list[bytes]) -> bytes:
    return (mutations.of_text if random.random() < 0.3 else mutations.of_values)(random, base, others)


def of_toml(random: Random, base: bytes, others: list[bytes]) -> bytes:
    if random.random() < 0.3:
        return mutations.of_text(random, base, others)
    values = copy.deepcopy(_loaded(base))
    for _ in range(random.choice((1, 1, 2, 4))):
        # A table of its own begins with each name, so that most changes are made in one of them.
        name = random.choice(list(values))
        mutations.change(random, values[name] if isinstance(values[name], dict) and random.random() < 0.9 else values)
    return "\n".join(f"{json.dumps(name)} = {_toml(value)}" for name, value in values.items()).encode(
        "utf-8", "surrogatepass"
    )


@cache
def _loaded(base: bytes) -> dict[str, Any]:
    return tomllib.loads(base.decode())


def _toml(value: Any) -> str:
    """In one line; nothing is an empty text, which TOML has none for."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {_toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else f"{'-' if value < 0 else ''}inf"
    return '""' if value is None else json.dumps(value)
