"""Run in a network namespace of its own: the app as users start it, a browser in front of it, and the command line.

python -m tests.ui.without_network FOLDER; the last line of what it prints is JSON: which interfaces there are, what of
the network was asked (by the app and its worker, and by the browser's page), and which clips were made.
"""

import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.ui.conftest import FLAGS, App, card_says, chromium_path, draw_scene, generate, wait_for_playing
from wan_ui.settings import ROOT

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
ASKED = ROOT / "tests" / "ui" / "asked"


def raise_loopback() -> list[str]:
    """The page is reached through it. All interfaces that are up then."""
    with socket.socket() as one:
        fcntl.ioctl(one, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))
        flags = {
            name: struct.unpack_from("h", fcntl.ioctl(one, SIOCGIFFLAGS, struct.pack("40s", name.encode())), 16)[0]
            for _, name in socket.if_nameindex()
        }
    return [name for name in flags if flags[name] & IFF_UP]


def main(folder: Path) -> None:
    up = raise_loopback()
    asked = folder / "asked.txt"
    asked.touch()
    listening = {"PYTHONPATH": os.pathsep.join((str(ASKED), str(ROOT))), "TEST_ASKED": str(asked)}
    # Something that asks: who listens is heard.
    subprocess.run(
        [sys.executable, "-c", "import socket; socket.gethostbyname('name.invalid')"],
        env={**os.environ, **listening},
        stderr=subprocess.DEVNULL,
    )
    draw_scene(40).save(folder / "hills.png")
    cache = str(ROOT / "build" / "test-cache")
    app = App(folder, module=None, WAN_UI_CACHE=cache, WAN_UI_THREADS="1", **listening).start()
    urls = []
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium_path(), args=FLAGS)
            page = browser.new_page()
            page.on("request", lambda request: urls.append(request.url))
            page.goto(app.url, wait_until="domcontentloaded")
            card_says(page, "Ready: Wan-Tiny", 300)
            page.get_by_role("radio", name="17 · 1.1 s").check()
            page.locator("#steps input[type=number]").fill("1")
            generate(page, folder / "hills.png", "zoom in")
            card_says(page, "Done in", 300)
            wait_for_playing(page)
            browser.close()
        command = [sys.executable, "-m", "wan_ui", "generate", "--image", folder / "hills.png", "--prompt", "pan left"]
        command += ["--frames", "17", "--steps", "1", "--out", folder / "clip.mp4"]
        subprocess.run(list(map(str, command)), cwd=ROOT, env=app.environ, check=True)
    finally:
        app.stop()
    clips = [str(path) for path in (*folder.glob("outputs/clips/*/clip.mp4"), folder / "clip.mp4")]
    beyond = sorted({url for url in urls if not url.startswith((f"{app.url}/", "data:", f"blob:{app.url}"))})
    print(json.dumps({"up": up, "asked": asked.read_text().splitlines(), "beyond": beyond, "clips": clips}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
