"""Nothing but torch's own kernels is taken on a card where no child process has shown another one right."""

from dataclasses import replace

import pytest

from tests.patches.test_records import CATALOG, H200, RTX3060
from wan_ui.catalog import FP8_KERNELS
from wan_ui.engines import lightx2v_config as config
from wan_ui.engines.kernel_choice import SAFE, Chooser
from wan_ui.errors import UserError
from wan_ui.files.places import Paths
from wan_ui.machine import hardware as facts
from wan_ui.machine import probe_results, probing
from wan_ui.machine.hardware import GIB, KERNELS, Hardware
from wan_ui.machine.probes import PROBES
from wan_ui.machine.shapes import shape_of
from wan_ui.settings import load_settings

EVERYTHING = frozenset(KERNELS)
CARDS = {
    "RTX 5090": Hardware(
        "cuda", "NVIDIA GeForce RTX 5090", (12, 0), 31 * GIB, 32 * GIB, True, "2.13", EVERYTHING
    ),
    "H200": replace(H200, kernels=EVERYTHING),
    "RTX 4090": Hardware("cuda", "NVIDIA GeForce RTX 4090", (8, 9), 23 * GIB, 24 * GIB, True, "2.13", EVERYTHING),
    "RTX 3060": replace(RTX3060, kernels=EVERYTHING),
    "T4": Hardware("cuda", "Tesla T4", (7, 5), 15 * GIB, 16 * GIB, False, "2.13", EVERYTHING),
}  # fmt: skip
SETTINGS = {
    "attention": "self_attn_1_type",
    "gemm": "dit_quant_scheme",
    "modulate": "modulate_type",
    "norm": "rms_norm_type",
    "rope": "rope_type",
}
A14B = CATALOG["i2v-a14b"]


@pytest.fixture
def settings(tmp_path):
    return load_settings({"WAN_UI_CACHE": str(tmp_path / "cache")})


@pytest.fixture
def choose(tmp_path, settings, monkeypatch):
    """choose("RTX 5090", "fp8", ...) -> Choices of A14B on that card; files have no contents."""
    file = tmp_path / "file"
    file.touch()
    paths = Paths((file, file), (tmp_path / "high" / "config.json",) * 2, file, tmp_path, file, ())

    def make(card, scheme, **wishes):
        hardware = CARDS[card]
        monkeypatch.setattr(facts, "gpu", lambda: {"name": hardware.name, "driver": "1", "memory": "1"})
        return config.choose(A14B, A14B.scheme(scheme), paths, hardware, replace(settings, **wishes))

    return make


@pytest.fixture
def found(settings, monkeypatch):
    """found("RTX 5090", {("modulate", "triton"): "crashed"}): what probes have shown on that card, at 480x480."""

    def write(card, statuses, shapes=((480, 480, 81),)):
        machine = {"name": CARDS[card].name, "driver": "1", "memory": "1"}
        monkeypatch.setattr(facts, "gpu", lambda: machine)
        known = []
        for entry in PROBES:
            status = statuses.get((entry.kind, entry.choice))
            for size in shapes if status else ():
                answer = {"status": "ran", "seconds": 0.001 if status == "ok" else 0.0001, "error": 0.0}
                answer = answer if status == "ok" else {"status": status, "why": "ended by SIGSEGV"}
                shape = shape_of(A14B, *size)
                known.append(probing.judge(entry, shape, answer, probe_results.versions(entry, machine, settings)))
        probe_results.store(settings, known)

    return write


def unsafe(choices) -> dict[str, str]:
    """Of what upstream is told, whatever isn't torch's own."""
    told = {kind: choices.values.get(key, "fp8-torchao") for kind, key in SETTINGS.items()}
    told["gemm"] = told["gemm"] if told["gemm"] in FP8_KERNELS else "fp8-torchao"  # GGUF: torch's product
    told["compile"] = "on" if choices.compile else "off"
    return {kind: name for kind, name in told.items() if name not in SAFE[kind]}


LOADS = [
    (card, scheme, offload)
    for card in CARDS
    for scheme in ("bf16", "fp8", "gguf-Q8_0", "gguf-Q4_K_M")
    for offload in ("none", "model", "block")
    if not (scheme.startswith("gguf") and offload == "block") and (scheme != "fp8" or CARDS[card].fp8)
]


@pytest.mark.parametrize(("card", "scheme", "offload"), LOADS)
def test_unprobed_cards_get_what_cannot_crash(choose, card, scheme, offload):
    choices = choose(card, scheme, lightx2v_offload=offload)
    assert unsafe(choices) == {}
    assert "python -m wan_ui probe" in choices.reasons["modulate"]


@pytest.mark.parametrize("wish", ("attention", "compile", "fp8-triton"))
def test_a_wish_for_an_untried_kernel_gets_the_safe_one_and_the_reason(choose, wish):
    wishes = {"attention": {"lightx2v_attention": "sage_attn2"}, "compile": {"lightx2v_compile": "on"}}
    choices = choose("RTX 5090", wish if wish == "fp8-triton" else "fp8", **wishes.get(wish, {}))
    assert unsafe(choices) == {}
    assert "asked for, but" in choices.reasons["kernel" if wish == "fp8-triton" else wish]


