"""Which part of a picture a clip is made of: a centre and a zoom, which mean the same whatever shape the clip has."""

import math
import re
import reprlib
from dataclasses import dataclass
from typing import Any

from wan_ui.errors import UserError
from wan_ui.tasks import END, PICTURE

MOST_ZOOM = 8.0
FIELDS = {PICTURE.name: "crop", END.name: "end_crop"}  # input -> what its crop is called wherever it is asked for
HOW = "X,Y or X,Y,ZOOM: the centre as parts of width and height, 0 to 1, and 1 to 8 times closer, such as 0.5,0.3,1.2"


@dataclass(frozen=True)
class Crop:
    """x, y   centre as parts of the picture's width and height, 0 to 1; it is moved in where the part would leave it
    zoom  1: the largest part of the clip's shape, to MOST_ZOOM: that many times smaller
    """

    x: float = 0.5
    y: float = 0.5
    zoom: float = 1.0

    def box(self, size: tuple[int, int], target: tuple[int, int]) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) of a picture of `size`, with the shape of `target`."""
        scale = min(size[0] / target[0], size[1] / target[1]) / self.zoom
        width, height = target[0] * scale, target[1] * scale
        left = min(max(self.x * size[0] - width / 2, 0.0), size[0] - width)
        top = min(max(self.y * size[1] - height / 2, 0.0), size[1] - height)
        return left, top, left + width, top + height

    def numbers(self) -> list[float]:
        return [round(value, 4) for value in (self.x, self.y, self.zoom)]


MIDDLE = Crop()


def read_crop(value: Any, field: str) -> Crop:
    """Of a text such as "0.5,0.3,1.2", or two or three numbers; nothing is the middle. Raises UserError (`field`)."""
    if value is None or value == "":
        return MIDDLE
    parts = re.split(r"\s*[,;\s]\s*", value.strip()) if isinstance(value, str) else value
    numbers = [_number(part) for part in parts] if isinstance(parts, list | tuple) and len(parts) in (2, 3) else [None]
    given = [number for number in numbers if number is not None]
    if len(given) != len(numbers):
        raise UserError(f"{field}: {reprlib.repr(value)} is not {HOW}", field=field)
    crop = Crop(*given)
    if not (0 <= crop.x <= 1 and 0 <= crop.y <= 1):
        raise UserError(f"{field}: its centre {crop.x:g},{crop.y:g} is outside of the picture: {HOW}", field=field)
    if not 1 <= crop.zoom <= MOST_ZOOM:
        raise UserError(f"{field}: zoom {crop.zoom:g} is not between 1 and {MOST_ZOOM:g}", field=field)
    return crop


def stored_crops(value: Any) -> dict[str, tuple[float, ...]] | None:
    """Input -> numbers, of a stored request; None where that is something else."""
    if not isinstance(value, dict):
        return None
    found = {}
    for name, numbers in value.items():
        try:
            found[name] = tuple(read_crop(numbers, name).numbers())
        except UserError:
            return None
    return found if set(found) <= set(FIELDS) else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
