"""The report for a bug: complete, and with nothing personal in it."""

import getpass
import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from tests.commands.test_command_line import wan_ui
from tests.job_requests import job_request
from wan_ui.__main__ import main
from wan_ui.queue.jobs import Jobs
from wan_ui.queue.pipeline import Pipeline
from wan_ui.reports import doctor
from wan_ui.settings import ROOT, Settings, use


@pytest.fixture
def settings(tmp_path):
    return replace(
        Settings(),
        outputs=tmp_path / "my outputs",
        cache=tmp_path / "cache",
        auth="marianne:correct-horse",
        lightx2v_path=str(tmp_path / "secret-project" / "LightX2V"),
    )


def fail_a_job(settings: Settings, error: str) -> None:
    jobs = Jobs(settings.outputs / "wan_ui.sqlite")
    request = job_request(prompt="a private prompt", scheme="fp8")
    jobs.add("20260101-000000-0000", "local", request)
    jobs.claim()
    jobs.finish("20260101-000000-0000", "failed", error=error)


LEAKS = [
    "hf_abcdefghijklmnopqrstuvwx",
    "https://marianne:correct-horse@example.org/x",
    "Authorization: Bearer abcdef123456",
    "token=abcdef123456",
    "marianne.m@example.org",
    f"{Path.home()}/pictures/aunt.png",
    "/home/marianne/models/x.gguf",
    "/Users/marianne/x",
    f"{ROOT}/wan_ui/queue/worker.py",
]


def test_nothing_personal_is_in_the_report(settings):
    settings.outputs.mkdir()
    fail_a_job(settings, "\n".join(LEAKS) + f"\n{settings.lightx2v_path}/lightx2v/infer.py\n{settings.outputs}/clips/1")
    report = doctor.collect(settings, torch_facts=False)
    text = json.dumps(report) + doctor.markdown(report)
    words = ["hf_abc", "correct-horse", "abcdef123456", "aunt.png", "marianne", "secret-project"]
    words += ["a private prompt", str(settings.outputs), str(settings.cache), f"{ROOT}/", socket.gethostname()]
    words += [getpass.getuser()] if len(getpass.getuser()) > 4 else []
    assert [word for word in words if word in text] == []
    error = report["errors"][0]
    assert "<wan-ui>/wan_ui/queue/worker.py" in error["error"] and "<lightx2v>/lightx2v/infer.py" in error["error"]
    assert error["model"] == "wan-tiny fp8, auto" and error["clip"] == "256x256, 17 frames, 4 steps"
    assert report["settings"]["auth"] == report["settings"]["lightx2v_path"] == "set"


def test_the_command_writes_both_files_and_tells_what_is_wrong(tmp_path):
    place = tmp_path / "cache" / "doctor"
    place.mkdir(parents=True)
    figures = {"seconds": 0.1, "peak_bytes": 1, "nan": 0, "inf": 0, "cosine": 0.1, "error": 0.9}
    stage = {"name": "decode", "passed": False, "why": "error 0.9 above 0.02", **figures}
    seen = {"model": "wan-tiny", "scheme": "bf16", "engine": {}, "reference": "stored", "when": "now", "blocks": [],
            "stages": [stage], "first_failing": "decode", "patches": []}  # fmt: skip
    (place / "stages.json").write_text(json.dumps(seen))
    environ = {"WAN_UI_CACHE": tmp_path / "cache", "WAN_UI_OUTPUTS": tmp_path / "outputs"}
    done = wan_ui("doctor", "--out", tmp_path / "report", "--json", **environ)
    assert done.returncode == 1 and "stage decode is wrong (wan-tiny bf16)" in done.stdout, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report == json.loads((tmp_path / "report" / "report.json").read_text())
    assert {"machine", "versions", "patches", "probes", "stages", "errors"} <= set(report)
    assert report["versions"]["torch"] and report["machine"]["processor"]
    assert {patch["name"] for patch in report["patches"]} >= {"gguf_loader", "fp8_sgl"}
    assert all(patch["reason"] and patch["why"] for patch in report["patches"])
    text = (tmp_path / "report" / "report.md").read_text()
    assert "**First failing: decode**" in text and "| decode | **FAIL** |" in text
    (place / "stages.json").unlink()
    use(replace(Settings(), cache=tmp_path / "cache", outputs=tmp_path / "outputs"))
    assert main(["doctor", "--out", str(tmp_path / "report")]) == 0


def test_the_stages_of_the_loaded_model_are_examined_between_jobs(model, tmp_path):
    """By way of the real worker, as the page does it."""
    values = Settings(outputs=tmp_path / "outputs", cache=ROOT / "build" / "test-cache", threads=1)
    pipeline = Pipeline().open(values, warm=False)
    try:
        pipeline.examine()
        for _ in range(3000):
            if pipeline.examination.state in ("done", "failed"):
                break
            pipeline.pool["cpu0"].stopping.wait(0.1)
        found = pipeline.examination
        assert found.state == "done", found.words
        assert found.report["first_failing"] == "" and found.report["scheme"] == "bf16"
        assert pipeline.model.state == "ready"
    finally:
        pipeline.close()
    kept = doctor.last_stages(values)
    assert kept["stages"][0]["name"] == "text"
    assert (doctor.folder(values) / kept["pictures"]["decode"]).is_file()


def test_patches_are_left_out_by_a_new_process(scripted_settings):
    """Only a new one can: what is patched stays so."""
    pipeline = Pipeline().open(scripted_settings, engine_factory="tests.scripted_engine:create_engine")
    worker = pipeline.pool["cpu0"].worker

    def loaded_by_another_than(before: int) -> int:
        for _ in range(3000):
            if worker.alive() and worker.process.pid != before and pipeline.model.state == "ready":
                return worker.process.pid
            pipeline.pool["cpu0"].stopping.wait(0.1)
        raise AssertionError("it did not happen in time")

    try:
        first = loaded_by_another_than(0)
        pipeline.leave_out("fp8_scales")
        assert loaded_by_another_than(first)
        assert pipeline.settings.lightx2v_patches_off == "fp8_scales"
    finally:
        pipeline.close()


def test_kernels_that_are_absent_take_one_line_for_each_reason():
    row = {"kind": "gemm", "shape": "x", "seconds": -1.0, "error": -1.0, "status": "absent"}
    probes = [row | {"name": "a", "why": "needs a CUDA GPU"}, row | {"name": "b", "why": "needs a CUDA GPU"}]
    probes += [row | {"name": "a", "why": "needs a CUDA GPU", "shape": "y"}]
    probes += [row | {"name": "c", "why": "ended by SIGSEGV", "status": "crashed"}]
    rest = {"machine": {}, "versions": {}, "settings": {}, "stages": None, "patches": [], "errors": []}
    text = doctor.markdown({"wan_ui": "0", "when": "now", "probes": probes, **rest})
    assert "\nabsent, needs a CUDA GPU: a, b\n" in text
    assert text.count("| gemm |") == 1 and "| c | crashed |" in text
