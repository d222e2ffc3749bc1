"""Where a lip-sync checkpoint keeps its files: the layout that MuseTalk's own download script makes. No torch."""

from pathlib import Path

from wan_ui.errors import UserError

# role -> names, the preferred first
NETWORKS = {
    "unet_config": ("musetalkV15/musetalk.json",),
    "unet": ("musetalkV15/unet.safetensors", "musetalkV15/unet.pth"),
    "vae_config": ("sd-vae/config.json",),
    "vae": ("sd-vae/diffusion_pytorch_model.safetensors", "sd-vae/diffusion_pytorch_model.bin"),
    "whisper_config": ("whisper/config.json",),
    "preprocessor": ("whisper/preprocessor_config.json",),
    "whisper": ("whisper/model.safetensors", "whisper/pytorch_model.bin"),
}
PARSER = "face-parse-bisent/79999_iter.pth"
DETECTOR, POSE = "dwpose/yolox_l.onnx", "dwpose/dw-ll_ucoco_384.onnx"


def find_weights(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """The files of the networks that are in `folder`, by role, and the names of those missing."""
    found, missing = {}, []
    for role, names in NETWORKS.items():
        here = [folder / name for name in names if (folder / name).is_file()]
        if here:
            found[role] = here[0]
        else:
            missing.append(" or ".join(names))
    return found, missing


def require_weights(folder: Path) -> dict[str, Path]:
    """As `find_weights`; raises UserError that lists what is missing."""
    found, missing = find_weights(folder)
    if missing:
        raise UserError(f"lip-sync weights: {folder} lacks {', '.join(missing)}; place them there")
    return found
