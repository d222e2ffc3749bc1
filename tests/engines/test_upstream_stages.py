"""T2V A14B and the official 5B, stage by stage, against numbers that the official code gave for them at toy size.

See toy_models.py and tests/golden/make_stages.py.
"""

import pytest
import torch

from tests.engines import toy_models as toys
from wan_ui import settings
from wan_ui.engines import dit, lora_plan
from wan_ui.engines.device import Choice
from wan_ui.engines.diffusers import DiffusersEngine
from wan_ui.files import tensors, vae_file
from wan_ui.media.images import read_pixels
from wan_ui.qa import synthetic
from wan_ui.request import Request


@pytest.fixture(scope="module", params=toys.NAMES)
def toy(request, tmp_path_factory):
    """(the model, its engine in float32, a picture, what the official code gave)"""
    before = settings.settings()
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        for module in (tensors, dit, lora_plan, vae_file):  # put back afterwards
            for name in ("read_tensor", "read_blocks", "read_pth"):
                if hasattr(module, name):
                    patch.setattr(module, name, getattr(module, name))
        model = toys.write_model(request.param, folder)
        synthetic.install()
        engine = DiffusersEngine(Choice(torch.float32, "test"))
        engine.load(model, model.scheme(""), lambda progress: None)
        yield model, engine, toys.write_picture(model, folder), toys.load_stored(model)
        engine.close()
    settings.use(before)


def close(ours, theirs, bound: float = 1e-4) -> None:
    ours = torch.as_tensor(ours)
    assert ours.shape == theirs.shape and theirs.std() > 0.1
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < bound


def test_text(toy):
    _, engine, _, stored = toy
    for stage, prompt in (("text", toys.PROMPT), ("negative", toys.NEGATIVE)):
        rows = engine.encode_text(prompt)
        own = len(stored[stage])
        close(rows[:own], stored[stage])
        assert not rows[own:].any()


def test_steps_of_the_experts(toy):
    model, engine, picture, stored = toy
    latents = toys.noise(model)
    condition = torch.zeros(0, *latents.shape[1:])
    if "image" in stored:
        request = Request.from_dict(toys.request_of(model, toys.TRIALS[model.name][-1], picture))
        condition = engine.encode_image(read_pixels(request), toys.FRAMES)
        close(condition, stored["image"])
    text = engine.encode_text(toys.PROMPT)
    for expert, side in enumerate(model.family.sides):
        velocity = engine.predict(latents, toys.SIGMA, expert, text, condition)
        close(velocity, stored[f"dit {side}".strip()])


def test_whole_loops(toy):
    model, engine, picture, stored = toy
    for trial in toys.TRIALS[model.name]:
        clip = engine.generate(Request.from_dict(toys.request_of(model, trial, picture)), lambda progress: None)
        close(clip.latents, stored[trial.name])


def test_decode(toy):
    model, engine, _, stored = toy
    pixels = engine.decode(stored[toys.TRIALS[model.name][-1].name])
    close(pixels.permute(3, 0, 1, 2)[:, :, :: toys.EVERY, :: toys.EVERY], stored["decode"])
