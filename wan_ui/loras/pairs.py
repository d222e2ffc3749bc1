"""Which of the two experts a file's name says it is for, and which two files are one LoRA.

"high" and "low" are said of many things (camera_high_angle, high key). A name tells the expert by a word that
means nothing else (high_noise, HighNoise, hinoise, HN, the Chinese words), or by HIGH, or in the name of a file for
Wan2.2 by High or H, with nothing after it but what only counts (v2, e20, 14B). Two files are joined when each is
known to be for its expert, by metadata or such a word, and their names are otherwise the same. All else is left to
the person.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from wan_ui.families import NOISE_TARGETS, may_have_experts
from wan_ui.loras.entry import LoraEntry

WORD = re.compile(
    r"(?i:(?<![a-z])(hi|high|lo|low)[-_. ]?noise(?![a-z]))"  # high_noise, HighNoise, hinoise
    r"|(?<![a-zA-Z])(HN|LN)(?![a-zA-Z])"
    r"|([高低])噪声?"
)
LETTER = re.compile(r"(?<![a-zA-Z0-9])(HIGH|LOW|High|Low|high|low|H|L)(?![a-zA-Z0-9])")
PLAIN = re.compile(r"(?i)(?<![a-z])(?:high|low)(?![a-z])")
# A degree of something, not the expert: camera_high, contrast_low. And both experts in one breath: high_low_noise.
DEGREE = re.compile(
    r"(?i)(?<![a-z])(camera|angle|angles|view|shot|pov|key|contrast|quality|details?|res|resolution|poly|speed|motion|"
    r"saturation|light|lighting|exposure|fps|framerate|intensity|energy|tension|strength|volume|pitch|density)[-_. ]*$"
)
BOTH = re.compile(r"(?i)(?<![a-z])(?:high?([-_. +&,]|and)*low?|low?([-_. +&,]|and)*high?)[-_. ]?noise")
WAN = re.compile(r"(?i)wan[-_ ]?2[._]?2|(?<![a-z0-9])w22(?![0-9])|(?<![a-z])a?14b(?![a-z])|(?<![a-z])[it]2v(?![a-z])")
# What may follow such a letter or word: versions, sizes, numbers of steps, not another word of a title.
COUNT = re.compile(
    r"(?i)[-_. ()\[\]]*(v?\d[\d.]*[bk]?|(e|ep|epoch|s|steps?|r|rank)[-_]?\d+|fp?16|bf16|fp8|a?14b|lora|wan|[it]2v|"
    r"final|comfy(ui)?|resized|pruned)(?![a-z0-9])"
)
TARGET_OF_LETTER = {"h": "high_noise", "l": "low_noise", "高": "high_noise", "低": "low_noise"}


def target_said(name: str) -> str:
    """high_noise | low_noise | "": which expert a file's name, without its suffix, says it is for."""
    return _marked(name)[0]


def _marked(name: str) -> tuple[str, str]:
    """(target, the name without the mark); ("", name) where there is none or two that contradict each other."""
    if BOTH.search(name):
        return "", name
    matches = list(WORD.finditer(name))
    if not matches:
        found = [match for match in LETTER.finditer(name) if _stands_alone(name, match)]
        matches = found if len(list(LETTER.finditer(name))) == 1 else []
    targets = {TARGET_OF_LETTER[match[0][0].lower()] for match in matches}
    if len(targets) != 1:
        return "", name
    rest = name
    for match in reversed(matches):
        rest = rest[: match.start()] + "\0" + rest[match.end() :]
    return targets.pop(), re.sub(r"[-_. ]*\0[-_. ]*", "_", rest).strip("_") or "lora"


def _stands_alone(name: str, match: re.Match[str]) -> bool:
    """Whether HIGH, H ... can only mean the expert."""
    if DEGREE.search(name[: match.start()]):
        return False
    rest = name[match.end() :]
    while rest.strip("-_. ()[]"):
        count = COUNT.match(rest)
        if not count:
            return False
        rest = rest[count.end() :]
    return bool(WAN.search(name)) or match[1] in ("HIGH", "LOW")


