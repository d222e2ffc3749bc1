"""The kinds of job, one record each: what a person gives, what is done with it in which order, and its words.

Intake, the form, the API, the command line, the history and "Load settings" read the records and know no input by
itself. Another task is a record here, its name at the models of configs/catalog.toml that do it, and what an engine
does for it.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from wan_ui.changes import MAX_JOINED

Kind = Literal["picture", "audio", "video", "text"]


@dataclass(frozen=True)
class Input:
    """Something that a person gives a task.

    name      in the API, on the command line (--name), in rows and in a UserError
    kind      how it is taken: wan_ui.queue.intake has a taker for each
    required  a job without it is refused
    missing   what is said then
    label     on the page
    part      of the page where it is given; the browser remembers it by that
    file      its copy in the job's folder, with its own suffix if this has none; of a text none
    help      what `--help` says of it
    option    on the command line, where that is not --name
    using     what the line above Generate says where it is given, lacking: where it is required and is not
    """

    name: str
    kind: Kind
    required: bool
    missing: str
    label: str
    part: str
    file: str
    help: str
    option: str = ""
    using: str = ""
    lacking: str = ""


@dataclass(frozen=True)
class Stage:
    """A part of the work that is shown and timed by itself.

    name   in rows, logs and progress
    title  one word for a row of stages
    doing  what a person reads meanwhile
    needs  name of the input without which it is left out
    """

    name: str
    title: str
    doing: str
    needs: str = ""


@dataclass(frozen=True)
class Task:
    """One kind of job.

    name      in the catalog and for `Draft.task`
    short     the same in a few letters, as the models' names have it; empty: it has a command of its own
    stored    its `kind` in rows and in the metadata of an MP4
    title     what it is, for people
    inputs    in the order in which the page asks for them
    stages    in the order in which they run
    samples   a model of the catalog makes the clip; else one that is there is changed, whose settings are kept with it
    shape     name of the input that the clip has its shape of; empty: a size of the model's list, the first by default
    untitled  what its clips are called where there is no prompt
    stem      the same in the name of a downloaded file
    either    names of inputs of which at least one is needed
    done_by   what the worker is asked for: see wan_ui.queue.base.AnyWorker
    """

    name: str
    short: str
    stored: str
    title: str
    inputs: tuple[Input, ...]
    stages: tuple[Stage, ...]
    samples: bool
    shape: str
    untitled: str
    stem: str
    either: tuple[str, ...] = ()
    done_by: Literal["generate", "lipsync", "afterwork"] = "generate"

    @property
    def performed(self) -> bool:
        """Whether a performance says how long the clip is."""
        return WATCH in self.stages

    @property
    def driven(self) -> bool:
        """Whether a voice says how long the clip is."""
        return LISTEN in self.stages

    @property
    def pictures(self) -> frozenset[str]:
        """Names of the pictures that an engine is given; a clip's last frame is one to start from."""
        needed = [entry for entry in self.inputs if entry.required]
        first = [PICTURE.name for entry in needed if entry.kind == "video" and self.samples]
        return frozenset([*first, *(entry.name for entry in needed if entry.kind == "picture")])

    def input(self, name: str) -> Input | None:
        return next((entry for entry in self.inputs if entry.name == name), None)

    def lacks(self, given: Collection[str]) -> Input | None:
        """The first input without which there is no job of it."""
        needed = [entry for entry in self.inputs if entry.required and entry.name not in given]
        if self.either and not any(name in given for name in self.either):
            needed += [entry for entry in self.inputs if entry.name == self.either[0]]
        return needed[0] if needed else None

    def without(self, unwanted: Input) -> "Task":
        return replace(self, inputs=tuple(entry for entry in self.inputs if entry.name != unwanted.name))

    def stages_with(self, given: Collection[str]) -> tuple[str, ...]:
        """Names of the stages of a job with these inputs."""
        return tuple(stage.name for stage in self.stages if not stage.needs or stage.needs in given)


LISTEN = Stage("audio", "Voice", "Listening to the voice", needs="audio")
WATCH = Stage("pose", "Pose", "Following the performance")
# In the order in which they run, whatever the task.
STAGES = (
    Stage("read", "Clip", "Reading the clip that goes on", needs="clip"),
    WATCH,
    Stage("load", "Model", "Loading the model"),
    Stage("text", "Text", "Reading the prompt"),
    LISTEN,
    Stage("image", "Image", "Looking at the picture", needs="image"),
    Stage("denoise", "Denoise", "Denoising"),
    Stage("decode", "Decode", "Decoding frames"),
    Stage("encode", "Encode", "Writing the video"),
    Stage("lipsync", "Speech", "Adding speech", needs="audio"),
    Stage("change", "Frames", "Changing the clip", needs="changes"),
    Stage("file", "File", "Writing the file", needs="file"),
)
SAMPLED = STAGES[:-2]  # of a clip that a model makes
DUBBED = tuple(stage for stage in SAMPLED if stage not in (LISTEN, WATCH))  # a voice is added to the finished clip
DRIVEN = tuple(stage for stage in SAMPLED[:-1] if stage is not WATCH)  # a voice drives it from its first frame
PERFORMED = tuple(stage for stage in SAMPLED[1:-1] if stage is not LISTEN)  # a performance does

