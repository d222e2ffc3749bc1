"""What a small model understands of a prompt: read before the encoder, said to the person.

Wan-Tiny knows a dozen motions and seven lights, one of each to a clip. It gives everything else its gentle push-in and
two motions at once a ghost of both, and words that it knows mean a motion to it wherever they stand ("she turns her
head" pans). So a prompt is read against a table of phrases first. What the table has is said, what it does not have is
said too, and the model is given one plain sentence of what was understood.

A table is a file of configs/words; a model of the catalog names its own with `words`. Models without one get prompts as
they are. The table's first lines explain its format.
"""

import re
import unicodedata
from dataclasses import dataclass

from wan_ui.catalog import Model
from wan_ui.loras import trigger_words
from wan_ui.queue.phrases import JOINS, TOKEN, Phrase, Token, find, phrase_of, stem, tokens_of
from wan_ui.queue.word_table import Meaning, Table, load_table
from wan_ui.request import LoraSpec
from wan_ui.settings import Settings

LONGEST = 40  # words of a prompt that the model was trained on
SHOWN = 60  # characters of a clause that was not understood
# fmt: off
# Not missed where nothing else is left of a clause.
SMALL = frozenset((  # noqa: SIM905 - a word list reads best as words
    "a an the to of into over is it its be are was this that these there and then while as with at in on by for from "
    "so very really just some more both i we you me my your our he she they her his their can could would will do does "
    "please whole entire during like if seen until becoming s"
).split())
IDLE = frozenset((  # noqa: SIM905
    "make makes making turn turns turning get gets getting look looks become becomes begin begins start starts keep "
    "keeps continue continues go goes change changes outside everything too"
).split())
# May stand between the words of a phrase.
BETWEEN = frozenset("a an the to of into over is it its this that these very really just my your our".split())  # noqa: SIM905
NOT = frozenset("no not without dont never doesnt avoid stop cant shouldnt isnt wont".split())  # noqa: SIM905
AFTER_NOT = frozenset("the a any to do be at in more too so want need like see have".split())  # noqa: SIM905
# What takes away something that is in the picture, before or after its name. No meaning of a table does.
TAKEN_BEFORE = frozenset("remove less reduce".split())  # noqa: SIM905
TAKEN_AFTER = frozenset("fades fade disappears disappear vanishes vanish lifts lift clears clear ends end".split())  # noqa: SIM905
INSTEAD = re.compile(r"\b(?:instead of|rather than)\b", re.IGNORECASE)
# fmt: on
OTHER_SCRIPT = re.compile(r"[^\x00-\u024f]")
EMOJI = re.compile(r"[\u2190-\u21ff\u2300-\u23ff\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff]")
# In scripts without spaces: what says no before a phrase, what takes away before or after it, what may stand before one
# that begins a clause ("^"), and what is not missed.
NOT_BEFORE = re.compile(
    r"(?:不要|不想|不能|不许|不准|请勿|別|别|勿|没有|沒有|没|無|无|停止|禁止|避免|不)(?:再|有|让|要)?$"
)
TAKEN_BEFORE_HERE = re.compile(r"(?:去掉|去除|消除|减少|減少)$")
TAKEN_AFTER_HERE = re.compile(r"散去|散开|散開|消散|消失|退去|停止|结束|結束|消え|晴れ")
_CAMERA_HERE = "镜头|鏡頭|相机|相機|摄像机|攝影機|画面|畫面|视角|視角"
LEADS = re.compile(rf"(?:{_CAMERA_HERE}|请|請|让|讓|将|將|把|然后|然後|先|再|地|和|并)+")
PARTICLES = re.compile(
    rf"(?:{_CAMERA_HERE}|请|請|让|讓|将|將|把|然后|然後|并|再|先|的|地|得|了|着|著|在|中|里|裡|上|下|和|与|與|时分|時分|时|時"
    "|移动|移動|平移|运动|運動|移|降临|降臨|来临|來臨|逐渐|逐漸|变成|變成|变得|變得|效果|光线|光線|氛围|色调|场景)+"
)


