"""An offloaded text encoder computes in bf16 also when the run is fp16.

Symptom: RuntimeError "expected m1 and m2 to have the same dtype, but got: Half != BFloat16" while the
prompt is encoded, on a GPU without bf16 that is short of memory.

Mechanism: the text encoder's weights are bf16 whatever the run's dtype is (its activations overflow
fp16), but with t5_cpu_offload its blocks are built from the weight classes of the transformer, which
took the run's dtype as their own: the first norm answers in fp16. Here those blocks are told that
theirs is bf16; the encoder's output is cast to the run's dtype by upstream itself.

Remove when: the offloaded blocks take the dtype that T5EncoderModel is given.
"""

from wan_ui.patches.record import Patch

NAME = "t5_island"
TARGET = "lightx2v.models.input_encoders.hf.wan.t5.model:T5Encoder.forward_with_offload"


def applies(facts, scheme) -> tuple[bool, str]:
    if facts.dtype != "FP16":
        return False, "the run is bf16 as well"
    if facts.offload == "none" or facts.hardware.device != "cuda":
        return False, "the text encoder is not offloaded"
    return True, "the run is fp16 and the text encoder waits in host memory"


def parts(module):
    """The module and all below it."""
    yield module
    for children in (getattr(module, "_modules", {}), getattr(module, "_parameters", {})):
        for child in children.values():
            if child is not None:
                yield from parts(child)


def apply(runner) -> None:
    import torch

    for encoder in runner.text_encoders:
        for part in parts(encoder.model.blocks_weights):
            for name in ("infer_dtype", "sensitive_layer_dtype"):
                if hasattr(part, name):
                    setattr(part, name, torch.bfloat16)


def verify(runner) -> str:
    for encoder in runner.text_encoders:
        (embeddings,) = encoder.infer(["a cat"])
        assert embeddings.isfinite().all(), "the embeddings are not finite"
    return "embeddings are finite"


PATCH = Patch(
    name=NAME,
    phase="after_init",
    targets={TARGET: ("self", "ids", "mask")},
    doc=__doc__,
    applies=applies,
    apply=apply,
    verify=verify,
)
