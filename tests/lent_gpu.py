"""A stand-in for the package `spaces` of Hugging Face: what it does with a generator, as far as it can be seen.

`write` makes a module of that name for an app; it runs the function in a fork, as ZeroGPU does. Each call is written
down as a line of calls.jsonl beside it: the seconds, whose request it was, the fork's process id. Where a file `refuse`
lies beside it, its two lines, title and sentence, are raised instead.
"""

from pathlib import Path

SOURCE = """
import functools
import json
import multiprocessing
import os
from pathlib import Path

import gradio as gr
from gradio.context import LocalContext

HERE = Path(__file__).parent
FORK = multiprocessing.get_context("fork")


def GPU(task=None, *, duration=None, size=None):
    if task is None:
        return functools.partial(GPU, duration=duration, size=size)

    @functools.wraps(task)
    def lent(*args):
        request = LocalContext.request.get(None)
        seconds = duration(*args) if callable(duration) else duration
        if (HERE / "refuse").exists():
            title, message = (HERE / "refuse").read_text().splitlines()
            raise gr.Error(message, title=title, print_exception=False)
        answers, stop = FORK.SimpleQueue(), FORK.Event()

        def work():
            given = task(*args)
            for answer in given:
                answers.put(answer)
                if stop.is_set():
                    given.close()
                    break
            answers.put(None)
            os._exit(0)

        process = FORK.Process(target=work, daemon=True)
        process.start()
        visitor = request.headers.get("x-ip-token") if request else None
        call = {"seconds": seconds, "visitor": visitor, "process": process.pid}
        with (HERE / "calls.jsonl").open("a") as calls:
            calls.write(json.dumps(call) + "\\n")
        try:
            while (answer := answers.get()) is not None:
                yield answer
        finally:
            stop.set()
            process.join()

    return lent
"""


def write(folder: Path) -> Path:
    """The folder, which is to be on the path of modules."""
    folder.mkdir(exist_ok=True)
    (folder / "spaces.py").write_text(SOURCE, encoding="utf-8")
    return folder
