"""GGUF files are loaded with the run's dtypes, shapes and names.

Symptom: RuntimeError "Input type (BFloat16) and bias type (float) should be the same" at the first step,
or "argument 'other' must be Tensor, not GGMLTensor" at load; a BF16 tensor arrives as raw bytes.

Mechanism: upstream hands on what the file holds. F32 and F16 tensors keep their type although the run
computes in bf16, BF16 ones stay uint8, a tensor that the writer had to fold (patch_embedding has five
dimensions, GGML four) keeps the folded shape, ComfyUI's prefix stays in the names, and embeddings that
are quantised in the file reach weight classes which know plain numbers only. Here the file is read by
Wan UI's own bounded reader; only the linear layers of the blocks stay in GGML blocks, the rest becomes
plain numbers of the run's dtype (of the sensitive dtype where upstream's own loader does that).

Remove when: LightX2V's _load_gguf_ckpt casts plain tensors, and Wan-Tiny's Q8_0 file loads unpatched.
"""

from pathlib import Path

from wan_ui.patches.record import Patch, is_ours, owner, replace

NAME = "gguf_loader"
TARGET = "lightx2v.models.networks.base_model:BaseTransformerModel._load_gguf_ckpt"


def applies(facts, scheme) -> tuple[bool, str]:
    return (True, f"{scheme.name} is read from GGUF") if scheme.kind == "gguf" else (False, "no GGUF file")


def load(self, gguf_path) -> dict:
    """Name -> tensor: GGML blocks for the linear layers of the transformer blocks, else plain numbers."""
    import torch
    from gguf import GGMLQuantizationType
    from lightx2v.utils.ggml_tensor import GGMLTensor

    from wan_ui.files.dit_file import read_dit
    from wan_ui.files.quantise import MULTIPLIED
    from wan_ui.files.tensors import read_blocks
    from wan_ui.patches.bf16_loader import plain

    path = Path(gguf_path)
    tensors, stored = {}, read_dit(path)
    for name, parameter in stored.items():
        if parameter.blocks and MULTIPLIED.match(name):
            blocks = GGMLTensor(
                data=read_blocks(path, parameter.info),
                orig_shape=torch.Size(parameter.shape),
                gguf_type=GGMLQuantizationType[parameter.info.dtype],
            )
            tensors[name] = blocks.to(self.device)
    rest = {name: parameter for name, parameter in stored.items() if name not in tensors}
    return tensors | plain(path, rest, self.device, self.sensitive_layer)


def apply(_runner) -> None:
    replace(NAME, TARGET, load)


def verify(_runner) -> str:
    place, name = owner(TARGET)
    consumer = owner("lightx2v.models.networks.wan.model:WanModel")[0].WanModel
    assert is_ours(getattr(place, name), NAME), "the loader is upstream's"
    assert is_ours(getattr(consumer, name), NAME), "WanModel has a loader of its own"
    return "WanModel reads GGUF files with it"


PATCH = Patch(
    name=NAME,
    phase="before_init",
    targets={TARGET: ("self", "gguf_path")},
    doc=__doc__,
    applies=applies,
    apply=apply,
    verify=verify,
)
