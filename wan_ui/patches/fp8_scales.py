"""fp8 files of any converter are read, and their scales keep their float32 precision.

Symptom: none to see with LightX2V's own files: every fp8 layer's output is off by up to 0.4%, as if the file had
bf16 scales. With ComfyUI's: KeyError 'blocks.0.self_attn.q.weight_scale', or "Invalid scaling configuration" at
the first step.

Mechanism: _load_quant_ckpt casts all float tensors of the file to the run's dtype, `weight_scale` included; the
weight class then casts the rounded scales back to float32. It knows one layout, e4m3 with `weight_scale` of
(out, 1). Here the file is read by Wan UI's own reader: prefixes are taken off, one scale for a whole tensor is
spread over its channels, no scale is 1, e5m2 becomes e4m3, and what a partly quantised file keeps in bf16 is
quantised, since one class multiplies all of them.

Remove when: _load_quant_ckpt leaves `weight_scale` alone and reads ComfyUI's files.
"""

from pathlib import Path

from wan_ui.patches.bf16_loader import plain, replace_reader
from wan_ui.patches.record import Patch, is_ours, owner

NAME = "fp8_scales"
TARGET = "lightx2v.models.networks.base_model:BaseTransformerModel._load_quant_ckpt"


def applies(facts, scheme) -> tuple[bool, str]:
    return (True, "the file has float32 scales") if scheme.kind == "fp8" else (False, "no fp8 weights")


def apply(_runner) -> None:
    replace_reader(NAME, TARGET, "dit_quantized_ckpt", read)


def read(path: Path, device, sensitive_layer) -> dict:
    """Name -> tensor: e4m3 and `weight_scale` (out, 1) for the blocks' linear layers, the rest as plain numbers."""
    from wan_ui.files.dit_file import read_dit
    from wan_ui.files.quantise import MULTIPLIED
    from wan_ui.files.tensors import read_fp8

    tensors, stored = {}, read_dit(path)
    for name in filter(MULTIPLIED.match, stored):
        weight, scale = read_fp8(path, stored[name])
        tensors[name], tensors[f"{name}_scale"] = weight.to(device), scale.to(device)
    rest = {name: parameter for name, parameter in stored.items() if name not in tensors}
    return tensors | plain(path, rest, device, sensitive_layer)


def verify(_runner) -> str:
    consumer = owner("lightx2v.models.networks.wan.model:WanModel")[0].WanModel
    assert is_ours(consumer._load_quant_ckpt, NAME), "WanModel has a loader of its own"
    return "WanModel reads fp8 files with it"


PATCH = Patch(
    name=NAME,
    phase="before_init",
    targets={TARGET: ("self", "unified_dtype", "sensitive_layer")},
    doc=__doc__,
    applies=applies,
    apply=apply,
    verify=verify,
)
