"""A real Ray cluster on this machine; each of its nodes is as a machine that has run `python -m wan_ui node`."""

import os
from pathlib import Path

from wan_ui.cluster import labels, start
from wan_ui.settings import Settings

STORE = 80 * 2**20  # bytes of shared memory


class Nodes:
    """settings: of every node; the page's, but that it has workers."""

    def __init__(self, settings: Settings):
        self.environment = start.environment(settings) | {
            "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
            "WAN_UI_CATALOG": str(settings.catalog),
            "WAN_UI_MODEL": settings.model,
            "WAN_UI_CACHE": str(settings.cache),
            "WAN_UI_MODELS": str(settings.models),
            "WAN_UI_LORAS": str(settings.loras),
            "WAN_UI_OUTPUTS": str(settings.outputs),
        }
        self.before = dict(os.environ)
        os.environ.update(self.environment)  # before Ray is imported, and for all that it starts
        from ray.cluster_utils import Cluster

        self.cluster = Cluster()
        self.cluster.add_node(num_cpus=0, object_store_memory=STORE, no_monitor=True, include_log_monitor=False)
        self.address = self.cluster.address

    def add(self, name: str, workers: int = 1, **changed: str):
        """changed: labels that are to be others."""
        said = labels.labels(name, workers, 0) | {labels.PREFIX + key: value for key, value in changed.items()}
        return self.cluster.add_node(
            num_cpus=0, object_store_memory=STORE, labels=said, resources={labels.RESOURCE: workers},
            include_log_monitor=False,
        )  # fmt: skip

    def close(self) -> None:
        self.cluster.shutdown()
        import ray._private.services as services

        services.find_gcs_addresses.cache_clear()
        os.environ.clear()
        os.environ.update(self.before)


def folder_of(settings: Settings, worker: str) -> Path:
    """Where a worker of a node has its job's files."""
    return settings.cache / "ray" / worker.replace("/", "-")
