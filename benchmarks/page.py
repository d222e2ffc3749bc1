"""Seconds from process start until the page is served and until a click on it answers: python benchmarks/page.py

Starts `app.py` on a free port, opens it in a headless Chromium and clicks a phrase, --runs times. A table
for people, the last line JSON.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
FLAGS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]


def measure(browser: Browser) -> tuple[float, float]:
    """Seconds to (served, interactive)."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    page = browser.new_page()
    with tempfile.TemporaryDirectory() as outputs:
        started = time.monotonic()
        environ = {**os.environ, "WAN_UI_PORT": str(port), "WAN_UI_OUTPUTS": outputs}
        app = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environ, stdout=subprocess.DEVNULL)
        try:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.05)
            served = time.monotonic() - started
            page.goto(f"http://127.0.0.1:{port}", wait_until="domcontentloaded")
            page.locator(".w-chip").first.click()
            page.wait_for_function("() => document.querySelector('#prompt textarea').value.length > 0")
            return served, time.monotonic() - started
        finally:
            page.close()
            app.terminate()
            app.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        runs = [measure(browser) for _ in range(arguments.runs)]
        browser.close()
    served, interactive = (round(statistics.median(column), 2) for column in zip(*runs, strict=True))
    print(f"page served       {served} s\npage interactive  {interactive} s  (median of {arguments.runs})")
    print(json.dumps({"served_s": served, "interactive_s": interactive}))


if __name__ == "__main__":
    main()
