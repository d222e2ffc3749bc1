"""python -m wan_ui.cluster.raylet ARGUMENTS: `ray start ARGUMENTS`, which ends with the program that has started it.

Ray's own processes end with theirs; what was missing is an end where a parent is killed: its pipe, our standard input,
closes then.
"""

import os
import signal
import sys
import threading
import time

GRACE = 5.0  # seconds in which Ray may end in order


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    from ray.scripts.scripts import cli

    threading.Thread(target=_end_with_parent, daemon=True).start()
    cli(["start", *sys.argv[1:]])
