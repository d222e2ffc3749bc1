"""Drift over the segments of a clip of Wan-Tiny: mean colour and sharpness, with the colours matched and without.

    python benchmarks/segments.py [--segments 5] [--frames 33] [--sheet FOLDER]

Each segment goes on from the last frame of the one before. Means are of 0 .. 255 levels; sharpness is the variance of
the Laplacian of the luma. --sheet writes a contact sheet of each clip, a row for each segment.
"""

import argparse
import tempfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from wan_ui.engines.diffusers import DiffusersEngine
from wan_ui.media import colour_match
from wan_ui.queue.draft import Draft
from wan_ui.queue.intake import resolve
from wan_ui.queue.segments import Chain
from wan_ui.request import Request
from wan_ui.settings import ROOT, settings

CASES = (("portrait.jpg", "still"), ("cat.jpg", "still"), ("lagoon.jpg", "waves"), ("rocket.jpg", "pan left"))


class Measured(Chain):
    """Keeps the frames of every segment as they go into the clip."""

    def __init__(self, request: Request, folder: Path, matched: bool):
        super().__init__(request, folder)
        self.segments: list[np.ndarray] = []
        self.matched = matched

    def add(self, frames: np.ndarray) -> None:
        if self.matched and self.last is not None:
            found, end = colour_match.match(self.last, frames), len(frames) - 1
            frames = np.stack([found.apply(frame, number / end) for number, frame in enumerate(frames)])
        self.segments.append(frames)
        self.last = frames[-1]
        self.made += 1


def sharpness(frame: np.ndarray) -> float:
    return float(cv2.Laplacian(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32), cv2.CV_32F).var())


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--segments", type=int, default=5)
    parser.add_argument("--frames", type=int, default=33)
    parser.add_argument("--sheet", type=Path)
    args = parser.parse_args()
    config, engine = settings(), DiffusersEngine()
    print("| picture, prompt | matched | mean R G B after the first | after the last | jump at a seam | sharpness |")
    print("|---|---|---|---|---|---|")
    for picture, prompt in CASES:
        for matched in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                given = {"image": str(ROOT / "assets" / "examples" / picture), "prompt": prompt}
                given["segments"] = "\n".join([prompt] * (args.segments - 1))
                draft = Draft(given, model="wan-tiny", size="256x256", frames=args.frames, seed=5)
                chain = Measured(resolve(draft, config, Path(folder)), Path(folder), matched)
                load(engine, chain.request)
                while chain.made < chain.total:
                    chain.add(engine.generate(chain.next(), lambda progress: None).frames)
            first, last = chain.segments[0][-1], chain.segments[-1][-1]
            seams = [
                np.abs(after[1].mean((0, 1)) - before[-1].mean((0, 1))).max()
                for before, after in zip(chain.segments, chain.segments[1:], strict=False)
            ]
            means = [" ".join(f"{value:.1f}" for value in frame.mean((0, 1))) for frame in (first, last)]
            sharp = f"{sharpness(first):.1f} to {sharpness(last):.1f}"
            words = f"{picture.partition('.')[0]}, {prompt}"
            print(f"| {words} | {'yes' if matched else 'no'} | {means[0]} | {means[1]} | {max(seams):.2f} | {sharp} |")
            if args.sheet:
                rows = [np.concatenate(segment[:: (args.frames - 1) // 4], axis=1) for segment in chain.segments]
                name = f"{picture.partition('.')[0]}-{'matched' if matched else 'plain'}.png"
                Image.fromarray(np.concatenate(rows)).save(args.sheet / name)


def load(engine: DiffusersEngine, request: Request) -> None:
    if engine.model is None:
        from wan_ui.catalog import find_model, load_catalog

        model = find_model(load_catalog(settings().catalog), request.sampling.model)
        engine.load(model, model.scheme(request.sampling.scheme), lambda progress: None)


if __name__ == "__main__":
    run()
