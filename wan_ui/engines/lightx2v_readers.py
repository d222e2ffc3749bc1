"""The functions with which LightX2V reads its weight files, for weights that are in none (wan_ui.qa.synthetic)."""

from collections.abc import Callable
from typing import Any

from wan_ui.engines.lightx2v_seams import put

Reader = Callable[..., Any]


def wrap_readers(opening: Callable[[Reader], Reader], loading: Callable[[Reader], Reader]) -> None:
    """Replace its readers of safetensors and of `.pth` by what is made of them here; it must have been imported.

    opening  of safe_open(path, framework, device)
    loading  of load_weights(path, cpu_offload, ...): the text encoder's and both VAEs'
    """
    from lightx2v.models.input_encoders.hf.wan.t5 import model as t5
    from lightx2v.models.networks import base_model
    from lightx2v.models.video_encoders.hf.wan import vae, vae_2_2

    put(base_model, "safe_open", opening(base_model.safe_open))
    reader = loading(t5.load_weights)
    for module in (t5, vae, vae_2_2):
        put(module, "load_weights", reader)
