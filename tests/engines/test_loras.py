"""LoRAs in the diffusers engine, on random experts in float32: against weights with the difference merged in."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests import lora_files
from tests.engines.random_models import make_engine
from wan_ui.errors import UserError
from wan_ui.files.dit_file import read_dit, read_parameters
from wan_ui.files.names import dit_name_map
from wan_ui.files.places import locate
from wan_ui.files.tensors import float_tensors
from wan_ui.request import LoraSpec
from wan_ui.settings import settings

INDEX_OF_TARGET = {"high_noise": 0, "low_noise": 1}
EVERY = "blocks.0.self_attn.q"  # a layer that every LoRA of these tests has


@pytest.fixture(scope="module")
def experts(a14b):
    return locate(a14b, a14b.scheme("bf16"), settings()).experts


@pytest.fixture(scope="module")
def shapes(a14b):
    return read_parameters(locate(a14b, a14b.scheme("bf16"), settings()).configs[0])


@pytest.fixture
def engine(float32_engine):
    float32_engine.set_loras([])
    yield float32_engine
    float32_engine.set_loras([])


@pytest.fixture(scope="module")
def inputs(float32_engine):
    generator = torch.Generator().manual_seed(3)
    config = float32_engine.experts[0].config
    return {
        "hidden_states": torch.randn(1, config.in_channels, 2, 8, 8, generator=generator),
        "timestep": torch.tensor([900.0]),
        "encoder_hidden_states": torch.randn(1, 16, config.text_dim, generator=generator),
        "return_dict": False,
    }


def forward(engine, inputs) -> list[torch.Tensor]:
    """Both experts' outputs."""
    with torch.inference_mode():
        return [expert(**inputs)[0] for expert in engine.experts]


def merged(engine, experts, index, differences, inputs, strength=1.0) -> torch.Tensor:
    """The expert's output with the differences added to its weights: the reference."""
    from wan_ui.engines import dit
    from wan_ui.files.names import dit_name_map, rename

    path = experts[index]
    tensors = float_tensors(path, read_dit(path))
    for name, difference in differences.items():
        tensors[name] = tensors[name] + strength * difference
    config = dict(engine.experts[index].config)
    model = dit.WanTransformer3DModel(**{key: config[key] for key in config if not key.startswith("_")}).eval()
    model.load_state_dict(rename(tensors, dit_name_map(config["num_layers"])), strict=False)
    with torch.inference_mode():
        return model(**inputs)[0]


def close(got, expected, base) -> bool:
    """Equal up to float32 noise, measured by what the LoRA changed."""
    assert (expected - base).norm() > 1e-3 * base.norm(), "the LoRA of this test does nothing"
    return bool((got - expected).norm() < 1e-3 * (expected - base).norm())


@pytest.mark.parametrize("target", INDEX_OF_TARGET)
@pytest.mark.parametrize("form", lora_files.FORMATS)
def test_every_format_equals_merged_weights(engine, experts, shapes, inputs, tmp_path, form, target):
    base = forward(engine, inputs)
    differences = lora_files.write(
        tmp_path / "a.safetensors", shapes, form, alpha=2 if form in ("kohya", "kijai") else None, diffs=True
    )
    (match,) = engine.set_loras([LoraSpec(str(tmp_path / "a.safetensors"), 0.7, target)])
    modules = {name.removesuffix(".weight").removesuffix(".bias") for name in differences}
    assert match.matched == {target: f"{len(modules)}/{len(modules)}"} and not match.unmatched
    got = forward(engine, inputs)
    one, other = INDEX_OF_TARGET[target], 1 - INDEX_OF_TARGET[target]
    assert torch.equal(got[other], base[other])
    assert close(got[one], merged(engine, experts, one, differences, inputs, 0.7), base[one])
    engine.set_loras([])
    assert all(map(torch.equal, forward(engine, inputs), base))


