"""Kernels are tried in child processes: nothing that they do takes anything down, and all of it is told."""

import functools
import json
from dataclasses import replace

import pytest

from wan_ui.machine import hardware, probe_results, probing
from wan_ui.machine.probes import PROBES, Probe
from wan_ui.machine.shapes import Shape, shape_of
from wan_ui.settings import Settings

SMALL, LARGE = Shape("toy small", 16, 2, 8, 32), Shape("toy large", 64, 2, 8, 32)


@pytest.fixture
def settings(tmp_path):
    return replace(Settings(), cache=tmp_path / "cache")


def made(name: str, **more) -> Probe:
    function = f"tests.machine.crashing:{name}"
    return Probe(**{"kind": "attention", "name": name, "function": function, "cuda": False} | more)


def only(results):
    (result,) = results
    return result


def test_a_segfault_is_a_row_of_the_table_and_the_next_shape_is_still_tried(settings):
    results = probing.run(settings, [SMALL, LARGE, replace(SMALL, name="toy again")], probes=(made("segfault"),))
    assert [result.status for result in results] == ["ok", "crashed", "ok"]
    assert results[1].why == "ended by SIGSEGV" and results[1].seconds == -1


def test_a_kernel_that_never_returns_is_ended_and_the_next_is_tried(settings):
    """Nor does a process that it has started, which keeps its output open, hold the run for its ten minutes."""
    probes = (made("endless"), made("wrong", packages=("no_such_kernel",)))
    results = probing.run(settings, [LARGE, replace(LARGE, name="toy huge")], probes=probes, limit=3)
    assert [result.status for result in results] == ["crashed", "crashed", "absent", "absent"]
    assert "timeout: no answer within 3 s" in results[0].why
    assert results[1].why == "not tried: there was no answer at toy large within 3 s"


def test_an_interrupted_run_goes_on_where_it_was_and_kinds_can_be_chosen(settings, monkeypatch):
    tries = []

    def child(function, *rest):
        tries.append(function)
        if len(tries) == 2:
            raise KeyboardInterrupt
        return [{"status": "ran", "error": 0, "seconds": 1}]

    monkeypatch.setattr(probing, "_child", child)
    monkeypatch.setattr(probing, "_missing", lambda *args: "")
    compiled = made("raising", packages=("triton",))
    probes = (compiled, made("wrong"), made("chatty", kind="norm"))
    with pytest.raises(KeyboardInterrupt):
        probing.run(settings, [SMALL], probes=probes)
    results = probing.run(settings, [SMALL], probes=probes)
    names = [function.partition(":")[2] for function in tries]
    assert names == ["wrong", "chatty", "chatty", "raising"], "what is compiled comes last, nothing is tried twice"
    assert [result.name for result in results] == ["raising", "wrong", "chatty"]
    assert [result.name for result in probing.run(settings, [SMALL], probes=probes, kinds=("norm",))] == ["chatty"]


@pytest.mark.hardening(35)
@pytest.mark.parametrize(
    "content", ["", "{", "[1, 2]", "null", b"\xff\xfe", "[" * 5000, '{"a": null, "b": [], "c": {"kind": 1}, "d": {}}']
)
def test_a_damaged_file_of_results_is_as_good_as_none(settings, content):
    settings.cache.mkdir()
    path = settings.cache / "probes.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert probe_results.remembered(settings) == [] and probe_results.best("attention", settings)[0] == ""
    assert only(probing.run(settings, [SMALL], probes=(made("no", packages=("none_such",)),))).status == "absent"


@pytest.mark.hardening(35)
def test_results_of_another_version_are_read_and_what_it_added_is_kept(settings, monkeypatch):
    monkeypatch.setattr(probing, "_child", lambda *args: [{"status": "ran", "error": 0.0, "seconds": 1.0}])
    first = made("wrong")
    probing.run(settings, [SMALL], probes=(first,))
    path = settings.cache / "probes.json"
    known = json.loads(path.read_text())
    for entry in known.values():
        entry["bandwidth"] = 3.0
        del entry["choice"]
    path.write_text(json.dumps({**known, "of tomorrow": {"kernels": []}}))
    probing.run(settings, [SMALL], probes=(made("chatty"),))
    after = json.loads(path.read_text())
    assert known.items() <= after.items() and "of tomorrow" in after and len(after) == 3
    monkeypatch.setattr(probing, "_child", lambda *args: 1 / 0)
    assert only(probing.run(settings, [SMALL], probes=(first,))).status == "ok", "it was probed again"


