"""A worker on a GPU that is lent for one job at a time, as Hugging Face's ZeroGPU does.

Such a GPU is given to the call of a function: in a fork of the page's process, which ends soon after, or is asked again
if somebody comes in time. So a letter of wan_ui.queue.messages is what the function is called with, and the answers
are what it yields (`answers`, the desk of that fork). What is loaded is lost with the fork: nothing is loaded ahead.
"""

import contextvars
import json
import math
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path

from wan_ui.catalog import find_model
from wan_ui.errors import Cancelled, UserError, WorkerDied
from wan_ui.files import found
from wan_ui.machine.engine_choice import choose_engine
from wan_ui.queue import desk, messages
from wan_ui.queue.base import OnProgress
from wan_ui.queue.messages import (  # fmt: skip
    AfterWork,
    Answered,
    Cancel,
    Generate,
    Letter,
    LipSync,
    Load,
    Loaded,
    Prepare,
    Prepared,
)
from wan_ui.queue.work import Work
from wan_ui.queue.worker import ENGINE_FACTORY, POLL, Worker
from wan_ui.request import Request
from wan_ui.settings import Settings

# What the GPU is asked for, in seconds. A visitor's quota must cover all of it, and who asks for less comes first.
LEAST = 15
UNKNOWN = 60  # of a kind of which nothing was made yet: ZeroGPU's own usual
SPARE = 1.3  # times what the last job of its kind took: what takes longer is ended
REMEMBERED = 1000  # waiting jobs whose visitors are known
GONE = "ZeroGPU worker error"  # the title of its error when the fork has ended, or what it did was ended
Lend = Callable[[bytes, int, str, str], Iterator[bytes]]


def duration(letter: bytes, seconds: int, settings_json: str, engine_factory: str) -> int:
    """For `spaces.GPU(duration=duration)`, which asks it with what the function is called with."""
    return seconds


class LentWorker(Worker):
    """lend      the function that has the GPU while it yields; see `answers`
    expected  seconds that a job takes with the loading of its model; None when that is not known
    visitors  of waiting jobs what belongs to the request that brought them: the GPU is lent to whoever asks, and their
              quota is charged. Of a job from before the last start, or from a program, it is the Space's own
    """

    def __init__(
        self,
        settings: Settings,
        lend: Lend,
        expected: Callable[[Request], float | None],
        engine_factory: str = ENGINE_FACTORY,
    ):
        super().__init__(settings, engine_factory)
        self.lend, self.expected = lend, expected
        self.visitors: dict[str, contextvars.Context] = {}

    def alive(self) -> bool:
        return True  # there is no process that could have ended

    def start(self) -> None:
        pass

    def stop(self) -> None:
        self.loaded = ()

    def kill(self) -> None:
        self.loaded = ()

    def asked(self, job: str) -> None:
        """In the thread that answers the request."""
        self.visitors[job] = contextvars.copy_context()
        if len(self.visitors) > REMEMBERED:  # of the oldest, most were cancelled before their turn
            del self.visitors[next(iter(self.visitors))]

    def seconds(self, content: object) -> int:
        """That the GPU is asked for."""
        spent = self.expected(content.request) if isinstance(content, Generate | LipSync | AfterWork) else None
        return UNKNOWN if spent is None else max(LEAST, math.ceil(SPARE * spent))

    def _follow(self, letter: Letter, on_progress: OnProgress, cancelled: Callable[[], bool]) -> Letter:
        content = letter.content
        if isinstance(content, Load):
            model = find_model(found.models(self.settings), content.model)
            model.scheme(content.scheme)
            chosen = choose_engine(content.engine, self.settings, family=model.family)
            why = f"{chosen.why}; on a GPU that is lent for each clip, which loads it then"
            return Letter(letter.id, Loaded(chosen.name, why, 0.0), (content.model, content.scheme, content.engine))
        if isinstance(content, Prepare):
            return Letter(letter.id, Prepared(), self.loaded)
        job = content.folder.name if isinstance(content, Generate | LipSync | AfterWork) else ""
        visitor = self.visitors.pop(job, None) or contextvars.copy_context()
        call = Call(self.lend, letter, self.seconds(content), self.settings, self.engine_factory)
        threading.Thread(target=visitor.run, args=(call.run,), name="wan-ui-lent", daemon=True).start()
        try:
            return self._until_answered(
                lambda progress: call.next(POLL), lambda progress: call.give_up.set(), on_progress, cancelled
            )
        except BaseException:
            call.give_up.set()
            raise

    def _given_up(self) -> str:
        return ", so it was given up"


