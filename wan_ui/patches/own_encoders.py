"""Speech to video and Animate load without encoders of LightX2V's own: voices, faces and pictures are read by Wan UI.

Symptom: Animate in fp8 or GGUF fails with "Missing key(s) in state_dict: enc.net_app.convs.0.0.weight"; S2V asks for
librosa and for the files of a tokenizer, and a long voice takes memory without bound.

Mechanism: load_encoders looks for the motion and face encoders in every safetensors file of the model's folder, where
those of a quantised transformer are not; load_audio_encoder hears the whole voice at once; the CLIP is in fp16 whatever
the run is. Here none of the three is loaded: the engine has its own, from the transformer's file, in windows, in the
run's dtype.

Remove when: the encoders are read from the transformer's file, and a voice is heard in windows.
"""

from wan_ui.patches.record import Patch, is_ours, owner, replace

NAME = "own_encoders"
RUNNERS = "lightx2v.models.runners.wan"
FACES = f"{RUNNERS}.wan_animate_runner:WanAnimateRunner.load_encoders"
PICTURES = f"{RUNNERS}.wan_runner:WanRunner.load_image_encoder"
VOICES = f"{RUNNERS}.wan_s2v_runner:WanS2VRunner.load_audio_encoder"


def applies(facts, scheme) -> tuple[bool, str]:
    if facts.driven:
        return True, f"a {facts.driven} drives the clip"
    return False, "nothing drives the clip"


def apply(_runner) -> None:
    place, name = owner(PICTURES)
    upstream = getattr(place, name)

    def load_image_encoder(self):
        return None if self.config["task"] == "animate" else upstream(self)

    replace(NAME, FACES, lambda self: (None, None))
    replace(NAME, PICTURES, load_image_encoder)
    replace(NAME, VOICES, lambda self: None)


def verify(_runner) -> str:
    for target in (FACES, PICTURES, VOICES):
        place, name = owner(target)
        assert is_ours(getattr(place, name), NAME), f"{target} is upstream's"
    animate = owner(FACES)[0]
    assert is_ours(animate.load_image_encoder, NAME), "WanAnimateRunner has an image encoder of its own"
    return "the runners of S2V and Animate load none"


PATCH = Patch(
    name=NAME,
    phase="before_init",
    targets=dict.fromkeys((FACES, PICTURES, VOICES), ("self",)),
    doc=__doc__,
    applies=applies,
    apply=apply,
    verify=verify,
)
