"""The public endpoints, called as programs call them; and that there are no others."""

import asyncio
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from tests.job_requests import job_request
from tests.ui.conftest import PATIENCE
from wan_ui.catalog import load_catalog
from wan_ui.media import muxer
from wan_ui.queue.jobs import Job
from wan_ui.settings import Settings
from wan_ui.ui import api

REQUEST = job_request(prompt="x")


@pytest.fixture(scope="module")
def client(app):
    return Client(app.url, verbose=False, httpx_kwargs={"timeout": PATIENCE})


def test_generate_makes_a_clip_and_tells_its_settings(client, picture):
    video, settings = client.predict(
        image=handle_file(picture), prompt="zoom in", size="192x320", frames=17, steps=2, seed=42, api_name="/generate"
    )
    frames, fps = muxer.read_frames(Path(video))
    assert frames.shape == (17, 320, 192, 3) and fps == 16
    wanted = {"prompt": "zoom in", "model": "wan-tiny", "scheme": "bf16", "seed": 42, "steps": 2, "frames": 17}
    assert wanted.items() <= settings.items()
    assert settings["seconds"].keys() >= {"denoise", "encode"} and "image" not in settings


def test_several_clips_of_one_call(client, picture):
    video, settings = client.predict(
        image=handle_file(picture), prompt="zoom in", frames=17, steps=1, seed=5, clips=2, api_name="/generate"
    )
    first, second = settings["clips"]
    assert (first["seed"], second["seed"]) == (5, 6) and first["batch"] == second["batch"] != ""
    assert first["latents_sha256"] != second["latents_sha256"] and settings["job"] == first["job"]
    assert muxer.read_metadata(Path(video))["seed"] == 5
    with pytest.raises(AppError, match="clips: 1 to 8"):
        client.predict(image=handle_file(picture), prompt="zoom in", clips=9, api_name="/generate")


def test_what_is_left_out_is_chosen(client, picture):
    _, settings = client.predict(image=handle_file(picture), prompt="pan left", api_name="/generate")
    model = load_catalog(Settings().catalog)["wan-tiny"]
    assert (settings["width"], settings["height"]) == (320, 192)
    assert (settings["frames"], settings["steps"]) == (model.default_frames, model.default_steps)
    assert 0 <= settings["seed"] < 2**32


def test_the_example_that_the_page_shows_can_be_called(client):
    """The API drawer makes its snippets of these values."""
    known = client.view_api(return_format="dict")["named_endpoints"]["/generate"]
    shown = {value["parameter_name"]: value["example_input"] for value in known["parameters"]}
    assert shown["image"]["path"].startswith(client.src) and "github" not in str(shown["audio"])
    assert httpx.get(shown["image"]["path"], timeout=PATIENCE).headers["content-type"] == "image/jpeg"
    _, settings = client.predict(image=shown["image"], prompt=shown["prompt"], api_name="/generate")
    assert settings["prompt"] == shown["prompt"]


def test_they_are_the_only_documented_endpoints(client):
    assert list(client.view_api(return_format="dict")["named_endpoints"]) == ["/generate", "/pose"]
    assert client.view_api(return_format="dict")["unnamed_endpoints"] == {}


def test_the_pose_of_a_performance_is_refused_as_on_the_page(client, picture, tmp_path):
    muxer.write_mp4(np.zeros((8, 64, 64, 3), np.uint8), tmp_path / "dark.mp4", 16)
    for sent, words in (
        (None, "performance: choose a video of a person first"),
        (handle_file(picture), "performance: hills.png"),
        (handle_file(tmp_path / "dark.mp4"), "performance: its pose cannot be read: DWPose"),
    ):
        with pytest.raises(AppError, match=words):
            client.predict(performance=sent, api_name="/pose")


def test_the_pose_of_a_performance_is_a_picture_and_words(monkeypatch):
    shown = Image.new("RGB", (32, 80))
    monkeypatch.setattr(api, "uploaded", lambda value, field: value["path"])
    monkeypatch.setattr(api.preview, "sheet", lambda path, settings: (shown, f"{path.name}, 2.0 s"))
    monkeypatch.setattr(api.PIPELINE, "settings", Settings(), raising=False)
    assert api.pose({"path": "/uploads/dance.mp4"}) == (shown, "dance.mp4, 2.0 s")


@pytest.mark.parametrize(
    "values, words",
    [
        ({"model": "../../etc"}, "model: '../../etc' is not known; choose one of wan-tiny"),
        ({"model": "i2v-a14b"}, "i2v-a14b with fp8 cannot run here"),
        ({"scheme": "int3"}, "scheme: 'int3' is not available"),
        ({"size": "4096x4096"}, "size: wan-tiny makes 256x256"),
        ({"size": "big"}, "size: 'big' is not WIDTHxHEIGHT"),
        ({"frames": 1000}, "frames: wan-tiny makes 17, 25 or 33 frames, not 1000"),
        ({"steps": 2.5}, "steps: 2.5 is not a whole number"),
        ({"steps": "many"}, "steps: 'many' is not a whole number"),
        ({"steps": 0}, "steps: wan-tiny takes"),
        ({"seed": True}, "seed: True is not a whole number"),
        ({"seed": 2**40}, "seed: 1099511627776 is not between"),
        ({"prompt": ""}, "prompt: say what should happen"),
        ({"prompt": "x" * 1_000_000}, "1,000,000 characters; the limit is 2,000"),
        ({"image": None}, "image: choose a picture first"),
        ({"loras": "../../secret.safetensors"}, "'../../secret.safetensors' is not in the LoRA folder"),
        ({"loras": "x.safetensors:much"}, "the strength is a number from -4 to 4, not 'much'"),
        ({"loras": "x.safetensors:1:upper"}, "the target is one of high_noise, low_noise, both"),
    ],
)
def test_forged_values_meet_a_clear_error(client, picture, values, words):
    with pytest.raises(AppError, match=re.escape(words)):
        client.predict(**{"image": handle_file(picture), "prompt": "x", **values}, api_name="/generate")


def test_a_failed_job_is_an_error(client, picture):
    with pytest.raises(AppError, match="the scripted engine refuses this"):
        client.predict(image=handle_file(picture), prompt="denoise=refuse", api_name="/generate")


def test_callers_that_wait_hold_no_thread(monkeypatch):
    """Three times as many as the page has threads."""

    class Waiting:
        settings, ended = Settings(), False

        def submit(self, draft, owner):
            return "a-job"

        def look(self, job_id, owner):
            return Job(job_id, owner, "done" if self.ended else "queued", REQUEST, 0.0)

        def clip(self, job):
            return Path("clip.mp4")

    async def everybody() -> list:
        callers = [asyncio.create_task(api.generate(None, "x")) for _ in range(120)]
        await asyncio.sleep(1)
        threads = threading.active_count()
        assert await asyncio.wait_for(asyncio.to_thread(lambda: "the page"), 30) == "the page"
        assert threads - before < 40 and not any(caller.done() for caller in callers)
        pipeline.ended = True
        return await asyncio.gather(*callers)

    pipeline, before = Waiting(), threading.active_count()
    monkeypatch.setattr(api, "PIPELINE", pipeline)
    with ThreadPoolExecutor(1) as thread:  # the browser's loop has the main one
        assert [video for video, _ in thread.submit(asyncio.run, everybody()).result()] == ["clip.mp4"] * 120
