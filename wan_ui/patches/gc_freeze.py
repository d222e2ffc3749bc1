"""A model that is closed gives its memory back.

Symptom: after a change of model or scheme the old weights stay on the GPU; the second load runs out of
memory although either model fits.

Mechanism: after its first clip a runner calls gc.freeze(), which moves every object of the process into a
generation that is never collected. A runner is full of reference cycles, so nothing frees it later. Here
the runner is told that it has done so already.

Remove when: _maybe_freeze_gc can be switched off in the configuration.
"""

from wan_ui.patches.record import Patch

NAME = "gc_freeze"
TARGET = "lightx2v.models.runners.base_runner:BaseRunner._maybe_freeze_gc"


def applies(facts, scheme) -> tuple[bool, str]:
    return True, "the model can be changed while the worker lives"


def apply(runner) -> None:
    runner._gc_frozen = True


def verify(runner) -> str:
    import gc

    before = gc.get_freeze_count()
    runner._maybe_freeze_gc()
    assert gc.get_freeze_count() == before, "the runner froze the garbage collector"
    return f"{before} objects frozen before and after"


PATCH = Patch(
    name=NAME,
    phase="after_init",
    targets={TARGET: ("self",)},
    doc=__doc__,
    applies=applies,
    apply=apply,
    verify=verify,
)
