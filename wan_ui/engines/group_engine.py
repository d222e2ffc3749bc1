"""The engine of a group of ranks, as its first rank has it: the others do what it is asked, and at the same time.

What the first rank is asked goes to the others over pipes, with the same arguments: they read the same files and make
the same choices. Only tensors go over torch.distributed. In a clip every report is a meeting: the first rank, which
hears of a cancel there, says whether all go on or all stop, so that none waits for another amid an exchange.

Where a rank fails and the others do not, what they were exchanging is lost: the group is `broken`, and who watches it
(wan_ui.queue.ranks) ends it after the answer.
"""

import os
import pickle
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wan_ui.catalog import Model, Scheme
from wan_ui.engines import group
from wan_ui.engines.base import Engine, Show
from wan_ui.errors import Cancelled, UserError
from wan_ui.machine.engine_choice import EngineChoice
from wan_ui.request import Clip, LoraMatch, LoraSpec, Progress, Report, Request

if TYPE_CHECKING:
    from collections.abc import Iterator

GO, STOP = b"go", b"stop"
GRACE = 10.0  # seconds for the others to end as well, when the first rank has failed
CreateEngine = Callable[[str], tuple[Engine, EngineChoice]]


@dataclass
class Place:
    """A rank's place in its group; it is handed to the process.

    meeting  see group.join
    lines    of the first rank: to each of the others; of another: the one to the first
    """

    rank: int
    size: int
    meeting: Path
    lines: list[Connection] = field(default_factory=list)


@dataclass(frozen=True)
class Ended:
    """How one of the other ranks has ended what it was asked. exchanges: how many it has made since it joined."""

    exchanges: int = 0
    error: str = ""


class Lead:
    """Makes engines of all ranks; see wan_ui.engines.create.create_engine. broken: called where the group is lost."""

    def __init__(self, place: Place, create: CreateEngine, broken: Callable[[], None]):
        self.place, self.create, self.broken, self.made = place, create, broken, 0
        self.joined = False

    def __call__(self, name: str) -> tuple[Engine, EngineChoice]:
        if not self.joined:
            self._all("join", 0)
            try:
                group.join(self.place.rank, self.place.size, self.place.meeting)
            except UserError:
                self.broken()
                raise
            self.joined = True
        self.made += 1
        number = self.made
        self._all("create", number, name)
        engine, choice = self.create(name)
        return Led(self, engine, number), choice

    def _all(self, word: str, number: int, *arguments: Any) -> None:
        letter = pickle.dumps((word, number, arguments))
        for line in self.place.lines:
            line.send_bytes(letter)

    def together(self, word: str, number: int, arguments: Sequence[Any], own: Callable[[], Any]) -> Any:
        """What `own` gives, while the others do the same."""
        self._all(word, number, *arguments)
        before, failed = group.here().exchanges, True
        try:
            result = own()
            failed = False
            return result
        except Cancelled:
            failed = word != "generate"  # there all were told
            raise
        finally:
            ends = list(self._ends(GRACE if failed else None))
            made = group.here().exchanges
            uneven = any(end is None or end.exchanges != made for end in ends)
            if uneven or (failed and made != before) or (not failed and any(end and end.error for end in ends)):
                self.broken()

    def _ends(self, limit: float | None) -> "Iterator[Ended | None]":
        """Of each of the others; None for one that does not end. Without a limit whoever watches ends the wait."""
        until = None if limit is None else time.monotonic() + limit
        for line in self.place.lines:
            try:
                left = None if until is None else max(0.0, until - time.monotonic())
                yield pickle.loads(line.recv_bytes()) if line.poll(left) else None
            except (EOFError, OSError):
                yield None

    def meeting(self, report: Report) -> Report:
        def meet(progress: Progress) -> None:
            word = STOP
            try:
                report(progress)
                word = GO
            finally:
                for line in self.place.lines:
                    line.send_bytes(word)

        return meet


class Led:
    """See wan_ui.engines.base.Engine. What is not a call to all ranks is the first rank's own engine's."""

    def __init__(self, lead: Lead, engine: Any, number: int):
        self.lead, self.engine, self.number = lead, engine, number

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def check(self, model: Model, scheme: Scheme, offload: str = "auto") -> None:
        asked = (model, scheme, offload)
        self.lead.together("check", self.number, asked, lambda: self.engine.check(*asked))

    def load(self, model: Model, scheme: Scheme, report: Report, offload: str = "auto") -> None:
        asked = (model, scheme, offload)
        self.lead.together("load", self.number, asked, lambda: self.engine.load(model, scheme, report, offload))

    def set_loras(self, loras: Sequence[LoraSpec]) -> tuple[LoraMatch, ...]:
        matches: tuple[LoraMatch, ...] = self.lead.together(
            "set_loras", self.number, (tuple(loras),), lambda: self.engine.set_loras(loras)
        )
        return matches

    def prepare(self, request: Request, report: Report) -> None:
        """Nothing: an exchange of the ranks that is interrupted is lost."""

    def generate(self, request: Request, report: Report, show: Show | None = None) -> Clip:
        meet = self.lead.meeting(report)
        clip: Clip = self.lead.together(
            "generate", self.number, (request,), lambda: self.engine.generate(request, meet, show)
        )
        return clip

    def close(self) -> None:
        self.lead.together("close", self.number, (), self.engine.close)

    def _not_here(self, *_: Any, **__: Any) -> Any:
        """What examines the stages would see one rank's tokens only."""
        raise UserError(
            f"engine: the stages of a model are examined on one GPU; start without {group.SETTING}", field="engine"
        )

    plan = encode_text = encode_image = predict = decode = _not_here


def follow(place: Place, create: CreateEngine, fault: Callable[[str], None]) -> None:
    """What another rank does until the first is gone. fault: told an error's traceback, at once."""
    line, engines = place.lines[0], dict[int, Any]()

    def hear(progress: Progress) -> None:
        if line.recv_bytes() == STOP:
            raise Cancelled

    def do(word: str, number: int, arguments: tuple[Any, ...]) -> None:
        match word:
            case "check" | "set_loras":
                getattr(engines[number], word)(*arguments)
            case "load":
                model, scheme, offload = arguments
                engines[number].load(model, scheme, lambda progress: None, offload)
            case "generate":
                engines[number].generate(*arguments, hear)
            case "close":
                engines.pop(number).close()
            case _:
                raise ValueError(word)

    while True:
        try:
            word, number, arguments = pickle.loads(line.recv_bytes())
        except (EOFError, OSError):
            os._exit(0)
        error = ""
        try:
            if word == "join":
                group.join(place.rank, place.size, place.meeting)
                continue
            if word == "create":
                engines[number] = create(*arguments)[0]
                continue
            do(word, number, arguments)
        except Cancelled:
            pass
        except UserError as refused:
            error = str(refused)
        except Exception:
            error = traceback.format_exc()
        if error:
            fault(error)
        if word not in ("join", "create"):
            line.send_bytes(pickle.dumps(Ended(group.here().exchanges, error)))
