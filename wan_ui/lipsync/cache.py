"""What a clip's faces cost to prepare, kept for the next voice: latents, boxes, landmarks and masks, in safetensors.

One file a clip, named by the hash of everything that its content depends on. A file that cannot be read is made
again. The folder is bounded: the longest unused go first.
"""

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError

from wan_ui import limits
from wan_ui.lipsync.blend import Mask
from wan_ui.lipsync.tracks import Track

VERSION = 2  # of the content: raise it when anything upstream of the cache changes its results


@dataclass(frozen=True)
class Faces:
    """The prepared clip: `latents` (n, 8, s, s) on the CPU and n masks, zeros and None where no face is."""

    track: Track
    latents: torch.Tensor
    masks: list[Mask | None]


def clip_key(frames: np.ndarray, *facts: object) -> str:
    """Hash of (n, H, W, 3) uint8 frames and of all else that the prepared faces depend on."""
    digest = hashlib.blake2b(digest_size=20)
    digest.update(repr((VERSION, frames.shape, *facts)).encode())
    for frame in frames:
        digest.update(np.ascontiguousarray(frame).data)
    return digest.hexdigest()


def load(folder: Path, key: str) -> Faces | None:
    """The faces stored under `key`, or None."""
    path = folder / f"{key}.safetensors"
    try:
        stored = safetensors.torch.load_file(path)
        os.utime(path)
        present, boxes, landmarks = (stored[name].numpy() for name in ("present", "boxes", "landmarks"))
        track = Track(present, boxes, landmarks, int(stored["faces"]))
        alpha, start = stored["alpha"].numpy(), 0
        masks: list[Mask | None] = []
        for left, top, height, width in stored["places"].tolist():
            part = alpha[start : start + height * width].reshape(height, width)
            masks.append(Mask(part, left, top) if height else None)
            start += height * width
        return Faces(track, stored["latents"], masks)
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


def store(folder: Path, key: str, faces: Faces) -> None:
    """Write the faces of a clip and delete what is over the bounds. A full disk costs the cache, not the job."""
    places = [(m.left, m.top, *m.alpha.shape) if m else (0, 0, 0, 0) for m in faces.masks]
    alpha = [m.alpha.ravel() for m in faces.masks if m]
    tensors = {
        "present": torch.from_numpy(faces.track.present),
        "boxes": torch.from_numpy(faces.track.boxes),
        "landmarks": torch.from_numpy(faces.track.landmarks),
        "faces": torch.tensor(faces.track.faces),
        "latents": faces.latents,
        "alpha": torch.from_numpy(np.concatenate(alpha) if alpha else np.zeros(0, np.uint8)),
        "places": torch.tensor(places, dtype=torch.int64),
    }
    part = folder / f".{key}.{os.getpid()}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_file(tensors, part)
        os.replace(part, folder / f"{key}.safetensors")
        trim(folder)
    except (OSError, SafetensorError):
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def trim(folder: Path, max_files: int = limits.FACE_FILES, max_bytes: int = limits.FACE_BYTES) -> None:
    """Delete the longest unused clips until the folder is inside the bounds."""
    stats = {path: path.stat() for path in folder.glob("*.safetensors")}
    size, newest = 0, sorted(stats, key=lambda path: -stats[path].st_mtime_ns)
    for number, path in enumerate(newest, 1):
        size += stats[path].st_size
        if number > max_files or size > max_bytes:
            path.unlink(missing_ok=True)
