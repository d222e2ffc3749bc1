"""Letters between the page's process and the worker: there and back, and what is not understood."""

import json
import queue
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tests.job_requests import job_request
from wan_ui.changes import Changes
from wan_ui.queue import messages
from wan_ui.queue.desk import Desk
from wan_ui.queue.messages import (
    AfterWork,
    Cancel,
    Died,
    Entered,
    Examine,
    Examined,
    Failed,
    Generate,
    Letter,
    LipSync,
    Load,
    Loaded,
    Made,
    NotUnderstood,
    Partial,
    Prepare,
    Prepared,
    Refused,
    Stopped,
)  # fmt: skip
from wan_ui.request import LoraMatch, Progress, Result
from wan_ui.settings import Settings

REQUEST = job_request(loras=[{"file": "a", "strength": 0.5}])
RESULT = Result("clip.mp4", frames=17, fps=16.0, loras=(LoraMatch("a", 0.5, "both", {"both": "8/8"}),), version=2)
EACH = [
    Load("m", "s", "auto"),
    Generate(replace(REQUEST, other={"mood": 24}), Path("/clips/a b")),
    LipSync(REQUEST, Path("clips")),
    AfterWork(replace(REQUEST, task="after-work", changes=Changes("job", times=2)), Path("clips")),
    Examine("m", "s", "auto", "own", Path("doctor")),
    Prepare(REQUEST),
    Prepared(),
    Cancel(),
    Entered(Progress("denoise", 2, 4, "high-noise expert")),
    Partial(replace(RESULT, step_seconds=(0.5, 0.25), other={"depth": 1}), "2 of 3 segments", "only 2 of them"),
    Loaded("diffusers", "auto: no CUDA GPU", 1.25),
    Made(RESULT),
    Examined({"stages": [{"name": "text", "passed": True}]}),
    Stopped(),
    Refused("prompt: half \ud83d of a pair", "prompt"),
    Failed("Traceback ..."),
    Died("The worker was ended by SIGKILL during text."),
]


def test_every_kind_comes_back_as_it_was():
    assert {type(content).__name__ for content in EACH} == set(messages.KINDS)
    for number, content in enumerate(EACH):
        for letter in (Letter(number, content), Letter(number, content, ("m", "s", "auto"))):
            assert messages.from_json(messages.to_json(letter)) == letter


@pytest.mark.parametrize(
    "kind, values, words",
    [
        ("Upscale", {}, "a message of the unknown kind 'Upscale'"),
        ("Load", {"model": "m"}, "a message of kind 'Load' with wrong fields: .*scheme"),
        ("Load", {"model": "m", "scheme": "s", "engine": "auto", "device": 1}, "'Load' with wrong fields: 'device'"),
        ("Entered", {"progress": {"stage": "text", "speed": 1}}, "'Entered' with wrong fields: .*speed"),
    ],
)
def test_what_is_not_known_fails_by_name(kind, values, words):
    letter = json.dumps({"id": 3, "kind": kind, "values": values, "loaded": []}).encode()
    with pytest.raises(NotUnderstood, match=words) as caught:
        messages.from_json(letter)
    assert caught.value.id == 3


def test_the_desk_answers_what_it_does_not_understand_and_goes_on():
    class Pipe:
        asked, answered = queue.SimpleQueue(), queue.SimpleQueue()
        recv_bytes, send_bytes = asked.get, answered.put

    class Work:
        loaded, settings = ("m", "s", "auto"), Settings()

        def do(self, message):
            return Loaded(message.engine, "asked for", 0.0)

    desk = Desk(Pipe)
    threading.Thread(target=desk.serve, args=(Work(),), daemon=True).start()
    Pipe.asked.put(json.dumps({"id": 1, "kind": "Upscale", "values": {}, "loaded": []}).encode())
    Pipe.asked.put(messages.to_json(Letter(2, Load("m", "s", "auto"))))
    first, second = (messages.from_json(Pipe.answered.get(timeout=60)) for _ in range(2))
    assert first.id == 1 and "unknown kind 'Upscale'" in first.content.traceback and first.loaded == Work.loaded
    assert second == Letter(2, Loaded("auto", "asked for", 0.0), Work.loaded)
