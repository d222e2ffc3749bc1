"""The real app with the scripted engine: `python -m tests.ui.serve_scripted`, settings from the environment."""

import logging
import sys

from app import serve
from wan_ui.errors import UserError
from wan_ui.settings import settings

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        serve(settings(), engine_factory="tests.ui.scripted_engine:create_engine")
    except UserError as error:
        sys.exit(f"error: {error}")
