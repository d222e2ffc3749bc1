"""The engine protocol, and the automatic choice between engines.

An engine is loaded once with a model and a scheme and then stays resident; `generate` is called
once per job. `auto` takes LightX2V where it is installed and a CUDA GPU is there, diffusers
otherwise, and says why.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from wan_ui.catalog import Model, Scheme
from wan_ui.errors import UserError
from wan_ui.machine.engine_choice import EngineChoice, choose_engine
from wan_ui.machine.hardware import lightx2v_absent
from wan_ui.request import Clip, LoraMatch, LoraSpec, Report, Request
from wan_ui.settings import settings

if TYPE_CHECKING:
    import numpy as np
    import torch

CACHED_PROMPTS = 32  # 1 MB each at full size
CACHED_IMAGES = 8  # 2 MB each at 480x480x81
OnBlock = Callable[[int, "torch.Tensor"], "torch.Tensor | None"]
Entering = Callable[[int, int], None]


def ignore(step: int, total: int) -> None:
    """The `entering` of a caller who does not want to know."""


class Engine(Protocol):
    def load(self, model: Model, scheme: Scheme, report: Report) -> None:
        """Load weights; reports stage "load". Raises UserError naming a missing or damaged file."""

    def check(self, model: Model, scheme: Scheme) -> None:
        """Raise the UserError that `load` would raise before it reads weights: files, headers, kernels, configuration.

        Nothing is loaded or freed: called while another engine's model is still in use.
        """

    def set_loras(self, loras: Sequence[LoraSpec]) -> tuple[LoraMatch, ...]:
        """The full wanted set: [] removes all. What was matched, one entry per spec.

        Raises UserError naming the file; the model is then without LoRAs.
        """

    def generate(self, request: Request, report: Report) -> Clip:
        """Run one job; reports text, image, denoise (each step) and decode (each latent frame)."""

    def close(self) -> None:
        """Free the weights."""


class Stages(Protocol):
    """What `generate` runs, piece by piece: both engines have it, and wan_ui.qa.stages holds each against a reference.

    Tensors have no batch dimension and may be on any device. z, t, h, w are the latents' channels, frames,
    height and width.
    """

    def plan(self, steps: int) -> list[tuple[float, int]]:
        """(sigma, expert's index) of every denoise step."""

    def encode_text(self, prompt: str) -> "torch.Tensor":
        """(text length, text width) in the DIT's dtype; zero beyond the prompt's tokens."""

    def encode_image(self, pixels: "np.ndarray", frames: int) -> "torch.Tensor":
        """(H, W, 3) uint8 -> the condition, float: (4 + z, t, h, w), mask first (1 = given); 5B: (z, 1, h, w)."""

    def predict(
        self,
        latents: "torch.Tensor",
        sigma: float,
        expert: int,
        prompt: "torch.Tensor",
        condition: "torch.Tensor",
        on_block: OnBlock | None = None,
    ) -> "torch.Tensor":
        """The velocity (z, t, h, w) of one expert at `sigma`.

        on_block  called with (-1, tokens) before the first block and with (k, tokens) after block k, tokens
                  (number, width); what it returns, if anything, takes their place
        """

    def decode(self, latents: "torch.Tensor") -> "torch.Tensor":
        """Normalised latents (z, t, h, w) -> frames (T, H, W, 3) float32 in -1 .. 1 on the CPU."""


def create_engine(name: str) -> tuple[Engine, EngineChoice]:
    """Engine for `auto | diffusers | lightx2v`, and the reason for the choice. Raises UserError."""
    choice = choose_engine(name, settings(), _unusable)
    if choice.name == "diffusers":
        from wan_ui.engines.diffusers import DiffusersEngine

        return DiffusersEngine(), choice
    if absent := lightx2v_absent(settings()):
        raise UserError(f"engine: LightX2V cannot be used: {absent}", field="engine")
    from wan_ui.engines.lightx2v import LightX2VEngine

    return LightX2VEngine(), choice


def _unusable() -> str:
    """ "" when LightX2V works in this process, else why not: of that every job would fail."""
    import torch

    try:
        torch.zeros(1, device="cuda")
    except Exception as error:  # RuntimeError, AssertionError of a build without CUDA, torch.AcceleratorError ...
        return f"torch {torch.__version__} cannot use the GPU: {_first_line(error)}"
    from wan_ui import patches
    from wan_ui.engines import lightx2v_config
    from wan_ui.machine.hardware import measure

    try:
        from wan_ui.engines.lightx2v_upstream import import_lightx2v

        import_lightx2v(lightx2v_config.environment(settings(), measure()))
        for patch in patches.PATCHES:
            patches.resolve(patch)
    except UserError as error:
        return _first_line(error).removeprefix("engine: ")
    except Exception as error:  # upstream's modules run code of their own at import
        return f"LightX2V cannot be imported ({type(error).__name__}: {_first_line(error)})"
    return ""


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def remember(cache: OrderedDict, key, value, limit: int) -> None:
    """Add to a cache that keeps its `limit` newest entries."""
    cache[key] = value
    while len(cache) > limit:
        cache.popitem(last=False)
