"""Any audio file -> 16 kHz samples; when there is speech in it; which part of it a video frame hears. No torch.

Files come from strangers, so `media.decoder` reads them. What phones, meetings and films give: several sound tracks
of which one has the voice, a voice in the centre of six channels or in one of two, two channels that cancel each other
when they are added, a voice far too quiet. Each still moves the mouth; the finished clip keeps the sound as it was.
"""

import math
import os
import re
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wan_ui import limits
from wan_ui.errors import UserError
from wan_ui.media import decoder

SAMPLE_RATE = 16_000
FEATURE_RATE = 50  # Whisper's answers a second
MIN_SECONDS = 0.1
MAX_TRACKS, MAX_CHANNELS = 8, 8  # looked at in one file
CPU_SHARE = 0.25  # seconds of CPU that a second of sound may take to decode; an hour of MP3 takes 10
FILE_RATES = (
    8000,
    11025,
    12000,
    16000,
    22050,
    24000,
    32000,
    44100,
    48000,
)  # those that AAC has too; others become 48000
CANCELS = 0.4  # of the loudest channel; two channels that have nothing in common add up to 0.7, one alone to 0.5

CENTRE_BELOW_DB = 24.0  # how far below left and right a centre with the voice may be

# When a face counts as speaking. Levels are RMS over 40 ms, in dB of full scale.
LEVEL_WINDOW = 0.04
QUIET_DB = -50.0  # never speech below this, unless the whole track is quiet
BELOW_LOUD_DB = 30.0  # nor this far below the track's loud parts (95th percentile)
OTHER = 0.3  # seconds of other sound that are worth a word
ATTACK, RELEASE = 0.08, 0.16  # seconds the mouth is free before and after speech; half of each is a fade

# A track whose loudest half second is below LOUD_DB is quiet. If its level moves as a voice's does, it is raised.
LOUD_DB, FAINTEST_DB, MOVES_DB = -30.0, -75.0, 10.0
USUAL_DB = -20.0  # where the loudest half second of a raised voice comes to lie


@dataclass(frozen=True)
class Voice:
    """One sound track of a file.

    samples  (n,) float32 in -1..1 at 16 kHz, one channel with the voice in it
    stream   number among the file's streams
    rate     Hz, as in the file
    stereo   how ffmpeg makes one or two channels of it for people to hear
    scale    by how much the file's numbers were too large: 1 but for floats beyond full scale
    """

    samples: np.ndarray
    stream: int
    rate: int
    stereo: tuple[str, ...]
    scale: float = 1.0


def decode(
    path: Path, max_seconds: float = limits.MAX_AUDIO_SECONDS, start: float = 0.0, end: float = 0.0
) -> np.ndarray:
    """The voice in a file, (n,) float32 in -1..1 at 16 kHz, one channel.

    start, end  of the part that is read, in seconds; end 0: all that follows

    Raises UserError (field "audio") when there is no sound to read, less than 0.1 s or more than `max_seconds`: at most
    that much is decoded.
    """
    return read_voice(path, max_seconds, start, end).samples


def read_voice(
    path: Path, max_seconds: float = limits.MAX_AUDIO_SECONDS, start: float = 0.0, end: float = 0.0
) -> Voice:
    """The first track with something to hear, the file's default one first. As `decode`."""
    if not os.path.isfile(path):
        raise _refused(path, "is not a file; choose a sound file" if os.path.exists(path) else "does not exist")
    if path.stat().st_size == 0:
        raise _refused(path, "is an empty file; choose another")
    streams = decoder.streams(path)
    tracks = sorted((stream for stream in streams if stream.kind == "audio"), key=lambda stream: not stream.default)
    if streams and not tracks:
        raise _refused(path, "has no sound track; choose a file with speech in it")
    first, refusal = None, _refused(path, "is not audio that can be read; use WAV, MP3, M4A, OGG or FLAC")
    for track in tracks[:MAX_TRACKS]:
        try:
            voice = _read_track(path, track, max_seconds, start, end)
        except UserError as error:
            refusal = error
            continue
        if is_loud(voice.samples).any():
            return voice
        first = first or voice
    if first is None:
        raise refusal
    return first


