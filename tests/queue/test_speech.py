"""Audio in, a clip that speaks out: after a generation, alone, and when it ends badly. Random weights, real worker."""

import os
import re
import signal
import time

import numpy as np
import pytest
import torch
from PIL import Image

from tests.clips import back_and_forth
from tests.conftest import SCRIPTED
from tests.job_requests import changed
from tests.lipsync.conftest import tone
from tests.lipsync.random_musetalk import write_musetalk
from tests.sounds import drums, melody, voice, write_wav
from wan_ui.engines.device import choose_dtype
from wan_ui.errors import UserError
from wan_ui.lipsync.choice import OFFICIAL
from wan_ui.media import muxer
from wan_ui.queue import estimate
from wan_ui.queue.draft import Draft
from wan_ui.queue.pipeline import Pipeline
from wan_ui.queue.work import Work
from wan_ui.settings import ROOT, Settings

EVERY = {"every_sound": True}  # what is spoken here is a tone
FACTORY = "tests.scripted_engine:create_engine"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    home = tmp_path_factory.mktemp("speech")
    shipped = ROOT / "assets" / "wan-tiny"  # any complete model: the scripted engine reads none of it
    catalog = SCRIPTED.format(root=shipped).replace('"64x64", "96x64", "64x96"', '"240x240"')
    (home / "catalog.toml").write_text(catalog)
    settings = Settings(
        outputs=home / "outputs",
        models=home / "models",
        cache=home / "cache",
        catalog=home / "catalog.toml",
        model="scripted",
        stage_timeout=300,  # torch is loaded beside other tests
        max_audio_seconds=20,
    )
    write_musetalk(settings.models / OFFICIAL, seconds=2)
    pipeline = Pipeline().open(settings, engine_factory=FACTORY)
    yield pipeline
    pipeline.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """portrait.png, blank.png, voice.wav (1.2 s), long.wav (19 s)"""
    folder = tmp_path_factory.mktemp("files")
    image = Image.open(ROOT / "assets/examples/astronaut.jpg").convert("RGB").crop((100, 0, 340, 240))
    image.save(folder / "portrait.png")
    Image.new("RGB", (240, 240), (90, 90, 90)).save(folder / "blank.png")
    write_wav(folder / "voice.wav", tone(1.2))
    write_wav(folder / "long.wav", tone(19))
    return folder


def dub(inputs, **fields) -> Draft:
    return Draft(inputs, task="lip-sync", **{"speaking": EVERY, **fields})


def submit(pipeline, files, picture="portrait.png", audio="voice.wav", **fields):
    return pipeline.submit(
        Draft({"image": str(files / picture), "prompt": "calm", "audio": str(files / audio)}, speaking=EVERY, **fields)
    )


