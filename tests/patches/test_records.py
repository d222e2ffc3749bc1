"""Patches and configurations without LightX2V: records, reports, stand-ins for upstream's classes."""

import json
import re
import sys
from dataclasses import replace
from types import ModuleType

import pytest
import torch

from tests import dit_files
from wan_ui import patches
from wan_ui.__main__ import main
from wan_ui.catalog import load_catalog
from wan_ui.machine.hardware import Hardware
from wan_ui.patches import bf16_loader, copy_back, fp8_scales, gc_freeze, gguf_loader
from wan_ui.patches.record import COMMIT, Facts, PatchError, in_source, is_ours, resolve
from wan_ui.settings import ROOT, load_settings

CATALOG = load_catalog(load_settings({}).catalog)
TINY = CATALOG["wan-tiny"]
H200 = Hardware("cuda", "NVIDIA H200", (9, 0), 140 * 2**30, 141 * 2**30, True, "2.11", frozenset({"triton"}))
RTX3060 = Hardware("cuda", "RTX 3060", (8, 6), 12 * 2**30, 12 * 2**30, True, "2.11", frozenset())


@pytest.fixture
def upstream(monkeypatch):
    """upstream("lightx2v.x.y", name=value ...): a stand-in for one of LightX2V's modules."""

    def make(name, **values):
        parts = name.split(".")
        for count in range(1, len(parts) + 1):
            path = ".".join(parts[:count])
            if not isinstance(sys.modules.get(path), StandIn):
                monkeypatch.setitem(sys.modules, path, StandIn(path))
            if count > 1:
                setattr(sys.modules[".".join(parts[: count - 1])], parts[count - 1], sys.modules[path])
        vars(sys.modules[name]).update(values)
        return sys.modules[name]

    return make


class StandIn(ModuleType):
    __path__ = ()


def test_every_patch_says_what_it_is_for():
    names = [patch.name for patch in patches.PATCHES]
    assert len(set(names)) == len(names)
    for patch in patches.PATCHES:
        assert patch.phase in ("before_init", "after_init") and patch.targets
        assert all(len(patch.paragraph(title)) > 20 for title in ("Symptom", "Mechanism", "Remove when"))
        for scheme in TINY.schemes.values():
            needed, why = patch.applies(Facts(H200), scheme)
            assert isinstance(needed, bool) and why


@pytest.mark.parametrize(
    ("scheme", "facts", "expected"),
    [
        ("bf16", Facts(H200, embedded=True), {"bf16_loader", "embedded_sizes"}),
        ("gguf-Q8_0", Facts(H200, kernel="gguf-Q8_0"), {"gguf_loader", "gguf_pinned"}),
        ("fp8", Facts(H200, kernel="fp8-sgl"), {"fp8_scales", "fp8_sgl"}),
        ("fp8", Facts(replace(H200, kernels=frozenset({"sgl_kernel"})), kernel="fp8-sgl"), {"fp8_scales"}),
        ("bf16", Facts(H200, offload="model", dtype="FP16"), {"bf16_loader", "copy_back", "t5_offload"}),
        ("bf16", Facts(H200, driven="voice"), {"bf16_loader", "own_encoders", "s2v_products"}),
        ("bf16", Facts(H200, driven="performance"), {"bf16_loader", "own_encoders", "picture_eps"}),
        ("bf16", Facts(H200, offload="text"), {"bf16_loader", "t5_offload"}),
    ],
)
def test_which_apply(scheme, facts, expected):
    report = patches.report(facts, TINY.scheme(scheme), None)
    assert {entry["name"] for entry in report if entry["applies"]} == expected | {"t5_tokenizer", "gc_freeze"}
    json.dumps(report)


