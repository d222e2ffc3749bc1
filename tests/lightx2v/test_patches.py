"""Each patch on the real classes: the symptom without it, then the patched behaviour.

Patches stay for the life of a process, so "unpatched" puts upstream's own callables back for one test.
"""

import gc

import pytest
import torch

from tests.lightx2v.jobs import make_request, quiet
from wan_ui import patches
from wan_ui.engines.lightx2v_config import checkout
from wan_ui.files import places
from wan_ui.machine.hardware import Hardware
from wan_ui.patches import copy_back, embedded_sizes, fp8_scales, fp8_sgl, gguf_pinned, t5_offload
from wan_ui.patches.record import Facts, in_source, resolve

WEIGHT = "blocks.0.self_attn.q.weight"


@pytest.fixture
def experts(model, settings):
    """experts("fp8") -> files of the high and low expert."""
    return lambda scheme: places.locate(model, model.scheme(scheme), settings).experts


def ggml(path, name=WEIGHT):
    """A tensor of a GGUF file as upstream's GGMLTensor."""
    from lightx2v.utils.ggml_tensor import load_gguf_sd_ckpt

    return load_gguf_sd_ckpt(str(path), to_device=torch.device("cpu"))[name]


@pytest.mark.parametrize("patch", patches.PATCHES, ids=lambda patch: patch.name)
def test_target_stands_in_the_source(lightx2v, patch, settings):
    assert in_source(patch, checkout(settings)) == ""


def test_embedded_sizes(lightx2v, model, settings, unpatched):
    from lightx2v.models.video_encoders.hf.wan import vae

    path = str(places.locate(model, model.scheme("bf16"), settings).vae)
    unpatched(embedded_sizes.PATCH)
    with pytest.raises(RuntimeError, match=r"size mismatch for encoder\.conv1\.weight"):
        vae._video_vae(pretrained_path=path, z_dim=16, dtype=torch.float32)
    unpatched.undo()
    if not resolve(embedded_sizes.PATCH):
        embedded_sizes.PATCH.apply(None)
    embedded_sizes.PATCH.verify(None)
    assert vae._video_vae(pretrained_path=path, z_dim=16, dtype=torch.float32).encoder.conv1.weight.shape[0] == 16


def test_gguf_loader(load, model, unpatched, tmp_path):
    unpatched(patches.gguf_loader.PATCH)
    with pytest.raises(Exception, match=r"GGMLTensor|same dtype|should be the same"):
        load("gguf-Q8_0").generate(make_request(tmp_path, model, "gguf-Q8_0"), quiet)
    unpatched.undo()
    load("gguf-Q8_0").generate(make_request(tmp_path, model, "gguf-Q8_0"), quiet)


def test_gguf_pinned(lightx2v, experts, unpatched):
    from lightx2v.common.ops.mm.mm_weight import MMWeightGGUFTemplate
    from lightx2v.utils.registry_factory import MM_WEIGHT_REGISTER

    def loaded():
        weight = MM_WEIGHT_REGISTER["gguf-Q8_0"](WEIGHT, None)
        weight.load({WEIGHT: ggml(experts("gguf-Q8_0")[0])})
        return weight

    unpatched(gguf_pinned.PATCH)
    twice = loaded()
    assert twice.weight.data.data_ptr() != twice.pin_weight.data.data_ptr(), "in host memory twice"
    unpatched.undo()
    gguf_pinned.PATCH.apply(None)
    assert MMWeightGGUFTemplate.load is gguf_pinned.load
    once = loaded()
    assert once.weight is None and torch.equal(once.pin_weight.data, twice.pin_weight.data)


def test_copy_back(lightx2v, experts, unpatched):
    from lightx2v.common.ops.tensor.tensor import DefaultTensor
    from lightx2v.utils.registry_factory import MM_WEIGHT_REGISTER

    def leaves_the_device():
        weight = MM_WEIGHT_REGISTER["Default"]("w", None)
        weight.load({"w": torch.ones(4, 4)})
        weight.to_cuda()
        weight.weight = torch.zeros(4, 4)  # the copy on the device
        weight.to_cpu()
        return weight.weight

    unpatched(copy_back.PATCH)
    assert leaves_the_device().sum() == 0, "upstream copies the device's tensor over the host's"
    half = DefaultTensor("t")
    half.load({"t": torch.ones(3)})
    with pytest.raises(AttributeError):
        half.to_cpu()  # never reached the device
    unpatched.undo()
    copy_back.PATCH.apply(None)
    assert leaves_the_device().sum() == 16
    half.to_cpu()
    held = MM_WEIGHT_REGISTER["gguf-Q8_0"](WEIGHT, None)
    held.load({WEIGHT: ggml(experts("gguf-Q8_0")[0])})
    pinned = held.pin_weight
    assert copy_back.moved(pinned, torch.device("meta"), False).data.is_meta
    assert pinned.data.device.type == "cpu", "upstream's GGMLTensor.to takes the pinned data along"
    held.to_cuda()
    held.to_cpu()
    assert held.weight is pinned


