"""What a value from outside may be: a rule says it in words, and reads the value or refuses it.

Settings and the options of the command line share these. A rule takes text as it was typed as well as a value that
has its type already, and gives the value; ValueError says that it is not allowed. Numbers are plain ASCII digits:
Python's own `int` also takes "1_000", "²" is a digit to `str.isdigit`, and `float` knows "nan".
"""

import ipaddress
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

MANY = 10**9  # of seconds, jobs, characters: as good as no limit


@dataclass(frozen=True)
class Rule:
    """`allowed` ends the sentence "expected ..."; `read` gives the value or raises ValueError."""

    allowed: str
    read: Callable[[Any], Any]
    secret: bool = False  # a refusal must not repeat the value


def whole(lowest: int, highest: int = MANY, words: str = "") -> Rule:
    """An int of that range, both ends included."""

    def read(value: Any) -> int:
        if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,18}", value.strip()):
            value = int(value)
        if type(value) is not int or not lowest <= value <= highest:
            raise ValueError
        return value

    limits = f"from {lowest} to {highest}" if highest < MANY else f"of at least {lowest}"
    return Rule(words or f"a whole number {limits}", read)


def number(lowest: float, highest: float, words: str = "", *, zero: bool = False) -> Rule:
    """A finite float of that range, both ends included; with `zero` 0 as well."""

    def read(value: Any) -> float:
        if isinstance(value, str) and re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", value.strip()):
            value = float(value)
        if type(value) not in (int, float) or not math.isfinite(value):
            raise ValueError
        if not (lowest <= value <= highest or (zero and value == 0)):
            raise ValueError
        return float(value)

    return Rule(words or f"a number from {lowest} to {highest}", read)


def one_of(*values: str | int) -> Rule:
    """One of a few words or whole numbers."""

    def read(value: Any) -> Any:
        typed = {str(known): known for known in values}
        if isinstance(value, str) and value.strip() in typed:
            return typed[value.strip()]
        if value not in values or type(value) not in map(type, values):  # True == 1
            raise ValueError
        return value

    return Rule(f"one of {', '.join(map(str, values))}", read)


def text(words: str, pattern: str = "", *, secret: bool = False) -> Rule:
    """Text that is valid Unicode, without control characters, and matches the pattern if there is one."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or not value.isprintable() or (pattern and not re.fullmatch(pattern, value)):
            raise ValueError
        return value

    return Rule(words, read, secret)


def folder(words: str = "a folder, or the path of one that can be made") -> Rule:
    """An absolute Path that is not a file. It need not be there."""
    return Rule(words, lambda value: _path(value, refuse=Path.is_file))


def file(words: str = "a file that is there") -> Rule:
    return Rule(words, lambda value: _path(value, refuse=lambda path: not path.is_file()))


def _path(value: Any, refuse: Callable[[Path], bool]) -> Path:
    if not isinstance(value, (str, Path)) or not str(value) or not str(value).isprintable():
        raise ValueError
    try:
        path = Path(value).expanduser().resolve()
        if refuse(path):
            raise ValueError
    except (OSError, RuntimeError):  # a loop of links, a name that is too long, the home of nobody
        raise ValueError from None
    return path


def _address(value: Any) -> str:
    """An IP address without brackets, or a host's name."""
    if not isinstance(value, str):
        raise ValueError
    bare: str = value.strip()
    bare = bare[1:-1] if bare.startswith("[") and bare.endswith("]") else bare
    if ":" in bare or re.fullmatch(r"[0-9.]+", bare):
        return str(ipaddress.ip_address(bare))
    if not re.fullmatch(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?", bare):
        raise ValueError
    return bare


def _url(value: Any) -> str:
    """An http address without its last slash; https where no scheme is given."""
    if not isinstance(value, str) or not value.isprintable() or " " in value.strip():
        raise ValueError
    url: str = value.strip().rstrip("/")
    url = url if "://" in url else f"https://{url}"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError
    _address(f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname)
    parts.port  # noqa: B018 - raises ValueError for one that is no number or too large
    return url


def _webhook(value: Any) -> str:
    """An http address with path and query, or nothing. ASCII, as it is sent; a login in it would be sent to nobody."""
    if not isinstance(value, str):
        raise ValueError
    url: str = value.strip()
    if not url:
        return ""
    parts = urlsplit(url)
    plain = url.isascii() and url.isprintable() and not re.search(r"[\s\\#]", url) and "@" not in parts.netloc
    if not plain or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError
    parts.hostname.encode("idna")  # raises ValueError where it cannot be looked up: a..b, a label of 64 letters
    parts.port  # noqa: B018 - raises ValueError for one that is no number or too large
    return url


def _each(value: Any, right: Callable[[str], object]) -> str:
    """Names separated by commas, each of them right."""
    if not isinstance(value, str) or not all(right(part.strip()) for part in value.split(",") if part.strip()):
        raise ValueError
    return value.strip()


def names(what: str, known: tuple[str, ...]) -> Rule:
    """Some of the known names, separated by commas; none is right, too."""
    return Rule(f"{what}, separated by commas: {', '.join(known)}", lambda value: _each(value, known.__contains__))


def numbers_of(what: str, known: tuple[str, ...]) -> Rule:
    """ "load=1800, denoise=600": for some of the known names a whole number of at least 1; see `numbers_in`."""

    def right(part: str) -> bool:
        name, _, number = part.partition("=")
        return name.strip() in known and re.fullmatch(r"0*[1-9][0-9]{0,8}", number.strip(), re.ASCII) is not None

    example = f"{known[0]}=1800, {known[-1]}=600"
    return Rule(f"{what} such as {example}, of {', '.join(known)}", lambda value: _each(value, right))


def numbers_in(text: str) -> dict[str, int]:
    """What a rule of `numbers_of` has let through."""
    parts = (part.partition("=") for part in text.split(",") if part.strip())
    return {name.strip(): int(number) for name, _, number in parts}


HOST_NAME = re.compile(
    r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?"
)
PATH = re.compile(r"((https?://[^\s/?#]+)?(/?[A-Za-z0-9._~@-]+(/[A-Za-z0-9._~@-]+)*)?)")


def _root_path(value: Any) -> str:
    """With a slash before it and none behind it."""
    path = value.strip().rstrip("/") if isinstance(value, str) else " "
    if not PATH.fullmatch(path):
        raise ValueError
    return path if not path or path.startswith(("/", "http://", "https://")) else f"/{path}"


ADDRESS = Rule("an address or host name such as 127.0.0.1, 0.0.0.0, :: or localhost, without a port", _address)
URL = Rule("an address such as https://huggingface.co", _url)
HOST_NAMES = Rule(
    "host names such as wan.example.com or *.lan, separated by commas, without http://",
    lambda value: _each(value, HOST_NAME.fullmatch),
)
NETWORKS = Rule(
    "addresses or networks such as 127.0.0.1 or 10.0.0.0/8, separated by commas",
    lambda value: _each(value, lambda part: ipaddress.ip_network(part, strict=False)),
)
WEBHOOK = Rule(
    "an address such as https://example.com/hooks/1: http or https, ASCII, without user, password and #", _webhook, True
)
ROOT_PATH = Rule("a path such as /wan, or https://example.com/wan", _root_path)