class Call:
    """One call of what has the GPU, in a thread of its own: it waits for a GPU, and a step may be long.

    give_up  it is to end at the next answer
    """

    def __init__(self, lend: Lend, letter: Letter, seconds: int, settings: Settings, engine_factory: str):
        self.lend, self.letter, self.seconds, self.engine_factory = lend, letter, seconds, engine_factory
        values = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(settings).items()}
        self.settings_json = json.dumps(values)
        self.give_up = threading.Event()
        self._answers: queue.SimpleQueue[Letter | BaseException] = queue.SimpleQueue()

    def run(self) -> None:
        try:
            texts = self.lend(messages.to_json(self.letter), self.seconds, self.settings_json, self.engine_factory)
            for text in texts:
                self._answers.put(messages.from_json(text))
                if self.give_up.is_set():
                    texts.close()  # type: ignore[attr-defined] # a generator
                    self._answers.put(Cancelled())
                    return
            self._answers.put(WorkerDied(f"The GPU was taken away: it had been lent for {self.seconds} s."))
        except Exception as error:
            self._answers.put(self._refusal(error))

    def next(self, wait: float) -> Letter | None:
        """The next answer; None when there is none for a moment. Raises what the call has ended with."""
        try:
            answer = self._answers.get(timeout=wait)
        except queue.Empty:
            return None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _refusal(self, error: Exception) -> Exception:
        """ZeroGPU's own errors are Gradio's, with a title and a sentence for the visitor: a quota, a duration that is
        not allowed, no GPU in time."""
        title, words = getattr(error, "title", ""), getattr(error, "message", "")
        if not isinstance(title, str) or not isinstance(words, str) or not title or not words:
            return error
        if title == GONE:
            return WorkerDied(f"The GPU was taken away ({words}); it had been lent for {self.seconds} s.")
        return UserError(
            f"{title}: {words} This clip asks for {self.seconds} s of a GPU; a smaller size, fewer frames or fewer "
            "steps ask for less.",
            field="gpu",
        )


# ---------------------------------------------------------------- in the fork that has the GPU


@cache
def _desk(settings_json: str, engine_factory: str) -> Work:
    """What this fork has loaded; kept for as long as it lives."""
    values, create_engine = desk.begin(engine_factory, settings_json)
    return Work(values, create_engine, lambda content: None, threading.Event())


def answers(text: bytes, settings_json: str, engine_factory: str) -> Iterator[bytes]:
    """Do what a letter asks for; yields the letters that answer it. Closing it cancels the job at its next step."""
    letter = messages.from_json(text)
    assert not isinstance(letter.content, Cancel)
    said: queue.SimpleQueue[tuple[Answered, tuple[str, ...]] | None] = queue.SimpleQueue()
    work = _desk(settings_json, engine_factory)
    work.answer, work.cancel = lambda content: said.put((content, ())), threading.Event()

    def run() -> None:
        said.put((desk.answer_to(letter, work), work.loaded))
        said.put(None)

    thread = threading.Thread(target=run, name="wan-ui-desk", daemon=True)
    thread.start()
    try:
        while (answer := said.get()) is not None:
            yield messages.to_json(Letter(letter.id, *answer))
    finally:
        work.cancel.set()
        thread.join()
