"""Frames <-> MP4, through the ffmpeg binary that imageio-ffmpeg ships.

H.264 in yuv420p with the index in front (faststart), so that every browser plays it while it still
loads. The file is written beside its destination and renamed when it is whole. The settings of the
job travel in the file as the metadata tag "wan_ui" (JSON).
"""

import json
import os
import re
import subprocess
from pathlib import Path

import ffmpeg
import imageio_ffmpeg
import numpy as np

from wan_ui.errors import UserError

TAG = "wan_ui"


def _run(stream: "ffmpeg.nodes.OutputStream", stdin: bytes | memoryview = b"") -> bytes:
    """Run an ffmpeg graph; its standard output. Raises UserError with ffmpeg's own last words."""
    try:
        command = ffmpeg.compile(stream, cmd=imageio_ffmpeg.get_ffmpeg_exe(), overwrite_output=True)
    except RuntimeError as error:  # imageio-ffmpeg found no binary
        raise UserError(f"ffmpeg: {error}; reinstall imageio-ffmpeg") from None
    command[1:1] = ["-nostdin", "-hide_banner", "-loglevel", "error", "-protocol_whitelist", "file,pipe"]
    try:
        done = subprocess.run(command, input=stdin, capture_output=True)
    except OSError as error:
        raise UserError(f"ffmpeg could not be started: {error}") from None
    if done.returncode != 0:
        words = done.stderr.decode(errors="replace").strip().splitlines()[-4:]
        raise UserError(f"ffmpeg failed (exit {done.returncode}): {' / '.join(words) or 'it said nothing'}")
    return done.stdout


def write_mp4(frames: np.ndarray, path: Path, fps: float, metadata: dict | None = None) -> None:
    """Write (T, H, W, 3) uint8 frames, H and W even. Raises UserError; never leaves half a file."""
    _, height, width, channels = frames.shape
    assert channels == 3 and frames.dtype == np.uint8 and height % 2 == 0 and width % 2 == 0
    source = ffmpeg.input("pipe:", format="rawvideo", pix_fmt="rgb24", s=f"{width}x{height}", framerate=fps)
    # Without an explicit matrix ffmpeg converts with BT.601 and leaves the file untagged: browsers guess.
    source = source.filter("scale", out_color_matrix="bt709", out_range="tv")
    part = path.with_name(f".{path.stem}.part.mp4")
    options = {
        "vcodec": "libx264",
        "pix_fmt": "yuv420p",
        "crf": 14,
        "preset": "medium",
        "colorspace": "bt709",
        "color_primaries": "bt709",
        "color_trc": "bt709",
        "movflags": "use_metadata_tags+faststart",
        "metadata": f"{TAG}={json.dumps(metadata or {}, ensure_ascii=True)}",
    }
    try:
        _run(ffmpeg.output(source, str(part), **options), stdin=memoryview(np.ascontiguousarray(frames)).cast("B"))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read_metadata(path: Path) -> dict:
    """The settings stored by `write_mp4`. Raises UserError when the file carries none."""
    source = ffmpeg.input(str(path), format="mp4")  # said, not guessed: a playlist must not open other files
    text = _run(ffmpeg.output(source, "pipe:", format="ffmetadata")).decode(errors="replace")
    match = re.search(rf"^{TAG}=((?:\\.|[^\n])*)$", text, re.MULTILINE)
    if not match:
        raise UserError(f"{path.name} carries no Wan UI settings")
    return json.loads(re.sub(r"\\(.)", r"\1", match.group(1)))


def read_frames(path: Path) -> tuple[np.ndarray, float]:
    """All frames (T, H, W, 3) uint8, and the frame rate."""
    reader = imageio_ffmpeg.read_frames(str(path))
    meta = next(reader)
    width, height = meta["size"]
    frames = np.stack([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader])
    return frames, meta["fps"]
