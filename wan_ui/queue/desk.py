"""The child's desk: takes the parent's messages one by one, has them done (wan_ui.queue.work) and answers.

The process ends when the pipe closes: the parent is gone, and nobody else would free the GPU.
"""

import errno
import faulthandler
import importlib
import json
import os
import queue
import threading
import traceback
from multiprocessing.connection import Connection

from wan_ui import settings as settings_module
from wan_ui.engines import group_engine
from wan_ui.engines.group_engine import Lead
from wan_ui.errors import Cancelled, UserError
from wan_ui.machine.cpus import allowed_cpus
from wan_ui.queue import messages, out_of_memory
from wan_ui.queue.messages import Answered, Cancel, Failed, Letter, NotUnderstood, Refused, Stopped
from wan_ui.queue.ranks import Seat
from wan_ui.queue.work import CreateEngine, Work
from wan_ui.settings import Settings
from wan_ui.system import ignore_endings

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no file may grow: the disk is full, or what is allowed of it


def main(
    pipe: Connection,
    engine_factory: str,
    settings_json: str,
    stderr_path: str,
    environment: dict[str, str],
    seat: Seat | None = None,
) -> None:
    """Entry point of the child: answer messages until the pipe closes. seat: of the first rank of a group of GPUs."""
    resolved, create_engine = _begin(engine_factory, settings_json, stderr_path, environment)
    if seat is not None:
        seat.sit()
        create_engine = Lead(seat.place, create_engine, seat.break_up)
    desk = Desk(pipe)
    desk.serve(Work(resolved, create_engine, desk.answer, desk.cancel))


def follow(seat: Seat, stderr_path: str, engine_factory: str, settings_json: str, environment: dict[str, str]) -> None:
    """Entry point of another rank of a group."""
    seat.sit()
    _, create_engine = _begin(engine_factory, settings_json, stderr_path, environment)
    group_engine.follow(seat.place, create_engine, seat.fault)


def _begin(
    engine_factory: str, settings_json: str, stderr_path: str, environment: dict[str, str]
) -> tuple[Settings, CreateEngine]:
    settings_module.set_environment(environment)  # before anything looks for a GPU
    stack_file = open(stderr_path, "w", encoding="utf-8")  # noqa: SIM115 - must stay open for faulthandler
    faulthandler.enable(stack_file)
    ignore_endings()  # they are the parent's to handle
    return begin(engine_factory, settings_json)


def begin(engine_factory: str, settings_json: str) -> tuple[Settings, CreateEngine]:
    """The parent's settings become those of this process."""
    values = json.loads(settings_json)
    defaults = Settings()
    resolved = Settings(**{name: type(getattr(defaults, name))(value) for name, value in values.items()})
    settings_module.use(resolved)
    # Read when torch and its like are first imported: speech without an engine, LightX2V and numpy follow it too.
    settings_module.default_environment({"OMP_NUM_THREADS": str(resolved.threads or allowed_cpus())})
    factory_module, _, factory_name = engine_factory.partition(":")
    return resolved, getattr(importlib.import_module(factory_module), factory_name)


class Desk:
    """A thread of its own listens, so that a cancel arrives while the message that it is about is worked on."""

    def __init__(self, pipe: Connection):
        self.pipe = pipe
        self.cancel = threading.Event()
        self.inbox: queue.SimpleQueue[Letter | NotUnderstood] = queue.SimpleQueue()
        self.newest = 0  # id of the last message; a cancel is for one message alone
        self.id = 0  # of the message that is being worked on
        threading.Thread(target=self._listen, name="wan-ui-desk", daemon=True).start()

    def _listen(self) -> None:
        while True:
            letter: Letter | NotUnderstood
            try:
                letter = messages.from_json(self.pipe.recv_bytes())
            except (EOFError, OSError):
                os._exit(0)  # the parent is gone: do not outlive it holding a GPU
            except NotUnderstood as error:
                letter = error
            if isinstance(letter, Letter) and isinstance(letter.content, Cancel):
                if letter.id == self.newest:
                    self.cancel.set()
                continue
            self.newest = letter.id
            self.cancel.clear()  # here, not when the work begins: a cancel may already be right behind it
            self.inbox.put(letter)

    def answer(self, content: Answered, loaded: tuple[str, ...] = ()) -> None:
        self.pipe.send_bytes(messages.to_json(Letter(self.id, content, loaded)))

    def serve(self, work: Work) -> None:
        while True:
            letter = self.inbox.get()
            self.id = letter.id
            self.answer(answer_to(letter, work), work.loaded)


def answer_to(letter: Letter | NotUnderstood, work: Work) -> Answered:
    """The one that ends the message."""
    try:
        if isinstance(letter, NotUnderstood):
            raise letter
        return work.do(letter.content)
    except Cancelled:
        return Stopped()
    except UserError as error:
        return Refused(str(error), error.field, error.memory)
    except Exception as error:
        words = traceback.format_exc()
        short, where = out_of_memory.refusal(error, getattr(letter, "content", None))
        if isinstance(error, OSError) and error.errno in FULL:
            return Refused(f"disk: there is no room for the job's files ({error}); make room and try again", "")
        return Refused(short, "size", where) if short else Failed(words)
