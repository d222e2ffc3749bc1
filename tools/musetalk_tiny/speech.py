"""Synthetic speech with the mouth that speaks it: a formant synthesiser, batched, in torch.

Nonsense words are written as tracks at 100 Hz (pitch, voicing, three formants, frication, how far
and how wide the mouth is open), smoothed as articulators are, and rendered: a sum of harmonics under
the formants' resonances, plus shaped noise for fricatives, bursts and breath, plus a room and a
background. Every clip has its own speaker: pitch, length of the vocal tract, pace, breathiness, level.
"""

import numpy as np
import torch
import torch.nn.functional as F

RATE = 16000
TRACK = 100  # frames of the tracks per second
HOP = RATE // TRACK

# name: first three formants (Hz, adult male), mouth opening 0..1, spread -1..1
VOWELS = {
    "a": ((750, 1250, 2500), 1.00, 0.1),
    "ae": ((680, 1700, 2450), 0.90, 0.6),
    "e": ((500, 1850, 2500), 0.72, 0.6),
    "i": ((290, 2250, 2950), 0.52, 1.0),
    "o": ((480, 880, 2450), 0.76, -0.7),
    "u": ((310, 820, 2300), 0.48, -1.0),
    "er": ((490, 1350, 1750), 0.60, -0.2),
    "uh": ((560, 1200, 2450), 0.70, 0.0),
}
# name: voicing, formants, noise level, noise centre (Hz), noise width (Hz), opening, spread, seconds
CONSONANTS = {
    "m": (0.22, (260, 1000, 2200), 0.0, 0, 1, 0.0, 0.0, 0.08),
    "n": (0.25, (270, 1500, 2500), 0.0, 0, 1, 0.22, 0.2, 0.07),
    "b": (0.08, (250, 900, 2200), 0.0, 0, 1, 0.0, 0.0, 0.07),
    "d": (0.08, (280, 1700, 2600), 0.0, 0, 1, 0.2, 0.2, 0.06),
    "g": (0.08, (280, 1900, 2300), 0.0, 0, 1, 0.28, 0.1, 0.06),
    "p": (0.0, (250, 900, 2200), 0.0, 0, 1, 0.0, 0.0, 0.09),
    "t": (0.0, (280, 1700, 2600), 0.0, 0, 1, 0.18, 0.2, 0.08),
    "k": (0.0, (280, 1900, 2300), 0.0, 0, 1, 0.25, 0.1, 0.08),
    "s": (0.0, (300, 1700, 2600), 0.22, 6000, 1500, 0.16, 0.5, 0.11),
    "sh": (0.0, (300, 1800, 2500), 0.22, 3200, 1200, 0.22, -0.6, 0.11),
    "f": (0.0, (300, 1200, 2300), 0.1, 5000, 3500, 0.06, 0.1, 0.10),
    "v": (0.25, (280, 1200, 2300), 0.1, 5000, 3500, 0.06, 0.1, 0.07),
    "z": (0.2, (280, 1700, 2500), 0.15, 6000, 1500, 0.16, 0.4, 0.08),
    "h": (0.05, (500, 1500, 2500), 0.15, 1500, 1500, 0.45, 0.0, 0.07),
    "l": (0.55, (350, 1200, 2700), 0.0, 0, 1, 0.4, 0.1, 0.07),
    "r": (0.55, (350, 1150, 1600), 0.0, 0, 1, 0.35, -0.5, 0.07),
    "w": (0.5, (300, 700, 2200), 0.0, 0, 1, 0.15, -1.0, 0.07),
}
PLOSIVES = {
    "b": (0.15, 900),
    "d": (0.25, 3500),
    "g": (0.25, 2000),
    "p": (0.45, 1000),
    "t": (0.55, 4500),
    "k": (0.5, 2200),
}
COLUMNS = ("pitch", "voice", "f1", "f2", "f3", "noise", "centre", "width", "opening", "spread")


