"""The sound of clips, cut, faded into each other and played at another speed with its pitch kept -> a WAV."""

import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wan_ui.errors import UserError
from wan_ui.media import decoder

RATE = 48_000  # samples a second, of two channels
CPU = 30.0  # seconds that ffmpeg may compute before the first sample


@dataclass(frozen=True)
class Piece:
    """Of a clip `seconds` from `begin` on; its last `fade` seconds are the first ones of the next. All in seconds."""

    path: Path
    begin: float
    seconds: float
    fade: float


def has_sound(path: Path) -> bool:
    return any(stream.kind == "audio" for stream in decoder.streams(path))


def write(pieces: Sequence[Piece], speed: float, target: Path) -> None:
    """Where a clip has no sound there is silence. Raises UserError."""
    made = np.zeros((0, 2), np.float32)
    fade = 0
    for piece in pieces:
        samples = _read(piece, speed)
        fade = min(fade, len(made), len(samples))
        ramp = np.linspace(0, 1, fade, dtype=np.float32)[:, None]
        both = made[len(made) - fade :] * (1 - ramp) + samples[:fade] * ramp
        made = np.concatenate([made[: len(made) - fade], both, samples[fade:]])
        fade = round(piece.fade / speed * RATE)
    with wave.open(str(target), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.clip(made, -1, 1) * 32767).astype("<i2").tobytes())


def _read(piece: Piece, speed: float) -> np.ndarray:
    """(N, 2) float32, exactly as long as the piece lasts at that speed."""
    count = round(piece.seconds / speed * RATE)
    found = np.zeros((count, 2), np.float32)
    tracks = [stream for stream in decoder.streams(piece.path) if stream.kind == "audio"]
    if not tracks:
        return found
    # ffmpeg's own way from one channel to two makes it quieter.
    both = "pan=stereo|c0=c0|c1=c0" if ", mono" in tracks[0].words else "aformat=channel_layouts=stereo"
    filters = f"aresample={RATE}:async=1:first_pts=0,atrim=start={piece.begin:.6f}:duration={piece.seconds:.6f}"
    filters += f",asetpts=PTS-STARTPTS,{_tempo(speed)}{both}"
    command = [*decoder.input_arguments(piece.path), "-map", "0:a:0", "-vn", "-sn", "-dn", "-af", filters]
    command += ["-ac", "2", "-ar", str(RATE), "-f", "f32le", "pipe:1"]
    try:
        content = b"".join(decoder.read(command, 1 << 20, lambda given: CPU + given / (8 * RATE)))
    except decoder.DecodeError as error:
        raise UserError(f"video: the sound of {piece.path.name} cannot be read ({error})", field="video") from None
    samples = np.frombuffer(content[: len(content) // 8 * 8], "<f4").reshape(-1, 2)[:count]
    found[: len(samples)] = samples
    return found


def _tempo(speed: float) -> str:
    """ffmpeg's filter takes half to twice the speed well; more is done in two goes."""
    if speed == 1:
        return ""
    goes = 2 if not 0.5 <= speed <= 2 else 1
    return f"atempo={speed ** (1 / goes):.6f}," * goes
