"""Starting: the page is there in seconds, and its process never loads torch."""

import os
import signal
import subprocess
import sys
import time

from playwright.sync_api import Page

from tests.ui.conftest import App
from wan_ui.settings import ROOT

HEAVY = ("torch", "diffusers", "transformers", "accelerate")
BUILD = """
import sys
from wan_ui.settings import Settings
import wan_ui.ui
wan_ui.ui.build_ui(Settings())
print([name for name in {heavy} if name in sys.modules])
"""


def test_building_the_page_loads_no_torch():
    code = BUILD.format(heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]", done.stdout + done.stderr


def test_the_worker_loads_no_gradio():
    """A spawned child imports app.py again; that must stay free of Gradio."""
    code = "import sys, app, wan_ui.worker; print([name for name in ('gradio', 'torch') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_interactive_in_five_seconds(chromium, tmp_path):
    """From process start to a page on which a phrase can be clicked, the real app; a second start may do better."""
    # On a machine that is busy with other things everything takes longer in proportion.
    limit = 5 * max(1, os.getloadavg()[0] / os.cpu_count())
    best = seconds_to_interactive(chromium, tmp_path, 1)
    if best >= limit:
        best = min(best, seconds_to_interactive(chromium, tmp_path, 2))
    print(f"interactive after {best:.1f} s, limit {limit:.1f} s")
    assert best < limit


def seconds_to_interactive(chromium, tmp_path, number: int) -> float:
    folder = tmp_path / str(number)
    folder.mkdir()
    context = chromium.new_context()
    page: Page = context.new_page()
    app = App(folder, module=None).start()
    try:
        page.goto(app.url, wait_until="domcontentloaded")
        page.locator(".w-chip").first.click()
        page.wait_for_function("() => document.querySelector('#prompt textarea').value.length > 0")
        return time.monotonic() - app.started
    finally:
        context.close()
        app.stop(signal.SIGKILL)
