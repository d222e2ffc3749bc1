"""The real app with the scripted engine: `python -m tests.ui.serve_scripted`, settings from the environment.

TEST_EXAMPLES names a folder with an examples.json of the test's own. TEST_LATE_CLOSE: seconds for which the word that
the stream of answers is closed is on its way to the browser, as on a busy machine; there, Gradio's own question
whether the page is there is never answered in time. TEST_MODULES: a folder of modules that are found before others.
"""

import asyncio
import logging
import os
import sys
from pathlib import Path

from app import serve
from wan_ui.errors import UserError
from wan_ui.machine.preflight import say_anything
from wan_ui.settings import page_environment, settings


def close_late(guard: type, seconds: float) -> None:
    through = guard._answering

    def answering(self, scope, send):
        checked = through(self, scope, send)

        async def late(message):
            if b"close_stream" in message.get("body", b""):
                await asyncio.sleep(seconds)
            await checked(message)

        return late

    guard._answering = answering


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    say_anything()
    sys.path[:0] = filter(None, [os.environ.get("TEST_MODULES")])
    try:
        page_environment(settings())  # as `serve` does it: before Gradio is imported
        from wan_ui.ui import examples, guard, light_gradio  # first: what it keeps Gradio's import from takes a second

        networking = light_gradio.gradio.networking
        networking.url_ok = lambda url: False
        close_late(guard.Guard, float(os.environ.get("TEST_LATE_CLOSE", 0)))
        examples.FOLDER = Path(os.environ.get("TEST_EXAMPLES", "/nowhere"))
        serve(settings(), engine_factory="tests.ui.scripted_engine:create_engine")
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
