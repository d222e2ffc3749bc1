"""The engine protocol: what an engine does, and its stages one by one.

An engine is loaded once with a model and a scheme and then stays resident; `generate` is called once per job.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from wan_ui.catalog import Model, Scheme
from wan_ui.request import Clip, LoraMatch, LoraSpec, Report, Request, Tracks

if TYPE_CHECKING:
    import numpy as np
    import torch

READY = "prepared while the form was filled in"
Show = Callable[[Clip], None]
OnBlock = Callable[[int, "torch.Tensor"], "torch.Tensor | None"]
Entering = Callable[[int, int], None]


def ignore(step: int, total: int) -> None:
    """The `entering` of a caller who does not want to know."""


class Engine(Protocol):
    def load(self, model: Model, scheme: Scheme, report: Report, offload: str = "auto") -> None:
        """Load weights; reports stage "load". Raises UserError naming a missing or damaged file.

        offload  of wan_ui.machine.offload: where the weights are to be on a machine with a GPU
        """

    def check(self, model: Model, scheme: Scheme, offload: str = "auto") -> None:
        """Raise the UserError that `load` would raise before it reads weights: files, headers, kernels, configuration.

        Nothing is loaded or freed: called while another engine's model is still in use.
        """

    def set_loras(self, loras: Sequence[LoraSpec]) -> tuple[LoraMatch, ...]:
        """The full wanted set: [] removes all. What was matched, one entry per spec.

        Raises UserError naming the file; the model is then without LoRAs.
        """

    def generate(self, request: Request, report: Report, show: "Show | None" = None) -> Clip:
        """Run one job; reports text, image, denoise (each step) and decode (each latent frame).

        show  called with the clip's frames as they are finished, in order, each part a Clip of its own; an engine
              need not call it
        """

    def prepare(self, request: Request, report: Report) -> None:
        """Encode the text and the pictures of a job that may come, before every piece of which `report` is called.

        They are kept as those of jobs are, and the clip is the same bit for bit; Clip.ready says what of it was ready.
        Raises UserError as `generate`.
        """

    def close(self) -> None:
        """Free the weights."""


class Performer(Protocol):
    def perform(self, request: Request, tracks: Tracks, report: Report) -> Iterator[Clip]:
        """Run one job that a performance drives, of a family that has `performance`: its clip, segment by segment.

        Reports text, then image, denoise and decode of each. Raises as `Engine.generate`.
        """
        ...


class Speaker(Protocol):
    def speak(self, request: Request, report: Report) -> Iterator[Clip]:
        """Run one job that a voice drives, of a family that has `speech`: its clip, segment by segment, without what is
        beyond the voice's end.

        Reports text and audio, then image, denoise and decode of each. Raises as `Engine.generate`.
        """
        ...


class Driver(Protocol):
    """What of an engine makes a clip that is driven: see s2v.py and animate.py.

    vae       an AutoencoderKLWan; colours: the map of its previews
    listener  an s2v_voice.Listener, of a family with `speech`; clip: what looks at the picture, with `performance`
    """

    loaded: Model
    facts: dict[str, str]
    device: "torch.device"
    dtype: "torch.dtype"
    vae: Any
    colours: "torch.Tensor"
    loras: Any
    listener: Any
    clip: Any

    def encode_prompt(self, prompt: str) -> "torch.Tensor":
        """(text length, text width), kept for the next clip."""

    def encode_image(self, pixels: "np.ndarray", frames: int) -> "torch.Tensor":
        """As Stages.encode_image."""

    def expert(self, index: int) -> Any:
        """An s2v_model.S2VTransformer, an animate_dit.AnimateTransformer, or what is called alike."""

    def at_work(self) -> AbstractContextManager[None]:
        """Within, the expert may be called; outside, it need not be on the device."""


class Hearing(Protocol):
    """One more stage, of a family with `speech`."""

    def encode_voice(self, samples: "np.ndarray", frames: int) -> "torch.Tensor":
        """(n,) float32 at 16 kHz -> what each layer hears at each frame of a clip, float: (layers, width, frames)."""


class Performing(Protocol):
    """Three more stages, of a family with `performance`."""

    def encode_performance(self, stage: str, pixels: "np.ndarray", tracks: Tracks) -> "torch.Tensor":
        """What a step is told beside the condition, by its stage, float.

        seen  of the picture (H, W, 3) uint8, by CLIP: (tokens, width)
        pose  of the skeleton: latents (z, t, h, w)
        face  of the face: (1 + t, tokens, width)
        """


class Stages(Protocol):
    """What `generate` runs, piece by piece: both engines have it, and wan_ui.qa.stages holds each against a reference.

    Tensors have no batch dimension and may be on any device. z, t, h, w are the latents' channels, frames,
    height and width.
    """

    def plan(self, steps: int) -> list[tuple[float, int]]:
        """(sigma, expert's index) of every denoise step."""

    def encode_text(self, prompt: str) -> "torch.Tensor":
        """(text length, text width) in the DIT's dtype; zero beyond the prompt's tokens."""

    def encode_image(self, pixels: "np.ndarray", frames: int, last: "np.ndarray | None" = None) -> "torch.Tensor":
        """(H, W, 3) uint8 -> the condition, float: (4 + z, t, h, w), mask first (1 = given); 5B: (z, 1, h, w).

        last  the picture that the clip ends at, of the same size
        Of a family with `performance` (4 + z, 1 + t, h, w), and `before` may be given: frames (n, H, W, 3) uint8 of the
        segment before that this one begins with. So of one with `speech`, where their latents come back.
        """

    def predict(
        self,
        latents: "torch.Tensor",
        sigma: float,
        expert: int,
        prompt: "torch.Tensor",
        condition: "torch.Tensor",
        on_block: OnBlock | None = None,
        voice: "torch.Tensor | None" = None,
    ) -> "torch.Tensor":
        """The velocity (z, t, h, w) of one expert at `sigma`.

        voice     what is heard during the clip, see Hearing; of a family with `speech` alone, None: nothing
        Of a family with `performance` latents and velocity are (z, 1 + t, h, w), and `performance` is given: what
        Performing gives, by its stages.
        on_block  called with (-1, tokens) before the first block and with (k, tokens) after block k, tokens
                  (number, width); what it returns, if anything, takes their place
        """

    def decode(self, latents: "torch.Tensor") -> "torch.Tensor":
        """Normalised latents (z, t, h, w) -> frames (T, H, W, 3) float32 in -1 .. 1 on the CPU."""
