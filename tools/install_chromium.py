"""Make sure that the browser tests have a Chromium; print where it is.

In this order: one that is on the PATH, Debian's package when we may install it, playwright's own build.
"""

import os
import shutil
import subprocess
import sys

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
PACKAGES = ("chromium-headless-shell", "chromium")  # the first is the engine without a window: smaller and faster


def find() -> str | None:
    return next((path for path in map(shutil.which, NAMES) if path), None)


def install_with_apt() -> bool:
    if not shutil.which("apt-get"):
        return False
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if sudo and not shutil.which("sudo"):
        return False
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    apt = [*sudo, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
    subprocess.run([*apt, "update"], **quiet)  # one source that fails does not matter if another has the package
    install = [*apt, "install", "-y", "--no-install-recommends"]
    return any(subprocess.run([*install, package], **quiet).returncode == 0 for package in PACKAGES)


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