def test_what_passed_on_this_card_is_taken_and_not_on_another(choose, found):
    everything = {(entry.kind, entry.choice): "ok" for entry in PROBES if entry.choice}
    safe = {(kind, name): "ok" for kind, names in SAFE.items() for name in names}
    fast = {("attention", "flash_attn2"): "ok", ("modulate", "triton"): "ok", ("compile", "on"): "ok"}
    found("RTX 5090", {**fast, ("attention", "torch_sdpa"): "absent"})
    choices = choose("RTX 5090", "fp8", lightx2v_offload="model")
    assert unsafe(choices) == {"attention": "flash_attn2", "modulate": "triton"}
    compiled = choose("RTX 5090", "fp8", lightx2v_offload="none")
    assert unsafe(compiled) == {"attention": "flash_attn2", "compile": "on"}
    assert compiled.values["modulate_type"] == "torch" and compiled.values["rope_type"] == "torch_real_rope"
    assert unsafe(choose("H200", "fp8", lightx2v_offload="model")) == {}
    found("RTX 5090", everything | safe)
    assert choose("RTX 5090", "fp8-triton").facts.kernel == "fp8-triton"
    assert choose("RTX 5090", "bf16", lightx2v_attention="sage_attn2").values["self_attn_1_type"] == "sage_attn2"


@pytest.mark.parametrize("status", ("crashed", "wrong", "failed"))
def test_what_did_not_pass_is_never_taken(choose, found, status):
    bad = {(entry.kind, entry.choice): status for entry in PROBES if entry.choice}
    safe = {(kind, name): "ok" for kind, names in SAFE.items() for name in names}
    found("RTX 5090", bad | safe)
    for scheme in ("fp8", "gguf-Q8_0", "bf16"):
        for offload in ("none", "model"):
            assert unsafe(choose("RTX 5090", scheme, lightx2v_offload=offload)) == {}
    with pytest.raises(UserError, match=f"attention: flash_attn2 {status} when tried on NVIDIA GeForce RTX 5090"):
        choose("RTX 5090", "fp8", lightx2v_attention="flash_attn2")
    with pytest.raises(UserError, match=f"scheme: fp8-triton {status} when tried"):
        choose("RTX 5090", "fp8-triton")


def test_a_kernel_that_crashes_at_one_size_has_not_passed(choose, found, settings):
    ok = {("modulate", "triton"): "ok", ("modulate", "torch"): "ok"}
    found("RTX 5090", ok)
    found("RTX 5090", {("modulate", "triton"): "crashed"}, shapes=((832, 480, 81),))
    assert unsafe(choose("RTX 5090", "fp8", lightx2v_offload="model")) == {}


def test_a_load_tries_what_it_would_take_and_nobody_knows(settings, found, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    scheme = A14B.scheme("fp8")
    wishes = config.wished(A14B, scheme, settings)
    chooser = Chooser(settings, A14B, CARDS["RTX 5090"])
    found("RTX 5090", {})
    names = {entry.choice for entry in chooser.untried(scheme, wishes)}
    assert names == {"torch_sdpa", "flash_attn2", "flash_attn3", "fa3_fwd", "sage_attn2", "on", "fused", "fa3_e4m3"}
    assert {entry.choice for entry in chooser.untried(A14B.scheme("fp8-triton"), wishes)} == names | {"fp8-triton"}
    tried = {(kind, name): "crashed" for kind in ("attention", "cross") for name in names - {"torch_sdpa"}}
    found(
        "RTX 5090",
        tried
        | {("compile", "on"): "ok", ("blocks", "fused"): "ok", ("decoder", "fused"): "wrong"}
        | {("draft", "fa3_e4m3"): "wrong"},
    )
    assert chooser.untried(scheme, wishes) == ()
    nothing = replace(CARDS["RTX 5090"], kernels=frozenset())
    assert Chooser(settings, A14B, nothing).untried(scheme, wishes) == ()
    assert Chooser(settings, A14B, Hardware()).untried(scheme, wishes) == ()


def test_what_did_not_fit_into_memory_is_tried_again(settings, monkeypatch):
    tries = []

    def child(*args):
        tries.append(args)
        return [{"status": "failed", "why": "OutOfMemoryError: CUDA out of memory.", "out_of_memory": True}]

    monkeypatch.setattr(probing, "_child", child)
    shape = shape_of(A14B, 480, 480, 81)
    probes = tuple(entry for entry in PROBES if (entry.kind, entry.name) == ("attention", "sdpa"))
    for _ in range(2):
        (result,) = probing.run(settings, [shape], probes=probes)
        assert result.status == "failed"
    assert len(tries) == 2


def test_the_card_that_torch_takes_is_the_one_that_counts(monkeypatch):
    rows = [{"name": name, "driver": "1", "memory": "1"} for name in ("RTX 4060", "RTX 4060 Ti", "H100")]
    monkeypatch.setattr(facts, "gpus", lambda: rows)
    assert facts.machine_of("") == facts.machine_of("RTX 4060") == rows[0]
    assert facts.machine_of("RTX 4060 Ti") == rows[1] and facts.machine_of("H100 MIG 3g.40gb") == rows[2]
    assert facts.machine_of("RTX 5090") == {}
