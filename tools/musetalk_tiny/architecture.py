"""Sizes of the small MuseTalk, and its files in the official layout.

    musetalkV15/musetalk.json, unet.pth      UNet2DConditionModel: in 8, out 4, one pass at timestep 0
    sd-vae/config.json, diffusion_pytorch_model.safetensors      AutoencoderKL: stride 8, 4 channels
    whisper/config.json, preprocessor_config.json, model.safetensors     the encoder that listens

The decoder that every Whisper checkpoint has is kept at one tiny layer: nothing runs it.
"""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

SIDE = 256  # of the face crop, pixels
SCALING = 0.18215  # the latents' factor, as in stable diffusion: their standard deviation is 1 / SCALING
WINDOW, PAD = 10, 4  # whisper frames (50 Hz) per video frame, and how many of them lie before it

VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": [24, 32, 64, 64],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "sample_size": SIDE,
    "scaling_factor": SCALING,
}
WHISPER = {
    "d_model": 64,
    "encoder_layers": 4,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 192,
    "num_mel_bins": 80,
    "max_source_positions": 1500,
    "decoder_layers": 1,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 16,
    "max_target_positions": 4,
    "vocab_size": 4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
}
UNET = {
    "sample_size": SIDE // 8,
    "in_channels": 8,
    "out_channels": 4,
    "block_out_channels": [32, 64, 64],
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 1,
    "cross_attention_dim": WHISPER["d_model"],
    "attention_head_dim": 4,
    "norm_num_groups": 8,
    "center_input_sample": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "act_fn": "silu",
    "norm_eps": 1e-5,
}


def build() -> tuple[AutoencoderKL, UNet2DConditionModel, WhisperModel]:
    torch.manual_seed(0)
    return AutoencoderKL(**VAE), UNet2DConditionModel(**UNET), WhisperModel(WhisperConfig(**WHISPER))


def start_from(folder: Path, vae, unet, whisper) -> None:
    """Load what `save` wrote."""
    vae.load_state_dict(load_file(folder / "sd-vae" / "diffusion_pytorch_model.safetensors"))
    unet.load_state_dict(torch.load(folder / "musetalkV15" / "unet.pth", weights_only=True))
    tensors = load_file(folder / "whisper" / "model.safetensors")
    whisper.load_state_dict({key.removeprefix("model."): value for key, value in tensors.items()})


def norm_in_half(module: torch.nn.GroupNorm, x: torch.Tensor) -> torch.Tensor:
    """GroupNorm that answers in the dtype of its input (sums are in float32 anyway).

    Autocast would run it, and the SiLU behind it, in float32: twice the memory traffic of all that is slow here.
    """
    with torch.autocast(x.device.type, enabled=False):
        weight, bias = module.weight.to(x.dtype), module.bias.to(x.dtype)
        return torch.nn.functional.group_norm(x, module.num_groups, weight, bias, module.eps)


def positions(length: int, width: int) -> torch.Tensor:
    """(length, width): the sinusoidal position encoding that MuseTalk adds to the audio tokens."""
    rate = torch.exp(torch.arange(0, width, 2) * (-torch.log(torch.tensor(10000.0)) / width))
    angle = torch.arange(length)[:, None] * rate
    encoding = torch.zeros(length, width)
    encoding[:, 0::2], encoding[:, 1::2] = angle.sin(), angle.cos()
    return encoding


def log_mel(sound: torch.Tensor) -> torch.Tensor:
    """(n, 480000) at 16 kHz -> (n, 80, 3000), as WhisperFeatureExtractor computes it, but on any device."""
    filters = torch.from_numpy(WhisperFeatureExtractor().mel_filters).float().to(sound.device)  # (201, 80)
    window = torch.hann_window(400, device=sound.device)
    power = torch.stft(sound, 400, 160, window=window, return_complex=True)[..., :-1].abs().square()
    mel = (filters.T @ power).clamp(min=1e-10).log10()
    mel = torch.maximum(mel, mel.amax((1, 2), keepdim=True) - 8)
    return (mel + 4) / 4


def hear(whisper: WhisperModel, mel: torch.Tensor) -> torch.Tensor:
    """(n, 80, 3000) -> (n, 1500, layers + 1, d): every hidden state of the encoder."""
    states = whisper.encoder(mel, output_hidden_states=True).hidden_states
    return torch.stack(states, 2)


def tokens(heard: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """(n, T, layers + 1, d) and whisper frames (n, k) -> (n * k, WINDOW * (layers + 1), d), positions added."""
    n, _, layers, width = heard.shape
    padded = torch.nn.functional.pad(heard, (0, 0, 0, 0, PAD, WINDOW))
    index = at[..., None] + torch.arange(WINDOW, device=at.device)
    picked = padded[torch.arange(n, device=at.device)[:, None, None], index]
    picked = picked.reshape(-1, WINDOW * layers, width)
    return picked + positions(WINDOW * layers, width).to(picked)


def masked(picture: torch.Tensor) -> torch.Tensor:
    """(n, 3, s, s) in -1..1 with the lower half black."""
    return torch.cat([picture[:, :, : SIDE // 2], torch.full_like(picture[:, :, SIDE // 2 :], -1)], 2)


def save(folder: Path, vae, unet, whisper) -> None:
    """Write the official layout in float16."""
    half = lambda model: {k: v.detach().half().cpu().contiguous() for k, v in model.state_dict().items()}  # noqa: E731
    for name in ("musetalkV15", "sd-vae", "whisper"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    torch.save(half(unet), folder / "musetalkV15" / "unet.pth")
    named = {"_class_name": "UNet2DConditionModel", **UNET}
    (folder / "musetalkV15" / "musetalk.json").write_text(json.dumps(named, indent=2) + "\n")
    save_file(half(vae), folder / "sd-vae" / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    (folder / "sd-vae" / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKL", **VAE}, indent=2) + "\n")
    weights = {f"model.{k}": v for k, v in half(whisper).items()}
    save_file(weights, folder / "whisper" / "model.safetensors", {"format": "pt"})
    named = {"architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper", **WHISPER}
    (folder / "whisper" / "config.json").write_text(json.dumps(named, indent=2) + "\n")
    extractor = {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": 80,
        "sampling_rate": 16000,
        "hop_length": 160,
        "n_fft": 400,
        "chunk_length": 30,
        "n_samples": 480000,
        "nb_max_frames": 3000,
        "padding_value": 0.0,
        "padding_side": "right",
        "return_attention_mask": False,
    }
    (folder / "whisper" / "preprocessor_config.json").write_text(json.dumps(extractor, indent=2) + "\n")
