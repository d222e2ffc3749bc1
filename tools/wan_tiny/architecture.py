"""Wan-Tiny's sizes and its three networks, built from diffusers' and transformers' own classes.

Everything is Wan2.2-I2V in small, so that the engines that run the 14B model run this one.
The 4-step schedule is that of the distilled release: sigma = shift u / (1 + (shift - 1) u)
of u = 1, .75, .5, .25 with shift 5; the high-noise expert takes sigma >= 0.9.
"""

VAE = dict(base_dim=16, z_dim=16, dim_mult=[1, 2, 4, 6], num_res_blocks=1)
EXPERT = dict(
    dim=256,
    num_heads=4,
    num_layers=8,
    ffn_dim=1024,
    freq_dim=256,
    in_dim=36,
    out_dim=16,
    text_dim=128,
    text_len=512,
    eps=1e-6,
)
TEXT = dict(vocab_size=2048, dim=128, dim_attn=128, dim_ffn=256, num_heads=4, num_layers=2, num_buckets=32)

SIGMAS = (1.0, 0.9375, 0.8333333333, 0.625, 0.0)
BOUNDARY = 0.9
SIZES = ((256, 256), (192, 320), (320, 192))  # height, width
FRAMES = (17, 25, 33)

# The statistics of Wan2.1's latents, which LightX2V and the official code hard-code.
LATENTS_MEAN = (
    -0.7571,
    -0.7089,
    -0.9113,
    0.1075,
    -0.1745,
    0.9653,
    -0.1517,
    1.5508,
    0.4134,
    -0.0715,
    0.5517,
    -0.3632,
    -0.1922,
    -0.9497,
    0.2503,
    -0.2921,
)
LATENTS_STD = (
    2.8184,
    1.4541,
    2.3275,
    2.6558,
    1.2196,
    1.7708,
    2.6052,
    2.0743,
    3.2687,
    2.1526,
    2.8652,
    1.5579,
    1.6382,
    1.1253,
    2.8251,
    1.9160,
)


def shifted(u, shift=5.0):
    """Where a uniform time u in [0, 1] lands under Wan's shifted schedule."""
    return shift * u / (1 + (shift - 1) * u)


def build_vae():
    """AutoencoderKLWan, 4.6M parameters; statistics as in Wan2.1."""
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan(**VAE, latents_mean=list(LATENTS_MEAN), latents_std=list(LATENTS_STD))


def build_expert():
    """WanTransformer3DModel, 9.1M parameters."""
    from diffusers import WanTransformer3DModel

    return WanTransformer3DModel(
        num_attention_heads=EXPERT["num_heads"],
        attention_head_dim=EXPERT["dim"] // EXPERT["num_heads"],
        in_channels=EXPERT["in_dim"],
        out_channels=EXPERT["out_dim"],
        text_dim=EXPERT["text_dim"],
        freq_dim=EXPERT["freq_dim"],
        ffn_dim=EXPERT["ffn_dim"],
        num_layers=EXPERT["num_layers"],
        eps=EXPERT["eps"],
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
    )


def build_text_encoder():
    """UMT5EncoderModel, 0.6M parameters."""
    from transformers import UMT5Config, UMT5EncoderModel

    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=TEXT["vocab_size"],
            d_model=TEXT["dim"],
            d_kv=TEXT["dim_attn"] // TEXT["num_heads"],
            d_ff=TEXT["dim_ffn"],
            num_heads=TEXT["num_heads"],
            num_layers=TEXT["num_layers"],
            relative_attention_num_buckets=TEXT["num_buckets"],
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            pad_token_id=0,
            eos_token_id=1,
        )
    )
