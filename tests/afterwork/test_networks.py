"""RIFE's and Real-ESRGAN's networks on random weights of the official names and shapes, against the official code."""

import os
import pickle

import numpy as np
import pytest
import torch

from tests.afterwork.networks import (
    RIFE,
    THEIRS,
    UPSCALERS,
    random_tensors,
    rife_shapes,
    two_frames,
    upscaler_shapes,
)
from wan_ui.afterwork import weights
from wan_ui.afterwork.between import choose_between
from wan_ui.afterwork.esrgan import Esrgan, build
from wan_ui.afterwork.rife import IFNet
from wan_ui.afterwork.upscale import choose_upscaler
from wan_ui.errors import UserError
from wan_ui.settings import Settings

CPU = torch.device("cpu")


@pytest.mark.parametrize("version", RIFE)
def test_rife_is_the_official_network(version):
    net = IFNet(random_tensors(rife_shapes(version)), version).eval()
    made = net(*two_frames(64, 128), 0.3)[0, :, ::31, ::55].flatten()
    np.testing.assert_allclose(made[:6], THEIRS[version], atol=5e-5)


@pytest.mark.parametrize("kind", UPSCALERS)
def test_the_upscalers_are_the_official_networks(kind):
    net = build(random_tensors(upscaler_shapes(kind)), kind).eval()
    with torch.no_grad():
        made = net(two_frames(20, 28)[0])
    assert made.shape[-2:] == (20 * net.scale, 28 * net.scale)
    np.testing.assert_allclose(made[0, :, ::29, ::41].flatten()[:8], UPSCALERS[kind], atol=5e-5)


def test_files_in_the_models_folder_are_used(tmp_path):
    settings = Settings(models=tmp_path)
    assert "no RIFE" in weights.between_words(settings) and "not sharper" in weights.upscale_words(settings)
    assert "DIS" in choose_between(settings).words and choose_upscaler(settings).words.startswith("Lanczos")
    for folder in ("rife", "upscale"):
        (tmp_path / folder).mkdir()
    wrapped = {f"module.{name}": value for name, value in random_tensors(rife_shapes("4.6")).items()}
    torch.save(wrapped, tmp_path / "rife" / "flownet.pkl")
    for kind, name in (("x4", "RealESRGAN_x4plus.pth"), ("vgg2", "small_x2.pth")):
        torch.save({"params_ema": random_tensors(upscaler_shapes(kind))}, tmp_path / "upscale" / name)
    between, upscaler = choose_between(settings), choose_upscaler(settings)
    assert (between.words, upscaler.words) == ("RIFE (flownet.pkl)", "small_x2.pth")
    frame = np.random.default_rng(0).integers(0, 255, (50, 38, 3), dtype=np.uint8)
    assert between.at(frame, frame[::-1].copy(), 0.5).shape == (50, 38, 3)
    assert upscaler.twice(frame).shape == (100, 76, 3)


def test_comfyui_s_folders_are_looked_into(tmp_path):
    nodes = tmp_path / "custom_nodes" / "comfyui-frame-interpolation" / "ckpts" / "rife"
    (tmp_path / "models" / "upscale_models").mkdir(parents=True)
    nodes.mkdir(parents=True)
    (nodes / "rife49.pth").touch()
    (nodes / "rife47.pth").touch()
    (tmp_path / "models" / "upscale_models" / "RealESRGAN_x2plus.pth").touch()
    settings = Settings(models=tmp_path / "none", comfyui=str(tmp_path))
    assert weights.rife_file(settings) == nodes / "rife49.pth"
    assert weights.upscaler_file(settings).name == "RealESRGAN_x2plus.pth"


def test_a_tile_is_as_the_whole_frame(tmp_path, monkeypatch):
    torch.save(random_tensors(upscaler_shapes("vgg2")), tmp_path / "net.pth")
    frame = np.random.default_rng(0).integers(0, 255, (70, 60, 3), dtype=np.uint8)
    net = Esrgan(tmp_path / "net.pth", CPU)
    whole = net.twice(frame)
    monkeypatch.setattr("wan_ui.afterwork.esrgan.TILE", 32)
    tiled = net.twice(frame).astype(int)
    assert np.abs(tiled - whole).max() <= 1, "6 convolutions see 6 pixels around, the tiles overlap by 16"


class Bad:
    def __reduce__(self):
        return os.system, ("touch /tmp/never",)


@pytest.mark.parametrize(
    "choose, folder, field", [(choose_between, "rife", "times"), (choose_upscaler, "upscale", "upscale")]
)
def test_other_files_are_refused_by_name(tmp_path, choose, folder, field):
    (tmp_path / folder).mkdir()
    path = tmp_path / folder / "net.pth"
    for write in (
        lambda: path.write_bytes(b"nothing of the kind"),
        lambda: path.write_bytes(pickle.dumps(Bad())),
        lambda: torch.save({"body.3.weight": torch.zeros(3)}, path),
        lambda: torch.save([1, 2], path),
    ):
        write()
        with pytest.raises(UserError, match=rf"{field}: net\.pth") as refused:
            choose(Settings(models=tmp_path))
        assert refused.value.field == field


def test_an_older_rife_is_said_to_be_one(tmp_path):
    shapes = {name: shape for name, shape in rife_shapes("4.6").items() if "beta" not in name}
    with pytest.raises(UserError, match=r"4\.0\.pkl is not RIFE 4\.6 to 4\.26 \(versions before 4\.6"):
        IFNet(random_tensors(shapes), "4.0.pkl")
