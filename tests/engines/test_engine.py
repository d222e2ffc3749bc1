"""The engine as the worker uses it: progress, cancellation, seeds, caches, errors."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.engines.random_models import make_engine, quiet
from wan_ui.engines.base import READY
from wan_ui.engines.device import Choice, Residence, choose_device, choose_dtype, choose_residence
from wan_ui.engines.diffusers import DiffusersEngine
from wan_ui.errors import Cancelled, UserError
from wan_ui.families import VAE_21
from wan_ui.files import places
from wan_ui.machine.hardware import Hardware
from wan_ui.tasks import DUBBED


def forget(engine) -> None:
    """Drop what earlier jobs have left, so that every stage runs."""
    engine.encoded.prompts.clear()
    engine.encoded.images.clear()


def record(run) -> list:
    events = []
    run(events.append)
    return events


def test_load_reports_every_part(a14b):
    engine = DiffusersEngine()
    events = record(lambda report: engine.load(a14b, a14b.scheme(""), report))
    assert [(e.stage, e.step, e.total) for e in events] == [("load", k, 4) for k in (1, 2, 3, 4)]
    assert [e.detail for e in events] == ["text encoder", "VAE", "high-noise expert", "low-noise expert"]


def test_generate_reports_before_every_step(float32_engine, a14b, make_request):
    forget(float32_engine)
    events = record(lambda report: float32_engine.generate(make_request(a14b), report))
    stages = [event.stage for event in events]
    engine_stages = [stage.name for stage in DUBBED if stage.name not in ("read", "load", "encode", "lipsync")]
    assert sorted(set(stages), key=stages.index) == engine_stages
    denoise = [event for event in events if event.stage == "denoise"]
    assert [(e.step, e.total) for e in denoise] == [(k, 4) for k in (1, 2, 3, 4)]
    assert [e.detail for e in denoise] == 2 * ["high-noise expert"] + 2 * ["low-noise expert"]
    assert [(e.step, e.total) for e in events if e.stage == "decode"] == [(k, 3) for k in (1, 2, 3)]


def test_clip_is_complete(float32_engine, a14b, make_request):
    clip = float32_engine.generate(make_request(a14b, fps=24), quiet)
    assert clip.frames.shape == (9, 64, 64, 3) and clip.frames.dtype == np.uint8
    assert clip.latents.shape == (16, 3, 8, 8) and clip.latents.dtype == np.float32
    assert clip.frames.std() > 5 and np.isfinite(clip.latents).all()
    assert clip.fps == 24 != a14b.fps
    assert {"engine", "device", "dtype", "scheme", "attention"} <= clip.facts.keys()
    assert all(isinstance(value, str) for value in clip.facts.values())


def test_what_was_prepared_is_found_by_the_next_job_and_changes_nothing(float32_engine, a14b, make_request):
    job = make_request(a14b)
    forget(float32_engine)
    plain = float32_engine.generate(job, quiet)
    assert plain.ready == {}
    forget(float32_engine)
    for _ in range(2):  # a prompt that rests twice
        events = record(lambda report: float32_engine.prepare(job, report))
    assert [(event.stage, event.detail) for event in events] == [("text", ""), ("image", "already encoded")]
    clip = float32_engine.generate(job, quiet)
    assert clip.ready == dict.fromkeys(("text", "image"), READY)
    assert clip.frames.tobytes() == plain.frames.tobytes() and clip.latents.tobytes() == plain.latents.tobytes()
    assert clip.facts == plain.facts and float32_engine.generate(job, quiet).ready == {}
    forget(float32_engine)

    def stop(progress):
        if progress.stage == "image":
            raise Cancelled

    with pytest.raises(Cancelled):  # the text is ready, the picture is not
        float32_engine.prepare(job, stop)
    clip = float32_engine.generate(job, quiet)
    assert clip.ready == {"text": READY} and clip.latents.tobytes() == plain.latents.tobytes()


def test_seed_decides_the_clip(float32_engine, a14b, make_request):
    job = make_request(a14b)
    torch.manual_seed(1)
    first = float32_engine.generate(job, quiet)
    state = torch.random.get_rng_state()
    forget(float32_engine)
    torch.manual_seed(2)
    again = float32_engine.generate(job, quiet)
    other = float32_engine.generate(make_request(a14b, seed=8), quiet)
    assert first.latents.tobytes() == again.latents.tobytes() and np.array_equal(first.frames, again.frames)
    assert not np.array_equal(first.latents, other.latents)
    torch.manual_seed(1)
    assert torch.equal(state, torch.random.get_rng_state()), "the global generator was used"


@pytest.mark.parametrize("steps", range(1, 9))
def test_every_step_count(steps, float32_engine, a14b, make_request):
    events = record(lambda report: float32_engine.generate(make_request(a14b, steps=steps, frames=5), report))
    assert [e.step for e in events if e.stage == "denoise"] == list(range(1, steps + 1))


@pytest.mark.parametrize(("frames", "width", "height"), [(5, 64, 64), (17, 64, 64), (9, 96, 64), (9, 64, 96)])
def test_sizes(frames, width, height, float32_engine, a14b, make_request, picture, tmp_path):
    Image.open(picture).resize((width, height)).save(tmp_path / "image.png")
    job = make_request(a14b, image=str(tmp_path / "image.png"), frames=frames, width=width, height=height)
    clip = float32_engine.generate(job, quiet)
    assert clip.frames.shape == (frames, height, width, 3)
    assert clip.latents.shape == (16, 1 + (frames - 1) // 4, height // 8, width // 8)


@pytest.mark.parametrize("family", ["a14b", "ti2v"])
def test_cancel_at_every_report_leaves_nothing_behind(family, request, make_request):
    model = request.getfixturevalue(family)
    engine = make_engine(model, dtype=torch.float32)
    job = make_request(model, steps=2, frames=5)
    expected = engine.generate(job, quiet)
    forget(engine)
    reports = record(lambda report: engine.generate(job, report))
    for stop in range(len(reports)):
        forget(engine)
        seen = []

        def report(progress, seen=seen, stop=stop):
            seen.append(progress)
            if len(seen) > stop:
                raise Cancelled

        with pytest.raises(Cancelled):
            engine.generate(job, report)
        assert seen == reports[: stop + 1]
        got = engine.generate(job, quiet)
        assert got.latents.tobytes() == expected.latents.tobytes(), f"after cancelling at {reports[stop]}"
        assert np.array_equal(got.frames, expected.frames)


def test_cancel_while_loading(a14b, make_request):
    def report(progress):
        if progress.step == 4:
            raise Cancelled

    engine = DiffusersEngine()
    with pytest.raises(Cancelled):
        engine.load(a14b, a14b.scheme(""), report)
    engine.load(a14b, a14b.scheme(""), quiet)
    assert len(engine.experts) == 2
    assert engine.generate(make_request(a14b), quiet).frames.shape == (9, 64, 64, 3)


def test_prompt_and_image_are_encoded_once(float32_engine, a14b, make_request, monkeypatch):
    forget(float32_engine)
    calls = []
    for name in ("wan_ui.engines.text.encode", "wan_ui.engines.vae.encode_image"):
        module, function = name.rsplit(".", 1)
        original = getattr(__import__(module, fromlist=[function]), function)
        monkeypatch.setattr(name, lambda *a, _f=original, _n=function, **k: calls.append(_n) or _f(*a, **k))
    for seed in (1, 2):
        float32_engine.generate(make_request(a14b, seed=seed), quiet)
    assert calls == ["encode", "encode_image"]
    float32_engine.generate(make_request(a14b, prompt="fog"), quiet)
    float32_engine.generate(make_request(a14b, frames=5), quiet)
    assert calls == ["encode", "encode_image", "encode", "encode_image"]


def test_prompt_matters_and_empty_or_long_prompts_work(float32_engine, a14b, make_request):
    clips = [
        float32_engine.generate(make_request(a14b, prompt=prompt, steps=1), quiet).latents
        for prompt in ("", "zoom in", "fog " * 500, "\N{SNOWMAN} naïve — «текст»")
    ]
    assert all(np.isfinite(latents).all() for latents in clips)
    assert not np.array_equal(clips[0], clips[1])


def test_image_errors(float32_engine, a14b, make_request, tmp_path):
    Image.new("RGB", (32, 64)).save(tmp_path / "small.png")
    with pytest.raises(UserError, match="32x64 pixels, expected 64x64") as error:
        float32_engine.generate(make_request(a14b, image=str(tmp_path / "small.png")), quiet)
    assert error.value.field == "image"
    (tmp_path / "bad.png").write_bytes(b"\x89PNG nothing")
    for name in ("bad.png", "absent.png"):
        with pytest.raises(UserError, match=f"{name} cannot be read"):
            float32_engine.generate(make_request(a14b, image=str(tmp_path / name)), quiet)


def test_close_frees_and_generate_then_needs_load(a14b, make_request):
    engine = make_engine(a14b)
    engine.close()
    assert not engine.experts and engine.vae is None
    with pytest.raises(RuntimeError, match="before load"):
        engine.generate(make_request(a14b), quiet)


def test_offloaded_experts_give_the_same_clip(float32_engine, a14b, make_request, monkeypatch):
    """With one expert on the device at a time. The moves are real; both devices are the CPU here."""
    expected = float32_engine.generate(make_request(a14b), quiet)
    monkeypatch.setattr(float32_engine, "offloaded", True)
    moves = []
    for index, expert in enumerate(float32_engine.experts):
        monkeypatch.setattr(expert, "to", lambda device, index=index: moves.append((index, str(device))))
    got = float32_engine.generate(make_request(a14b), quiet)
    assert moves == 2 * [(1, "cpu"), (0, "cpu")] + 2 * [(0, "cpu"), (1, "cpu")]
    assert got.latents.tobytes() == expected.latents.tobytes()


def test_large_models_stay_quantised(a14b, make_request, monkeypatch):
    """A large model on the CPU keeps its weights as stored; the clip stays close to the dequantised one."""
    expected = make_engine(a14b, "gguf-Q8_0", torch.float32).generate(make_request(a14b), quiet)
    cpu = torch.device("cpu")
    residence = Residence(cpu, True, cpu, torch.float32, "kept as stored: large model", "none")
    monkeypatch.setattr("wan_ui.engines.diffusers.choose_residence", lambda *given: residence)
    got = make_engine(a14b, "gguf-Q8_0", torch.float32).generate(make_request(a14b), quiet)
    assert "kept as stored" in got.facts["scheme"]
    np.testing.assert_allclose(got.latents, expected.latents, atol=1e-3)


@pytest.mark.parametrize(
    ("free_gib", "experts", "text", "words"),
    [
        (80, "cuda", "cuda", "none (experts 28.0 GiB"),
        (48, "cuda", "cpu", "none, text encoder on the CPU"),
        (40, "cuda", "cpu", "none, text encoder on the CPU"),
        (38, "cpu", "cuda", "the inactive expert is in host memory (experts"),
        (24, "cpu", "cpu", "the inactive expert is in host memory, text encoder on the CPU"),
    ],
)
def test_large_models_on_a_gpu(free_gib, experts, text, words, monkeypatch, tmp_path):
    """fp8 A14B: two experts of 14 GiB and a text encoder of 10.6 GiB. Sparse files, no GPU."""
    sizes = {"high": 14 * 2**30, "low": 14 * 2**30, "t5": int(10.6 * 2**30)}
    for name, size in sizes.items():
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
    info = SimpleNamespace(tensors={"x": SimpleNamespace(shape=(14 * 2**30,))})
    monkeypatch.setattr("wan_ui.engines.device.read_weights", lambda path: info)
    hardware = Hardware(device="cuda", free=free_gib * 2**30, total=80 * 2**30)
    monkeypatch.setattr("wan_ui.engines.device.measure", lambda limit: hardware)
    paths = (tmp_path / "high", tmp_path / "low")
    residence = choose_residence(paths, tmp_path / "t5", torch.device("cuda"))
    assert (residence.experts.type, residence.text.type) == (experts, text)
    assert residence.quantised and residence.text_dtype == torch.bfloat16
    assert residence.offload.startswith(words)


def test_choices_have_reasons(a14b, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="needs a CUDA GPU") as error:
        choose_device(replace(a14b, needs_gpu=True))
    assert error.value.field == "model"
    assert choose_device(a14b).text == "cpu (auto: no CUDA GPU)"
    for amx, avx, expected in (
        (True, True, "bfloat16 (auto: amx_bf16)"),
        (False, True, "bfloat16 (auto: avx512_bf16)"),
        (False, False, "float32 (auto: this CPU has no native bf16)"),
    ):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda value=amx: value)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda value=avx: value)
        assert choose_dtype(torch.device("cpu")).text == expected
    assert Choice(1, "because").text == "1 (because)"


def test_missing_and_damaged_files_are_named(a14b, tmp_path, isolated_settings):
    root = Path(a14b.root.removeprefix("embedded:"))
    damage = {
        places.T5_FILE: lambda p: p.write_bytes(p.read_bytes()[:2000]),
        VAE_21.file: lambda p: p.write_bytes(b"PK\x03\x04" + bytes(500)),
        "HighNoise/random-HighNoise-Q8_0.gguf": lambda p: p.write_bytes(p.read_bytes()[:-100]),
        "google/umt5-xxl/tokenizer.json": lambda p: p.write_text("{"),
        "high_noise_model/config.json": lambda p: p.write_text("[1]"),
    }
    for i, (name, spoil) in enumerate(damage.items()):
        copy = tmp_path / str(i)
        shutil.copytree(root, copy)
        model = replace(a14b, root=f"embedded:{copy}")
        spoil(copy / name)
        with pytest.raises(UserError, match=Path(name).name):
            DiffusersEngine().load(model, model.scheme("gguf-Q8_0"), quiet)
        (copy / name).unlink()
        with pytest.raises(UserError, match=Path(name).name if i != 2 else "Q8_0.gguf"):
            DiffusersEngine().load(model, model.scheme("gguf-Q8_0"), quiet)
