"""Plain files of any converter are read, and none is mapped into memory.

Symptom: KeyError 'patch_embedding.weight' with files that carry ComfyUI's prefix; a file that is replaced or cut
off while it is loaded ends the process with SIGBUS.

Mechanism: _load_ckpt hands on the names that the file has, all of them, and reads through a memory map. Here the
file is read by Wan UI's own reader: the DIT's tensors under their original names, copied.

Remove when: _load_ckpt takes prefixes off and reads without a map.
"""

from collections.abc import Callable
from pathlib import Path

from wan_ui.patches.record import Patch, is_ours, owner, replace

NAME = "bf16_loader"
TARGET = "lightx2v.models.networks.base_model:BaseTransformerModel._load_ckpt"


def applies(facts, scheme) -> tuple[bool, str]:
    return (True, "the file holds plain numbers") if scheme.kind == "bf16" else (False, "quantised weights")


def apply(_runner) -> None:
    replace_reader(NAME, TARGET, "dit_original_ckpt", read)


def replace_reader(patch_name: str, target: str, key: str, read: Callable[..., dict]) -> None:
    """Have `read(path, device, sensitive_layer)` read the safetensors file, or the folder of them, that the
    configuration names in `key`; whatever else there is stays upstream's."""
    place, name = owner(target)
    upstream = getattr(place, name)

    def load(self, unified_dtype, sensitive_layer) -> dict:
        path = Path(self.config.get(key) or self.model_path)
        parts = path.is_dir() and any(path.glob("*.safetensors"))
        if not parts and (not path.is_file() or path.suffix not in (".safetensors", ".json")):
            return upstream(self, unified_dtype, sensitive_layer)
        return read(path, self.device, sensitive_layer)

    replace(patch_name, target, load)


def read(path: Path, device, sensitive_layer) -> dict:
    from wan_ui.files.dit_file import read_dit

    return plain(path, read_dit(path), device, sensitive_layer)


def plain(path: Path, stored: dict, device, sensitive_layer) -> dict:
    """Name -> tensor in the run's dtype; upstream's sensitive dtype where its own loader does that."""
    from lightx2v.utils.envs import GET_DTYPE, GET_SENSITIVE_DTYPE

    from wan_ui.files.tensors import read_plain

    def dtype(name: str):
        return GET_SENSITIVE_DTYPE() if any(part in name for part in sensitive_layer) else GET_DTYPE()

    return {name: read_plain(path, parameter).to(device, dtype(name)) for name, parameter in stored.items()}


def verify(_runner) -> str:
    consumer = owner("lightx2v.models.networks.wan.model:WanModel")[0].WanModel
    assert is_ours(consumer._load_ckpt, NAME), "WanModel has a loader of its own"
    return "WanModel reads plain files with it"


PATCH = Patch(
    name=NAME,
    phase="before_init",
    targets={TARGET: ("self", "unified_dtype", "sensitive_layer")},
    doc=__doc__,
    applies=applies,
    apply=apply,
    verify=verify,
)
