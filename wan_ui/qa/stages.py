"""Which stage of a loaded pipeline is wrong: each one against a reference, in the order they run.

text, image, schedule, one denoise step per expert, decode, what goes on from there (see wan_ui.qa.reference for what
goes into each). A stage fails when its output has a NaN or Inf, or is further from the reference than the tolerance;
the first that fails is named, and for a denoise step the first bad transformer block.

Tolerances are relative errors, |x - reference| / |reference| over the whole output. They come from what
rounding must cost: the arithmetic (float32, bf16, fp16), activations rounded to e4m3 where the fp8
kernels do that, and, against a stored reference, the scheme's own weights. Each is two to four times what
Wan-Tiny and random models of both families show, and far below what any of the seeded faults of
tests/qa causes.
"""

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch

from wan_ui.catalog import Model, Scheme
from wan_ui.engines import schedule
from wan_ui.engines.base import Performing, Stages
from wan_ui.errors import UserError
from wan_ui.qa import blocks, pictures
from wan_ui.qa.blocks import Blocks
from wan_ui.qa.reference import (
    LAST_FRAME,
    NEXT,
    PERFORMED,
    VOICE,
    Reference,
    compute,
    condition,
    default_trial,
    dit_names,
    float32_engine,
    heard,
    last_frame,
    latents_of,
    load_reference,
    next_segment,
    of_clip,
    stage_names,
    stored_path,
)
from wan_ui.request import Progress, Report
from wan_ui.system import peak_resident

SAME_FILES = "diffusers in float32 on the same files"
# Relative error that arithmetic alone may cause: (encoders and decode, a whole denoise step)
ARITHMETIC = {"float32": (2e-3, 2e-3), "bfloat16": (0.02, 0.04), "float16": (0.01, 0.02)}
# What the weights of a scheme add to a denoise step, against a stored reference made from bf16 weights
WEIGHTS = {"bf16": 0.0, "fp8": 0.06, "gguf-Q8_0": 0.01, "gguf-Q5_0": 0.09, "gguf-Q4_0": 0.18}
OTHER_WEIGHTS = 0.20
EIGHT_BITS = 0.01  # stored frames are rounded to 8 bits
ACTIVATIONS = 0.06  # LightX2V's fp8 kernels round activations to e4m3 in front of every product


@dataclass(frozen=True)
class StageResult:
    """One stage. Bytes are of the GPU where there is one, else of the process; nan and inf are counts.

    error, cosine  against the reference, -1 where there is none
    why            what the tolerance is made of, and what is wrong
    """

    name: str
    passed: bool
    why: str
    seconds: float = 0.0
    peak_bytes: int = 0
    dtype: str = ""
    device: str = ""
    shape: tuple[int, ...] = ()
    nan: int = 0
    inf: int = 0
    mean: float = 0.0
    std: float = 0.0
    largest: float = 0.0
    error: float = -1.0
    cosine: float = -1.0
    tolerance: float = -1.0


@dataclass(frozen=True)
class StageReport:
    """`first_failing` is "" when all stages passed; `pictures` are file names in the folder that was given."""

    model: str
    scheme: str
    engine: dict
    reference: str
    trial: dict
    stages: list[StageResult]
    first_failing: str
    blocks: list[Blocks] = field(default_factory=list)
    pictures: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict:
        return asdict(self)


def find_reference(model: Model, scheme: Scheme, wish: str, report: Report) -> tuple[Reference | None, str]:
    """The reference, and what it is or why there is none. Raises UserError for a file that is none.

    wish  auto (a stored one if there is, else same files) | same-files | stored | none | a path
    """
    if wish == "none":
        return None, "none: asked for"
    if wish not in ("auto", "same-files", "stored"):
        return load_reference(Path(wish)), f"stored in {Path(wish).name}"
    path = stored_path(model)
    if wish == "stored" or (wish == "auto" and path.is_file()):
        return load_reference(path), f"stored in {path.name}, made from bf16 weights in float32"
    try:
        engine = float32_engine(model, scheme, report)
    except UserError as error:
        if wish == "same-files":
            raise
        return None, f"none: {error}"
    try:
        return compute(engine, model, default_trial(model)), SAME_FILES
    finally:
        engine.close()


