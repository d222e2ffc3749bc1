"""Where the weights are while a GPU makes a clip: the ways there are, in words, and which of them an engine has."""

from wan_ui.catalog import Model, Scheme

# A setting's names -> what a person chooses, and what then happens.
WAYS = {
    "auto": ("Auto", "what the GPU's memory allows"),
    "none": ("Everything on the GPU", "everything stays on the GPU"),
    "text": ("Text encoder in RAM", "the text encoder waits in RAM, everything else stays on the GPU"),
    "model": ("One expert at a time", "one expert at a time is on the GPU, the others wait in RAM"),
    "block": ("Blocks", "blocks move between RAM and GPU while they run"),
}


def impossible(way: str, model: Model, scheme: Scheme, engine: str) -> str:
    """Why `engine` (lightx2v or diffusers) cannot keep this model's weights that way; "" where it can."""
    if way == "block":
        if engine == "diffusers":
            return "the diffusers engine moves whole experts only"
        if scheme.kind == "gguf":
            return "GGUF weights can be offloaded by whole models only"
        if model.family.driven:
            return f"a model that a {model.family.driven} drives can be offloaded by whole models only"
    if way == "model" and engine == "diffusers" and model.family.single:
        return "there is one expert alone, and the diffusers engine keeps it where it computes"
    return ""


def offered(model: Model, scheme: Scheme, engine: str) -> tuple[str, ...]:
    return tuple(way for way in WAYS if not impossible(way, model, scheme, engine))


def in_words(fact: str) -> str:
    """ "block (auto: block by block, 30.1 GiB wanted, 24.0 GiB free)", as an engine says it in a clip's facts, in a
    sentence: "Blocks move between RAM and GPU while they run (auto: ...)"."""
    way, _, reason = fact.partition(" (")
    words = WAYS[way][1] if way in WAYS and way != "auto" else way
    return f"{words[:1].upper()}{words[1:]}" + (f" ({reason}" if reason else "")
