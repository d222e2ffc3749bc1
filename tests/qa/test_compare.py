"""Clips held against each other: figures, maps, sheets, and the command."""

import json

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from tests.commands.test_command_line import wan_ui
from wan_ui.commands.compare import vary
from wan_ui.errors import UserError
from wan_ui.media import muxer
from wan_ui.qa import compare
from wan_ui.qa.compare import Item
from wan_ui.queue.draft import Draft


def clip(seed: int, count: int = 5, width: int = 64, height: int = 48) -> np.ndarray:
    rng = np.random.default_rng(seed)
    blocks = rng.integers(40, 200, (1, height // 8, width // 8, 3))
    still = np.kron(blocks, np.ones((1, 8, 8, 1)))
    return (still + np.arange(count)[:, None, None, None] * 4).astype(np.uint8)


def test_figures_frame_by_frame_and_in_total():
    first = clip(1)
    other = first.copy()
    other[3] = np.clip(other[3].astype(int) + np.random.default_rng(0).integers(-30, 30, other[3].shape), 0, 255)
    (pair,) = compare.measure([Item("a", first, 16, {}), Item("b", other, 16, {})])
    expected = [peak_signal_noise_ratio(x, y, data_range=255) for x, y in zip(first[3:4], other[3:4], strict=True)]
    assert pair.psnr == [100, 100, 100, pytest.approx(expected[0], abs=0.01), 100]
    assert pair.ssim[0] == 1 and pair.ssim[3] < 0.95 and pair.worst_frame == 3
    assert pair.psnr_total == pytest.approx(peak_signal_noise_ratio(first, other, data_range=255), abs=0.01)
    json.dumps(pair.__dict__, allow_nan=False)


def test_the_common_part_of_two_lengths_is_compared_and_sizes_must_agree():
    (pair,) = compare.measure([Item("a", clip(1, 9), 16, {}), Item("b", clip(1, 5), 16, {})])
    assert len(pair.psnr) == 5 and pair.psnr_total == 100
    with pytest.raises(UserError, match="a and b have different sizes \\(64x48 and 48x64\\)"):
        compare.measure([Item("a", clip(1), 16, {}), Item("b", clip(1, width=48, height=64), 16, {})])


def test_the_heat_map_is_black_where_nothing_differs():
    first, other = clip(1), clip(1)
    other[2, 10, 20] += 60
    heat = compare.heat_map(first, other)
    assert heat.shape == first.shape and (heat[2, 10, 20] > 0).any()
    heat[2, 10, 20] = 0
    assert not heat.any()
    brighter = [compare.heat_map(np.zeros((1, 8, 8, 3), np.uint8), np.full((1, 8, 8, 3), value, np.uint8)).sum()
                for value in (10, 40, 80, 120, 255)]  # fmt: skip
    assert brighter == sorted(brighter) and brighter[0] > 0


def test_only_settings_that_differ_are_listed():
    a = compare.flatten({"scheme": "bf16", "seed": 1, "facts": {"engine": "diffusers", "scheme": "as stored"}})
    b = compare.flatten({"scheme": "fp8", "seed": 1, "loras": [], "facts": {"engine": "diffusers"}})
    found = compare.differences([Item("a", clip(1), 16, a), Item("b", clip(1), 16, b)])
    assert found == {"scheme": ["bf16", "fp8"], "used scheme": ["as stored", ""]}


def test_stored_values_are_told_in_words():
    lora = {"file": "/data/loras/styles/sepia.safetensors", "strength": 0.8, "target": "high_noise"}
    seconds = {"text": 0.5, "decode": 2.0}
    told = compare.flatten({"loras": (lora,), "none": (), "left": None, "seconds": seconds, "sizes": [1, 2], "x": True})
    assert told == {
        "loras": "sepia.safetensors x0.8, high noise",
        "none": "",
        "left": "",
        "seconds": "text 0.5; decode 2",
        "sizes": "1, 2",
        "x": "yes",
    }


def test_variants_are_read_strictly():
    base = Draft({"prompt": "x"}, seed=3)
    wanted, off = vary(base, "scheme=fp8, engine=lightx2v,steps=2,patches_off=fp8_scales+copy_back")
    assert (wanted.scheme, wanted.engine, wanted.steps, wanted.seed) == ("fp8", "lightx2v", 2, 3)
    assert off == "fp8_scales,copy_back"
    wanted, _ = vary(base, "lora=sepia.safetensors:0.5:low_noise")
    assert [(lora.file, lora.strength, lora.target) for lora in wanted.loras] == [
        ("sepia.safetensors", 0.5, "low_noise")
    ]
    for text, words in (
        ("shame=1", "'shame' cannot be varied"),
        ("steps=two", "steps=.two.: expected a whole number of at least 1"),
    ):
        with pytest.raises(UserError, match=words):
            vary(base, text)


def test_the_command_compares_files_and_exports(tmp_path):
    for name, seed in (("one", 1), ("two", 2)):
        muxer.write_mp4(
            clip(seed), tmp_path / f"{name}.mp4", 16, {"seed": seed, "prompt": "x", "facts": {"dtype": "bf16"}}
        )
    done = wan_ui("compare", tmp_path / "one.mp4", tmp_path / "two.mp4", "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["reference"] == "one" and result["differences"] == {"seed": ["1", "2"]}
    assert len(result["pairs"][0]["psnr"]) == 5 and result["pairs"][0]["psnr_total"] < 20
    frames, _ = muxer.read_frames(tmp_path / "out" / "comparison.mp4")
    assert frames.shape == (5, 48, 192, 3)  # both clips and the map
    sheet = Image.open(tmp_path / "out" / "contact-sheet.png")
    assert sheet.size == (5 * 64, 2 * (48 + compare.LABEL))
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["pairs"] == result["pairs"]


def test_one_clip_is_not_enough(tmp_path):
    done = wan_ui("compare", tmp_path / "one.mp4")
    assert done.returncode == 1 and "two or more clips" in done.stderr


def test_a_grid_of_schemes_with_one_seed(small_settings, picture, tmp_path):
    done = wan_ui(
        "compare", "--image", picture, "--prompt", "slowly zoom in", "--frames", "9", "--steps", "1", "--seed", "5",
        "--with", "scheme=bf16", "--with", "scheme=gguf-Q4_0", "--json",
        WAN_UI_OUTPUTS=tmp_path / "outputs", WAN_UI_CACHE=small_settings.cache,
        WAN_UI_CATALOG=small_settings.catalog, WAN_UI_THREADS=1,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert [clip["settings"]["seed"] for clip in result["clips"]] == ["5", "5"]
    assert "scheme" in result["differences"] and 25 < result["pairs"][0]["psnr_total"] < 60


def test_a_clip_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"compare: .*gone\.mp4 does not exist"):
        compare.read_item(tmp_path / "gone.mp4")
    with pytest.raises(UserError, match="is not a file"):
        compare.read_item(tmp_path)
