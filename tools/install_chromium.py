"""Make sure that the browser tests have a Chromium; print where it is.

In this order: one that is on the PATH, Debian's package when we may install it, playwright's own build.
"""

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find() -> str | None:
    return next((path for path in map(shutil.which, NAMES) if path), None)


def install_with_apt() -> bool:
    if not shutil.which("apt-get"):
        return False
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if sudo and not shutil.which("sudo"):
        return False
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"],
    ):
        if subprocess.run([*sudo, *command], env=environ, stdout=subprocess.DEVNULL).returncode != 0:
            return False
    return True


def main() -> int:
    if find() or (install_with_apt() and find()):
        print(f"Chromium: {find()}")
        return 0
    if subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"]).returncode == 0:
        print("Chromium: playwright's own build")
        return 0
    print("No Chromium could be installed. Install one (for example: sudo apt-get install chromium), then run again.")
    return 1


if __name__ == "__main__":
    sys.exit(main())
