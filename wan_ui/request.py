"""The values that travel between the rooms: frozen, torch-free, JSON-able.

`Request` goes in at the page or the command line, `Progress` comes back while it runs, an
engine answers with a `Clip` and the worker with a `Result`. Nothing here imports torch, gradio or an engine.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from wan_ui import tasks
from wan_ui.changes import Changes, stored_changes
from wan_ui.crop import stored_crops
from wan_ui.speaking import USUAL, Speaking, stored_speaking

# Names of the stages of a job in the order they run, shown in the page and stored in the job.
STAGES = tuple(stage.name for stage in tasks.STAGES)


@dataclass(frozen=True)
class LoraSpec:
    """One LoRA: `file` (path), `strength`, `target` = high_noise | low_noise | both."""

    file: str
    strength: float = 1.0
    target: str = "both"


@dataclass(frozen=True)
class LoraMatch:
    """What became of a LoraSpec in the engine.

    matched    target -> "80/80", layers changed of those in the file; {"both": ...} for a single expert
    unmatched  names in the file that the model does not have
    """

    file: str
    strength: float
    target: str
    matched: dict[str, str]
    unmatched: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """ "sepia.safetensors x0.8: low noise 80/80 layers" """
        sides = ", ".join(f"{side.replace('_', ' ')} {count} layers" for side, count in self.matched.items())
        left = f"; not in the model: {', '.join(self.unmatched[:3])}" if self.unmatched else ""
        left += f" and {len(self.unmatched) - 3} more" if len(self.unmatched) > 3 else ""
        return f"{self.file} x{self.strength:g}: {sides}{left}"


@dataclass(frozen=True)
class Segment:
    """What happens in a clip after what its prompt says, from the last frame on. Fields as in Sampling."""

    prompt: str
    given: str = ""
    understood: str = ""


@dataclass(frozen=True)
class Sampling:
    """How a model makes a clip: every field has its final value and has been validated.

    engine  auto | diffusers | lightx2v
    seed    0 .. 2**32 - 1; the noise is drawn on the CPU, so a seed means the same everywhere
    fps     frames per second that the clip is played at; 0, in jobs of older versions: the model's
    motion  of wan_ui.recipes.MOTIONS; empty, as all that follow, in jobs of older versions: distilled
    negative  what the clip is pushed away from, where there is guidance
    guidance  of each expert in the order in which they run; 1: none
    shift   flow-matching timestep shift; 0: the model's
    solver, cache  of wan_ui.recipes
    given   what the model is given in place of the prompt, where it does not take any prompt; else empty
    understood  how that was said to the person; see wan_ui.queue.words
    draft   lossy kernels and a small decoder where the engine has them, see wan_ui.engines.lightx2v_draft
    segments  those after the first, which is what `prompt` says. Segment k is drawn with seed + k - 1
    overlap  of a clip that a performance drives: frames with which a segment begins that are the end of the one before
    offload  of wan_ui.machine.offload, where the weights are to be; empty: what the settings say
    """

    prompt: str
    model: str
    scheme: str
    engine: str
    steps: int
    seed: int
    fps: int = 0
    loras: tuple[LoraSpec, ...] = ()
    given: str = ""
    understood: str = ""
    draft: bool = False
    segments: tuple[Segment, ...] = ()
    motion: str = ""
    negative: str = ""
    guidance: tuple[float, ...] = ()
    shift: float = 0.0
    solver: str = ""
    cache: str = ""
    overlap: int = 0
    offload: str = ""

    @property
    def guided(self) -> bool:
        """Whether a step takes two passes."""
        return any(scale > 1 for scale in self.guidance)

    @property
    def first(self) -> Segment:
        return Segment(self.prompt, self.given, self.understood)

    @property
    def text(self) -> str:
        """What goes into the text encoder."""
        return self.given or self.prompt


# What is stored of a clip that no model of ours has made: versions before this one expect the fields.
UNKNOWN = Sampling(prompt="", model="", scheme="", engine="auto", steps=0, seed=0)


@dataclass(frozen=True)
class Request:
    """A job that is fully decided.

    task    its name in wan_ui.tasks
    inputs  name of an input -> path of its file in the job's folder; pictures have exactly `width` x `height` pixels
    frames  of the clip that will be there; of one in segments: of each, whose first is the last of the one before
    made_with  how the clip is sampled. Of a task that changes a finished clip: how that one was, None if no model of
            ours has made it
    audio_seconds  how long the speech lasts, if there is any among the inputs
    changes  what is to be changed of a finished clip, of a task that does that
    speaking  how the voice is spoken, where there is one
    batch   what all jobs share that one press has asked for; empty: it has asked for one
    crops   input -> which part of its picture was used, see wan_ui.crop; of those that are not named the middle
    without_picture  whether the clip's file is not to carry its pictures
    other   fields that another version has stored and this one does not know: kept, not used
    """

    task: str
    inputs: dict[str, str]
    width: int
    height: int
    frames: int
    made_with: Sampling | None = None
    audio_seconds: float = 0.0
    changes: Changes | None = None
    speaking: Speaking = USUAL
    batch: str = ""
    crops: dict[str, tuple[float, ...]] = field(default_factory=dict)
    without_picture: bool = False
    other: dict[str, Any] = field(default_factory=dict)

    @property
    def sampling(self) -> Sampling:
        """`made_with`, for those who run or repeat it: of a task that samples it is always there."""
        assert self.made_with is not None, f"no model makes the clip of a {self.task} job"
        return self.made_with

    def to_dict(self) -> dict[str, Any]:
        """For rows and for the worker: one flat object, with the names that every version has used."""
        return {**self.other, **dict.fromkeys(ALWAYS, ""), **self.inputs, **self.public()}

    def public(self) -> dict[str, Any]:
        """As `to_dict`, without this machine's paths and what is not known: for metadata and answers."""
        made = asdict(self.made_with or UNKNOWN)
        return {
            **{name: made[name] for name in ("prompt", "model", "scheme", "engine")},
            **{"width": self.width, "height": self.height, "frames": self.frames},
            **{name: made[name] for name in ("steps", "seed", "loras")},
            "audio_seconds": self.audio_seconds,
            **{name: made[name] for name in ("given", "understood")},
            "kind": tasks.TASKS[self.task].stored,
            "fps": made["fps"],
            **{name: made[name] for name in LATER if made[name] != getattr(UNKNOWN, name)},
            **({"changes": asdict(self.changes)} if self.changes else {}),
            **({"speaking": asdict(self.speaking)} if self.speaking != USUAL else {}),
            **({"batch": self.batch} if self.batch else {}),
            **({"crops": self.crops} if self.crops else {}),
            **({"without_picture": True} if self.without_picture else {}),
        }

    def in_folder(self, folder: Path) -> "Request":
        """With its files where the job's folder is now."""
        return replace(self, inputs={name: str(folder / Path(path).name) for name, path in self.inputs.items()})

    @property
    def seed(self) -> int:
        return (self.made_with or UNKNOWN).seed

    def with_seed(self, seed: int) -> "Request":
        """Of a task that samples: the same with other noise."""
        return replace(self, made_with=replace(self.sampling, seed=seed))

    def stages(self) -> tuple[str, ...]:
        """Those of STAGES that this job goes through."""
        asked = {"changes", *(["file"] if self.changes.file else [])} if self.changes else set()
        return tasks.TASKS[self.task].stages_with({*self.inputs, *asked})

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Request":
        """Of what `to_dict` gave. What lies on disk is read by wan_ui.stored, which bears everything."""
        task = tasks.BY_STORED[values.get("kind", tasks.DEFAULT.stored)]
        made = {name: values[name] for name in SAMPLING if name in values}
        made["loras"] = tuple(LoraSpec(**lora) for lora in values.get("loras", ()))
        made["guidance"] = tuple(values.get("guidance", ()))
        made["segments"] = tuple(Segment(**segment) for segment in values.get("segments", ()))
        own = {name: values[name] for name in OWN if name in values}
        known = {"kind", "changes", "crops", "speaking", *SAMPLING, *OWN, *tasks.FILES}
        return cls(
            task=task.name,
            inputs={name: values[name] for name in tasks.FILES if values.get(name)},
            made_with=Sampling(**made) if task.samples or values["model"] else None,
            changes=stored_changes(values.get("changes")) if task.done_by == "afterwork" else None,
            crops=stored_crops(values.get("crops")) or {},
            speaking=stored_speaking(values.get("speaking")) or USUAL,
            other={name: value for name, value in values.items() if name not in known},
            **own,
        )


