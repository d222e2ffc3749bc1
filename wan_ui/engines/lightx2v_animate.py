"""LightX2V's transformer of Animate, called as the one of animate_dit.py is.

Upstream reads the face's pictures at every step, and shows the very same face to the half that guidance pushes away
from; the official code shows that half none. Here the face is read once, as in the other engine, and what upstream
would do with it is replaced: see `embedded`.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from wan_ui.engines import animate_dit
from wan_ui.engines.base import OnBlock
from wan_ui.engines.dit import module_names, read_config
from wan_ui.engines.lightx2v_seams import put
from wan_ui.engines.lightx2v_stages import shown
from wan_ui.engines.lightx2v_upstream import device_name
from wan_ui.files.dit_file import read_dit
from wan_ui.files.model_configs import read_official
from wan_ui.files.names import rename
from wan_ui.files.places import Paths
from wan_ui.files.tensors import load_strict, read_plain

Loaded = Any  # a LightX2VEngine
ENCODERS = ("motion_encoder", "face_encoder")


class Transformer:
    """Upstream's WanAnimateModel. config: of what animate.py asks for"""

    def __init__(self, engine: Loaded, paths: Paths):
        self.engine, (self.model,) = engine, engine.transformers
        self.faces = load_encoders(paths, engine.dtype, torch.device(device_name()))
        size = read_official(paths.configs[0]).get("face_size", 512)
        self.config = {"motion_encoder_size": size}
        put(self.model.pre_infer, "after_patch_embedding", embedded)

    def read_face(self, faces: torch.Tensor) -> torch.Tensor:
        """As AnimateTransformer.read_face."""
        motion, face = (getattr(self.faces, name) for name in ENCODERS)
        return animate_dit.read_face(motion, face, faces.to(self.engine.dtype))

    def __call__(
        self,
        inputs: torch.Tensor,
        timestep: torch.Tensor,
        text: torch.Tensor,
        picture: torch.Tensor,
        pose: torch.Tensor,
        face: torch.Tensor,
    ) -> torch.Tensor:
        """As AnimateTransformer.forward, of one clip."""
        scheduler, dtype = self.engine.runner.scheduler, self.engine.dtype
        own = self.engine.loaded.family.vae.channels
        scheduler.at(inputs[0, :own], timestep.item() / 1000, 0, None)
        given = {
            "text_encoder_output": {"context": text.to(device_name(), dtype)},
            "image_encoder_output": {
                "clip_encoder_out": picture[0].to(device_name(), dtype),
                "vae_encoder_out": inputs[0, own:].to(device_name(), dtype),
                "pose_latents": pose.to(device_name(), dtype),
                "face_pixel_values": face[0].to(device_name(), dtype),
            },
        }
        with torch.no_grad():
            velocity: torch.Tensor = self.model._infer_cond_uncond(given)
        return velocity.float()[None]

    def shown(self, on_block: OnBlock | None) -> AbstractContextManager[None]:
        return shown(self.model.transformer_infer, on_block) if on_block else nullcontext()

    def close(self) -> None:
        return None


def embedded(
    weights: Any, x: torch.Tensor, pose_latents: torch.Tensor, face_pixel_values: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """In place of upstream's after_patch_embedding, whose pictures of the face are tokens already."""
    x[:, :, 1:].add_(weights.pose_patch_embedding.apply(pose_latents))
    return x, face_pixel_values


def load_encoders(paths: Paths, dtype: torch.dtype, device: torch.device) -> torch.nn.Module:
    """The motion and the face encoder, out of the transformer's file. Raises UserError."""
    (path,), (config,) = paths.experts, paths.configs
    arguments, _ = read_config(config)
    stored = {name: parameter for name, parameter in read_dit(path, "", config).items() if name.startswith(ENCODERS)}
    names = module_names(read_dit(path, "", config))
    whole, model = animate_dit.build(arguments, read_official(config)), torch.nn.Module()
    for name in ENCODERS:
        model.add_module(name, getattr(whole, name))
    tensors = {}
    for name, parameter in stored.items():
        in_float32 = name == "motion_encoder.dec.direction.weight"
        tensors[name] = read_plain(path, parameter).to(device, torch.float32 if in_float32 else dtype)
        if name.startswith("motion_encoder.") and name.endswith(".bias"):  # stored with four dimensions
            tensors[name] = tensors[name].flatten()
    load_strict(model, rename(tensors, names), file=path)
    return model.to(device).eval().requires_grad_(False)
