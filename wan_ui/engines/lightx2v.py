"""The production engine: LightX2V, patched, behind the same protocol as the diffusers engine.

Upstream is driven through its own entry points (set_config, init_runner, run_pipeline). Three seams that
it offers are taken: the input encoder of a runner is an attribute, so text and image run in our order,
with stage marks and caches keyed on content; the scheduler can be set, so noise comes from the CPU, the
sigmas are those of wan_ui.engines.schedule, and latents stay float32 between steps; the decoder is one too, so the
VAE is ours (lightx2v_vae.py).

Cancelling: `report` raises Cancelled before a step or a latent frame is entered; `end_run` then clears the
runner, as after any failure. Nothing of a failed job survives it.
"""

import gc
import logging
import traceback
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from wan_ui import patches
from wan_ui.catalog import Model, Scheme
from wan_ui.engines import (
    group,
    lightx2v_build,
    lightx2v_config,
    lightx2v_gguf,
    lightx2v_lora,
    lightx2v_parallel,
    lightx2v_stages,
    lightx2v_steps,
    schedule,
)
from wan_ui.engines.base import OnBlock, Show
from wan_ui.engines.encoded import Encoded, image_key
from wan_ui.engines.lightx2v_compile import CompiledBlocks
from wan_ui.engines.lightx2v_decide import decide, try_kernels
from wan_ui.engines.lightx2v_draft import Draft
from wan_ui.engines.lightx2v_driven import Driven, load_driven
from wan_ui.engines.lightx2v_scheduler import flow_scheduler
from wan_ui.engines.lightx2v_seams import put
from wan_ui.engines.lightx2v_upstream import compute_dtype, device_name, input_info, start_runner
from wan_ui.engines.lightx2v_vae import OwnVae, UpstreamVae
from wan_ui.engines.lora import LoraSet
from wan_ui.engines.step_cache import StepCache, make_step_cache
from wan_ui.errors import UserError
from wan_ui.files.dit_file import read_parameters
from wan_ui.files.places import Paths
from wan_ui.machine import memory
from wan_ui.machine.memory import let_memory_grow, limit_gpu
from wan_ui.media.images import read_pictures
from wan_ui.request import Clip, LoraMatch, LoraSpec, Progress, Report, Request, Tracks
from wan_ui.settings import settings, split_names

log = logging.getLogger(__name__)

ONE_BY_ONE = "two (LightX2V takes one prompt at a time)"