SAMPLING = tuple(entry.name for entry in fields(Sampling))
# Fields of Sampling that are stored only where they say something: older versions had none of them.
LATER = ("draft", "segments", "motion", "negative", "guidance", "shift", "solver", "cache", "overlap", "offload")
ALWAYS = ("image", "audio", "video")  # inputs that a row has also where they are not given, as at the beginning
OWN = (
    "width",
    "height",
    "frames",
    "audio_seconds",
    "batch",
    "without_picture",
)  # of a Request's fields those that are stored as they are


@dataclass(frozen=True)
class Progress:
    """Where a job is: sent *before* a step is entered, so that a crash can be attributed to it.

    stage   one of STAGES
    step    1-based number of the step being entered; 0 while the stage has no steps yet
    total   number of steps in the stage; 0 when the stage is a single piece of work
    detail  words for people: "high-noise expert", "frame 9 of 33"
    preview data URL of a small animated picture of the clip so far; empty when there is none
    segment, segments  "segment 2 of 3" of a clip in several; 0 else
    """

    stage: str
    step: int = 0
    total: int = 0
    detail: str = ""
    preview: str = ""
    segment: int = 0
    segments: int = 0


@dataclass(frozen=True)
class Tracks:
    """What drives a clip, frame by frame at the clip's rate: arrays of uint8 of the same length T.

    pose        (T, H, W, 3): the drawn skeleton, of the clip's size
    face        (T, S, S, 3): the performer's face; None: expressions are free
    background  (T, H, W, 3): what is behind a character that is replaced, black where it was; None: none is
    mask        (T, H, W): 255 where it was
    """

    pose: np.ndarray
    face: np.ndarray | None = None
    background: np.ndarray | None = None
    mask: np.ndarray | None = None

    def frames(self, numbers: Sequence[int]) -> "Tracks":
        """Those frames alone, in that order."""
        chosen = list(numbers)
        parts = (self.pose, self.face, self.background, self.mask)
        pose, *others = (None if part is None else part[chosen] for part in parts)
        assert pose is not None
        return Tracks(pose, *others)


