"""Start the page: settings -> pipeline -> page -> launch. `python app.py`, or `python -m wan_ui serve`.

Gradio is imported only inside `serve`: the worker is a spawned child, which imports what its parent was started with
again, and it must not spend seconds and memory on a page that it never shows.
"""

import contextlib
import time

from wan_ui.cluster.cluster import Cluster
from wan_ui.importing import no_collection
from wan_ui.machine.memory import few_arenas
from wan_ui.machine.preflight import check_folder, check_folders, check_port
from wan_ui.queue.lent import Lend
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.queue.worker import ENGINE_FACTORY
from wan_ui.settings import Settings, page_environment
from wan_ui.signals import Stop, stoppable


def serve(values: Settings, engine_factory: str = ENGINE_FACTORY, lend: Lend | None = None) -> None:
    """Run until stopped with Ctrl-C, SIGTERM or by the end of its terminal.

    lend: what has a GPU for one job at a time, in place of a worker (wan_ui.queue.lent).
    Raises UserError for a port or a folder that cannot be used.
    """
    page, cluster = None, None
    few_arenas()
    with stoppable():
        try:
            check_port(values)
            check_folders(values)
            check_folder(page_environment(values), "uploads", "GRADIO_TEMP_DIR")
            PIPELINE.open(values, engine_factory=engine_factory, warm=False, lend=lend)
            with no_collection():
                from wan_ui.ui import seams

            seams.check()  # before modules that are built on them are imported
            with no_collection():
                from wan_ui.ui.launch import launch, tidy
                from wan_ui.ui.page import build_ui

            page = build_ui(values)
            launch(page, values, str(PIPELINE.clips))
            # Now, not before: loading takes both cores of a small machine, and the page must be there first.
            PIPELINE.warm()
            if values.ray:
                cluster = Cluster(values, PIPELINE.pool, engine_factory)
                cluster.start()
            while True:  # not a lock: on Windows no Ctrl-C ends the wait for one
                time.sleep(3600)
        except Stop:
            with contextlib.suppress(OSError):  # the terminal is gone
                print("Wan UI: stopping", flush=True)
        finally:
            PIPELINE.close()
            if cluster is not None:
                cluster.close()
            if page is not None and page.server is not None:
                page.server.should_exit = True
                page.server.thread.join(2)  # open pages would hold it for longer: they find it again when it is back
                tidy(values)
