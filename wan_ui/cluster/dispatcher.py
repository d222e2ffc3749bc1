"""The dispatcher: a child of the page that drives Ray, one lane for each worker of another machine.

It looks who has joined, starts the actors (wan_ui.cluster.actor) and connects each with the page: a lane is a
connection on which the letters of wan_ui.queue.messages go to and fro as they do with a child of this machine. It adds
files to what goes out and puts those that come back into the job's folder. It ends with the page.
"""

import contextlib
import itertools
import json
import logging
import os
import queue
import socket
import sys
import threading
import time
from multiprocessing.connection import Client, Connection
from typing import Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError, RayError, RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from wan_ui.cluster import labels, parcels
from wan_ui.cluster.actor import GROUP, NodeWorker
from wan_ui.cluster.labels import Offer
from wan_ui.cluster.versions import difference, versions
from wan_ui.queue import messages
from wan_ui.queue.messages import AfterWork, Cancel, Entered, Failed, Generate, Letter, LipSync, Made, Partial
from wan_ui.queue.worker import CANCEL_GRACE

SCAN = 1.0  # seconds between looks at who has joined
ASK = 3.0  # seconds between questions to each worker for what it has
START = 120.0  # seconds in which an actor must have answered
NAMESPACE = "wan-ui"

log = logging.getLogger(__name__)
Actor = ray.remote(
    num_cpus=0, resources={labels.RESOURCE: 1}, max_restarts=0, max_task_retries=0, concurrency_groups={GROUP: 4}
)(NodeWorker)


class Dispatcher:
    """settings: address, socket, key, engine_factory, lease."""

    def __init__(self, settings: dict[str, Any]):
        self.settings = settings
        self.lanes: dict[tuple[str, int], Lane] = {}
        self.refused: dict[str, str] = {}  # node's id -> why it is not used
        self.control = self.connect({})
        self.lock = threading.Lock()

    def connect(self, hello: dict[str, Any]) -> Connection:
        connection = Client(self.settings["socket"], "AF_UNIX", authkey=bytes.fromhex(self.settings["key"]))
        connection.send_bytes(json.dumps(hello).encode())
        return connection

    def tell(self, event: str, **words: Any) -> None:
        """The page, on the connection that is nobody's lane."""
        with self.lock:
            self.control.send_bytes(json.dumps({"event": event, **words}).encode())

    def run(self) -> None:
        ray.init(
            address=self.settings["address"],
            namespace=NAMESPACE,
            log_to_driver=False,
            logging_level=logging.WARNING,
            configure_logging=False,
        )
        self.tell("ready")
        while True:
            self.scan()
            time.sleep(SCAN)

    def scan(self) -> None:
        nodes = [(node, labels.read(node)) for node in ray.nodes() if node["Alive"]]
        offers = [offer for _, offer in nodes if offer is not None]
        for gone in self.refused.keys() - {offer.id for offer in offers}:
            del self.refused[gone]
        for offer in offers:
            why = difference(offer.versions, versions())
            if any(other.name == offer.name and other.id < offer.id for other in offers):
                why = "another machine has this name already: start it with another --name"
            if why:
                if self.refused.get(offer.id) != why:
                    self.refused[offer.id] = why
                    self.tell("refused", node=offer.name, address=offer.address, words=why)
                continue
            for number in range(offer.workers):
                lane = self.lanes.get((offer.id, number))
                if lane is None or not lane.is_alive():
                    self.lanes[offer.id, number] = Lane(self, offer, number)
                    self.lanes[offer.id, number].start()
        there = {offer.id for offer in offers}
        for (node, number), lane in list(self.lanes.items()):
            if node not in there:
                lane.lose("its machine is gone")
                if not lane.is_alive():
                    del self.lanes[node, number]