PICTURE = Input(
    name="image",
    kind="picture",
    required=True,
    missing="choose a picture first",
    label="Picture",
    part="picture",
    file="input.png",
    help="the picture to start from",
    lacking="no picture yet",
)
END = Input(
    name="end_image",
    kind="picture",
    required=True,
    missing="choose the picture that the clip ends at",
    label="Ends at",
    part="end",
    file="end.png",
    help="the picture to end at, cropped like the first one; the same one twice gives a loop",
    using="ends at the second picture",
)
PROMPT = Input(
    name="prompt",
    kind="text",
    required=True,
    missing="say what should happen, for example “slowly zoom in, sunset light”",
    label="Prompt",
    part="prompt",
    file="",
    help="what should happen",
)
VOICE = Input(
    name="audio",
    kind="audio",
    required=False,
    missing="",
    label="Speech",
    part="voice",
    file="voice.wav",
    help="a voice: the face in the clip speaks it",
    using="the voice above",
)
SPEECH = Input(
    name="audio",
    kind="audio",
    required=True,
    missing="choose a sound file with speech first",
    label="Speech",
    part="voice",
    file="voice.wav",
    help="the voice; the new clip lasts as long, or as the clip does if it is longer",
)
DRIVING = Input(
    name="audio",
    kind="audio",
    required=True,
    missing="choose a sound file with a voice first: it drives the picture, and the clip lasts as long",
    label="Voice",
    part="voice",
    file="voice.wav",
    help="the voice that drives the picture; the clip lasts as long",
    using="the voice above drives it",
    lacking="no voice yet",
)
POSE = Input(
    name="pose_video",
    kind="video",
    required=False,
    missing="",
    label="Pose video",
    part="pose",
    file="pose",
    help="a video of a drawn skeleton that head and body follow, cropped like the picture; after its end they are free",
    using="follows the pose video",
)
PERFORMANCE = Input(
    name="performance",
    kind="video",
    required=False,
    missing="choose a video of a person first: the character of the picture moves like it",
    label="Performance",
    part="performance",
    file="performance",
    help="a video of one person, whose movements and face the character of the picture takes over; the clip lasts as "
    "long",
    option="--video",
    using="moves like the performance",
    lacking="no performance yet",
)
FACE = Input(
    name="face_video",
    kind="video",
    required=False,
    missing="",
    label="Face video",
    part="face",
    file="face",
    help="a square video of the performer's face, frame for frame with the pose video, in place of the one that is cut "
    "out of the performance",
)
MASK = Input(
    name="mask_video",
    kind="video",
    required=False,
    missing="",
    label="Mask video",
    part="mask",
    file="mask",
    help="white where the performer is, black elsewhere, frame for frame with the performance: the character takes the "
    "performer's place and the rest of the video stays",
    using="takes the performer's place",
)
CLIP = Input(
    name="video",
    kind="video",
    required=True,
    missing="choose a clip to add speech to",
    label="Clip",
    part="video",
    file="base",
    help="a clip with a face; it plays forth and back",
)
CHANGED = replace(CLIP, missing="choose a clip to change", help="the clip that is changed; it stays as it is")
NEXT = tuple(
    Input(
        name=f"next_{number}",
        kind="video",
        required=False,
        missing="",
        label="Then",
        part="next",
        file=f"next-{number}",
        help="a clip that follows it",
    )
    for number in range(1, MAX_JOINED + 1)
)
SOUND = Input(
    name="sound",
    kind="audio",
    required=False,
    missing="",
    label="Sound",
    part="sound",
    file="sound.wav",
    help="a sound that is laid under the clip in place of its own, as far as the clip goes; no mouth is changed",
)
BEFORE = Input(
    name="clip",
    kind="video",
    required=True,
    missing="choose a clip to continue",
    label="Clip to continue",
    part="before",
    file="before",
    help="goes on from the last frame of this clip: a video, or the job of a clip that was made here; the new clip is "
    "the old one and what follows",
    option="--continue",
    using="the clip above goes on",
)
SEGMENTS = Input(
    name="segments",
    kind="text",
    required=False,
    missing="",
    label="And then",
    part="segments",
    file="",
    help='what happens after that, a segment each, from the last frame of the one before: "prompt 1 | prompt 2"',
)

