"""Files for a moment go with their process, however it ends."""

import os
import signal
import subprocess
import sys

from wan_ui import temporary
from wan_ui.settings import ROOT

PROGRAM = """
import sys
from wan_ui import temporary
(temporary.folder() / "frames").mkdir()
print(temporary.folder(), flush=True)
sys.stdin.read()
"""


def program(folder):
    """A process that has made its folder below `folder`, and where."""
    environ = {**os.environ, "TMPDIR": str(folder)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=ROOT, env=environ, **pipes)
    return process, process.stdout.readline().strip()


def test_what_a_killed_process_leaves_is_deleted_by_the_next_and_a_living_ones_stays(tmp_path, monkeypatch):
    stranger = tmp_path / f"{temporary.PREFIX}link.lock"
    stranger.symlink_to(tmp_path / "elsewhere")
    (killed, lost), (living, kept) = program(tmp_path), program(tmp_path)
    assert oct(os.stat(kept).st_mode)[-3:] == "700"
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert os.path.isdir(lost)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    temporary.sweep()
    assert not os.path.exists(lost) and os.path.isdir(os.path.join(kept, "frames"))
    assert not (tmp_path / "elsewhere").exists()
    living.communicate("")  # it ends by itself
    assert [path.name for path in tmp_path.iterdir()] == [stranger.name]