def test_several_at_once_swapped_and_removed(engine, experts, shapes, inputs, tmp_path):
    base = forward(engine, inputs)
    files = [tmp_path / f"{name}.safetensors" for name in "abc"]
    a = lora_files.write(files[0], shapes, rank=3)
    b = lora_files.write(files[1], shapes, "kohya", rank=8, alpha=8, seed=1, modules=[EVERY, "blocks.1.ffn.0"])
    c = lora_files.write(files[2], shapes, rank=16, seed=2, modules=["blocks.1.cross_attn.k"])
    specs = [LoraSpec(str(files[0]), 1.0, "both"), LoraSpec(str(files[1]), -0.5, "high_noise")]
    matches = engine.set_loras(specs)
    assert [match.matched for match in matches] == [
        {"high_noise": f"{len(a)}/{len(a)}", "low_noise": f"{len(a)}/{len(a)}"},
        {"high_noise": "2/2"},
    ]
    got = forward(engine, inputs)
    mixed = {name: difference - 0.5 * b.get(name, 0) for name, difference in a.items()}
    assert close(got[0], merged(engine, experts, 0, mixed, inputs), base[0])
    assert close(got[1], merged(engine, experts, 1, a, inputs), base[1])

    engine.set_loras([LoraSpec(str(files[0]), 0.3, "both")])  # only another strength, and one less
    assert close(forward(engine, inputs)[0], merged(engine, experts, 0, a, inputs, 0.3), base[0])

    engine.set_loras([LoraSpec(str(files[2]), 1.0, "low_noise")])  # another rank, on other layers
    got = forward(engine, inputs)
    assert torch.equal(got[0], base[0])
    assert close(got[1], merged(engine, experts, 1, c, inputs), base[1])

    engine.set_loras([])
    assert all(map(torch.equal, forward(engine, inputs), base))


def test_strength_zero_is_base(engine, shapes, inputs, tmp_path):
    base = forward(engine, inputs)
    lora_files.write(tmp_path / "a.safetensors", shapes, diffs=True)
    engine.set_loras([LoraSpec(str(tmp_path / "a.safetensors"), 0.0, "both")])
    assert all(map(torch.equal, forward(engine, inputs), base))


def bad_files(folder, shapes) -> dict[str, str]:
    """File -> what the message must say."""
    lora_files.write(folder / "good.safetensors", shapes)
    from safetensors.torch import load_file

    good = load_file(folder / "good.safetensors")
    down, up = (lora_files.tensor_name("kijai", EVERY, leaf) for leaf in ("down", "up"))

    def save(name, **changes):
        renamed = {{"down": down, "up": up}.get(key, key): value for key, value in changes.items()}
        tensors = {key: value for key, value in (good | renamed).items() if value is not None}
        save_file(tensors, folder / f"{name}.safetensors")

    out, rank = good[up].shape
    width = good[down].shape[1]
    nan = good[up].clone()
    nan[3, 1] = float("nan")
    save("nan", up=nan)
    save("infinite", down=good[down] * float("inf"))
    save("wide", down=torch.zeros(rank, 2 * width))
    save("ranks", down=torch.zeros(rank + 1, width))
    save("half", up=None)
    save("huge", down=torch.zeros(100_000, 2), up=torch.zeros(2, 100_000))
    save_file({f"lora_te1_{i}.lora_down.weight": torch.ones(2, 2) for i in range(3)}, folder / "foreign.safetensors")
    save_file({name: 0 * tensor for name, tensor in good.items()}, folder / "zero.safetensors")
    save_file({f"diffusion_model.{EVERY}.lokr_w1": torch.ones(2, 2)}, folder / "lokr.safetensors")
    save_file({**good, f"diffusion_model.{EVERY}.dora_scale": torch.ones(out, 1)}, folder / "dora.safetensors")
    far = {name.replace("blocks.0", "blocks.77"): tensor for name, tensor in good.items() if "blocks.0" in name}
    save_file(far, folder / "elsewhere.safetensors")
    raw = (folder / "good.safetensors").read_bytes()
    (folder / "truncated.safetensors").write_bytes(raw[:-100])
    (folder / "corrupt.safetensors").write_bytes(raw[:40] + b"\0" * 40 + raw[80:])
    (folder / "pickle.safetensors").write_bytes(b"PK\x03\x04" + raw)
    return {
        "nan": "blocks.0.self_attn.q holds NaN or infinite",
        "infinite": "blocks.0.self_attn.q holds NaN or infinite",
        "wide": "is for a layer of shape",
        "ranks": "their ranks differ",
        "half": "its other half is missing",
        "huge": "rank 100,000",
        "foreign": "none of its 3 keys is known",
        "zero": "changes nothing",
        "lokr": "LoKr, which is not supported",
        "dora": "DoRA, which is not supported",
        "elsewhere": "is in this model",
        "truncated": "truncated",
        "corrupt": "header",
        "pickle": "pickle",
    }


