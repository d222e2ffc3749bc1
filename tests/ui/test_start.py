"""Starting is light: the page's process never loads torch, the worker's never Gradio."""

import os
import subprocess
import sys

from tests.ports import free_port
from wan_ui.settings import ROOT

HEAVY = ("torch", "diffusers", "transformers", "accelerate")
BUILD = """
import inspect, sys
opened, getfile = [], inspect.getfile
sys.addaudithook(lambda event, values: opened.append(str(values[0])) if event == "open" else None)
from wan_ui.settings import Settings
from wan_ui.ui.page import build_ui
page = build_ui(Settings())
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


def test_a_gradio_of_other_insides_is_refused_by_name(tmp_path):
    code = """
import gradio.route_utils, sys
del gradio.route_utils.GradioMultiPartParser
from app import serve
from wan_ui.errors import UserError
from wan_ui.settings import settings
try:
    serve(settings())
except UserError as error:
    print(error)
"""
    environ = {**os.environ, "WAN_UI_OUTPUTS": str(tmp_path), "WAN_UI_PORT": str(free_port())}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True)
    assert "gradio.route_utils:GradioMultiPartParser is not there" in done.stdout, done.stdout + done.stderr
