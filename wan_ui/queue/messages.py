"""What the page's process and the worker say to each other: small frozen records, one JSON text each.

The parent's message asks for one thing and has an id; every answer carries the id of the message that it is about.
Both sides are of one version: a kind or a field that is not known is a mistake, and named.
"""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from wan_ui.request import Progress, Request, Result

# ---------------------------------------------------------------- asked


@dataclass(frozen=True)
class Load:
    """Answered with Loaded."""

    model: str
    scheme: str
    engine: str  # as asked for: "auto" too


@dataclass(frozen=True)
class Generate:
    """Write clip.mp4 and poster.jpg into `folder`. Answered with Partial when speech is to follow, and with Made."""

    request: Request
    folder: Path


@dataclass(frozen=True)
class LipSync:
    """Add speech to the clip of the request; as Generate."""

    request: Request
    folder: Path


@dataclass(frozen=True)
class AfterWork:
    """Change the clip of the request; as Generate."""

    request: Request
    folder: Path


@dataclass(frozen=True)
class Examine:
    """Hold each stage of a model against a reference. Answered with Examined."""

    model: str
    scheme: str
    engine: str
    reference: str
    folder: Path


@dataclass(frozen=True)
class Prepare:
    """Encode text and pictures of a job that may come, if its model is loaded. Answered with Prepared."""

    request: Request


@dataclass(frozen=True)
class Cancel:
    """Stop what the message of this id has asked for, if it is still being done."""


# ---------------------------------------------------------------- answered


@dataclass(frozen=True)
class Entered:
    """A step is about to be entered."""

    progress: Progress


@dataclass(frozen=True)
class Partial:
    """A result that is worth keeping whatever comes. kept: what it is, lacking: what it lacks, in words."""

    result: Result
    kept: str
    lacking: str


@dataclass(frozen=True)
class Loaded:
    """engine: the one that was chosen, and why."""

    engine: str
    why: str
    seconds: float


@dataclass(frozen=True)
class Made:
    result: Result


@dataclass(frozen=True)
class Examined:
    """report: see wan_ui.qa.stages.examine."""

    report: dict[str, Any]


@dataclass(frozen=True)
class Prepared:
    """It is encoded, or there was nothing to do."""


@dataclass(frozen=True)
class Stopped:
    """It was cancelled."""


@dataclass(frozen=True)
class Refused:
    """A UserError: words, the field that they are about, and whose memory was not enough, if that is it: GPU or
    machine. Of the latter the process is not to be asked again."""

    words: str
    field: str
    memory: str = ""


@dataclass(frozen=True)
class Failed:
    """An unexpected error."""

    traceback: str


@dataclass(frozen=True)
class Died:
    """Of a worker on another machine: its child ended (a WorkerDied), in words."""

    words: str


Asked = Load | Generate | LipSync | AfterWork | Examine | Prepare | Cancel
Answered = Entered | Partial | Loaded | Made | Examined | Prepared | Stopped | Refused | Failed | Died
KINDS = {kind.__name__: kind for kind in (*Asked.__args__, *Answered.__args__)}
TYPES = {kind: get_type_hints(kind) for kind in KINDS.values()}


@dataclass(frozen=True)
class Letter:
    """loaded: in the last answer to a message (model, scheme, engine as asked for); () when no model is loaded."""

    id: int
    content: Asked | Answered
    loaded: tuple[str, ...] = field(default=())


class NotUnderstood(Exception):
    """A letter of a kind that is not known, or with wrong fields. `id` is that of its message."""

    def __init__(self, words: str, letter_id: Any):
        super().__init__(words)
        self.id = letter_id


def to_json(letter: Letter) -> bytes:
    content = letter.content
    values = {known.name: _plain(getattr(content, known.name)) for known in fields(content)}
    kind = type(content).__name__
    return json.dumps({"id": letter.id, "kind": kind, "values": values, "loaded": letter.loaded}).encode()


def from_json(text: bytes) -> Letter:
    """Raises NotUnderstood, naming the kind."""
    letter = json.loads(text)
    kind = KINDS.get(letter["kind"])
    if kind is None:
        raise NotUnderstood(f"a message of the unknown kind {letter['kind']!r}", letter["id"])
    try:
        values = {name: _typed(TYPES[kind][name], value) for name, value in letter["values"].items()}
        return Letter(letter["id"], kind(**values), tuple(letter["loaded"]))
    except (TypeError, KeyError) as error:
        raise NotUnderstood(f"a message of kind {letter['kind']!r} with wrong fields: {error}", letter["id"]) from None


def _plain(value: Any) -> Any:
    if isinstance(value, Request | Result):
        return value.to_dict()
    if isinstance(value, Progress):
        return asdict(value)
    return str(value) if isinstance(value, Path) else value


def _typed(kind: Any, value: Any) -> Any:
    if kind in (Request, Result):
        return kind.from_dict(value)
    if kind is Progress:
        return Progress(**value)
    return Path(value) if kind is Path else value
