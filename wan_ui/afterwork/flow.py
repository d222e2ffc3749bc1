"""The frame between two frames by optical flow: what moves is moved, what is hidden is taken from the side that has it.

OpenCV's DIS finds the flow both ways. Each flow is carried to the moment that is wanted, the more the better the way
back agrees with it, and both are laid together; what nobody knows is filled in from around it. The two frames are then
pulled there, and of each point the frame counts in which it can be seen. benchmarks/between.py has what that gains
over blending.
"""

import cv2
import numpy as np

AGREES = (0.05, 0.5)  # share of the squared length of the flow, and squared pixels, by which the two ways may differ
FAINT = 1e-3  # weight of a flow that the way back contradicts: better than none
AROUND = 8.0  # pixels from which a point that no flow reaches takes its own
FILLS = 0.05  # weight of those beside a flow of its own
HIDDEN = 0.1  # weight of a frame in which a point is probably hidden


class FlowBetween:
    """words: what it is, for people."""

    words = "optical flow (OpenCV DIS)"

    def __init__(self) -> None:
        # Dense inverse search down to the full size: half of it would miss what is small.
        self.search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self.search.setFinestScale(0)
        self.pair: tuple[np.ndarray, np.ndarray] | None = None
        self.flows: tuple[np.ndarray, ...] = ()

    def at(self, first: np.ndarray, second: np.ndarray, time: float) -> np.ndarray:
        """The frame (H, W, 3) uint8 at `time` of 0..1 between two; asked again for the same pair it is quicker."""
        if self.pair is None or self.pair[0] is not first or self.pair[1] is not second:
            self.pair, self.flows = (first, second), self._look(first, second)
        there, back, seen, seen_back = self.flows
        grid = _grid(*first.shape[:2])
        moved, moved_back = (
            _carry(there, seen**2 + FAINT, grid, time),
            _carry(back, seen_back**2 + FAINT, grid, 1 - time),
        )
        # As from the first to the second frame, whose way back points the other way.
        total = (1 - time) * moved[1:] - time * moved_back[1:]
        weight = (1 - time) * moved[0] + time * moved_back[0]
        around = np.stack([cv2.GaussianBlur(part, (0, 0), AROUND) for part in total])
        flow = (total + FILLS * around) / (weight + FILLS * cv2.GaussianBlur(weight, (0, 0), AROUND) + 1e-9)
        flow = np.moveaxis(flow, 0, -1)
        sides = []
        for frame, visible, pull, share in (
            (first, seen, -time * flow, 1 - time),
            (second, seen_back, (1 - time) * flow, time),
        ):
            there_ = _inside(grid + pull)
            counts = share * (there_ * (_pull(visible, pull, grid) + HIDDEN) + 1e-3)
            sides.append((_pull(frame, pull, grid).astype(np.float32), counts[..., None]))
        (one, of_one), (other, of_other) = sides
        return np.clip((one * of_one + other * of_other) / (of_one + of_other) + 0.5, 0, 255).astype(np.uint8)

    def _look(self, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, ...]:
        """Both flows, and of each how far the other agrees, 0..1."""
        gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (first, second)]
        there, back = self._flow(gray[0], gray[1]), self._flow(gray[1], gray[0])
        grid = _grid(*gray[0].shape)
        return there, back, _agreement(there, back, grid), _agreement(back, there, grid)

    def _flow(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(H, W, 2) float32: how far each point of the first has gone in the second, pixels."""
        return self.search.calc(first, second, np.zeros((*first.shape, 2), np.float32))


def _grid(height: int, width: int) -> np.ndarray:
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.stack([columns, rows], -1)


def _pull(values: np.ndarray, flow: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """What stands in `values` where the flow points."""
    place = (grid + flow).astype(np.float32)
    return cv2.remap(values, place[..., 0], place[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _inside(place: np.ndarray) -> np.ndarray:
    height, width = place.shape[:2]
    x, y = place[..., 0], place[..., 1]
    return ((x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)).astype(np.float32)


def _agreement(flow: np.ndarray, back: np.ndarray, grid: np.ndarray) -> np.ndarray:
    returning = _pull(back, flow, grid)
    apart = ((flow + returning) ** 2).sum(-1)
    share, beside = AGREES
    agreed = np.exp(-apart / (share * ((flow**2).sum(-1) + (returning**2).sum(-1)) + beside))
    return (agreed * _inside(grid + flow)).astype(np.float32)


def _carry(flow: np.ndarray, weight: np.ndarray, grid: np.ndarray, time: float) -> np.ndarray:
    """(3, H, W): where each point is at `time` on its way, the sum of the weights and of the weighted flows."""
    height, width = weight.shape
    place = grid + time * flow
    corner = np.floor(place).astype(np.int64)
    right, below = np.moveaxis(place - corner, -1, 0)
    sums = np.zeros((3, height * width))
    for dx, dy, share in (
        (0, 0, (1 - right) * (1 - below)),
        (1, 0, right * (1 - below)),
        (0, 1, (1 - right) * below),
        (1, 1, right * below),
    ):
        x, y = corner[..., 0] + dx, corner[..., 1] + dy
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        index, counts = (y * width + x)[inside], (share * weight)[inside]
        for row, values in enumerate((counts, counts * flow[..., 0][inside], counts * flow[..., 1][inside])):
            sums[row] += np.bincount(index, values, height * width)
    return sums.reshape(3, height, width).astype(np.float32)