def test_a_moved_target_fails_the_load_by_name(upstream):
    scheme, facts = TINY.scheme("gguf-Q8_0"), Facts(H200, kernel="gguf-Q8_0")
    base = upstream("lightx2v.models.networks.base_model")
    with pytest.raises(PatchError, match=r"patch gguf_loader: its target .*_load_gguf_ckpt is gone") as caught:
        patches.apply_all("before_init", facts, scheme)
    assert caught.value.field == "patch gguf_loader"

    class BaseTransformerModel:
        def _load_gguf_ckpt(self, gguf_path, mmap):
            return {}

    base.BaseTransformerModel = BaseTransformerModel
    with pytest.raises(PatchError, match=r"patch gguf_loader: .* takes \('self', 'gguf_path', 'mmap'\)"):
        patches.apply_all("before_init", facts, scheme)


def test_a_patch_that_does_not_reach_its_consumer_fails_the_load(upstream):
    class BaseTransformerModel:
        def _load_gguf_ckpt(self, gguf_path):
            return {}

    class WanModel(BaseTransformerModel):
        def _load_gguf_ckpt(self, gguf_path):
            return {"its": "own"}

    upstream("lightx2v.models.networks.base_model", BaseTransformerModel=BaseTransformerModel)
    upstream("lightx2v.models.networks.wan.model", WanModel=WanModel)
    with pytest.raises(PatchError, match=r"gguf_loader: it could not be verified .*loader of its own"):
        patches.apply_all("before_init", Facts(H200, kernel="gguf-Q8_0"), TINY.scheme("gguf-Q8_0"))
    del WanModel._load_gguf_ckpt
    gguf_loader.PATCH.verify(None)
    assert is_ours(WanModel._load_gguf_ckpt, "gguf_loader") and resolve(gguf_loader.PATCH)


def test_copy_back_unpatched_then_patched(upstream):
    def move_tensor_to_device(obj, attr_name, target_device, non_blocking=False, use_copy=False):
        held = getattr(obj, f"pin_{attr_name}")
        setattr(obj, attr_name, held.copy_(getattr(obj, attr_name)).to(target_device))

    class DefaultTensor:
        def to_cpu(self, non_blocking=False):
            self.tensor = self.pin_tensor.copy_(self.tensor).cpu()

    class Weight:
        def __init__(self):
            self.pin_weight, self.weight = torch.ones(2), torch.zeros(2)

    utils = upstream("lightx2v.common.ops.utils", move_tensor_to_device=move_tensor_to_device)
    upstream("lightx2v.common.ops.tensor.tensor", DefaultTensor=DefaultTensor)
    source = "def move_attr_to_cpu(cls, base, lora):\n    move_tensor_to_device(cls, 'weight', 'cpu', False, True)\n"
    exec(source, vars(utils))
    upstream("lightx2v.common.ops.mm.mm_weight", move_attr_to_cpu=utils.move_attr_to_cpu)
    before = Weight()
    utils.move_attr_to_cpu(before, [], {})
    assert before.weight.sum() == 0, "upstream overwrites the host's copy"

    copy_back.PATCH.apply(None)
    copy_back.PATCH.verify(None)
    after = Weight()
    utils.move_attr_to_cpu(after, [], {})
    assert after.weight is after.pin_weight and after.weight.sum() == 2
    held = DefaultTensor()
    held.pin_tensor = torch.ones(2)  # interrupted before it ever reached the device
    held.to_cpu()
    assert held.tensor is held.pin_tensor


