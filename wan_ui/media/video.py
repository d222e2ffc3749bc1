"""A stranger's video -> upright sRGB frames at a constant rate, as a player shows them.

Turned as the file says, with square pixels, without the comb of interlaced fields, without what a late start would
put before the first frame; variable rates become constant; HDR and wide colours become what an ordinary screen shows
(see `hdr`); transparent parts are laid on white.
"""

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wan_ui import temporary
from wan_ui.errors import UserError
from wan_ui.media import decoder, hdr, picture_files

MAX_FPS = 60  # a faster one is thinned out
MIN_SIDE = 16
STILL = 600  # seconds of one and the same frame after which the times of a video are taken for damaged
CPU_START, CPU_PER_FRAME = 30.0, 2.0  # seconds that ffmpeg may compute before the first frame, and for each
MEASURED_SECONDS = 10  # of HDR, to see how bright it is
MEASURED_FRAMES = 200  # of an animation, to see how long they stay

# ffmpeg's fast conversion rounds down by a level; with these flags levels are exact, and chroma is not blurred.
EXACT = "flags=neighbor+accurate_rnd+full_chroma_int"
ANIMATIONS = ("gif", "webp_anim", "apng")  # every frame says how long it stays; the file says no rate
_STILL = re.compile(r", 1 tbn\b")  # a picture of an AVIF or HEIC file, beside which there may be a track of frames
ALPHA = ("yuva", "rgba", "bgra", "argb", "abgr", "gbrap", "ya8", "ya16", "pal8")


@dataclass(frozen=True)
class Video:
    """The pictures of a file. `width`, `height`, `fps` are those of what `frames` gives; both sides are even.

    stream    number among the file's streams
    options   for the decoder
    colours   (primaries, transfer) where they are not those of an ordinary screen
    matrix    how ffmpeg is to understand the numbers, where the file does not say; else ""
    alpha     whether there are transparent parts
    """

    path: Path
    stream: int
    width: int
    height: int
    fps: float
    options: tuple[str, ...]
    colours: tuple[str, str] | None
    matrix: str
    alpha: bool


def look(path: Path) -> Video:
    """Raises UserError (field "video") for a file without pictures that can be read."""
    streams = decoder.streams(path)
    with open(path, "rb") as file:
        picture = picture_files.claimed(file.read(64))
    moving = [one for one in streams if one.kind == "video" and not one.cover and not _STILL.search(one.words)]
    if not moving:
        words = "cannot be read as a video"
        if picture:
            raise _refused(path, f"{words}: it is {picture} that does not move; use MP4, MOV, WebM or an animated GIF")
        why = " (there is only sound in it)" if streams else ""
        raise _refused(path, f"{words}{why}; use MP4, MOV or WebM")
    stream = max(moving, key=lambda one: one.default)
    notes = " / ".join(stream.notes)
    if re.search(r"DOVI configuration record:.*profile: 5\b", notes):
        words = "is Dolby Vision of profile 5, whose colours only licensed players know"
        raise _refused(path, f"{words}; export it as HDR10, HLG or SDR")
    found = re.search(r", (\w+)(?:\(([^)]*)\))?, (\d+)x(\d+)", stream.words)
    pixels, tags, size = (found[1], found[2] or "", (int(found[3]), int(found[4]))) if found else ("", "", (0, 0))
    colours = _colours(tags)
    alpha = pixels.startswith(ALPHA) or re.search(r"alpha_mode\s*: 1", notes) is not None
    codec = stream.words.split()[0].rstrip(",")
    options = ("-c:v", f"libvpx-{codec}".replace("-vp8", "")) if alpha and codec in ("vp8", "vp9") else ()
    matrix = "" if _tagged(tags) or pixels.startswith(("rgb", "bgr", "gbr", "gray", "pal")) else _usual_matrix(*size)
    fps = _measured_rate(path, stream) if codec in ANIMATIONS else _rate(stream.words)
    draft = Video(path, stream.index, 0, 0, fps, options, colours, matrix, alpha)
    width, height = _size(draft)
    return Video(**{**vars(draft), "width": width, "height": height})


