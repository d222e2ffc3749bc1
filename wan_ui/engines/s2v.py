"""Speech to video: a picture, a voice and words -> a clip as long as the voice, in segments.

The loop of wan/speech2video.py. Each segment of 80 frames is drawn from noise of its own beside the picture, the voice
of its time and, from the second on, the last 73 frames of the one before; it is decoded behind their latents, which
the VAE's causal convolutions want to see. The first one is decoded behind the picture, and its first three frames are
dropped. What guidance pushes away from has neither the words nor the voice. Of what is made nothing is kept but those
73 frames.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wan_ui.engines import preview, schedule, vae
from wan_ui.engines.s2v_model import Given, S2VTransformer
from wan_ui.engines.solvers import make_solver
from wan_ui.errors import UserError
from wan_ui.families import TIME_STRIDE
from wan_ui.machine.memory import free_host
from wan_ui.media import sound
from wan_ui.media.images import read_pixels
from wan_ui.media.pose_video import pose_frames
from wan_ui.request import Clip, Progress, Report, Request

SEEDS = 2**32
Loaded = Any  # a base.Driver


class Driven:
    """One job. `segments` are made in order; `tail` (1, 3, n, H, W) are the last frames of what is there."""

    def __init__(self, engine: Loaded, request: Request, report: Report):
        self.engine, self.request = engine, request
        model = engine.loaded
        assert model.family.speech is not None, "no voice drives this family"
        self.speech, self.fps, self.frames = model.family.speech, model.fps, model.default_frames - 1
        self.total, self.number = self.speech.segments(request.frames, self.frames), 0
        self.tail: torch.Tensor | None = None
        self.left = request.frames
        path = request.inputs.get("pose_video")
        size = (request.width, request.height)
        self.pose: Iterator[np.ndarray] | None = pose_frames(Path(path), self.fps, size) if path else None

        def placed(progress: Progress) -> None:
            report(replace(progress, segment=self.number + 1, segments=self.total))

        self.report = placed

    def clips(self) -> Iterator[Clip]:
        """A Clip of each segment, cut at the voice's end. Raises UserError, Cancelled from `report`."""
        engine, made = self.engine, self.request.sampling
        self.report(Progress("text"))
        texts = (made.text, made.negative) if made.guided else (made.text,)
        self.prompts = [engine.encode_prompt(text) for text in texts]
        self.voice, facts = self._hear()
        self.report(Progress("image", detail="encoding the picture"))
        self.picture = engine.encode_image(read_pixels(self.request), 1)
        for number in range(self.total):
            self.number = number
            frames, latents, said = self._segment()
            yield Clip(frames, float(self.fps), latents, engine.facts | facts | said)

    def _hear(self) -> tuple[torch.Tensor, dict[str, str]]:
        """What is heard at every frame of all segments (layers, width, frames), on the host."""
        listener, frames = self.engine.listener, self.total * self.frames
        assert listener is not None, "loaded with the model"
        layers, width = listener.shape
        wanted, free = 2 * 4 * layers * width * frames, free_host()
        if free and wanted > free:
            most = self.request.audio_seconds * free / wanted
            raise UserError(
                f"audio: what is heard in a voice of {self.request.audio_seconds:.0f} s takes {wanted / 2**30:.1f} GiB "
                f"of memory, and {free / 2**30:.1f} GiB are free; at most {most:.0f} s fit: cut it",
                field="audio",
            )
        samples = sound.decode(Path(self.request.inputs["audio"]), self.request.audio_seconds + 1)

        def entering(k: int, n: int) -> None:
            self.report(Progress("audio", k, n, "listening" if n == 1 else f"minute {k} of {n}"))

        voice = listener.hear(samples, frames, self.fps, self.engine.device, entering)
        return voice.to(self.engine.dtype), {"voice": sound.describe(samples)}

    @torch.inference_mode()
    def _segment(self) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
        motion = None if self.tail is None else self._encode(self.tail, "the frames before")
        pose = self._pose()
        with self.engine.at_work():
            latents, said = self._denoise(motion, pose)
        return self._decode(motion, latents), latents.cpu().numpy(), said

    def _encode(self, video: torch.Tensor, what: str) -> torch.Tensor:
        def entering(k: int, n: int) -> None:
            self.report(Progress("image", k, n, f"encoding {what}"))

        return vae.encode_video(self.engine.vae, video, entering)[0]

    def _pose(self) -> torch.Tensor | None:
        """Latents of the segment's part of the pose video; black after its end. None: no pose."""
        if self.pose is None:
            return None
        frames = list(islice(self.pose, self.frames))
        if not frames and self.number == 0:
            raise UserError("pose_video: it has no frames; choose another", field="pose_video")
        black = np.zeros((self.request.height, self.request.width, 3), np.uint8)
        frames += [black] * (self.frames - len(frames))
        video = torch.cat([vae.to_image(frame)[:, :, None] for frame in (frames[0], *frames)], dim=2)
        return self._encode(video, "the pose")[:, 1:]

    def _denoise(self, motion: torch.Tensor | None, pose: torch.Tensor | None) -> tuple[torch.Tensor, dict[str, str]]:
        """Noise -> normalised latents (z, t, h, w) float32 of the segment, and how."""
        engine, made = self.engine, self.request.sampling
        model, count = engine.loaded, self.frames // TIME_STRIDE
        shape = (model.family.vae.channels, count, *self.picture.shape[2:])
        latents = schedule.noise((made.seed + self.number) % SEEDS, shape).to(engine.device)
        steps = schedule.steps_of(made, model)
        solver = make_solver(made.solver or "unipc", [step.sigma for step in steps] + [0.0], made.seed)
        transformer: S2VTransformer = engine.expert(0)  # or what stands for it, see lightx2v_s2v.py
        voice = self.voice[..., self.number * self.frames : (self.number + 1) * self.frames]
        givens: list[Given] = []
        for heard in (voice, torch.zeros_like(voice))[: len(self.prompts)]:
            givens.append(transformer.given(self.picture, motion, heard, self.speech.motion, count, pose))
        look = ""
        for k, step in enumerate(steps):
            progress = Progress("denoise", k + 1, len(steps), model.family.experts[0].title, look)
            self.report(progress)
            velocity = transformer(latents, step.timestep, self.prompts[0], givens[0])
            if step.guidance > 1:
                self.report(replace(progress, detail=f"{progress.detail}, without voice and prompt"))
                away = transformer(latents, step.timestep, self.prompts[1], givens[1])
                velocity = away + step.guidance * (velocity - away)
            look = preview.animate(schedule.euler_step(latents, velocity, step.sigma, 0.0)[None], engine.colours)
            latents = solver.step(latents, velocity)
        loras = engine.loras.facts() if engine.loras is not None else {}
        return latents, loras | schedule.facts(made, steps, "one after the other", "", False)

    def _decode(self, motion: torch.Tensor | None, latents: torch.Tensor) -> np.ndarray:
        """The segment's frames (T, H, W, 3) uint8, and `tail` for the next one."""
        lead = self.picture if motion is None else motion
        skipped = 1 + TIME_STRIDE * (lead.shape[1] - 1) + (self.speech.dropped if motion is None else 0)
        whole = torch.cat([lead.to(latents), latents], dim=1)[None]
        frames: list[np.ndarray] = []
        ends: list[torch.Tensor] = [] if self.tail is None else [self.tail]
        count = lead.shape[1]

        def entering(k: int, n: int) -> None:
            words = f"latent frame {k - count} of {n - count}" if k > count else "what is there already"
            self.report(Progress("decode", k, n, words))

        for pixels in vae.decode_pixels(self.engine.vae, whole, entering):
            new, skipped = pixels[:, :, skipped:], max(0, skipped - pixels.shape[2])
            if new.shape[2]:
                frames.append(vae.to_uint8(new).cpu().numpy())
                ends.append(new.clamp(-1, 1).cpu())
        joined = torch.cat(ends, dim=2)[:, :, -self.speech.motion :]
        lacking = self.speech.motion - joined.shape[2]  # of a first segment that is shorter: grey before it
        self.tail = torch.nn.functional.pad(joined, (0, 0, 0, 0, lacking, 0))
        shown = np.concatenate(frames)[: self.left]
        self.left -= len(shown)
        return shown


def encode_before(engine: Loaded, frames: np.ndarray) -> torch.Tensor:
    """As a stage by itself: latents (z, t, h, w) of the frames (T, H, W, 3) uint8 that the next segment sees."""
    video = torch.cat([vae.to_image(frame)[:, :, None] for frame in frames], dim=2)
    return vae.encode_video(engine.vae, video, lambda k, n: None)[0]


def predict(
    engine: Loaded,
    model: S2VTransformer,
    latents: torch.Tensor,
    timestep: float,
    prompt: torch.Tensor,
    picture: torch.Tensor,
    voice: torch.Tensor | None,
) -> torch.Tensor:
    """One step by itself, as of a segment before which the picture was seen: see base.Stages."""
    count = latents.shape[1]
    if voice is None:
        voice = torch.zeros(*engine.listener.shape, TIME_STRIDE * count)
    seen = engine.loaded.family.speech.motion
    given = model.given(picture, picture, voice.to(engine.device, engine.dtype), seen, count)
    return model(latents, timestep, prompt, given)