def test_fp8_scales(lightx2v, load, experts):
    from wan_ui.files.headers import read_header
    from wan_ui.files.tensors import read_tensor

    path = experts("fp8")[0]
    info = read_header(path).tensors[f"{WEIGHT}_scale"]
    stored = read_tensor(path, info)
    engine = load("fp8", torch.bfloat16)
    phase = engine.runner.model.model[0].transformer_weights.blocks[0].compute_phases[0]
    assert torch.equal(phase.self_attn_q.pin_weight_scale, stored)
    lost = ((stored.bfloat16().float() - stored) / stored).abs().max()
    assert 0.001 < lost <= 2**-8, "what rounding the scales to bf16 costs"
    assert torch.equal(fp8_scales.read(path, "cpu", {})[f"{WEIGHT}_scale"], stored)


def test_fp8_sgl(lightx2v, unpatched, experts):
    from lightx2v.utils.registry_factory import MM_WEIGHT_REGISTER

    from wan_ui.files.headers import read_header
    from wan_ui.files.tensors import dequantise_fp8, read_tensor

    infos = read_header(experts("fp8")[0]).tensors
    tensors = {name: read_tensor(experts("fp8")[0], infos[name]) for name in (WEIGHT, f"{WEIGHT}_scale")}
    x = torch.randn(8, 256, generator=torch.Generator().manual_seed(0)).bfloat16()

    def product(kernel):
        weight = MM_WEIGHT_REGISTER[kernel](WEIGHT, None)
        weight.load(dict(tensors))
        weight.to_cuda()
        return weight.apply(x)

    unpatched(fp8_sgl.PATCH)
    with pytest.raises(Exception, match=r"sgl_per_token_quant_fp8|CUDA|sgl_kernel"):
        product("fp8-sgl")
    unpatched.undo()
    fp8_sgl.PATCH.apply(None)
    fp8_sgl.PATCH.verify(None)
    exact = x.float() @ dequantise_fp8(*tensors.values()).t()
    errors = [((product(kernel).float() - exact).norm() / exact.norm()).item() for kernel in ("fp8-sgl", "fp8-torchao")]
    assert errors[0] <= errors[1] < 0.05


def waiting(monkeypatch):
    """Text encoders that are loaded afterwards wait in host memory."""
    from wan_ui.engines import lightx2v_config

    choose = lightx2v_config.choose

    def offloaded(*args):
        choices = choose(*args)
        choices.values["t5_cpu_offload"] = True
        return choices

    monkeypatch.setattr(lightx2v_config, "choose", offloaded)


def context(engine):
    return engine.encode_text("zoom in, sunset light").float()


def test_t5_offload_in_a_run_without_bf16(load, monkeypatch):
    expected = context(load("bf16", torch.float32))
    waiting(monkeypatch)
    engine = load("bf16", torch.float16, text_dtype=torch.bfloat16)
    with pytest.raises(RuntimeError, match="same dtype"):
        context(engine)
    t5_offload.PATCH.apply(engine.runner)
    t5_offload.PATCH.verify(engine.runner)
    assert ((context(engine) - expected).norm() / expected.norm()).item() < 0.02


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float32), ids=str)
def test_a_text_encoder_that_waits_computes_what_a_resident_one_does(load, monkeypatch, dtype):
    """Bit for bit; float32 with a file in bf16 stands for any file that is not stored in the encoder's dtype."""
    expected = context(load("bf16", dtype))
    waiting(monkeypatch)
    engine = load("bf16", dtype)
    if dtype == torch.bfloat16:
        assert not torch.equal(context(engine), expected), "upstream's own norm rounds in between"
    t5_offload.PATCH.apply(engine.runner)
    assert torch.equal(context(engine), expected)
    words = engine.runner.text_encoders[0].model.token_embedding
    assert words.to("meta") is words and words.weight.device.type == "cpu"


def test_gc_freeze(load, model, tmp_path):
    engine, before = load("bf16"), gc.get_freeze_count()  # what the tests have frozen themselves
    engine.generate(make_request(tmp_path, model, "bf16"), quiet)
    assert gc.get_freeze_count() <= before
    engine.runner._gc_frozen = False
    engine.runner._maybe_freeze_gc()
    assert gc.get_freeze_count() > before, "upstream's own behaviour"
    gc.unfreeze()


def test_report_of_the_checkout(lightx2v, model, settings):
    report = patches.report(Facts(Hardware()), model.scheme("gguf-Q8_0"), checkout(settings))
    assert {entry["target_found"] for entry in report} == {"yes"}
