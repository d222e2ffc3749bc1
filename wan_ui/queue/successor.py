"""A clip of a model that takes no picture goes on with another, which the catalog names as its successor."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from wan_ui.catalog import Model, Scheme
from wan_ui.errors import UserError
from wan_ui.files import places
from wan_ui.queue.draft import Draft, listed
from wan_ui.settings import Settings
from wan_ui.tasks import BEFORE, TASKS

Elsewhere = Callable[[str, str, str], bool]  # of a model, a scheme and an engine as asked for


def continues(model: Model) -> bool:
    """Whether it goes on from a clip."""
    return any(TASKS[name].input(BEFORE.name) for name in model.tasks)


def take_over(
    model: Model, draft: Draft, catalog: dict[str, Model], settings: Settings, elsewhere: Elsewhere
) -> tuple[Model, Draft]:
    """The model that goes on where `model` was asked for, and the draft with its name and weights.

    Raises UserError (field "model") where the successor cannot run.
    """
    if continues(model) or not model.successor:
        return model, draft  # what it lacks is said with the task
    engine, other = draft.engine or settings.engine, catalog[model.successor]
    lacking = {
        name: places.availability(other, scheme, settings, engine)
        for name, scheme in other.schemes.items()
        if not elsewhere(other.name, name, engine)
    }
    usable = [scheme for scheme in other.schemes.values() if not lacking.get(scheme.name)]
    weights = like(other, draft.scheme or model.default_scheme, draft.motion, usable)
    if weights is None:
        missing = lacking.get(draft.scheme) or lacking[other.default_scheme]
        words = f"{model.name} takes no picture, so it cannot go on from a clip; {other.name} does in its place, but "
        raise UserError(f"model: {words}cannot run here: {missing}{_instead(other, catalog, settings)}", field="model")
    return other, replace(draft, model=other.name, scheme=weights.name)


def like(model: Model, scheme: str, motion: str, usable: Sequence[Scheme]) -> Scheme | None:
    """Of the model's weights that are here those with that name, else the first that are sampled so, else the first."""
    fitting = [weights for weights in usable if weights.name == scheme]
    fitting += [weights for weights in usable if (motion or model.motions(weights)[0]) in model.motions(weights)]
    return next(iter([*fitting, *usable]), None)


def _instead(other: Model, catalog: dict[str, Model], settings: Settings) -> str:
    here = [
        able.name
        for able in catalog.values()
        if continues(able) and able is not other and not places.availability(able, able.scheme(""), settings)
    ]
    return f"; choose {listed(here)}, or get its files" if here else ""


def words(model: Model, other: Model) -> str:
    """Said before the run."""
    return f"{model.short_title} takes no picture: {other.short_title} goes on from its clip"
