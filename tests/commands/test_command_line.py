"""The command line takes the same way as the page and says what went wrong in one line."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from wan_ui.__main__ import main
from wan_ui.media import muxer
from wan_ui.queue.draft import Draft
from wan_ui.queue.pipeline import Pipeline
from wan_ui.settings import ROOT


def wan_ui(*arguments, **environ) -> subprocess.CompletedProcess:
    environ = {**os.environ, **{name: str(value) for name, value in environ.items()}}
    command = [sys.executable, "-m", "wan_ui", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"--prompt": ""}, "prompt: say what should happen"),
        ({"--frames": "18"}, "frames: wan-tiny makes 17, 25 or 33 frames, not 18"),
        ({"--size": "4096x4096"}, "size: wan-tiny makes"),
        ({"--image": "README.md"}, "image: README.md is not a picture"),
        ({"--model": "wan-9"}, "model: 'wan-9' is not known"),
        ({"--out": "clip.avi"}, "--out: clip.avi must end in .mp4"),
        ({"--out": "/nowhere/clip.mp4"}, "the folder /nowhere does not exist"),
    ],
)
def test_bad_input_is_one_clear_line(tiny_settings, picture, tmp_path, change, words):
    options = {"--image": picture, "--prompt": "zoom in", "--out": tmp_path / "clip.mp4"} | change
    done = wan_ui("generate", *[word for pair in options.items() for word in pair], WAN_UI_OUTPUTS=tmp_path / "outputs")
    assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_bad_setting_is_named(tmp_path):
    done = wan_ui("generate", "--image", "x", "--prompt", "x", "--out", "x.mp4", WAN_UI_THREADS="two")
    assert done.returncode == 1 and "WAN_UI_THREADS='two'" in done.stderr


def test_generate_writes_the_clip_that_two_workers_make_with_the_same_seed(small_settings, picture, tmp_path):
    options = ["--image", picture, "--prompt", "slowly zoom in", "--out", tmp_path / "one.mp4", "--frames", "5"]
    done = wan_ui(
        "generate",
        *options,
        "--seed",
        "11",
        "--steps",
        "2",
        "--json",
        WAN_UI_OUTPUTS=tmp_path / "alone",
        WAN_UI_CACHE=small_settings.cache,
        WAN_UI_CATALOG=small_settings.catalog,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    pipeline = Pipeline().open(replace(small_settings, workers=2))
    try:
        while any(runner.model.state != "ready" for runner in pipeline.pool.runners.values()):
            time.sleep(0.1)
        draft = Draft({"image": str(picture), "prompt": "slowly zoom in"}, seed=11, frames=5, steps=2)
        jobs = []
        while {job.worker for job in jobs} != {"cpu0", "cpu1"}:  # on a slow machine the first may be given both
            jobs += [pipeline.wait(job_id) for job_id in [pipeline.submit(draft), pipeline.submit(draft)]]
        assert {job.result.latents_sha256 for job in jobs} == {result["latents_sha256"]} != {""}
        assert len({pipeline.clip(job).read_bytes() for job in jobs}) == 1
    finally:
        pipeline.close()
    settings = muxer.read_metadata(tmp_path / "one.mp4")
    assert settings["seed"] == 11 and settings["prompt"] == "slowly zoom in" and settings["frames"] == 5
    frames, _ = muxer.read_frames(tmp_path / "one.mp4")
    assert frames.shape == (5, 64, 96, 3)


@pytest.mark.parametrize(
    "command, option, value, words",
    [
        ("serve", "--port", "99999", "a whole number from 1 to 65535"),
        ("serve", "--host", "http://x", "an address or host name"),
        ("download wan-tiny", "--engine", "nonsense", "one of auto, diffusers, lightx2v"),
        ("generate", "--engine", "nonsense", "one of auto, diffusers, lightx2v"),
        ("generate", "--size", "²x²", "WIDTHxHEIGHT"),
        ("generate", "--steps", "0", "a whole number of at least 1"),
        ("generate", "--frames", "0", "a whole number of at least 1"),
        ("generate", "--frames", "1_7", "a whole number of at least 1"),
        ("generate", "--seed", "true", "a whole number from 0 to 4294967295, or -1"),
        ("generate", "--seed", "-2", "a whole number from 0 to 4294967295, or -1"),
        ("generate", "--lora", "x.safetensors:nan", "a number from -4 to 4"),
        ("compare", "--seed", "²", "a whole number from 0 to 4294967295, or -1"),
        ("compare", "--steps", "0", "a whole number of at least 1"),
        ("bench", "--clips", "0", "a whole number of at least 1"),
        ("bench", "--max-gib", "nan", "a number from 0"),
        ("bench", "--max-seconds", "-1", "a number from 0"),
        ("probe", "--limit", "0", "a number from 1"),
        ("probe", "--limit", "inf", "a number from 1"),
        ("stages", "--frames", "0", "a whole number of at least 1"),
        ("stages", "--size", "x", "WIDTHxHEIGHT"),
    ],
)
def test_a_wrong_option_is_one_line_with_its_name_and_what_is_allowed(command, option, value, words, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), f"{option}={value}"])
    lines = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and len(lines) == 1
    assert lines[0].startswith(f"error: argument {option}: ") and value in lines[0] and words in lines[0]


def test_an_option_that_is_missing_is_one_line(capsys):
    with pytest.raises(SystemExit):
        main(["generate"])
    assert capsys.readouterr().err.startswith("error: the following arguments are required: --out")


@pytest.mark.parametrize("shape", ["wan-tiny:²x²", "wan-tiny:0x64", "wan-tiny:64x64x0", "wan-tiny:64", "wan-tiny"])
def test_a_wrong_shape_is_refused(shape, capsys):
    assert main(["probe", "--shape", shape]) == 1
    assert f"--shape: {shape!r} is not" in capsys.readouterr().err
