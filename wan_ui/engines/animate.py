"""Animate: a picture moves like a performance, segment by segment, as wan/animate.py of the official code does it.

What drives a clip comes as arrays (`Tracks`): the drawn pose, the face, and where a character is replaced, what is
behind it and where it was. Every segment of `Model.default_frames` frames begins with the last `overlap` frames of the
one before; the performance is played back and forth until the last segment is full, and the clip cut to its length.

The latents have a frame in front that is the picture's own, which the decoder does not see. tests/engines/
test_animate.py holds a clip of several segments against diffusers' WanAnimatePipeline.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from wan_ui.engines import clip_vision, preview, schedule, vae
from wan_ui.engines.solvers import make_solver
from wan_ui.families import TIME_STRIDE, latent_frames
from wan_ui.media.images import read_pictures
from wan_ui.request import Clip, Progress, Report, Request, Tracks

Entering = Callable[[int, int], None]
Loaded = Any  # a base.Driver


def segments(count: int, length: int, overlap: int) -> int:
    """How many of `length` frames, each `overlap` into the one before, hold `count` frames."""
    return max(1, -(-(count - overlap) // (length - overlap)))


def back_and_forth(count: int, wanted: int) -> list[int]:
    """0, 1 ... count - 1, count - 2 ... 0, 1 ...: numbers of frames, `wanted` of them."""
    way = [*range(count), *range(count - 2, 0, -1)]
    return [way[k % len(way)] for k in range(wanted)]


def to_video(frames: np.ndarray) -> torch.Tensor:
    """(T, H, W, 3) uint8 -> (1, 3, T, H, W) float32 in -1 .. 1."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(3, 0, 1, 2)[None].float().div(127.5).sub(1)


def to_face(frames: np.ndarray | None, count: int, size: int) -> torch.Tensor:
    """(T, S, S, 3) uint8 -> (3, T, size, size) in -1 .. 1; without a face black, which no expression is told from."""
    if frames is None:
        return torch.full((3, count, size, size), -1.0)
    video = to_video(frames)[0]
    if video.shape[-1] == size:
        return video
    return F.interpolate(video.transpose(0, 1), size=(size, size), mode="area").transpose(0, 1)


def given_mask(free: torch.Tensor, given: int) -> torch.Tensor:
    """Which frames, or parts of them, are given: (T, h, w) -> (4, t, h, w), the first frame standing for all four.

    free   1 where what is behind the character is given, 0 where it is to be made
    given  frames at the beginning that are given as a whole
    """
    free = free.clone()
    free[:given] = 1
    free = torch.cat([free[:1].expand(TIME_STRIDE - 1, -1, -1), free])
    return free.unflatten(0, (-1, TIME_STRIDE)).transpose(0, 1)


@dataclass(frozen=True)
class Driving:
    """One segment, read: condition (20, 1 + t, h, w), pose (1, 16, t, h, w), faces: with and without its expression."""

    condition: torch.Tensor
    pose: torch.Tensor
    faces: tuple[torch.Tensor, ...]


def read_segment(
    engine: Loaded,
    reference: torch.Tensor,
    tracks: Tracks,
    before: torch.Tensor | None,
    overlap: int,
    guided: bool,
    entering: Entering,
) -> Driving:
    """What the transformer is given of a segment's frames.

    reference  (16, 1, h, w): the picture's latents
    before     (1, 3, overlap, H, W): the last frames of the clip so far; None for the first segment
    entering   called with (k, n) before each of the pieces that are encoded
    """
    pose = to_video(tracks.pose)
    count = pose.shape[2]
    behind = torch.zeros_like(pose) if tracks.background is None else to_video(tracks.background)
    if before is not None:
        behind[:, :, :overlap] = before
    total = 2 * latent_frames(count)
    given = 0 if before is None else overlap
    condition = conditioned(engine, reference, behind, tracks.mask, given, lambda k, n: entering(k, total))
    posed = vae.encode_video(engine.vae, pose, lambda k, n: entering(n + k, total))
    shown = [tracks.face, *([None] if guided else [])]
    faces = tuple(read_face(engine, face, count) for face in shown)
    return Driving(condition, posed.to(engine.device, engine.dtype), faces)


