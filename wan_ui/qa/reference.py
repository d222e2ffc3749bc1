"""What each stage should give: computed by the diffusers engine in float32, or read from a stored file.

A trial is one fixed picture, prompt and seed at a small size. The stages of an engine are held against a
reference of the same trial, each fed with the reference output of the stage before, so that one fault
does not hide the next:

    prompt -> text        picture -> image        steps -> schedule        two pictures -> last frame
    voice -> audio        picture, skeleton, face -> seen, pose, face (of models that a performance drives)
    noise, text, image -> dit high (at its first sigma)
    noise moved along that velocity to the other expert's first sigma -> dit low
    those latents moved on to sigma 0 -> decode
    the end of those frames -> next segment, as a clip goes on from it

"same files" means the float32 reference read the very weights under test, so that only computing is
judged. A stored file was made from the bf16 weights: it judges the file, its reader and the scheme too,
and does not depend on the code that is being judged.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wan_ui.catalog import Model, Scheme
from wan_ui.engines import schedule
from wan_ui.engines.base import Stages
from wan_ui.engines.device import Choice
from wan_ui.errors import UserError
from wan_ui.families import TIME_STRIDE, latent_frames
from wan_ui.media import sound
from wan_ui.media.images import fit, open_image
from wan_ui.place import DATA
from wan_ui.qa import blocks
from wan_ui.qa.blocks import BlockTrial
from wan_ui.request import Tracks
from wan_ui.settings import ROOT
from wan_ui.tasks import END, TASKS

LAST_FRAME = "last frame"  # the stage of models that end a clip at a picture
VOICE = "audio"  # the stage of models that a voice drives
PERFORMED = ("seen", "pose", "face")  # the stages of models that a performance drives: see base.Performing
NEXT = "next segment"  # the stage of models that go on from the end of a clip
SPOKEN = DATA / "assets" / "examples" / "voice.m4a"
STORED = ROOT / "tests" / "golden"
BLOCK_PARTS = ("latents", "text", "image", "hidden", "velocity")
PICTURE = DATA / "assets" / "examples" / "cat.jpg"
FACE, PERFORMED_FRAMES = 512, 13


@dataclass(frozen=True)
class Trial:
    """What the stages are tried on. Sizes in pixels; frames 4k+1; the noise is that of `seed`."""

    width: int
    height: int
    frames: int
    prompt: str = "slowly zoom in, sunset light"
    seed: int = 1
    steps: int = 4
    picture: str = PICTURE.name

    def pixels(self) -> np.ndarray:
        """(height, width, 3) uint8"""
        return np.array(fit(open_image(PICTURE.parent / self.picture), self.width, self.height))

    def tracks(self) -> Tracks:
        """A limb that swings over black, and the picture as a face that moves."""
        y, x = np.mgrid[0 : self.height, 0 : self.width]
        pose = np.zeros((self.frames, self.height, self.width, 3), np.uint8)
        for number, angle in enumerate(np.linspace(0.2, 1.4, self.frames)):
            pose[number][abs(np.sin(angle) * x - np.cos(angle) * y) < 3] = (255, 170, 0)
        face = np.array(fit(open_image(PICTURE.parent / self.picture), FACE, FACE))
        return Tracks(pose, np.stack([np.roll(face, 8 * number, axis=1) for number in range(self.frames)]))


@dataclass(frozen=True)
class Reference:
    """The outputs of every stage but `schedule`, float32 on the CPU, without a batch dimension.

    kind     "same files" or "stored"
    plan     (sigma, expert) of each step
    outputs  text (l, d), image (c, t, h, w), dit ... (z, t, h, w), decode (T, H, W, 3) in -1 .. 1
    blocks   "dit high" ... -> a small step of that expert with its hidden states
    source   of a stored one, what computed it
    """

    kind: str
    trial: Trial
    plan: tuple[tuple[float, int], ...]
    outputs: dict[str, torch.Tensor]
    blocks: dict[str, BlockTrial] = field(default_factory=dict)
    source: str = ""

    def latents(self, stage: str) -> torch.Tensor:
        """What goes into "dit high", "dit low", "dit" or "decode": (z, t, h, w)."""
        dits = [name for name in self.outputs if name.startswith("dit")]
        latents = schedule.noise(self.trial.seed, tuple(self.outputs[dits[0]].shape))
        sigmas = [*(self.sigma(expert) for expert in range(len(dits))), 0.0]
        for k, name in enumerate(dits):
            if name == stage:
                return latents
            # Not schedule.euler_step: that is the engines' and is judged too.
            latents = latents + (sigmas[k + 1] - sigmas[k]) * self.outputs[name]
        return latents

    def sigma(self, expert: int) -> float:
        """Where an expert takes over."""
        return next(sigma for sigma, which in self.plan if which == expert)

    def save(self, path: Path, source: str = "") -> None:
        """As safetensors: float16 (frames uint8), enough for every tolerance of wan_ui.qa.stages.

        source  what computed it, kept in the file
        """
        from safetensors.torch import save_file

        tensors = {name: tensor.half() for name, tensor in self.outputs.items()}
        tensors["decode"] = self.outputs["decode"].mul(127.5).add(127.5).round().to(torch.uint8)
        tensors["text"] = _without_padding(tensors["text"])
        for name, trial in self.blocks.items():
            parts = {part: getattr(trial, part) for part in BLOCK_PARTS} | {"text": _without_padding(trial.text)}
            tensors |= {f"blocks.{name}.{part}": tensor.half() for part, tensor in parts.items()}
        about = {
            "trial": json.dumps(asdict(self.trial)),
            "plan": json.dumps(self.plan),
            "blocks": json.dumps({name: trial.sigma for name, trial in self.blocks.items()}),
            "text": str(len(self.outputs["text"])),
            "source": source,
        }
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, about)


def _without_padding(text: torch.Tensor) -> torch.Tensor:
    """The rows of a prompt's own tokens; the rest is zero."""
    return text[: text.abs().sum(-1).nonzero().max().item() + 1]


