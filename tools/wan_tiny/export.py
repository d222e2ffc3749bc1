"""Write trained checkpoints in the layout of Wan-AI/Wan2.2-I2V-A14B, with the original tensor names.

    python export.py --vae vae.pt --experts OUT/experts --tokenizer DIR --out assets/wan-tiny
    python export.py --random --tokenizer DIR --out DIR        untrained weights, for tests of loaders

Experts become GGUF Q8_0: matrices in Q8_0, patch_embedding as a 5-D F32 tensor (as the
real Wan GGUF files hold it), everything small or one-dimensional in F32. The VAE and the
text encoder are bf16. Afterwards every file is read back through diffusers and
transformers and compared: bf16 weights bit for bit, experts with what Q8_0 stands for.
"""

import argparse
import json
import shutil
from pathlib import Path

import architecture as arch
import names
import torch

EXPERTS = {"high": ("high_noise_model", "HighNoise"), "low": ("low_noise_model", "LowNoise")}
VAE_FILE, TEXT_FILE = "Wan2.1_VAE.pth", "models_t5_umt5-xxl-enc-bf16.pth"


def gguf_path(root, expert):
    folder = EXPERTS[expert][1]
    return Path(root) / folder / f"wan-tiny-{folder}-Q8_0.gguf"


def write_gguf(path, state):
    """Original Wan names -> one GGUF file of architecture "wan"."""
    import gguf

    q8, f32 = gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.F32
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(str(path), "wan")
    writer.add_name("Wan-Tiny I2V")
    writer.add_license("apache-2.0")
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    for name, tensor in state.items():
        data = tensor.float().numpy()
        matrix = data.ndim == 2 and data.size > 20000
        kind = q8 if matrix else f32
        writer.add_tensor(name, gguf.quantize(data, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_configs(root):
    e = arch.EXPERT
    config = {
        "_class_name": "WanModel",
        "_diffusers_version": "0.33.0",
        "dim": e["dim"],
        "eps": e["eps"],
        "ffn_dim": e["ffn_dim"],
        "freq_dim": e["freq_dim"],
        "in_dim": e["in_dim"],
        "model_type": "i2v",
        "num_heads": e["num_heads"],
        "num_layers": e["num_layers"],
        "out_dim": e["out_dim"],
        "text_dim": e["text_dim"],
        "text_len": e["text_len"],
    }
    for folder, _ in EXPERTS.values():
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (root / "wan_tiny.json").write_text(
        json.dumps(
            {
                "comment": "Sizes that the official code hard-codes for the 14B model.",
                "vae": arch.VAE,
                "text_encoder": arch.TEXT,
                "expert": arch.EXPERT,
                "sigmas": arch.SIGMAS,
                "boundary": arch.BOUNDARY,
                "fps": 16,
                "sizes": [{"height": h, "width": w} for h, w in arch.SIZES],
                "frames": list(arch.FRAMES),
            },
            indent=2,
        )
        + "\n"
    )


def bf16(state):
    return {k: v.detach().to(torch.bfloat16).contiguous().cpu() for k, v in state.items()}


def export(models, tokenizer, root):
    """models: vae, high, low, text (the diffusers / transformers modules) -> files under root."""
    root.mkdir(parents=True, exist_ok=True)
    write_configs(root)
    torch.save(names.vae_to_wan(bf16(models["vae"].state_dict()), arch.VAE["num_res_blocks"]), root / VAE_FILE)
    torch.save(names.text_to_wan(bf16(models["text"].state_dict())), root / TEXT_FILE)
    for expert in EXPERTS:
        write_gguf(gguf_path(root, expert), names.expert_to_wan(models[expert].state_dict()))
    target = root / "google/umt5-xxl"
    target.mkdir(parents=True, exist_ok=True)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(Path(tokenizer) / file, target / file)


def inverse(to_wan, module, *more):
    """Original name -> module name, by renaming the module's own keys."""
    keys = {k: k for k in module.state_dict()}
    return {wan: own for wan, own in ((next(iter(to_wan({k: k}, *more))), k) for k in keys if to_wan({k: k}, *more))}


def load(root):
    """Read an exported folder back -> (vae, {"high", "low"}, text encoder, tokenizer), fp32 modules."""
    import gguf
    from transformers import AutoTokenizer

    root = Path(root)
    vae, text = arch.build_vae(), arch.build_text_encoder()
    back = inverse(names.vae_to_wan, vae, arch.VAE["num_res_blocks"])
    state = torch.load(root / VAE_FILE, weights_only=True)
    vae.load_state_dict({back[k]: v.float() for k, v in state.items()}, strict=True)
    back = inverse(names.text_to_wan, text)
    state = {back[k]: v.float() for k, v in torch.load(root / TEXT_FILE, weights_only=True).items()}
    state["encoder.embed_tokens.weight"] = state["shared.weight"]
    text.load_state_dict(state, strict=True)
    experts = {}
    for name in EXPERTS:
        model = arch.build_expert()
        back = inverse(names.expert_to_wan, model)
        state = {}
        for t in gguf.GGUFReader(str(gguf_path(root, name))).tensors:
            data = torch.from_numpy(gguf.dequantize(t.data, t.tensor_type).copy())
            state[back[t.name]] = data.reshape(model.state_dict()[back[t.name]].shape)
        model.load_state_dict(state, strict=True)
        experts[name] = model.eval()
    return vae.eval(), experts, text.eval(), AutoTokenizer.from_pretrained(root / "google/umt5-xxl")


def verify(models, root):
    """Compare what load() reads with the modules that were written."""
    vae, experts, text, tokenizer = load(root)
    for written, read in ((models["vae"], vae), (models["text"], text)):
        for k, v in written.state_dict().items():
            assert torch.equal(v.detach().to(torch.bfloat16).float().cpu(), read.state_dict()[k]), k
    for name, model in experts.items():
        for k, v in models[name].state_dict().items():
            error = (v.float().cpu() - model.state_dict()[k]).norm() / v.float().norm().cpu().clamp(min=1e-6)
            assert error < 0.01, (name, k, error)
    assert tokenizer("Zoom in").input_ids[-1] == 1
    size = sum(f.stat().st_size for f in Path(root).rglob("*") if f.is_file())
    print(f"verified {root}: {size / 1e6:.1f} MB")


def trained(vae_file, experts):
    """Checkpoints of train_vae.py (a file) and train_experts.py (the shards' prefix) -> modules."""
    models = {
        "vae": arch.build_vae(),
        "high": arch.build_expert(),
        "low": arch.build_expert(),
        "text": arch.build_text_encoder(),
    }
    models["vae"].load_state_dict({k: v.float() for k, v in torch.load(vae_file, weights_only=True)["vae"].items()})
    state = {}
    for shard in sorted(Path(experts).parent.glob(Path(experts).name + "_*.pt")):
        state.update(torch.load(shard, weights_only=True))
    for name in ("high", "low", "text"):
        own = {k[len(name) + 1 :]: v.float() for k, v in state.items() if k.startswith(name + ".")}
        models[name].load_state_dict(own)
    return models


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--vae")
    parser.add_argument("--experts")
    parser.add_argument("--random", action="store_true")
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--out", required=True, type=Path)
    args = parser.parse_args()
    if args.random:
        torch.manual_seed(0)
        models = {
            "vae": arch.build_vae(),
            "high": arch.build_expert(),
            "low": arch.build_expert(),
            "text": arch.build_text_encoder(),
        }
    else:
        models = trained(args.vae, args.experts)
    export(models, args.tokenizer, args.out)
    verify(models, args.out)
