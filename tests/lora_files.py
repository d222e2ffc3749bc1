"""Random LoRA files in every key format, and the weight differences that they stand for."""

import torch
from safetensors.torch import save_file

from wan_ui.files.names import dit_name_map

FORMATS = ("lightx2v", "kijai", "model-prefix", "kohya", "peft", "peft-base-model")


def tensor_name(form: str, module: str, leaf: str) -> str:
    """What `form` calls the tensor `leaf` (down | up | alpha | diff | diff_b) of a module with an original name."""
    low_rank = {"down": "lora_down.weight", "up": "lora_up.weight"}
    peft = {"down": "lora_A.weight", "up": "lora_B.weight"}
    match form:
        case "lightx2v":
            return f"{module}.{low_rank.get(leaf, leaf)}"
        case "kijai":
            return f"diffusion_model.{module}.{peft.get(leaf, leaf)}"
        case "model-prefix":
            return f"model.diffusion_model.{module}.{low_rank.get(leaf, leaf)}"
        case "kohya":
            return f"lora_unet_{module.replace('.', '_')}.{low_rank.get(leaf, leaf)}"
        case "peft":
            return f"transformer.{dit_name_map(99)[module]}.{peft.get(leaf, leaf)}"
        case "peft-base-model":
            adapter = {"down": "lora_A.default.weight", "up": "lora_B.default.weight"}
            return f"base_model.model.{module}.{adapter.get(leaf, leaf)}"


def linears(shapes: dict) -> list[str]:
    """Modules with a two-dimensional weight, from parameter shapes."""
    return [name.removesuffix(".weight") for name, shape in shapes.items() if len(shape) == 2 and "weight" in name]


def write(
    path, shapes, form="kijai", *, rank=4, alpha=None, size=0.5, seed=0, modules=None, diffs=False, metadata=None
) -> dict[str, torch.Tensor]:
    """A LoRA on `modules` (default: every linear layer). Returns parameter name -> its difference at strength 1.

    diffs  also differences of biases, norms, modulation tables, the patch embedding and one whole weight
    size   of a layer's difference, relative to 1 / sqrt(in)
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    tensors, differences = {}, {}
    for module in linears(shapes) if modules is None else modules:
        out, width = shapes[f"{module}.weight"]
        down, up = draw(rank, width) / width**0.5, size * draw(out, rank) / (width * rank) ** 0.5 * width**0.5
        tensors[tensor_name(form, module, "down")], tensors[tensor_name(form, module, "up")] = down, up
        if alpha is not None:
            tensors[tensor_name(form, module, "alpha")] = torch.tensor(float(alpha))
        differences[f"{module}.weight"] = up @ down * (1 if alpha is None else alpha / rank)
    if diffs:
        whole = "blocks.1.ffn.2"
        for name, shape in shapes.items():
            module, _, leaf = name.rpartition(".")
            if name.endswith("modulation"):
                module, leaf = name, "weight"
            if leaf == "weight" and len(shape) == 2 and module != whole:
                continue
            difference = 0.1 * draw(*shape)
            tensors[tensor_name(form, module, "diff" if leaf == "weight" else "diff_b")] = difference
            differences[name] = differences.get(name, 0) + difference
    save_file(tensors, path, metadata=metadata)
    return differences