@dataclass(frozen=True)
class Reading:
    """What was made of a prompt.

    understood  "slow zoom in", "sunset"
    missed      what changes nothing, in the prompt's own words
    left_out    understood, but a clip has one motion and one light: these are not made
    default     the motion of a clip for which nothing was understood
    text        what the model is given
    """

    understood: tuple[str, ...]
    missed: tuple[str, ...]
    left_out: tuple[str, ...]
    default: str
    text: str

    @property
    def words(self) -> str:
        """ "understood: slow zoom in, sunset; not: dragon" """
        said = f"understood: {', '.join(self.understood)}"
        if not self.understood:
            said = f"understood: {'nothing, so it makes its' if self.missed else 'a'} {self.default}"
        if self.left_out:
            said += f"; one at a time, so without: {', '.join(self.left_out)}"
        return said + (f"; not: {', '.join(self.missed)}" if self.missed else "")


def read_for(model: Model, prompt: str, specs: tuple[LoraSpec, ...], settings: Settings) -> Reading | None:
    """`prompt` as `model` with these LoRAs takes it; None where the model takes any prompt as it is.

    What a LoRA answers to is known from its trigger words; with one that names none the rest of the prompt is left in.
    """
    if model.words is None:
        return None
    triggers = trigger_words(specs, settings)
    keep = tuple(word for words in triggers for word in words)
    return read(prompt, load_table(model.words), keep, keep_rest=not all(triggers))


@dataclass
class _Found:
    meaning: Meaning
    first: int
    last: int  # one past the end
    strength: str = ""
    negated: bool = False


# ---------------------------------------------------------------- reading


def read(prompt: str, table: Table, keep: tuple[str, ...] = (), keep_rest: bool = False) -> Reading:
    """`prompt` against `table`.

    keep       phrases that mean something beside the table, the trigger words of LoRAs: left in, never called missed
    keep_rest  the model is given what the table does not have as well, since something else may know it
    """
    prompt = unicodedata.normalize("NFKC", prompt)  # full-width letters are letters
    emojis = EMOJI.findall(prompt)
    tokens = tokens_of(INSTEAD.sub(" not ", EMOJI.sub(" ", prompt)))
    free = [token.stem != "|" for token in tokens]
    kept = _take_kept(keep, tokens, free)
    levels = {word: name for name, strength in table.strengths.items() for word in strength.words}
    between = BETWEEN | {word for word in levels if " " not in word and not OTHER_SCRIPT.search(word)}
    lookalikes = _lookalikes(table, tokens, free, between)
    found = _take_meanings(table, tokens, free, between)
    negated: set[int] = set()
    for one in sorted(found, key=lambda one: one.first):
        _read_strength(one, tokens, free, levels, between)
        _read_negation(one, tokens, free, negated)
    for first, last in lookalikes:
        free[first:last] = [True] * (last - first)
    others, rest = _other_scripts(table, tokens, free, levels)
    found += others
    found.sort(key=lambda one: one.first)

    chosen, left_out = _choose(found, table)
    missed = list(dict.fromkeys(_missed(table, tokens, free, between) + rest))
    given = [*kept, *(_given(one, table) for one in chosen)] or [table.default_say]
    given += missed if keep_rest else []
    text = " ".join(", ".join(given).split()[:LONGEST])
    missed += ["".join(dict.fromkeys(emojis))] if emojis else []
    return Reading(tuple(_say(one, table) for one in chosen), tuple(missed), tuple(left_out), table.default_name, text)


def _take_kept(keep: tuple[str, ...], tokens: list[Token], free: list[bool]) -> list[str]:
    taken = []
    for words in keep:
        stems = tuple(stem(word.lower()) for word in TOKEN.findall(words))
        if not stems:
            continue
        for first, last in find(Phrase(stems, False, False), tokens, free, frozenset()):
            taken.append(_span(tokens, first, last))
            free[first:last] = [False] * (last - first)
    return taken


