"""The real app with the scripted engine: `python -m tests.ui.serve_scripted`, settings from the environment.

TEST_EXAMPLES names a folder with an examples.json of the test's own.
"""

import logging
import os
import sys
from pathlib import Path

from app import serve
from wan_ui.errors import UserError
from wan_ui.settings import page_environment, settings

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        page_environment(settings())  # as `serve` does it: before Gradio is imported
        from wan_ui.ui import examples

        examples.FOLDER = Path(os.environ.get("TEST_EXAMPLES", "/nowhere"))
        serve(settings(), engine_factory="tests.ui.scripted_engine:create_engine")
    except UserError as error:
        sys.exit(f"error: {error}")
