"""Where the weights are while a GPU makes a clip: chosen, checked, kept, loaded so, and said with the reason."""

import json
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from tests.job_requests import job_request
from wan_ui import stored
from wan_ui.catalog import load_catalog
from wan_ui.engines import device
from wan_ui.errors import UserError
from wan_ui.machine.engine_choice import EngineChoice
from wan_ui.machine.offload import WAYS, in_words, offered
from wan_ui.queue import sampling_intake
from wan_ui.queue.draft import Draft
from wan_ui.queue.intake import resolve
from wan_ui.queue.jobs import Job
from wan_ui.queue.roster import WorkerRow
from wan_ui.queue.sampling_intake import read_offload
from wan_ui.queue.work import Work
from wan_ui.request import Result
from wan_ui.settings import Settings
from wan_ui.ui import offload_part
from wan_ui.ui.view import View

CATALOG = load_catalog(Settings().catalog)
A14B, TINY = CATALOG["i2v-a14b"], CATALOG["wan-tiny"]


@pytest.fixture
def gpu(monkeypatch):
    """A GPU seems to be there, and the engine is the one that is asked for."""
    monkeypatch.setattr(sampling_intake, "nvidia_gpu", lambda: True)
    chosen = lambda name, settings, **_: EngineChoice("lightx2v" if name == "auto" else name, "")  # noqa: E731
    monkeypatch.setattr(sampling_intake, "choose_engine", chosen)
    monkeypatch.setattr(offload_part, "choose_engine", chosen)


@pytest.mark.parametrize(
    "model, scheme, engine, ways",
    [
        (A14B, "fp8", "lightx2v", ("auto", "none", "text", "model", "block")),
        (A14B, "gguf-Q4_K_M", "lightx2v", ("auto", "none", "text", "model")),
        (A14B, "fp8", "diffusers", ("auto", "none", "text", "model")),
        (CATALOG["ti2v-5b"], "", "diffusers", ("auto", "none", "text")),
        (CATALOG["s2v-14b"], "", "lightx2v", ("auto", "none", "text", "model")),
    ],
)
def test_what_is_offered_is_what_the_engine_can(gpu, model, scheme, engine, ways):
    weights = model.scheme(scheme)
    assert offered(model, weights, engine) == ways
    for way in WAYS:
        if way in ways:
            assert read_offload(way, model, weights, engine, Settings()) == ("" if way == "auto" else way)
        else:
            with pytest.raises(UserError, match=f"^offload: {way} is not possible for {model.name}: .*choose auto"):
                read_offload(way, model, weights, engine, Settings())


def test_without_a_gpu_and_for_a_way_that_is_none_it_is_refused(tiny_settings, picture, tmp_path, monkeypatch):
    draft = Draft({"image": str(picture), "prompt": "zoom in"}, offload="block")
    monkeypatch.setattr(sampling_intake, "nvidia_gpu", lambda: False)
    with pytest.raises(UserError, match=r"^offload: there is no GPU here") as refused:
        resolve(draft, tiny_settings, tmp_path / "job")
    assert refused.value.field == "offload"
    with pytest.raises(UserError, match=r"^offload: 'disk' is not known; choose one of auto, none, text, model, block"):
        resolve(replace(draft, offload="disk"), tiny_settings, tmp_path / "job")
    with pytest.raises(UserError, match=r"^offload: 3 is not text"):
        resolve(replace(draft, offload=3), tiny_settings, tmp_path / "job")
    assert resolve(replace(draft, offload="auto"), tiny_settings, tmp_path / "job").sampling.offload == ""


def test_it_is_stored_where_it_was_asked_for_and_older_rows_have_none():
    assert "offload" not in job_request().to_dict()
    request = job_request(offload="block")
    assert stored.read_request(json.dumps(request.to_dict())) == (request, ())
    assert stored.read_request(json.dumps(job_request().to_dict()))[0].sampling.offload == ""


def test_a_job_that_asks_for_another_way_is_loaded_anew(tiny_settings, monkeypatch):
    loads = []

    class Engine:
        offload = "text"  # what auto has become

        def check(self, model, scheme, offload="auto"):
            pass

        def load(self, model, scheme, report, offload="auto"):
            loads.append(offload)
            self.offload = "text" if offload == "auto" else offload

        def close(self):
            pass

    work = Work(tiny_settings, lambda name: (Engine(), EngineChoice(name, "")), lambda answer: None, threading.Event())
    for way in ("", "text", "", "none", "none", "", "auto"):
        work.load(job_request(offload=way, engine="diffusers").sampling)
    assert loads == ["auto", "none", "auto"]


@pytest.mark.parametrize(
    "wish, free, way, where",
    [
        ("auto", 80, "none", ("cuda", "cuda")),
        ("auto", 30, "text", ("cuda", "cpu")),
        ("auto", 16, "model", ("cpu", "cpu")),
        ("none", 16, "none", ("cuda", "cuda")),
        ("text", 80, "text", ("cuda", "cpu")),
        ("model", 80, "model", ("cpu", "cuda")),
    ],
)
def test_the_diffusers_engine_follows_it(monkeypatch, wish, free, way, where):
    gib = 2**30
    monkeypatch.setattr(device, "weights_size", lambda path: 9 * gib)
    tensors = {"x": SimpleNamespace(shape=(9 * gib,))}
    monkeypatch.setattr(device, "read_weights", lambda path: SimpleNamespace(tensors=tensors))
    monkeypatch.setattr(device, "expanded_size", lambda path: 10 * gib)
    monkeypatch.setattr(device, "measure", lambda limit: SimpleNamespace(free=free * gib))
    found = device.choose_residence(("high", "low"), "t5", torch.device("cuda"), wish)
    assert (found.way, (found.experts.type, found.text.type)) == (way, where)
    assert ("asked for" in found.offload) == (wish != "auto") and f"free {free:.1f}" in found.offload
    on_cpu = device.choose_residence(("high", "low"), "t5", torch.device("cpu"), wish)
    assert on_cpu.way == "none"  # there is nothing to move


def test_the_page_says_what_it_means_and_why(gpu):
    rows, settings = [WorkerRow("gpu0", "H100", "ready", gpu_total=24.0)], replace(Settings(), engine="lightx2v")
    asked = (A14B, A14B.scheme("fp8"))
    view = View(form={"size": "832x480", "offload": "auto"})
    note = offload_part.note_html(view, *asked, [], rows, settings)
    assert "What does not fit waits in RAM or moves" in note and "of 24.0 GiB, one expert at a time" in note
    fact = "block (auto: block by block, 30.1 GiB wanted, 23.0 GiB free)"
    done = Job(
        "a", "local", "done", job_request(model="i2v-a14b", scheme="fp8"), 0.0, result=Result(facts={"offload": fact})
    )
    note = offload_part.note_html(view, *asked, [done], rows, settings)
    words = "Blocks move between RAM and GPU while they run (auto: block by block, 30.1 GiB wanted, 23.0 GiB free)"
    assert f"In the last clip: {words}." in note and in_words(fact) == words
    view.form["offload"] = "none"
    assert "Everything stays on the GPU. At 832x480" in offload_part.note_html(view, *asked, [done], rows, settings)
    assert offload_part.note_html(view, *asked, [done], [WorkerRow("cpu0", "CPU", "ready")], settings) == ""
    gguf = offload_part.offers(A14B, A14B.scheme("gguf-Q4_K_M"), settings, "block")
    assert gguf["value"] == "auto" and "block" not in [way for _, way in gguf["choices"]]
