"""Floors: operations counted from shapes, and the bars that show them."""

import pytest
from PIL import Image

from wan_ui.catalog import load_catalog
from wan_ui.qa import floors, layouts
from wan_ui.reports import stage_bars
from wan_ui.settings import load_settings

CATALOG = load_catalog(load_settings({}).catalog)
H100 = "NVIDIA H100 80GB HBM3"


def shapes(model):
    return {name: shape for name, (_, shape) in layouts.vae(model.family.vae).items()}


# Counted apart from this code, from the published sizes of the networks, TFLOP: 4-step models, 81 frames.
@pytest.mark.parametrize(
    ("name", "size", "step", "decode"),
    [("i2v-a14b", (480, 480), 755, 158), ("i2v-a14b", (832, 480), 1678, 274), ("ti2v-5b", (480, 480), 51, 344)],
)
def test_operations(name, size, step, decode):
    model = CATALOG[name]
    _, t, h, w = model.family.vae.latents(*size, 81)
    config = layouts.dit_config(model.family)
    assert sum(floors.step_operations(config, t * (h // 2) * (w // 2))) / 1e12 == pytest.approx(step, rel=0.01)
    assert floors.decode_operations(shapes(model), (t, h, w)) / 1e12 == pytest.approx(decode, rel=0.01)


def test_encoding_counts_only_frames_that_differ():
    vae = shapes(CATALOG["i2v-a14b"])
    short, long = (floors.encode_operations(vae, (frames, 480, 480)) for frames in (81, 161))
    assert long == pytest.approx(short, rel=0.05)
    assert floors.encode_operations(vae, (1, 480, 480)) < short / 5


def test_a_card_without_a_data_sheet_has_no_floor():
    model = CATALOG["i2v-a14b"]
    found, words = floors.of_run(model, model.scheme("fp8"), {"device": "Some card"}, (480, 480, 81))
    assert found == {} and "Some card" in words


def test_fp8_halves_the_linear_layers_and_not_attention():
    model = CATALOG["i2v-a14b"]
    facts, size = {"device": H100}, (480, 480, 81)
    fp8, words = floors.of_run(model, model.scheme("fp8"), facts, size)
    bf16, _ = floors.of_run(model, model.scheme("bf16"), facts, size)
    assert fp8["step"] == pytest.approx(454.0 / 1979 + 300.6 / 989, rel=0.01)
    assert bf16["step"] == pytest.approx(754.6 / 989, rel=0.01)
    assert "989" in words and fp8["decode"] == bf16["decode"]


def test_the_bars(tmp_path):
    figures = {
        "model": "m", "scheme": "s", "engine": "e", "card": "c", "size": "8x8", "frames": 5, "steps": 2,
        "stages_s": {"text": 0.01, "denoise": 3.0, "decode": 1.0}, "expert_step_s": {"one": 1.0, "other": 2.0},
        "floors_s": {"step": 0.5, "decode": 4.0}, "floors_of": "a data sheet",
    }  # fmt: skip
    rows = stage_bars.rows_of(figures)
    assert rows[1:4] == [("one step, one", 1.0, 0.5), ("one step, other", 2.0, 0.5), ("all 2 steps", 3.0, 1.0)]
    lines = stage_bars.table(figures)
    assert lines[1].split() == ["text", "0.010", "-"] and lines[4].split()[-1] == "3.0" and "a data sheet" in lines[-1]
    stage_bars.draw(figures, tmp_path / "new" / "bars.png")
    assert Image.open(tmp_path / "new" / "bars.png").size[0] == stage_bars.WIDTH
