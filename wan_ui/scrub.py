"""Words that leave this machine -> the same without its folders, names of person and host, tokens and logins.

For the report of a bug, and for what a visitor of a shared page is told.
"""

import getpass
import re
import socket
import sys
from pathlib import Path
from typing import Any

from wan_ui.settings import ROOT, Settings
from wan_ui.valid_text import valid_text

SECRETS = (
    (re.compile(r"\b(hf_|sk-|ghp_|gho_|github_pat_|glpat-)[A-Za-z0-9_\-]{8,}"), "<token>"),
    (re.compile(r"(?i)\b(bearer|token|password|passwd|secret|api[_-]?key)(\s*[=:]\s*|\s+)\S{4,}"), r"\1 <cut>"),
    (re.compile(r"://[^/\s:@]+:[^/\s@]+@"), "://<login>@"),
    (re.compile(r"[\w.+-]+@[\w-]+\.[\w.]+"), "<address>"),
)
WORD = r"[^\s'\"`,:;()<>|*?\\/]+"
PATHS = re.compile(
    # In quotes a path may hold anything.
    r"(?P<quote>['\"`])(?:~?/(?=[\w.~@-])|[A-Za-z]:[\\/]|\\\\\w)[^'\"`\n]*(?P=quote)"
    # Absolute ones: not the slashes of an address (https://a/b), a fraction (4/8) or a choice (and/or). A folder's name
    # may hold spaces: they belong to it where another slash follows.
    rf"|file:/+[^\s'\"`]+|(?<![\w.~/\\>-])~?/(?!/){WORD}(?:/{WORD}|(?: {WORD}){{1,4}}(?=/))*/?"
    rf"|(?<![A-Za-z])[A-Za-z]:[\\/]+{WORD}(?:[\\/]+{WORD}|(?: {WORD}){{1,4}}(?=[\\/]))*[\\/]?"
    rf"|(?<!\\)\\\\{WORD}(?:\\{WORD}|(?: {WORD}){{1,4}}(?=\\))*\\?"
)


def clean(text: str, settings: Settings) -> str:
    """Without folders, names of person and host, tokens and logins."""
    text = valid_text(text)
    places = {
        str(settings.outputs.resolve()): "<outputs>",
        str(settings.models.resolve()): "<models>",
        str(settings.loras.resolve()): "<loras>",
        str(settings.cache.resolve()): "<cache>",
        str(settings.catalog): "<catalog>",
        settings.lightx2v_path.rstrip("/"): "<lightx2v>",
        sys.prefix: "<python>",
        str(ROOT): "<wan-ui>",
        str(Path.home()): "~",
    }
    for place, name in sorted(places.items(), key=lambda entry: -len(entry[0])):
        if len(place) > 1:
            text = re.sub(rf"(?<![\w/.-]){re.escape(place)}(?![\w-])", name, text)
    if settings.auth:
        for part in (settings.auth, settings.auth.partition(":")[2]):
            text = text.replace(part, "<login>") if len(part) > 3 else text
    if settings.webhook:
        text = text.replace(settings.webhook, "<webhook>")
    text = PATHS.sub("<path>", text)
    for pattern, words in SECRETS:
        text = pattern.sub(words, text)
    for name in (_user(), socket.gethostname()):
        if len(name) > 3:
            text = re.sub(rf"\b{re.escape(name)}\b", "<name>", text)
    return text


def scrub(value: Any, settings: Settings) -> Any:
    """JSON-able values with every string cleaned."""
    if isinstance(value, dict):
        return {key: scrub(entry, settings) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [scrub(entry, settings) for entry in value]
    return clean(value, settings) if isinstance(value, str) else value


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
