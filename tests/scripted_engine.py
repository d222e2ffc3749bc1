"""An engine that does in the worker what the prompt tells it to: crash, hang, fail, take its time.

"denoise:2=segfault" does so when step 2 of denoise is entered; a comma separates several. "hold" and "stay" wait
in the step until the test lets it go on (`go_on`), however slow the machine is; "stay" hears of no cancel.
"look=1" gives every denoise step a preview.
"memory:N" is out of memory for more than N pixels of all frames together. The frames are the input picture, tinted by
the seed, so that two jobs can be told apart.
"""

import ctypes
import errno
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from wan_ui.engines.base import READY
from wan_ui.errors import UserError
from wan_ui.machine.engine_choice import EngineChoice
from wan_ui.request import Clip, LoraMatch, Progress

LOOK = "data:image/gif;base64,R0lGODlhAQABAIAAAP8AAAAAACwAAAAAAQABAAACAkQBADs="  # one red point
STEPS = {"text": 0, "image": 0, "denoise": None, "decode": 2}


def create_engine(name: str):
    return ScriptedEngine(), EngineChoice("scripted", name)


def go_on(folders: Iterable[Path]) -> None:
    """Release the jobs of these folders, those that hold now and those that would."""
    for folder in folders:
        (folder / "go").touch()


def hold(image: str, look: Callable[[], None]) -> None:
    go, times = Path(image).with_name("go"), 0
    while not go.exists():
        time.sleep(0.1)
        times += 1
        if times % 4 == 0:  # each is written down
            look()


def act(command: str) -> None:
    name, _, value = command.partition(":")
    match name:
        case "segfault":
            ctypes.string_at(0)  # a real SIGSEGV, not a raised exception
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(int(value))
        case "hang":
            time.sleep(3600)
        case "sleep":
            time.sleep(float(value))
        case "limit-files":
            # What a full disk does to every writer, ffmpeg included: no file may grow beyond this.
            import resource  # is not everywhere

            resource.setrlimit(resource.RLIMIT_FSIZE, (int(value), int(value)))
        case "break-ffmpeg":
            replace_ffmpeg("echo 'encoder on strike' >&2; exit 7")
        case "remove-ffmpeg":
            os.environ["IMAGEIO_FFMPEG_EXE"] = "/nowhere/ffmpeg"
        case "slow-ffmpeg":
            replace_ffmpeg('for word; do case "$word" in *.part.mp4) touch "$word";; esac; done; exec sleep 20')
        case "mark":
            Path(value).touch()
        case "refuse":
            raise UserError("prompt: the scripted engine refuses this")
        case "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "clip.mp4")
        case "bug":
            raise ZeroDivisionError("a bug in the engine")


def replace_ffmpeg(words: str) -> None:
    with tempfile.NamedTemporaryFile("w", suffix="-ffmpeg", delete=False) as script:
        script.write(f"#!/bin/sh\n{words}\n")
    os.chmod(script.name, 0o755)
    os.environ["IMAGEIO_FFMPEG_EXE"] = script.name


def read(prompt: str) -> dict[str, str]:
    return dict(item.split("=", 1) for item in prompt.replace(" ", "").split(",") if "=" in item)


class ScriptedEngine:
    loads = 0

    def __init__(self) -> None:
        self.prepared: set[str] = set()

    def check(self, model, scheme, offload="auto") -> None:
        if scheme.name == "fp8-triton":
            raise UserError("scheme: fp8-triton needs the package triton")

    def load(self, model, scheme, report, offload="auto") -> None:
        for step in (1, 2):
            report(Progress("load", step, 2, f"part {step}"))
        if scheme.name == "slow":
            time.sleep(3600)
        if scheme.name == "fp8":
            raise UserError("scheme: the fp8 file is damaged", field="scheme")
        ScriptedEngine.loads += 1

    def set_loras(self, loras) -> tuple[LoraMatch, ...]:
        """Every layer of a LoRA fits, on the experts that its target names."""
        sides = {"both": ("high_noise", "low_noise")}
        return tuple(
            LoraMatch(
                spec.file, spec.strength, spec.target, dict.fromkeys(sides.get(spec.target, (spec.target,)), "8/8")
            )
            for spec in loras
        )

    def prepare(self, request, report) -> None:
        report(Progress("text"))
        self.prepared.add(request.sampling.prompt)
        command = read(request.sampling.prompt).get("prepare", "")
        if command == "hold":
            hold(request.inputs["image"], partial(report, Progress("image")))
        act(command)

    def generate(self, request, report, show=None) -> Clip:
        script = read(request.sampling.prompt)
        for stage, steps in STEPS.items():
            steps = request.sampling.steps if steps is None else steps
            for step in range(1, steps + 1) if steps else [0]:
                expert = "high-noise expert" if step <= steps / 2 else "low-noise expert"
                look = LOOK if stage == "denoise" and script.get("look") else ""
                progress = Progress(stage, step, steps, expert if stage == "denoise" else "", preview=look)
                report(progress)
                for command in (script.get(f"{stage}:{step}", ""), script.get(stage, "")):
                    if command in ("hold", "stay"):
                        hold(request.inputs["image"], partial(report, progress) if command == "hold" else lambda: None)
                    name, _, most = command.partition(":")
                    if name == "memory" and request.width * request.height * request.frames > int(most):
                        raise MemoryError("the scripted engine has no more")
                    act(command)
        shape = (request.height, request.width, 3)
        picture = np.random.default_rng(0).integers(0, 255, shape)  # of words alone
        if "image" in request.inputs:
            picture = np.asarray(Image.open(request.inputs["image"])).astype(int)
        frames = np.stack(
            [np.clip(picture + (request.sampling.seed + 3 * t) % 40, 0, 255) for t in range(request.frames)]
        )
        latents = np.random.default_rng(request.sampling.seed).standard_normal((16, 2, 8, 8), np.float32)
        ready = {"text": READY} if request.sampling.prompt in self.prepared else {}
        return Clip(frames.astype(np.uint8), 16, latents, {"loads": str(ScriptedEngine.loads)}, ready=ready)

    def close(self) -> None:
        pass
