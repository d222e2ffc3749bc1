"""The engine protocol, and the automatic choice between engines.

An engine is loaded once with a model and a scheme and then stays resident; `generate` is called
once per job. `auto` takes LightX2V where it is installed and a CUDA GPU is there, diffusers
otherwise, and says why.
"""

from collections.abc import Sequence
from typing import Protocol

from wan_ui.catalog import Model, Scheme
from wan_ui.request import Clip, LoraSpec, Report, Request


class Engine(Protocol):
    def load(self, model: Model, scheme: Scheme, report: Report) -> None:
        """Load weights; reports stage "load". Raises UserError naming a missing or damaged file."""

    def set_loras(self, loras: Sequence[LoraSpec]) -> None:
        """The full wanted set: [] removes all."""

    def generate(self, request: Request, report: Report) -> Clip:
        """Run one job; reports text, image, denoise (each step) and decode (each latent frame)."""

    def close(self) -> None:
        """Free the weights."""


def create_engine(name: str) -> tuple[Engine, str]:
    """Engine for `auto | diffusers`, and the reason for the choice. Raises UserError."""
    from wan_ui.errors import UserError

    if name in ("auto", "diffusers"):
        from wan_ui.engines.diffusers import DiffusersEngine

        reason = "asked for" if name == "diffusers" else "auto: diffusers is the engine that runs anywhere"
        return DiffusersEngine(), f"diffusers ({reason})"
    raise UserError(f"engine: {name!r} is not known; use auto or diffusers", field="engine")
