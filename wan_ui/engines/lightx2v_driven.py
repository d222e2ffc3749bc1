"""Clips of the LightX2V engine that are driven: the loops of s2v.py and animate.py over upstream's blocks.

Upstream's own loops (run_main, run_segment) hold the frames of the whole clip, say nothing between its steps and draw
noise on the GPU. Of its runners the transformer is taken, with the kernels, weights and LoRAs of every other model, and
the text encoder; pictures, voices, faces and frames are encoded and decoded as in the other engine.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from wan_ui.catalog import Model
from wan_ui.engines.base import OnBlock
from wan_ui.engines.lightx2v_upstream import device_name
from wan_ui.errors import UserError
from wan_ui.files.places import Paths
from wan_ui.request import Clip, Report, Request, Tracks

Loaded = Any  # a LightX2VEngine, whose module imports this one


class Driven:
    """See base.Driver. transformer: what `expert` gives"""

    def __init__(self, engine: Loaded, transformer: Any, listener: Any = None, clip: Any = None):
        from wan_ui.engines import vae  # imports diffusers, which the engine else does not

        self.engine, self.transformer, self.listener, self.clip, self.walk = engine, transformer, listener, clip, vae
        self.device, self.dtype = torch.device(device_name()), engine.dtype
        self.vae, self.colours = engine.vae.vae, engine.colours

    @property
    def loaded(self) -> Model:
        model: Model = self.engine.loaded
        return model

    @property
    def facts(self) -> dict[str, str]:
        facts: dict[str, str] = self.engine.facts
        return facts

    @property
    def loras(self) -> Any:
        return self.engine.loras

    def encode_prompt(self, prompt: str) -> torch.Tensor:
        context: torch.Tensor = self.engine.encode_prompt(prompt)
        return context.reshape(-1, context.shape[-1])

    def encode_image(self, pixels: np.ndarray, frames: int, before: np.ndarray | None = None) -> torch.Tensor:
        """See base.Stages."""
        from wan_ui.engines import animate, s2v

        if self.loaded.family.performance:
            return animate.encode_image(self, pixels, frames, before)
        if before is not None:
            return s2v.encode_before(self, before)
        image = self.walk.to_image(pixels).to(self.device)
        return self.walk.encode_image(self.vae, image, 1, lambda k, n: None)[0]

    def encode_voice(self, samples: np.ndarray, frames: int) -> torch.Tensor:
        heard: torch.Tensor = self.listener.hear(samples, frames, self.loaded.fps, self.device)
        return heard

    def encode_performance(self, stage: str, pixels: np.ndarray, tracks: Tracks) -> torch.Tensor:
        """See base.Performing."""
        from wan_ui.engines import animate

        return animate.encode_performance(self, stage, pixels, tracks)

    def expert(self, index: int) -> Any:
        return self.transformer

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """The transformer is moved where it waits in host memory: encoder and decoder want its place."""
        moved = self.engine.offload == "model"
        for model in self.engine.transformers if moved else ():
            model.to_cuda()  # upstream's name for "to the compute device"
        try:
            yield
        finally:
            self.engine.runner.scheduler.clear()
            for model in self.engine.transformers if moved else ():
                model.to_cpu()

    def predict(
        self,
        latents: torch.Tensor,
        timestep: float,
        prompt: torch.Tensor,
        picture: torch.Tensor,
        on_block: OnBlock | None,
        voice: torch.Tensor | None,
        performance: dict[str, torch.Tensor] | None,
    ) -> torch.Tensor:
        """One step by itself: see base.Stages."""
        from wan_ui.engines import animate, s2v

        with self.at_work(), self.transformer.shown(on_block):
            if performance is not None:
                return animate.predict(self, latents, timestep, prompt, picture, performance)
            return s2v.predict(self, self.transformer, latents, timestep, prompt, picture, voice)

    def speak(self, request: Request, report: Report) -> Iterator[Clip]:
        """See base.Speaker."""
        from wan_ui.engines import s2v

        return self._watched(request, s2v.Driven(self, request, report).clips())

    def perform(self, request: Request, tracks: Tracks, report: Report) -> Iterator[Clip]:
        """See base.Performer."""
        from wan_ui.engines import animate

        return self._watched(request, animate.perform(self, request, tracks, report))

    def _watched(self, request: Request, clips: Iterator[Clip]) -> Iterator[Clip]:
        """The clips; nothing of a job that fails survives it."""
        self.engine.encoded.begin()
        failure = None
        try:
            yield from clips
        except torch.OutOfMemoryError as error:
            failure = str(error).splitlines()[0]
        except BaseException:
            self.engine.recover()
            raise
        if failure is not None:
            self.engine.recover()
            raise UserError(
                f"The GPU ran out of memory at {request.width}x{request.height} ({failure}).",
                field="size",
                memory="GPU",
            )

    def close(self) -> None:
        """Free what upstream keeps beyond the model."""
        self.transformer.close()


def load_driven(engine: Loaded, paths: Paths) -> Driven:
    """What drives the clips of the loaded model. Raises UserError."""
    if paths.voice is None:
        from wan_ui.engines import clip_vision, lightx2v_animate

        assert paths.clip is not None
        clip = clip_vision.load_clip_vision(paths.clip, dtype=engine.dtype, device=torch.device(device_name()))
        return Driven(engine, lightx2v_animate.Transformer(engine, paths), clip=clip)
    from wan_ui.engines import lightx2v_s2v, s2v_voice

    return Driven(engine, lightx2v_s2v.Transformer(engine), listener=s2v_voice.load_listener(paths.voice))