def test_what_a_kernel_does_is_told(settings):
    """At four shapes, in one child."""
    told = {
        "wrong": ("wrong", "relative error 0.7, allowed 0.01"),
        "not a number": ("wrong", "nan"),
        "raising": ("failed", "no kernel image"),
        "chatty": ("ok", ""),
    }
    results = probing.run(settings, [replace(SMALL, name=name) for name in told], probes=(made("by_shape"),))
    for result, (status, words) in zip(results, told.values(), strict=True):
        assert result.status == status and words in result.why
        json.dumps(result.__dict__, allow_nan=False)


def test_a_package_that_is_not_there_is_named_without_a_child(settings, monkeypatch):
    monkeypatch.setattr(probing, "_child", lambda *args: pytest.fail("a child was started"))
    monkeypatch.setattr(hardware, "gpu", lambda: {})
    result = only(probing.run(settings, [SMALL], probes=(made("wrong", packages=("no_such_kernel",)),)))
    assert (result.status, result.why) == ("absent", "no_such_kernel is not installed")
    result = only(probing.run(settings, [SMALL], probes=(made("raising", cuda=True),)))
    assert (result.status, result.why) == ("absent", "needs a CUDA GPU")


def test_results_are_kept_until_driver_or_package_change(settings, monkeypatch):
    tries = []
    monkeypatch.setattr(
        probing, "_child", lambda *args: tries.append(args) or [{"status": "ran", "error": 0, "seconds": 1}]
    )
    machine = {"name": "GPU", "driver": "1", "memory": "1"}
    monkeypatch.setattr(hardware, "gpu", lambda: machine)

    def run(**options):
        before = len(tries)
        probing.run(settings, [SMALL], probes=(made("wrong"),), **options)
        return len(tries) - before

    assert [run(), run(), run(again=True)] == [1, 0, 1]
    machine["driver"] = "2"
    assert [run(), run()] == [1, 0]
    monkeypatch.setattr(probe_results, "version", lambda package: "9.9")
    assert [run(), run()] == [1, 0]


def test_the_file_is_read_once_for_each_change(settings, monkeypatch):
    read, reads = probe_results.read_entries, []
    monkeypatch.setattr(probe_results, "read_entries", lambda settings: reads.append(1) or read(settings))
    assert probe_results.stored(settings) == {} and reads == [], "there is none"
    result = probe_results.ProbeResult("norm", "torch", "x 1x1x1", "ok", versions="1")
    probe_results.store(settings, [result])
    reads.clear()
    for _ in range(3):
        assert list(probe_results.stored(settings).values()) == [result]
    assert len(reads) == 1
    probe_results.store(settings, [replace(result, status="wrong")])
    reads.clear()
    for _ in range(3):
        assert [known.status for known in probe_results.stored(settings).values()] == ["wrong"]
    assert len(reads) == 1


def test_the_best_is_the_fastest_that_is_right(settings, monkeypatch):
    monkeypatch.setattr(hardware, "gpu", lambda: {"name": "GPU", "driver": "1", "memory": "1"})
    figures = {"sdpa": (0.004, 0.001), "flash-attn 2": (0.003, 0.002), "flash-attn 3": (0.001, 0.9)}
    known = []
    for entry in PROBES:
        if entry.name in figures:
            seconds, error = figures[entry.name]
            answer = {"status": "ran", "seconds": seconds, "error": error}
            known.append(probing.judge(entry, SMALL, answer, probe_results.versions(entry, hardware.gpu(), settings)))
    probe_results.store(settings, known)
    name, reason = probe_results.best("attention", settings)
    assert name == "flash_attn2" and "3.00 ms" in reason and "flash_attn3 wrong" in reason
    assert probe_results.best("attention", settings, allowed=("torch_sdpa",))[0] == "torch_sdpa"
    assert probe_results.best("attention", settings, model="wan-tiny")[0] == ""
    assert probe_results.best("gemm", settings)[0] == ""
    monkeypatch.setattr(hardware, "gpu", lambda: {"name": "another GPU", "driver": "1", "memory": "1"})
    assert probe_results.best("attention", settings)[0] == ""


