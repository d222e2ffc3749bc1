"""The engine that runs anywhere, and the reference: diffusers' Wan modules under an explicit loop.

text -> image -> denoise -> decode is written out here rather than called as WanImageToVideoPipeline:
the loop then reports before every step it enters, can be left at any of them (`report` raises
Cancelled) with nothing to clean up, keeps latents in float32, and caches what a second clip of the
same picture or prompt would compute again. On the same components and noise it equals the pipeline to
1e-5 in float32 (tests/engines/test_parity.py), for A14B with a picture, with two and with none, and for TI2V-5B.

Classifier-free guidance runs both halves of a step in one pass of the transformer where there is room, else one after
the other; distilled steps have no second half.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from wan_ui.catalog import Model, Scheme
from wan_ui.engines import (
    animate,
    clip_vision,
    cpu_blocks,
    cpu_kernels,
    diffusers_parallel,
    dit,
    group,
    lora_modules,
    preview,
    s2v,
    s2v_voice,
    schedule,
    text,
    vae,
)
from wan_ui.engines.base import (
    Entering,
    OnBlock,
    Show,
    ignore,
)
from wan_ui.engines.block_hooks import hooked, sparing
from wan_ui.engines.device import (
    Choice,
    choose_device,
    choose_dtype,
    choose_passes,
    choose_residence,
    use_threads,
)
from wan_ui.engines.encoded import Encoded, image_key
from wan_ui.engines.lora import LoraSet
from wan_ui.engines.solvers import make_solver
from wan_ui.engines.step_cache import BOTH, StepCache, make_step_cache
from wan_ui.errors import UserError
from wan_ui.files.dit_file import read_dit, read_parameters
from wan_ui.files.places import Paths, locate
from wan_ui.files.tokenizer import load_tokenizer
from wan_ui.machine.memory import give_back, limit_gpu
from wan_ui.machine.offload import impossible
from wan_ui.media.images import read_pictures
from wan_ui.request import Clip, LoraMatch, LoraSpec, Progress, Report, Request, Tracks
from wan_ui.settings import settings


class DiffusersEngine:
    """See wan_ui.engines.base.Engine and Stages. One model and scheme at a time; not thread-safe.

    dtype  what to compute in instead of what suits the device best; float32 makes it the reference
    """

    def __init__(self, dtype: Choice | None = None) -> None:
        self.wanted_dtype = dtype
        self.model: Model | None = None
        self.experts: list[Any] = []
        self.tokenizer: Any = None  # transformers', its module and diffusers'
        self.encoder: Any = None
        self.vae: Any = None
        self.clip: Any = None  # of a family that a performance drives
        self.listener: s2v_voice.Listener | None = None
        self.loras: LoraSet | None = None
        self.facts: dict[str, str] = {}
        self.offload = "none"
        self.encoded: Encoded[torch.Tensor] = Encoded()

    def load(self, model: Model, scheme: Scheme, report: Report, offload: str = "auto") -> None:
        """Load weights. Raises UserError naming a missing or damaged file, or the missing GPU."""
        self.close()
        device, paths = self.decide(model, scheme, offload)
        limit_gpu(settings().gpu_gib)
        use_threads(settings().threads)
        dtype = self.wanted_dtype or choose_dtype(device.value)
        residence = choose_residence(paths.experts, paths.t5, device.value, offload)
        self.device, self.dtype = device.value, dtype.value
        sides = model.family.sides
        steps = ["text encoder", "VAE", *(expert.title for expert in model.family.experts)]
        steps += ["wav2vec2"] if paths.voice else []

        def entering(step: int) -> None:
            report(Progress("load", step, len(steps), steps[step - 1]))

        entering(1)
        self.text_length = dit.read_config(paths.configs[0])[1]
        self.tokenizer = load_tokenizer(paths.tokenizer, self.text_length)
        self.encoder = text.load_text_encoder(paths.t5, dtype=residence.text_dtype, device=residence.text)
        entering(2)
        self.vae = vae.load_vae(paths.vae, dtype=self.dtype, device=self.device)
        self.colours = vae.fit_colours(self.vae)
        if paths.clip is not None:
            self.clip = clip_vision.load_clip_vision(paths.clip, dtype=self.dtype, device=self.device)
        for step, (side, path, config) in enumerate(zip(sides, paths.experts, paths.configs, strict=True), start=3):
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
        if paths.voice:
            entering(len(steps))
            self.listener = s2v_voice.load_listener(paths.voice)
        self.offloaded, self.offload = residence.experts != self.device, residence.way
        in_float32 = self.device.type == "cpu" and self.dtype == torch.float32
        if in_float32 and model.family.performance is None and model.family.speech is None:
            for expert in self.experts:
                cpu_blocks.prepare(expert)
        together = group.here()
        for expert in self.experts:
            diffusers_parallel.prepare(expert, together)
        shapes = [read_parameters(path) for path in paths.configs]
        self.loras = LoraSet(
            [lora_modules.expert(*parts) for parts in zip(self.experts, sides, shapes, strict=True)],
            self.device,
            fixed={side: [path] for side, path in zip(sides, paths.loras, strict=False)},
        )
        self.loras.set([], settings())
        self.facts = {
            "engine": "diffusers",
            "device": device.text,
            "dtype": dtype.text,
            "scheme": f"{scheme.name} ({'as stored' if scheme.kind == 'bf16' else residence.weights})",
            "attention": "torch SDPA (always there)",
            "offload": residence.offload,
            "threads": str(torch.get_num_threads()),
            **({"parallel": f"{together.size} processes share tokens, heads and frames"} if together.size > 1 else {}),
            **({"cpu": cpu_kernels.words()} if in_float32 else {}),
        }
        self.model = model

    @property
    def loaded(self) -> Model:
        """The model that `load` has loaded."""
        if self.model is None:
            raise RuntimeError("used before load()")
        return self.model

    def check(self, model: Model, scheme: Scheme, offload: str = "auto") -> None:
        """Raise what `load` would raise before it reads weights; what is loaded stays as it is."""
        self.decide(model, scheme, offload)

    def decide(self, model: Model, scheme: Scheme, offload: str = "auto") -> tuple[Choice, Paths]:
        """All that can be decided without reading weights. Raises UserError for a missing GPU, files, headers, and an
        offload that this engine does not have."""
        if why := impossible(offload, model, scheme, "diffusers"):
            raise UserError(f"offload: {why}", field="offload")
        device, paths = choose_device(model), locate(model, scheme, settings())
        group.here().check(model, dit.read_config(paths.configs[0])[0]["num_attention_heads"])
        for side, path, config in zip(model.family.sides, paths.experts, paths.configs, strict=True):
            stored = read_dit(path, side, config)
            if choose_residence(paths.experts, paths.t5, device.value, offload).quantised:
                dit.check_kept(path, stored)
        return device, paths

    def set_loras(self, loras: Sequence[LoraSpec]) -> tuple[LoraMatch, ...]:
        if self.loras is None:
            raise RuntimeError("set_loras() before load()")
        return self.loras.set(loras, settings())

    def close(self) -> None:
        """Free the weights."""
        self.model = self.loras = self.listener = None
        self.encoder = self.tokenizer = self.vae = self.clip = None
        self.experts.clear()
        self.encoded.clear()
        give_back()

    @torch.inference_mode()
    def generate(self, request: Request, report: Report, show: Show | None = None) -> Clip:
        """Run one job. Raises UserError for a picture of the wrong size, Cancelled from `report`."""
        model = self.loaded
        made = request.sampling
        self.encoded.begin()
        prompts, condition = self._encode(request, report)
        latents, said = self._denoise(request, prompts, condition, report)
        facts = self.facts | (self.loras.facts() if self.loras is not None else {}) | said
        whole = latents.cpu().numpy()

        def clip(frames: torch.Tensor) -> Clip:
            return Clip(frames.numpy(), float(made.fps or model.fps), whole, facts, ready=self.encoded.ready)

        frames = vae.decode(
            self.vae,
            latents[None],
            lambda k, n: report(Progress("decode", k, n, f"latent frame {k} of {n}")),
            show=None if show is None else lambda part: show(clip(part)),
        )
        return clip(frames)

    def perform(self, request: Request, tracks: Tracks, report: Report) -> Iterator[Clip]:
        """See base.Performer."""
        return animate.perform(self, request, tracks, report)

    def speak(self, request: Request, report: Report) -> Iterator[Clip]:
        """See base.Speaker."""
        return s2v.Driven(self, request, report).clips()

    @torch.inference_mode()
    def prepare(self, request: Request, report: Report) -> None:
        """See wan_ui.engines.base.Engine."""
        with self.encoded.preparing():
            self._encode(request, report)

    # ------------------------------------------------------------ stages: see wan_ui.engines.base.Stages

    def plan(self, steps: int) -> list[tuple[float, int]]:
        """Of a distilled clip."""
        sigmas = schedule.sigmas(steps, self.loaded.shift)[:-1]
        return [(sigma, schedule.expert_index(1000 * sigma, self.loaded.boundary)) for sigma in sigmas]

    def encode_text(self, prompt: str) -> torch.Tensor:
        embeddings = text.encode(self.tokenizer, self.encoder, prompt, self.text_length)
        return embeddings[0].to(self.device, self.dtype)

    def encode_image(
        self,
        pixels: np.ndarray,
        frames: int,
        last: np.ndarray | None = None,
        entering: Entering = ignore,
        before: np.ndarray | None = None,
    ) -> torch.Tensor:
        if self.loaded.family.performance:
            return animate.encode_image(self, pixels, frames, before)
        if before is not None:  # of a family with `speech`
            return s2v.encode_before(self, before)
        image = vae.to_image(pixels).to(self.device)
        if self.loaded.family.condition in ("first frame", "reference"):  # conditioned on it alone
            return vae.encode_image(self.vae, image, 1, entering)[0]
        end = None if last is None else vae.to_image(last).to(self.device)
        return vae.with_mask(vae.encode_image(self.vae, image, frames, entering, end)[0], end is not None)

    def encode_voice(self, samples: np.ndarray, frames: int) -> torch.Tensor:
        """See base.Hearing."""
        assert self.listener is not None, "loaded with the model"
        return self.listener.hear(samples, frames, self.loaded.fps, self.device)

    def encode_performance(self, stage: str, pixels: np.ndarray, tracks: Tracks) -> torch.Tensor:
        """See base.Performing."""
        return animate.encode_performance(self, stage, pixels, tracks)

    @torch.inference_mode()
    def predict(
        self,
        latents: torch.Tensor,
        sigma: float,
        expert: int,
        prompt: torch.Tensor,
        condition: torch.Tensor,
        on_block: OnBlock | None = None,
        voice: torch.Tensor | None = None,
        performance: dict[str, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        model = self.expert(expert)
        with hooked(model.blocks, on_block) if on_block else contextlib.nullcontext():
            if self.loaded.family.speech:
                return s2v.predict(self, model, latents, 1000 * sigma, prompt, condition, voice)
            if performance:
                return animate.predict(self, latents, 1000 * sigma, prompt, condition, performance)
            return self._pass(model, latents, 1000 * sigma, prompt[None], condition)[0]

    def _pass(
        self, model: Any, latents: torch.Tensor, timestep: float, prompts: torch.Tensor, condition: torch.Tensor
    ) -> torch.Tensor:
        """Velocities (n, z, t, h, w) with each of n prompts."""
        latents, condition = latents.to(self.device), condition.to(self.device)
        if self.loaded.family.condition == "first frame":
            # The picture's latent frame is given, not denoised: pasted in, with timestep 0 for its tokens.
            inputs, given = pasted(latents, condition)
            times = (timestep * (1 - given[0, :, ::2, ::2])).flatten()[None]
        else:
            inputs = torch.cat([latents, condition])
            times = torch.tensor([timestep], device=self.device)
        count = len(prompts)
        shared = diffusers_parallel.shared(model, group.here())
        with cpu_blocks.shortened(model, prompts.to(self.device, self.dtype)) as rows, shared:
            return model(
                hidden_states=inputs[None].to(self.dtype).expand(count, *inputs.shape),
                timestep=times.expand(count, *times.shape[1:]),
                encoder_hidden_states=rows,
                return_dict=False,
            )[0]

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        pixels = [chunk.float().cpu() for chunk in vae.decode_pixels(self.vae, latents[None], ignore)]
        return torch.cat(pixels, dim=2)[0].permute(1, 2, 3, 0).clamp(-1, 1)

    # ------------------------------------------------------------ with caches and progress

    def _encode(self, request: Request, report: Report) -> tuple[list[torch.Tensor], torch.Tensor]:
        """The prompt, with guidance then the negative one, and what the transformer is told of the pictures."""
        report(Progress("text"))
        made = request.sampling
        prompts = [self.encode_prompt(text) for text in ((made.text, made.negative) if made.guided else (made.text,))]
        return prompts, self._encode_pictures(request, report)

    def encode_prompt(self, prompt: str) -> torch.Tensor:
        """(text_length, text_dim) in the DIT's dtype."""
        return self.encoded.prompt(prompt, lambda: self.encode_text(prompt))

    def _encode_pictures(self, request: Request, report: Report) -> torch.Tensor:
        """What `encode_image` gives for the job's pictures; of a job without, an empty condition."""
        family = self.loaded.family
        pictures = read_pictures(request)
        if not pictures:
            shape = family.condition_shape(request.width, request.height, request.frames, pictures=0)
            return torch.zeros(shape, device=self.device)
        frames = family.condition_frames(request.frames)
        key = image_key(pictures, frames)
        if key in self.encoded.images:
            report(Progress("image", detail="already encoded"))
        words = "encoding the picture" if len(pictures) == 1 else "encoding the pictures"
        first, last = pictures[0], pictures[1] if len(pictures) > 1 else None
        return self.encoded.image(
            key, lambda: self.encode_image(first, frames, last, lambda k, n: report(Progress("image", k, n, words)))
        )

    def _denoise(
        self, request: Request, prompts: list[torch.Tensor], condition: torch.Tensor, report: Report
    ) -> tuple[torch.Tensor, dict[str, str]]:
        """Noise -> normalised latents (z, t, h, w) float32, and how. prompts: the prompt, then the negative one."""
        model, made = self.loaded, request.sampling
        latents = schedule.noise(made.seed, model.family.vae.latents(request.width, request.height, request.frames))
        latents = latents.to(self.device)
        steps = schedule.steps_of(made, model)
        solver = make_solver(made.solver or "euler", [step.sigma for step in steps] + [0.0], made.seed)
        task = "i2v" if condition.shape[0] else "t2v"
        cache, cache_words = make_step_cache(made.cache, model.recipes.get(made.motion), steps, task)
        passes = choose_passes(model.family, self.experts[0].config, request, self.dtype)
        room_everywhere = group.here().least(int(passes.value == "one"))
        if passes.value == "one" and not room_everywhere:
            passes = Choice("two", "auto: there is no room for one on every GPU")
        look, has_lora = "", self.loras is not None and self.loras.has_fixed
        try:
            for k, step in enumerate(steps):
                words = model.family.experts[step.expert].title
                if self.loras is not None and self.loras.attach_fixed(step.distilled, settings()):
                    words += "" if step.distilled else " without the distill LoRA"
                progress = Progress("denoise", k + 1, len(steps), words, look)
                report(progress)
                velocity = self._velocity(k, step, latents, prompts, condition, cache, passes.value, report, progress)
                # What the clip would be if the rest of the way were straight.
                look = preview.animate(schedule.euler_step(latents, velocity, step.sigma, 0.0)[None], self.colours)
                latents = solver.step(latents, velocity)
        finally:
            if self.loras is not None:
                self.loras.attach_fixed(True, settings())
        if model.family.condition == "first frame":
            latents, _ = pasted(latents, condition)
        return latents, schedule.facts(made, steps, passes.text, cache.words if cache else cache_words, has_lora)

    def _velocity(
        self,
        k: int,
        step: schedule.Step,
        latents: torch.Tensor,
        prompts: list[torch.Tensor],
        condition: torch.Tensor,
        cache: StepCache | None,
        passes: str,
        report: Report,
        progress: Progress,
    ) -> torch.Tensor:
        """Of one step, with its guidance."""
        model = self.expert(step.expert)
        if cache is not None:
            cache.enter(k)

        def run(half: int, *texts: torch.Tensor) -> torch.Tensor:
            with sparing(model, cache, half) if cache is not None else contextlib.nullcontext():
                return self._pass(model, latents, step.timestep, torch.stack(texts), condition).float()

        if step.guidance <= 1:
            return run(0, prompts[0])[0]
        if passes == "one":
            towards, away = run(BOTH, *prompts)
        else:
            (towards,) = run(0, prompts[0])
            report(replace(progress, detail=f"{progress.detail}, negative prompt"))
            (away,) = run(1, prompts[1])
        return away + step.guidance * (towards - away)

    def at_work(self) -> contextlib.AbstractContextManager[None]:
        """See base.Driver: a single expert stays where it is."""
        return contextlib.nullcontext()

    def expert(self, index: int):
        """The expert on the compute device; with offload the other one moves to the host first."""
        if self.offloaded:
            for other, expert in enumerate(self.experts):
                if other != index:
                    expert.to("cpu")
            self.experts[index].to(self.device)
        return self.experts[index]


def pasted(latents: torch.Tensor, condition: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents (z, t, h, w) with the given frames, those of `condition`, in front; (1, t, h, w): 1 where they are."""
    count = condition.shape[1]
    given = torch.zeros(1, *latents.shape[1:], device=latents.device)
    given[:, :count] = 1
    return torch.cat([condition.to(latents), latents[:, count:]], dim=1), given
