"""Any audio file -> 16 kHz samples; when there is speech in it; which part of it a video frame hears. No torch.

Files come from strangers. ffmpeg is started with an argument list, without stdin, with the protocols "file" and "pipe"
alone and a list of formats in which playlists and scripts (HLS, concat) are not: no upload makes it open another
file. The path is given as `file:/absolute/path`, so a name that begins with "-" is not an option.
"""

import math
import subprocess
from pathlib import Path

import numpy as np

from wan_ui.errors import UserError

SAMPLE_RATE = 16_000
FEATURE_RATE = 50  # Whisper's answers a second
MAX_SECONDS = 600.0
MIN_SECONDS = 0.1
TIMEOUT = 120  # seconds; an hour of audio decodes in 10
FORMATS = "wav,w64,aiff,caf,mp3,aac,flac,ogg,mov,mp4,m4a,3gp,matroska,webm,avi,mpegts,amr,asf"

# When a face counts as speaking. Levels are RMS over 40 ms, in dB of full scale.
LEVEL_WINDOW = 0.04
QUIET_DB = -50.0  # never speech below this
BELOW_LOUD_DB = 30.0  # nor this far below the track's loud parts (95th percentile)
ATTACK, RELEASE = 0.08, 0.16  # seconds the mouth is free before and after speech; half of each is a fade


def decode(path: Path, max_seconds: float = MAX_SECONDS) -> np.ndarray:
    """The first audio track of a file, (n,) float32 in -1..1 at 16 kHz, mixed to mono.

    16-bit in between, as upstream's own conversion does. Raises UserError (field "audio") when there is no
    sound to read, less than 0.1 s or more than `max_seconds`: at most that much is decoded.
    """

    def refuse(reason: str) -> UserError:
        return UserError(f"audio: {path.name} {reason}", field="audio")

    import imageio_ffmpeg  # only here: the rest of the pass runs without it

    if not path.is_file():
        raise refuse("is not a file; choose a sound file" if path.exists() else "does not exist")
    if path.stat().st_size == 0:
        raise refuse("is an empty file; choose another")
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-hide_banner", "-loglevel", "error"]
    command += ["-protocol_whitelist", "file,pipe", "-format_whitelist", FORMATS, "-i", f"file:{path.resolve()}"]
    command += ["-map", "0:a:0", "-vn", "-sn", "-dn", "-t", str(max_seconds + 1), "-ac", "1", "-ar", str(SAMPLE_RATE)]
    command += ["-f", "s16le", "-acodec", "pcm_s16le", "pipe:1"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        raise refuse(f"could not be decoded in {TIMEOUT} s; save it as WAV or MP3") from None
    except OSError as error:
        raise UserError(f"ffmpeg could not be started: {error}; reinstall imageio-ffmpeg") from None
    words = done.stderr.decode(errors="replace")
    if "matches no streams" in words:
        raise refuse("has no sound track; choose a file with speech in it")
    samples = np.frombuffer(done.stdout[: len(done.stdout) // 2 * 2], np.int16).astype(np.float32) / 32768
    if done.returncode != 0 and len(samples) < MIN_SECONDS * SAMPLE_RATE:
        raise refuse("is not audio that can be read; use WAV, MP3, M4A, OGG or FLAC")
    if len(samples) < MIN_SECONDS * SAMPLE_RATE:
        raise refuse(f"lasts {len(samples) / SAMPLE_RATE:.2f} s; at least {MIN_SECONDS} s is needed")
    if len(samples) > max_seconds * SAMPLE_RATE:
        raise refuse(f"is longer than {max_seconds:g} s; cut it, or set WAN_UI_MAX_AUDIO_SECONDS higher")
    return samples


def frame_count(samples: int, fps: float, compat: bool = False) -> int:
    """Video frames that cover the audio: the last one may outlast it, by less than a frame.

    Upstream counts at int(fps) while it plays at the true rate (3 % drift at 29.97) and drops the last part.
    """
    if compat:
        return math.floor((samples / SAMPLE_RATE) * int(fps))
    return max(1, math.ceil(samples / SAMPLE_RATE * fps - 1e-6))


def window_start(frame: int, fps: float, compat: bool = False) -> int:
    """Index of the first of the 10 features (20 ms each) that a video frame hears; may be negative.

    Training took 25 frames a second and 4 features before the frame's own time, so that the window's centre is always
    20 ms after it. That is kept at every rate: 4 before the nearest feature, which is at most 10 ms off.

    Upstream pads by 2 * ceil(50 / fps) instead: right at 25, but at 16 the mouth moves 80 to 100 ms late.
    """
    if compat:
        per_frame = FEATURE_RATE / int(fps)
        return math.floor(frame * per_frame) - 2 * math.ceil(per_frame)
    return math.floor(frame * FEATURE_RATE / fps + 0.5) - 4


def levels(samples: np.ndarray) -> np.ndarray:
    """RMS level every 20 ms over the 40 ms around it, dB of full scale, (n,) float32 with n >= 1."""
    hop, half = SAMPLE_RATE // FEATURE_RATE, int(LEVEL_WINDOW * SAMPLE_RATE / 2)
    power = np.concatenate([[0.0], np.cumsum(samples.astype(np.float64) ** 2)])
    centres = np.arange(max(1, len(samples) // hop)) * hop + hop // 2
    first, last = np.clip(centres - half, 0, len(samples)), np.clip(centres + half, 0, len(samples))
    mean = (power[last] - power[first]) / np.maximum(1, last - first)
    return (10 * np.log10(np.maximum(mean, 1e-10))).astype(np.float32)


def is_loud(samples: np.ndarray) -> np.ndarray:
    """Where there is sound that may be speech, (n,) bool every 20 ms."""
    level = levels(samples)
    return level > max(QUIET_DB, float(np.percentile(level, 95)) - BELOW_LOUD_DB)


def describe(samples: np.ndarray) -> str:
    """How much of the track moves the mouth, for people."""
    seconds = int(is_loud(samples).sum()) / FEATURE_RATE
    if not seconds:
        return f"silence: nothing is louder than {QUIET_DB:g} dB, so the mouth stays as it is in the clip"
    return f"{seconds:.1f} s of sound in {len(samples) / SAMPLE_RATE:.1f} s"


def speech_gate(samples: np.ndarray, fps: float, frames: int) -> np.ndarray:
    """How far the mouth follows the audio at each frame, (frames,) float32: 0 in silence, 1 in speech, soft between.

    MuseTalk moves the mouth in silence too, because it never saw silence as such; where this is 0 the original
    frame is kept, and not computed. Opens before the sound, which is known, so that no onset is cut.
    """
    loud = is_loud(samples)
    # A sound at t frees the mouth from t - ATTACK to t + RELEASE ...
    before, after = round(ATTACK * FEATURE_RATE), round(RELEASE * FEATURE_RATE)
    heard = np.concatenate([[0], np.cumsum(loud)])
    rows = np.arange(len(loud))
    first, last = np.maximum(0, rows - after), np.minimum(len(loud), rows + before + 1)
    opened = (heard[last] > heard[first]).astype(np.float32)
    # ... with a fade at both ends, over before by the time the sound begins.
    width = before + 1
    soft = np.convolve(np.pad(opened, width // 2, mode="edge"), np.ones(width) / width, "valid")
    times = (np.arange(frames) / fps) * FEATURE_RATE
    return np.interp(times, rows, soft[: len(rows)], right=0.0).astype(np.float32)
