"""Frames <-> MP4, through the ffmpeg binary that imageio-ffmpeg ships.

H.264 in yuv420p with the index in front (faststart), so that every browser plays it while it still
loads; sound is AAC. The file is written beside its destination and renamed when it is whole. The
settings of the job travel in the file as the metadata tag "wan_ui" (JSON).

Files of strangers are read as `wan_ui.media.decoder` and `wan_ui.media.video` say.
"""

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ffmpeg
import imageio_ffmpeg
import numpy as np

from wan_ui import limits, stored
from wan_ui.errors import UserError
from wan_ui.media import carried, decoder, video

TAG = "wan_ui"


def _input(path: Path) -> "ffmpeg.nodes.FilterableStream":
    return ffmpeg.input(f"file:{path.resolve()}", protocol_whitelist="file", format_whitelist=decoder.FORMATS)


def _command(stream: "ffmpeg.nodes.OutputStream") -> list[str]:
    try:
        command = ffmpeg.compile(stream, cmd=imageio_ffmpeg.get_ffmpeg_exe(), overwrite_output=True)
    except RuntimeError as error:  # imageio-ffmpeg found no binary
        raise UserError(f"ffmpeg: {error}; reinstall imageio-ffmpeg") from None
    command[1:1] = ["-nostdin", "-hide_banner", "-loglevel", "error"]
    return command


def _failed(code: int, stderr: bytes) -> UserError:
    words = stderr.decode(errors="replace").strip().splitlines()[-4:]
    return UserError(f"ffmpeg failed (exit {code}): {' / '.join(words) or 'it said nothing'}")


def _run(stream: "ffmpeg.nodes.OutputStream") -> bytes:
    """Run an ffmpeg graph; its standard output. Raises UserError with ffmpeg's own last words."""
    try:
        done = subprocess.run(_command(stream), stdin=subprocess.DEVNULL, capture_output=True)
    except OSError as error:
        raise UserError(f"ffmpeg could not be started: {error}") from None
    if done.returncode != 0:
        raise _failed(done.returncode, done.stderr)
    return done.stdout


def _feed(stream: "ffmpeg.nodes.OutputStream", frames: Iterable[np.ndarray]) -> int:
    """Run an ffmpeg graph on frames that arrive one by one; how many. What `frames` raises ends it."""
    with tempfile.TemporaryFile() as stderr:  # a file: a full pipe would stop both sides
        try:
            process = subprocess.Popen(
                _command(stream), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=stderr
            )
        except OSError as error:
            raise UserError(f"ffmpeg could not be started: {error}") from None
        assert process.stdin is not None, "it is a pipe"
        count = 0
        try:
            for frame in frames:
                process.stdin.write(np.ascontiguousarray(frame).data.cast("B"))
                count += 1
            process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended by itself, and said why
        except BaseException:
            process.kill()
            raise
        finally:
            process.wait()
        if process.returncode != 0:
            stderr.seek(0)
            raise _failed(process.returncode, stderr.read())
    return count


def write_mp4(
    frames: Iterable[np.ndarray],
    path: Path,
    fps: float,
    metadata: dict | None = None,
    audio: Path | None = None,
    crf: int = 14,
) -> int:
    """Write frames (H, W, 3) uint8 RGB, all of one even size; how many. Never leaves half a file.

    frames  an array (T, H, W, 3), or an iterator: only one frame is held in memory at a time
    audio   any file with a sound track: all of it from its first sample, at its own pace, as AAC; the
            caller gives at least as many frames as it lasts, and after it there is silence
    crf     x264's: the higher, the smaller the file and the worse the picture

    Raises UserError, and whatever the iterator raises.
    """
    rest = iter(frames)
    first = next(rest)
    height, width, channels = first.shape
    assert channels == 3 and first.dtype == np.uint8 and height % 2 == 0 and width % 2 == 0

    def every() -> Iterator[np.ndarray]:
        yield first
        yield from rest

    source = ffmpeg.input("pipe:", format="rawvideo", pix_fmt="rgb24", s=f"{width}x{height}", framerate=fps)
    # Without an explicit matrix ffmpeg converts with BT.601 and leaves the file untagged: browsers guess.
    picture = source.filter("scale", out_color_matrix="bt709", out_range="tv")
    streams = [picture.filter("setparams", color_primaries="bt709", color_trc="bt709")]
    part = path.with_name(f".{path.stem}.part.mp4")
    options = {
        "vcodec": "libx264",
        "pix_fmt": "yuv420p",
        "crf": crf,
        "preset": "medium",
        "movflags": "use_metadata_tags+faststart",
        **_tag(metadata),
    }
    if audio is not None:
        # A file may begin late or have gaps in its time stamps; the mouth follows its samples, so sound does too.
        streams.append(_input(audio).audio.filter("asetpts", "N/SR/TB"))
        options |= {"acodec": "aac", "audio_bitrate": "160k", "ac": 2}
    try:
        count = _feed(ffmpeg.output(*streams, str(part), **options), every())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return count


