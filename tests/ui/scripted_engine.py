"""The scripted engine of tests/, with frames that move: a zoom, so that a playing clip can be seen playing;
how far it goes depends on the seed."""

from dataclasses import replace

import numpy as np
from PIL import Image

from tests.scripted_engine import ScriptedEngine
from wan_ui.machine.engine_choice import EngineChoice


def create_engine(name: str):
    return MovingEngine(), EngineChoice("scripted", name)


class MovingEngine(ScriptedEngine):
    def generate(self, request, report, show=None):
        clip = super().generate(request, report)
        given = request.inputs.get("image")
        picture = Image.open(given).convert("RGB") if given else Image.fromarray(clip.frames[0])
        width, height = picture.size
        frames = []
        for index in range(request.frames):
            cut = (0.2 + 0.03 * (request.sampling.seed % 10)) * index / request.frames
            box = (width * cut / 2, height * cut / 2, width * (1 - cut / 2), height * (1 - cut / 2))
            frames.append(np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR, box=box)))
        return replace(clip, frames=np.stack(frames))
