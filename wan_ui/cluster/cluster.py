"""The page's side of Ray: keeps a head (its own, or another's that it joins) and a dispatcher alive, and lets the
workers of other machines join the queue and leave it.

Whatever of this fails is said and tried again; the page serves with what is left.
"""

import json
import logging
import secrets
import subprocess
import sys
import tempfile
import threading
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any, Protocol

from wan_ui.catalog import find_model
from wan_ui.cluster import labels, start
from wan_ui.cluster.remote import RemoteWorker
from wan_ui.cluster.start import RayProcess
from wan_ui.errors import UserError
from wan_ui.files import found
from wan_ui.place import COMMAND
from wan_ui.queue.runner import Runner
from wan_ui.settings import ROOT, Settings

AGAIN = 5.0  # seconds until a head or dispatcher that has ended is started again
SAID = 20  # lines of a dispatcher's last words
LOOK = 0.5  # seconds between looks at who has gone
LEASE = 30.0  # seconds of silence after which a job's machine is given up

log = logging.getLogger(__name__)


class Queue(Protocol):
    """What is asked of the pool of workers (wan_ui.queue.pool). troubles: are shown on the page."""

    troubles: tuple[str, ...]

    def join(self, name: str, worker: RemoteWorker, device: str) -> Runner: ...

    def remove(self, name: str) -> None: ...

    def busy(self, name: str) -> bool: ...


