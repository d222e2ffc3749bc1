"""The values of a call of `generate` and of one of `after`, and what each means where it is left out.

In the order of callers who send no names: the inputs of the usual task, with the settings between those that it
requires and the others, and what came later. Which a job cannot do without depends on its task; see queue/intake.py.
"""

import inspect
from typing import Any

from wan_ui.changes import FILES, LOOPS, MAX_FADE, MAX_JOINED, QUALITIES, SPEEDS, Changes
from wan_ui.speaking import NAMES, PART, USUAL
from wan_ui.speaking import WORDS as SPEAKING
from wan_ui.tasks import DEFAULT, FORM, SOUND

REQUIRED = {entry.name: "" if entry.kind == "text" else None for entry in DEFAULT.inputs if entry.required}
SETTINGS = {"model": "", "scheme": "", "size": "auto", "frames": None, "steps": None, "seed": -1, "loras": ""}
OPTIONAL = {"audio": None}
SAMPLING = {"motion": "", "negative": None, "guidance": "", "shift": None, "solver": "", "cache": ""}
LATER = {
    "fps": None,
    "draft": False,
    **SAMPLING,
    "end_image": None,
    "task": "",
    "segments": "",
    "clip": None,
    "job": "",
    "pose_video": None,
    "performance": None,
    "face_video": None,
    "mask_video": None,
    "overlap": None,
    "clips": 1,
    "offload": "",
    "without_picture": False,
    "crop": "",
    "end_crop": "",
    "seconds": None,
    **{name: getattr(USUAL, name) for name in NAMES},
}
# What is said of each to programs; of inputs it is what `--help` says.
WORDS = {
    **{entry.name: entry.help for entry in FORM},
    "model": "name in the catalog; empty: the default",
    "scheme": "quantisation of the weights; empty: the model's default",
    "size": "WIDTHxHEIGHT of the model's list, or auto: what fits the picture",
    "frames": "how many; null: the model's default",
    "steps": "of denoising; null: the model's default",
    "seed": "0 to 4294967295; -1 draws one",
    "loras": "one FILE:STRENGTH:TARGET a line, of the LoRA folder; target is high_noise, low_noise or both",
    "fps": "frames per second; null: the model's",
    "draft": "quicker and less exact, where the GPU has the means",
    "motion": "fast, more or full; empty: the first that the weights can",
    "negative": "what the clip is pushed away from; null is the official text, an empty one none",
    "guidance": "A, or A,B for the two experts",
    "shift": "of the schedule; null: the model's",
    "solver": "unipc, dpm++ or euler; empty: the model's",
    "cache": "magcache or teacache; empty: none",
    "task": "i2v, flf2v, t2v, s2v or animate; empty: what fits the model and what is given",
    "segments": "what happens next: one prompt a line, each a further segment",
    "job": "id of an ended job whose clip is gone on with",
    "clips": "how many of them, each with a seed of its own",
    "without_picture": "the video file does not carry the picture it was made of",
    "crop": "part of the picture: X,Y or X,Y,ZOOM, the centre as parts of width and height; empty: the middle",
    "end_crop": "the same of the picture that the clip ends at",
    "seconds": "how long, in place of frames: the nearest length that the model makes",
    **SPEAKING,
    "overlap": "frames that the segments of a performed clip share",
    "offload": "auto, none, text, model or block: where the weights are while a GPU makes the clip; empty: what fits",
}
PARAMETERS: dict[str, Any] = {**REQUIRED, **SETTINGS, **OPTIONAL, **LATER}
# Of a call of `after`; the names are those of `python -m wan_ui after`.
AFTER: dict[str, Any] = {
    "job": "",
    "clip": None,
    "join": None,
    "start": 0.0,
    "end": 0.0,
    "fade": Changes.fade,
    "frames": "",
    "upscale": "",
    "speed": 1.0,
    "loop": "",
    "sound": None,
    **{name: getattr(USUAL, name) for name in PART},
    "quality": "best",
    "file": "",
}
AFTER_WORDS = {
    **{name: SPEAKING[name] for name in PART},
    "job": "id of an ended job whose clip is changed",
    "clip": "in its place a clip of your own",
    "join": f"clips that follow it, {MAX_JOINED} at most: a list of jobs' ids and of files",
    "start": "keep what comes after this second",
    "end": "and before this one; 0: its end",
    "fade": f"seconds in which one clip fades into the next, 0 (a cut) to {MAX_FADE:g}",
    "frames": "2x or 4x: frames between its frames; empty: as they are",
    "upscale": "2x: twice as wide and high; empty: as it is",
    "speed": f"2: twice as fast; {SPEEDS[0]:g} to {SPEEDS[1]:g}",
    "loop": f"{' or '.join(LOOPS)}; empty: none",
    "sound": SOUND.help,
    "quality": f"{', '.join(QUALITIES)}, of the file",
    "file": f"what is made beside the MP4: {', '.join(FILES)}; empty: nothing",
}


def signature(parameters: dict[str, Any]) -> inspect.Signature:
    return inspect.Signature(
        [
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=value)
            for name, value in parameters.items()
        ]
    )


SIGNATURE = signature(PARAMETERS)
