"""What a machine says of itself as it joins: labels of its Ray node, which everybody reads before anything is sent."""

import re
import socket
from dataclasses import dataclass
from typing import Any

from wan_ui.cluster.versions import versions

PREFIX = "wan-ui/"
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")  # what Ray allows as a label's value
RESOURCE = "wan_ui"  # one of each node for each worker


@dataclass(frozen=True)
class Offer:
    """A machine that runs jobs.

    workers  how many it runs at once
    gpus     of each worker; 0 on a machine without
    """

    name: str
    workers: int
    gpus: int
    versions: dict[str, str]
    address: str = ""
    id: str = ""


def own_name() -> str:
    """This machine's name, as far as it can be a label."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", socket.gethostname().partition(".")[0]).strip("-_.")
    return name[:63] or "node"


def labels(name: str, workers: int, gpus: int) -> dict[str, str]:
    """Of a node that offers workers."""
    return {PREFIX + "name": name, PREFIX + "workers": str(workers), PREFIX + "gpus": str(gpus), **page_labels()}


def page_labels() -> dict[str, str]:
    """Of the page's machine, which offers none."""
    return {f"{PREFIX}version.{key.replace(' ', '-')}": value for key, value in versions().items()}


def read(node: dict[str, Any]) -> Offer | None:
    """Of an entry of ray.nodes(); None when it is no machine of ours."""
    said = {key.removeprefix(PREFIX): value for key, value in node["Labels"].items() if key.startswith(PREFIX)}
    if not said.get("name"):
        return None
    known = read_versions(node["Labels"])
    workers, gpus = (int(said.get(key, "0")) for key in ("workers", "gpus"))
    return Offer(said["name"], workers, gpus, known, node["NodeManagerAddress"], node["NodeID"])


def read_versions(said: dict[str, str]) -> dict[str, str]:
    """Of the labels of a machine of ours; {} of any other."""
    prefix = f"{PREFIX}version."
    return {key.removeprefix(prefix).replace("-", " "): value for key, value in said.items() if key.startswith(prefix)}
