"""Fixtures of the engine tests: random models, a picture, requests. See random_models.py."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.engines.random_models import animate_model, make_engine, write_5b, write_a14b
from wan_ui import settings
from wan_ui.catalog import Model, Scheme, load_catalog
from wan_ui.engines.diffusers import DiffusersEngine
from wan_ui.families import FAMILIES
from wan_ui.request import Request
from wan_ui.settings import ROOT


@pytest.fixture(scope="session", autouse=True)
def isolated_settings(tmp_path_factory):
    """Settings below a temporary folder. One thread: at these sizes a second one mostly waits."""
    before = settings.settings()
    folder = tmp_path_factory.mktemp("settings")
    settings.use(
        replace(before, threads=1, cache=folder / "cache", models=folder / "models", outputs=folder / "outputs")
    )
    yield settings.settings()
    settings.use(before)


@pytest.fixture(scope="session")
def a14b(tmp_path_factory) -> Model:
    """A random two-expert model; all five schemes of wan-tiny."""
    root = tmp_path_factory.mktemp("a14b")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        write_a14b(root)
    model = load_catalog(ROOT / "configs/catalog.toml")["wan-tiny"]
    return replace(model, name="random", root=f"embedded:{root}", sizes=((64, 64), (96, 64)), frames=(5, 9, 17))


@pytest.fixture(scope="session")
def t2v(tmp_path_factory) -> Model:
    """A random two-expert model that takes no picture."""
    root = tmp_path_factory.mktemp("t2v")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        write_a14b(root, channels=16)
    model = load_catalog(ROOT / "configs/catalog.toml")["wan-tiny"]
    return replace(
        model, name="random-t2v", family=FAMILIES["t2v-a14b"], tasks=("text-to-video",), boundary=0.875,
        root=f"embedded:{root}", sizes=((64, 64), (96, 64)), frames=(5, 9, 17),
    )  # fmt: skip


@pytest.fixture(scope="session")
def ti2v(isolated_settings) -> Model:
    """A random single-DIT model with the 48-channel VAE, below the models folder like a download."""
    root = isolated_settings.models / "local/random-5b"
    root.mkdir(parents=True)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        write_5b(root)
    model = load_catalog(ROOT / "configs/catalog.toml")["ti2v-5b"]
    scheme = Scheme("gguf-Q8_0", "GGUF Q8_0", "gguf", "Q8_0", high="local/random-5b:dit-Q8_0.gguf")
    return replace(
        model, name="random-5b", root="local/random-5b", vae="local/random-5b:vae", needs_gpu=False,
        sizes=((64, 64),), frames=(5, 9), schemes={scheme.name: scheme},
    )  # fmt: skip


@pytest.fixture(scope="session")
def animate(isolated_settings) -> Model:
    """A random Animate model, below the models folder like a download; segments of 9 frames."""
    return animate_model(isolated_settings.models)


@pytest.fixture(scope="session")
def picture(tmp_path_factory) -> Path:
    """A 64 x 64 picture with edges and gradients."""
    path = tmp_path_factory.mktemp("picture") / "picture.png"
    image = Image.radial_gradient("L").resize((64, 64)).convert("RGB")
    image.paste((200, 40, 90), (8, 16, 30, 44))
    image.save(path)
    return path


@pytest.fixture(scope="session")
def other_picture(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("other-picture") / "other.png"
    image = Image.linear_gradient("L").resize((64, 64)).convert("RGB")
    image.paste((20, 180, 90), (30, 4, 60, 30))
    image.save(path)
    return path


@pytest.fixture(scope="session")
def make_request(picture):
    def make(model: Model, **changes) -> Request:
        """`changes`: of the picture "" for none."""
        values = {
            "image": str(picture), "prompt": "zoom in slowly", "model": model.name, "scheme": model.default_scheme,
            "engine": "diffusers", "width": 64, "height": 64, "frames": 9, "steps": 4, "seed": 7,
        }  # fmt: skip
        return Request.from_dict(values | changes)

    return make


@pytest.fixture(scope="session")
def float32_engine(a14b) -> DiffusersEngine:
    return make_engine(a14b, dtype=torch.float32)
