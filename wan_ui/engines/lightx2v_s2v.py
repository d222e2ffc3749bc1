"""LightX2V's transformer of S2V, called as the one of s2v_model.py is."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from wan_ui.engines.base import OnBlock
from wan_ui.engines.lightx2v_seams import put, put_back
from wan_ui.engines.lightx2v_stages import instead
from wan_ui.engines.lightx2v_upstream import device_name
from wan_ui.engines.s2v_model import FAR, MIDDLE, NEAR

Loaded = Any  # a LightX2VEngine


class Transformer:
    """Upstream's WanS2VModel. `given` is its "s2v" input."""

    def __init__(self, engine: Loaded):
        self.engine, (self.model,) = engine, engine.transformers

    def given(
        self,
        picture: torch.Tensor,
        motion: torch.Tensor | None,
        voice: torch.Tensor,
        seen: int,
        frames: int,
        pose: torch.Tensor | None = None,
    ) -> dict[str, Any]:
        """As S2VTransformer.given."""
        device, dtype = torch.device(device_name()), self.engine.dtype
        z, _, height, width = picture.shape
        before = picture.new_zeros(z, NEAR + MIDDLE + FAR, height, width) if motion is None else motion
        posed = picture.new_zeros(z, frames, height, width) if pose is None else pose
        return {
            "ref_latents": picture[None].to(device, dtype),
            "motion_latents": before[None].to(device, dtype),
            "cond_latents": posed[None].to(device, dtype),
            "audio_input": voice[None].to(device, dtype),
            "motion_frames": (seen, (seen + 3) // 4),
            "drop_motion_frames": motion is None,
            "add_last_motion": 2,
        }

    def __call__(
        self, latents: torch.Tensor, timestep: float, text: torch.Tensor, given: dict[str, Any]
    ) -> torch.Tensor:
        """As S2VTransformer.forward."""
        scheduler, dtype = self.engine.runner.scheduler, self.engine.dtype
        scheduler.at(latents, timestep / 1000, 0, None)
        inputs = {"text_encoder_output": {"context": text[None].to(device_name(), dtype)}, "s2v": given}
        # Upstream's blocks hand float32 to layers of the run's dtype: run_main has them under autocast, and so have we.
        with torch.no_grad(), torch.autocast(device_name(), dtype, enabled=dtype != torch.float32):
            velocity: torch.Tensor = self.model._infer_cond_uncond(inputs)
        return velocity.float()

    @contextmanager
    def shown(self, on_block: OnBlock | None) -> Iterator[None]:
        """As lightx2v_stages.shown; a block, without what is heard after it."""
        infer, own = self.model.transformer_infer, self.model.transformer_infer.infer_s2v_block
        if on_block is None:
            yield
            return

        def run(block: Any, x: torch.Tensor, inputs: Any) -> torch.Tensor:
            if infer.block_idx == 0:
                x = instead(x, _batched(on_block(-1, x[0])))
            x = own(block, x, inputs)
            return instead(x, _batched(on_block(infer.block_idx, x[0])))

        put(infer, "infer_s2v_block", run)
        try:
            yield
        finally:
            put_back(infer, "infer_s2v_block")

    def close(self) -> None:
        """Upstream keeps the layers that hear the voice for every later model."""
        from lightx2v.models.networks.wan.infer.s2v import causal_audio_encoder

        causal_audio_encoder._MODULE_CACHE.clear()


def _batched(tokens: torch.Tensor | None) -> torch.Tensor | None:
    return None if tokens is None else tokens[None]
