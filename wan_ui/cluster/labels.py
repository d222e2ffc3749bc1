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
    size     processes of each worker that share a clip
    """

    name: str
    workers: int
    gpus: int
    versions: dict[str, str]
    size: int = 1
    address: str = ""
    id: str = ""


def own_name() -> str:
    """This machine's name, as far as it can be a label."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", socket.gethostname().partition(".")[0]).strip("-_.")
    return name[:63] or "node"


def labels(name: str, workers: int, gpus: int, size: int = 1) -> dict[str, str]:
    """Of a node that offers workers."""
    said = {"name": name, "workers": str(workers), "gpus": str(gpus), "size": str(size)}
    return {PREFIX + key: value for key, value in said.items()} | page_labels()


def page_labels() -> dict[str, str]:
    """Of the page's machine, which offers none."""
    return {f"{PREFIX}version.{key.replace(' ', '-')}": value for key, value in versions().items()}


def read(node: dict[str, Any]) -> Offer | None:
    """Of an entry of ray.nodes(); None when it is no machine of ours."""
    said = {key.removeprefix(PREFIX): value for key, value in node["Labels"].items() if key.startswith(PREFIX)}
    if not said.get("name"):
        return None
    known = read_versions(node["Labels"])
    workers, gpus, size = (int(said.get(key, "0")) for key in ("workers", "gpus", "size"))
    return Offer(said["name"], workers, gpus, known, size or 1, node["NodeManagerAddress"], node["NodeID"])


def read_versions(said: dict[str, str]) -> dict[str, str]:
    """Of the labels of a machine of ours; {} of any other."""
    prefix = f"{PREFIX}version."
    return {key.removeprefix(prefix).replace("-", " "): value for key, value in said.items() if key.startswith(prefix)}