def store_wav(
    path: Path,
    voice: Voice,
    target: Path,
    max_seconds: float = limits.MAX_AUDIO_SECONDS,
    start: float = 0.0,
    end: float = 0.0,
) -> None:
    """The track as a WAV of 16 bits, mono or stereo, as loud as it was: what people hear. As `decode`."""
    rate = voice.rate if voice.rate in FILE_RATES else 48_000
    arguments = [*voice.stereo, "-ar", str(rate)]
    with wave.open(str(target), "wb") as file:
        for channels, block in _blocks(path, voice.stream, arguments, rate, max_seconds, start, end):
            if not file.getnframes():
                file.setnchannels(channels)
                file.setsampwidth(2)
                file.setframerate(rate)
            file.writeframes((_clean(block / voice.scale) * 32767).round().astype("<i2").tobytes())


def _refused(path: Path, reason: str) -> UserError:
    return UserError(f"audio: {path.name} {reason}", field="audio")


def _read_track(path: Path, track: decoder.Stream, max_seconds: float, start: float, end: float) -> Voice:
    given = _blocks(path, track.index, ["-ar", str(SAMPLE_RATE)], SAMPLE_RATE, max_seconds, start, end)
    blocks = [block for _, block in given]
    channels = np.concatenate(blocks) if blocks else np.zeros((0, 1), np.float32)
    if len(channels) < MIN_SECONDS * SAMPLE_RATE:
        raise _refused(path, f"lasts {len(channels) / SAMPLE_RATE:.3g} s; at least {MIN_SECONDS} s is needed")
    if len(channels) > max_seconds * SAMPLE_RATE:
        raise _refused(
            path, f"is longer than {max_seconds:g} s; choose a part of it, or set WAN_UI_MAX_AUDIO_SECONDS higher"
        )
    found = re.search(r"(\d+) Hz, ([^,]+)", track.words)
    rate, layout = (int(found[1]), found[2].strip()) if found else (48_000, "")
    # Recorders of 32-bit floats go beyond full scale, and some write whole numbers; a few clicks do not count.
    scale = max(1.0, float(np.percentile(np.abs(channels), 99.99)))
    channels = np.clip(channels / scale, -1, 1)
    weights = mix_weights(channels, layout)
    return Voice(channels @ weights, track.index, rate, _for_people(channels, layout, weights), scale)


def _blocks(
    path: Path, stream: int, arguments: list[str], rate: int, max_seconds: float, start: float, end: float
) -> Iterator[tuple[int, np.ndarray]]:
    """(channels of the file, (n, channels) float32) of a part of a track, at most a second more than `max_seconds`."""
    most = min(max_seconds + 1, end - start) if end else max_seconds + 1
    seek = ["-ss", f"{start:.6f}"] if start else []  # to 0 as well it would lose what M4A says of its first samples
    command = [*seek, *decoder.input_arguments(path), "-map", f"0:{stream}", "-t", f"{most:.6f}", *arguments]
    command += ["-c:a", "pcm_f32be", "-f", "au", "pipe:1"]  # its header says how many channels there are
    parts = decoder.read(command, 1 << 18, lambda given: decoder.BASE_SECONDS + CPU_SHARE * given / (4 * rate))
    rest, channels, left = b"", 0, 0
    try:
        for part in parts:
            rest += part
            if not channels and len(rest) >= 24:
                begin, channels = int.from_bytes(rest[4:8], "big"), int.from_bytes(rest[20:24], "big")
                rest, left = rest[begin:], round(most * rate)
            whole = len(rest) // (4 * channels) if channels else 0
            values = np.frombuffer(rest[: whole * 4 * channels], ">f4").reshape(-1, channels or 1)[:left, :MAX_CHANNELS]
            rest = rest[whole * 4 * channels :]
            if len(values):
                left -= len(values)
                yield channels, np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
            if channels and left <= 0:
                return
    except decoder.DecodeError as error:
        if error.stopped:
            reason = "takes far too long to decode for the little sound in it, so it is probably damaged"
            raise _refused(path, f"{reason}; save it as WAV or MP3") from None
        if not channels:
            reason = "is not audio that can be read; use WAV, MP3, M4A, OGG or FLAC"
            raise _refused(path, reason) from None


