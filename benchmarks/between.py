"""How good frames between frames are: photos that were held out move in known ways, so the right frame is known.

    python -m benchmarks.between

Every motion is drawn at a fine grid of times from each example photo; a frame between two others is made by optical
flow and by blending, and compared with the one that was drawn (PSNR in dB). One of twice as many frames is half way,
of four times as many a quarter. With RIFE's weights in the models folder they are measured as well.
"""

import time

import cv2
import numpy as np
from PIL import Image

from wan_ui.afterwork.between import choose_between
from wan_ui.afterwork.flow import FlowBetween
from wan_ui.afterwork.loops import mix
from wan_ui.settings import ROOT, Settings

SIZE = (320, 256)
PHOTOS = ("astronaut", "cat", "coffee", "rocket", "lagoon", "portrait")


class Blend:
    words = "blending"

    def at(self, first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
        return mix(first, second, share)


def window(photo: np.ndarray, x: float, y: float, zoom: float = 1.0, turn: float = 0.0) -> np.ndarray:
    """A view of the photo around a place that is x, y pixels away from its middle."""
    height, width = photo.shape[:2]
    cosine, sine = np.cos(turn) / zoom, np.sin(turn) / zoom
    middle = (SIZE[0] / 2, SIZE[1] / 2)
    place = np.array(
        [
            [cosine, -sine, width / 2 + x - cosine * middle[0] + sine * middle[1]],
            [sine, cosine, height / 2 + y - sine * middle[0] - cosine * middle[1]],
        ],
        np.float32,
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(photo, place, SIZE, flags=flags, borderMode=cv2.BORDER_REFLECT)


def passing(photo: np.ndarray, moment: float, speed: float) -> np.ndarray:
    """A round piece of the mirrored photo crosses the photo, which goes the other way: much is hidden and uncovered."""
    back, front = window(photo, -1.5 * speed * moment, 0), window(photo[:, ::-1], -3 * speed * moment, -speed * moment)
    mask = np.zeros(SIZE[::-1], np.float32)
    centre = (int((SIZE[0] / 2 + 3 * speed * moment) * 16), int((SIZE[1] / 2 + speed * moment) * 16))
    cv2.ellipse(mask, centre, (60 * 16, 80 * 16), 0, 0, 360, 1.0, -1, cv2.LINE_AA, 4)
    return (back * (1 - mask[..., None]) + front * mask[..., None] + 0.5).astype(np.uint8)


MOTIONS = {
    "pan, 9 pixels": lambda photo, moment: window(photo, 8.6 * moment, 2.2 * moment),
    "zoom, 4%": lambda photo, moment: window(photo, 0, 0, 1.04**moment),
    "turn, 2.3 degrees": lambda photo, moment: window(photo, 0, 0, 1.0, 0.04 * moment),
    "something passes, 9 pixels": lambda photo, moment: passing(photo, moment, 2),
    "something passes, 28 pixels": lambda photo, moment: passing(photo, moment, 6),
}


def psnr(made: np.ndarray, right: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(np.mean((made.astype(float) - right) ** 2), 1e-9)))


def main() -> None:
    ways = [Blend(), FlowBetween()]
    chosen = choose_between(Settings())
    ways += [] if isinstance(chosen, FlowBetween) else [chosen]
    photos = []
    for name in PHOTOS:
        image = Image.open(ROOT / "assets" / "examples" / f"{name}.jpg").convert("RGB")
        scale = 520 / min(image.size)
        photos.append(np.asarray(image.resize((round(image.width * scale), round(image.height * scale)))))
    print(f"| PSNR in dB, half way / a quarter | {' | '.join(way.words for way in ways)} |")
    print(f"|---|{'---|' * len(ways)}")
    spent, frames = [0.0] * len(ways), 0
    for motion, draw in MOTIONS.items():
        row = []
        for number, way in enumerate(ways):
            results: dict[float, list[float]] = {0.5: [], 0.25: []}
            for photo in photos:
                first, second = draw(photo, -0.5), draw(photo, 0.5)
                for share, found in results.items():
                    started = time.perf_counter()
                    made = way.at(first, second, share)
                    spent[number] += time.perf_counter() - started
                    found.append(psnr(made, draw(photo, share - 0.5)))
            row.append(" / ".join(f"{np.mean(found):.1f}" for found in results.values()))
        frames += 2 * len(photos)
        print(f"| {motion} | {' | '.join(row)} |")
    print(f"| seconds a frame of {SIZE[0]}x{SIZE[1]} | {' | '.join(f'{one / frames:.2f}' for one in spent)} |")


if __name__ == "__main__":
    main()