def conditioned(
    engine: Loaded,
    reference: torch.Tensor,
    behind: torch.Tensor,
    mask: np.ndarray | None,
    given: int,
    entering: Entering,
) -> torch.Tensor:
    """(20, 1 + t, h, w): the picture's latents, then those of what is there, each below the mask of what is given.

    behind  (1, 3, T, H, W) in -1 .. 1; mask: of Tracks; given: frames at the beginning that are given as a whole
    """
    latents = vae.encode_video(engine.vae, behind, entering)[0]
    free = torch.zeros(behind.shape[2], *latents.shape[-2:])
    if mask is not None:
        place = 1 - torch.from_numpy(np.ascontiguousarray(mask)).float()[:, None] / 255
        free = F.interpolate(place, size=latents.shape[-2:], mode="nearest")[:, 0]
    own = torch.cat([torch.ones_like(reference[:TIME_STRIDE]), reference])
    return torch.cat([own, torch.cat([given_mask(free, given).to(latents), latents])], dim=1)


def read_face(engine: Loaded, face: np.ndarray | None, count: int) -> torch.Tensor:
    """Tokens of the faces (T, S, S, 3) uint8, or of none: see AnimateTransformer.read_face."""
    model = engine.expert(0)
    tokens: torch.Tensor = model.read_face(to_face(face, count, model.config["motion_encoder_size"]).to(engine.device))
    return tokens


@torch.inference_mode()
def encode_image(engine: Loaded, pixels: np.ndarray, frames: int, before: np.ndarray | None) -> torch.Tensor:
    """As a stage by itself: the condition of a segment with nothing behind the character. See base.Stages."""
    image = vae.to_image(pixels)
    reference = vae.encode_image(engine.vae, image.to(engine.device), 1, lambda k, n: None)[0]
    behind = torch.zeros(1, 3, frames, *image.shape[-2:])
    if before is not None:
        behind[:, :, : len(before)] = to_video(before)
    return conditioned(engine, reference, behind, None, 0 if before is None else len(before), lambda k, n: None)


@torch.inference_mode()
def encode_performance(engine: Loaded, stage: str, pixels: np.ndarray, tracks: Tracks) -> torch.Tensor:
    """See base.Performing."""
    if stage == "seen":
        return clip_vision.encode_picture(engine.clip, vae.to_image(pixels))[0]
    if stage == "pose":
        return vae.encode_video(engine.vae, to_video(tracks.pose), lambda k, n: None)[0]
    return read_face(engine, tracks.face, len(tracks.pose))[0]


def predict(
    engine: Loaded,
    latents: torch.Tensor,
    timestep: float,
    prompt: torch.Tensor,
    condition: torch.Tensor,
    performance: dict[str, torch.Tensor],
) -> torch.Tensor:
    """One step by itself. performance: what `encode_performance` gives, by its stages."""
    seen, pose, face = (performance[name][None].to(engine.device, engine.dtype) for name in ("seen", "pose", "face"))
    driving = Driving(condition, pose, ())
    return velocity(engine, latents.to(engine.device), timestep, prompt, seen, driving, face)


@torch.inference_mode()
def velocity(
    engine: Loaded,
    latents: torch.Tensor,
    timestep: float,
    prompt: torch.Tensor,
    picture: torch.Tensor,
    driving: Driving,
    face: torch.Tensor,
) -> torch.Tensor:
    """(16, 1 + t, h, w) float32. prompt: (512, width); picture: CLIP's tokens (1, n, width)."""
    inputs = torch.cat([latents, driving.condition.to(latents)])[None].to(engine.dtype)
    return engine.expert(0)(
        inputs,
        torch.tensor([timestep], device=engine.device),
        prompt[None].to(engine.device, engine.dtype),
        picture.to(engine.dtype),
        driving.pose,
        face,
    )[0].float()


