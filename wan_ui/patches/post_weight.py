"""Models without an output weight group can take and drop LoRAs.

Symptom: AttributeError "'WanModel' object has no attribute 'post_weight'" after a LoRA was switched or
removed: the first expert has changed, the second has not, and the job fails.

Mechanism: _update_lora and _remove_lora end with self.post_weight, which only models with a
`post_weight_class` have. WanDistillModel sets one (empty); WanModel, used by the dense 5B model and by
every run with `lora_configs`, does not. Here WanModel gets the same empty group.

Remove when: upstream asks `hasattr(self, "post_weight")` there, as it does when it loads and moves weights.
"""

from wan_ui.patches.record import Patch, owner

NAME = "post_weight"
TARGET = "lightx2v.models.networks.base_model:BaseTransformerModel._update_lora"
MODEL = "lightx2v.models.networks.wan.model:WanModel"
EMPTY = "lightx2v.models.networks.wan.weights.post_weights:WanPostWeights"


def applies(facts, scheme) -> tuple[bool, str]:
    if facts.family.single:
        return True, "the dense model is a WanModel"
    return False, "distilled experts have the group"


def apply(_runner) -> None:
    place, name = owner(EMPTY)
    group = getattr(place, name)
    place, name = owner(MODEL)
    model = getattr(place, name)
    if model.post_weight_class is None:
        model.post_weight_class = group


def verify(_runner) -> str:
    place, name = owner(MODEL)
    model = getattr(place, name)
    assert model.post_weight_class is not None, "WanModel has no post_weight_class"
    group = model.post_weight_class({})
    group.update_lora({}, 1.0)
    group.remove_lora()
    return "a LoRA can be updated and removed"


PATCH = Patch(
    name=NAME,
    phase="before_init",
    targets={TARGET: ("self", "lora_path", "strength")},
    doc=__doc__,
    applies=applies,
    apply=apply,
    verify=verify,
)