def examine(engine, model: Model, scheme: Scheme, wish: str, report: Report, folder: Path | None = None) -> dict:
    """`check` a loaded engine, without LoRAs, against the reference that is wished for; as JSON-able values.

    folder  gets the pictures and, as stages.json, the report
    """
    engine.set_loras(())
    reference, about = find_reference(model, scheme, wish, report)
    if reference is not None and reference.kind == "same files" and engine.facts.get("engine") == "diffusers":
        about += "; this engine's own code, so only rounding and kernels are judged"
    found = check(
        engine, model, scheme, reference, about, report, folder, lambda: float32_engine(model, scheme, report)
    )
    values = found.to_dict()
    values["patches"] = [asdict(outcome) for outcome in getattr(engine, "patches", ())]
    values["when"] = time.strftime("%Y-%m-%d %H:%M:%S")
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "stages.json").write_text(json.dumps(values, indent=1), encoding="utf-8")
    return values


def check(
    engine: Stages,
    model: Model,
    scheme: Scheme,
    reference: Reference | None,
    about: str,
    report: Report,
    folder: Path | None = None,
    block_reference: Callable[[], Stages] | None = None,
) -> StageReport:
    """Run and judge every stage; a stage that raises fails with the error's words and the next ones still run.

    about            what the reference is, in words
    folder           where pictures of the intermediate results go
    block_reference  makes the float32 engine that a failing denoise step is compared with block by block where the
                     reference's own small steps do not show the fault
    """
    names = stage_names(model)
    trial = reference.trial if reference else default_trial(model)
    plan = list(reference.plan) if reference else engine.plan(trial.steps)
    given = reference.outputs if reference else {}
    results: list[StageResult] = []
    made: dict[str, torch.Tensor] = {}
    shown: dict[str, str] = {}
    if "image" not in names:
        made["image"] = condition(engine, model, trial)

    def latents(stage: str) -> torch.Tensor:
        if reference:
            return reference.latents(stage)
        empty = torch.zeros(latents_of(model, trial))
        steps = {name: made.get(name, empty) for name in dit_names(model)}
        return Reference("", trial, tuple(plan), steps).latents(stage)

    def run(stage: str) -> torch.Tensor:
        if stage == "text":
            return engine.encode_text(trial.prompt)
        if stage == "image":
            return condition(engine, model, trial)
        if stage == LAST_FRAME:
            return last_frame(engine, trial)
        if stage == VOICE:
            return heard(engine, model, trial)
        if stage in PERFORMED:
            return cast(Performing, engine).encode_performance(stage, trial.pixels(), trial.tracks())
        if stage == "decode":
            return engine.decode(of_clip(model, latents(stage)))
        if stage == NEXT:
            if "decode" not in made | given:
                raise UserError("it needs what stage decode gives, which failed")
            return next_segment(engine, model, trial, (made | given)["decode"])
        expert = dit_names(model).index(stage)
        sigma = next(sigma for sigma, which in plan if which == expert)
        inputs = made | given
        needed = [name for name in ("text", "image", VOICE, *PERFORMED) if name in names or name == "image"]
        failed = next((name for name in needed if name not in inputs), "")
        if failed:
            raise UserError(f"it needs what stage {failed} gives, which failed")
        more: dict[str, Any] = {"voice": inputs[VOICE]} if VOICE in names else {}
        if model.family.performance:
            more = {"performance": {name: inputs[name] for name in PERFORMED}}
        return engine.predict(latents(stage), sigma, expert, inputs["text"], inputs["image"], **more)

    for number, name in enumerate(names):
        report(Progress("load", number + 1, len(names), f"stage {name}"))
        if name == "schedule":
            results.append(judge_schedule(engine, model, reference))
            continue
        try:
            with measured() as cost:
                output = run(name)
        except UserError as error:
            results.append(StageResult(name, False, str(error)))
            continue
        except Exception as error:  # a broken kernel raises anything; the report is what this is for
            results.append(StageResult(name, False, f"{type(error).__name__}: {str(error).splitlines()[0][:300]}"))
            continue
        made[name] = output.float().cpu()
        allowed, why = tolerance(name, scheme, reference, engine, output)
        results.append(judge(name, output, given.get(name), allowed, why, *cost))
        if folder is not None:
            shown |= pictures.of_stage(name, made[name], given.get(name), folder)
    failing = [result.name for result in results if not result.passed]
    compared = []
    if reference is not None:
        for name in (name for name in failing if name.startswith("dit")):
            compared.append(compare_blocks(engine, reference, model, scheme, name, block_reference))
            if folder is not None:
                shown[f"{name} blocks"] = pictures.block_plot(compared[-1], folder)
    return StageReport(
        model.name,
        scheme.name,
        dict(getattr(engine, "facts", {})),
        about,
        asdict(trial),
        results,
        failing[0] if failing else "",
        compared,
        shown,
    )


