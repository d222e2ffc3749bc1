"""A text encoder that waits in host memory computes what a resident one does, and its table of words stays there.

Symptom: RuntimeError "expected m1 and m2 to have the same dtype, but got: Half != BFloat16" while the prompt is
encoded, on a GPU without bf16 that is short of memory; elsewhere a clip that is 3.6% another one (fp8, Wan-Tiny) as
soon as the text encoder does not stay on the GPU. 2.1 s for each new prompt on an H100.

Mechanism: with t5_cpu_offload the encoder's blocks are built from the weight classes of the transformer. These
take the run's dtype as their own, although the encoder is bf16 whatever the run is (its activations overflow
fp16); they keep each weight as the file has it, where the resident modules cast it to the encoder's dtype; and
their norm, without sgl_kernel, squares and takes the root in bf16, where the resident T5LayerNorm does so in
float32. Here those blocks get the encoder's dtype, for their weights too, and T5LayerNorm's arithmetic; the
encoder's output is cast to the run's dtype by upstream itself. The table of 256,384 words (2 GB, not page-locked)
is moved to the GPU and back for the 512 rows that a prompt reads; here the rows are read in host memory.

Remove when: the offloaded blocks take the dtype that T5EncoderModel is given, their norm sums in float32, and the
table of words stays in host memory.
"""

from types import MethodType

from wan_ui.patches.record import Patch

NAME = "t5_offload"
TARGET = "lightx2v.models.input_encoders.hf.wan.t5.model:T5Encoder.forward_with_offload"
TENSORS = ("weight", "pin_weight", "weight_cuda_buffer")  # where a block of host memory and its GPU buffer keep theirs


def applies(facts, scheme) -> tuple[bool, str]:
    if facts.offload == "none" or facts.hardware.device != "cuda":
        return False, "the text encoder is not offloaded"
    return True, "the text encoder waits in host memory"


def parts(module):
    """The module and all below it."""
    yield module
    for children in (getattr(module, "_modules", {}), getattr(module, "_parameters", {})):
        for child in children.values():
            if child is not None:
                yield from parts(child)


def apply(runner) -> None:
    import torch
    from lightx2v.common.ops.norm.rms_norm_weight import RMSWeight

    for encoder in runner.text_encoders:
        for part in parts(encoder.model.blocks_weights):
            for name in ("infer_dtype", "sensitive_layer_dtype"):
                if hasattr(part, name):
                    setattr(part, name, encoder.dtype)
            for name in TENSORS:
                tensor = getattr(part, name, None)
                # fp8 and int8 weights stay as they are: their classes multiply them as stored.
                if isinstance(tensor, torch.Tensor) and tensor.dtype in (torch.float16, torch.bfloat16, torch.float32):
                    setattr(part, name, cast(tensor, encoder.dtype))
            if isinstance(part, RMSWeight):
                part.apply = MethodType(norm, part)
        encoder.model.token_embedding = host_table(encoder.model.token_embedding)


def host_table(embedding):
    """The same table, which stays in host memory whatever it is moved to."""
    import torch

    class HostTable(torch.nn.Embedding):
        def forward(self, ids):
            return super().forward(ids.cpu()).to(ids.device)

        def to(self, *_args, **_kwargs):
            return self

    embedding = embedding.to("cpu")
    embedding.__class__ = HostTable
    return embedding


def cast(tensor, dtype):
    """In that dtype, page-locked if it was."""
    if tensor.dtype == dtype:
        return tensor
    pinned = tensor.device.type == "cpu" and tensor.is_pinned()
    tensor = tensor.to(dtype)
    return tensor.pin_memory() if pinned else tensor


def norm(self, x):
    """As T5LayerNorm.forward: the sum and the root in float32, one rounding to the encoder's dtype, then the weight."""
    return (x * (x.float().pow(2).mean(-1, keepdim=True) + self.eps).rsqrt()).to(x.dtype) * self._get_actual_weight()


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