def write_tracks(rng: np.random.Generator, seconds: float, speech: float = 1.0) -> np.ndarray:
    """(frames, 10) float32, columns as COLUMNS. `speech` 0: a clip in which nobody speaks."""
    total = int(seconds * TRACK)
    rows: list[np.ndarray] = []
    tract = rng.uniform(0.92, 1.25)
    pitch = rng.uniform(85, 145) * tract**2.2
    pace = rng.uniform(0.75, 1.35)
    pause_share = rng.uniform(0.3, 1.8)
    neutral = np.array([pitch, 0, 500 * tract, 1500 * tract, 2500 * tract, 0, 3000, 1500, 0, 0], np.float32)
    vowels, consonants = list(VOWELS), list(CONSONANTS)
    frames = 0

    def hold(values, length: float) -> None:
        nonlocal frames
        count = max(2, round(length * TRACK))
        rows.append(np.repeat(np.asarray(values, np.float32)[None], count, 0))
        frames += count

    hold(neutral, rng.uniform(0.05, 0.8) if speech else seconds)
    while frames < total:
        phrase_pitch = pitch * rng.uniform(0.9, 1.15)
        for word in range(rng.integers(2, 8)):
            for _ in range(rng.integers(1, 4)):
                stress = rng.uniform(0.45, 1.0)
                vowel = VOWELS[vowels[rng.integers(len(vowels))]]
                names = [consonants[rng.integers(len(consonants))] for _ in range(rng.choice([0, 1, 1, 1, 2]))]
                coda = [consonants[rng.integers(len(consonants))]] if rng.random() < 0.3 else []
                for name in [*names, None, *coda]:
                    if name is None:
                        tone = phrase_pitch * (1 + 0.12 * (stress - 0.6) - 0.01 * word)
                        formants = [value * tract for value in vowel[0]]
                        opening = vowel[1] * (0.55 + 0.45 * stress)
                        hold(
                            [tone, stress * (0.35 + 0.65 * vowel[1]), *formants, 0.01, 2500, 2000, opening, vowel[2]],
                            rng.uniform(0.07, 0.2) / pace,
                        )
                        continue
                    voice, formants, level, centre, width, opening, spread, length = CONSONANTS[name]
                    row = [
                        phrase_pitch,
                        voice * 0.7,
                        *(value * tract for value in formants),
                        level,
                        centre or 3000,
                        width,
                    ]
                    hold([*row, opening, spread], length * rng.uniform(0.7, 1.3) / pace)
                    if name in PLOSIVES:
                        burst, centre = PLOSIVES[name]
                        row[1], row[5], row[6], row[7] = 0.1, burst, centre, 1200
                        hold([*row, opening + 0.1, spread], 0.02)
        hold(neutral, rng.uniform(0.12, 0.7) * pause_share)
    track = np.concatenate(rows)[:total]
    # Articulators are slow: formants and lips glide, voicing and bursts switch faster.
    for columns, sigma in (((0, 2, 3, 4), 2.0), ((1, 5, 6, 7), 0.8), ((8, 9), 2.2)):
        reach = np.arange(-8, 9)
        kernel = np.exp(-0.5 * (reach / sigma) ** 2)
        kernel /= kernel.sum()
        for column in columns:
            track[:, column] = np.convolve(np.pad(track[:, column], 8, mode="edge"), kernel, "valid")
    vibrato = (
        1 + 0.015 * np.sin(np.arange(total) / TRACK * 2 * np.pi * rng.uniform(3, 6)) + 0.006 * rng.normal(size=total)
    )
    track[:, 0] *= vibrato
    return track


