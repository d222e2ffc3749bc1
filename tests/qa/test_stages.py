"""Faults put into a right pipeline are caught, and named by stage and transformer block."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.qa.conftest import TRIAL, quiet
from wan_ui.engines import schedule, text, vae
from wan_ui.engines.device import Choice
from wan_ui.engines.diffusers import DiffusersEngine
from wan_ui.errors import UserError
from wan_ui.headers import read_header
from wan_ui.qa import stages
from wan_ui.qa.reference import load_reference, stored_path
from wan_ui.settings import settings
from wan_ui.tensors import read_tensor
from wan_ui.weights import locate


def examine(engine, healthy, model, reference, folder=None, scheme="bf16"):
    return stages.check(engine, model, model.scheme(scheme), reference, "test", quiet, folder, lambda: healthy)


def test_a_right_pipeline_passes_every_stage(patient, healthy, model, reference, tmp_path):
    report = examine(patient, healthy, model, reference, tmp_path)
    assert report.first_failing == "" and report.blocks == []
    assert [stage.name for stage in report.stages] == ["text", "image", "schedule", "dit high", "dit low", "decode"]
    for stage in report.stages:
        if stage.name != "schedule":
            assert stage.error < 1e-5 and stage.cosine > 0.9999 and stage.nan == stage.inf == 0 and stage.std > 0
            assert stage.seconds > 0 and stage.peak_bytes > 0 and stage.dtype == "float32" and stage.device == "cpu"
    assert set(report.pictures) == {
        f"{name}{kind}" for name in ("image", "dit high", "dit low", "decode") for kind in ("", " reference")
    }
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


def prompt_padding_attended(engine, monkeypatch):
    def encode(tokenizer, encoder, prompt, length):
        ids = tokenizer.encode(text.clean(prompt)).ids
        ids = torch.tensor([ids + [0] * (64 - len(ids))])
        hidden = encoder(input_ids=ids).last_hidden_state
        return torch.nn.functional.pad(hidden, (0, 0, 0, length - hidden.shape[1]))

    monkeypatch.setattr(text, "encode", encode)


def vae_scale_dropped(engine, monkeypatch):
    unit = (torch.zeros(1, 16, 1, 1, 1), torch.ones(1, 16, 1, 1, 1))
    monkeypatch.setattr(vae, "latent_statistics", lambda _vae: unit)


def vae_scale_dropped_in_decode(engine, monkeypatch):
    decode, (_, std) = engine.decode, vae.latent_statistics(engine.vae)
    monkeypatch.setattr(engine, "decode", lambda latents: decode(latents / std[0]))


def image_channels_swapped(engine, monkeypatch):
    encode = engine.encode_image
    monkeypatch.setattr(engine, "encode_image", lambda pixels, frames: encode(pixels[..., ::-1].copy(), frames))


def image_in_zero_to_one(engine, monkeypatch):
    encode = vae.encode_image
    monkeypatch.setattr(vae, "encode_image", lambda model, image, *rest: encode(model, image / 2 + 0.5, *rest))


def mask_upside_down(engine, monkeypatch):
    encode = engine.encode_image

    def upside_down(pixels, frames):
        condition = encode(pixels, frames)
        condition[:4] = 1 - condition[:4]
        return condition

    monkeypatch.setattr(engine, "encode_image", upside_down)


def wrong_boundary(engine, monkeypatch):
    engine.model = replace(engine.model, boundary=0.95)


def wrong_shift(engine, monkeypatch):
    engine.model = replace(engine.model, shift=3.0)


def shift_applied_twice(engine, monkeypatch):
    once = schedule.sigmas
    monkeypatch.setattr(
        schedule, "sigmas", lambda steps, shift: [shift * s / (1 + (shift - 1) * s) for s in once(steps, shift)]
    )


def experts_swapped(engine, monkeypatch):
    engine.experts.reverse()


def wrong_rope(engine, monkeypatch):
    rope = engine.experts[0].rope
    for name, buffer in rope.named_buffers():
        setattr(rope, name, buffer.flip(0))


def timestep_in_zero_to_one(engine, monkeypatch):
    predict = engine.predict
    monkeypatch.setattr(
        engine, "predict", lambda latents, sigma, *rest, **more: predict(latents, sigma / 1000, *rest, **more)
    )


def fp8_scale_not_applied(engine, monkeypatch):
    path = locate(engine.model, engine.model.scheme("fp8"), settings()).experts[0]
    scale = read_tensor(path, read_header(path).tensors["blocks.3.ffn.2.weight_scale"]).float().reshape(-1, 1)
    engine.experts[0].blocks[3].ffn.net[2].weight.data /= scale


def fp16_overflow(engine, monkeypatch):
    feed_forward = engine.experts[1].blocks[5].ffn
    feed_forward.register_forward_hook(lambda _module, _args, output: (output * 1e6).half().float())


def nan_in_a_weight(engine, monkeypatch):
    engine.experts[1].blocks[2].attn1.to_q.weight.data[7, 7] = torch.nan


def one_block_skipped(engine, monkeypatch):
    engine.experts[1].blocks[6].register_forward_hook(lambda _module, args, output: args[0])


def patch_embedding_transposed(engine, monkeypatch):
    weight = engine.experts[0].patch_embedding.weight
    weight.data = weight.data.transpose(-1, -2).contiguous()


def attention_raises(engine, monkeypatch):
    def broken(_module, _args):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device")

    engine.experts[0].blocks[4].attn2.register_forward_pre_hook(broken)


SHARED = "all blocks are off"
FAULTS = [
    (prompt_padding_attended, "text", ""),
    (vae_scale_dropped, "image", ""),
    (image_channels_swapped, "image", ""),
    (image_in_zero_to_one, "image", ""),
    (mask_upside_down, "image", ""),
    (wrong_boundary, "schedule", ""),
    (wrong_shift, "schedule", ""),
    (shift_applied_twice, "schedule", ""),
    (experts_swapped, "dit high", "another expert's"),
    (wrong_rope, "dit high", SHARED),
    (timestep_in_zero_to_one, "dit high", SHARED),
    (fp8_scale_not_applied, "dit high", "block 3 is the first bad one"),
    (patch_embedding_transposed, "dit high", "patch embedding"),
    (attention_raises, "dit high", "RuntimeError in block 4"),
    (nan_in_a_weight, "dit low", "block 2 is the first with NaN or Inf"),
    (fp16_overflow, "dit low", "block 5 is the first with NaN or Inf"),
    (one_block_skipped, "dit low", "block 6 is the first bad one"),
    (vae_scale_dropped_in_decode, "decode", ""),
]


@pytest.mark.parametrize("fault, stage, words", FAULTS, ids=[fault.__name__ for fault, *_ in FAULTS])
def test_a_seeded_fault_is_localised(patient, healthy, model, reference, monkeypatch, tmp_path, fault, stage, words):
    fault(patient, monkeypatch)
    report = examine(patient, healthy, model, reference, tmp_path)
    assert report.first_failing == stage, [(result.name, result.why) for result in report.stages]
    # Each stage starts from the reference: the stages that the fault does not touch pass, before and after.
    failing = {result.name for result in report.stages if not result.passed}
    both = {vae_scale_dropped: {"image", "decode"}, experts_swapped: {"dit high", "dit low"}}
    both[timestep_in_zero_to_one] = {"dit high", "dit low"}
    assert failing == both.get(fault, {stage})
    if words:
        assert words in report.blocks[0].verdict, report.blocks
        assert (tmp_path / report.pictures[f"{stage} blocks"]).read_text().startswith("<svg")
    print(f"{fault.__name__}: {stage}; {report.blocks[0].verdict if report.blocks else ''}")


def test_without_a_reference_only_nonsense_fails(patient, model, monkeypatch):
    report = stages.check(patient, model, model.scheme("bf16"), None, "none", quiet)
    assert report.first_failing == "" and all(stage.error == -1 for stage in report.stages)
    nan_in_a_weight(patient, monkeypatch)
    assert stages.check(patient, model, model.scheme("bf16"), None, "none", quiet).first_failing == "dit low"


def test_a_stored_reference_keeps_its_values(reference, tmp_path):
    reference.save(tmp_path / "stages.safetensors")
    again = load_reference(tmp_path / "stages.safetensors")
    assert again.trial == reference.trial and again.plan == reference.plan and again.kind == "stored"
    for name, tensor in reference.outputs.items():
        assert stages.distance(again.outputs[name], tensor)[0] < (0.01 if name == "decode" else 1e-3)


def test_a_file_that_is_no_reference_is_named(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match=r"reference: .*x\.safetensors is not a stored reference"):
        load_reference(tmp_path / "x.safetensors")


def test_the_stored_reference_is_what_the_weights_give(healthy, model):
    """The file in the repository belongs to the weights in the repository."""
    stored = load_reference(stored_path(model))
    report = stages.check(healthy, model, model.scheme("bf16"), stored, "stored", quiet)
    assert report.first_failing == ""
