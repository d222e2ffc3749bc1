"""The engine that runs anywhere, and the reference: diffusers' Wan modules under an explicit loop.

text -> image -> denoise -> decode is written out here rather than called as WanImageToVideoPipeline:
the loop then reports before every step it enters, can be left at any of them (`report` raises
Cancelled) with nothing to clean up, keeps latents in float32, and caches what a second clip of the
same picture or prompt would compute again. On the same components and noise it equals the pipeline to
1e-5 in float32 (tests/engines/test_parity.py), for A14B and for TI2V-5B.

There is no classifier-free guidance: every model in the catalog is distilled to run without it.
"""

import hashlib
import itertools
from collections import OrderedDict
from collections.abc import Sequence

import torch

from wan_ui.catalog import Model, Scheme
from wan_ui.engines import dit, preview, schedule, text, vae
from wan_ui.engines.base import CACHED_IMAGES, CACHED_PROMPTS, EXPERT_NAMES, SIDES, remember
from wan_ui.engines.device import choose_device, choose_dtype, choose_residence, use_threads
from wan_ui.errors import UserError
from wan_ui.images import read_pixels
from wan_ui.request import Clip, LoraSpec, Progress, Report, Request
from wan_ui.settings import settings
from wan_ui.weights import locate


class DiffusersEngine:
    """See wan_ui.engines.base.Engine. One model and scheme at a time; not thread-safe."""

    def __init__(self) -> None:
        self.model: Model | None = None
        self.experts: list = []
        self.facts: dict[str, str] = {}
        self.prompts: OrderedDict[str, torch.Tensor] = OrderedDict()
        self.images: OrderedDict[tuple, torch.Tensor] = OrderedDict()

    def load(self, model: Model, scheme: Scheme, report: Report) -> None:
        """Load weights. Raises UserError naming a missing or damaged file, or the missing GPU."""
        self.close()
        if scheme.lora_high:
            raise UserError(
                f"scheme: {scheme.name} of {model.name} holds the base model and needs the distill LoRA, which the "
                "diffusers engine does not apply; use --engine lightx2v, or the scheme fp8",
                field="scheme",
            )
        device = choose_device(model)
        paths = locate(model, scheme, settings())
        use_threads(settings().threads)
        dtype = choose_dtype(device.value)
        residence = choose_residence(paths.experts, paths.t5, device.value)
        self.device, self.dtype = device.value, dtype.value
        sides = SIDES[model.family]
        steps = ["text encoder", "VAE", *(EXPERT_NAMES[side] for side in sides)]

        def entering(step: int) -> None:
            report(Progress("load", step, len(steps), steps[step - 1]))

        entering(1)
        configs = [dit.read_config(path) for path in paths.configs]
        self.text_length = configs[0][1]
        self.tokenizer = text.load_tokenizer(paths.tokenizer, self.text_length)
        self.encoder = text.load_text_encoder(paths.t5, dtype=residence.text_dtype, device=residence.text)
        entering(2)
        self.vae = vae.load_vae(paths.vae, dtype=self.dtype, device=self.device)
        self.colours = preview.fit_colours(self.vae)
        for step, (side, path, (config, _)) in enumerate(zip(sides, paths.experts, configs, strict=True), start=3):
            entering(step)
            self.experts.append(
                dit.load_expert(
                    path,
                    config,
                    side,
                    dtype=self.dtype,
                    device=residence.experts,
                    quantised=residence.quantised,
                )
            )
        self.offloaded = residence.experts != self.device
        self.facts = {
            "engine": "diffusers",
            "device": device.text,
            "dtype": dtype.text,
            "scheme": f"{scheme.name} ({'as stored' if scheme.kind == 'bf16' else residence.weights})",
            "attention": "torch SDPA (always there)",
            "offload": residence.offload,
            "threads": str(torch.get_num_threads()),
        }
        self.model = model

    def set_loras(self, loras: Sequence[LoraSpec]) -> None:
        if loras:
            raise UserError("LoRAs are not supported yet by the diffusers engine; remove them", field="loras")

    def close(self) -> None:
        """Free the weights."""
        self.model = None
        self.encoder = self.tokenizer = self.vae = None
        self.experts.clear()
        self.prompts.clear()
        self.images.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def generate(self, request: Request, report: Report) -> Clip:
        """Run one job. Raises UserError for a picture of the wrong size, Cancelled from `report`."""
        if self.model is None:
            raise RuntimeError("generate() before load()")
        report(Progress("text"))
        prompt = self._encode_prompt(request.prompt)
        condition = self._encode_image(request, report)
        latents = self._denoise(request, prompt, condition, report)
        frames = vae.decode(
            self.vae, latents, lambda k, n: report(Progress("decode", k, n, f"latent frame {k} of {n}"))
        )
        return Clip(
            frames=frames.numpy(),
            fps=float(self.model.fps),
            latents=latents[0].cpu().numpy(),
            facts=dict(self.facts),
        )

    def _encode_prompt(self, prompt: str) -> torch.Tensor:
        """(1, text_length, text_dim) in the DIT's dtype."""
        key = text.clean(prompt)
        if key not in self.prompts:
            embeddings = text.encode(self.tokenizer, self.encoder, prompt, self.text_length)
            remember(self.prompts, key, embeddings.to(self.device, self.dtype), CACHED_PROMPTS)
        self.prompts.move_to_end(key)
        return self.prompts[key]

    def _encode_image(self, request: Request, report: Report) -> torch.Tensor:
        """Normalised latents of the picture followed by zeros, (1, z, t, h, w) float32; t = 1 for the 5B model."""
        pixels = read_pixels(request)
        # The 5B model is conditioned on the first frame alone.
        frames = 1 if self.model.family == "5b" else request.frames
        key = (hashlib.sha256(pixels.tobytes()).digest(), pixels.shape, frames)
        if key not in self.images:
            image = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(self.device).float().div(127.5).sub(1)
            latents = vae.encode_image(
                self.vae, image, frames, lambda k, n: report(Progress("image", k, n, "encoding the picture"))
            )
            remember(self.images, key, latents, CACHED_IMAGES)
        else:
            report(Progress("image", detail="already encoded"))
        self.images.move_to_end(key)
        return self.images[key]

    def _denoise(self, request: Request, prompt: torch.Tensor, condition: torch.Tensor, report: Report) -> torch.Tensor:
        """Noise -> normalised latents (1, z, t, h, w) float32."""
        config = self.vae.config
        stride = config.scale_factor_spatial
        shape = (1, config.z_dim, 1 + (request.frames - 1) // 4, request.height // stride, request.width // stride)
        # Drawn on the CPU in float32, so that a seed means the same noise on every machine.
        generator = torch.Generator("cpu").manual_seed(request.seed)
        latents = torch.randn(shape, generator=generator).to(self.device)
        is_first = torch.zeros(1, 1, *shape[2:], device=self.device)
        is_first[:, :, 0] = 1

        sigmas = schedule.sigmas(request.steps, self.model.shift)
        look = ""
        for k, (sigma, next_sigma) in enumerate(itertools.pairwise(sigmas)):
            timestep = sigma * 1000
            index = schedule.expert_index(timestep, self.model.boundary)
            side = SIDES[self.model.family][index]
            report(Progress("denoise", k + 1, request.steps, EXPERT_NAMES[side], look))
            if self.model.family == "5b":
                # The picture's latent frame is given, not denoised: pasted in, with timestep 0 for its tokens.
                inputs = torch.where(is_first.bool(), condition, latents)
                times = (timestep * (1 - is_first[0, 0, :, ::2, ::2])).flatten()[None]
            else:
                # 4 mask channels (1 = given; one per pixel frame in the latent frame), then the condition.
                inputs = torch.cat([latents, is_first.expand(-1, 4, -1, -1, -1), condition], dim=1)
                times = torch.tensor([timestep], device=self.device)
            velocity = self._expert(index)(
                hidden_states=inputs.to(self.dtype),
                timestep=times,
                encoder_hidden_states=prompt,
                return_dict=False,
            )[0]
            # What the clip would be if the rest of the way were straight.
            look = preview.animate(schedule.euler_step(latents, velocity, sigma, 0.0), self.colours)
            latents = schedule.euler_step(latents, velocity, sigma, next_sigma)
        if self.model.family == "5b":
            latents = torch.where(is_first.bool(), condition, latents)
        return latents

    def _expert(self, index: int):
        """The expert on the compute device; with offload the other one moves to the host first."""
        if self.offloaded:
            for other, expert in enumerate(self.experts):
                if other != index:
                    expert.to("cpu")
            self.experts[index].to(self.device)
        return self.experts[index]
