"""A MuseTalk of random weights in the official layout, small enough for a test."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from wan_ui.lipsync.musetalk import AutoencoderKL, UNet2DConditionModel
from wan_ui.lipsync.whisper import WhisperEncoder

UNET = {
    "in_channels": 8,
    "out_channels": 4,
    "sample_size": 64,
    "layers_per_block": 1,
    "block_out_channels": [16, 32],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "norm_num_groups": 8,
    "attention_head_dim": 4,
}
VAE = {
    "block_out_channels": [8, 8, 16, 16],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "layers_per_block": 1,
}
WHISPER = {
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 32,
    "vocab_size": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}


def write_musetalk(folder: Path, side: int = 64, width: int = 24, seconds: int = 30) -> Path:
    """Write the folder: faces of `side` pixels, audio features `width` wide, Whisper segments of `seconds`."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**UNET, cross_attention_dim=width)
    vae = AutoencoderKL(**VAE, sample_size=side)
    sizes = {name: value for name, value in WHISPER.items() if name.startswith("encoder_")}
    sizes |= {"d_model": width, "max_source_positions": 50 * seconds}
    whisper = WhisperEncoder(**sizes)
    for tensor in whisper.parameters():
        if tensor.dim() > 1:
            tensor.data.normal_(0, 0.02)  # as transformers begins; to import that takes as long as all the rest
    for name in ("musetalkV15", "sd-vae", "whisper"):
        (folder / name).mkdir(parents=True)
    (folder / "musetalkV15/musetalk.json").write_text(json.dumps(dict(unet.config)))
    torch.save(unet.state_dict(), folder / "musetalkV15/unet.pth")
    vae.save_pretrained(folder / "sd-vae")
    (folder / "whisper/config.json").write_text(json.dumps({"model_type": "whisper"} | WHISPER | sizes))
    save_file({f"model.encoder.{k}": v for k, v in whisper.state_dict().items()}, folder / "whisper/model.safetensors")
    (folder / "whisper/preprocessor_config.json").write_text(json.dumps({"feature_size": 80, "chunk_length": seconds}))
    return folder
