"""Where networks for after-work are looked for, and what is said where there are none. torch waits until one is read.

Nobody publishes them on the hub under their own name, so they are put there by hand: `<models>/rife/flownet.pkl` (or
a .pth) of hzwer's Practical-RIFE, `<models>/upscale/*.pth` of xinntao's Real-ESRGAN. ComfyUI's folders are looked into
as well.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from wan_ui.errors import UserError
from wan_ui.files import comfyui
from wan_ui.settings import Settings

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SUFFIXES = (".pkl", ".pth", ".safetensors")
COMFYUI_RIFE = "custom_nodes/*/ckpts/rife/*"  # of the nodes ComfyUI-Frame-Interpolation


def device() -> "torch.device":
    """Where the networks run."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def rife_file(settings: Settings) -> Path | None:
    """The newest version by its name."""
    found = _in(settings.models / "rife")
    for root in comfyui.installations(settings):
        found += sorted((path for path in root.glob(COMFYUI_RIFE) if path.suffix in SUFFIXES), reverse=True)
    return found[0] if found else None


def upscaler_file(settings: Settings) -> Path | None:
    """One that makes it twice as large before those that make it four times."""
    found = _in(settings.models / "upscale")
    for folder in comfyui.folders(settings, "upscale_models"):
        found += _in(folder)
    return min(found, key=lambda path: "x2" not in path.name.lower(), default=None)


def _in(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("*") if path.suffix in SUFFIXES and path.is_file()), reverse=True)


def between_words(settings: Settings) -> str:
    """What frames between frames are made by here."""
    path = rife_file(settings)
    if path is not None:
        return f"RIFE ({path.name})"
    return "optical flow (OpenCV DIS; no RIFE in the models folder)"


def upscale_words(settings: Settings) -> str:
    """What makes a clip larger here."""
    path = upscaler_file(settings)
    if path is not None:
        return f"{path.name}"
    return "Lanczos: larger, not sharper (no Real-ESRGAN in the models folder)"


def read_tensors(path: Path, field: str) -> "dict[str, Tensor]":
    """Tensors of a file by name, on the CPU; nothing in a pickle is executed. Raises UserError (`field`)."""
    import safetensors.torch
    import torch

    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged pickle raises depends on the byte
        words = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{field}: {path.name} cannot be read ({words}); take it away or fetch it again", field=field
        ) from None
    for name in ("params_ema", "params"):  # as Real-ESRGAN's training stores them
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
    if not isinstance(found, dict):
        raise UserError(f"{field}: {path.name} holds no named tensors; take it away or fetch it again", field=field)
    return {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}
