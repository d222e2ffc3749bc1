"""Ports to listen on. The system's own choice (port 0) may be a client's by the time an app listens, seconds later."""

import itertools
import os
import socket

# Below those that clients get (32768 and up on Linux); each process of pytest-xdist has a thousand of its own.
FIRST = 20_000 + 1_000 * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 12)
_next = itertools.count(os.getpid())


def free_port() -> int:
    while True:
        port = FIRST + next(_next) % 1_000
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