def test_loaders_unpatched_then_patched(upstream, tmp_path):
    from safetensors.torch import load_file

    path = dit_files.save(tmp_path / "dit.safetensors", dit_files.prefixed(dit_files.scaled_fp8(dit_files.weights())))
    scale = load_file(path)["model.diffusion_model.blocks.0.ffn.0.weight_scale"]

    class BaseTransformerModel:
        config, model_path, device = {}, str(path), torch.device("cpu")

        def _load_quant_ckpt(self, unified_dtype, sensitive_layer):
            return {"blocks.0.ffn.0.weight_scale": scale.bfloat16()}

        def _load_ckpt(self, unified_dtype, sensitive_layer):
            return load_file(path)

    class WanModel(BaseTransformerModel):
        pass

    upstream("lightx2v.models.networks.base_model", BaseTransformerModel=BaseTransformerModel)
    upstream("lightx2v.models.networks.wan.model", WanModel=WanModel)
    upstream("lightx2v.utils.envs", GET_DTYPE=lambda: torch.bfloat16, GET_SENSITIVE_DTYPE=lambda: torch.bfloat16)
    assert WanModel()._load_quant_ckpt(True, ())["blocks.0.ffn.0.weight_scale"].float() != scale
    fp8_scales.PATCH.apply(None)
    fp8_scales.PATCH.verify(None)
    loaded = WanModel()._load_quant_ckpt(True, ())
    assert loaded.keys() > dit_files.weights().keys()
    assert torch.equal(loaded["blocks.0.ffn.0.weight_scale"], scale.expand(96, 1))
    assert loaded["blocks.0.ffn.0.weight"].dtype == torch.float8_e4m3fn

    bf16_loader.PATCH.apply(None)
    bf16_loader.PATCH.verify(None)
    loaded = WanModel()._load_ckpt(True, ())
    assert {name: tensor.dtype for name, tensor in loaded.items()} == dict.fromkeys(dit_files.weights(), torch.bfloat16)


def test_gc_freeze_unpatched_then_patched():
    class Runner:
        _gc_frozen, froze = False, 0

        def _maybe_freeze_gc(self):
            self.froze += not self._gc_frozen

    runner = Runner()
    runner._maybe_freeze_gc()
    assert runner.froze == 1
    gc_freeze.PATCH.apply(runner)
    gc_freeze.PATCH.verify(runner)
    assert runner.froze == 1


def test_targets_are_looked_up_in_the_source(tmp_path):
    patch = gguf_loader.PATCH
    file = tmp_path / "lightx2v/models/networks/base_model.py"
    assert "base_model.py" in in_source(patch, tmp_path)
    file.parent.mkdir(parents=True)
    file.write_text("class BaseTransformerModel:\n    pass\n")
    assert in_source(patch, tmp_path).endswith("no BaseTransformerModel._load_gguf_ckpt")
    file.write_text("class BaseTransformerModel:\n    def _load_gguf_ckpt(self, path): ...\n")
    assert "takes ('self', 'path')" in in_source(patch, tmp_path)
    file.write_text("class BaseTransformerModel:\n    def _load_gguf_ckpt(self, gguf_path): ...\n")
    assert in_source(patch, tmp_path) == ""


def test_the_command(capsys):
    assert main(["patches", "--model", "i2v-a14b", "--scheme", "gguf-Q4_K_M", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["model"], report["scheme"]) == ("i2v-a14b", "gguf-Q4_K_M")
    assert {entry["name"] for entry in report["patches"] if entry["applies"]} >= {"gguf_loader", "gguf_pinned"}
    assert main(["patches", "--markdown"]) == 0
    assert capsys.readouterr().out.strip() == patches.markdown()
    assert main(["patches", "--scheme", "int2"]) == 1
    assert "'int2' is not available" in capsys.readouterr().err


def test_the_readme_table_is_current():
    text = (ROOT / "README.md").read_text()
    begin, end = "<!-- patches -->", "<!-- /patches -->"
    if begin not in text or end not in text:
        pytest.skip(f"README.md has no {begin} ... {end}")
    table = text.partition(begin)[2].partition(end)[0].strip()
    assert table == patches.markdown(), "run `python -m wan_ui patches --markdown` and put it between the markers"


def test_the_commit_that_is_installed_is_the_one_the_patches_are_for():
    (line,) = re.findall(r"^lightx2v @ .*/([0-9a-f]{40})\.zip$", (ROOT / "requirements-lightx2v.txt").read_text(), re.M)
    assert line.startswith(COMMIT)