def load_reference(path: Path) -> Reference:
    """A file written by `Reference.save`. Raises UserError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            about = file.metadata()
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - not a dict
        tensors["decode"] = tensors["decode"].sub(127.5).div(127.5)
        plan = tuple((sigma, expert) for sigma, expert in json.loads(about["plan"]))
        names = ["text", "image", *(name for name in sorted(tensors) if name.startswith("dit")), "decode"]
        names += [name for name in (LAST_FRAME, VOICE, *PERFORMED, NEXT) if name in tensors]
        trial = Trial(**json.loads(about["trial"]))
        blocks = {}
        for name in [name for name in tensors if name.endswith("text")]:
            tensors[name] = torch.nn.functional.pad(tensors[name], (0, 0, 0, int(about["text"]) - len(tensors[name])))
        for name, sigma in json.loads(about["blocks"]).items():
            blocks[name] = BlockTrial(sigma, **{part: tensors[f"blocks.{name}.{part}"] for part in BLOCK_PARTS})
        outputs = {name: tensors[name] for name in names}
        return Reference("stored", trial, plan, outputs, blocks, about["source"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"reference: {path} is not a stored reference ({type(error).__name__}: {error})") from None


def stage_names(model: Model) -> list[str]:
    """In the order they run."""
    image = [] if model.family.condition == "none" else ["image"]
    if any(TASKS[name].input(END.name) for name in model.tasks):
        image.append(LAST_FRAME)
    if model.family.speech:
        image.insert(0, VOICE)
    performed = PERFORMED if model.family.performance else ()
    following = [NEXT] if model.goes_on or model.family.performance or model.family.speech else []
    return ["text", *image, *performed, "schedule", *dit_names(model), "decode", *following]


def dit_names(model: Model) -> list[str]:
    return [f"dit {side}".strip() for side in model.family.sides]


def default_trial(model: Model) -> Trial:
    """The smallest size and length that the model offers: seconds on a GPU."""
    width, height = min(model.sizes, key=lambda size: size[0] * size[1])
    frames = min(model.frames)
    if model.family.performance:  # of which all frames are encoded three times
        frames = min(frames, PERFORMED_FRAMES)
    return Trial(width, height, frames, steps=model.default_steps)


def stored_path(model: Model) -> Path:
    return STORED / f"{model.name}-stages.safetensors"


def condition(engine: Stages, model: Model, trial: Trial) -> torch.Tensor:
    """What the trial's picture becomes; without a channel for a model that takes no picture."""
    if model.family.condition == "none":
        return torch.zeros(model.family.condition_shape(trial.width, trial.height, trial.frames))
    return engine.encode_image(trial.pixels(), trial.frames)


