"""A text in the language of who reads it. The same rules as in wan_ui/ui/words.js, which has the page's.

A text is looked for as it stands, then among templates, the one with the most words of its own first, and then piece by
piece at its punctuation. What is found nowhere stays as it is: names, numbers, what people typed.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import chain, starmap
from pathlib import Path

TABLE = Path(__file__).parent / "zh.json"
LONGEST = 2000  # characters; anything longer is no sentence of ours
DEEPEST = 4  # a value in a text in a text
SPLIT = 0.5  # what it costs to take a text apart, in letters
MOST_JOINED = 5  # pieces of one row
FEW = 8  # letters; fewer do not stand alone beside a link
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
WHOLE_WORD = re.compile(r"(?<![a-z}])[a-z]+(?![a-z{])")  # no value touches it
PART = re.compile(r"[,.;:] | \(| · ")
CHINESE = re.compile(r"[\u3000-\u9fff\uff00-\uffef]")


@dataclass
class Template:
    english: str
    target: str
    rank: tuple[int, int]  # those with more letters of their own, then with more signs, come first
    pattern: re.Pattern[str] | None = None

    @property
    def says(self) -> bool:
        """Whether it ends with what there is to say: `error: {}`."""
        return self.english.endswith((": {}", ". {}", "; {}"))

    def match(self, text: str) -> re.Match[str] | None:
        if self.pattern is None:
            pattern = "(.*?)".join(map(re.escape, self.english.split("{}")))
            pattern = pattern.replace(
                "(.*?)(.*?)", r"(\d[\d.]*(?: × \d+)?|)(.*?)"
            )  # of two values in a row the first is a number
            self.pattern = re.compile(pattern, re.IGNORECASE | re.DOTALL)
        return self.pattern.fullmatch(text)


@cache
def table() -> tuple[dict[str, str], dict[str, list[Template]]]:
    """Rows without values by their English in lower case, templates by their rarest word ("" where there is none)."""
    read = json.loads(TABLE.read_text(encoding="utf-8"))
    rows = {**read["others"], **read["texts"]}
    bare = [row for row in starmap(without_ends, rows.items()) if all(row)]
    rows = {**dict(chain.from_iterable(starmap(between, rows.items()))), **dict(bare), **rows}
    exact = {english.lower(): chinese for english, chinese in rows.items() if "{}" not in english}
    templates = [(english, chinese) for english, chinese in rows.items() if "{}" in english]
    words = {english: set(WHOLE_WORD.findall(english.lower())) for english, _ in templates}
    number = Counter(chain.from_iterable(words.values()))
    by_word: dict[str, list[Template]] = {}
    for english, chinese in templates:
        own = english.replace("{}", "")
        rank = (-len(re.findall("[A-Za-z]", own)), -len(own))
        rarest = min(sorted(words[english]), key=lambda word: number[word], default="")
        by_word.setdefault(rarest, []).append(Template(english, chinese, rank))
    return exact, by_word


def candidates(text: str) -> list[Template]:
    _, by_word = table()
    words = {"", *re.findall("[a-z]+", text.lower())}
    return sorted(
        chain.from_iterable(by_word.get(word, ()) for word in words),
        key=lambda template: (*template.rank, template.english),
    )


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
            if len(re.findall("[A-Za-z]", part)) >= FEW and other.strip():
                yield part.strip(), other.strip()


def translate(text: str, language: str) -> str:
    """`text` in `language`, "en" or "zh"."""
    if language != "zh" or len(text) > LONGEST:
        return text
    inner = text.strip()
    if not letters(inner):
        return text
    start = text.index(inner)
    return text[:start] + best(inner, 0)[1] + text[start + len(inner) :]


def letters(text: str) -> int:
    return len(re.findall("[A-Za-z]", text))


@lru_cache(4096)
def best(text: str, depth: int) -> tuple[float, str]:
    """What leaves the fewest letters of English, and how many those are."""
    exact, _ = table()
    if text.lower() in exact:
        return 0, exact[text.lower()]
    found = (float(letters(text)), text)
    if depth > DEEPEST or not found[0]:
        return found
    for template in candidates(text):
        if match := template.match(text):
            filled = fill(template, match.groups(), depth)
            if not filled[0]:
                return filled
            found = min(found, filled, key=lambda one: one[0])
    return min([found, *in_pieces(text, depth)], key=lambda one: one[0]) if len(text) > 1 else found


def fill(template: Template, values: tuple[str, ...], depth: int) -> tuple[float, str]:
    """The template with values in English order. `{=}` takes one as it is: it is to be typed so, or somebody has."""
    cost, shown = 0.0, iter(range(len(values)))

    def value(hole: re.Match[str]) -> str:
        nonlocal cost
        number = int(hole[1]) if hole[1] else next(shown)
        text = values[number]
        left, words = (0.1, text) if hole[2] else best(text, depth + 1)
        if not (number == len(values) - 1 and template.says):
            # Another sentence begins in it, which is not this template's; or a template of few letters fits by chance.
            cost += 10 / max(1, -template.rank[0]) if PART.search(text) else 0
            by_chance = left and " " in text and not text[0].isdigit() and not hole[2] and -template.rank[0] < FEW
            cost += LONGEST if by_chance else 0
        cost += left
        return words

    words = re.sub(r"\{(\d*)(=?)\}", value, template.target)
    return cost, words


def in_pieces(text: str, depth: int) -> Iterator[tuple[float, str]]:
    """Sentence by sentence, then by its parts, with Chinese punctuation."""
    if (end := ENDS.get(text[-1])) is not None:
        cost, words = best(text[:-1], depth + 1)
        opened = text[-1] == ")" and words.count("（") > words.count("）")
        yield cost, words + end if opened or CHINESE.search(words[-1:]) else words + text[-1]
    for separator, chinese in SEPARATORS:
        pieces = together(split(text, separator), separator)
        if len(pieces) < 2:
            continue
        found = [best(piece, depth + 1) for piece in pieces]
        cost, shown = SPLIT + sum(cost for cost, _ in found), [words for _, words in found]
        if not any(map(CHINESE.search, shown)):
            continue
        if separator == " (":
            shown = [shown[0], *(re.sub(r"\)$", "）", words) for words in shown[1:])]
        yield cost, chinese.join(shown)


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


def together(pieces: list[str], separator: str) -> list[str]:
    """Pieces that are a row of the table only with the next ones, joined: titles have commas."""
    exact, _ = table()
    found, at = [], 0
    while at < len(pieces):
        ends = range(min(len(pieces), at + MOST_JOINED), at, -1)
        end = next((end for end in ends if separator.join(pieces[at:end]).lower() in exact), at + 1)
        found.append(separator.join(pieces[at:end]))
        at = end
    return found