def until(condition, seconds=90.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def spoken(pipeline, files):
    """A finished job with speech; its voice was deleted as soon as it was queued."""
    voice = write_wav(files / "gone.wav", tone(1.2))
    job_id = submit(pipeline, files, audio="gone.wav", seed=3)
    voice.unlink()
    job = pipeline.wait(job_id)
    assert job.state == "done" and job.error == "", job.error
    return job


def test_a_clip_speaks_as_long_as_its_voice(pipeline, spoken):
    assert spoken.request.audio_seconds == 1.2 and spoken.request.stages()[-1] == "lipsync"
    assert set(spoken.result.seconds) == {"text", "image", "denoise", "decode", "encode", "lipsync"}
    frames, fps = muxer.read_frames(pipeline.clip(spoken))
    assert len(frames) == spoken.result.frames == 20 and fps == 16  # 1.2 s is 19.2 frames
    silent, _ = muxer.read_frames(pipeline.silent_clip(spoken))
    assert len(silent) == 5
    settings = muxer.read_metadata(pipeline.clip(spoken))
    assert settings["seed"] == 3 and settings["facts"]["lipsync"].startswith("MuseTalk 1.5")
    assert settings["facts"]["lipsync_voice"].startswith("1.2 s of sound in 1.2 s; the lips follow every")
    assert str(pipeline.clips) not in str(settings), "no paths of this machine in the file"
    face = (slice(None), slice(110, 180), slice(90, 160))
    moved = np.abs(frames[1:4].astype(int) - silent[1:4])[face].mean((1, 2, 3))
    assert moved.min() > 3, "the mouth of an untrained network is noise, but it is there"
    assert np.abs(frames[1:4].astype(int) - silent[1:4])[:, :60].mean() < 3, "the forehead is the clip's"


def test_music_leaves_the_mouth_as_it_is_and_a_voice_moves_it(pipeline, files, spoken, tmp_path):
    """1 s of a melody, 1 s of a voice, 1 s of drums."""
    mixed = write_wav(tmp_path / "mixed.wav", np.concatenate([melody(1.0), voice(1.0), drums(1.0)]))
    made = {}
    for every in (False, True):
        draft = dub({"audio": str(mixed)}, job=spoken.id, speaking={"every_sound": every})
        job = pipeline.wait(pipeline.submit(draft))
        assert job.state == "done" and job.error == "", job.error
        made[every] = job, muxer.read_frames(pipeline.clip(job))[0].astype(int)
    words = made[False][0].result.facts["lipsync_voice"]
    assert re.fullmatch(r"(0\.[89]|1\.[0-2]) s of voice in 3\.0 s; 1\.\d s of other sound leave the mouth alone", words)
    base = np.stack(list(back_and_forth(muxer.read_frames(pipeline.silent_clip(spoken))[0], 48))).astype(int)
    moved = {key: np.abs(frames - base)[:, 110:180, 90:160].mean((1, 2, 3)) for key, (_, frames) in made.items()}
    assert moved[False][:12].max() < 2 and moved[False][39:].max() < 2, "music and drums"
    assert moved[False][18:30].max() > 3 and moved[True][2:13].min() > 3, "the voice, and what is asked for"


def test_a_face_that_is_not_there_is_said_before_the_run(pipeline, files, spoken):
    draft = {"image": str(files / "portrait.png"), "prompt": "calm", "audio": str(files / "voice.wav")}
    for made in (
        Draft(draft, speaking={"face": 2}),
        dub({"audio": draft["audio"]}, job=spoken.id, speaking={"face": 2}),
    ):
        with pytest.raises(UserError, match="there is no face 2, one face is seen there") as caught:
            pipeline.submit(made)
        assert caught.value.field == "face"
    job = pipeline.wait(pipeline.submit(dub({"audio": draft["audio"]}, job=spoken.id, speaking={**EVERY, "face": 1})))
    assert job.state == "done" and job.error == "" and job.request.speaking.face == 1
    with pytest.raises(UserError, match=r"^face: 'left': expected a face's number from the left"):
        pipeline.submit(dub({"audio": draft["audio"]}, job=spoken.id, speaking={"face": "left"}))
    del draft["audio"]
    with pytest.raises(UserError, match="face: there is no sound that it could be of"):
        pipeline.submit(Draft(draft, speaking={"face": 1}))


def test_the_dtype_is_the_engines_choice_with_its_reason(pipeline, spoken, monkeypatch):
    """On a CPU without bf16 of its own bf16 is several times slower than float32."""
    facts = spoken.result.facts
    assert facts["lipsync_device"] == "cpu" and facts["lipsync_dtype"] == choose_dtype(torch.device("cpu")).text
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    desk = Work(pipeline.settings, None, None, None)
    assert desk._load_mouth().musetalk.dtype == torch.float32
    assert desk.mouth_facts["lipsync_dtype"] == "float32 (auto: this CPU has no native bf16)"


def test_speech_is_added_to_an_entry_of_the_history(pipeline, files, spoken):
    job = pipeline.wait(pipeline.submit(dub({"audio": str(files / "voice.wav")}, job=spoken.id)))
    assert job.state == "done" and job.error == "", job.error
    assert job.request.task == "lip-sync" and job.request.sampling.prompt == "calm" and job.request.sampling.seed == 3
    assert set(job.result.seconds) == {"lipsync"}
    again, first = (muxer.read_frames(pipeline.clip(one))[0].astype(int) for one in (job, spoken))
    assert again.shape == first.shape
    assert np.abs(again - first).mean() < 3, "it begins from the silent clip, not from the one that speaks already"
    assert pipeline.poster(job) is not None


def test_speech_is_added_to_a_file_and_the_model_is_left_alone(pipeline, files, spoken, tmp_path):
    video = tmp_path / "mine.mp4"
    muxer.write_mp4(muxer.read_frames(pipeline.silent_clip(spoken))[0], video, 25)
    before = pipeline.model
    job_id = pipeline.submit(dub({"audio": str(files / "voice.wav"), "video": str(video)}))
    video.unlink()
    job = pipeline.wait(job_id)
    assert job.state == "done", job.error
    assert job.result.frames == 30 and job.result.fps == 25
    assert pipeline.model == before


def test_a_voice_shorter_than_the_clip_leaves_the_clip_its_length(pipeline, files, spoken, tmp_path):
    short = write_wav(tmp_path / "word.wav", tone(0.3))
    video = tmp_path / "long.mp4"
    base = np.stack(list(back_and_forth(muxer.read_frames(pipeline.silent_clip(spoken))[0], 40)))
    muxer.write_mp4(base, video, 25)
    job = pipeline.wait(pipeline.submit(dub({"audio": str(short), "video": str(video)})))
    assert job.state == "done" and job.error == "", job.error
    frames, fps = muxer.read_frames(pipeline.clip(job))
    assert len(frames) == job.result.frames == 40 and fps == 25
    face = (slice(110, 180), slice(90, 160))
    moved = [np.abs(one[face].astype(int) - was[face]).mean() for one, was in zip(frames, base, strict=True)]
    assert min(moved[2:6]) > 3 and max(moved[16:]) < 2, "it speaks 8 frames, then it is the clip as it was"
    assert 0 < job.result.before_lipsync <= job.result.seconds["lipsync"]


@pytest.mark.hardening(1)
def test_someone_elses_clip_cannot_be_named(pipeline, files, spoken):
    with pytest.raises(UserError, match="not there any more"):
        pipeline.submit(dub({"audio": str(files / "voice.wav")}, job=spoken.id), owner="mallory")


def test_without_a_face_the_silent_clip_is_kept_and_the_job_says_why(pipeline, files):
    job = pipeline.wait(submit(pipeline, files, picture="blank.png"))
    assert job.state == "done"
    assert re.match(r"The clip is made, but it could not be given speech\. speech: the clip has no face", job.error)
    assert pipeline.clip(job).name == "silent.mp4" and len(muxer.read_frames(pipeline.clip(job))[0]) == 5


@pytest.mark.hardening(22)
def test_cancel_stops_within_a_batch_and_time_left_is_known(pipeline, files):
    job_id = submit(pipeline, files, audio="long.wav")
    until(lambda: pipeline.job(job_id).progress.stage == "lipsync" and pipeline.job(job_id).progress.step > 10)
    running = pipeline.job(job_id)
    assert running.progress.total == 304
    left = estimate.eta(running, estimate.reference(pipeline.history(), running.request))
    assert left is not None and left > 0
    pipeline.cancel(job_id)
    job = pipeline.wait(job_id)
    assert job.state == "cancelled" and job.progress.step < 250
    assert sorted(path.name for path in (pipeline.clips / job.id).iterdir()) == [
        "input.png",
        "poster.jpg",
        "silent.mp4",
        "voice.wav",
    ]


@pytest.mark.hardening(19)
def test_a_worker_that_dies_during_speech_leaves_the_silent_clip(pipeline, files):
    job_id = submit(pipeline, files, audio="long.wav")
    until(lambda: pipeline.job(job_id).progress.step > 3 and pipeline.job(job_id).progress.stage == "lipsync")
    os.kill(pipeline.pool["cpu0"].worker.process.pid, signal.SIGKILL)
    job = pipeline.wait(job_id)
    assert job.state == "done" and "SIGKILL" in job.error and "lipsync step" in job.error
    assert pipeline.clip(job).name == "silent.mp4"
    assert not list((pipeline.clips / job.id).glob("clip.mp4"))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("garbage.mp3", b"\x00\x01not a sound" * 40, "is not audio that can be read"),
        ("empty.wav", b"", "is an empty file"),
        ("gone.ogg", None, "does not exist"),
        ("list.m3u8", b"#EXTM3U\n#EXTINF:9,\nfile:///etc/hosts\n", "is not audio"),
    ],
)
def test_what_is_no_sound_is_refused_before_anything_is_made(pipeline, files, tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    before = sorted(pipeline.clips.iterdir())
    with pytest.raises(UserError, match=f"audio: {name} {words}") as caught:
        pipeline.submit(Draft({"image": str(files / "portrait.png"), "prompt": "calm", "audio": str(tmp_path / name)}))
    assert caught.value.field == "audio"
    assert sorted(pipeline.clips.iterdir()) == before, "nothing is left behind"


@pytest.mark.hardening(16)
def test_audio_beyond_the_limit_is_refused(pipeline, files, tmp_path):
    write_wav(tmp_path / "hour.wav", np.zeros(16_000 * 21, np.float32))
    with pytest.raises(UserError, match=r"longer than 20 s"):
        pipeline.submit(
            Draft({"image": str(files / "portrait.png"), "prompt": "calm", "audio": str(tmp_path / "hour.wav")})
        )


def test_a_video_that_is_none_is_refused(pipeline, files):
    voice, picture = str(files / "voice.wav"), str(files / "portrait.png")
    for draft, words in (
        (
            dub({"audio": voice, "video": voice}),
            r"voice\.wav cannot be read as a video",
        ),
        (dub({"audio": voice}), "choose a clip"),
        (dub({"video": picture}), "choose a sound file"),
        (dub({"audio": voice, "video": "/nowhere.mp4"}), "does not exist"),
    ):
        with pytest.raises(UserError, match=words):
            pipeline.submit(draft)


def test_a_job_with_audio_knows_its_stages_and_survives_the_table(pipeline, spoken):
    request = pipeline.jobs.get(spoken.id).request
    assert request == spoken.request and changed(request, audio="").stages()[-1] == "encode"
    assert (pipeline.clips / spoken.id / "voice.wav").is_file() and request.public().keys().isdisjoint(
        {"image", "audio", "video"}
    )