def heard(engine: Any, model: Model, trial: Trial) -> torch.Tensor:
    """What the trial's voice becomes: four frames for each latent frame."""
    frames = TIME_STRIDE * latent_frames(trial.frames)
    samples = sound.decode(SPOKEN)[: sound.SAMPLE_RATE * frames // model.fps]
    return engine.encode_voice(samples, frames)


def last_frame(engine: Stages, trial: Trial) -> torch.Tensor:
    """What the trial's picture becomes where the clip ends at it upside down."""
    pixels = trial.pixels()
    return engine.encode_image(pixels, trial.frames, np.ascontiguousarray(pixels[::-1]))


def next_segment(engine: Any, model: Model, trial: Trial, frames: torch.Tensor) -> torch.Tensor:
    """What the end of a clip (T, H, W, 3) in -1 .. 1 becomes where another segment goes on from it."""
    pixels = frames.mul(127.5).add(127.5).round().to(torch.uint8).numpy()
    if model.family.performance:
        return engine.encode_image(trial.pixels(), trial.frames, before=pixels[-model.overlaps[-1] :])
    if model.family.speech:
        return engine.encode_image(trial.pixels(), trial.frames, before=pixels[-model.family.speech.motion :])
    return engine.encode_image(np.ascontiguousarray(pixels[-1]), trial.frames)


def performed(engine: Any, trial: Trial) -> dict[str, torch.Tensor]:
    """What the trial's performance becomes, by its stages."""
    return {name: engine.encode_performance(name, trial.pixels(), trial.tracks()) for name in PERFORMED}


def latents_of(model: Model, trial: Trial) -> tuple[int, int, int, int]:
    """Shape (z, t, h, w) of what a step denoises: a performed clip has a frame before it, the picture's."""
    z, t, h, w = model.family.vae.latents(trial.width, trial.height, trial.frames)
    return z, t + (model.family.performance is not None), h, w


def of_clip(model: Model, latents: torch.Tensor) -> torch.Tensor:
    """What of the latents is decoded."""
    return latents[:, 1:] if model.family.performance else latents


def compute(engine: Stages, model: Model, trial: Trial) -> Reference:
    """Run all stages of a trustworthy engine, each on the outputs of the ones before."""
    plan = tuple(engine.plan(trial.steps))
    text, image = engine.encode_text(trial.prompt), condition(engine, model, trial)
    outputs = {"text": text, "image": image}
    if LAST_FRAME in stage_names(model):
        outputs[LAST_FRAME] = last_frame(engine, trial)
    more: dict[str, Any] = {}
    if VOICE in stage_names(model):
        outputs[VOICE] = heard(engine, model, trial)
        more = {"voice": outputs[VOICE]}
    if model.family.performance:
        outputs |= performed(engine, trial)
        more = {"performance": {name: outputs[name] for name in PERFORMED}}
    empty = torch.zeros(latents_of(model, trial))
    reference = Reference("same files", trial, plan, {**outputs, **dict.fromkeys(dit_names(model), empty)})
    for expert, name in enumerate(dit_names(model)):
        velocity = engine.predict(reference.latents(name), reference.sigma(expert), expert, text, image, **more)
        reference = replace(reference, outputs={**reference.outputs, name: velocity.float().cpu()})
    frames = engine.decode(of_clip(model, reference.latents("decode")))
    outputs = {**reference.outputs, "decode": frames}
    if NEXT in stage_names(model):
        outputs[NEXT] = next_segment(engine, model, trial, frames)
    outputs = {name: tensor.float().cpu() for name, tensor in outputs.items()}
    wrong = [name for name, tensor in outputs.items() if not tensor.isfinite().all()]
    if wrong:
        raise UserError(f"reference: {wrong[0]} is not finite in float32: the weights themselves are damaged")
    return replace(reference, outputs=outputs, blocks=_block_trials(engine, model, trial, plan, text))


def _block_trials(engine: Stages, model: Model, trial: Trial, plan, text: torch.Tensor) -> dict[str, BlockTrial]:
    """A small step of each expert, from the same picture, prompt and seed."""
    small = replace(trial, width=blocks.WIDTH, height=blocks.HEIGHT, frames=blocks.FRAMES)
    image = condition(engine, model, small)
    more = {"performance": performed(engine, small)} if model.family.performance else {}
    latents = schedule.noise(small.seed, latents_of(model, small))
    found: dict[str, BlockTrial] = {}
    before = 1.0
    for expert, name in enumerate(dit_names(model)):
        sigma = next(sigma for sigma, which in plan if which == expert)
        if found:
            latents = latents + (sigma - before) * next(reversed(found.values())).velocity
        found[name] = blocks.record(engine, expert, sigma, latents, text, image, **more)
        before = sigma
    return found


def float32_engine(model: Model, scheme: Scheme, report):
    """The diffusers engine computing in float32 on the same files. Raises UserError where it cannot."""
    from wan_ui.engines import diffusers

    engine = diffusers.DiffusersEngine(Choice(torch.float32, "it is the reference"))
    engine.load(model, scheme, report)
    return engine
