"""Training data on the device: a bank of spoken clips, renewed bit by bit, and pairs of faces."""

from concurrent.futures import ProcessPoolExecutor

import torch
from architecture import SIDE, log_mel
from faces import Photos, bases, photograph
from mouth import open_mouth
from speech import speak, write_many

SECONDS = 30  # one segment of Whisper


def write_bank(clips: int, processes: int, seed: int = 1) -> torch.Tensor:
    """(clips, 3000, 10) tracks. Call it before CUDA starts: it forks."""
    jobs = [(seed * 100_000 + index, 8, SECONDS) for index in range(clips // 8)]
    with ProcessPoolExecutor(processes) as pool:
        return torch.cat([torch.from_numpy(tracks) for tracks in pool.map(write_many, jobs)])


class SpeechBank:
    """Log-mels (float16) with their lips, of every written clip; `renew` says a few again, in other rooms."""

    def __init__(self, tracks: torch.Tensor, device, seed: int = 0):
        self.tracks, self.device = tracks, device
        self.generator = torch.Generator(device).manual_seed(seed)
        n = len(tracks)
        self.mel = torch.zeros(n, 80, 3000, dtype=torch.float16, device=device)
        self.lips = torch.zeros(n, 1500, 2, device=device)
        self.alive = torch.zeros(n, 1500, dtype=torch.bool, device=device)
        self.next = 0
        for _ in range(0, n, 8):
            self.renew()

    def renew(self, count: int = 8) -> None:
        rows = torch.arange(self.next, self.next + count) % len(self.tracks)
        sound, lips, alive = speak(self.tracks[rows].to(self.device), self.generator)
        self.mel[rows], self.lips[rows], self.alive[rows] = log_mel(sound).half(), lips, alive
        self.next = (self.next + count) % len(self.tracks)

    def draw(self, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rows = torch.randint(len(self.tracks), (count,), device=self.device)
        return self.mel[rows].float(), self.lips[rows], self.alive[rows]


def face_pairs(opening, spread, photos: Photos) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Target and reference pictures (n, 3, SIDE, SIDE) in -1..1 and the weight of each pixel (n, 1, SIDE, SIDE).

    Both are one face under one camera; the target's mouth is the given one, the reference's any, often closed.
    """
    n, device = len(opening), opening.device
    base, mouth = bases(n, SIDE, device, photos)
    other = torch.rand(n, device=device) * (torch.rand(n, device=device) < 0.6)
    other_spread = torch.rand(n, device=device) * 2 - 1
    pictures = [open_mouth(base, mouth, opening, spread), open_mouth(base, mouth, other, other_spread)]
    target, reference = photograph(pictures)
    line = (torch.arange(SIDE, device=device) + 0.5) / SIDE
    x, y = line.view(1, 1, 1, -1), line.view(1, 1, -1, 1)
    near = torch.exp(-(((x - mouth["x"]) / 0.24) ** 4) - ((y - mouth["y"] - 0.04) / 0.16) ** 4)
    weight = (y > 0.5) * (0.6 + 4 * near) + (y <= 0.5) * 0.1
    return target * 2 - 1, reference * 2 - 1, weight
