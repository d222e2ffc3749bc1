"""Models and quantisation schemes as data, read from configs/catalog.toml.

An entry says what a model is and what it can do (sizes, frames, steps); which files it needs is
resolved by `wan_ui.files.places`. Every value a request carries is checked here, on the server, whatever
the page has offered. [repositories] says which commit of a repository is meant and what is known of its files.
"""

import math
import re
import tomllib
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from wan_ui.errors import UserError
from wan_ui.families import FAMILIES, PICTURES, TIME_STRIDE, Family
from wan_ui.place import DATA
from wan_ui.recipes import DMD, DMD_STEPS, GUIDANCE, NEGATIVE, NEGATIVE_OF_SPEECH, SHIFT, SOLVERS, Recipe
from wan_ui.tasks import DEFAULT, SEGMENTS, TASKS, Task

CONFIGS = DATA / "configs"
KINDS = ("bf16", "fp8", "gguf")
WRONG = (KeyError, TypeError, ValueError, AttributeError, AssertionError, UserError)  # what a wrong entry raises
RECIPE_KEYS = ("guidance", "solver", "magcache", "teacache")  # of a recipe, beside steps, default_steps and shift
# Kernels for fp8 weights in LightX2V; each name also works as a scheme: fp8 with that kernel.
FP8_KERNELS = ("fp8-torchao", "fp8-triton", "fp8-sgl")


@dataclass(frozen=True)
class KnownFile:
    """What is known of a file before it is here.

    size    bytes; 0 when not known exactly
    about   bytes, rounded or worked out; only ever shown
    sha256  hex digits; empty when it has not been published
    """

    size: int = 0
    about: int = 0
    sha256: str = ""

    @property
    def shown(self) -> int:
        return self.size or self.about


@dataclass(frozen=True)
class Repository:
    """revision: the commit that is downloaded, 40 hex digits; empty follows the branch `main`."""

    revision: str = ""
    files: dict[str, KnownFile] = field(default_factory=dict)


@dataclass(frozen=True)
class Scheme:
    """One way the DIT weights are stored.

    kind   bf16 | fp8 (e4m3 with a scale per output channel) | gguf
    distilled  the files run in a few steps without guidance; otherwise lora_high and lora_low make them do so, and
           without these they are sampled with guidance
    float32  the files hold float32 numbers: the weights take half of their bytes
    qtype  GGUF type such as Q8_0; empty for the others
    high   "owner/repo:file" of the high-noise expert (or of the only DIT); empty when derived
    low    the same for the low-noise expert
    lora_high, lora_low  distillation LoRAs for files of the base model: with them it runs in 4 steps
    """

    name: str
    title: str
    kind: str
    distilled: bool = True
    qtype: str = ""
    float32: bool = False
    high: str = ""
    low: str = ""
    lora_high: str = ""
    lora_low: str = ""

    @property
    def experts(self) -> tuple[str, ...]:
        """The experts' files in the order in which they run; () when derived."""
        return tuple(ref for ref in (self.high, self.low) if ref)

    @property
    def distill_loras(self) -> tuple[str, ...]:
        """Those of the experts, in the same order."""
        return tuple(ref for ref in (self.lora_high, self.lora_low) if ref)


