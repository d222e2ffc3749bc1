"""What kernels are tried on: the sizes of one transformer block at a size of clip."""

import json
from dataclasses import dataclass

from wan_ui.catalog import Model, load_catalog
from wan_ui.machine import hardware
from wan_ui.place import DATA
from wan_ui.settings import Settings


@dataclass(frozen=True)
class Shape:
    """What one transformer block of a model works on.

    name    model, size and frames, for people
    tokens  latent frames times patches; width = heads * head_dim; ffn is the hidden width of the feed-forward
    """

    name: str
    tokens: int
    heads: int
    head_dim: int
    ffn: int

    @property
    def width(self) -> int:
        return self.heads * self.head_dim


def shape_of(model: Model, width: int, height: int, frames: int) -> Shape:
    """What the transformer blocks of `model` work on at that size. Raises UserError for a damaged config."""
    released = model.family.transformer
    dim, heads, ffn = released.width, released.heads, released.ffn
    if model.embedded:
        file = DATA / model.root.removeprefix("embedded:") / model.family.experts[0].config
        config = json.loads(file.read_text(encoding="utf-8"))
        dim, heads, ffn = config["dim"], config["num_heads"], config["ffn_dim"]
    tokens = model.family.tokens(width, height, frames)
    return Shape(f"{model.name} {width}x{height}x{frames}", tokens, heads, dim // heads, ffn)


def default_shapes(settings: Settings) -> list[Shape]:
    """Wan-Tiny's; on a GPU also those of A14B at 480x480 and 832x480."""
    catalog = load_catalog(settings.catalog)
    tiny = catalog["wan-tiny"]
    shapes = [shape_of(tiny, *tiny.sizes[0], tiny.default_frames)]
    if hardware.gpu():
        model = catalog["i2v-a14b"]
        shapes += [shape_of(model, *size, model.default_frames) for size in model.sizes[:2]]
    return shapes