def pair(entries: Sequence[LoraEntry]) -> list[LoraEntry]:
    """The same, the high and the low file of one LoRA joined to one entry."""
    groups: dict[tuple[str, str], dict[str, list[LoraEntry]]] = {}
    for entry in entries:
        found, key = _of(entry)
        if found and not entry.problem and may_have_experts(entry.fits):
            folder = str(Path(entry.name).parent / key)
            groups.setdefault((folder, entry.fits), {}).setdefault(found, []).append(entry)
    joined, names = [], set()
    for (key, _), files in groups.items():
        if set(files) == set(NOISE_TARGETS) and all(len(alike) == 1 for alike in files.values()):
            high, low = files["high_noise"][0], files["low_noise"][0]
            names |= {high.name, low.name}
            joined.append(_joined(key, high, low))
    return [entry for entry in entries if entry.name not in names] + joined


def likely(entries: Sequence[LoraEntry]) -> dict[str, tuple[str, str]]:
    """Name of each of two files that are probably one LoRA -> (the high one's name, the low one's).

    Their names differ in "high" and "low" alone and they change the same layers with the same rank; whether that is
    said of the experts nobody can know, so they stay two entries, which a person may add together.
    """
    groups: dict[tuple[object, ...], dict[str, list[str]]] = {}
    for entry in entries:
        stem = Path(entry.name).stem
        found = list(PLAIN.finditer(stem))
        if entry.problem or entry.paired or len(found) != 1 or not may_have_experts(entry.fits):
            continue
        start, end = found[0].span()
        if DEGREE.search(stem[:start]):
            continue
        rest = f"{stem[:start]}\0{stem[end:]}".lower()
        key = (Path(entry.name).parent, rest, entry.fits, entry.ranks, tuple(entry.layers.items()))
        groups.setdefault(key, {}).setdefault(found[0][0].lower(), []).append(entry.name)
    pairs = [(found["high"], found["low"]) for found in groups.values() if set(found) == {"high", "low"}]
    return {name: (high[0], low[0]) for high, low in pairs if len(high) == len(low) == 1 for name in (*high, *low)}


def _of(entry: LoraEntry) -> tuple[str, str]:
    """(target, name without its mark), by metadata before the name; ("", name) where the two contradict each other."""
    stem = Path(entry.name).stem
    found, key = _marked(stem)
    if entry.made_for not in NOISE_TARGETS:
        return (found, key) if entry.made_for == "unknown" else ("", stem)
    if found:
        return (found, key) if found == entry.made_for else ("", stem)
    letters = list(LETTER.finditer(stem))
    if len(letters) == 1 and TARGET_OF_LETTER[letters[0][0][0].lower()] == entry.made_for:
        key = re.sub(r"[-_. ]*\0[-_. ]*", "_", LETTER.sub("\0", stem)).strip("_") or "lora"
        return entry.made_for, key
    return "", stem


def _joined(key: str, high: LoraEntry, low: LoraEntry) -> LoraEntry:
    return replace(
        high,
        name=f"{key} (high + low)",
        files={"high_noise": high.files["both"], "low_noise": low.files["both"]},
        ranks=tuple(sorted({*high.ranks, *low.ranks})),
        key_format=high.key_format if high.key_format == low.key_format else "mixed",
        layers={"high_noise": high.layers["both"], "low_noise": low.layers["both"]},
        left_out=tuple(dict.fromkeys((*high.left_out, *low.left_out))),
        trigger_words=tuple(dict.fromkeys((*high.trigger_words, *low.trigger_words))),
        tags=tuple(dict.fromkeys((*high.tags, *low.tags))),
        notes=high.notes or low.notes,
        cover=high.cover or low.cover,
        made_for="both",
        made_for_why="a file for each expert",
        size=high.size + low.size,
    )
