"""Phrases found in a prompt: its words by their stems, clause by clause."""

import re
from dataclasses import dataclass
from functools import cache

CAMERA = frozenset(["camera", "view", "shot", "picture", "image", "scene", "lens", "frame", "viewpoint"])
JOINS = frozenset("and then while as with but before after until when afterwards followed".split())  # noqa: SIM905
# fmt: off
IRREGULAR = {"colour": "color", "colours": "color", "colors": "color", "grey": "gray",
             "anticlockwise": "counterclockwise", "goes": "go", "going": "go", "does": "do", "coming": "come",
             "became": "become", "fell": "fall"}
# fmt: on
BREAKS = re.compile(r"[,.;:!?\n–—()/|]+|[，。；：！？、（）]+")
TOKEN = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def stem(word: str) -> str:
    """Inflections to one form: zooms, zooming, zoomed -> zoom. Both the table and the prompt go through it."""
    word = IRREGULAR.get(word, word)
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeiousl":
        word = word[:-1]
    if len(word) > 3 and word.endswith("e"):
        word = word[:-1]
    return re.sub("y$", "i", word) if len(word) > 3 else word


@dataclass(frozen=True)
class Token:
    text: str  # as typed
    stem: str  # "|" is the end of a clause
    plain: str  # lower case, without apostrophes


def tokens_of(prompt: str) -> list[Token]:
    found = []
    prompt = re.sub(r"(?i)\b(counter|anti)[- ]clockwise", "counterclockwise", prompt)
    for clause in BREAKS.split(prompt):
        for match in TOKEN.finditer(clause):
            plain = re.sub("['’]", "", match[0].lower())
            found.append(Token(match[0], "camera" if plain in CAMERA else stem(plain), plain))
        found.append(Token("", "|", "|"))
    return found


@dataclass(frozen=True)
class Phrase:
    stems: tuple[str, ...]
    start: bool
    end: bool


@cache
def phrase_of(text: str) -> Phrase:
    words = text.lower().strip("^$").split()
    stems = tuple("camera" if word in CAMERA else stem(word) for word in words if word not in ("the", "a"))
    return Phrase(stems, text.startswith("^"), text.endswith("$"))


def find(phrase: Phrase, tokens: list[Token], free: list[bool], between: frozenset[str]) -> list[tuple[int, int]]:
    """Spans (first, one past the last) of `tokens` that are the phrase; none of their words may be taken."""
    spans = []
    for first, token in enumerate(tokens):
        if token.stem != phrase.stems[0] or not free[first]:
            continue
        if phrase.start and not begins(tokens, first, between):
            continue
        at, place = first, 1
        while place < len(phrase.stems):
            at += 1
            if at >= len(tokens) or not free[at] or tokens[at].stem == "|":
                break
            if tokens[at].stem == phrase.stems[place]:
                place += 1
            elif tokens[at].plain not in between:
                break
        if place < len(phrase.stems):
            continue
        after = at + 1
        while after < len(tokens) and tokens[after].plain in between | {"very"}:
            after += 1
        if phrase.end and not (tokens[after].stem == "|" or tokens[after].plain in JOINS):
            continue
        spans.append((first, at + 1))
    return spans


def begins(tokens: list[Token], first: int, between: frozenset[str]) -> bool:
    before = first - 1
    while before >= 0 and (tokens[before].plain in between or tokens[before].plain in ("please", "lets")):
        before -= 1
    return before < 0 or tokens[before].stem == "|" or tokens[before].plain in JOINS