def join(
    parts: Sequence[Path], path: Path, metadata: dict | None = None, audio: Path | None = None, seconds: float = 0.0
) -> None:
    """Files that `write_mp4` gave for the same size and rate, one after the other, without encoding them again.

    audio, seconds  a file with a sound track, of which so much is heard

    They lie in the folder of `path`, under names without a quote. Raises UserError. Never leaves half a file.
    """
    part, names = path.with_name(f".{path.stem}.part.mp4"), path.with_name(f".{path.stem}.part.txt")
    try:
        names.write_text("".join(f"file '{one.name}'\n" for one in parts), encoding="utf-8")
        source = ffmpeg.input(str(names), format="concat", safe=0, protocol_whitelist="file")
        options: dict[str, Any] = {"c:v": "copy", "movflags": "use_metadata_tags+faststart", **_tag(metadata)}
        streams = [source.video]
        if audio is not None:
            streams.append(_input(audio).audio.filter("atrim", end=seconds).filter("asetpts", "N/SR/TB"))
            options |= {"acodec": "aac", "audio_bitrate": "160k", "ac": 2}
        _run(ffmpeg.output(*streams, str(part), **options))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
        names.unlink(missing_ok=True)


def _tag(metadata: dict | None) -> dict[str, str]:
    return {"metadata": f"{TAG}={json.dumps(metadata or {}, ensure_ascii=True)}"}


def read_metadata(path: Path) -> dict:
    """The settings stored by `write_mp4`. Raises UserError when the file carries none."""
    source = ffmpeg.input(f"file:{path.resolve()}", format="mp4", protocol_whitelist="file,pipe")
    text = _run(ffmpeg.output(source, "pipe:", format="ffmetadata")).decode(errors="replace")
    match = re.search(rf"^{TAG}=((?:\\(?s:.)|[^\n])*)$", text, re.MULTILINE)
    if not match:
        raise UserError(f"{path.name} carries no Wan UI settings", field="video")
    values = stored.parse(re.sub(r"(?s)\\(.)", r"\1", match.group(1)))
    if values is None:
        raise UserError(f"{path.name} carries Wan UI settings that are damaged", field="video")
    return values


def write_metadata(path: Path, metadata: dict) -> None:
    """Other settings into a finished MP4; its pictures and sound stay as they are, bit for bit, and so does what it
    carries. Raises UserError."""
    files = carried.read(path)
    part = path.with_name(f".{path.stem}.part.mp4")
    options = {"map": 0, "c": "copy", "movflags": "use_metadata_tags+faststart", **_tag(metadata)}
    try:
        _run(ffmpeg.output(_input(path), str(part), **options))
        carried.append(part, files)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def examine(path: Path, quick: bool = False) -> tuple[int, int, int]:
    """Frames, width and height of an MP4 that `write_mp4` gave, after every frame and all sound was decoded.

    quick  only what is stored is counted, not decoded: a file that was cut off is found, a bad bit is not

    Raises UserError when something of it is damaged.
    """
    how = ["-c", "copy"] if quick else []
    command = ["-xerror", "-err_detect", "explode", *decoder.input_arguments(path), "-map", "0:v:0", "-map", "0:a?"]
    allowed = lambda given: video.CPU_START + video.CPU_PER_FRAME * given / 40  # noqa: E731 of a frame, one line
    try:
        text = b"".join(decoder.read([*command, *how, "-f", "framecrc", "-"], 1 << 16, allowed)).decode("ascii")
    except decoder.DecodeError as error:
        words = re.sub(r"\[[^]]*\] ", "", str(error).partition(" / ")[0])
        raise UserError(f"video: {path.name} is damaged ({words})", field="video") from None
    size = re.search(r"^#dimensions 0: (\d+)x(\d+)$", text, re.MULTILINE)
    if not size:
        raise UserError(f"video: {path.name} is damaged (there are no frames)", field="video")
    return len(re.findall(r"^0,", text, re.MULTILINE)), int(size[1]), int(size[2])


def read_frames(path: Path, limit: int = 0) -> tuple[np.ndarray, float]:
    """The frames (T, H, W, 3) uint8 RGB as `media.video` gives them, and their rate; only the first `limit` if given.

    Raises UserError (field "video") for a file without pictures, and as soon as the frames do not fit into
    limits.VIDEO_BYTES.
    """
    source = video.look(path)
    size = source.width * source.height * 3
    most = limits.VIDEO_BYTES // size
    content = bytearray()
    for frame in video.frames(source):
        if len(content) == most * size:
            raise UserError(
                f"video: {path.name} ({source.width}x{source.height}) has too many frames; at this size at most {most} "
                f"({most / source.fps:.0f} s) can be used: cut it",
                field="video",
            )
        content += np.ascontiguousarray(frame).data.cast("B")
        if limit and len(content) == limit * size:
            break
    return np.frombuffer(content, np.uint8).reshape(-1, source.height, source.width, 3), source.fps


def iterate(path: Path) -> Iterator[np.ndarray]:
    """The frames (H, W, 3) of `read_frames`, one at a time, however many. Raises UserError (field "video")."""
    return video.frames(video.look(path))


def probe(path: Path) -> tuple[int, int, float]:
    """Even width and height of the upright picture, and the frame rate. Raises UserError (field "video")."""
    source = video.look(path)
    return source.width, source.height, source.fps