def _clean(samples: np.ndarray) -> np.ndarray:
    return np.clip(samples, -1, 1).astype(np.float32)


_WITH_CENTRE = ("3.0", "3.1", "4.0", "4.1", "5.0", "5.1", "6.0", "6.1", "7.0", "7.1")
_NO_CENTRE = ("3.0(back)", "6.0(front)", "6.1(front)")


def mix_weights(channels: np.ndarray, layout: str) -> np.ndarray:
    """How much of each channel, (c,) float32, makes the voice. `channels` is (n, c); `layout` as ffmpeg names it.

    Films have speech in the centre; hiss far below the others is none. Elsewhere it is the mean, as upstream; if the
    channels cancel each other in it, the loudest channel alone.
    """
    count = channels.shape[1]
    centred = layout.startswith(_WITH_CENTRE) and layout not in _NO_CENTRE and count > 2
    loudest = [_loudest(levels(channel)) for channel in channels[:, :3].T] if centred else []
    if centred and is_loud(channels[:, 2]).any() and loudest[2] > max(loudest) - CENTRE_BELOW_DB:
        return np.eye(count, dtype=np.float32)[2]
    weights = np.ones(count, np.float32)
    if re.match(r"\d[.]1", layout) and count > 3:
        weights[3] = 0  # what is below speech
    weights /= weights.sum()
    power = np.sqrt(np.mean(channels.astype(np.float64) ** 2, axis=0))
    if np.sqrt(np.mean((channels @ weights).astype(np.float64) ** 2)) < CANCELS * power.max():
        weights = np.eye(count, dtype=np.float32)[int(power.argmax())]
    return weights


def _for_people(channels: np.ndarray, layout: str, weights: np.ndarray) -> tuple[str, ...]:
    """ffmpeg's arguments for one or two channels in which nothing is lost, also where a phone adds them up."""
    if channels.shape[1] == 1:
        return ("-ac", "1")
    if channels.shape[1] == 2 and weights.max() == 1:
        left, right = channels.T.astype(np.float64)
        if (left * right).sum() < 0:
            return ("-af", "pan=stereo|c0=c0|c1=-1*c1")
    if re.match(r"\d+ channels|ambisonic", layout):  # ffmpeg does not know where they belong
        return ("-af", "pan=mono|c0=" + "+".join(f"{weight:.4f}*c{number}" for number, weight in enumerate(weights)))
    return ("-ac", "2")


def frame_count(samples: int, fps: float, compat: bool = False) -> int:
    """Video frames that cover the audio: the last one may outlast it, by less than a frame.

    Upstream counts at int(fps) while it plays at the true rate (3 % drift at 29.97) and drops the last part.
    """
    if compat:
        return math.floor((samples / SAMPLE_RATE) * int(fps))
    return max(1, math.ceil(samples / SAMPLE_RATE * fps - 1e-6))


