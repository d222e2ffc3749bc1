"""LightX2V's entry points, called as its own command line calls them: import, configuration, runner, request."""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from wan_ui.engines import lightx2v_attention
from wan_ui.errors import UserError
from wan_ui.families import Family
from wan_ui.settings import default_environment, settings


class CannotImport(UserError):
    """LightX2V is here and cannot be used in this process; `why` without the field's name."""

    def __init__(self, why: str):
        super().__init__(f"engine: {why}", field="engine")
        self.why = why.splitlines()[0][:300]


def import_lightx2v(environ: dict[str, str]) -> str:
    """Import LightX2V (from WAN_UI_LIGHTX2V_PATH if set); its device's name. Raises CannotImport."""
    path = settings().lightx2v_path
    if path and path not in sys.path:
        sys.path.insert(0, path)
    default_environment(environ)
    try:
        import lightx2v.infer  # noqa: F401 - registers the runners
        from lightx2v.utils.ggml_tensor import dequantize_c
    except (ImportError, AttributeError, OSError, RuntimeError) as error:  # RuntimeError: no CUDA device
        raise CannotImport(f"LightX2V cannot be imported ({error}); see README, or use --engine diffusers") from error
    if dequantize_c is not None:
        raise CannotImport("LightX2V takes a CPU path for GGUF when llama_cpp is installed; uninstall llama-cpp-python")
    lightx2v_attention.register()
    return device_name()


def device_name() -> str:
    from lightx2v_platform.base import global_var

    return global_var.AI_DEVICE


def compute_dtype() -> torch.dtype:
    from lightx2v.utils.envs import GET_DTYPE

    return GET_DTYPE()


def start_runner(
    family: Family, root: Path, values: dict[str, Any], prepare: Callable[[Any], None] = lambda config: None
) -> Any:
    """A loaded runner for a model of `family` in `root`. The JSON lives only as long as upstream reads it.

    prepare  gets the whole configuration before anything is made from it
    """
    from lightx2v.infer import init_runner
    from lightx2v.utils.set_config import set_config

    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".json") as file:
        json.dump(values, file)
        file.flush()
        arguments = argparse.Namespace(
            model_cls=family.runner,
            task=family.task,
            support_tasks=[],
            model_path=str(root),
            config_json=file.name,
            use_prompt_enhancer=False,
        )
        config = set_config(arguments)
        prepare(config)
        return init_runner(config)


def input_info(family: Family, **values: Any) -> Any:
    """Upstream's record of what is asked for of a model of `family`."""
    from lightx2v.utils.input_info import init_empty_input_info, update_input_info_from_dict

    info = init_empty_input_info(family.task, [])
    update_input_info_from_dict(info, values)
    return info