@pytest.mark.hardening(10, 14)
def test_bad_files_are_refused_and_leave_the_base(engine, shapes, inputs, tmp_path):
    base = forward(engine, inputs)
    expected = bad_files(tmp_path, shapes)
    for name, words in expected.items():
        engine.set_loras([LoraSpec(str(tmp_path / "good.safetensors"), 1.0, "both")])
        specs = [
            LoraSpec(str(tmp_path / "good.safetensors"), 0.5, "both"),
            LoraSpec(str(tmp_path / f"{name}.safetensors"), 1.0, "low_noise"),
        ]
        with pytest.raises(UserError, match=rf"{name}\.safetensors.*{words}") as error:
            engine.set_loras(specs)
        assert error.value.field == "loras"
        assert all(map(torch.equal, forward(engine, inputs), base)), name


@pytest.mark.hardening(14)
def test_a_failure_on_the_second_expert_rolls_back_the_first(engine, shapes, inputs, tmp_path, monkeypatch):
    base = forward(engine, inputs)
    lora_files.write(tmp_path / "a.safetensors", shapes)
    second = engine.loras.experts[1]
    slot = second.slot

    def failing(module):
        if module.startswith("blocks.1."):
            raise torch.OutOfMemoryError("no memory left")
        return slot(module)

    monkeypatch.setattr(second, "slot", failing)
    with pytest.raises(torch.OutOfMemoryError):
        engine.set_loras([LoraSpec(str(tmp_path / "a.safetensors"), 1.0, "both")])
    assert all(map(torch.equal, forward(engine, inputs), base))


def test_a_layer_that_does_not_take_its_branch_is_noticed(engine, shapes, inputs, tmp_path, monkeypatch):
    from wan_ui.engines.lora_modules import LinearSlot

    base = forward(engine, inputs)
    lora_files.write(tmp_path / "a.safetensors", shapes)
    attach = LinearSlot.attach

    def without_effect(self, branch):
        attach(self, branch)
        self.module.forward = lambda x: self.module.lora_base.forward(self.module, x)

    monkeypatch.setattr(LinearSlot, "attach", without_effect)
    with pytest.raises(RuntimeError, match="a probe is off"):
        engine.set_loras([LoraSpec(str(tmp_path / "a.safetensors"), 1.0, "both")])
    for expert in engine.experts:
        for module in expert.modules():
            module.__dict__.pop("forward", None)
    assert all(map(torch.equal, forward(engine, inputs), base))


def test_the_probe_has_as_many_tokens_as_a_gpus_products_need(engine, shapes, inputs, tmp_path, monkeypatch):
    """On an H100 cuBLAS refuses fp8 products of fewer than 32 tokens with a bias: no LoRA could be used with them."""
    from wan_ui.engines.lora_modules import LinearSlot

    run = LinearSlot.run

    def refuses_few(self, x, with_branch):
        if len(x) < 32:
            raise RuntimeError("CUBLAS_STATUS_NOT_SUPPORTED")
        return run(self, x, with_branch)

    monkeypatch.setattr(LinearSlot, "run", refuses_few)
    base = forward(engine, inputs)
    lora_files.write(tmp_path / "a.safetensors", shapes)
    engine.set_loras([LoraSpec(str(tmp_path / "a.safetensors"), 1.0, "both")])
    assert not torch.equal(forward(engine, inputs)[0], base[0])


