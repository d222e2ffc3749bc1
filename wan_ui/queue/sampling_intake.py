"""How a clip is sampled: steps, motion, guidance and so on as typed -> values that these weights can be sampled with,
or a UserError naming the field."""

from typing import Any

from wan_ui.catalog import Model, Scheme
from wan_ui.errors import UserError
from wan_ui.machine.engine_choice import choose_engine
from wan_ui.machine.hardware import nvidia_gpu
from wan_ui.machine.offload import WAYS, impossible, offered
from wan_ui.queue.draft import Draft, listed, one_line, whole
from wan_ui.recipes import MOTIONS, OFFICIAL_NEGATIVES, SOLVERS, TITLES, read_guidance, read_shift
from wan_ui.settings import Settings


def how_sampled(draft: Draft, model: Model, scheme: Scheme, longest: int) -> dict[str, Any]:
    """Steps, motion, guidance and so on, as far as these weights leave a choice."""
    motions = model.motions(scheme)
    motion = draft.motion or motions[0]
    if motion not in MOTIONS:
        raise UserError(f"motion: {motion!r} is not known; choose one of {', '.join(MOTIONS)}", field="motion")
    if motion not in motions:
        raise UserError(f"motion: {_why_not(motion, model, scheme)}", field="motion")
    recipe, with_these = model.recipe(scheme, motion), f"{model.name} with {scheme.name}"
    steps = whole("steps", recipe.default_steps if draft.steps is None else draft.steps)
    fewest, most = recipe.steps
    if not fewest <= steps <= most:
        way = f" ({MOTIONS[motion].title})" if len(motions) > 1 else ""
        raise UserError(f"steps: {model.name} takes {fewest} to {most} steps{way}, not {steps}", field="steps")
    other = f"; --motion full samples it so with {scheme.name}" if "full" in motions else ""
    guidance = recipe.guidance
    if draft.guidance not in (None, "", ()):
        wanted = read_guidance(draft.guidance, len(guidance))
        if motion == "more":  # of the first steps alone
            wanted = (wanted[0], *guidance[1:])
        elif recipe.fixed and wanted != guidance:
            raise UserError(f"guidance: {with_these} is distilled to run without it (1){other}", field="guidance")
        guidance = wanted
    shift = recipe.shift if draft.shift is None else read_shift(draft.shift)
    if recipe.fixed and shift != recipe.shift:
        said = f"{with_these} was distilled for a shift of {recipe.shift:g}, not {shift:g}{other}"
        raise UserError(f"shift: {said}", field="shift")
    solver = draft.solver or recipe.solver
    if solver not in SOLVERS and solver != recipe.solver:
        raise UserError(f"solver: {solver!r} is not known; choose one of {', '.join(SOLVERS)}", field="solver")
    if recipe.fixed and solver != recipe.solver:
        raise UserError(f"solver: distilled steps are taken by {TITLES[recipe.solver]} alone{other}", field="solver")
    guided = any(scale > 1 for scale in guidance)
    negative = ""
    if guided:  # the official text is taken however short prompts must be
        own = draft.negative not in (None, *OFFICIAL_NEGATIVES)
        negative = one_line("negative", draft.negative, longest) if own else recipe.negative
    if draft.negative and not guided:
        raise UserError(f"negative: without guidance it changes nothing; leave it out{other}", field="negative")
    cache = draft.cache or "off"
    offered = recipe.caches or ("off",)
    if cache not in offered:
        said = (
            f"no numbers for {cache} have been published for {model.name}"
            if not recipe.fixed
            else (f"{steps} distilled steps differ too much from each other to leave one out")
        )
        raise UserError(f"cache: {said}; choose {listed(offered)}", field="cache")
    return {
        "steps": steps,
        "motion": motion,
        "negative": negative,
        "guidance": guidance,
        "shift": shift,
        "solver": solver,
        "cache": cache,
    }


def _why_not(motion: str, model: Model, scheme: Scheme) -> str:
    """Why these weights cannot be sampled so, and which can."""
    others = [name for name, other in model.schemes.items() if motion in model.motions(other)]
    able = f"; choose {listed(others)}" if others else ""
    if motion == "fast":
        return f"{model.name} with {scheme.name} is not distilled: it is sampled in full{able}"
    if scheme.distilled:
        return f"the files of {scheme.name} hold the distilled {model.name} alone{able}"
    return f"{model.name} with {scheme.name} has no distill LoRA to leave out{able}"


def read_overlap(asked: object, model: Model) -> int:
    """Of a family that a performance drives; 0 of all others."""
    able = model.overlaps
    if asked in (None, ""):
        return able[0] if able else 0
    number = whole("overlap", asked)
    if not able:
        raise UserError(
            f"overlap: {model.name} makes no clips that a performance drives; leave it out", field="overlap"
        )
    if number not in able:
        words = f"of the {model.default_frames} frames of its segments {model.name} shares {listed(able)}, not {number}"
        raise UserError(f"overlap: {words}", field="overlap")
    return number


def read_offload(asked: str, model: Model, scheme: Scheme, engine: str, settings: Settings, away: bool = False) -> str:
    """Empty for auto. away: the clip is made on another machine, of which nothing is known here."""
    if asked in ("", "auto"):
        return ""
    if asked not in WAYS:
        raise UserError(f"offload: {asked!r} is not known; choose one of {', '.join(WAYS)}", field="offload")
    if away:
        return asked
    if not nvidia_gpu():
        raise UserError(
            "offload: there is no GPU here that weights could be moved to or from; leave it out", field="offload"
        )
    name = choose_engine(engine, settings, family=model.family).name
    if why := impossible(asked, model, scheme, name):
        able = listed(offered(model, scheme, name))
        raise UserError(f"offload: {asked} is not possible for {model.name}: {why}; choose {able}", field="offload")
    return asked
