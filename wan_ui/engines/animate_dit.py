"""The Animate transformer: diffusers' blocks, driven by a pose and by a face that is read once for all steps.

diffusers' WanAnimateTransformer3DModel reads the face's pictures at every step and has key and value of its face
blocks apart; here the face becomes tokens once a segment (`read_face`), and the face blocks have the official layout,
so that fp8 and GGUF layers stay as they are stored. tests/engines/test_animate.py holds both together.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from wan_ui.engines.wan_classes import WanAnimateTransformer3DModel
from wan_ui.files import animate_names
from wan_ui.files.tensors import shapes_alone

AT_ONCE = 8  # faces


class FaceBlock(nn.Module):
    """Tokens of each latent frame attend to the face tokens of the same one."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.linear1_kv, self.linear1_q = nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        self.linear2 = nn.Linear(dim, dim)
        self.q_norm, self.k_norm = (nn.RMSNorm(dim // heads, eps=1e-6) for _ in range(2))

    def forward(self, tokens: torch.Tensor, face: torch.Tensor) -> torch.Tensor:
        """tokens (n, t * s, dim) and face (n, t, k, dim) -> what is added to the tokens."""
        count, frames, _, dim = face.shape
        query = self.linear1_q(F.layer_norm(tokens, (dim,), eps=1e-6))
        key, value = self.linear1_kv(F.layer_norm(face, (dim,), eps=1e-6)).chunk(2, dim=-1)
        query = query.reshape(count * frames, -1, self.heads, dim // self.heads)
        key, value = (x.reshape(count * frames, -1, self.heads, dim // self.heads) for x in (key, value))
        query, key = self.q_norm(query).to(value), self.k_norm(key).to(value)
        found = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (query, key, value)))
        return self.linear2(found.transpose(1, 2).reshape(tokens.shape))


class AnimateTransformer(WanAnimateTransformer3DModel):
    """See the module's docstring."""

    def __init__(self, **arguments: Any):
        super().__init__(**arguments)
        heads = self.config["num_attention_heads"]
        count = animate_names.face_blocks(self.config["num_layers"])
        dim = heads * self.config["attention_head_dim"]
        self.face_adapter = nn.ModuleList([FaceBlock(dim, heads) for _ in range(count)])

    @torch.inference_mode()
    def read_face(self, faces: torch.Tensor) -> torch.Tensor:
        """Faces (3, T, S, S) in -1 .. 1 -> (1, 1 + t, k, dim): nothing for the picture's frame, then tokens."""
        return read_face(self.motion_encoder, self.face_encoder, faces.to(self.dtype))

    def forward(
        self,
        hidden_states: torch.Tensor,
        timestep: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        encoder_hidden_states_image: torch.Tensor,
        pose: torch.Tensor,
        face: torch.Tensor,
    ) -> torch.Tensor:
        """Latents with their condition (n, 36, 1 + t, h, w) -> velocity (n, 16, 1 + t, h, w).

        pose  (n, 16, t, h, w): latents; it has no part in the first frame, which is the picture's
        face  (n, 1 + t, k, dim) as `read_face` gives it
        """
        count, _, frames, height, width = hidden_states.shape
        rotary = self.rope(hidden_states)
        tokens = self.patch_embedding(hidden_states)
        tokens[:, :, 1:] += self.pose_patch_embedding(pose)
        tokens = tokens.flatten(2).transpose(1, 2).contiguous()
        temb, modulation, text, image = self.condition_embedder(
            timestep, encoder_hidden_states, encoder_hidden_states_image, timestep_seq_len=None
        )
        context = torch.cat([image, text], dim=1)
        for number, block in enumerate(self.blocks):
            tokens = block(tokens, context, modulation.unflatten(1, (6, -1)), rotary)
            if number % animate_names.EVERY == 0:
                tokens = tokens + self.face_adapter[number // animate_names.EVERY](tokens, face)
        shift, scale = (self.scale_shift_table + temb.unsqueeze(1)).chunk(2, dim=1)
        tokens = self.proj_out((self.norm_out(tokens.float()) * (1 + scale) + shift).to(tokens.dtype))
        patches = tokens.reshape(count, frames, height // 2, width // 2, 1, 2, 2, -1)
        return patches.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6, 7).flatten(4, 5).flatten(2, 3)


def read_face(motion_encoder: Any, face_encoder: Any, faces: torch.Tensor) -> torch.Tensor:
    """See AnimateTransformer.read_face."""
    motion = torch.cat([motion_encoder(part) for part in faces.transpose(0, 1).split(AT_ONCE)])
    tokens = face_encoder(motion[None])
    return torch.cat([torch.zeros_like(tokens[:, :1]), tokens], dim=1)


def build(arguments: dict[str, Any], config: dict[str, Any]) -> AnimateTransformer:
    """Without weights ("meta"), but for its constants. arguments, config: see wan_ui.engines.dit.read_config."""
    sizes = {name: config.get(name, usual) for name, usual in animate_names.SIZES.items()}
    face, motion = sizes["face_size"], sizes["motion_encoder_dim"]
    dim = arguments["num_attention_heads"] * arguments["attention_head_dim"]
    with shapes_alone():
        model = AnimateTransformer(
            **arguments,
            latent_channels=arguments["out_channels"],
            image_dim=sizes["clip_width"],
            added_kv_proj_dim=dim,
            motion_encoder_channel_sizes={
                str(2**power): animate_names.channels(2**power, motion) for power in range(2, face.bit_length())
            },
            motion_encoder_size=face,
            motion_style_dim=motion,
            motion_dim=animate_names.DIRECTIONS,
            motion_encoder_dim=motion,
            face_encoder_hidden_dim=sizes["face_width"],
            face_encoder_num_heads=animate_names.HEADS,
        )
    blur = torch.tensor([1.0, 3.0, 3.0, 1.0])
    for module in model.motion_encoder.modules():
        if hasattr(module, "blur_kernel"):
            module.blur_kernel = torch.outer(blur, blur) / blur.sum() ** 2
    return model