TASKS = {
    task.name: task
    for task in (
        Task(
            name="image-to-video",
            short="i2v",
            stored="generate",
            title="image to video",
            inputs=(PICTURE, PROMPT, VOICE, SEGMENTS),
            stages=DUBBED,
            samples=True,
            shape="image",
            untitled="A clip without its prompt",
            stem="clip",
        ),
        Task(
            name="first-last-frame",
            short="flf2v",
            stored="first-last-frame",
            title="first and last frame",
            inputs=(PICTURE, END, PROMPT, VOICE, SEGMENTS),
            stages=DUBBED,
            samples=True,
            shape="image",
            untitled="A clip without its prompt",
            stem="clip",
        ),
        Task(
            name="text-to-video",
            short="t2v",
            stored="text-to-video",
            title="text to video",
            inputs=(PROMPT, VOICE, SEGMENTS),
            stages=DUBBED,
            samples=True,
            shape="",
            untitled="A clip without its prompt",
            stem="clip",
        ),
        Task(
            name="continue",
            short="continue",
            stored="continue",
            title="a clip that goes on",
            # With segments alone, the first is the prompt.
            inputs=(BEFORE, replace(PROMPT, required=False), VOICE, SEGMENTS),
            stages=DUBBED,
            samples=True,
            shape="clip",
            untitled="A clip that goes on",
            stem="clip",
        ),
        Task(
            name="speech-to-video",
            short="s2v",
            stored="speech-to-video",
            title="speech to video",
            inputs=(PICTURE, DRIVING, replace(PROMPT, required=False), POSE),
            stages=DRIVEN,
            samples=True,
            shape="image",
            untitled="A clip that speaks",
            stem="speech",
        ),
        Task(
            name="animate",
            short="animate",
            stored="animate",
            title="a picture that moves like a performance",
            inputs=(
                PICTURE,
                PERFORMANCE,
                replace(POSE, help="a video of a drawn skeleton, in place of the one drawn from the performance"),
                FACE,
                MASK,
                replace(PROMPT, required=False),
            ),
            stages=PERFORMED,
            samples=True,
            shape="image",
            untitled="A clip that moves like a performance",
            stem="animated",
            either=(PERFORMANCE.name, POSE.name),
        ),
        Task(
            name="lip-sync",
            short="",
            stored="lipsync",
            title="speech for a clip",
            inputs=(SPEECH, CLIP),
            stages=SAMPLED[-1:],
            samples=False,
            shape="video",
            untitled="Speech for a video",
            stem="speech",
            done_by="lipsync",
        ),
        Task(
            name="after-work",
            short="",
            stored="after-work",
            title="a changed clip",
            inputs=(CHANGED, *NEXT, SOUND),
            stages=STAGES[-2:],
            samples=False,
            shape="video",
            untitled="A changed clip",
            stem="clip",
            done_by="afterwork",
        ),
    )
}
DEFAULT = next(iter(TASKS.values()))  # of rows that do not say
BY_STORED = {task.stored: task for task in TASKS.values()}


def offered(tasks: Iterable[Task]) -> tuple[Input, ...]:
    """Every input that one of the tasks takes, once; required is what all of them require."""
    tasks = tuple(tasks)
    entries: dict[str, Input] = {}
    for entry in (entry for task in tasks for entry in task.inputs):
        entries.setdefault(entry.name, entry)
    given = [{entry.name for entry in task.inputs if entry.required} for task in tasks]
    return tuple(replace(entry, required=all(name in one for one in given)) for name, entry in entries.items())


def fitting(names: Sequence[str], given: Collection[str]) -> Task:
    """Of these tasks the first that takes all that is given and needs no more; where none does, the first that takes
    it, whose other inputs are then asked for, and where none takes it, the first."""
    tasks = [TASKS[name] for name in names]
    taking = [task for task in tasks if set(given) <= {entry.name for entry in task.inputs}]
    whole = [task for task in taking if {entry.name for entry in task.inputs if entry.required} <= set(given)]
    return (whole or taking or tasks)[0]


def find_task(name: str) -> Task | None:
    """By its name, or by the few letters that stand for it."""
    return TASKS.get(name) or next((task for task in TASKS.values() if name and name == task.short), None)


FORM = offered(task for task in TASKS.values() if task.samples)  # what the form asks for, whatever the model
FILES = {entry.name: entry.file for entry in offered(TASKS.values()) if entry.file}