@pytest.mark.parametrize("scheme", ("fp8", "gguf-Q8_0"))
def test_on_weights_that_stay_quantised(a14b, shapes, inputs, tmp_path, monkeypatch, scheme):
    """The change is that of the same LoRA on the dequantised weights, up to bf16."""
    from wan_ui.engines import device

    lora_files.write(tmp_path / "a.safetensors", shapes, size=1.0, diffs=True)
    spec = LoraSpec(str(tmp_path / "a.safetensors"), 1.0, "both")
    changes = []
    for limit in (device.SMALL, 0):
        monkeypatch.setattr(device, "SMALL", limit)
        engine = make_engine(a14b, scheme, torch.float32)
        base = forward(engine, inputs)
        engine.set_loras([spec])
        changes.append(forward(engine, inputs)[0] - base[0])
        engine.set_loras([])
        assert all(map(torch.equal, forward(engine, inputs), base))
    assert (changes[0] - changes[1]).norm() < 0.02 * changes[0].norm()


def test_facts_and_clip(engine, a14b, shapes, make_request, tmp_path):
    from dataclasses import replace

    lora_files.write(tmp_path / "a.safetensors", shapes)
    spec = LoraSpec(str(tmp_path / "a.safetensors"), 0.5, "high_noise")
    request = make_request(a14b, steps=2, frames=5)
    base = engine.generate(request, lambda progress: None)
    assert "loras" not in base.facts
    engine.set_loras([spec])
    clip = engine.generate(replace(request, made_with=replace(request.sampling, loras=(spec,))), lambda progress: None)
    count = len(lora_files.linears(shapes))
    assert clip.facts["loras"] == f"{spec.file} x0.5: high noise {count}/{count} layers"
    assert not np.array_equal(clip.latents, base.latents)


def test_the_models_own_pair_stays(a14b, shapes, inputs, tmp_path):
    """A distill LoRA that the catalog attaches is part of the model: [] leaves it, and so does a failure."""
    from dataclasses import replace

    for seed, side in enumerate(("high", "low")):
        lora_files.write(tmp_path / f"{side}.safetensors", shapes, seed=seed)
    lora_files.write(tmp_path / "style.safetensors", shapes, rank=2, seed=5)
    pair = {f"lora_{side}": f"embedded:{tmp_path}:{side}.safetensors" for side in ("high", "low")}
    scheme = replace(a14b.scheme("bf16"), **pair)
    plain = forward(make_engine(a14b, dtype=torch.float32), inputs)
    engine = make_engine(replace(a14b, schemes={"bf16": scheme}), dtype=torch.float32)
    base = forward(engine, inputs)
    assert not any(map(torch.equal, base, plain))
    engine.set_loras([LoraSpec(str(tmp_path / "style.safetensors"), 1.0, "both")])
    assert not any(map(torch.equal, forward(engine, inputs), base))
    with pytest.raises(UserError):
        engine.set_loras([LoraSpec(str(tmp_path / "absent.safetensors"), 1.0, "both")])
    assert all(map(torch.equal, forward(engine, inputs), base))
    engine.set_loras([])
    assert all(map(torch.equal, forward(engine, inputs), base))


# ---------------------------------------------------------------- one change in the formats of many trainers

RANK = 4
THEIRS = dit_name_map(8)  # Wan-Tiny has 8 blocks
DOWN_UP, A_B = ("lora_down.weight", "lora_up.weight"), ("lora_A.weight", "lora_B.weight")


