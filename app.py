"""Start the page: settings -> pipeline -> page -> launch. `python app.py`, or `python -m wan_ui serve`.

Gradio is imported only inside `serve`: the worker is a spawned child, which imports this file again, and
it must not spend seconds and memory on a page that it never shows.
"""

import errno
import logging
import socket
import sys
import threading

from wan_ui.errors import UserError
from wan_ui.pipeline import PIPELINE
from wan_ui.settings import Settings, default_environment, settings
from wan_ui.signals import Stop, stoppable
from wan_ui.worker import ENGINE_FACTORY


def serve(values: Settings, engine_factory: str = ENGINE_FACTORY) -> None:
    """Run until stopped with Ctrl-C or SIGTERM. Raises UserError when the port or the outputs folder is taken."""
    page = None
    with stoppable():
        try:
            _check_port(values)
            PIPELINE.open(values, engine_factory=engine_factory, warm=False)
            default_environment({"GRADIO_ANALYTICS_ENABLED": "False"})
            from wan_ui.ui import build_ui, launch

            page = build_ui(values)
            launch(page, values, str(PIPELINE.clips))
            # Now, not before: loading takes both cores of a small machine, and the page must be there first.
            PIPELINE.load(values.model, values.scheme, values.engine)
            threading.Event().wait()
        except Stop:
            print("Wan UI: stopping", flush=True)
        finally:
            PIPELINE.close()
            if page is not None and page.server is not None:
                page.server.should_exit = True
                page.server.thread.join(2)  # open pages would hold it for longer: they find it again when it is back


def _check_port(values: Settings) -> None:
    host = values.host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, values.port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                words = f"port: {values.port} is in use by another program; stop it, or choose another with WAN_UI_PORT"
            else:
                words = f"host: cannot listen on {values.host}:{values.port} ({error.strerror}); see WAN_UI_HOST"
            raise UserError(words) from None


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        serve(settings())
    except UserError as error:
        sys.exit(f"error: {error}")