@dataclass(frozen=True)
class Clip:
    """What an engine made.

    frames   (T, H, W, 3) uint8
    fps      frames per second
    latents  (16, t, h, w) float32, the normalised latents that were decoded
    facts    engine, attention, dtype ... each a short string with its reason, for the metadata
    segment  which it is of how many, where an engine makes a clip segment by segment
    ready    of the stages text and image, those that were done before there was a job, and when; not for the metadata:
             files with and without are the same
    """

    frames: np.ndarray
    fps: float
    latents: np.ndarray
    facts: dict[str, str] = field(default_factory=dict)
    segment: tuple[int, int] = (1, 1)
    ready: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What the worker found out about a job, as far as it is known: empty until there is a clip.

    clip, poster    names of files in the job's folder; silent: the clip before it was given speech; file: what was
                    made beside the clip (a GIF, its frames ...), where that was asked for
    frames, fps     of the clip
    engine_ran      diffusers | lightx2v, where a request may ask for "auto", and why; empty where it only speaks
    seconds         of each stage; step_seconds: of each denoise step
    load_seconds    of the load that the job had to wait for; 0 when the model was there
    before_lipsync  seconds of the stage "lipsync" before its first frame
    memory          GiB: see wan_ui.machine.memory.memory_used
    facts           as of the Clip, and those of the speech
    latents_sha256  of the latents that were decoded
    fits            of a job that did not fit into memory: width, height and frames of a clip that does, GiB that one as
                    large has taken here (`measured`, 0: not known), and whose memory it was (`of`: GPU or machine)
    version         of this record, as it was stored: 1 had no `version`, `engine_ran`, `engine_why`
    other           fields that another version has stored and this one does not know: kept, not used
    """

    clip: str = ""
    poster: str = ""
    silent: str = ""
    file: str = ""
    frames: int | None = None
    fps: float | None = None
    engine_ran: str = ""
    engine_why: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    step_seconds: tuple[float, ...] = ()
    load_seconds: float | None = None
    before_lipsync: float | None = None
    memory: dict[str, float] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    loras: tuple[LoraMatch, ...] = ()
    latents_sha256: str = ""
    fits: dict[str, Any] = field(default_factory=dict)
    version: int = 2
    other: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """What is known, for the table; {} when nothing is."""
        nothing = Result()
        if self == nothing:
            return {}
        always = ("version", "seconds", "facts", "loras")  # the version before looks these up without asking
        values, empty = asdict(self), asdict(nothing)
        other: dict[str, Any] = values.pop("other")
        return other | {name: value for name, value in values.items() if name in always or value != empty[name]}

    def public(self) -> dict[str, Any]:
        """As `to_dict`, without what is the table's alone: for answers."""
        return {key: value for key, value in self.to_dict().items() if key != "version" and key not in self.other}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Result":
        """Of what `to_dict` gave. What lies on disk is read by wan_ui.stored, which bears everything."""
        known = {name: value for name, value in values.items() if name in {f.name for f in fields(cls)}}
        other = {name: value for name, value in values.items() if name not in known}
        matches = values.get("loras", ())
        loras = tuple(LoraMatch(**{**match, "unmatched": tuple(match["unmatched"])}) for match in matches)
        steps = tuple(values.get("step_seconds", ()))
        return cls(**{**known, "loras": loras, "step_seconds": steps, "other": other})


# An engine calls this at every step; it raises `Cancelled` when the user has asked to stop.
Report = Callable[[Progress], None]