def test_the_kernels_that_run_anywhere_are_right(settings, monkeypatch):
    """What `measure` says in a child is what the tests above have read; here each child would import torch again."""
    from wan_ui.machine import probe_child

    monkeypatch.setattr(probing, "_child", lambda name, shapes, *rest: [probe_child.measure(name, s) for s in shapes])
    probes = tuple(entry for entry in PROBES if not entry.cuda)
    results = probing.run(settings, [replace(SMALL, tokens=200)], probes=probes)
    assert {result.name: result.status for result in results} == {entry.name: "ok" for entry in probes}
    assert all(0 < result.error < result.allowed and result.seconds > 0 for result in results)


def test_a_kernel_that_forgets_the_last_rows_is_wrong():
    """The check looks at some rows only, the last among them."""
    from wan_ui.machine import trials

    def forgetful(x, scale, shift):
        result = x * (1 + scale) + shift
        result[-1] = 0
        return result

    trial = trials.attention(LARGE, lambda q, k, v: q * 0)
    assert trial.error_of(trial.run()) == pytest.approx(1)
    trial = trials.modulate(LARGE, forgetful)
    assert trial.error_of(trial.run()) > 0.01
    trial = trials.gemm(LARGE, lambda weight: lambda x: (x @ weight.t()).index_fill(0, trials.some(64)[-1:], 0))
    assert trial.error_of(trial.run()) > 0.01


def test_the_engine_takes_what_was_found_right(settings, monkeypatch, tmp_path):
    """An attention that is faster and right is taken; an fp8 product that is wrong is left for another."""
    from wan_ui.catalog import load_catalog
    from wan_ui.engines import lightx2v_config
    from wan_ui.files.places import Paths

    monkeypatch.setattr(hardware, "gpu", lambda: {"name": "GPU", "driver": "1", "memory": "1"})
    kernels = frozenset({"triton", "flash_attn", "sageattention"})
    card = hardware.Hardware("cuda", "GPU", (12, 0), 90 * 2**30, 96 * 2**30, True, "2.13", kernels)
    model = load_catalog(settings.catalog)["i2v-a14b"]
    for name in ("x", "y", "z"):
        (tmp_path / name).touch()
    file = tmp_path / "x"
    paths = Paths((file, file), (tmp_path / "high" / "config.json",) * 2, file, tmp_path, file, ())
    choose = functools.partial(lightx2v_config.choose, model, model.scheme("fp8"), paths, card, settings)
    assert choose().reasons["kernel"].startswith("fp8-torchao (auto: torch._scaled_mm")

    figures = {"sdpa": (0.004, 0.001), "flash-attn 2": (0.003, 0.002), "SageAttention 2": (0.001, 0.9)}
    figures |= {"LightX2V fp8-torchao": (0.001, 0.9), "LightX2V fp8-triton": (0.002, 0.04)}
    shape = shape_of(model, 480, 480, 81)
    known = []
    for entry in PROBES:
        if entry.name in figures:
            seconds, error = figures[entry.name]
            answer = {"status": "ran", "seconds": seconds, "error": error}
            known.append(probing.judge(entry, shape, answer, probe_results.versions(entry, hardware.gpu(), settings)))
    probe_results.store(settings, known)
    reasons = choose().reasons
    assert reasons["attention"].startswith("flash_attn2 (auto: probed at i2v-a14b 480x480x81: 3.00 ms")
    assert reasons["kernel"].startswith("fp8-triton (auto: fp8-torchao is not right on this machine")
