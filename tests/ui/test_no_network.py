"""The page, a browser and the command line make clips where there is no network, and ask for none."""

import json
import subprocess
import sys

import pytest

from tests.ui.conftest import chromium_path
from wan_ui.settings import ROOT

INSIDE = ["unshare", "--user", "--map-root-user", "--net"]


@pytest.mark.timeout(900)
def test_clips_are_made_and_nothing_is_asked_of_the_network(tmp_path):
    """In a network namespace without any interface but the loopback, through which the browser reaches the page."""
    try:
        tried = subprocess.run([*INSIDE, "true"], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("unshare is not here")
    if tried.returncode:
        pytest.skip(f"no network namespace can be made here: {tried.stderr.strip()}")
    if chromium_path() is None:
        pytest.skip("no Chromium: `python tools/install_chromium.py` installs one")
    command = [*INSIDE, sys.executable, "-m", "tests.ui.without_network", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, (done.stderr[-3000:], (tmp_path / "app.log").read_text()[-1500:])
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["up"] == ["lo"]
    assert len(found["clips"]) == 3, "the page's, the command's in the history, and the command's file"
    # The test itself asks for one name, so that it is known that asking is seen.
    assert [line.partition(" ")[2] for line in found["asked"]] == ["socket.gethostbyname name.invalid"]
    assert found["beyond"] == [], "what the browser fetched"
