"""An engine for a name, and why that one: `auto` takes LightX2V where it works in this very process."""

from wan_ui import patches
from wan_ui.engines.base import Engine
from wan_ui.errors import UserError
from wan_ui.importing import no_collection
from wan_ui.machine.engine_choice import EngineChoice, choose_engine, lightx2v_absent
from wan_ui.machine.hardware import measure
from wan_ui.settings import settings


def create_engine(name: str) -> tuple[Engine, EngineChoice]:
    """Engine for `auto | diffusers | lightx2v`, and the reason for the choice. Raises UserError."""
    choice = choose_engine(name, settings(), _unusable)
    if choice.name == "diffusers":
        with no_collection():
            from wan_ui.engines.diffusers import DiffusersEngine

        return DiffusersEngine(), choice
    if absent := lightx2v_absent(settings()):
        raise UserError(f"engine: LightX2V cannot be used: {absent}", field="engine")
    from wan_ui.engines.lightx2v import LightX2VEngine

    return LightX2VEngine(), choice


def _unusable() -> str:
    """ "" when LightX2V works in this process, else why not: of that every job would fail."""
    import torch

    try:
        torch.zeros(1, device="cuda")
    except Exception as error:  # RuntimeError, AssertionError of a build without CUDA, torch.AcceleratorError ...
        return f"torch {torch.__version__} cannot use the GPU: {_first_line(error)}"
    from wan_ui.engines import lightx2v_seams
    from wan_ui.engines.lightx2v_config import environment
    from wan_ui.engines.lightx2v_upstream import CannotImport, import_lightx2v

    try:
        import_lightx2v(environment(settings(), measure()))
        lightx2v_seams.verify()
        for patch in patches.PATCHES:
            patches.resolve(patch)
    except CannotImport as error:
        return error.why
    except UserError as error:
        return _first_line(error)
    except Exception as error:  # upstream's modules run code of their own at import
        return f"LightX2V cannot be imported ({type(error).__name__}: {_first_line(error)})"
    return ""


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
