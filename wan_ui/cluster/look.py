"""python -m wan_ui.cluster.look HOST:PORT: the versions of the head's machine as JSON, asked before anything joins it.

A child of its own: Ray's client ends its whole process where it is not let in.
"""

import json
import sys
from typing import Any

from wan_ui.cluster.labels import read_versions


def versions_there(head: str) -> dict[str, str]:
    """{} when no page of ours is there."""
    import ray._raylet as compiled
    from ray._private.state import GlobalState

    options: Any = vars(compiled)["GcsClientOptions"]
    state = GlobalState()
    state._initialize_global_state(options.create(head, None, allow_cluster_id_nil=True, fetch_cluster_id_if_nil=False))
    nodes = [node for node in state.node_table() if node["Alive"]]
    pages = [said for node in nodes if (said := read_versions(node["Labels"])) and "wan-ui/name" not in node["Labels"]]
    return pages[0] if pages else {}


if __name__ == "__main__":
    print(json.dumps(versions_there(sys.argv[1])))
