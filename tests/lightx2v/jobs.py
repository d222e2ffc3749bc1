"""Jobs for the tests with the real LightX2V, how they are stopped, and what they leave in memory."""

import gc

import numpy as np
from PIL import Image

from tests.job_requests import job_request
from wan_ui.errors import Cancelled
from wan_ui.request import Request


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
