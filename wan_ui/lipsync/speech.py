"""The pass: frames and a voice -> frames that speak.

    lipsync = LipSync.load(folder, device)
    for frame in lipsync.speak(frames, fps, samples, report): ...

Base frames go forth and back until the audio ends; where there are more of them, the rest follows silent. Nothing grows
with the length of the audio but its samples (64 kB a second): frames leave one by one, features are computed in
segments of 30 s, and what is kept (latents, boxes, masks) is per base frame. A frame is passed through untouched where
it has no face and where nobody speaks.
"""

from collections import deque
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

from wan_ui.errors import UserError
from wan_ui.lipsync import cache
from wan_ui.lipsync.blend import BLUR, Mask, blend_mask, match_tone, paste
from wan_ui.lipsync.cache import Faces
from wan_ui.lipsync.faces import Detector, Face, create_detector
from wan_ui.lipsync.features import AudioFeatures
from wan_ui.lipsync.files import require_weights
from wan_ui.lipsync.musetalk import MuseTalk, load_musetalk
from wan_ui.lipsync.parsing import Parser, load_parser
from wan_ui.lipsync.sharpness import Sharpener
from wan_ui.lipsync.tracks import follow, follow_upstream, largest_track, track_of
from wan_ui.lipsync.usable import clip_trouble, speaking, trouble
from wan_ui.media import sound
from wan_ui.request import Progress, Report

STAGE = "lipsync"
BATCH = {"cuda": 16, "cpu": 4}  # faces at a time


def base_frame(frame: int, count: int, compat: bool = False) -> int:
    """Which of `count` base frames an output frame shows: forth and back, neither end shown twice in a row.

    Upstream appends the reversed list, so that both ends are.
    """
    period = 2 * count if compat else max(1, 2 * count - 2)
    place = frame % period
    return place if place < count else period - place - (1 if compat else 0)


