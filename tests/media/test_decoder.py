"""The one place that starts ffmpeg on strangers' files."""

import subprocess
import time

from wan_ui.media import decoder


def test_what_nobody_reads_to_its_end_ends_quietly(monkeypatch):
    """Also when ffmpeg has ended by itself meanwhile: its exit status is asked for once."""
    started = []

    class Noted(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            started.append(self)

    monkeypatch.setattr(decoder.subprocess, "Popen", Noted)
    silence = ["-f", "lavfi", "-i", "anullsrc=r=8000:cl=mono", "-t", "0.5", "-f", "s16le", "pipe:1"]
    parts = decoder.read(silence, 1000, lambda given: 60.0)
    assert len(next(parts)) == 1000
    with open(f"/proc/{started[-1].pid}/stat") as status:
        while ") Z " not in status.read():  # it has ended and nobody has asked
            time.sleep(0.02)
            status.seek(0)
    parts.close()
    assert started[-1].returncode == 0

    parts = decoder.read([*silence[:4], "-f", "s16le", "pipe:1"], 1000, lambda given: 60.0)  # without an end
    next(parts)
    parts.close()
    assert started[-1].returncode == -9
