"""The page, as a Space and `make run` start it: python app.py"""

import logging
import sys

from wan_ui.app import serve
from wan_ui.errors import UserError
from wan_ui.machine.preflight import say_anything
from wan_ui.settings import settings

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    say_anything()
    try:
        serve(settings())
    except UserError as error:
        sys.exit(f"error: {error}")