def pairs(layers, name, leaves=A_B, scale=1.0, **beside):
    """`name(module)` before each leaf; `scale` of up; beside: leaf -> tensor or function of the module."""
    found = {}
    for module, (down, up) in layers.items():
        found[f"{name(module)}.{leaves[0]}"], found[f"{name(module)}.{leaves[1]}"] = down.clone(), up * scale
        for leaf, value in beside.items():
            found[f"{name(module)}.{leaf}"] = value(module) if callable(value) else value.clone()
    return found


def flat(module):
    return module.replace(".", "_")


def comfy(module):
    return f"diffusion_model.{module}"


def peft(module):
    return f"transformer.{THEIRS[module]}"


def told(**values):
    return {"lora_adapter_metadata": json.dumps({f"transformer.{key}": value for key, value in values.items()})}


def patterned(layers):
    pattern = {THEIRS[module]: 4 * RANK for module in layers if ".ffn." in module}
    tensors = pairs(layers, peft)
    for name in tensors:
        if ".ffn." in name and "lora_B" in name:
            tensors[name] = tensors[name] * 0.25
    return tensors, told(r=RANK, lora_alpha=RANK, alpha_pattern=pattern, rank_pattern={})


def alpha(kind):
    return torch.tensor(4 * RANK, dtype=kind)


SAME = {
    "alpha float64": lambda s: pairs(s, lambda m: f"lora_unet_{flat(m)}", DOWN_UP, 0.25, alpha=alpha(torch.float64)),
    "alpha int64": lambda s: pairs(s, lambda m: f"lora_unet_{flat(m)}", DOWN_UP, 0.25, alpha=alpha(torch.int64)),
    "alpha int32": lambda s: pairs(s, comfy, DOWN_UP, 0.25, alpha=alpha(torch.int32)),
    "alpha uint8": lambda s: pairs(s, comfy, A_B, 0.25, alpha=alpha(torch.uint8).reshape(1, 1)),
    "dots kept": lambda s: pairs(s, lambda m: f"lora_unet_{m.replace('blocks.', 'blocks_', 1)}", DOWN_UP),
    "lycoris": lambda s: pairs(s, lambda m: f"lycoris_{flat(THEIRS[m])}", DOWN_UP),
    "onetrainer": lambda s: pairs(s, lambda m: f"lora_transformer_{flat(THEIRS[m])}", DOWN_UP),
    "compiled": lambda s: pairs(s, lambda m: f"_orig_mod.{m}", ("lora_A.mine.weight", "lora_B.mine.weight")),
    "1x1 convolutions": lambda s: {k: v[:, :, None, None] for k, v in pairs(s, comfy).items()},
    "peft alpha": lambda s: (pairs(s, peft, scale=0.25), told(r=RANK, lora_alpha=4 * RANK)),
    "peft pattern": patterned,
    "rank-stabilised": lambda s: (
        pairs(s, peft, scale=RANK**-0.5), told(r=RANK, lora_alpha=RANK, use_rslora=True, init_lora_weights=True)
    ),
    "single entries": lambda s: (pairs(s, comfy, scale=0.25), {"lora_alpha": str(4 * RANK), "rank": str(RANK)}),
    "flat peft": lambda s: (pairs(s, peft, scale=0.25), {"transformer.r": "4", "transformer.lora_alpha": "16"}),
    "no prefix": lambda s: (
        pairs(s, peft, scale=0.25), {"lora_adapter_metadata": json.dumps({"r": RANK, "lora_alpha": 16})}
    ),
    "the text encoder's alpha": lambda s: (pairs(s, peft), {"text_encoder.lora_alpha": "64", "text_encoder.r": "1"}),
    "kohya's note, converted": lambda s: (pairs(s, comfy), {"ss_network_alpha": "16", "ss_network_dim": "32"}),
    "whole differences": lambda s: {f"{comfy(m)}.diff": up @ down for m, (down, up) in s.items()},
    "norm bias": lambda s: pairs(s, comfy) | {"diffusion_model.blocks.0.self_attn.norm_q.diff_b": torch.ones(128)},
    "another task": lambda s: pairs(s, comfy) | {"diffusion_model.patch_embedding.diff": torch.ones(128, 16, 1, 2, 2)},
    "its low rank": lambda s: pairs(s, comfy) | {
        "diffusion_model.patch_embedding.lora_A.weight": torch.ones(2, 16, 1, 2, 2),
        "diffusion_model.patch_embedding.lora_B.weight": torch.ones(128, 2, 1, 1, 1),
    },
    "image attention": lambda s: pairs(s, comfy) | {
        f"diffusion_model.blocks.0.cross_attn.k_img.{leaf}": torch.ones(size)
        for leaf, size in zip(A_B, ((2, 128), (128, 2)), strict=True)
    },
}  # fmt: skip


