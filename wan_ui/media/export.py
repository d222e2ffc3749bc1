"""A clip as another kind of file: GIF, WebP, WebM, its frames as pictures in a zip, its last frame."""

import io
import os
import subprocess
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from wan_ui.changes import FILES
from wan_ui.errors import UserError
from wan_ui.media import decoder

LOOK = 0.2  # seconds between looks whether it is to stop
MOST_FPS, WIDEST = {14: 25, 20: 16, 26: 10}, {14: 1280, 20: 480, 26: 320}  # of a GIF and a WebP, by quality
WEBP, WEBM = {14: 90, 20: 75, 26: 50}, {14: 24, 20: 32, 26: 40}


class Export:
    """kind: of changes.FILES, "" for none. quality: of changes.QUALITIES.

    Pictures are taken from the frames themselves (`add`), everything else from the finished MP4 (`finish`).
    """

    def __init__(self, kind: str, folder: Path, quality: int):
        self.kind, self.quality = kind, quality
        self.name = f"clip{FILES[kind][0]}" if kind else ""
        self.target = folder / (self.name or "-")
        self.part = folder / f".export.part{self.target.suffix}"
        self.zip = zipfile.ZipFile(self.part, "w", zipfile.ZIP_STORED) if kind == "frames" else None
        self.count, self.last = 0, np.zeros((0, 0, 3), np.uint8)

    def add(self, frame: np.ndarray) -> None:
        self.count, self.last = self.count + 1, frame
        if self.zip is not None:
            content = io.BytesIO()
            Image.fromarray(frame).save(content, "PNG", compress_level=3)
            self.zip.writestr(f"frame-{self.count:05}.png", content.getvalue())

    def finish(self, clip: Path, fps: float, look: Callable[[str], None]) -> str:
        """The name of the file, written whole; "" where there is none. look: called while it lasts, may raise."""
        if not self.kind:
            return ""
        look(f"the {FILES[self.kind][1]}")
        if self.zip is not None:
            self.zip.close()
        elif self.kind == "last":
            Image.fromarray(self.last).save(self.part, "PNG")
        else:
            self._convert(clip, fps, look)
        os.replace(self.part, self.target)
        return self.name

    def close(self) -> None:
        """Nothing half-written stays."""
        if self.zip is not None:
            self.zip.close()
        self.part.unlink(missing_ok=True)

    def _convert(self, clip: Path, fps: float, look: Callable[[str], None]) -> None:
        most = MOST_FPS[self.quality]
        small = f"scale='min({WIDEST[self.quality]},iw)':-2:flags=lanczos"
        picture = f"{f'fps={most},' if fps > most else ''}{small}"
        match self.kind:
            case "gif":
                colours = "split[a][b];[a]palettegen=stats_mode=diff[p];[b][p]paletteuse=dither=bayer:bayer_scale=3"
                options = ["-filter_complex", f"[0:v]{picture},{colours}", "-loop", "0"]
            case "webp":
                options = ["-vf", picture, "-c:v", "libwebp_anim", "-quality", str(WEBP[self.quality]), "-loop", "0"]
            case _:
                options = ["-c:v", "libvpx-vp9", "-crf", str(WEBM[self.quality]), "-b:v", "0", "-row-mt", "1"]
                options += ["-deadline", "good", "-cpu-used", "4", "-pix_fmt", "yuv420p", "-c:a", "libopus"]
        command = [decoder.executable(), "-nostdin", "-hide_banner", "-loglevel", "error", "-y"]
        command += [*decoder.input_arguments(clip), *options, str(self.part)]
        with tempfile.TemporaryFile() as words:
            try:
                process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=words)
            except OSError as error:
                raise UserError(f"ffmpeg could not be started: {error}") from None
            try:
                while _runs(process):
                    look(f"the {FILES[self.kind][1]}")
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait()
            if process.returncode:
                words.seek(0)
                said = words.read().decode(errors="replace").strip().splitlines()[-2:]
                raise UserError(
                    f"file: the {FILES[self.kind][1]} could not be written ({' / '.join(said)})", field="file"
                )


def _runs(process: "subprocess.Popen[bytes]") -> bool:
    try:
        process.wait(LOOK)
    except subprocess.TimeoutExpired:
        return True
    return False
