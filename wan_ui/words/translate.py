"""A text in the language of who reads it. The same rules as in wan_ui/ui/words.js, which has the page's.

A text is looked for as it stands, then among templates, the one with the most words of its own first, and then piece by
piece at its punctuation. What is found nowhere stays as it is: names, numbers, what people typed.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain, starmap
from pathlib import Path

TABLE = Path(__file__).parent / "zh.json"
LONGEST = 2000  # characters; anything longer is no sentence of ours
DEEPEST = 4  # a value in a text in a text
WEAK = 8  # letters; a template with fewer is believed only where its values are plain
SEPARATORS = (
    ("\n", "\n"),
    (". ", "。"),
    ("; ", "；"),
    (": ", "："),
    (" · ", " · "),
    (", ", "，"),
    (" (", "（"),
)
ENDS = {".": "。", "!": "！", "?": "？", ":": "：", ")": "）", ";": "；"}
CHINESE = re.compile(r"[\u3000-\u9fff\uff00-\uffef]")


@dataclass
class Template:
    parts: list[str]  # what stands around the values
    target: str
    letters: int
    longest: str
    pattern: re.Pattern[str] | None = None

    def match(self, text: str) -> re.Match[str] | None:
        if self.longest not in text.lower():
            return None
        if self.pattern is None:
            pattern = "(.*?)".join(map(re.escape, self.parts))
            pattern = pattern.replace("(.*?)(.*?)", r"(\d[\d.]*|)(.*?)")  # of two values in a row the first is a number
            self.pattern = re.compile(pattern, re.IGNORECASE | re.DOTALL)
        return self.pattern.fullmatch(text)


@cache
def table() -> tuple[dict[str, str], list[Template]]:
    read = json.loads(TABLE.read_text(encoding="utf-8"))
    rows = {**read["others"], **read["texts"]}
    bare = [row for row in starmap(without_ends, rows.items()) if all(row)]
    rows = {**dict(chain.from_iterable(starmap(between, rows.items()))), **dict(bare), **rows}
    exact = {english.lower(): chinese for english, chinese in rows.items() if "{}" not in english}
    templates = []
    for english, chinese in rows.items():
        if "{}" in english:
            parts = english.split("{}")
            letters = len(re.findall("[A-Za-z]", "".join(parts)))
            templates.append(Template(parts, chinese, letters, max(parts, key=len).lower()))
    return exact, sorted(templates, key=lambda template: (-template.letters, -sum(map(len, template.parts))))


def without_ends(english: str, chinese: str) -> tuple[str, str]:
    """A row as it reads where a text is split, or its field is named elsewhere: `; that part {}` without the semicolon,
    `size: {} is none` without the field. Empty where there is nothing to take away."""
    if (field := re.match(r"[a-z_]+: (?=.*[a-z]{4})", english)) and "：" in chinese:
        return english[field.end() :], chinese.partition("：")[2]
    bare = re.sub(r"^[;,.:·(] ?|[:;,.)]$", "", english)
    return (bare, re.sub(r"^[；，。：·（] ?|[：；，。）]$", "", chinese)) if bare != english else ("", "")


def between(english: str, chinese: str) -> Iterator[tuple[str, str]]:
    """The parts of a row around its values, as they stand alone on the page where a value is a link or a button."""
    parts, others = english.split("{}"), re.split(r"\{=?\}", chinese)
    if len(parts) == len(others) > 1:
        for part, other in zip(parts, others, strict=True):
            if len(re.findall("[A-Za-z]", part)) >= WEAK and other.strip():
                yield part.strip(), other.strip()


def translate(text: str, language: str) -> str:
    """`text` in `language`, "en" or "zh"."""
    if language != "zh" or len(text) > LONGEST:
        return text
    inner = text.strip()
    if not re.search("[A-Za-z]", inner):
        return text
    start = text.index(inner)
    return text[:start] + (_known(inner, 0, strict=False) or inner) + text[start + len(inner) :]


def _known(text: str, depth: int, strict: bool) -> str | None:
    """None: it is not in the table. strict: of a value, which may be what somebody typed: all of it is, or nothing."""
    exact, templates = table()
    if text.lower() in exact:
        return exact[text.lower()]
    if depth > DEEPEST or not re.search("[A-Za-z]", text):
        return None
    for template in templates:
        match = template.match(text)
        if match is None or any(" · " in value for value in match.groups()):
            continue
        values = [(value, _known(value, depth + 1, strict=True)) for value in match.groups()]
        if template.letters < WEAK and not all(believed(*value, strict) for value in values):
            continue
        return fill(template.target, values)
    return _pieces(text, depth, strict)


def believed(value: str, known: str | None, strict: bool) -> bool:
    """Whether it may be the value of a template with few words of its own."""
    return not value or value[0].isdigit() or (not strict and (known is not None or " " not in value))


def fill(target: str, values: list[tuple[str, str | None]]) -> str:
    """values: as they are and translated, in English order. `{=}` takes one as it is: it is to be typed so."""
    left = iter(values)

    def value(hole: re.Match[str]) -> str:
        plain, known = values[int(hole[1])] if hole[1] else next(left)
        return plain if known is None or hole[2] else known

    return re.sub(r"\{(\d*)(=?)\}", value, target)


def _pieces(text: str, depth: int, strict: bool) -> str | None:
    """Sentence by sentence, then by its parts; with Chinese punctuation where the words are."""
    end = ENDS.get(text[-1]) if text else None
    if end is not None and len(text) > 1 and (known := _known(text[:-1], depth + 1, strict)) is not None:
        return known + end if CHINESE.search(known[-1:]) else known + text[-1]
    for separator, chinese in SEPARATORS:
        pieces = split(text, separator)
        if len(pieces) < 2:
            continue
        found = [_known(piece, depth + 1, strict) for piece in pieces]
        lacks = [known is None and re.search("[A-Za-z]", piece) for known, piece in zip(found, pieces, strict=True)]
        if all(known is None for known in found) or (strict and any(lacks)):
            continue
        shown = [piece if known is None else known for piece, known in zip(pieces, found, strict=True)]
        if not any(map(CHINESE.search, shown)):
            return separator.join(shown)
        if separator == " (":
            shown = [shown[0], *(re.sub(r"\)$", "）", piece) for piece in shown[1:])]
        return chinese.join(shown)
    return None


def split(text: str, separator: str) -> list[str]:
    """At each separator that does not stand in parentheses."""
    pieces, depth, begin, at = [], 0, 0, 0
    while at < len(text):
        if depth == 0 and text.startswith(separator, at):
            pieces.append(text[begin:at])
            begin = at + len(separator)
        depth = max(0, depth + {"(": 1, ")": -1}.get(text[at], 0))
        at = max(at + 1, begin)
    return [*pieces, text[begin:]]