class Cluster:
    """words    how it stands, for people
    refused  machine or worker -> why it is not used
    """

    def __init__(self, settings: Settings, pool: Queue, engine_factory: str, lease: float = LEASE):
        self.settings, self.pool, self.engine_factory, self.lease = settings, pool, engine_factory, lease
        self.words = ""
        self.before = pool.troubles
        self.refused: dict[str, str] = {}
        self.workers: dict[str, RemoteWorker] = {}
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, name="wan-ui-cluster", daemon=True)
        self.raylet: RayProcess | None = None
        self.dispatcher: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.thread.start()

    def close(self) -> None:
        self.stopping.set()
        if self.thread.ident is not None:
            self.thread.join(15)

    # ------------------------------------------------------------ what runs

    def _run(self) -> None:
        said = ""
        while not self.stopping.is_set():
            try:
                self._serve()
                said = ""
            except UserError as error:
                self.words = str(error)
                self._show(self.words)
                if said != self.words:
                    log.error("%s; the page works without the other machines, and tries again", self.words)
                said = self.words
            except Exception:
                log.exception("the dispatcher could not be served; it is tried again")
            finally:
                self._end()
            self.stopping.wait(AGAIN)
        for name in list(self.workers):
            self.workers.pop(name).gone("the page ends")

    def _serve(self) -> None:
        """Until the dispatcher ends. Raises UserError when it cannot begin."""
        start.check_installed()
        address = self._reach()
        with tempfile.TemporaryDirectory(prefix="wan-ui-ray-") as folder:  # readable by us alone
            key = secrets.token_bytes(32)
            with (
                Listener(str(Path(folder) / "lanes"), "AF_UNIX", backlog=64, authkey=key) as listener,
                open(Path(folder) / "log", "w+b") as said,
            ):
                self.dispatcher = subprocess.Popen(
                    [sys.executable, "-m", "wan_ui.cluster.dispatcher"],
                    stdin=subprocess.PIPE, cwd=ROOT, env=start.environment(self.settings), encoding="utf-8",
                    stdout=said, stderr=said, start_new_session=True,
                )  # fmt: skip
                wanted = {
                    "address": address,
                    "socket": listener.address,
                    "key": key.hex(),
                    "engine_factory": self.engine_factory,
                    "lease": self.lease,
                }
                assert self.dispatcher.stdin is not None
                self.dispatcher.stdin.write(json.dumps(wanted) + "\n")
                self.dispatcher.stdin.flush()
                threading.Thread(target=self._accept, args=(listener,), name="wan-ui-lanes", daemon=True).start()
                while not self.stopping.is_set() and self.dispatcher.poll() is None:
                    self._part()
                    self.stopping.wait(LOOK)
                if not self.stopping.is_set():
                    said.seek(0)
                    words = said.read().decode(errors="replace").strip().splitlines()[-SAID:]
                    self.words = f"ray: the dispatcher has ended with exit code {self.dispatcher.poll()}"
                    log.error("%s; it is started again. It said:\n%s", self.words, "\n".join(words))

    def _reach(self) -> str:
        """The head's HOST:PORT, once it can be reached: one that is to be here and is not is started."""
        host, port = start.head_address(self.settings.ray)
        head = f"{host}:{port}"
        why = start.reached(host, port)
        if why and not start.is_own(host):
            raise UserError(
                f"ray: the head at {head} cannot be reached ({why}). Is Wan UI with --ray, or `ray start --head`, "
                "running there? Is the port open for this machine?"
            )
        if why and self.raylet is not None:
            self.raylet.stop()
            self.raylet = None
        if why:
            self.raylet = start.start_head(host, port, self.settings)
        elif self.raylet is not None:
            pass  # of the dispatcher before
        elif not start.is_own(host):
            start.check_token()
            self.raylet = start.start_node(head, labels.page_labels(), 0, 0, self.settings)
        else:
            start.check_token()
        self.words = f"ray: {head}"
        self._show()
        log.info("ray: the head is at %s; other machines join with: %s node --head %s", head, COMMAND, head)
        return head

    def _end(self) -> None:
        for worker in self.workers.values():
            worker.gone("the dispatcher has ended")
        if self.dispatcher is not None and self.dispatcher.stdin is not None:
            self.dispatcher.stdin.close()
            try:
                self.dispatcher.wait(10)
            except subprocess.TimeoutExpired:
                self.dispatcher.kill()
                self.dispatcher.wait()
        self.dispatcher = None
        if self.raylet is not None and (self.stopping.is_set() or not self.raylet.alive()):
            self.raylet.stop()
            self.raylet = None  # else it serves the next dispatcher, and the other machines stay joined

    # ------------------------------------------------------------ who comes and goes

    def _accept(self, listener: Listener) -> None:
        while True:
            try:
                connection = listener.accept()
                hello = json.loads(connection.recv_bytes())
            except AuthenticationError:
                continue  # somebody else
            except (OSError, EOFError):
                return  # this dispatcher is over
            if "worker" in hello:
                self._join(hello, connection)
            else:
                threading.Thread(target=self._hear, args=(connection,), name="wan-ui-events", daemon=True).start()

    def _join(self, hello: dict[str, Any], connection: Connection) -> None:
        name = hello["worker"]
        worker = self.workers.get(name)
        if worker is not None:
            worker.connected(connection, hello)
            return
        worker = self.workers[name] = RemoteWorker(name, self.settings)
        worker.connected(connection, hello)
        if self.refused.pop(name, ""):
            self._show()
        log.info("%s at %s has joined", name, worker.address)
        try:
            runner = self.pool.join(name, worker, hello["device"])
            model = find_model(found.models(self.settings), self.settings.model)
            scheme = model.scheme(self.settings.scheme).name
        except UserError as error:
            log.error("%s", error)
            return
        if worker.offers(model.name, scheme, self.settings.engine):
            runner.load(model.name, scheme, self.settings.engine)  # the first job finds it warm

    def _hear(self, connection: Connection) -> None:
        while True:
            try:
                event = json.loads(connection.recv_bytes())
            except (OSError, EOFError):
                return
            worker = self.workers.get(event.get("worker", ""))
            match event["event"]:
                case "changed" if worker is not None:
                    worker.know(event)
                case "gone" if worker is not None:
                    worker.gone(event["words"])
                case "gone":
                    self._refuse(event["worker"], f"its actor could not be started: {event['words']}")
                case "refused":
                    self._refuse(f"{event['node']} ({event['address']})", event["words"])

    def _refuse(self, name: str, why: str) -> None:
        if self.refused.get(name) != why:
            self.refused[name] = why
            self._show()
            log.error("ray: %s is not used: %s", name, why)

    def _show(self, *words: str) -> None:
        """What is wrong, on the page."""
        refused = (f"ray: {name} is not used: {why}" for name, why in self.refused.items())
        self.pool.troubles = (*self.before, *words, *refused)

    def _part(self) -> None:
        """Those who are gone leave the queue when the job that they had has been dealt with."""
        for name, worker in list(self.workers.items()):
            if worker.lost and not worker.alive() and not self.pool.busy(name):
                log.warning("%s has left: %s", name, worker.lost)
                del self.workers[name]
                self.pool.remove(name)
