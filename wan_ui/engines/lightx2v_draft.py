"""Drafts on LightX2V: what is quicker and not exact, put on for one clip and taken off after it.

Attention runs in e4m3 (e4m3_attention.py) in all blocks but the first and the last, whose errors every other block
would carry on. And a small decoder, where its file is (catalog: draft_decoders), takes the place of the VAE's:
LightTAE and TAE by upstream's class, LightVAE, which is a narrower VAE, by our own walk. The picture is encoded as
always: its latents are what the clip holds on to.

A draft is asked for clip by clip: nothing is loaded anew for it, but the small decoder at the first.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from wan_ui.engines.lightx2v_seams import put, put_back
from wan_ui.engines.lightx2v_vae import OwnVae, ShowFrames
from wan_ui.errors import UserError
from wan_ui.families import Family
from wan_ui.request import Progress, Report


class Draft:
    """What a loaded model has for drafts.

    attention  whether blocks may take e4m3, and why or why not
    path       the small decoder's file, if there is one
    """

    def __init__(self, transformers: list, vae: Any, family: Family, attention: tuple[bool, str], path: Path | None):
        self.transformers, self.vae, self.family, self.path = transformers, vae, family, path
        self.quick, self.why = attention
        self.decoder: Any = None

    @contextmanager
    def attention(self) -> Iterator[None]:
        """Within, self-attention is in e4m3 where that is allowed."""
        kernels = [
            block.compute_phases[0].self_attn_1
            for transformer in (self.transformers if self.quick else ())
            for block in transformer.transformer_weights.blocks[1:-1]
        ]
        for kernel in kernels:
            put(kernel, "apply", _attend)
        try:
            yield
        finally:
            for kernel in kernels:
                put_back(kernel, "apply")

    def decode(self, latents: torch.Tensor, report: Report, show: ShowFrames | None = None) -> torch.Tensor:
        """As lightx2v_vae.Vae.decode, by the small decoder; by the VAE's own where there is none."""
        if not isinstance(self.vae, OwnVae) or self.path is None:
            return self.vae.decode(latents, report, show)
        if self.decoder is None:
            self.decoder = self._load(self.path, self.vae)
        return self.decoder.decode(latents, report, show)

    def _load(self, path: Path, vae: OwnVae) -> Any:
        if "lightvae" in path.name:
            return OwnVae(path, self.family, str(vae.vae.device), vae.dtype, vae.fused is not None)
        return Tae(path, vae)

    def facts(self) -> dict[str, str]:
        """One line for the clip: what was used, or that nothing was and why."""
        small = isinstance(self.vae, OwnVae) and self.path is not None
        attention = f"attention in e4m3 but for the first and last block ({self.why})"
        decoder = (
            f"decoded by {self.path.name}" if small and self.path else "decoded as usual (no small decoder is here)"
        )
        if self.path is not None and not small:
            decoder = "decoded as usual (the VAE is upstream's)"
        if not self.quick:
            attention = f"attention as usual ({self.why})"
        if not self.quick and not small:
            return {"draft": f"asked for, but nothing quicker is here: {attention}, {decoder}; made in full"}
        return {"draft": f"{attention}, {decoder}"}


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **_: Any) -> torch.Tensor:
    """As an attention class of LightX2V: (tokens, heads, head) -> (tokens, heads * head)."""
    from wan_ui.engines.e4m3_attention import attention

    return attention(q, k, v).flatten(1)


class Tae:
    """A tiny decoder of upstream's, for latents of the VAE that it stands in for. Raises UserError for a bad file.

    LightTAE was trained on latents as the VAE has them, TAE on normalised ones; upstream tells them by their names.
    """

    def __init__(self, path: Path, vae: OwnVae):
        from lightx2v.models.video_encoders.hf.tae import TAEHV

        kind = "wan22" if vae.vae.config["is_residual"] else "wan21"
        try:
            self.network = TAEHV(str(path), model_type=kind)
        except Exception as error:  # torch and safetensors raise many kinds for files that are damaged or others'
            words = " ".join(str(error).split())[:200]
            raise UserError(f"{path}: no small decoder of this model ({type(error).__name__}: {words})") from error
        self.network.to(vae.vae.device, vae.dtype).eval().requires_grad_(False)
        self.mean, self.deviation = vae.walk.latent_statistics(vae.vae)
        self.scaled, self.dtype = "lighttae" in path.name, vae.dtype

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor, report: Report, show: ShowFrames | None = None) -> torch.Tensor:
        """(z, t, h, w) -> (T, H, W, 3) uint8 on the CPU."""
        report(Progress("decode", 1, 1, "all frames, by a small decoder"))
        x = latents[None].float().to(self.mean.device)
        if self.scaled:
            x = x * self.deviation + self.mean
        frames = self.network.decode_video(x.transpose(1, 2).to(self.dtype), parallel=False, show_progress_bar=False)
        levels = frames[0].float().mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu()
        if show is not None:
            show(levels)
        return levels
