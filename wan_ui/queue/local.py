"""The workers of this machine: one for each GPU that WAN_UI_GPUS names, without a GPU as many as WAN_UI_WORKERS."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from wan_ui.catalog import find_model
from wan_ui.errors import UserError
from wan_ui.files import found, places
from wan_ui.machine.cpus import allowed_cpus
from wan_ui.machine.engine_choice import choose_engine
from wan_ui.machine.gpus import Gpu, gpus
from wan_ui.machine.hardware import nvidia_gpu
from wan_ui.queue.worker import Worker
from wan_ui.request import Request
from wan_ui.settings import Settings, split_names


@dataclass(frozen=True)
class Place:
    """Where a worker is to run.

    gpus     those that its child sees; () on a CPU, or when they could not be counted
    threads  of the CPU, for its child; 0: as the settings say
    hidden   its child sees no GPU
    """

    name: str
    gpus: tuple[Gpu, ...] = ()
    threads: int = 0
    hidden: bool = False

    @property
    def device(self) -> str:
        return " + ".join(gpu.name or "GPU" for gpu in self.gpus) or ("CPU" if self.name.startswith("cpu") else "GPU")

    def environment(self) -> dict[str, str]:
        if self.gpus:
            return {"CUDA_VISIBLE_DEVICES": ",".join(gpu.uuid for gpu in self.gpus)}
        return {"CUDA_VISIBLE_DEVICES": ""} if self.hidden else {}


def places_here(settings: Settings) -> tuple[list[Place], list[str]]:
    """Where workers run on this machine, at least one; and what of the settings could not be followed, in words."""
    here = gpus()
    chosen, troubles = chosen_gpus(here, settings)
    if chosen:
        made = [Place(f"gpu{here.index(gpu)}", (gpu,)) for gpu in chosen]
        if settings.workers > len(made):
            troubles.append(f"WAN_UI_WORKERS={settings.workers}: there is one worker for each GPU, that is {len(made)}")
        elif settings.workers:
            made = made[: settings.workers]
    elif here or not nvidia_gpu():  # GPUs that were not asked for are left alone
        made = [Place(f"cpu{number}", hidden=bool(here)) for number in range(settings.workers or 1)]
    else:
        made = [Place("gpu0")]  # its driver does not tell: the engine will
    if len(made) > 1:
        share = max(1, (settings.threads or allowed_cpus()) // len(made))
        made = [replace(place, threads=share) for place in made]
    return made, troubles


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
    for word in split_names(settings.gpus):
        if not (word.isascii() and word.isdigit()):
            troubles.append(f"{word!r} is no number of a GPU; expected all, auto, or numbers separated by commas")
        elif int(word) >= len(here):
            troubles.append(f"there is no GPU {int(word)}; {there}")
        elif here[int(word)] in chosen:
            troubles.append(f"GPU {int(word)} is named twice; it gets one worker")
        else:
            chosen.append(here[int(word)])
    return chosen, [f"WAN_UI_GPUS={settings.gpus!r}: {trouble}" for trouble in troubles]


def _fitting(here: Sequence[Gpu], settings: Settings) -> list[Gpu]:
    """Those that hold the model with which the app starts, one expert at a time; if none does, the largest."""
    model = find_model(found.models(settings), settings.model)
    engine = choose_engine(settings.engine, settings).name
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
            scheme, engine = model.scheme(made.scheme), choose_engine(made.engine, settings).name
            if not model.needs_gpu:
                return ""
            needed = places.gpu_memory_wanted(model, scheme, engine, (request.width, request.height))[1]
        except UserError:
            return ""  # the job itself will say so
        if not place.gpus:
            return "needs a CUDA GPU" if place.name.startswith("cpu") else ""
        total = sum(gpu.total for gpu in place.gpus)
        return f"needs {needed:.0f} GiB of GPU memory, {place.name} has {total:.0f}" if 0 < total < needed else ""

    return Worker(own, engine_factory, place.environment(), lacks)
