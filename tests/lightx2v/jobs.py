"""Jobs for the tests with the real LightX2V, how they are stopped, and what they leave in memory."""

import gc
import threading
from dataclasses import replace

import numpy as np
from PIL import Image

from tests.job_requests import job_request
from wan_ui import settings as settings_module
from wan_ui.errors import Cancelled
from wan_ui.files import found
from wan_ui.machine.engine_choice import EngineChoice
from wan_ui.queue.messages import Entered
from wan_ui.queue.work import Work
from wan_ui.request import Request, Segment


def make_request(folder, model, scheme, **changes) -> Request:
    """A small picture of 24 coloured squares, below `folder`; 96x64, 9 frames, 4 steps unless `changes` say else."""
    values = {
        "prompt": "zoom in, sunset light",
        "width": 96,
        "height": 64,
        "frames": 9,
        "steps": 4,
        "seed": 7,
    } | changes
    colours = np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    path = folder / f"{values['width']}x{values['height']}.png"
    Image.fromarray(colours).resize((values["width"], values["height"]), Image.Resampling.NEAREST).save(path)
    return job_request(image=str(path), model=model.name, scheme=scheme, engine="lightx2v", **values)


def in_segments(request, *prompts, **changes) -> Request:
    """The same, and then what these say; at 16 frames a second."""
    sampling = replace(request.sampling, segments=tuple(Segment(prompt) for prompt in prompts), fps=16)
    return replace(request, made_with=sampling, **changes)


def make_segments(engine, model, request, folder, monkeypatch, cancel_at=None):
    """By the worker's way, with an engine that is loaded: (frames of each segment, what was answered, the Result, the
    folder of the clip). cancel_at: (segment, stage, step); the Result is then None."""
    answers, cancel, frames = [], threading.Event(), []

    def answer(message):
        answers.append(message)
        if isinstance(message, Entered):
            progress = message.progress
            if (progress.segment, progress.stage, progress.step) == cancel_at:
                cancel.set()

    def refuse(name):
        raise AssertionError("it is loaded")

    work, made = Work(settings_module.settings(), refuse, answer, cancel), request.sampling
    work.engine, work.chosen = engine, EngineChoice("lightx2v", "for the test")
    work.loaded = (made.model, made.scheme, made.engine)
    generate = engine.generate

    def kept(*arguments):
        clip = generate(*arguments)
        frames.append(clip.frames)
        return clip

    with monkeypatch.context() as patch:
        patch.setattr(found, "models", lambda settings: {model.name: model})
        patch.setattr(engine, "generate", kept)
        try:
            result = work.generate(request, folder)
        except Cancelled:
            result = None
    return frames, answers, result, folder


def quiet(progress) -> None:
    pass


def stop_at(stage, step):
    """A report function that cancels when that step is entered."""

    def report(progress):
        if progress.stage == stage and progress.step >= step:
            raise Cancelled

    return report


def live_bytes(device: str = "") -> int:
    """Of all tensors that the process holds, on the device ("cuda") or, without one, wherever they are."""
    import torch

    gc.collect()
    kinds = (torch.Tensor, torch.nn.Parameter)  # those of a compiler's tracing have no storage
    tensors = [thing for thing in gc.get_objects() if type(thing) in kinds and not torch._is_functional_tensor(thing)]
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in tensors
        if tensor.device.type == (device or tensor.device.type)
    }
    return sum(storages.values())