@dataclass(frozen=True)
class Model:
    """One model. `root` is "owner/repo" or "embedded:folder"; the layout below it is the official one.

    family    what is alike in all models of its architecture; the catalog names it
    sizes     (width, height) in pixels, the default first
    frames    clip lengths in frames, each 4k+1
    steps     (fewest, most) denoise steps
    shift     flow-matching timestep shift
    recipes   motion -> how it is sampled so: the model's own steps and shift are "fast", or where it has guidance of
              its own, "full"; tables `more` and `full` beside them
    fps       frames per second that the model was trained for, its family's if not given: the default of `rates`
    boundary  the high-noise expert takes timesteps >= boundary * 1000; 0 for a single DIT
    vae       "owner/repo:folder" of a VAE in Diffusers format, for the diffusers engine
    draft_decoders  "owner/repo:file" of small decoders of the same latents, the quickest first; see lightx2v_draft.py
    t5        text encoder for LightX2V, if not the one below root
    tasks     what it does, names of wan_ui.tasks; where several fit what is given, the first
    repositories  "owner/repo" -> Repository, the same for all models of a catalog
    face      pixels of the width of a face that the model's clips still show well enough to speak; 0: not measured
    hint      what to write in a prompt
    successor  the model that goes on from its clips, where it takes no picture itself
    words     table of the phrases that a small model understands, see wan_ui.queue.words; None: it takes any prompt
    """

    name: str
    title: str
    family: Family
    root: str
    needs_gpu: bool
    sizes: tuple[tuple[int, int], ...]
    frames: tuple[int, ...]
    default_frames: int
    steps: tuple[int, int]
    default_steps: int
    shift: float
    boundary: float
    fps: int
    default_scheme: str
    schemes: dict[str, Scheme]
    recipes: dict[str, Recipe]
    face: int = 0
    tasks: tuple[str, ...] = (DEFAULT.name, "continue")
    rates: tuple[int, ...] = (12, 16, 24, 30)
    hint: str = ""
    words: Path | None = None
    successor: str = ""
    vae: str = ""
    t5: str = ""
    draft_decoders: tuple[str, ...] = ()
    repositories: dict[str, Repository] = field(default_factory=dict)

    @property
    def short_title(self) -> str:
        """Without what its brackets add."""
        return self.title.split(" (")[0]

    @property
    def embedded(self) -> bool:
        return self.root.startswith("embedded:")

    @property
    def goes_on(self) -> bool:
        """Whether it makes a clip from a picture, and so a segment from the last frame of the one before."""
        return DEFAULT.name in self.tasks

    @property
    def overlaps(self) -> tuple[int, ...]:
        """How many frames the segments of a clip may share that a performance drives, the usual number first: what is
        new in a segment is at least as long, since the next one begins with it. () of all other families."""
        able = self.family.performance.overlaps if self.family.performance else ()
        return tuple(overlap for overlap in able if 2 * overlap <= self.default_frames)

    @property
    def does(self) -> tuple[Task, ...]:
        """Its tasks as it does them: without segments where it cannot go on."""
        tasks = tuple(TASKS[name] for name in self.tasks)
        return tasks if self.goes_on else tuple(task.without(SEGMENTS) for task in tasks)

    def revision(self, repo: str) -> str:
        """Commit of "owner/repo" to download, or the branch `main`."""
        return self.repositories.get(repo, Repository()).revision or "main"

    def known(self, repo: str, file: str) -> KnownFile:
        """What the catalog knows of a file of "owner/repo"."""
        return self.repositories.get(repo, Repository()).files.get(file, KnownFile())

    def scheme(self, name: str) -> Scheme:
        """The scheme called `name` ("" = the default). Raises UserError."""
        name = name or self.default_scheme
        if name in FP8_KERNELS and "fp8" in self.schemes:
            return replace(self.schemes["fp8"], name=name)
        if name not in self.schemes:
            raise UserError(
                f"scheme: {name!r} is not available for {self.name}; choose one of {', '.join(self.schemes)}",
                field="scheme",
            )
        return self.schemes[name]

    def motions(self, scheme: Scheme) -> tuple[str, ...]:
        """How clips can be made with these weights, the usual way first: a pair of base and distill LoRA has all."""
        with_lora = bool(scheme.distill_loras)
        there = {"fast": scheme.distilled or with_lora, "more": with_lora, "full": not scheme.distilled}
        return tuple(motion for motion in there if there[motion] and motion in self.recipes)

    def recipe(self, scheme: Scheme, motion: str = "") -> Recipe:
        """How `motion` ("" = the usual one) is sampled with these weights."""
        return self.recipes[motion or self.motions(scheme)[0]]

    @property
    def least_side(self) -> int:
        """Pixels of the shorter side of a size that is not in the list: half of what it was made for."""
        grid = self.family.grid
        return max(grid, min(min(size) for size in self.sizes) // 2 // grid * grid)

    @property
    def most_pixels(self) -> int:
        """Of a size that is not in the list: the largest that is, which memory and time are known for."""
        return max(width * height for width, height in self.sizes)

    def takes_size(self, size: tuple[int, int]) -> bool:
        """Whether it makes clips of that size: one of its list, or one on its grid within the limits."""
        on_grid = all(side % self.family.grid == 0 and side >= self.least_side for side in size)
        return size in self.sizes or (on_grid and size[0] * size[1] <= self.most_pixels)

    def nearest_size(self, width: int, height: int) -> tuple[int, int]:
        """The size that it takes which is nearest to this one in shape and area."""
        grid, least = self.family.grid, self.least_side
        longest = self.most_pixels // least
        scale = min(1.0, (self.most_pixels / (width * height)) ** 0.5)

        def side(value: float, most: float) -> int:
            return int(min(max(round(value / grid), least // grid), most // grid)) * grid

        around = (-grid, 0, grid)  # rounding both sides up may be too much
        wide = [side(width * scale + near, longest) for near in around]
        sizes = [(w, side(height * scale + near, self.most_pixels // w)) for w in wide for near in around]
        good = [size for size in sizes if self.takes_size(size)]
        area, shape = width * height * scale * scale, width / height
        apart = lambda size: 2 * abs(math.log(size[0] / size[1] / shape)) + abs(math.log(math.prod(size) / area))  # noqa: E731
        return min(good, key=apart)

    def frames_of(self, seconds: float, fps: int) -> int:
        """The length that it makes which is nearest to so many seconds."""
        return min(self.frames, key=lambda frames: abs(frames / fps - seconds))

    def closest_size(self, width: int, height: int) -> tuple[int, int]:
        """The offered size whose aspect ratio is nearest to that of a width x height picture."""
        ratio = width / height
        return min(self.sizes, key=lambda size: abs(size[0] / size[1] / ratio - 1) + 1e-9 * self.sizes.index(size))


def parse_size(text: str) -> tuple[int, int]:
    """ "256x192" -> (256, 192). Raises UserError."""
    match = re.fullmatch(r"\s*([0-9]{1,9})\s*[x×]\s*([0-9]{1,9})\s*", text.lower()) if isinstance(text, str) else None
    if not match:
        raise UserError(f"size: {str(text)[:40]!r} is not WIDTHxHEIGHT, for example 256x256", field="size")
    return int(match[1]), int(match[2])


def _repository(name: str, values: dict[str, Any]) -> Repository:
    files = {file: KnownFile(**known) for file, known in values.get("files", {}).items()}
    assert all(re.fullmatch(r"([0-9a-f]{64})?", known.sha256) for known in files.values()), f"{name}: sha256"
    repository = Repository(**{**values, "files": files})
    assert re.fullmatch(r"([0-9a-f]{40})?", repository.revision), f"{name}: revision must be a commit or empty"
    return repository


def _recipes(values: dict[str, Any], family: Family) -> dict[str, Recipe]:
    """Takes the keys that are the recipes' alone out of a model's values."""
    count = len(family.experts)
    own: dict[str, Any] = {key: values[key] for key in ("steps", "default_steps", "shift")}
    own |= {key: values.pop(key) for key in RECIPE_KEYS if key in values}
    tables = {"full" if "guidance" in own else "fast": {"guidance": [1.0] * count, **own}}
    tables |= {motion: {"shift": own["shift"], **values.pop(motion)} for motion in ("more", "full") if motion in values}
    recipes: dict[str, Recipe] = {}
    for motion, table in tables.items():
        guidance = tuple(float(scale) for scale in table["guidance"])
        steps = tuple(table["steps"])
        negative = NEGATIVE_OF_SPEECH if family.speech else NEGATIVE
        how = {"guidance": guidance, "steps": steps, "fixed": motion != "full", "negative": negative}
        recipe = Recipe(**{**table, **how})
        assert len(guidance) == count, f"{motion}: guidance is a list of {count}, one for each expert"
        assert recipe.solver in SOLVERS or (recipe.fixed and recipe.solver == DMD), (
            f"{motion}: solver is one of {', '.join(SOLVERS)}"
        )
        assert len(steps) == 2 and all(type(count) is int for count in (*steps, recipe.default_steps)), (
            f"{motion}: steps are [fewest, most], default_steps is one number, all of them whole"
        )
        assert 1 <= steps[0] <= recipe.default_steps <= steps[1], f"{motion}: default_steps"
        assert recipe.solver != DMD or steps[1] <= DMD_STEPS, f"{motion}: {DMD} takes at most {DMD_STEPS} steps"
        assert all(GUIDANCE[0] <= scale <= GUIDANCE[1] for scale in guidance), (
            f"{motion}: guidance is from {GUIDANCE[0]:g} to {GUIDANCE[1]:g}"
        )
        assert motion != "more" or count == 2, "more: it is for a model of two experts"
        recipes[motion] = recipe
    return recipes


def _model(name: str, values: dict[str, Any], repositories: dict[str, Repository]) -> Model:
    values = dict(values)
    schemes = {key: Scheme(name=key, **entry) for key, entry in values.pop("schemes").items()}
    values["sizes"] = tuple(parse_size(size) for size in values["sizes"])
    values["frames"] = tuple(values["frames"])
    values["steps"] = tuple(values["steps"])
    for key in ("rates", "tasks", "draft_decoders"):
        if key in values:
            values[key] = tuple(values[key])
    values["words"] = CONFIGS / values["words"] if values.get("words") else None
    named = values.get("family", "")
    assert named in FAMILIES, f"family {named!r} is not known; choose one of {', '.join(FAMILIES)}"
    family = FAMILIES[named]
    values["family"] = family
    values.setdefault("fps", family.fps)
    known = {entry.name for entry in fields(Model)} | {*RECIPE_KEYS, "more", "full"}
    assert set(values) <= known, f"unknown key {min(set(values) - known)!r}"
    values["recipes"] = _recipes(values, family)
    model = Model(name=name, schemes=schemes, repositories=repositories, **values)
    _check_kinds(name, model)
    for scheme in schemes.values():
        _check_kinds(f"{name}.schemes.{scheme.name}", scheme)
    _check_clips(model)
    assert all(scheme.kind in KINDS for scheme in schemes.values()), f"{name}: kinds"
    for scheme in schemes.values():
        count = len(scheme.experts)
        assert scheme.kind != "gguf" or scheme.qtype, f"{name}: {scheme.name} names no qtype, such as Q8_0"
        assert model.embedded or count == len(family.experts), (
            f"{name}: {scheme.name} names {count} files of experts, its family has {len(family.experts)}"
        )
        loras = (bool(scheme.lora_high), bool(scheme.lora_low))
        assert scheme.distilled or loras in ((False, False), (True, not family.single)), (
            f"{name}: {scheme.name} names one distill LoRA of a pair"
        )
        assert model.motions(scheme), (
            f"{name}: {scheme.name} is not distilled and names no distill LoRA, and the model has no table `full`"
        )
    return model


def _check_kinds(name: str, record: Model | Scheme) -> None:
    """Plain values are of the kind that they are meant to be."""
    kinds = {str: "a text", bool: "true or false", int: "a whole number"}
    for entry in fields(record):
        for kind, words in kinds.items():
            wrong = entry.type is kind and type(getattr(record, entry.name)) is not kind
            assert not wrong, f"{name}: {entry.name} is {words}"


def _check_clips(model: Model) -> None:
    """What is said of the clips fits together and the family: what an engine takes for granted."""
    name, family = model.name, model.family
    assert model.sizes and all(w > 0 < h and w % family.grid == 0 == h % family.grid for w, h in model.sizes), (
        f"{name}: sizes are multiples of {family.grid} pixels"
    )
    can = [task.name for task in TASKS.values() if task.samples]
    assert model.tasks and set(model.tasks) <= set(can), f"{name}: tasks are some of {', '.join(can)}"
    for task in (TASKS[task] for task in model.tasks):
        drives = (task.driven, task.performed) == (family.speech is not None, family.performance is not None)
        assert drives and task.pictures in PICTURES[family.condition], (
            f"{name}: family {family.name} cannot do {task.name}"
        )
    assert model.fps in model.rates and all(type(rate) is int and 1 <= rate <= 60 for rate in model.rates), (
        f"{name}: rates are whole numbers from 1 to 60, fps among them"
    )
    assert not family.speech or model.rates == (model.fps,), (
        f"{name}: rates is [{model.fps}]: a voice that drives the clip leaves no choice"
    )
    assert all(type(frames) is int and frames > 0 and frames % TIME_STRIDE == 1 for frames in model.frames), (
        f"{name}: frames must be 4k+1"
    )
    assert model.default_frames in model.frames and model.default_scheme in model.schemes, f"{name}: defaults"
    assert not family.speech or model.default_frames > TIME_STRIDE, (
        f"{name}: default_frames is the length of a segment, and one more: at least {TIME_STRIDE + 1}"
    )
    assert not family.performance or model.overlaps, (
        f"{name}: default_frames is the length of a segment, at least {2 * family.performance.overlaps[0]} frames: "
        f"{family.performance.overlaps[0]} that it shares with the one before and as many that are new"
    )
    assert model.boundary == 0 if family.single else 0 < model.boundary <= 1, f"{name}: boundary is " + (
        "0: there is no second expert" if family.single else "between 0 and 1: both experts take steps"
    )
    smallest, largest = SHIFT
    assert all(smallest <= recipe.shift <= largest for recipe in model.recipes.values()), (
        f"{name}: shift is from {smallest:g} to {largest:g}"
    )


@lru_cache
def load_catalog(path: Path) -> dict[str, Model]:
    """All models by name. Raises UserError naming the file and entry that is wrong."""
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"catalog {path}: {error}") from None
    repositories, tables = {}, entries.pop("repositories", {})
    if not isinstance(tables, dict):
        raise UserError(f"catalog {path}: repositories is a table of tables, [repositories.OWNER/NAME]")
    for name, values in tables.items():
        try:
            repositories[name] = _repository(name, values)
        except WRONG as error:
            raise UserError(f"catalog {path}, [repositories.{name}]: {_words(error)}") from None
    models = {}
    for name, values in entries.items():
        try:
            models[name] = _model(name, values, repositories)
        except WRONG as error:
            raise UserError(f"catalog {path}, [{name}]: {_words(error)}") from None
    for name, model in models.items():
        if model.successor and not (model.successor in models and models[model.successor].goes_on):
            words = f"successor {model.successor!r} is no model that makes a clip from a picture"
            raise UserError(f"catalog {path}, [{name}]: {words}")
    return models


def _words(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def find_model(catalog: dict[str, Model], name: str) -> Model:
    """The model called `name`. Raises UserError listing the known ones."""
    if name not in catalog:
        raise UserError(f"model: {name!r} is not known; choose one of {', '.join(catalog)}", field="model")
    return catalog[name]