def _lookalikes(table: Table, tokens: list[Token], free: list[bool], between: frozenset[str]) -> list[tuple[int, int]]:
    """Spans that mean nothing of the table although their words are in it; they are kept from it."""
    spans = []
    for words in (words for words in table.lookalikes if not OTHER_SCRIPT.search(words)):
        for first, last in find(phrase_of(words), tokens, free, between | {"his", "her", "their"}):
            spans.append((first, last))
            free[first:last] = [False] * (last - first)
    return spans


def _is_taken_away(tokens: list[Token], first: int, last: int, between: frozenset[str]) -> bool:
    before = first - 1
    while before >= 0 and tokens[before].plain in between:
        before -= 1
    away = tokens[last].plain in ("go", "goes") and tokens[last + 1].plain == "away"
    return away or tokens[last].plain in TAKEN_AFTER or (before >= 0 and tokens[before].plain in TAKEN_BEFORE)


def _take_meanings(table: Table, tokens: list[Token], free: list[bool], between: frozenset[str]) -> list[_Found]:
    phrases = [
        (phrase_of(words), meaning)
        for meaning in table.meanings
        for words in meaning.words
        if not OTHER_SCRIPT.search(words)
    ]
    found = []
    # The longest first: "fade to black and white" before "fade to black".
    for phrase, meaning in sorted(phrases, key=lambda one: -len(one[0].stems)):
        for first, last in find(phrase, tokens, free, between):
            if not all(free[first:last]) or _is_taken_away(tokens, first, last, between):
                continue
            found.append(_Found(meaning, first, last))
            free[first:last] = [False] * (last - first)
    return found


def _read_strength(
    one: _Found, tokens: list[Token], free: list[bool], levels: dict[str, str], between: frozenset[str]
) -> None:
    """Within the phrase, then up to three words beside it that nothing else has taken."""
    inside = [(at, tokens[at].plain) for at in range(one.first, one.last)]
    beside = []
    for step, start in ((1, one.last), (-1, one.first - 1)):
        at = start
        while 0 <= at < len(tokens) and free[at] and (tokens[at].plain in between or tokens[at].plain in ("lot", "a")):
            if step == 1 and tokens[at].plain in ("a", "an") and tokens[at + 1].plain not in ("lot", "bit", "little"):
                break  # "push in a heavy fog": what follows has its own
            beside.append((at, tokens[at].plain))
            at += step
    own = {word for phrase in one.meaning.words for word in phrase.split()}
    for at, word in inside + beside:
        if word in levels and not (one.first <= at < one.last and word in own):
            one.strength = one.strength or levels[word]
            free[at] = False


def _read_negation(one: _Found, tokens: list[Token], free: list[bool], negated: set[int]) -> None:
    """negated  ends of what was negated before: "no fog or night" means both"""
    before = one.first - 1
    while before >= 0 and tokens[before].plain in AFTER_NOT:
        before -= 1
    if before >= 0 and free[before] and tokens[before].plain in NOT:
        one.negated = True
        free[before : one.first] = [False] * (one.first - before)
    elif before in negated and tokens[before].plain in ("or", "nor"):
        one.negated, free[before] = True, False
    if one.negated:
        negated.add(one.last)


