"""Model families: what is alike in all models of one architecture, one record each.

A catalog entry names its family; whatever depends on the architecture is read off the record, so that another
family is one record here and entries in configs/catalog.toml.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

Condition = Literal["channels", "first frame", "reference", "none"]
# Of the official config.json: transformers that are told from the plain ones of the same sizes by more tensors.
UNLIKE = ("animate", "s2v")
# What a family can be given, by how its picture enters: names of inputs of wan_ui.tasks, one set for each way.
PICTURES: dict[Condition, tuple[frozenset[str], ...]] = {
    "channels": (frozenset({"image"}), frozenset({"image", "end_image"})),
    "first frame": (frozenset({"image"}), frozenset()),
    "reference": (frozenset({"image"}),),
    "none": (frozenset(),),
}
TIME_STRIDE = 4  # frames per latent frame after the first, in every VAE of Wan


@dataclass(frozen=True, slots=True)
class Expert:
    """One transformer of a family.

    side    high | low | "" for the only one: in names of stages, and what a DIT file's own name says
    name    in names of files and in LightX2V's configuration: high_noise | low_noise | dit
    target  what a LoRA for it asks for: high_noise | low_noise | both
    title   in words
    config  its config.json, below a model's root
    shipped  its file, below the root of an embedded model
    """

    side: str
    name: str
    target: str
    title: str
    config: str
    shipped: str


@dataclass(frozen=True, slots=True)
class Transformer:
    """Sizes of a released transformer. A LoRA fits every model with the same, and is told by their width.

    name   a14b | 5b | wan2.1 | wan-tiny: what `LoraEntry.fits` says
    width  of its tokens
    ffn    width of the feed-forward
    older  an earlier model of the same sizes: its LoRAs fit as well
    """

    name: str
    title: str
    width: int
    blocks: int
    heads: int
    ffn: int
    older: str = ""


@dataclass(frozen=True, slots=True)
class Vae:
    """A VAE: its file below a model's root, and its sizes.

    channels  of its latents
    stride    pixels per latent, each way
    patch     pixels that it takes together, each way, before its first convolution
    encoder, decoder  width of the first stage of the one and the last of the other
    residual  layers are grouped by stage and have a shortcut past each stage; else they are one flat list
    """

    file: str
    channels: int
    stride: int
    patch: int
    encoder: int
    decoder: int
    residual: bool

    def latents(self, width: int, height: int, frames: int) -> tuple[int, int, int, int]:
        """Shape (z, t, h, w) of the latents of a clip; sizes in pixels."""
        return self.channels, latent_frames(frames), height // self.stride, width // self.stride


@dataclass(frozen=True, slots=True)
class Speech:
    """How a voice drives the clips of a family: in segments of `Model.default_frames` - 1 frames, each of which sees
    the end of what is there.

    motion   frames that it sees of those before
    dropped  frames at the beginning of the first segment that are not shown: its first latent frame stands for one
    encoder  folder of the wav2vec2 that hears the voice, below the model's root
    """

    motion: int
    dropped: int
    encoder: str

    def segments(self, frames: int, segment: int) -> int:
        """How many make a clip of `frames`."""
        return -(-(frames + self.dropped) // segment)


@dataclass(frozen=True, slots=True)
class Performance:
    """How a performance drives the clips of a family: in segments of `Model.default_frames`, each of which begins with
    the end of the one before.

    overlaps  how many frames that may be, the usual number first
    clip      file of the CLIP that looks at the picture, below the model's root
    """

    overlaps: tuple[int, ...]
    clip: str


@dataclass(frozen=True, slots=True)
class Family:
    """One model family.

    name       what the catalog calls it
    experts    in the order in which they run
    condition  how the picture enters: as "channels" beside the latents (a mask of 4, then the latents of the picture
               and grey frames), as the "first frame" of the latents (given, not denoised), as a "reference", whose
               tokens follow those of the clip, or not at all ("none")
    model_type  of the official config.json
    task       LightX2V's name of what the model does
    runner     LightX2V's name of the class that runs it; it also decides which configuration that class reads
    fps        frames per second that it was trained for
    speech     how a voice drives it; None: none does
    performance  how a performance drives it; None: none does
    engines    those that run it, of wan_ui.settings.ENGINES
    """

    name: str
    experts: tuple[Expert, ...]
    transformer: Transformer
    vae: Vae
    condition: Condition
    model_type: str
    task: str
    runner: str
    fps: int
    speech: Speech | None = None
    performance: Performance | None = None
    engines: tuple[str, ...] = ("diffusers", "lightx2v")

    @property
    def sides(self) -> tuple[str, ...]:
        return tuple(expert.side for expert in self.experts)

    @property
    def driven(self) -> str:
        """What drives its clips: voice | performance; empty: nothing"""
        return "voice" if self.speech else "performance" if self.performance else ""

    @property
    def single(self) -> bool:
        """Whether one transformer takes all steps."""
        return len(self.experts) == 1

    @property
    def token(self) -> int:
        """Pixels per token, each way. The transformer takes 2 x 2 latents together."""
        return 2 * self.vae.stride

    @property
    def grid(self) -> int:
        """Pixels that sizes are multiples of, each way: of its tokens, or of those that stand for 8 x 8 latents."""
        return 8 * self.vae.stride if self.speech else self.token

    @property
    def input_channels(self) -> int:
        """Channels that enter the transformer."""
        return self.vae.channels + (4 + self.vae.channels if self.condition == "channels" else 0)

    def tokens(self, width: int, height: int, frames: int) -> int:
        """What the transformer's blocks work on for a clip of that size."""
        return latent_frames(frames) * (height // self.token) * (width // self.token)

    def condition_frames(self, frames: int) -> int:
        """How many frames are encoded for the condition of a clip of `frames`."""
        return {"channels": frames, "first frame": 1, "reference": 1, "none": 0}[self.condition]

    def condition_shape(self, width: int, height: int, frames: int, pictures: int = 1) -> tuple[int, int, int, int]:
        """Shape (c, t, h, w) of what conditions a clip of that size; c is 0 where the family knows no pictures, t where
        it knows them as first frames and there are none."""
        z, t, h, w = self.vae.latents(width, height, frames)
        first = (z, min(pictures, 1), h, w)
        shapes: dict[Condition, tuple[int, int, int, int]] = {
            "channels": (4 + z, t, h, w),
            "first frame": first,
            "reference": (z, 1, h, w),
            "none": (0, t, h, w),
        }
        return shapes[self.condition]

    def root(self, config: Path) -> Path:
        """The model's root, from where the first expert's config.json lies."""
        return config.parents[len(PurePosixPath(self.experts[0].config).parts) - 1]


def of_width(width: int) -> Transformer | None:
    """The transformer whose tokens are that wide."""
    return next((transformer for transformer in TRANSFORMERS.values() if transformer.width == width), None)


def with_transformer(name: str) -> list[Family]:
    """The families that run the transformer called `name`; Wan2.1 and Wan-Tiny go the way of A14B."""
    return [family for family in FAMILIES.values() if family.transformer.name == name] or [FAMILIES["a14b"]]


def may_have_experts(transformer: str) -> bool:
    """Whether a model with that transformer may have two experts."""
    return not all(family.single for family in with_transformer(transformer))


def patch_channels(transformer: str) -> set[int]:
    """How many channels a patch embedding of that transformer takes, one number for each way that a picture enters."""
    return {family.input_channels for family in with_transformer(transformer)}


def latent_frames(frames: int) -> int:
    """Of a clip of 4k+1 frames."""
    return 1 + (frames - 1) // TIME_STRIDE


HIGH_NOISE = Expert(
    side="high",
    name="high_noise",
    target="high_noise",
    title="high-noise expert",
    config="high_noise_model/config.json",
    shipped="HighNoise/*-Q8_0.gguf",
)
LOW_NOISE = Expert(
    side="low",
    name="low_noise",
    target="low_noise",
    title="low-noise expert",
    config="low_noise_model/config.json",
    shipped="LowNoise/*-Q8_0.gguf",
)
DIT = Expert(side="", name="dit", target="both", title="transformer", config="config.json", shipped="*-Q8_0.gguf")
EXPERTS = {expert.side: expert for expert in (HIGH_NOISE, LOW_NOISE, DIT)}
NOISE_TARGETS = (HIGH_NOISE.target, LOW_NOISE.target)
TARGETS = (*NOISE_TARGETS, DIT.target)

TRANSFORMERS = {
    transformer.name: transformer
    for transformer in (
        Transformer("a14b", "Wan2.2 A14B", width=5120, blocks=40, heads=40, ffn=13824, older="wan2.1"),
        Transformer("5b", "Wan2.2 5B", width=3072, blocks=30, heads=24, ffn=14336),
        Transformer("wan2.1", "Wan2.1", width=1536, blocks=30, heads=12, ffn=8960),
        Transformer("wan-tiny", "Wan-Tiny", width=256, blocks=8, heads=4, ffn=1024),
    )
}
VAE_21 = Vae("Wan2.1_VAE.pth", channels=16, stride=8, patch=1, encoder=96, decoder=96, residual=False)
VAE_22 = Vae("Wan2.2_VAE.pth", channels=48, stride=16, patch=2, encoder=160, decoder=256, residual=True)

FAMILIES = {
    family.name: family
    for family in (
        Family(
            name="a14b",
            experts=(HIGH_NOISE, LOW_NOISE),
            transformer=TRANSFORMERS["a14b"],
            vae=VAE_21,
            condition="channels",
            model_type="i2v",
            task="i2v",
            runner="wan2.2_moe_distill",
            fps=16,
        ),
        Family(
            name="t2v-a14b",
            experts=(HIGH_NOISE, LOW_NOISE),
            transformer=TRANSFORMERS["a14b"],
            vae=VAE_21,
            condition="none",
            model_type="t2v",
            task="t2v",
            runner="wan2.2_moe_distill",
            fps=16,
        ),
        Family(
            name="s2v-14b",
            experts=(DIT,),
            transformer=TRANSFORMERS["a14b"],
            vae=VAE_21,
            condition="reference",
            model_type="s2v",
            task="s2v",
            runner="wan2.2_s2v",
            fps=16,
            speech=Speech(motion=73, dropped=3, encoder="wav2vec2-large-xlsr-53-english"),
        ),
        Family(
            name="animate-14b",
            experts=(DIT,),
            transformer=TRANSFORMERS["a14b"],
            vae=VAE_21,
            condition="channels",
            model_type="animate",
            task="animate",
            runner="wan2.2_animate",
            fps=30,
            performance=Performance(overlaps=(1, 5), clip="models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"),
        ),
        Family(
            name="wan2.1-t2v",
            experts=(DIT,),
            transformer=TRANSFORMERS["wan2.1"],
            vae=VAE_21,
            condition="none",
            model_type="t2v",
            task="t2v",
            runner="wan2.1",
            fps=16,
        ),
        Family(
            name="5b",
            experts=(DIT,),
            transformer=TRANSFORMERS["5b"],
            vae=VAE_22,
            condition="first frame",
            model_type="ti2v",
            task="i2v",
            runner="wan2.2",
            fps=24,
        ),
    )
}