class LightX2VEngine:
    """See wan_ui.engines.base.Engine. One model and scheme at a time; not thread-safe."""

    def __init__(self) -> None:
        self.runner: Any = None  # upstream's; it has no types
        self.model: Model | None = None
        self.loras: LoraSet | None = None
        self.transformers: list[Any] = []
        self.report: Report = lambda progress: None
        self.compiled: CompiledBlocks | None = None
        self.vae: Any = None  # a lightx2v_vae.Vae once loaded
        self.draft: Any = None  # a Draft once loaded
        self.graphs: list[Any] = []  # GraphedBlocks
        self.driven: Driven | None = None  # of a model whose clips a voice or a performance drives
        self.entered: Progress | None = None  # the denoise step that runs
        self.steps: list[schedule.Step] = []  # of the clip that is made, its step cache, and why it has none
        self.cache: StepCache | None = None
        self.no_cache = ""
        self.merged = False  # the model's distill LoRA is part of the weights
        self.latents: Any = None  # of the clip that is made, and its frames
        self.pictures: Any = None
        self.encoded: Encoded[torch.Tensor] = Encoded()

    # ------------------------------------------------------------ load

    def load(self, model: Model, scheme: Scheme, report: Report, offload: str = "auto", *, merge: bool = True) -> None:
        """Load and patch. Raises UserError naming a file, a missing kernel, the seam or the patch that failed.

        merge  the model's distill LoRA goes into dequantised weights; else it stays beside them, to be left out
        """
        self.close()
        report(Progress("load", 1, 4, "checking files"))
        config = settings()
        let_memory_grow()
        limit_gpu(config.gpu_gib)
        together = group.here()
        if together.first:  # the others read what it finds
            try_kernels(model, scheme, report)
        together.meet()
        paths, hardware, choices = decide(model, scheme, offload)
        report(Progress("load", 2, 4, "patching LightX2V"))
        off = frozenset(split_names(config.lightx2v_patches_off))
        outcomes = patches.apply_all("before_init", choices.facts, scheme, off=off)
        report(Progress("load", 3, 4, "reading weights"))
        root = model.family.root(paths.configs[0])
        try:
            self.runner = start_runner(
                model.family, root, choices.values, lambda config: lightx2v_parallel.prepare(config, together)
            )
            put(self.runner, "scheduler", flow_scheduler(self.runner.config, model))
            self.runner.model.set_scheduler(self.runner.scheduler)
            outcomes += patches.apply_all("after_init", choices.facts, scheme, self.runner, off)
            self.model, self.offload, self.dtype = model, choices.facts.offload, compute_dtype()
            self._hook(paths, choices)
            self._prepare_loras(model, paths)
            own_loras = {}
            if choices.products in ("bf16", "e4m3"):
                own_loras = lightx2v_build.dequantise(self, choices.products == "e4m3", merge)
            quick = {}
            if choices.dequantise:
                quick["dequantised"] = lightx2v_gguf.quicken(self.transformers, self.dtype, device_name())
            self.scheme, self.merged = scheme, bool(own_loras)
            if model.family.driven:
                self.driven = load_driven(self, paths)
            if choices.fused_blocks:
                self.graphs = lightx2v_build.fuse(self, choices.graphs)
                if self.graphs:
                    lightx2v_build.compare_graphs(self, *model.sizes[0], model.default_frames)
            self.compiled = lightx2v_build.compile_blocks(self, report) if choices.compile else None
        except BaseException:
            self.close()
            raise
        release()  # what reading needed beside the weights; on the GPU torch would keep up to a third more
        self.patches = outcomes
        applied = [outcome.name for outcome in outcomes if outcome.state == "applied"]
        left_out = [outcome.name for outcome in outcomes if outcome.state == "off"]
        self.facts = {
            "engine": "lightx2v",
            "device": hardware.name or hardware.device,
            "scheme": scheme.name,
            **choices.reasons,
            **own_loras,
            **quick,
            "patches": ", ".join(applied) or "none",
            **({"patches switched off": ", ".join(left_out)} if left_out else {}),
        }
        for outcome in outcomes:
            log.info("patch %s: %s (%s) %s", outcome.name, outcome.state, outcome.why, outcome.figures)

    @property
    def loaded(self) -> Model:
        """The model that `load` has loaded."""
        if self.model is None:
            raise RuntimeError("used before load()")
        return self.model

    def check(self, model: Model, scheme: Scheme, offload: str = "auto") -> None:
        """Raise what `load` would raise before it reads weights; what is loaded stays as it is."""
        decide(model, scheme, offload)

    def announce(self, tokens: int) -> None:
        log.info("compiling the transformer for %d tokens", tokens)
        if self.entered is not None:
            self.report(replace(self.entered, detail=f"{self.entered.detail}, compiling for this size, once"))

    def _hook(self, paths: Paths, choices: lightx2v_config.Choices) -> None:
        """Put our stages and marks into the runner's seams."""
        runner, family = self.runner, self.loaded.family
        self.transformers = [runner.model] if family.single else runner.model.model
        lightx2v_parallel.install(runner, self.transformers, group.here())
        if choices.own_vae or family.driven:
            put(runner, "vae_encoder", None)
            put(runner, "vae_decoder", None)
            release()  # upstream's stands in the way of ours where memory is short
            self.vae = OwnVae(paths.vae, family, device_name(), self.dtype, choices.fused_decoder, choices.slim)
        else:
            self.vae = UpstreamVae(runner, family, device_name(), self.dtype)
        put(runner, "run_input_encoder", self._encode_inputs)
        put(runner, "run_vae_decoder", self._decode)
        self.colours = self.vae.colours()
        self.draft = Draft(self.transformers, self.vae, family, choices.draft_attention, paths.draft_decoder)
        put(runner.scheduler, "entering", lambda index: lightx2v_steps.entering(self, index))

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        """In place of the runner's run_vae_decoder."""
        self.latents = latents.detach().float().cpu()
        if self.offload == "model" and not self.loaded.family.single:
            # The next clip begins with the other expert: this one need not stand in the decoder's way, or in that of
            # the next prompt.
            for expert in self.transformers:
                expert.to_cpu()
            put(self.runner.model, "cur_model_index", -1)
            memory.give_back()
        self.report(Progress("decode", 0, latents.shape[1], "starting"))
        decoder = self.draft if self.request.sampling.draft else self.vae
        self.pictures = decoder.decode(latents, self.report, None if self.show is None else self._show)
        return self.pictures

    def _show(self, frames: torch.Tensor) -> None:
        assert self.show is not None
        self.show(self._clip(frames))

    def _clip(self, frames: torch.Tensor) -> Clip:
        """The clip that is being made, with these of its frames."""
        made, facts = self.request.sampling, self.facts | (self.loras.facts() if self.loras is not None else {})
        cache, has_lora = (
            self.cache.words if self.cache else self.no_cache,
            self.loras is not None and self.loras.has_fixed,
        )
        facts |= schedule.facts(made, self.steps, ONE_BY_ONE, cache, has_lora)
        if made.draft:
            facts |= self.draft.facts()
        if self.compiled is not None and self.compiled.reason:
            facts["compile"] = f"off (failed: {self.compiled.reason})"
        if reason := next((graph.reason for graph in self.graphs if graph.reason), ""):
            facts["graphs"] = f"off ({reason})"
        fps = float(made.fps or self.loaded.fps)
        return Clip(frames=frames.numpy(), fps=fps, latents=self.latents.numpy(), facts=facts, ready=self.encoded.ready)

    def _prepare_loras(self, model: Model, paths: Paths) -> None:
        sides = model.family.sides
        shapes = [read_parameters(path) for path in paths.configs]
        self.loras = LoraSet(
            [lightx2v_lora.expert(*parts) for parts in zip(self.transformers, sides, shapes, strict=True)],
            device_name(),
            fixed={side: [path] for side, path in zip(sides, paths.loras, strict=False)},
        )
        self.set_loras([])

    def set_loras(self, loras: Sequence[LoraSpec]) -> tuple[LoraMatch, ...]:
        if self.loras is None:
            raise RuntimeError("set_loras() before load()")
        before = self.loras.current
        try:
            return self.loras.set(loras, settings())
        finally:
            if self.loras.current is None or self.loras.current != before:
                self.changed_loras()

    def changed_loras(self) -> None:
        assert self.loras is not None
        for graph in self.graphs:
            graph.forget()
        for transformer, expert in zip(self.transformers, self.loras.experts, strict=True):
            lightx2v_lora.changed(transformer, expert)

    def close(self) -> None:
        """Free the weights."""
        if self.compiled is not None:
            torch._dynamo.reset()
        self.runner = self.model = self.loras = self.compiled = self.vae = self.draft = None
        if self.driven is not None:
            self.driven.close()
        self.driven = None
        self.transformers, self.graphs = [], []
        self.encoded.clear()
        release()

    # ------------------------------------------------------------ generate

    def generate(self, request: Request, report: Report, show: Show | None = None) -> Clip:
        """Run one job. Raises Cancelled from `report`, UserError for a bad picture or when memory runs out."""
        model = self.loaded
        self.report, self.request, self.show = report, request, show
        self.encoded.begin()
        self.given = read_pictures(request)
        runner = self.runner
        self.set_size(request.width, request.height, request.frames)
        self.steps = steps = schedule.steps_of(request.sampling, model)
        if self.merged and not all(step.distilled for step in steps):
            chosen = self.loras.specs if self.loras is not None else ()
            self.load(model, self.scheme, report, merge=False)  # what was merged cannot be taken out
            self.set_loras(chosen)
            runner = self.runner
            self.set_size(request.width, request.height, request.frames)
        runner.scheduler.follow(steps, request.sampling.solver or "euler")
        if not model.family.single:
            put(runner.model, "boundary_step_index", runner.scheduler.boundary_step_index)
        made = request.sampling
        info = input_info(
            model.family, seed=made.seed, prompt=made.text, return_result_tensor=False, save_result_path=None
        )
        failure = None
        task = "i2v" if "image" in request.inputs else "t2v"
        self.cache, self.no_cache = make_step_cache(made.cache, model.recipes.get(made.motion), steps, task)
        try:
            with (
                self.draft.attention() if made.draft else nullcontext(),
                lightx2v_steps.watching_passes(self, made.guided),
            ):
                runner.run_pipeline(info)
        except torch.OutOfMemoryError as error:
            failure = str(error).splitlines()[0]
            traceback.clear_frames(error.__traceback__)
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)
            self.recover()
            raise
        if failure is not None:
            self.recover()
            raise UserError(
                f"The GPU ran out of memory at {request.width}x{request.height}, {request.frames} frames ({failure}).",
                field="size",
                memory="GPU",
            )
        frames, self.pictures = self.pictures, None
        return self._clip(frames)

    def speak(self, request: Request, report: Report) -> Iterator[Clip]:
        """See base.Speaker."""
        assert self.driven is not None, "of a family with speech"
        return self.driven.speak(request, report)

    def perform(self, request: Request, tracks: Tracks, report: Report) -> Iterator[Clip]:
        """See base.Performer."""
        assert self.driven is not None, "of a family with performance"
        return self.driven.perform(request, tracks, report)

    def prepare(self, request: Request, report: Report) -> None:
        """See wan_ui.engines.base.Engine."""
        self.report, self.request, self.given = report, request, read_pictures(request)
        if self.driven is not None:
            return  # what drives the clip is read with it
        self.set_size(request.width, request.height, request.frames)
        try:
            with torch.no_grad(), self.encoded.preparing():
                self._encode(request)
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)
            self.recover()
            raise

    def recover(self) -> None:
        """After a failure: no latents, no inputs, no half-moved expert, and the next job's seed counts."""
        runner = self.runner
        self.latents = self.entered = self.pictures = None
        runner.end_run()
        runner.scheduler.clear()  # that of S2V's runner does nothing
        put(runner, "gen_video", None)
        put(runner, "gen_video_final", None)
        self.vae.forget()
        for expert in self.transformers:
            if self.offload == "model":
                expert.to_cpu()
            elif self.offload == "block":
                # The buffer holds the block that was next; without this the next job would start with it.
                put(expert.transformer_infer.offload_manager, "need_init_first_buffer", True)
        if self.offload == "model" and not self.loaded.family.single:
            put(runner.model, "cur_model_index", -1)
        release()

    # ------------------------------------------------------------ stages

    def _encode_inputs(self) -> dict:
        """In place of the runner's run_input_encoder: text, then image; both cached by content."""
        runner, request = self.runner, self.request
        texts, condition = self._encode(request)
        stride = runner.config["vae_stride"][1]
        height, width = request.height // stride, request.width // stride
        put(runner.input_info, "latent_shape", runner.get_latent_shape_with_lat_hw(height, width))
        # Upstream drops the 5B model's image latents from this dict after prepare(): give it a dict of its own.
        return runner.get_encoder_output_i2v(None, condition, texts)

    def _encode(self, request: Request) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        self.report(Progress("text"))
        made = request.sampling
        texts = {"context": self.encode_prompt(made.text)}
        if made.guided:
            texts["context_null"] = self.encode_prompt(made.negative)
        return texts, self._encode_pictures(self.given)

    def encode_prompt(self, prompt: str) -> torch.Tensor:
        def encode() -> torch.Tensor:
            info = input_info(self.loaded.family, prompt=prompt)
            context: torch.Tensor = self.runner.run_text_encoder(info)["context"]
            if self.offload != "none":  # upstream leaves the embedding table (2 GB) on the GPU
                self.runner.text_encoders[0].model.token_embedding.to("cpu")
            return context

        return self.encoded.prompt(prompt, encode)

    def _encode_pictures(self, pictures: list[np.ndarray]) -> torch.Tensor:
        """What the transformer is told of the job's pictures; of none, an empty condition."""
        family, request = self.loaded.family, self.request
        if not pictures:
            shape = family.condition_shape(request.width, request.height, request.frames, pictures=0)
            return torch.zeros(shape, device=device_name(), dtype=self.dtype)
        frames = family.condition_frames(request.frames)
        key = image_key(pictures, frames)
        self.report(Progress("image", detail="already encoded" if key in self.encoded.images else ""))
        last = pictures[1] if len(pictures) > 1 else None
        return self.encoded.image(key, lambda: self.vae.encode(pictures[0], request.frames, self.report, last))

    def set_size(self, width: int, height: int, frames: int) -> None:
        self.frames = frames
        size = {"target_height": height, "target_width": width, "target_video_length": frames}
        self.runner.set_config(size)

    # ------------------------------------------------------------ one by one: see wan_ui.engines.base.Stages

    def plan(self, steps: int) -> list[tuple[float, int]]:
        scheduler = self.runner.scheduler
        scheduler.follow(schedule.distilled_steps(steps, self.loaded), "euler")
        return [(step.sigma, step.expert) for step in scheduler.steps]

    @torch.inference_mode()
    def encode_text(self, prompt: str) -> torch.Tensor:
        context = self.runner.run_text_encoder(input_info(self.loaded.family, prompt=prompt))["context"]
        return context.reshape(-1, context.shape[-1])

    @torch.inference_mode()
    def encode_image(
        self, pixels: np.ndarray, frames: int, last: np.ndarray | None = None, before: np.ndarray | None = None
    ) -> torch.Tensor:
        if self.driven is not None:
            return self.driven.encode_image(pixels, frames, before)
        self.set_size(pixels.shape[1], pixels.shape[0], frames)
        return self.vae.encode(pixels, frames, lambda progress: None, last)

    def encode_voice(self, samples: np.ndarray, frames: int) -> torch.Tensor:
        """See base.Hearing."""
        assert self.driven is not None, "of a family with speech"
        return self.driven.encode_voice(samples, frames)

    def encode_performance(self, stage: str, pixels: np.ndarray, tracks: Tracks) -> torch.Tensor:
        """See base.Performing."""
        assert self.driven is not None, "of a family with performance"
        return self.driven.encode_performance(stage, pixels, tracks)

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
        if self.driven is not None:
            return self.driven.predict(latents, 1000 * sigma, prompt, condition, on_block, voice, performance)
        return lightx2v_stages.step(self, latents, sigma, expert, prompt, condition, on_block)

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self.vae.pixels(latents)


def release() -> None:
    """Give back what nothing refers to any more, to the driver too."""
    gc.collect()
    memory.give_back()