def compare_blocks(engine: Stages, reference: Reference, model: Model, scheme: Scheme, stage: str, other) -> Blocks:
    """A failing denoise step block by block: on the reference's small step, then, if need be, on the step itself."""
    expert = dit_names(model).index(stage)
    allowed, _ = tolerance(stage, scheme, reference, engine, None)
    same_code = getattr(engine, "facts", {}).get("engine") == "diffusers"  # as a reference that was made on the spot
    independent = reference.kind == "stored" or not same_code
    found = blocks.compare(engine, reference.blocks[stage], expert, stage, allowed, independent)
    if not found.innocent or same_code or other is None:
        return found
    inputs = (reference.latents(stage), reference.sigma(expert), expert)
    context = (reference.outputs["text"], reference.outputs["image"])
    more: dict[str, Any] = {}
    if model.family.performance:
        more = {"performance": {name: reference.outputs[name] for name in PERFORMED}}
    return blocks.full_size(engine, other, (*inputs, *context), stage, allowed, more)


# ---------------------------------------------------------------- judging


def tolerance(name: str, scheme: Scheme, reference: Reference | None, engine, output) -> tuple[float, str]:
    """Largest relative error that is right, and what it is made of."""
    compute_dtype = str(engine.dtype if hasattr(engine, "dtype") else output.dtype).removeprefix("torch.")
    encoders, step = ARITHMETIC.get(compute_dtype, ARITHMETIC["bfloat16"])
    stored = reference is not None and reference.kind == "stored"
    if name == "decode" and stored:
        return encoders + EIGHT_BITS, f"{encoders:g} for {compute_dtype} + {EIGHT_BITS:g} for stored frames"
    if not name.startswith("dit"):
        return encoders, f"{encoders:g} for {compute_dtype}"
    allowed, parts = step, [f"{step:g} for {compute_dtype}"]
    if stored:
        weights = WEIGHTS.get(f"gguf-{scheme.qtype}" if scheme.kind == "gguf" else scheme.kind, OTHER_WEIGHTS)
        if weights:
            allowed, parts = allowed + weights, [*parts, f"{weights:g} for {scheme.name} weights"]
    if scheme.kind == "fp8" and engine.facts.get("engine") == "lightx2v":
        allowed, parts = allowed + ACTIVATIONS, [*parts, f"{ACTIVATIONS:g} for e4m3 activations"]
    return allowed, " + ".join(parts)


