"""The catalog's models at toy size, with the random weights of wan_ui.qa.synthetic: the same on every machine.

What the official code gave for them is in tests/golden/of-wan22, made by tests/golden/make_stages.py.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from safetensors import safe_open

from wan_ui import settings
from wan_ui.catalog import Model, load_catalog
from wan_ui.qa import synthetic, toy
from wan_ui.settings import ROOT

STORED = ROOT / "tests" / "golden" / "of-wan22"
NAMES = ("t2v-a14b", "ti2v-5b-full")
PROMPT, NEGATIVE, SEED, STEPS, FRAMES, SIGMA = "a cat on a red sofa, slowly zoom in", "fog, still", 11, 6, 5, 0.75
EVERY = 4  # of decoded pixels, each way, one is kept


@dataclass(frozen=True)
class Trial:
    """task, guidance and shift as the model's own recipe has them, solver of this run"""

    task: str
    solver: str

    @property
    def name(self) -> str:
        return f"{self.task} {self.solver}"


TRIALS = {
    "t2v-a14b": (Trial("text-to-video", "unipc"), Trial("text-to-video", "dpm++")),
    "ti2v-5b-full": (Trial("text-to-video", "unipc"), Trial("image-to-video", "unipc")),
}


def write_model(name: str, folder: Path) -> Model:
    """The model's files below `folder`, in the official layout; settings that find them are now in use."""
    catalog = settings.Settings().catalog
    values = replace(settings.settings(), catalog=catalog, models=folder / "models", cache=folder / "cache", threads=1)
    values = toy.shrink(values, folder)
    settings.use(values)
    found = load_catalog(values.catalog)[name]
    # One file of each part as released: no Diffusers folder for the VAE, no distill LoRA.
    plain = replace(found.scheme("bf16"), lora_high="", lora_low="")
    model = replace(found, vae="", t5="", schemes={plain.name: plain}, default_scheme=plain.name)
    synthetic.write(model, plain, values, "diffusers", small=True)
    return model


def write_picture(model: Model, folder: Path) -> Path:
    path = folder / "picture.png"
    width, height = model.sizes[0]
    picture = Image.radial_gradient("L").resize((width, height)).convert("RGB")
    picture.paste((200, 40, 90), (width // 8, height // 4, width // 2, height // 2))
    picture.save(path)
    return path


def request_of(model: Model, trial: Trial, picture: Path) -> dict:
    """A job for it, as a row stores it."""
    recipe = model.recipes["full"]
    width, height = model.sizes[0]
    return {
        "task": trial.task, "image": str(picture) if trial.task == "image-to-video" else "",
        "prompt": PROMPT, "negative": NEGATIVE, "model": model.name, "scheme": "bf16", "engine": "diffusers",
        "width": width, "height": height, "frames": FRAMES, "steps": STEPS, "seed": SEED, "motion": "full",
        "guidance": recipe.guidance, "shift": recipe.shift, "solver": trial.solver,
    }  # fmt: skip


def noise(model: Model) -> torch.Tensor:
    shape = model.family.vae.latents(*model.sizes[0], FRAMES)
    return torch.randn(shape, generator=torch.Generator().manual_seed(SEED))


def load_stored(model: Model) -> dict[str, torch.Tensor]:
    """Stage -> what the official code gave."""
    with safe_open(STORED / f"{model.name}-toy.safetensors", "pt") as file:
        assert file.metadata()["source"].startswith("Wan-Video/Wan2.2 42bf4cfaa384bc21833865abc2f9e6c0e67233dc")
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
