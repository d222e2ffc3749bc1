"""Starting is light: the page's process never loads torch, the worker's never Gradio."""

import subprocess
import sys

from wan_ui.settings import ROOT

HEAVY = ("torch", "diffusers", "transformers", "accelerate")
BUILD = """
import inspect, sys
opened, getfile = [], inspect.getfile
sys.addaudithook(lambda event, values: opened.append(str(values[0])) if event == "open" else None)
from wan_ui.settings import Settings
import wan_ui.ui
page = wan_ui.ui.build_ui(Settings())
stubs = [name for name in opened if "components" in name and name.endswith(".pyi")]
print([name for name in {heavy} if name in sys.modules], stubs)
print(inspect.getfile is getfile, page.queue()._queue.sleep_when_free)
"""


def test_building_the_page_loads_no_torch_and_makes_no_stub_files():
    code = BUILD.format(heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ["[] []", "True 0.001"], done.stdout + done.stderr


def test_the_worker_loads_no_gradio():
    """A spawned child imports app.py again; that must stay free of Gradio."""
    code = "import sys, app, wan_ui.queue.worker; print([name for name in ('gradio', 'torch') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
