"""Ways of sampling a model: distilled in a few steps, undistilled with guidance, or first the one and then the other.

A recipe is data of the catalog: what its steps, guidance, shift and solver are, and which of them are a choice.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from wan_ui.errors import UserError

# What the official code pushes the clip away from (`sample_neg_prompt` in wan/configs/shared_config.py): gaudy colours,
# overexposed, static, blurred, subtitles, style, painting, still, greyish, worst quality, JPEG artefacts, ugly,
# mutilated, extra fingers, badly drawn hands and faces, deformed, fused fingers, motionless, cluttered background,
# three legs, many people in the background, walking backwards.
NEGATIVE = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，"
    "丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，"
    "杂乱的背景，三条腿，背景人很多，倒着走"
)
# The same for clips that a voice drives (`sample_neg_prompt` in wan/configs/wan_s2v_14B.py): instead of colours and
# subtitles' neighbours it names strong emotions and quickly shaking hands.
NEGATIVE_OF_SPEECH = (
    "画面模糊，最差质量，画面模糊，细节模糊不清，情绪激动剧烈，手快速抖动，字幕，丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，"
    "畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"
)
# What the official code says of a performance where nothing is written (`prompt` in wan/configs/wan_animate_14B.py):
# "the person in the video is doing something".
PERFORMING = "视频中的人在做动作"
OFFICIAL_NEGATIVES = (NEGATIVE, NEGATIVE_OF_SPEECH)
GUIDANCE, SHIFT = (1.0, 20.0), (1.0, 20.0)  # smallest and largest that are taken
SOLVERS = {"unipc": "UniPC", "dpm++": "DPM++", "euler": "Euler"}
# Of distilled models alone: every step goes to what it takes the clip to be, and takes fresh noise from there.
DMD = "dmd"
DMD_STEPS = 3  # it was distilled at so many
TITLES = SOLVERS | {DMD: "DMD, with fresh noise after each step"}
CACHES = {"off": "Off", "magcache": "MagCache", "teacache": "TeaCache"}
FEWEST_CACHED = 20  # steps; of fewer, each differs too much from the one before


@dataclass(frozen=True)
class Motion:
    """title: on the page; words: what it costs and what it does"""

    name: str
    title: str
    words: str


MOTIONS = {
    motion.name: motion
    for motion in (
        Motion("fast", "Fast", "distilled: a few steps of one pass each; movements come out small and slow"),
        Motion(
            "more",
            "More motion",
            "the first high-noise steps run undistilled, with guidance: larger movements, about twice the time of Fast",
        ),
        Motion(
            "full",
            "Full",
            "undistilled, as the model was trained: the most motion and detail, two passes in each of many steps, "
            "about twenty times the time of Fast",
        ),
    )
}


@dataclass(frozen=True)
class Recipe:
    """One way of sampling a model.

    steps     (fewest, most) denoise steps
    guidance  of each expert in the order in which they run; 1: none
    solver    of SOLVERS; where it is fixed, also DMD
    fixed     distilled for these: guidance, shift and solver are no choice
    negative  the official text of what such clips are pushed away from
    magcache, teacache  what of configs/step_caches.toml was measured on this model; empty: nothing was
    """

    steps: tuple[int, int]
    default_steps: int
    guidance: tuple[float, ...]
    shift: float
    solver: str = "euler"
    fixed: bool = True
    negative: str = NEGATIVE
    magcache: str = ""
    teacache: str = ""

    @property
    def guided(self) -> bool:
        return any(scale > 1 for scale in self.guidance)

    @property
    def caches(self) -> tuple[str, ...]:
        """Those of CACHES that may be chosen."""
        names = tuple(name for name, measured in (("magcache", self.magcache), ("teacache", self.teacache)) if measured)
        return ("off", *names) if names else ()


def read_guidance(value: object, experts: int) -> tuple[float, ...]:
    """ "3.5", "4,3", 3.5 or (4, 3) -> one number for each expert. Raises UserError."""
    if isinstance(value, str):
        value = value.split(",")
    parts: Sequence[object] = value if isinstance(value, list | tuple) else (value,)
    scales = tuple(_number("guidance", part, *GUIDANCE) for part in parts)
    if len(scales) not in (1, experts):
        of = "one number" if experts == 1 else "one number, or two: high-noise expert, low-noise expert"
        raise UserError(f"guidance: {len(scales)} numbers were given; this model takes {of}", field="guidance")
    return scales if len(scales) == experts else scales * experts


def read_shift(value: object) -> float:
    """Raises UserError."""
    return _number("shift", value, *SHIFT)


def _number(field: str, value: object, smallest: float, largest: float) -> float:
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not smallest <= number <= largest:
        raise UserError(f"{field}: {str(value)[:40]!r} is not a number from {smallest:g} to {largest:g}", field=field)
    return number
