"""Another machine's part: it joins the page's head, offers its workers and stays joined.

When the head goes, with the page that has started it, it waits and joins the next one: the page may be started again.
"""

import json
import subprocess
import sys
import time
from dataclasses import replace

from wan_ui.cluster import labels, start
from wan_ui.cluster.versions import difference, versions
from wan_ui.errors import UserError
from wan_ui.place import COMMAND
from wan_ui.queue.local import Place, places_here
from wan_ui.settings import ROOT, Settings

AGAIN = 2.0  # seconds between attempts to reach the head
LOOKS = 3  # at a head on which no page is seen yet
LOOK = 120.0  # seconds for one


def serve_node(head: str, name: str, values: Settings) -> None:
    """Until stopped. Raises UserError where this machine cannot join: then trying again would not help."""
    start.check_installed()
    start.check_token()
    host, port = start.split(head)
    head = f"{start.resolved(host)}:{port}"
    places, troubles = places_here(values)
    for words in troubles:
        print(words, file=sys.stderr)
    values, here = shared(values, places), start.environment(values)
    said = ""
    while True:
        why = start.reached(*start.split(head))
        if why:
            if said != why:
                print(
                    f"waiting for the head at {head} ({why}). Is `{COMMAND} serve --ray` running there?",
                    flush=True,
                )
            said = why
            time.sleep(AGAIN)
            continue
        said = ""
        check_versions(head, here)
        join(head, name, places, values)


def shared(values: Settings, places: list[Place]) -> Settings:
    """The settings of each of the workers: they share this machine's cores."""
    return replace(values, threads=places[0].threads or values.threads)


def check_versions(head: str, environment: dict[str, str]) -> None:
    """Raises UserError naming what is another version there, or that the token is."""
    for _ in range(LOOKS):
        done = subprocess.run(
            [sys.executable, "-m", "wan_ui.cluster.look", head],
            capture_output=True, encoding="utf-8", cwd=ROOT, env=environment, timeout=LOOK,
        )  # fmt: skip
        if "InvalidAuthToken" in done.stdout + done.stderr:
            path, given = start.ray_token()
            own = "RAY_AUTH_TOKEN" if given else str(path)
            raise UserError(
                f"ray: the head at {head} has another token than {own} here: take the one of the page's machine"
            )
        there = json.loads(done.stdout) if done.returncode == 0 else {}
        if there:
            if why := difference(there, versions()):
                raise UserError(f"ray: the page at {head} is of another version: {why}. Install the same on both")
            return
        time.sleep(AGAIN)


def join(head: str, name: str, places: list[Place], values: Settings) -> None:
    """Offer the workers until the head or Ray here has gone."""
    each = len(places[0].gpus)
    process = start.start_node(
        head, labels.labels(name, len(places), each, places[0].size), len(places), each * len(places), values, places
    )
    try:
        end, joined = time.monotonic() + start.START, False
        while process.alive():
            if not joined and process.started():
                joined = True
                devices = ", ".join(place.device for place in places)
                print(f"{name}: joined {head} with {len(places)} worker(s): {devices}", flush=True)
            if not joined and time.monotonic() > end:
                break
            time.sleep(0.5)
        print(f"{name}: Ray has ended here ({process.said()}); joining again", flush=True)
    finally:
        process.stop()