def layers_of(shapes) -> dict:
    """module -> (down, up) of every linear layer in the blocks."""
    generator = torch.Generator().manual_seed(11)
    found = {}
    for name, shape in shapes.items():
        if name.startswith("blocks.") and len(shape) == 2:
            down = torch.randn(RANK, shape[1], generator=generator) / shape[1] ** 0.5
            found[name.removesuffix(".weight")] = down, torch.randn(shape[0], RANK, generator=generator)
    return found


def changed(engine, inputs, folder, made):
    """Both experts' outputs with a LoRA of these tensors, or (tensors, metadata)."""
    tensors, metadata = made if isinstance(made, tuple) else (made, None)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "x.safetensors", metadata)
    engine.set_loras([LoraSpec(str(folder / "x.safetensors"), 0.5, "both")])
    return forward(engine, inputs)


def test_the_same_change_in_every_form(engine, shapes, inputs, tmp_path):
    base, layers = forward(engine, inputs), layers_of(shapes)
    expected = changed(engine, inputs, tmp_path, pairs(layers, comfy))
    for name, make in SAME.items():
        got = changed(engine, inputs, tmp_path, make(layers))
        for one, wanted, without in zip(got, expected, base, strict=True):
            assert (one - wanted).norm() < 1e-3 * (wanted - without).norm(), name


def test_biases_and_the_patch_embedding(engine, shapes, inputs, tmp_path):
    """PEFT's lora_bias is scaled like the product; a convolution's low-rank pair is a difference of its weight."""
    layers, generator = layers_of(shapes), torch.Generator().manual_seed(2)
    bias = {module: torch.randn(len(up), generator=generator) for module, (_, up) in layers.items()}
    base = forward(engine, inputs)
    conv = torch.randn(2, 36, 1, 2, 2, generator=generator), torch.randn(128, 2, 1, 1, 1, generator=generator)
    whole = (conv[1].flatten(1) @ conv[0].flatten(1)).reshape(128, 36, 1, 2, 2)
    patch = "diffusion_model.patch_embedding."
    for wanted, *others in (
        (
            pairs(layers, comfy) | {f"{comfy(module)}.diff_b": value for module, value in bias.items()},
            pairs(layers, peft) | {f"{peft(module)}.lora_B.bias": value for module, value in bias.items()},
            (
                pairs(layers, peft, ("lora_A.default.weight", "lora_B.default.weight"), 0.5)
                | {f"{peft(module)}.lora_B.default.bias": 0.5 * value for module, value in bias.items()},
                told(r=RANK, lora_alpha=2 * RANK),
            ),
        ),
        (
            {patch + "diff": whole},
            {patch + "lora_A.weight": conv[0], patch + "lora_B.weight": conv[1]},
            {
                patch + "lora_down.weight": conv[0],
                patch + "lora_up.weight": conv[1] / 3,
                patch + "alpha": torch.tensor(6),
            },
            {patch + "lora_A.weight": conv[0].flatten(1), patch + "lora_B.weight": conv[1].flatten(1)},
        ),
    ):
        expected = changed(engine, inputs, tmp_path, wanted)
        for other in others:
            got = changed(engine, inputs, tmp_path, other)
            assert close(got[0], expected[0], base[0]) and close(got[1], expected[1], base[1])
