"""fp8 scales keep their float32 precision.

Symptom: none to see. Every fp8 layer's output is off by up to 0.4%, as if the file had bf16 scales.

Mechanism: _load_quant_ckpt casts all float tensors of the file to the run's dtype, `weight_scale`
included; the weight class then casts the rounded scales back to float32. Here the scales are read once
more, from the same file, after upstream has loaded the rest.

Remove when: _load_quant_ckpt leaves `weight_scale` alone.
"""

from pathlib import Path

from wan_ui.patches.record import Patch, is_ours, owner, replace

NAME = "fp8_scales"
TARGET = "lightx2v.models.networks.base_model:BaseTransformerModel._load_quant_ckpt"


def applies(facts, scheme) -> tuple[bool, str]:
    return (True, "the file has float32 scales") if scheme.kind == "fp8" else (False, "no fp8 weights")


def apply(_runner) -> None:
    place, name = owner(TARGET)
    upstream = getattr(place, name)

    def load(self, unified_dtype, sensitive_layer) -> dict:
        tensors = upstream(self, unified_dtype, sensitive_layer)
        path = Path(self.config.get("dit_quantized_ckpt") or self.model_path)
        if path.is_file() and path.suffix == ".safetensors":
            tensors |= scales(path, self.device)
        return tensors

    replace(NAME, TARGET, load)


def scales(path: Path, device) -> dict:
    """The `weight_scale` tensors of a safetensors file as they are stored."""
    from wan_ui.headers import read_header
    from wan_ui.tensors import read_tensor

    infos = read_header(path).tensors
    return {name: read_tensor(path, infos[name]).to(device) for name in infos if name.endswith(".weight_scale")}


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