def frames(video: Video) -> Iterator[np.ndarray]:
    """(H, W, 3) uint8 RGB, one by one. Raises UserError (field "video") when there is not one, and when one stays for
    longer than anybody looks at it: a damaged time of hours or years would be filled with copies of it."""
    channels, count = (4 if video.alpha else 3), 0
    last, still = b"", 0
    size = video.width * video.height * channels
    with tempfile.TemporaryDirectory(dir=temporary.folder()) as folder:
        filters = [_geometry(video), f"scale={video.width}:{video.height}:{EXACT}{_matrix(video)}"]
        if video.colours:
            measured = _measure(video, video.colours) if video.colours[1] in hdr.HDR else ()
            (Path(folder) / "colours.cube").write_text(hdr.cube(*video.colours, *measured), encoding="utf-8")
            filters += ["format=gbrp16le", "lut3d=file=colours.cube:interp=tetrahedral"]
        output = ["-f", "rawvideo", "-pix_fmt", "rgba" if video.alpha else "rgb24", "pipe:1"]
        command = [*_command(video), "-vf", ",".join(filters), "-fps_mode", "passthrough", *output]
        allowed = lambda given: CPU_START + CPU_PER_FRAME * given / size  # noqa: E731
        try:
            for part in decoder.read(command, size, allowed, Path(folder)):
                if len(part) < size:
                    break
                last, still = part, still + 1 if part == last else 0
                if still > STILL * video.fps:
                    words = f"shows one picture for more than {STILL // 60} minutes, so its times are probably damaged"
                    raise _refused(video.path, f"{words}; save it again as MP4")
                frame = np.frombuffer(part, np.uint8).reshape(video.height, video.width, channels)
                yield _on_white(frame) if video.alpha else frame
                count += 1
        except decoder.DecodeError as error:
            # What was decoded before a file breaks off is a clip.
            if error.stopped or not count:
                raise _unreadable(video.path, error) from None
    if not count:
        raise _refused(video.path, "has no frames")


def about(error: UserError, field: str) -> UserError:
    """What is said here of a video, about an input of that name."""
    return UserError(f"{field}: {str(error).removeprefix('video: ')}", field=field)


def _refused(path: Path, reason: str) -> UserError:
    return UserError(f"video: {path.name} {reason}", field="video")


def _unreadable(path: Path, error: decoder.DecodeError) -> UserError:
    if error.stopped:
        words = "takes far too long to decode for the few frames it gives, so it is probably damaged"
        return _refused(path, f"{words}; save it again as MP4")
    return _refused(path, f"cannot be read as a video; use MP4, MOV or WebM (ffmpeg says: {error})")


def _command(video: Video) -> list[str]:
    return [*video.options, *decoder.input_arguments(video.path), "-map", f"0:{video.stream}", "-an", "-sn", "-dn"]


def _geometry(video: Video) -> str:
    """Frames at their times -> a constant rate, square pixels, even sides. ffmpeg has turned them already."""
    square = "scale=w='round(iw*clip(sar,0.25,4))':h=ih:flags=bicubic"
    rate = f"fps={video.fps:.6f}"
    fields = ",bwdif=mode=send_frame:deint=interlaced" if not video.alpha else ""
    return f"setpts=PTS-STARTPTS{fields},{rate},{square},setsar=1,crop=trunc(iw/2)*2:trunc(ih/2)*2:0:0"


def _matrix(video: Video) -> str:
    return f":in_color_matrix={video.matrix}" if video.matrix else ""


