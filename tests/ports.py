"""Ports to listen on. The system's own choice (port 0) may be a client's by the time an app listens, seconds later."""

import fcntl
import itertools
import os
import socket
import tempfile
from pathlib import Path

# Below those that clients get (32768 and up on Linux); each process of pytest-xdist has a thousand of its own.
FIRST = 20_000 + 1_000 * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 12)
_next = itertools.count(os.getpid())
# Whoever holds a port's file has the port, also before its app listens: another run of the tests may be here as well.
_files = Path(tempfile.gettempdir()) / f"wan-ui-test-ports-{os.getuid()}"
_held = []


def free_port() -> int:
    while True:
        port = FIRST + next(_next) % 1_000
        _files.mkdir(exist_ok=True)
        file = (_files / str(port)).open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                file.close()
                continue
        _held.append(file)
        return port
