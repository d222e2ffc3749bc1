"""MuseTalk's own code, imported from a checkout for the parity tests.

What it imports and does not build or install here (mmpose, its S3FD detector, torchvision, librosa, einops) is replaced
by the few lines of it that are used; what is compared is upstream's own.
"""

import importlib
import sys
import types
import wave
from pathlib import Path

import numpy as np
import torch


def _compose(steps):
    def apply(image):
        for step in steps:
            image = step(image)
        return image

    return apply


def _normalize(mean, std):
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
    return lambda image: (image - mean) / std


def _to_tensor():
    return lambda image: torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)


def _load_wave(path, sr):
    with wave.open(str(path)) as file:
        assert file.getframerate() == sr and file.getnchannels() == 1 and file.getsampwidth() == 2
        return np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768, sr


def _rearrange(tensor, pattern):
    assert pattern == "b c h w -> b (c h) w"
    return tensor.flatten(1, 2)


def _stubs(landmarks: dict) -> dict[str, types.ModuleType]:
    """`landmarks`: "points" [(68, 2) per frame] and "boxes" [box or None per frame], consumed in order."""

    class Detector:
        def __init__(self, *args, **kwargs):
            pass

        def get_detections_for_batch(self, images):
            return [landmarks["boxes"].pop(0)]

    def inference(model, image):
        whole = np.zeros((1, 133, 2), np.float32)
        whole[0, 23:91] = landmarks["points"].pop(0)
        return whole

    def merge(whole):
        return types.SimpleNamespace(pred_instances=types.SimpleNamespace(keypoints=whole))

    contents = {
        "torchvision": {},
        "torchvision.transforms": {"Compose": _compose, "Normalize": _normalize, "ToTensor": _to_tensor},
        "librosa": {"load": _load_wave},
        "einops": {"rearrange": _rearrange},
        "face_detection": {"FaceAlignment": Detector, "LandmarksType": types.SimpleNamespace(_2D=1)},
        "mmpose": {},
        "mmpose.apis": {"inference_topdown": inference, "init_model": lambda *args, **kwargs: None},
        "mmpose.structures": {"merge_data_samples": merge},
    }
    modules = {}
    for name, values in contents.items():
        modules[name] = types.ModuleType(name)
        vars(modules[name]).update(values)
    modules["torchvision"].transforms = modules["torchvision.transforms"]
    return modules


def bisenet(upstream: types.SimpleNamespace) -> torch.nn.Module:
    """Upstream's face parser without weights: it reads ResNet-18's from a file as it is made."""
    resnet = importlib.import_module("musetalk.utils.face_parsing.resnet").Resnet18
    init_weight, resnet.init_weight = resnet.init_weight, lambda self, path: None
    try:
        return upstream.model.BiSeNet("none")
    finally:
        resnet.init_weight = init_weight


def load(checkout: Path, landmarks: dict) -> types.SimpleNamespace:
    """Upstream's modules, by short name. Raises ImportError for a folder that is no checkout: nothing is skipped."""
    if not (checkout / "musetalk" / "models" / "unet.py").is_file():
        raise ImportError(f"WAN_UI_MUSETALK_PATH={checkout} is no checkout of TMElyralab/MuseTalk")
    stubs = _stubs(landmarks)
    before = {name: sys.modules.get(name) for name in stubs}
    sys.modules.update(stubs)
    sys.path.insert(0, str(checkout))
    try:
        names = ("models.vae", "models.unet", "utils.audio_processor", "utils.blending", "utils.face_parsing")
        names += ("utils.face_parsing.model", "utils.preprocessing", "utils.utils")
        found = {name.rsplit(".", 1)[1]: importlib.import_module(f"musetalk.{name}") for name in names}
    finally:
        sys.path.remove(str(checkout))
        for name, module in before.items():
            if module is None:
                sys.modules.pop(name)
            else:
                sys.modules[name] = module
    return types.SimpleNamespace(**found)
