"""Whether page, queue and workers are well, for the Docker image: exit code 0 or 1. python tools/healthcheck.py"""

import sys
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wan_ui.errors import UserError
from wan_ui.settings import settings

ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # addresses to listen on, but not to ask


def main() -> int:
    try:
        values = settings()
        host = ANY.get(values.host, values.host)
        address = f"http://{f'[{host}]' if ':' in host else host}:{values.port}/healthz"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy
        opener.open(address, timeout=8).close()
    except (OSError, UserError) as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