def closing_frames(fps: float) -> int:
    """Video frames after the audio's end in which the mouth still closes."""
    return math.ceil((ATTACK + RELEASE) * fps)


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
    """RMS level every 20 ms over the 40 ms around it, dB of full scale, (n,) float32 with n >= 1.

    An offset, as cheap recorders add it, is no sound, also where it changes: each window's own mean does not count.
    """
    hop, half = SAMPLE_RATE // FEATURE_RATE, int(LEVEL_WINDOW * SAMPLE_RATE / 2)
    offset = samples.mean(dtype=np.float64) if len(samples) else 0.0
    values = samples.astype(np.float64) - offset
    power, sums = (np.concatenate([[0.0], np.cumsum(one)]) for one in (values**2, values))
    centres = np.arange(max(1, len(samples) // hop)) * hop + hop // 2
    first, last = np.clip(centres - half, 0, len(samples)), np.clip(centres + half, 0, len(samples))
    count = np.maximum(1, last - first)
    mean = (power[last] - power[first]) / count - ((sums[last] - sums[first]) / count) ** 2
    return (10 * np.log10(np.maximum(mean, 1e-10))).astype(np.float32)


def _loudest(level: np.ndarray) -> float:
    """The level, dB, that the loudest half second reaches."""
    return float(np.sort(level)[-min(len(level), FEATURE_RATE // 2)])


def loudness_gain(samples: np.ndarray) -> float:
    """dB by which a voice is raised before the network hears it: 0 unless it is quiet and sounds like a voice.

    Speech rises and falls by 20 dB and more from syllable to pause; hiss and hum, however quiet, stay where they are.
    """
    level = levels(samples)
    loudest = _loudest(level)
    moves = loudest - float(np.percentile(level, 10)) >= MOVES_DB
    return USUAL_DB - loudest if FAINTEST_DB <= loudest < LOUD_DB and moves else 0.0


def for_network(samples: np.ndarray) -> np.ndarray:
    """The samples as loud as the network knows speech; the finished clip keeps them as they are."""
    gain = loudness_gain(samples)
    return np.clip(samples * np.float32(10 ** (gain / 20)), -1, 1) if gain else samples


def is_loud(samples: np.ndarray) -> np.ndarray:
    """Where there is sound that may be speech, (n,) bool every 20 ms."""
    level = levels(samples)
    if loudness_gain(samples):
        loudest = _loudest(level)
        floor = float(np.percentile(level, 10))  # the hiss that is raised with the voice is still no voice
        return level > max(loudest - BELOW_LOUD_DB, min(floor + 6, loudest - 12))
    return level > max(QUIET_DB, float(np.percentile(level, 95)) - BELOW_LOUD_DB)


def describe(samples: np.ndarray, voiced: np.ndarray | None = None) -> str:
    """How much of the track moves the mouth, for people. voiced: as for `speech_gate`"""
    seconds = int(is_loud(samples).sum()) / FEATURE_RATE
    if not seconds:
        return f"silence: nothing is louder than {QUIET_DB:g} dB, so the mouth stays as it is in the clip"
    gain = loudness_gain(samples)
    quiet = (
        f", a quiet voice (heard {gain:.0f} dB louder by the network; the clip's sound is unchanged)" if gain else ""
    )
    if voiced is None:
        return f"{seconds:.1f} s of sound in {len(samples) / SAMPLE_RATE:.1f} s{quiet}"
    voice = int(voiced.sum()) / FEATURE_RATE
    if not voice:
        return f"no voice in {seconds:.1f} s of sound, so the mouth stays as it is in the clip"
    rest = f"; {seconds - voice:.1f} s of other sound leave the mouth alone" if seconds - voice >= OTHER else ""
    return f"{voice:.1f} s of voice in {len(samples) / SAMPLE_RATE:.1f} s{quiet}{rest}"


def speech_gate(samples: np.ndarray, fps: float, frames: int, voiced: np.ndarray | None = None) -> np.ndarray:
    """How far the mouth follows the audio at each frame, (frames,) float32: 0 in silence, 1 in speech, soft between.

    MuseTalk moves the mouth in silence too, because it never saw silence as such; where this is 0 the original
    frame is kept, and not computed. Opens before the sound, which is known, so that no onset is cut.

    voiced  where somebody speaks, every 20 ms: see voice_activity.py; None: every sound counts
    """
    loud = is_loud(samples) if voiced is None else voiced
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