class Lane(threading.Thread):
    """One worker of another machine: its actor, and the connection with the page. Ends when either is lost."""

    def __init__(self, dispatcher: Dispatcher, offer: Offer, number: int):
        super().__init__(name=f"lane {offer.name}/{number}", daemon=True)
        self.dispatcher, self.offer = dispatcher, offer
        self.worker = f"{offer.name}/{number}"
        self.lease_seconds: float = dispatcher.settings["lease"]
        self.inbox: queue.SimpleQueue[Letter | None] = queue.SimpleQueue()
        self.leases = itertools.count(1)
        self.lost = ""  # why, once it is
        self.lease, self.letter_id, self.cancelled_at = "", 0, 0.0

    def lose(self, why: str) -> None:
        if not self.lost:
            self.lost = why
            self.inbox.put(None)

    def run(self) -> None:
        group: PlacementGroup | None = None
        actor, connection = None, None
        try:
            group, actor = self._start()
            known = ray.get(actor.describe.remote(), timeout=START)
            why = difference(known["versions"], versions())
            if why:
                raise RuntimeError(why)
            hello = {"worker": self.worker, "node": self.offer.name, "address": self.offer.address, **known}
            connection = self.dispatcher.connect(hello)
            threading.Thread(target=self._listen, args=(connection, actor), name=self.name, daemon=True).start()
            threading.Thread(target=self._ask, args=(actor, known), name=self.name, daemon=True).start()
            while not self.lost:
                letter = self.inbox.get()
                if letter is not None:
                    self._do(actor, connection, letter)
        except (RayError, RuntimeError, ValueError, OSError) as error:
            log.info("%s", self.worker, exc_info=error)
            self.lose(_words(error))
        finally:
            self.lose("the page has let it go")
            log.info("%s: %s", self.worker, self.lost)
            if actor is not None:
                ray.kill(actor)
            if group is not None:
                remove_placement_group(group)
            self.dispatcher.tell("gone", worker=self.worker, words=self.lost)
            if connection is not None:
                # Not `close`: while the other thread reads the page would hear nothing of it.
                with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as same:
                    same.shutdown(socket.SHUT_RDWR)
            time.sleep(SCAN)  # before another try

    def _start(self) -> tuple[PlacementGroup | None, Any]:
        """The actor, by its name: nobody else can have it meanwhile. One that drives several GPUs has them in one
        placement group, so that they are of one machine."""
        settings, group = self.dispatcher.settings, None
        where: Any = NodeAffinitySchedulingStrategy(self.offer.id, soft=False)
        if self.offer.size > 1:
            bundle = {labels.RESOURCE: 1.0} | ({"GPU": float(self.offer.gpus)} if self.offer.gpus else {})
            group = placement_group(
                [bundle], strategy="STRICT_PACK", bundle_label_selector=[{"ray.io/node-id": self.offer.id}]
            )
            where = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
        actor = Actor.options(name=self.worker, num_gpus=self.offer.gpus, scheduling_strategy=where).remote(
            self.worker, settings["engine_factory"], self.lease_seconds, self.offer.size
        )
        return group, actor

    def _listen(self, connection: Connection, actor: Any) -> None:
        """What the page says. When it closes the lane, nothing of it is to be left."""
        while True:
            try:
                letter = messages.from_json(connection.recv_bytes())
            except (EOFError, OSError):
                self.lose("the page has let it go")
                connection.close()
                return
            if isinstance(letter.content, Cancel):
                if letter.id == self.letter_id:
                    self.cancelled_at = time.monotonic()
                    actor.cancel.remote(self.lease)
                continue
            self.letter_id, self.cancelled_at = letter.id, 0.0
            self.lease = f"{self.worker} {os.getpid()} {next(self.leases)}"
            self.inbox.put(letter)

    def _ask(self, actor: Any, known: dict[str, Any]) -> None:
        """Tell the page what has changed on the machine: files come and go."""
        while not self.lost:
            time.sleep(ASK)
            try:
                now = ray.get(actor.describe.remote(), timeout=self.lease_seconds)
            except GetTimeoutError:
                self.lose(f"nothing was heard of it for {self.lease_seconds:g} s")
            except RayError as error:
                self.lose(_words(error))
            else:
                if now != known:
                    self.dispatcher.tell("changed", worker=self.worker, **now)
                    known = now

    def _do(self, actor: Any, connection: Connection, letter: Letter) -> None:
        """One lease: from the page's letter to the answer that ends it. Raises RayError or sets `lost` without one."""
        message, folder, files = letter.content, None, {}
        if isinstance(message, Generate | LipSync | AfterWork):
            folder, files = message.folder, parcels.inputs_of(message.request)
        stream = actor.do.options(num_returns="streaming").remote(self.lease, messages.to_json(letter), files)
        heard = beaten = time.monotonic()
        while not self.lost:
            ready, _ = ray.wait([stream], timeout=1.0)
            now = time.monotonic()
            if now - beaten >= 1.0:
                beaten = now
                actor.beat.remote(self.lease)
            if self.cancelled_at and now - self.cancelled_at > CANCEL_GRACE + self.lease_seconds:
                return self.lose("it did not stop when it was asked to")
            if not ready:
                if now - heard > self.lease_seconds:
                    return self.lose(f"nothing was heard of it for {self.lease_seconds:g} s")
                continue
            text, made = ray.get(next(stream), timeout=START)
            heard = now
            if not text:
                continue
            answer = messages.from_json(text)
            if made and folder is not None:
                try:
                    parcels.put(made, folder)
                except OSError as error:
                    if isinstance(answer.content, Made):
                        words = f"the clip has come, but it cannot be stored: {error}"
                        text = messages.to_json(Letter(letter.id, Failed(words), answer.loaded))
                    elif isinstance(answer.content, Partial):
                        continue
            connection.send_bytes(text)
            if not isinstance(answer.content, Entered | Partial):
                return


def _words(error: Exception) -> str:
    """In one line: Ray puts whole tracebacks and lists of causes into its errors."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    match error:
        case ActorDiedError() if "creation task" in lines[0]:
            return lines[-1]
        case ActorDiedError():
            return "its process has ended"
        case ActorUnavailableError():
            return "it cannot be reached"
        case RayTaskError():
            return lines[-1]
    return lines[0]


def main() -> None:
    """Settings come as the first line of the standard input; when that closes, the page is gone."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings = json.loads(sys.stdin.readline())

    def end_with_page() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=end_with_page, daemon=True).start()
    try:
        Dispatcher(settings).run()
    except (OSError, EOFError):
        os._exit(0)  # the page does not listen any more


if __name__ == "__main__":
    main()
