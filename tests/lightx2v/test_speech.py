"""S2V through the real LightX2V: its transformer and its audio encoder against ours and the official code's numbers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.engines import s2v_models as small
from tests.engines.test_s2v import apart, exact, files, golden, request  # noqa: F401 - fixtures
from tests.lightx2v.jobs import quiet
from wan_ui import settings as settings_module
from wan_ui.catalog import Scheme
from wan_ui.errors import Cancelled
from wan_ui.files.quantise import quantise_file
from wan_ui.patches import embedded_sizes
from wan_ui.patches.record import resolve
from wan_ui.qa import reference as references
from wan_ui.qa import stages
from wan_ui.request import LoraSpec

CLOSE = 1e-4
WORDS = "slowly zoom in, sunset light"


@pytest.fixture
def speaker(lightx2v, settings, tmp_path):
    """The small S2V, below the models folder like a download."""
    settings_module.use(replace(settings, models=tmp_path / "models"))
    if not resolve(embedded_sizes.PATCH):
        embedded_sizes.PATCH.apply(None)  # Wan-Tiny's text encoder and VAE
    model, root = small.write(tmp_path / "models"), tmp_path / "models" / "local" / "s2v"
    schemes = dict(model.schemes)
    for kind, target, name in (("fp8", "fp8", "dit-fp8.safetensors"), ("gguf", "Q8_0", "dit-Q8_0.gguf")):
        quantise_file(root / "dit.safetensors", root / name, target, name="random S2V")
        qtype = target if kind == "gguf" else ""
        schemes[kind] = Scheme(kind, kind, kind=kind, qtype=qtype, distilled=False, high=f"local/s2v:{name}")
    yield replace(model, schemes=schemes)
    settings_module.use(settings)


@pytest.fixture
def speaking(speaker, opened):
    """speaking(dtype) -> a loaded engine; closed at the end."""
    return lambda dtype=torch.float32, scheme="": opened(speaker, scheme, dtype)


def said(name, ours, theirs):
    worst = apart(ours, theirs)
    print(f"| {name} | {worst:.1e} / {(ours.float() - theirs.float()).abs().mean().item():.1e} |")
    return worst


@pytest.mark.parametrize("name", ["free", "posed"])
def test_one_step_is_as_officially(speaking, golden, name):  # noqa: F811
    engine = speaking()
    parts, texts = engine.driven, engine.encode_text(WORDS)
    picture = golden[f"{name} picture"]
    assert said("picture", parts.encode_image(small.picture(), 1), picture) < CLOSE
    for at, motion in (("first", None), ("last", golden[f"{name} motion"])):
        number = int(at == "last")
        voice = golden["voice"][..., 16 * number : 16 * number + 16]
        pose = golden["pose"][number] if name == "posed" else None
        with torch.inference_mode(), parts.at_work():
            given = parts.transformer.given(picture, motion, voice, 73, 4, pose)
            time = golden[f"{name} {at} time"].item()
            velocity = parts.transformer(golden[f"{name} {at} latents"], time, texts, given)
        assert said(f"{name}, {at} step", velocity, golden[f"{name} {at} velocity"]) < CLOSE


def test_a_whole_clip_is_ours_and_the_official_one(speaking, speaker, reference, golden, files, exact):  # noqa: F811
    job = request(files | {"pose_video": "pose.mp4"})
    seen = []
    ours = list(speaking().speak(job, seen.append))
    theirs = list(reference(speaker, "").speak(job, quiet))
    assert [len(clip.frames) for clip in ours] == [len(clip.frames) for clip in theirs] == [13, 10]
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True), start=1):
        latents = torch.from_numpy(one.latents), torch.from_numpy(other.latents)
        assert said(f"segment {number}, latents", *latents) < CLOSE
        assert np.abs(one.frames.astype(int) - other.frames).max() <= 1
    stages = list(dict.fromkeys(event.stage for event in seen))
    assert stages == ["text", "audio", "image", "denoise", "decode"]
    passes = [event.detail for event in seen if event.stage == "denoise" and event.segment == 1]
    assert len(passes) == 6 and passes[1].endswith("without voice and prompt")
    assert ours[0].facts["engine"] == "lightx2v" and "s2v_products" in ours[0].facts["patches"]


def test_it_stops_within_a_step_and_the_next_clip_is_the_same(speaking, files, exact):  # noqa: F811
    engine, job = speaking(), request(files, steps=2)

    def stop(progress):
        if (progress.segment, progress.stage, progress.step) == (2, "denoise", 2):
            raise Cancelled

    expected = list(engine.speak(job, quiet))
    stopped = engine.speak(job, stop)
    assert len(next(stopped).frames) == 13
    with pytest.raises(Cancelled):
        next(stopped)
    assert engine.runner.scheduler.latents is None
    again = list(engine.speak(job, quiet))
    assert all((one.latents == other.latents).all() for one, other in zip(again, expected, strict=True))


def test_the_doctor_finds_every_stage_right(speaking, speaker, reference):
    kept = references.compute(reference(speaker, ""), speaker, references.default_trial(speaker))
    report = stages.check(speaking(), speaker, speaker.scheme(""), kept, "the diffusers engine", quiet)
    assert "audio" in [stage.name for stage in report.stages]
    assert [stage.name for stage in report.stages if not stage.passed] == [], report.stages


@pytest.mark.parametrize(("scheme", "allowed"), [("gguf", CLOSE), ("fp8", 0.06)])
def test_quantised(speaking, speaker, reference, files, exact, scheme, allowed):  # noqa: F811
    """GGUF as the other engine expands it; fp8 rounds what it multiplies to e4m3, and what hears the voice as well."""
    job = request(files, scheme=scheme, steps=1, guidance=())
    ours = next(speaking(scheme=scheme).speak(job, quiet)).latents
    theirs = next(reference(speaker, scheme).speak(job, quiet)).latents
    off = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
    print(f"| {scheme} | {off:.1e} |")
    assert off < allowed and (scheme != "fp8" or off > 1e-4)


def test_in_bf16(speaking, files, exact):  # noqa: F811
    job = request(files, steps=1)
    exactly = next(speaking().speak(job, quiet)).latents
    rounded = next(speaking(torch.bfloat16).speak(job, quiet)).latents
    assert 1e-4 < np.linalg.norm(rounded - exactly) / np.linalg.norm(exactly) < 0.03


def test_loras(speaking, files, exact, tmp_path):  # noqa: F811
    """In the blocks and in what upstream multiplies in float32; gone again bit for bit."""
    engine, job = speaking(), request(files, steps=1)
    plain = next(engine.speak(job, quiet)).latents
    for module in ("blocks.1.self_attn.q", "blocks.1.cross_attn.o", "time_embedding.0"):
        shape = engine.loras.experts[0].shapes[f"{module}.weight"]
        path = tmp_path / f"{module}.safetensors"
        down, up = torch.randn(4, shape[1]), torch.randn(shape[0], 4)
        names = (f"diffusion_model.{module}.lora_A.weight", f"diffusion_model.{module}.lora_B.weight")
        save_file(dict(zip(names, (down, up), strict=True)), path)
        (match,) = engine.set_loras([LoraSpec(str(path), 1.0, "both")])
        assert match.matched == {"both": "1/1"}, module
        changed = next(engine.speak(job, quiet)).latents
        assert np.abs(changed - plain).max() > 1e-4, module
        engine.set_loras([])
    assert (next(engine.speak(job, quiet)).latents == plain).all()


def test_upstreams_own_ear_is_the_official_one(lightx2v, speaker, golden):  # noqa: F811
    """What it makes of the layers of wav2vec2: stretched, and the one nearest to each frame."""
    from lightx2v.models.input_encoders.hf.wan.s2v.audio_encoder import AudioEncoder, linear_interpolation

    from wan_ui.engines.s2v_voice import load_listener

    root = settings_module.settings().models / "local" / "s2v" / "wav2vec2-large-xlsr-53-english"
    listener = load_listener(root / "model.safetensors")
    values = small.voice()
    values = (values - values.mean()) / np.sqrt(values.var() + 1e-7)
    with torch.inference_mode():
        layers = listener.model(torch.from_numpy(values)[None], output_hidden_states=True).hidden_states
    encoder = object.__new__(AudioEncoder)
    encoder.video_rate = 30
    stretched = linear_interpolation(torch.cat(layers), 50, 30)
    buckets, count = encoder.get_audio_embed_bucket_fps(stretched, fps=16, batch_frames=16)
    assert count == 2
    assert said("voice", buckets.permute(1, 2, 0), golden["voice"]) < CLOSE
