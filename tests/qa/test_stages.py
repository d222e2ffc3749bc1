"""Faults put into a right pipeline are caught, and named by stage and transformer block."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.qa.conftest import TRIAL, quiet
from tests.qa.faults import BEGIN, END, FAULTS, nan_in_a_weight, steps_short, table, timestep_late, weight_too_large
from wan_ui.engines import vae
from wan_ui.engines.device import Choice
from wan_ui.engines.diffusers import DiffusersEngine
from wan_ui.errors import UserError
from wan_ui.qa import stages
from wan_ui.qa.blocks import relative_error
from wan_ui.qa.reference import compute, load_reference, stored_path
from wan_ui.settings import ROOT


def examine(engine, healthy, model, reference, folder=None, scheme="bf16"):
    return stages.check(engine, model, model.scheme(scheme), reference, "test", quiet, folder, lambda: healthy)


def test_a_right_pipeline_passes_every_stage(patient, healthy, model, reference, tmp_path):
    report = examine(patient, healthy, model, reference, tmp_path)
    assert report.first_failing == "" and report.blocks == []
    names = ["text", "image", "schedule", "dit high", "dit low", "decode", "next segment"]
    assert [stage.name for stage in report.stages] == names
    for stage in report.stages:
        if stage.name != "schedule":
            assert stage.error < 1e-5 and stage.cosine > 0.9999 and stage.nan == stage.inf == 0 and stage.std > 0
            assert stage.seconds > 0 and stage.peak_bytes > 0 and stage.dtype == "float32" and stage.device == "cpu"
    drawn = [name for name in names if name not in ("text", "schedule")]
    assert set(report.pictures) == {f"{name}{kind}" for name in drawn for kind in ("", " reference")}
    strip = Image.open(tmp_path / report.pictures["decode"])
    assert strip.size == (6 * TRIAL.width, TRIAL.height) and np.asarray(strip).std() > 10


@pytest.mark.parametrize("scheme", ["bf16", "gguf-Q4_0", "fp8"])
def test_every_kind_of_scheme_passes_against_the_stored_reference(model, scheme):
    engine = DiffusersEngine(Choice(torch.bfloat16, "test"))
    engine.load(model, model.scheme(scheme), quiet)
    stored = load_reference(stored_path(model))
    report = stages.check(engine, model, model.scheme(scheme), stored, "stored", quiet)
    engine.close()
    assert report.first_failing == "", report.stages
    step = next(stage for stage in report.stages if stage.name == "dit high")
    # The tolerance is not so wide that anything passes: the scheme uses a good part of it.
    assert step.error > step.tolerance / 8


# ---------------------------------------------------------------- seeded faults


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.seed.__name__ for fault in FAULTS])
def test_a_seeded_fault_is_localised(patient, healthy, model, reference, monkeypatch, tmp_path, fault):
    fault.seed(patient, monkeypatch)
    report = examine(patient, healthy, model, reference, tmp_path)
    assert report.first_failing == fault.stage, [(result.name, result.why) for result in report.stages]
    # Each stage starts from the reference: the stages that the fault does not touch pass, before and after.
    failing = {result.name: result.why for result in report.stages if not result.passed}
    assert set(failing) == {fault.stage, *fault.also}
    said = [blocks.verdict for blocks in report.blocks if blocks.stage == fault.stage] or [failing[fault.stage]]
    assert fault.told in said[0]
    if report.blocks:
        assert (tmp_path / report.pictures[f"{fault.stage} blocks"]).read_text().startswith("<svg")


@pytest.mark.parametrize(
    ("seed", "stage"), [(weight_too_large, "dit high"), (timestep_late, "dit low"), (steps_short, "schedule")]
)
def test_a_fault_that_is_in_the_reference_too(patient, model, monkeypatch, seed, stage):
    """The diffusers engine on the same files has the fault as well: nothing it says can clear a block.

    The stored outputs of the blocks do not depend on the code or the files, and name it.
    """
    seed(patient, monkeypatch)
    own = compute(patient, model, TRIAL)
    stored = load_reference(stored_path(model))
    report = stages.check(patient, model, model.scheme("bf16"), stored, "stored", quiet, None, lambda: patient)
    assert (
        report.first_failing == stage
        if stage != "dit low"
        else stage in {s.name for s in report.stages if not s.passed}
    )
    told = next(fault.told for fault in FAULTS if fault.seed is seed)
    said = [found.verdict for found in report.blocks] or [s.why for s in report.stages if s.name == stage]
    assert any(told in words for words in said), said

    # Against itself every stage passes; and where one is made to fail, the verdict does not acquit the blocks.
    broken = {name: 2 * output if name.startswith("dit") else output for name, output in own.outputs.items()}
    report = stages.check(patient, model, model.scheme("bf16"), replace(own, outputs=broken), "own", quiet)
    assert report.blocks and all("can't tell" in found.verdict for found in report.blocks)


def test_the_table_of_faults_is_current():
    """Wherever it is printed: python -m tests.qa.faults makes it again."""
    documents = [path for path in (ROOT / "README.md", Path(__file__).with_name("README.md")) if path.is_file()]
    texts = [text for text in (path.read_text() for path in documents) if BEGIN in text]
    assert texts
    for text in texts:
        assert table() == text[text.index(BEGIN) : text.index(END) + len(END)]


def test_without_a_reference_only_nonsense_fails(patient, model, monkeypatch):
    small = replace(model, sizes=((TRIAL.width, TRIAL.height),), frames=(TRIAL.frames,))
    report = stages.check(patient, small, small.scheme("bf16"), None, "none", quiet)
    assert report.first_failing == "" and all(stage.error == -1 for stage in report.stages)
    nan_in_a_weight(patient, monkeypatch)
    assert stages.check(patient, small, small.scheme("bf16"), None, "none", quiet).first_failing == "dit low"


def test_a_stored_reference_keeps_its_values(reference, tmp_path):
    reference.save(tmp_path / "stages.safetensors")
    again = load_reference(tmp_path / "stages.safetensors")
    assert again.trial == reference.trial and again.plan == reference.plan and again.kind == "stored"
    for name, tensor in reference.outputs.items():
        assert relative_error(again.outputs[name], tensor) < (0.01 if name == "decode" else 1e-3)


def test_a_file_that_is_no_reference_is_named(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match=r"reference: .*x\.safetensors is not a stored reference"):
        load_reference(tmp_path / "x.safetensors")


def test_the_stored_reference_is_what_the_weights_give(healthy, model):
    """The file in the repository belongs to the weights in the repository."""
    stored = load_reference(stored_path(model))
    report = stages.check(healthy, model, model.scheme("bf16"), stored, "stored", quiet)
    assert report.first_failing == ""


def test_a_clip_that_ends_at_a_picture_has_a_stage(patient, healthy, model, monkeypatch, tmp_path):
    """Of models that can; what is wrong with the last frame alone is found there alone."""
    able, right = replace(model, tasks=(*model.tasks, "first-last-frame")), vae.with_mask
    reference = compute(healthy, able, TRIAL)
    found = stages.check(patient, able, able.scheme("bf16"), reference, "", quiet, tmp_path)
    assert not found.first_failing and [stage.name for stage in found.stages][1:3] == ["image", "last frame"]
    assert "last frame" in found.pictures
    monkeypatch.setattr(vae, "with_mask", lambda latents, ends: right(latents, False))
    found = stages.check(patient, able, able.scheme("bf16"), reference, "", quiet)
    assert [stage.name for stage in found.stages if not stage.passed] == ["last frame"]
