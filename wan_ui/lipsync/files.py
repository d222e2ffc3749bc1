"""Where a lip-sync checkpoint keeps its files: the layout that MuseTalk's own download script makes. No torch.

Of what that script fetches three are not read here. ResNet-18's own file is overwritten by 79999_iter.pth; SyncNet
only serves training; DWPose as a `.pth` needs mmpose. Its ONNX form is an option (faces.py says what it takes).
"""

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

# place -> repository, file, bytes: from the repository's page or from the number of float32 values; 0: not known
SOURCES = {
    "musetalkV15/musetalk.json": ("TMElyralab/MuseTalk", "musetalkV15/musetalk.json", 0),
    "musetalkV15/unet.pth": ("TMElyralab/MuseTalk", "musetalkV15/unet.pth", 3_400_000_000),
    "sd-vae/config.json": ("stabilityai/sd-vae-ft-mse", "config.json", 0),
    "sd-vae/diffusion_pytorch_model.safetensors": (
        "stabilityai/sd-vae-ft-mse",
        "diffusion_pytorch_model.safetensors",
        335_000_000,
    ),
    "whisper/config.json": ("openai/whisper-tiny", "config.json", 0),
    "whisper/preprocessor_config.json": ("openai/whisper-tiny", "preprocessor_config.json", 0),
    "whisper/model.safetensors": ("openai/whisper-tiny", "model.safetensors", 151_000_000),
    PARSER: ("ManyOtherFunctions/face-parse-bisent", "79999_iter.pth", 53_000_000),
}
DWPOSE_SOURCES = {
    DETECTOR: ("yzd-v/DWPose", "yolox_l.onnx", 0),
    POSE: ("yzd-v/DWPose", "dw-ll_ucoco_384.onnx", 0),
}


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