def _other_scripts(
    table: Table, tokens: list[Token], free: list[bool], levels: dict[str, str]
) -> tuple[list[_Found], list[str]]:
    """Chinese and the like have no spaces: what the table has is looked for inside each run of letters.

    Returns what was found, and what is left of those runs.
    """
    phrases: list[tuple[str, Meaning | None]] = [
        (words, meaning) for meaning in table.meanings for words in meaning.words if OTHER_SCRIPT.search(words)
    ]
    phrases += [(words, None) for words in table.lookalikes if OTHER_SCRIPT.search(words)]
    phrases.sort(key=lambda one: -len(one[0].strip("^")))
    weights = [word for word in levels if OTHER_SCRIPT.search(word)]
    found, left = [], []
    for at, token in enumerate(tokens):
        if not OTHER_SCRIPT.search(token.text):
            continue
        rest, here = token.text, []  # what is understood becomes NULs, of the same length
        for words, meaning in phrases:
            place = rest.find(words.strip("^"))
            if place < 0:
                continue
            end = place + len(words.strip("^"))
            negation = NOT_BEFORE.search(rest[:place])
            lead = rest[: negation.start() if negation else place]
            for word in weights:
                lead = lead.replace(word, "")
            taken = TAKEN_BEFORE_HERE.search(rest[:place]) or TAKEN_AFTER_HERE.match(rest[end:])
            if (words.startswith("^") and LEADS.sub("", lead).strip("\0")) or taken:
                continue
            if meaning is None:
                left.append(words)
            else:
                here.append((place, meaning, bool(negation)))
            begin = negation.start() if negation else place
            rest = rest[:begin] + "\0" * (end - begin) + rest[end:]
        if "\0" not in rest:
            continue
        strength = next((levels[word] for word in weights if word in rest), "")
        found += [
            _Found(meaning, at, at + 1, strength, negated)
            for _, meaning, negated in sorted(here, key=lambda one: one[0])
        ]
        free[at] = False
        for word in weights:
            rest = rest.replace(word, "\0")
        left += [part for part in PARTICLES.sub("\0", rest).split("\0") if part]
    return found, left


def _choose(found: list[_Found], table: Table) -> tuple[list[_Found], list[str]]:
    """One motion and one light: the first that is named. A still camera is no motion beside what moves by itself."""
    wanted = [one for one in found if not one.negated]
    motions = [one for one in wanted if one.meaning.part != "light"]
    if any(one.meaning.part == "motion" for one in motions):
        motions = [one for one in motions if one.meaning.say != _still(table).say]
    lights = [one for one in wanted if one.meaning.part == "light"]
    if not motions and any(one.negated and one.meaning.part != "light" for one in found):
        motions = [_Found(_still(table), 0, 0)]
    chosen = motions[:1] + lights[:1]
    for one in chosen:
        one.strength = next((other.strength for other in wanted if other.meaning is one.meaning and other.strength), "")
    names = {one.meaning.name for one in chosen}
    left_out = [one.meaning.name for one in motions[1:] + lights[1:] if one.meaning.name not in names]
    return chosen, list(dict.fromkeys(left_out))


def _still(table: Table) -> Meaning:
    return next(meaning for meaning in table.meanings if meaning.name == "no motion")


def _say(one: _Found, table: Table) -> str:
    if not one.strength or "{" not in one.meaning.say:
        return one.meaning.name
    return f"{getattr(table.strengths[one.strength], one.meaning.part)} {one.meaning.name}"


def _given(one: _Found, table: Table) -> str:
    strength = table.strengths.get(one.strength)
    values = {"v": strength.adverb, "n": strength.adjective} if strength else {"v": "", "n": ""}
    return " ".join(one.meaning.say.format(**values).split())


def _missed(table: Table, tokens: list[Token], free: list[bool], between: frozenset[str]) -> list[str]:
    """Runs of words that nothing has taken and that are more than small words."""
    for words in sorted(table.ignored, key=len, reverse=True):
        for first, last in find(phrase_of(words), tokens, free, between):
            free[first:last] = [False] * (last - first)
    runs, run = [], []
    for at, token in enumerate(tokens):
        if free[at] and not (token.plain in JOINS and token.plain != "with"):
            run.append(at)
            continue
        runs.append(run)
        run = []
    runs.append(run)
    missed = []
    for run in runs:
        while run and _small(tokens[run[0]], between):
            run = run[1:]
        while run and _small(tokens[run[-1]], between):
            run = run[:-1]
        if any(not _small(tokens[at], between) and tokens[at].plain not in IDLE | NOT for at in run):
            missed.append(_span(tokens, run[0], run[-1] + 1))
    return list(dict.fromkeys(missed))


def _small(token: Token, between: frozenset[str]) -> bool:
    return token.plain in SMALL or token.plain in between or token.stem == "camera"


def _span(tokens: list[Token], first: int, last: int) -> str:
    words = " ".join(token.text for token in tokens[max(first, 0) : last] if token.text)
    return words if len(words) <= SHOWN else f"{words[: SHOWN - 1]}…"
