"""What the metadata of a LoRA say of its words: those that call it up, and those that its pictures were described with.

Trainers and tools write them under many names. Kohya's count how often each tag was used (`ss_tag_frequency`): a word
that was in every description is the one that a LoRA answers to, where nobody has said another.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping

TRIGGERS = ("trigger_words", "trigger_word", "modelspec.trigger_phrase", "trigger_phrase", "activation_text",
            "trained_words", "trainedWords", "ss_trained_words", "ss_trigger_word")  # fmt: skip
TAGS = ("modelspec.tags", "tags", "ss_tags")
COUNTS = "ss_tag_frequency"
MOST_WORDS, MOST_TAGS = 10, 20
LONGEST = 60  # characters of a tag; a longer one is a sentence
EVERY = 3  # tags that may be in every description and still be the LoRA's own; more of them describe the pictures
MAX_JSON = 4_000_000  # characters


def trigger_words(texts: Mapping[str, str]) -> tuple[str, ...]:
    """texts: the metadata. What a prompt should have, as the maker says it, else what every description had."""
    for key in TRIGGERS:
        if found := _split(texts.get(key, "")[:500]):
            return tuple(found[:MOST_WORDS])
    counts = _counts(texts.get(COUNTS, ""))
    most = max(counts.values(), default=0)
    every = [tag for tag, count in counts.items() if count == most]
    return tuple(every) if most > 1 and len(every) <= EVERY else ()


def tags(texts: Mapping[str, str]) -> tuple[str, ...]:
    """What it is about, by its maker and then by how often each was used."""
    said = [tag for key in TAGS for tag in _split(texts.get(key, "")[:2000]) if len(tag) <= LONGEST]
    counted = [tag for tag, _ in _counts(texts.get(COUNTS, "")).most_common(MOST_TAGS)]
    return tuple(dict.fromkeys((*said, *counted)))[:MOST_TAGS]


def _split(text: str) -> list[str]:
    parts = (part.strip(" \"'[]") for part in re.split(r"[,;\n]", text))
    return list(dict.fromkeys(part for part in parts if part and part != "None"))


def _counts(text: str) -> Counter[str]:
    """Tag -> how many descriptions have it, of all folders together. Never raises."""
    counts: Counter[str] = Counter()
    try:
        folders = json.loads(text) if text and len(text) <= MAX_JSON else None
    except (ValueError, RecursionError):
        return counts
    for found in folders.values() if isinstance(folders, dict) else ():
        for tag, count in found.items() if isinstance(found, dict) else ():
            tag = " ".join(tag.split())
            if tag and len(tag) <= LONGEST and type(count) is int and 0 < count < 10**9:
                counts[tag] += count
    return counts
