"""What a machine has of what jobs need: weights and LoRAs are never sent, each machine keeps its own."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from wan_ui.catalog import Model, Scheme
from wan_ui.files import found, places
from wan_ui.loras.folder import available, sibling
from wan_ui.machine.engine_choice import choose_engine
from wan_ui.request import LoraSpec, Request
from wan_ui.settings import ENGINES, Settings


@dataclass(frozen=True)
class Have:
    """models  "model scheme" -> the engines, as asked for, for which every file is there
    loras   name, as a job has it -> bytes of its files
    """

    models: dict[str, list[str]] = field(default_factory=dict)
    loras: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def look(settings: Settings, device: str, gib: float) -> Have:
    """gib: memory of its GPUs, 0 when that is not known or there are none."""
    models = {}
    for model in found.models(settings).values():
        for scheme in model.schemes.values():
            engines = [
                engine
                for engine in ENGINES
                if not places.availability(model, scheme, settings, engine)
                and _fits(model, scheme, engine, device, gib, settings)
            ]
            if engines:
                models[f"{model.name} {scheme.name}"] = engines
    return Have(models, _loras(settings))


def _fits(model: Model, scheme: Scheme, engine: str, device: str, gib: float, settings: Settings) -> bool:
    if engine != "auto" and engine not in model.family.engines:
        return False
    if not model.needs_gpu:
        return True
    name = choose_engine(engine, settings, family=model.family).name
    return device != "CPU" and (not gib or places.gpu_memory_wanted(model, scheme, name)[1] <= gib)


def _loras(settings: Settings) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for entry in available(settings):
        if entry.problem:
            continue
        files = set(entry.files.values())
        try:
            if entry.paired:  # either file can be named alone, too
                sizes |= {sibling(entry, path): path.stat().st_size for path in files}
            sizes[entry.name] = sum(path.stat().st_size for path in files)
        except OSError:  # gone since
            continue
    return sizes


def lacks(request: Request, there: Have, settings: Settings, node: str) -> str:
    """What the machine called `node` lacks for this job, in words; "" when it can run it."""
    made = request.made_with
    if made is None or not made.model:
        return ""
    if made.engine not in there.models.get(f"{made.model} {made.scheme}", []):
        return f"{node} lacks files of {made.model} with {made.scheme}, or a GPU for it: download them there"
    here = _loras(settings) if made.loras else {}
    for spec in made.loras:
        if why := _lora(spec, there, here):
            return f"{node} {why}"
    return ""


def _lora(spec: LoraSpec, there: Have, here: dict[str, int]) -> str:
    if Path(spec.file).is_absolute():
        return f"does not see {spec.file}, which lies on the page's machine: put it into the LoRA folder of both"
    if spec.file not in there.loras:
        return f"lacks the LoRA {spec.file}: put it into the LoRA folder there"
    if spec.file in here and there.loras[spec.file] != here[spec.file]:
        return f"has another file as the LoRA {spec.file}: {there.loras[spec.file]:,} bytes, {here[spec.file]:,} here"
    return ""