def _size(video: Video) -> tuple[int, int]:
    """Of the first frame as it comes out: even width and height."""
    # The filter ends what comes before it: ffmpeg's own -frames lets a frame of hours be filled to its end.
    command = [*_command(video), "-vf", f"{_geometry(video)},trim=end_frame=1", "-frames:v", "1"]
    command += ["-pix_fmt", "yuv444p", "-strict", "-1", "-f", "yuv4mpegpipe", "pipe:1"]
    header = b""
    try:
        header = b"".join(decoder.read(command, 1 << 20, lambda given: CPU_START)).split(b"\n", 1)[0]
    except decoder.DecodeError as error:
        raise _unreadable(video.path, error) from None
    found = re.match(rb"YUV4MPEG2 W(\d+) H(\d+) ", header)
    if not found:
        raise _refused(video.path, "has no frames")
    width, height = int(found[1]), int(found[2])
    if min(width, height) < MIN_SIDE:
        raise _refused(video.path, f"has {width} x {height} pixels; both sides need at least {MIN_SIDE}")
    return width, height


def _measure(video: Video, colours: tuple[str, str]) -> tuple[float, float]:
    """See `hdr.measure`: of two small frames a second of its beginning."""
    some = "select='isnan(prev_selected_t)+gte(t-prev_selected_t,0.5)'"
    small = f"{some},scale=160:-2:flags=area{_matrix(video)},format=rgb48le"
    command = [*_command(video), "-t", str(MEASURED_SECONDS), "-vf", small, "-fps_mode", "passthrough"]
    command += ["-f", "rawvideo", "pipe:1"]
    try:
        content = b"".join(decoder.read(command, 1 << 20, lambda given: CPU_START + given / 10_000))
    except decoder.DecodeError as error:
        raise _unreadable(video.path, error) from None
    values = np.frombuffer(content[: len(content) // 6 * 6], "<u2").reshape(-1, 3)
    if not len(values):
        raise _refused(video.path, "has no frames")
    return hdr.measure(values / 65535.0, *colours)


def _on_white(frame: np.ndarray) -> np.ndarray:
    alpha = frame[..., 3:].astype(np.uint16)
    return ((frame[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _colour_tag(tags: str) -> list[str]:
    """ "tv, bt2020nc/bt2020/smpte2084, progressive" -> matrix, primaries, transfer; [] where nothing is said."""
    for part in tags.split(", "):
        names = part.split("/")
        if len(names) == 3:
            return names
        if part.startswith(("bt", "smpte", "fcc", "ycgco", "gbr")):
            return [part] * 3
    return []


def _tagged(tags: str) -> bool:
    named = _colour_tag(tags)
    return bool(named) and named[0] not in ("unknown", "reserved")


def _colours(tags: str) -> tuple[str, str] | None:
    named = _colour_tag(tags)
    if not named:
        return None
    _, primaries, transfer = named
    if transfer in hdr.HDR and primaries not in hdr.WIDE:
        primaries = "bt2020" if primaries in ("unknown", "reserved") else primaries
    return (primaries, transfer) if hdr.is_special(primaries, transfer) else None


def _usual_matrix(width: int, height: int) -> str:
    return "bt709" if width >= 1280 or height >= 720 else "bt601"


def _measured_rate(path: Path, stream: decoder.Stream) -> float:
    """Frames a second at which the shortest-lived frame is still shown."""
    times = decoder.frame_times(path, stream, MEASURED_FRAMES)
    gaps = np.diff(times)
    if not len(gaps[gaps > 0]):
        raise _refused(path, "cannot be read as a video: it is a single picture; use MP4, MOV, WebM or an animated GIF")
    return min(max(1 / float(gaps[gaps > 0].min()), 1.0), float(MAX_FPS))


def _rate(words: str) -> float:
    """Frames a second: the file's base rate, or the mean where that is only the fineness of its clock."""

    def number(unit: str) -> float:
        found = re.search(rf" ([\d.]+)(k?) {unit}\b", words)
        return float(found[1]) * (1000 if found[2] else 1) if found else 0.0

    mean, base = number("fps"), number("tbr")
    rate = base if base and (not mean or base <= 1.5 * mean) else mean or base or 25.0
    rate = min(max(rate, 1.0), float(MAX_FPS))
    for whole in (24, 30, 48, 60):  # 23.98 is 24000/1001
        if abs(rate - whole / 1.001) < 0.006:
            rate = whole / 1.001
    return rate