class LipSync:
    """The loaded pass. `compat` is upstream number for number; `mode` and `blur` are those of `parsing` and `blend`."""

    def __init__(
        self,
        musetalk: MuseTalk,
        detector: Detector,
        parser: Parser,
        *,
        identity: tuple = (),
        cache_folder: Path | None = None,
        batch: int = 0,
        mode: str = "jaw",
        blur: float = BLUR,
        compat: bool = False,
    ):
        self.musetalk, self.detector, self.parser = musetalk, detector, parser
        self.batch = batch or BATCH.get(musetalk.device.type, 4)
        self._identity, self._cache = identity, cache_folder
        self._mode, self._blur, self._compat = mode, blur, compat

    @classmethod
    def load(
        cls,
        folder: Path,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        *,
        cache_folder: Path | None = None,
        **options,
    ) -> "LipSync":
        """Weights in the official layout (see `files`). Raises UserError naming what is missing or damaged.

        cache_folder  where prepared clips are kept; None: they are not
        """
        vae = require_weights(folder)["vae"].stat()
        return cls(
            load_musetalk(folder, device, dtype),
            create_detector(folder, device.type),
            load_parser(folder, device),
            identity=(str(folder.resolve()), vae.st_size, vae.st_mtime_ns),
            cache_folder=cache_folder,
            **options,
        )

    def facts(self) -> dict[str, str]:
        """What did it, for the metadata."""
        musetalk = self.musetalk
        return {
            "lipsync": f"MuseTalk, face of {musetalk.side} pixels",
            "lipsync_device": musetalk.device.type,
            "lipsync_faces": f"{self.detector.name}, mask by {self.parser.name}",
        }

    def prepare(self, frames: np.ndarray, report: Report, chosen: Face | None = None) -> Faces:
        """Find, crop and encode the face of every base frame, (n, H, W, 3) uint8 RGB; from the cache if it is there.

        chosen  the face that is followed, as it is where it is first seen; None: the largest

        Raises UserError when no frame has a face that can speak.
        """
        key = ""
        if self._cache:
            musetalk, names = self.musetalk, (self.detector.name, self.parser.name)
            which = () if chosen is None else (chosen.box,)
            how = (*names, self._mode, self._blur, self._compat, *which)
            key = cache.clip_key(frames, self._identity, musetalk.dtype, *how)
            known = cache.load(self._cache, key)
            if known is not None:
                return known
        faces = self._prepare(frames, report, chosen)
        if self._cache:
            cache.store(self._cache, key, faces)
        return faces

    def _prepare(self, frames: np.ndarray, report: Report, chosen: Face | None) -> Faces:
        count, height, width, _ = frames.shape
        detections = []
        for index, frame in enumerate(frames):
            report(Progress(STAGE, detail=f"looking for the face: frame {index + 1} of {count}"))
            detections.append(self.detector.detect(frame))
        if self._compat:
            track = follow_upstream(detections, height, width)
        else:
            followed = largest_track(detections) if chosen is None else track_of(detections, chosen)
            troubles = ["" if face is None else trouble(face, frames[index]) for index, face in enumerate(followed)]
            if words := clip_trouble(followed, troubles):
                raise UserError(f"speech: the clip has no face that can speak: {words}", field="audio")
            # While the head is turned away its frames are passed through.
            track = follow([[face] if face else [] for face in speaking(followed, troubles)], height, width)
        seen = np.flatnonzero(track.present)
        if not len(seen):
            raise UserError("speech: the clip has no face that can speak: it is cut off by the border", field="audio")
        side = self.musetalk.side
        latents = torch.zeros(count, 8, side // 8, side // 8, dtype=self.musetalk.dtype)
        masks: list[Mask | None] = [None] * count
        step = 1 if self._compat else self.batch  # upstream draws from the posterior, so the order counts
        for first in range(0, len(seen), step):
            report(Progress(STAGE, detail=f"reading the face: frame {first + 1} of {len(seen)}"))
            some = seen[first : first + step]
            crops = np.stack([_crop(frames[index], track.boxes[index], side) for index in some])
            latents[some] = self.musetalk.see(crops, sample=self._compat).cpu()
            for index in some:
                box = tuple(track.boxes[index].tolist())
                masks[index] = blend_mask(
                    frames[index], box, track.landmarks[index], self.parser, self._mode, self._blur
                )
        return Faces(track, latents, masks)

    def speak(
        self,
        frames: np.ndarray,
        fps: float,
        samples: np.ndarray,
        report: Report,
        faces: Faces | None = None,
        voiced: np.ndarray | None = None,
        chosen: Face | None = None,
        sharpen: bool = True,
    ) -> Iterator[np.ndarray]:
        """Frames (H, W, 3) uint8 RGB at `fps`: as many as `sound.frame_count` says, but never fewer than were given.

        frames   (n, H, W, 3) uint8 RGB base frames
        samples  (m,) float32 at 16 kHz, from `sound.decode`
        report   gets Progress("lipsync", i, total) before frame i; what it raises ends the pass
        faces    what `prepare` gave; None: prepared now
        chosen   as for `prepare`
        sharpen  the mouth becomes as sharp as the face around it
        voiced   where somebody speaks, (m,) bool every 20 ms: the lips follow nothing else; None: every sound
        """
        total = sound.frame_count(len(samples), fps, self._compat)
        if not self._compat:
            total = max(total, len(frames))
        gains = np.ones(total) if self._compat else sound.speech_gate(samples, fps, total, voiced)
        if faces is None and gains.any():  # a silent voice needs no face
            faces = self.prepare(frames, report, chosen)
        features = AudioFeatures(self.musetalk, samples if self._compat else sound.for_network(samples))
        sharpener = Sharpener() if sharpen and not self._compat else None
        waiting: deque[tuple[range, dict[int, int], _Fetch | None]] = deque()
        ahead = 1 if self.musetalk.device.type == "cuda" else 0  # the GPU draws the next batch while this one is pasted
        for first in range(0, total, self.batch):
            indices = range(first, min(first + self.batch, total))
            base = {index: base_frame(index, len(frames), self._compat) for index in indices}
            fetch, spoken = None, []
            if faces is not None:
                spoken = [index for index in indices if gains[index] > 0 and faces.track.present[base[index]]]
            if spoken and faces is not None:
                report(Progress(STAGE, first + 1, total, f"frame {first + 1} of {total}"))
                windows = features.windows([sound.window_start(index, fps, self._compat) for index in spoken])
                fetch = _Fetch(self.musetalk.speak(faces.latents[[base[index] for index in spoken]], windows))
            waiting.append((indices, {index: row for row, index in enumerate(spoken)}, fetch))
            while len(waiting) > ahead or (waiting and indices.stop == total):
                yield from self._finish(*waiting.popleft(), frames, faces, gains, sharpener, report)

    def _finish(
        self,
        indices: range,
        rows: dict[int, int],
        fetch: "_Fetch | None",
        frames: np.ndarray,
        faces: Faces | None,
        gains: np.ndarray,
        sharpener: Sharpener | None,
        report: Report,
    ) -> Iterator[np.ndarray]:
        drawn = fetch.wait() if fetch else None
        for index in indices:
            report(Progress(STAGE, index + 1, len(gains), f"frame {index + 1} of {len(gains)}"))
            base = base_frame(index, len(frames), self._compat)
            frame = frames[base].copy()
            mask = faces.masks[base] if faces is not None else None
            if index in rows and faces is not None and drawn is not None and mask is not None:
                box = tuple(faces.track.boxes[base].tolist())
                face = drawn[rows[index]]
                face = face if self._compat else match_tone(face, frame, box)
                face = sharpener.match(face, frame, box, mask) if sharpener else face
                paste(frame, face, box, mask, float(gains[index]))
            yield frame


class _Fetch:
    """A batch of faces on its way from the GPU to the host; the copy is queued before the next batch's work."""

    def __init__(self, faces: torch.Tensor):
        self._event = None
        if faces.device.type == "cuda":
            self._host = torch.empty(faces.shape, dtype=faces.dtype, pin_memory=True)
            self._host.copy_(faces, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()
        else:
            self._host = faces

    def wait(self) -> np.ndarray:
        if self._event:
            self._event.synchronize()
        return self._host.numpy()


def _crop(frame: np.ndarray, box: np.ndarray, side: int) -> np.ndarray:
    left, top, right, bottom = box.tolist()
    return cv2.resize(frame[top:bottom, left:right], (side, side), interpolation=cv2.INTER_LANCZOS4)
