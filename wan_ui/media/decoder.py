"""The bundled ffmpeg on files of strangers: what it may open, how long it may compute, what is in a file.

Every input is named as `file:/absolute/path`, so that a name is never an option, with the protocol "file" alone and a
list of formats in which playlists, scripts and picture sequences (HLS, DASH, concat, image2 ...) are not: no upload
makes ffmpeg open another file or address.

A few megabytes of well-chosen junk keep a decoder busy for minutes without giving a sample, and print hundreds of
megabytes of complaints. So the seconds of CPU that ffmpeg may use grow with what it gives, and of its words the last
few are kept.
"""

import contextlib
import re
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg

from wan_ui import limits
from wan_ui.errors import UserError
from wan_ui.media.cpu_limit import limited

# Names of ffmpeg's demuxers. Each reads one file from its bytes alone.
SOUND_FORMATS = (
    "wav,w64,aiff,caf,mp3,aac,flac,ogg,au,amr,amrnb,amrwb,ac3,eac3,dts,dtshd,truehd,mlp,ape,wv,tta,tak,mpc,mpc8,"
    "voc,gsm,sox,dsf,iff,qcp,oma"
)
VIDEO_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,dv,mxf,asf,ivf,nut,rm,h264,hevc,m4v,mjpeg,obu,"
    "gif,webp_anim,apng"
)
FORMATS = f"{SOUND_FORMATS},{VIDEO_FORMATS}"
MAX_ALLOC = 2_000_000_000  # bytes that ffmpeg may ask for at once
BASE_SECONDS = 4.0  # of CPU, before anything has to have come out


class DecodeError(Exception):
    """ffmpeg gave up, or was stopped; the text is its own last words.

    stopped  it used more CPU time than what it gave was worth
    """

    def __init__(self, words: str, stopped: bool = False):
        super().__init__(words)
        self.stopped = stopped


@dataclass(frozen=True)
class Stream:
    """One stream of a file, as ffmpeg describes it.

    index   among all streams of the file
    words   "h264 (High), yuv420p(tv, bt709), 320x240 [SAR 4:3 DAR 16:9], 25 fps, 25 tbr"
    cover   a still picture that belongs to sound
    notes   ffmpeg's lines below it: metadata and side data
    """

    index: int
    kind: str
    words: str
    cover: bool = False
    default: bool = False
    notes: tuple[str, ...] = ()


def input_arguments(path: Path) -> list[str]:
    pixels = str(int(limits.FRAME_MEGAPIXELS * 1_000_000))
    bounds = ["-protocol_whitelist", "file", "-format_whitelist", FORMATS, "-max_pixels", pixels]
    return [*bounds, "-i", f"file:{path.resolve()}"]


def executable() -> str:
    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:  # it found no binary
        raise UserError(f"ffmpeg: {error}; reinstall imageio-ffmpeg") from None


def streams(path: Path) -> list[Stream]:
    """The video and sound streams of a file; none if it is not a format that may be read."""
    found: list[Stream] = []

    def note(line: str) -> None:
        match = _STREAM.match(line)
        if match:
            words = match["words"]
            cover, default = "(attached pic)" in words or "(still image)" in words, "(default)" in words
            found.append(Stream(int(match["index"]), match["kind"].lower(), words, cover, default))
        elif found and line.startswith("      "):
            found[-1] = Stream(**{**vars(found[-1]), "notes": (*found[-1].notes, line.strip())[:60]})

    with contextlib.suppress(DecodeError):  # always: there is no output
        list(_run(["-loglevel", "info", *input_arguments(path)], 1, lambda given: BASE_SECONDS, note))
    return [stream for stream in found if stream.kind in ("video", "audio")]


# Streams of a group (a camera's time code belongs to its pictures) stand further to the right. In parentheses is the
# language, of any form: (eng), (pt-BR), (eng,fra).
_STREAM = re.compile(
    r"^ {2,6}Stream #0:(?P<index>\d+)(?:\[0x[0-9a-f]+\])?(?:\([^)]*\))?: (?P<kind>Video|Audio|Subtitle|Data|Attachment)"
    r"(?:: (?P<words>.*))?$"
)


def duration(path: Path) -> float:
    """Seconds that the file says it lasts; 0 where it does not."""
    found: list[float] = []

    def note(line: str) -> None:
        if match := re.match(r"  Duration: (\d+):(\d\d):([\d.]+)", line):
            found.append(3600 * int(match[1]) + 60 * int(match[2]) + float(match[3]))

    with contextlib.suppress(DecodeError):  # always: there is no output
        list(_run(["-loglevel", "info", *input_arguments(path)], 1, lambda given: BASE_SECONDS, note))
    return found[0] if found else 0.0


def frame_times(path: Path, stream: Stream, most: int) -> list[float]:
    """When each of the first `most` frames of a stream is shown, in seconds."""
    times: list[float] = []

    def note(line: str) -> None:
        if match := re.search(r"showinfo.* pts_time:([\d.]+)", line):
            times.append(float(match[1]))

    command = [*input_arguments(path), "-map", f"0:{stream.index}", "-vf", "showinfo", "-frames:v", str(most)]
    command += ["-fps_mode", "passthrough", "-f", "null", "-"]
    with contextlib.suppress(DecodeError):  # what was shown until then counts
        list(_run(["-loglevel", "info", *command], 1, lambda given: 5 * BASE_SECONDS, note))
    return times


def read(
    arguments: list[str], chunk: int, allowance: Callable[[int], float], folder: Path | None = None
) -> Iterator[bytes]:
    """What ffmpeg with these arguments writes to its output, in parts of `chunk` bytes; the last may be shorter.

    allowance  bytes that have come out -> seconds of CPU that may have been used
    folder     where relative names in the arguments are

    Raises DecodeError after the last part.
    """
    return _run(["-loglevel", "error", *arguments], chunk, allowance, None, folder)


def _run(
    arguments: list[str],
    chunk: int,
    allowance: Callable[[int], float],
    note: Callable[[str], None] | None,
    folder: Path | None = None,
) -> Iterator[bytes]:
    command = [executable(), "-nostdin", "-hide_banner", "-max_alloc", str(MAX_ALLOC), *arguments]
    try:
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, cwd=folder)
    except OSError as error:
        raise UserError(f"ffmpeg could not be started: {error}; reinstall imageio-ffmpeg") from None
    assert process.stdout is not None and process.stderr is not None, "both are pipes"
    stdout, stderr = process.stdout, process.stderr
    last: deque[str] = deque(maxlen=4)

    def listen() -> None:
        while line := stderr.readline(2000):
            text = line.decode(errors="replace").rstrip()
            last.append(text[:300])
            if note:
                note(text)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    given, allowed, ended = 0, allowance(0), False
    limit = limited(process, allowed)
    try:
        while part := stdout.read(chunk):
            given += len(part)
            if allowance(given) >= allowed + 1:
                allowed = allowance(given)
                limit.allow(allowed)
            yield part
        ended = True
    finally:
        if not ended:  # nobody wants the rest
            limit.kill()
        stdout.close()
        used_up = limit.wait()
        listener.join()
        stderr.close()
    if process.returncode:
        raise DecodeError(" / ".join(last) or f"ffmpeg ended with {process.returncode}", used_up)