def render(tracks: torch.Tensor, generator: torch.Generator, clean: bool = False) -> torch.Tensor:
    """(n, frames, 10) -> (n, samples) float32 in about -1..1, at 16 kHz."""
    n, frames, _ = tracks.shape
    device = tracks.device
    rand = lambda low, high: low + (high - low) * torch.rand(n, 1, generator=generator, device=device)  # noqa: E731
    samples = frames * HOP
    stretch = lambda t: F.interpolate(t[:, None], samples, mode="linear")[:, 0]  # noqa: E731
    pitch = stretch(tracks[..., 0])
    phase = (2 * torch.pi * (torch.cumsum(pitch.double() / RATE, 1) % 1)).float()
    tilt, breath = rand(0.7, 1.3), rand(0.0, 0.04)
    widths = rand(60, 110)
    sound = torch.zeros(n, samples, device=device)
    for k in range(1, 41):
        frequency = k * tracks[..., 0]
        gain = torch.zeros_like(frequency)
        for column, weight in ((2, 1.0), (3, 0.6), (4, 0.35)):
            bandwidth = widths * (1 + 0.4 * (column - 2))
            gain = gain + weight / (1 + ((frequency - tracks[..., column]) / bandwidth).square()).sqrt()
        gain = gain * k ** (-tilt) * tracks[..., 1] * (frequency < 7600)
        sound = sound + stretch(gain) * torch.sin(k * phase)
    # noise: white frames under a moving spectral bump
    white = torch.randn(n, samples, generator=generator, device=device)
    window = torch.hann_window(320, device=device)
    spectrum = torch.stft(white, 320, HOP, window=window, return_complex=True)  # (n, 161, frames + 1)
    bins = torch.arange(161, device=device).view(1, -1, 1) * RATE / 320
    pad = lambda t: F.pad(t[:, None], (0, 1), mode="replicate")  # noqa: E731 - (n, 1, frames + 1)
    bump = torch.exp(-(((bins - pad(tracks[..., 6])) / pad(tracks[..., 7])) ** 2))
    level = pad(tracks[..., 5] + breath * tracks[..., 1])
    sound = 0.6 * sound + 0.6 * torch.istft(spectrum * bump * level, 320, HOP, window=window, length=samples)
    if clean:
        return sound / sound.abs().amax(1, keepdim=True).clamp(min=1e-3) * 0.8
    # room: exponentially dying noise, mixed in
    length = RATE // 4
    decay = torch.exp(-torch.arange(length, device=device) / RATE / rand(0.01, 0.12))
    echo = torch.randn(n, length, generator=generator, device=device) * decay
    echo = echo / echo.norm(dim=1, keepdim=True)
    wet = torch.fft.irfft(torch.fft.rfft(sound, samples + length) * torch.fft.rfft(echo, samples + length))[:, :samples]
    sound = sound + rand(-0.4, 0.5).clamp(min=0) * wet
    sound = sound / sound.abs().amax(1, keepdim=True).clamp(min=0.05)
    hiss = torch.randn(n, samples, generator=generator, device=device)
    brown = F.avg_pool1d(F.pad(hiss[:, None], (15, 16), mode="reflect"), 32, 1)[:, 0] * 5
    share = rand(0, 1)
    background = share * hiss + (1 - share) * brown[:, :samples]
    sound = sound * 10 ** rand(-1.3, 0.0) + background * 10 ** rand(-4.5, -2.0)
    return sound.clamp(-1, 1)


def write_many(job: tuple[int, int, float]) -> np.ndarray:
    """(seed, count, seconds) -> (count, frames, 10); one in 25 clips is silent. For a pool of processes."""
    seed, count, seconds = job
    rng = np.random.default_rng(seed)
    return np.stack([write_tracks(rng, seconds, speech=float(rng.random() > 0.04)) for _ in range(count)])


def speak(tracks: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tracks -> sound (n, samples); opening and spread (n, frames at 50 Hz, 2); where the clip lasts (n, frames).

    Two clips in five end early, and are padded with digital silence as the last segment of a track is.
    """
    n, total, _ = tracks.shape
    draw = torch.rand(n, 2, generator=generator, device=tracks.device)
    ends = torch.where(draw[:, 0] < 0.4, 0.1 + 0.9 * draw[:, 1], torch.ones_like(draw[:, 1])) * total
    alive = torch.arange(total, device=tracks.device) < ends[:, None]
    sound = render(tracks, generator) * alive.repeat_interleave(HOP, 1)
    return sound, (tracks[..., 8:] * alive[..., None])[:, ::2], alive[:, ::2]


def envelope(sound: np.ndarray, times: np.ndarray, width: float = 0.08) -> np.ndarray:
    """Loudness at `times` (seconds): root mean square over `width` seconds, compressed with the square root."""
    half = int(width * RATE / 2)
    square = np.concatenate([[0.0], np.cumsum(sound.astype(np.float64) ** 2)])
    at = np.round(times * RATE).astype(int)
    low, high = np.clip(at - half, 0, len(sound)), np.clip(at + half, 0, len(sound))
    return np.sqrt(np.sqrt((square[high] - square[low]) / np.maximum(high - low, 1)))
