"""The child's desk: takes the parent's messages one by one, has them done (wan_ui.queue.work) and answers.

The process ends when the pipe closes: the parent is gone, and nobody would free the GPU. See wan_ui.queue.worker.
"""

import faulthandler
import importlib
import json
import os
import signal
import threading
import traceback

from wan_ui.errors import Cancelled, UserError
from wan_ui.machine.cpus import allowed_cpus
from wan_ui.queue.work import Work
from wan_ui.settings import Settings

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # are the parent's to handle


def main(pipe, engine_factory: str, settings_json: str, stderr_path: str) -> None:
    """Entry point of the child: answer messages until the pipe closes."""
    stack_file = open(stderr_path, "w", encoding="utf-8")  # noqa: SIM115 - must stay open for faulthandler
    faulthandler.enable(stack_file)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    from wan_ui import settings as settings_module

    values = json.loads(settings_json)
    defaults = Settings()
    resolved = Settings(**{name: type(getattr(defaults, name))(value) for name, value in values.items()})
    settings_module.use(resolved)
    # Read when torch and its like are first imported: speech without an engine, LightX2V and numpy follow it too.
    settings_module.default_environment({"OMP_NUM_THREADS": str(resolved.threads or allowed_cpus())})

    inbox: list[dict] = []
    arrived = threading.Condition()
    cancel = threading.Event()
    newest = 0  # number of the last message; a cancel is for one message alone

    def listen() -> None:
        nonlocal newest
        while True:
            try:
                message = json.loads(pipe.recv_bytes())
            except (EOFError, OSError):
                os._exit(0)  # the parent is gone: do not outlive it holding a GPU
            if message["kind"] == "cancel":
                if message["number"] == newest:
                    cancel.set()
                continue
            newest = message["number"]
            cancel.clear()  # here, not when the work begins: a cancel may already be right behind it
            with arrived:
                inbox.append(message)
                arrived.notify()

    threading.Thread(target=listen, daemon=True).start()
    factory_module, _, factory_name = engine_factory.partition(":")
    work = Work(pipe, resolved, getattr(importlib.import_module(factory_module), factory_name), cancel)
    while True:
        with arrived:
            arrived.wait_for(lambda: inbox)
            message = inbox.pop(0)
        work.number = message["number"]
        try:
            answers = {"load": work.load, "generate": work.generate, "lipsync": work.lipsync, "stages": work.stages}
            result = answers[message["kind"]](message)
            answer = {"kind": "done", "result": result}
        except Cancelled:
            answer = {"kind": "cancelled"}
        except UserError as error:
            answer = {"kind": "user_error", "message": str(error), "field": error.field}
        except Exception:
            answer = {"kind": "error", "traceback": traceback.format_exc()}
        work.send(answer | {"loaded": work.loaded})
