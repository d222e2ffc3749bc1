"""The classes of diffusers that the engines are made of."""

from wan_ui.light_diffusers import alone

with alone():
    from diffusers.models.activations import GELU
    from diffusers.models.autoencoders.autoencoder_kl_wan import (
        AutoencoderKLWan,
        WanAttentionBlock,
        WanCausalConv3d,
        WanResample,
        WanResidualBlock,
        patchify,
        unpatchify,
    )
    from diffusers.models.transformers.transformer_wan import WanAttnProcessor, WanTransformer3DModel
    from diffusers.models.transformers.transformer_wan_animate import WanAnimateTransformer3DModel

__all__ = [
    "GELU",
    "AutoencoderKLWan",
    "WanAnimateTransformer3DModel",
    "WanAttentionBlock",
    "WanAttnProcessor",
    "WanCausalConv3d",
    "WanResample",
    "WanResidualBlock",
    "WanTransformer3DModel",
    "patchify",
    "unpatchify",
]
