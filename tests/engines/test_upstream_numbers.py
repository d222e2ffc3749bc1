"""Our engine against numbers that a real run of LightX2V gave for the files that ship, each naming its commit.

Made by tests/lightx2v/test_upstream_numbers.py, on Wan-Tiny at 64x64, 5 frames, in float32.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from tests.lightx2v.jobs import make_request, quiet
from wan_ui.catalog import load_catalog
from wan_ui.files import places
from wan_ui.patches.record import COMMIT
from wan_ui.qa import reference as references
from wan_ui.qa.blocks import relative_error
from wan_ui.settings import ROOT, settings

TRIAL = references.Trial(64, 64, 5)
SCHEMES = ("bf16", "fp8", "gguf-Q8_0", "gguf-Q5_0", "gguf-Q4_0")


LAST_FRAME = ROOT / "tests" / "golden" / "of-lightx2v" / "last-frame.safetensors"


def stored(scheme: str):
    return ROOT / "tests" / "golden" / "of-lightx2v" / f"{scheme}.safetensors"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    found = load_catalog(settings().catalog)["wan-tiny"]
    missing = places.availability(found, found.scheme("bf16"), settings())
    if missing:
        pytest.skip(f"Wan-Tiny: {missing}")
    return found


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_stage_is_as_upstream_computes_it(model, scheme):
    upstream = references.load_reference(stored(scheme))
    assert upstream.trial == TRIAL and upstream.source.startswith(f"LightX2V {COMMIT}")
    engine = references.float32_engine(model, model.scheme(scheme), lambda progress: None)
    try:
        ours = references.compute(engine, model, TRIAL)
    finally:
        engine.close()
    assert [tuple(step) for step in ours.plan] == [pytest.approx(step, abs=1e-6) for step in upstream.plan]
    # fp8: upstream rounds activations to e4m3 as well.
    step = 0.08 if scheme == "fp8" else 1e-3
    allowed = {"text": 1e-3, "image": 1e-3, "dit high": step, "dit low": step, "decode": 0.01 + step}
    errors = {name: relative_error(ours.outputs[name], output) for name, output in upstream.outputs.items()}
    assert {name: error for name, error in errors.items() if error > allowed[name]} == {}, errors


def with_end(request, folder):
    """The same request, ending at its picture upside down."""
    path = folder / "end.png"
    Image.fromarray(np.flipud(np.asarray(Image.open(request.inputs["image"])))).save(path)
    return replace(request, task="first-last-frame", inputs={**request.inputs, "end_image": str(path)})


def test_a_clip_that_ends_at_a_picture_is_as_upstream_makes_it(model, tmp_path):
    """Its condition, encoded by upstream's own VAE, and its latents after the last step."""
    with safe_open(LAST_FRAME, "pt") as file:
        assert file.metadata()["source"].startswith(f"LightX2V {COMMIT}")
        upstream = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    job = with_end(make_request(tmp_path, model, "bf16"), tmp_path)
    engine = references.float32_engine(model, model.scheme("bf16"), quiet)
    try:
        clip = engine.generate(job, quiet)
        (condition,) = engine.encoded.images.values()
    finally:
        engine.close()
    torch.testing.assert_close(condition, upstream["condition"], atol=1e-3, rtol=0)
    torch.testing.assert_close(torch.from_numpy(clip.latents), upstream["latents"], atol=1e-3, rtol=0)
