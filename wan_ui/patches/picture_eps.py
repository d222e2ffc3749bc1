"""What Animate sees in its picture is normalised as it was in training.

Symptom: none to see. Every step of Animate is off by up to 1e-4, where the picture is flat by more.

Mechanism: the official MLPProj has nn.LayerNorm's own epsilon, 1e-5; WanPreWeights takes that for Animate-2 alone and
1e-6 for every other model. Here both norms of the picture's projection get 1e-5.

Remove when: WanPreWeights sets image_proj_norm_eps to 1e-5 for wan2.2_animate.
"""

from wan_ui.patches.record import Patch, is_ours, owner, replace

NAME = "picture_eps"
TARGET = "lightx2v.models.networks.wan.weights.pre_weights:WanPreWeights.__init__"
EPS = 1e-5


def applies(facts, scheme) -> tuple[bool, str]:
    if facts.driven == "performance":
        return True, "the transformer is told of what CLIP sees"
    return False, "no CLIP looks at the picture"


def apply(_runner) -> None:
    place, name = owner(TARGET)
    upstream = getattr(place, name)

    def begin(self, config):
        upstream(self, config)
        for norm in ("proj_0", "proj_4"):
            if hasattr(self, norm):
                getattr(self, norm).eps = EPS

    replace(NAME, TARGET, begin)


def verify(_runner) -> str:
    consumer = owner("lightx2v.models.networks.wan.animate_model:WanAnimateModel")[0].WanAnimateModel
    assert is_ours(consumer.pre_weight_class.__init__, NAME), "WanAnimateModel makes its weights otherwise"
    return "WanAnimateModel makes its norms with it"


PATCH = Patch(
    name=NAME,
    phase="before_init",
    targets={TARGET: ("self", "config")},
    doc=__doc__,
    applies=applies,
    apply=apply,
    verify=verify,
)
