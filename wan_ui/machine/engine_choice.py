"""Which engine runs, and why: the one place where "auto" becomes an engine, for the page and the worker alike."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wan_ui.errors import UserError
from wan_ui.families import Family
from wan_ui.machine import hardware
from wan_ui.settings import ENGINES, Settings


@dataclass(frozen=True)
class EngineChoice:
    """name: diffusers | lightx2v; why: "asked for", or "auto: " and the reason."""

    name: str
    why: str

    @property
    def words(self) -> str:
        """ "diffusers (auto: no CUDA GPU)" """
        return f"{self.name} ({self.why})"


def choose_engine(
    asked: str, settings: Settings, fault: Callable[[], str] = lambda: "", family: Family | None = None
) -> EngineChoice:
    """The engine for `auto | diffusers | lightx2v`. Raises UserError for another name; imports no torch.

    family  of the model, which says who runs it
    fault  for the worker, which can try: "" when LightX2V works in this process, else why not. Of "auto" alone it is
           asked, and only where LightX2V and a GPU seem to be here
    """
    if asked not in ENGINES:
        raise UserError(f"engine: {asked!r} is not known; choose one of {', '.join(ENGINES)}", field="engine")
    able = family.engines if family else ENGINES
    if asked != "auto":
        if asked not in able:
            raise UserError(f"engine: {asked} does not run this model; choose auto or {able[0]}", field="engine")
        return EngineChoice(asked, "asked for")
    if "lightx2v" not in able:
        return EngineChoice("diffusers", "auto: it alone runs this model")
    if not settings.lightx2v_path and not hardware.nvidia_gpu():
        missing = "no CUDA GPU"  # LightX2V would not help, so nothing is said of how to get it
    else:
        missing = lightx2v_missing(settings) or fault()
    if missing:
        return EngineChoice("diffusers", f"auto: {missing}")
    return EngineChoice("lightx2v", "auto: it is here, and so is a CUDA GPU")


def lightx2v_absent(settings: Settings) -> str:
    """ "" when LightX2V itself is here, whatever the GPU; else what to do about it."""
    if settings.lightx2v_path:
        if not (Path(settings.lightx2v_path) / "lightx2v" / "infer.py").is_file():
            return f"WAN_UI_LIGHTX2V_PATH={settings.lightx2v_path} is not a checkout of LightX2V"
    elif not hardware.installed(("lightx2v",)):
        return "LightX2V is not installed (make lightx2v), and WAN_UI_LIGHTX2V_PATH is not set"
    return ""


def lightx2v_missing(settings: Settings) -> str:
    """ "" when LightX2V can be used here, else what is missing. Imports neither torch nor LightX2V."""
    if absent := lightx2v_absent(settings):
        return absent
    if not hardware.nvidia_gpu():
        return "no CUDA GPU for LightX2V"
    if hardware.driver_fault():
        return f"the GPU's driver does not answer: {hardware.driver_fault()}"
    return ""