def judge(name, output, expected, allowed: float, why: str, seconds: float, peak: int) -> StageResult:
    """A tensor against the reference's; without one only NaN, Inf and a constant output fail."""
    values = output.detach().float().cpu()
    finite = values[values.isfinite()]
    nan, infinite = int(values.isnan().sum()), int(values.isinf().sum())
    facts: dict[str, Any] = {
        "seconds": round(seconds, 4),
        "peak_bytes": peak,
        "dtype": str(output.dtype).removeprefix("torch."),
        "device": str(output.device),
        "shape": tuple(output.shape),
        "nan": nan,
        "inf": infinite,
        "mean": finite.mean().item() if len(finite) else 0.0,
        "std": finite.std().item() if len(finite) > 1 else 0.0,
        "largest": finite.abs().max().item() if len(finite) else 0.0,
    }
    if nan or infinite:
        where = "all" if nan + infinite == values.numel() else f"{(nan + infinite) / values.numel():.2%}"
        return StageResult(name, False, f"{nan} NaN and {infinite} Inf: {where} of the values", **facts)
    if expected is None:
        alive = facts["std"] > 1e-6
        return StageResult(name, alive, "finite; no reference" if alive else "the output is constant", **facts)
    if expected.shape != values.shape:
        shapes = f"shape {tuple(values.shape)}, expected {tuple(expected.shape)}"
        return StageResult(name, False, shapes, **facts)
    error = blocks.relative_error(values, expected)
    cosine = torch.nn.functional.cosine_similarity(values.double().flatten(), expected.double().flatten(), dim=0).item()
    passed = error <= allowed
    words = f"error {error:.2g} {'within' if passed else 'above'} {allowed:.2g} ({why})"
    if not passed:
        words += f"; {symptom(values, expected, cosine)}"
    return StageResult(name, passed, words, **facts, error=error, cosine=cosine, tolerance=allowed)


def symptom(values: torch.Tensor, expected: torch.Tensor, cosine: float) -> str:
    """What kind of difference it is, for whoever looks for the cause."""
    a, b = values.double().flatten(), expected.double().flatten()
    scale = ((a @ b) / (b @ b)).item()
    if cosine > 0.995:
        return f"the direction is right, the size is {scale:.3g} times what it should be"
    if cosine > 0.9:
        return "close, but more than rounding"
    return "unlike the reference" if cosine > 0.2 else "unrelated to the reference"


def judge_schedule(engine: Stages, model: Model, reference: Reference | None) -> StageResult:
    """Sigmas and experts step by step; without a reference, against the catalog's shift and boundary."""
    steps = reference.trial.steps if reference else model.default_steps
    try:
        plan = engine.plan(steps)
    except Exception as error:  # as in `check`
        return StageResult("schedule", False, f"{type(error).__name__}: {error}")
    if reference:
        expected = list(reference.plan)
    else:
        sigmas = schedule.sigmas(steps, model.shift)[:-1]
        expected = [(sigma, schedule.expert_index(1000 * sigma, model.boundary)) for sigma in sigmas]
    if len(plan) != len(expected):
        return StageResult("schedule", False, f"{len(plan)} steps, expected {len(expected)}")
    for step, ((sigma, expert), (right, which)) in enumerate(zip(plan, expected, strict=True), start=1):
        if abs(sigma - right) > 1e-4:
            words = f"step {step} starts at sigma {sigma:.4f}, expected {right:.4f}: look at the shift"
            return StageResult("schedule", False, words)
        if expert != which:
            names = [expert.title for expert in model.family.experts]
            words = f"step {step} goes to the {names[expert]}, expected the {names[which]}: look at the boundary"
            return StageResult("schedule", False, words)
    share = step_share()
    if abs(share - 1) > 1e-3:
        return StageResult(
            "schedule", False, f"a step covers {share:.3g} of its way to the next sigma: look at the Euler step"
        )
    words = ", ".join(f"{1000 * sigma:.1f} {model.family.sides[expert]}".strip() for sigma, expert in plan)
    return StageResult("schedule", True, f"timesteps {words}")


def step_share() -> float:
    """How far the step that both engines take moves, of the way that the flow's equation wants: x' = x + (s' - s) v."""
    latents, velocity = torch.randn(2, 64, generator=torch.Generator().manual_seed(0)).unbind()
    moved = schedule.euler_step(latents, velocity, 0.75, 0.25) - latents
    return ((moved @ velocity) / (-0.5 * velocity @ velocity)).item()


# ---------------------------------------------------------------- measuring


@contextlib.contextmanager
def measured():
    """with measured() as cost: ... ; then cost is [seconds, peak bytes]."""
    cost = []
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    else:
        with contextlib.suppress(OSError):  # elsewhere than on Linux
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # start the process's high-water mark again
    started = time.perf_counter()
    yield cost
    if gpu:
        torch.cuda.synchronize()
    cost += [time.perf_counter() - started, torch.cuda.max_memory_allocated() if gpu else _peak_resident()]


def _peak_resident() -> int:
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return peak_resident()
