"""The workers of this machine: one for each GPU that WAN_UI_GPUS names, without a GPU as many as WAN_UI_WORKERS."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from wan_ui.catalog import find_model
from wan_ui.errors import UserError
from wan_ui.files import found, places
from wan_ui.machine.cpus import allowed_cpus
from wan_ui.machine.engine_choice import choose_engine
from wan_ui.machine.gpus import gpus
from wan_ui.machine.hardware import nvidia_gpu
from wan_ui.machine.nvml import Gpu
from wan_ui.queue.worker import Worker
from wan_ui.request import Request
from wan_ui.settings import Settings, split_names


@dataclass(frozen=True)
class Place:
    """Where a worker is to run.

    gpus     those that its child sees; () on a CPU, or when they could not be counted
    size     processes that share a clip: one for each of several GPUs
    threads  of the CPU, for its child; 0: as the settings say
    hidden   its child sees no GPU
    """

    name: str
    gpus: tuple[Gpu, ...] = ()
    threads: int = 0
    hidden: bool = False
    size: int = 1

    @property
    def device(self) -> str:
        return " + ".join(gpu.name or "GPU" for gpu in self.gpus) or ("CPU" if self.name.startswith("cpu") else "GPU")

    def environment(self) -> dict[str, str]:
        if self.gpus:
            return {"CUDA_VISIBLE_DEVICES": ",".join(gpu.uuid for gpu in self.gpus)}
        return {"CUDA_VISIBLE_DEVICES": ""} if self.hidden else {}


def places_here(settings: Settings) -> tuple[list[Place], list[str]]:
    """Where workers run on this machine, one at least unless there is to be none; and what of the settings could not be
    followed, in words."""
    if settings.gpus == "none":
        return [], []
    here = gpus()
    chosen, troubles = chosen_gpus(here, settings)
    if chosen:
        groups, more = in_groups(chosen, settings.parallel)
        troubles += more
        made = [Place("gpu" + "+".join(str(here.index(gpu)) for gpu in own), own, size=len(own)) for own in groups]
        if settings.workers > len(made):
            troubles.append(f"WAN_UI_WORKERS={settings.workers}: there is one worker for each GPU, that is {len(made)}")
        elif settings.workers:
            made = made[: settings.workers]
    elif here or not nvidia_gpu():  # GPUs that were not asked for are left alone
        size = settings.parallel
        made = [Place(f"cpu{number}", hidden=bool(here), size=size) for number in range(settings.workers or 1)]
    else:
        made = [Place("gpu0", size=settings.parallel)]  # its driver does not tell: the engine will
    processes = sum(place.size for place in made)
    if processes > 1:
        share = max(1, (settings.threads or allowed_cpus()) // processes)
        made = [replace(place, threads=share) for place in made]
    return made, troubles


def in_groups(chosen: Sequence[Gpu], size: int) -> tuple[list[tuple[Gpu, ...]], list[str]]:
    """GPUs that share a clip; those that are left over get a worker each, and why."""
    end = len(chosen) // size * size
    groups: list[tuple[Gpu, ...]] = [tuple(chosen[at : at + size]) for at in range(0, end, size)]
    left: list[tuple[Gpu, ...]] = [(gpu,) for gpu in chosen[end:]]
    if not left:
        return groups, []
    count = len(chosen)
    words = (
        f"WAN_UI_PARALLEL={size}: there {'is' if count == 1 else 'are'} {count} GPU{'s' * (count != 1)} to use here, "
    )
    if not groups:
        return left, [f"{words}so that each has a worker of its own; choose at most {count}"]
    return groups + left, [f"{words}so that {len(left)} of them {'has' if len(left) == 1 else 'have'} a worker alone"]


def chosen_gpus(here: Sequence[Gpu], settings: Settings) -> tuple[list[Gpu], list[str]]:
    """Those that WAN_UI_GPUS names, and what is wrong with it."""
    if settings.gpus == "all":
        return list(here), []
    if settings.gpus == "auto":
        return _fitting(here, settings), []
    chosen: list[Gpu] = []
    troubles = []
    numbers = ", ".join(map(str, range(len(here))))
    there = f"here are GPU {numbers}" if len(here) == 1 else f"here are GPUs {numbers}" if here else "no GPU is here"
    seen: set[str] = set()
    for word in split_names(settings.gpus):
        word = str(int(word)) if word.isascii() and word.isdigit() else word  # 00 is 0
        if word in seen:
            troubles.append(f"GPU {word} is named twice; it gets one worker")
        elif not (word.isascii() and word.isdigit()):
            troubles.append(f"{word!r} is no number of a GPU; expected all, auto, or numbers separated by commas")
        elif int(word) >= len(here):
            troubles.append(f"there is no GPU {int(word)}; {there}")
        else:
            chosen.append(here[int(word)])
        seen.add(word)
    return chosen, [f"WAN_UI_GPUS={settings.gpus!r}: {trouble}" for trouble in troubles]


def _fitting(here: Sequence[Gpu], settings: Settings) -> list[Gpu]:
    """Those that hold the model with which the app starts, one expert at a time; if none does, the largest."""
    model = find_model(found.models(settings), settings.model)
    engine = choose_engine(settings.engine, settings, family=model.family).name
    needed = places.gpu_memory_wanted(model, model.scheme(settings.scheme), engine)[1] if model.needs_gpu else 0.0
    fitting = [gpu for gpu in here if not gpu.total or needed <= gpu.total]
    return fitting or sorted(here, key=lambda gpu: -gpu.total)[:1]


def make_worker(place: Place, settings: Settings, engine_factory: str) -> Worker:
    own = replace(settings, threads=place.threads or settings.threads)

    def lacks(request: Request) -> str:
        made = request.made_with
        if made is None:
            return ""
        try:
            model = find_model(found.models(settings), made.model)
            scheme = model.scheme(made.scheme)
            engine = choose_engine(made.engine, settings, family=model.family).name
            if missing := places.availability(model, scheme, settings, made.engine):
                return missing  # another machine may have it
            if not model.needs_gpu:
                return ""
            needed = places.gpu_memory_wanted(model, scheme, engine, (request.width, request.height))[1]
        except UserError:
            return ""  # the job itself will say so
        if not place.gpus:
            return "needs a CUDA GPU" if place.name.startswith("cpu") else ""
        total = min(gpu.total for gpu in place.gpus)  # each of a group has the whole model
        return f"needs {needed:.0f} GiB of GPU memory, {place.name} has {total:.0f}" if 0 < total < needed else ""

    return Worker(own, engine_factory, place.environment(), lacks, place.size)
