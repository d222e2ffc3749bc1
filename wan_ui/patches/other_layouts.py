"""A text encoder and a VAE are read from Diffusers' folders, ComfyUI's files and GGUF, too.

Symptom: with such a file "Missing key(s) in state_dict: token_embedding.weight", or an error of the pickle reader.

Mechanism: load_pt_safetensors hands on the names that the file has, and upstream's modules know those of the release's
`.pth` alone. Here it gives what Wan UI's own readers make of the file, told by its names: original names; of a text
encoder in fp8 e4m3 weights with `weight_scale` of (out, 1), else plain numbers.

Remove when: load_pt_safetensors takes names of transformers and diffusers, and scales of ComfyUI's files.
"""

from pathlib import Path

from wan_ui.patches.record import Patch, is_ours, owner, replace

NAME = "other_layouts"
TARGET = "lightx2v.utils.utils:load_pt_safetensors"


def applies(facts, scheme) -> tuple[bool, str]:
    if facts.other_layout:
        return True, "the text encoder or the VAE is stored otherwise than in the release's .pth"
    return False, "the text encoder and the VAE are the release's .pth files"


def text(path: Path) -> dict:
    """Original name -> tensor, as upstream's text encoder takes them: fp8 with scales, or bf16."""
    import torch

    from wan_ui.files.tensors import read_fp8, read_plain
    from wan_ui.files.text_file import stored_text, text_is_fp8

    tensors, fp8 = {}, text_is_fp8(path)
    for name, stored in stored_text(path).items():
        if fp8 and (".attn." in name or ".ffn." in name):
            tensors[name], tensors[f"{name}_scale"] = read_fp8(path, stored)
        else:
            tensors[name] = read_plain(path, stored).to(torch.bfloat16)
    return tensors


def apply(_runner) -> None:
    place, name = owner(TARGET)
    upstream = getattr(place, name)

    def load(in_path, remove_key=None, include_keys=None) -> dict:
        from wan_ui.files.names import original_t5, original_vae
        from wan_ui.files.parts import read_weights
        from wan_ui.files.text_file import is_pickle
        from wan_ui.files.vae_file import read_vae

        path = Path(in_path)
        names = {} if is_pickle(path) else read_weights(path).tensors
        if "token_embedding.weight" in original_t5(names):
            return text(path)
        if "decoder.conv1.weight" in original_vae(names):
            return read_vae(path)
        return upstream(in_path, remove_key, include_keys)

    replace(NAME, TARGET, load)


def verify(_runner) -> str:
    place, name = owner(TARGET)
    assert is_ours(getattr(place, name), NAME), "the reader is upstream's"
    assert name in place.load_weights.__code__.co_names, "load_weights does not call it"
    return "load_weights reads with it"


PATCH = Patch(
    name=NAME,
    phase="before_init",
    targets={TARGET: ("in_path", "remove_key", "include_keys")},
    doc=__doc__,
    applies=applies,
    apply=apply,
    verify=verify,
)