@torch.inference_mode()
def perform(engine: Loaded, request: Request, tracks: Tracks, report: Report) -> Iterator[Clip]:
    """The clip, a segment at a time. Reports text, then image, denoise and decode of each. Raises as `generate`."""
    model, made = engine.loaded, request.sampling
    overlap = made.overlap or 1
    length, real = model.default_frames, len(tracks.pose)
    total = segments(real, length, overlap)
    order = back_and_forth(real, overlap + total * (length - overlap))
    report(Progress("text"))
    texts = (made.text, made.negative) if made.guided else (made.text,)
    prompts = [engine.encode_prompt(text) for text in texts]
    (pixels,) = read_pictures(request)
    report(Progress("image", detail="looking at the picture"))
    image = vae.to_image(pixels)
    seen = clip_vision.encode_picture(engine.clip, image)
    reference = vae.encode_image(engine.vae, image.to(engine.device), 1, lambda k, n: None)[0]
    z, t, h, w = model.family.vae.latents(request.width, request.height, length)
    noises = schedule.noises(made.seed, (z, 1 + t, h, w))
    steps = schedule.steps_of(made, model)
    before: torch.Tensor | None = None
    done = 0
    for number in range(1, total + 1):

        def placed(progress: Progress, number: int = number) -> None:
            report(replace(progress, segment=number, segments=total) if total > 1 else progress)

        def entering(k: int, n: int, placed: Report = placed) -> None:
            placed(Progress("image", k, n, "encoding the pose" if k > n // 2 else "encoding what is given"))

        start = (number - 1) * (length - overlap)
        part = tracks.frames(order[start : start + length])
        driving = read_segment(engine, reference, part, before, overlap, made.guided, entering)
        with engine.at_work():
            latents = _denoise(engine, request, steps, next(noises), prompts, seen, driving, placed)

        def decoding(k: int, n: int, placed: Report = placed) -> None:
            placed(Progress("decode", k, n, f"latent frame {k} of {n}"))

        pixels_of = vae.decode_pixels(engine.vae, latents[None, :, 1:], decoding)
        frames = torch.cat([chunk.float().cpu() for chunk in pixels_of], dim=2).clamp(-1, 1)
        frames = frames if before is None else frames[:, :, overlap:]
        before = frames[:, :, -overlap:]
        shown = vae.to_uint8(frames[:, :, : real - done]).numpy()
        done += len(shown)
        facts = engine.facts | (engine.loras.facts() if engine.loras is not None else {})
        facts |= schedule.facts(made, steps, "one after the other", "", False)
        facts["segments"] = f"{number} of {total} of {length} frames, {overlap} of them from the one before"
        if tracks.face is None:
            facts["face"] = "none was given: expressions are free"
        yield Clip(shown, float(made.fps or model.fps), latents.cpu().numpy(), facts, (number, total))


def _denoise(
    engine: Loaded,
    request: Request,
    steps: list[schedule.Step],
    latents: torch.Tensor,
    prompts: list[torch.Tensor],
    seen: torch.Tensor,
    driving: Driving,
    report: Report,
) -> torch.Tensor:
    made = request.sampling
    latents = latents.to(engine.device)
    solver: Any = make_solver(made.solver or "euler", [step.sigma for step in steps] + [0.0], made.seed)
    look = ""
    for k, step in enumerate(steps):
        progress = Progress("denoise", k + 1, len(steps), engine.loaded.family.experts[0].title, look)
        report(progress)
        towards = velocity(engine, latents, step.timestep, prompts[0], seen, driving, driving.faces[0])
        if step.guidance > 1:
            report(replace(progress, detail=f"{progress.detail}, negative prompt"))
            away = velocity(engine, latents, step.timestep, prompts[1], seen, driving, driving.faces[1])
            towards = away + step.guidance * (towards - away)
        straight = schedule.euler_step(latents, towards, step.sigma, 0.0)
        look = preview.animate(straight[None, :, 1:], engine.colours)
        latents = solver.step(latents, towards)
    return latents
