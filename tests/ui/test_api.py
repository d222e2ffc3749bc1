"""The public endpoints, called as programs call them; and that there are no others."""

import asyncio
import json
import re
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from PIL import Image

from tests.job_requests import job_request
from tests.ui.conftest import PATIENCE
from wan_ui.catalog import load_catalog
from wan_ui.media import muxer
from wan_ui.queue.jobs import Job
from wan_ui.settings import Settings
from wan_ui.ui import api
from wan_ui.ui.api_values import AFTER, PARAMETERS

GRADIO = str(Path(sys.executable).with_name("gradio"))
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
    assert list(client.view_api(return_format="dict")["named_endpoints"]) == [
        "/generate", "/pose", "/submit", "/after", "/status", "/cancel", "/result", "/list",
    ]  # fmt: skip
    assert client.view_api(return_format="dict")["unnamed_endpoints"] == {}


def test_jobs_are_submitted_seen_and_cancelled_without_waiting(client, app, picture):
    """The same five by name and over plain HTTP; all of them see the same jobs."""
    held = client.predict(
        image=handle_file(picture), prompt="first, denoise:2=hold", seed=7, size="256x256", api_name="/submit"
    )
    with httpx.Client(base_url=app.url, timeout=PATIENCE) as web:
        sent = web.post("/api/upload", files={"files": ("hills.png", picture.read_bytes())})
        assert sent.status_code == 201 and sent.json()["path"].startswith("/uploads/")
        values = {"image": sent.json()["path"], "prompt": "second", "seed": 8, "frames": 17, "steps": 2}
        answer = web.post("/api/jobs", json=values)
        second = answer.json()
        assert second["jobs"] == [second["job"]]
        assert (answer.status_code, second["state"], second["seed"], second["prompt"]) == (201, "queued", 8, "second")
        while (shown := web.get(f"/api/jobs/{held['job']}").json())["step"] < 2:
            time.sleep(0.1)
        assert (shown["state"], shown["stage"], shown["steps"], shown["clip"]) == ("running", "denoise", 4, "")
        assert client.predict(job=second["job"], api_name="/status")["ahead"] == 1
        early = web.get(f"/api/jobs/{second['job']}/result")
        assert (early.status_code, early.json()["field"]) == (409, "job") and "is queued" in early.json()["error"]

        newest = client.predict(limit=2, api_name="/list")["jobs"]
        assert [job["job"] for job in newest] == [second["job"], held["job"]]
        assert web.get("/api/jobs?limit=2").json()["jobs"][0]["prompt"] == "second"
        assert web.post(f"/api/jobs/{held['job']}/cancel").status_code == 200
        while web.get(f"/api/jobs/{second['job']}").json()["state"] != "done":
            time.sleep(0.1)
        assert client.predict(job=held["job"], api_name="/status")["state"] == "cancelled"
        assert web.get(f"/api/jobs/{held['job']}/result").json()["error"] == "the job was cancelled"

        video, settings = client.predict(job=second["job"], api_name="/result")
        assert len(muxer.read_frames(Path(video))[0]) == 17 and settings["seed"] == 8
        made = web.get(f"/api/jobs/{second['job']}/result").json()
        assert made["settings"] == settings and made["clip"].startswith("/api/")
        clip = web.get(made["clip"])
        assert clip.headers["content-type"] == "video/mp4" and clip.content == Path(video).read_bytes()

        # The same of clips that are changed.
        looped = client.predict(job=second["job"], start=0.25, loop="ping-pong", file="gif", api_name="/after")
        sent = web.post("/api/upload", files={"files": ("mine.mp4", clip.content)}).json()["path"]
        values = {"clip": sent, "join": [second["job"], sent], "fade": 0}
        answer = web.post("/api/after", json=values)
        joined = answer.json()
        assert (answer.status_code, joined["jobs"]) == (201, [joined["job"]])
        for job in (looped, joined):
            while (state := web.get(f"/api/jobs/{job['job']}").json()["state"]) in ("queued", "running"):
                time.sleep(0.1)
            assert state == "done"
        video, settings = client.predict(job=looped["job"], api_name="/result")
        assert len(muxer.read_frames(Path(video))[0]) == 2 * 13 - 2 and settings["changes"]["loop"] == "ping-pong"
        file = web.get(f"/api/jobs/{looped['job']}/file")
        assert file.headers["content-type"] == "image/gif" and file.content.startswith(b"GIF89a")
        made = settings["made"]["path"] if isinstance(settings["made"], dict) else settings["made"]
        assert Path(made).read_bytes() == file.content
        assert web.get(f"/api/jobs/{joined['job']}/result").json()["settings"]["frames"] == 3 * 17
        assert web.get(f"/api/jobs/{joined['job']}/file").status_code == 409


@pytest.mark.parametrize(
    "method, path, values, status, words",
    [
        ("GET", "/api/jobs/20260101-000000-0000000000000000", None, 404, "there is no job"),
        ("POST", "/api/jobs/x/cancel", None, 404, "there is no job 'x' of yours"),
        ("GET", "/api/jobs?limit=501", None, 400, "limit: "),
        ("GET", "/api/jobs?limit=ten", None, 400, "limit: "),
        ("POST", "/api/jobs", {"promt": "x"}, 400, "'promt' is not a value of a job; known are image, prompt"),
        ("POST", "/api/jobs", ["x"], 400, "json: expected an object"),
        ("POST", "/api/jobs", {"prompt": "x", "image": "/etc/passwd"}, 400, "image: send an uploaded file"),
        (
            "POST",
            "/api/jobs",
            {"prompt": "x", "image": "/uploads/../wan_ui.sqlite"},
            400,
            "image: send an uploaded file",
        ),
        ("POST", "/api/jobs", {"prompt": 7}, 400, "prompt: 7 is not text"),
        ("POST", "/api/jobs", {"prompt": "x"}, 400, "image: choose a picture first"),
        ("POST", "/api/jobs", {"prompt": "x", "face": 2}, 400, "image: choose a picture first"),
        ("POST", "/api/after", {}, 400, "job: say which clip is to be changed"),
        (
            "POST",
            "/api/after",
            {"job": "x", "lop": "seamless"},
            400,
            "'lop' is not a value of a job; known are job, clip",
        ),
        ("POST", "/api/after", {"job": "x", "frames": "3x"}, 400, "frames: '3x': expected 2x or 4x"),
        ("POST", "/api/after", {"job": "x"}, 400, "that clip is not there any more"),
        ("POST", "/api/after", {"job": "x", "join": "y"}, 400, "join: expected a list of at most 7"),
        ("POST", "/api/after", {"clip": "/etc/passwd"}, 400, "clip: send an uploaded file"),
        ("POST", "/api/upload", {}, 400, "content type"),
        ("GET", "/api/nothing", None, 404, "Not Found"),
        ("DELETE", "/api/jobs", None, 405, "Method Not Allowed"),
    ],
)
def test_what_cannot_be_is_refused_over_plain_http_with_its_name(app, method, path, values, status, words):
    answer = httpx.request(method, app.url + path, json=values, timeout=PATIENCE)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    assert answer.json().keys() == {"error", "field"} and words in answer.json()["error"], answer.text


def test_the_description_of_plain_http_has_these_addresses_alone(app):
    described = httpx.get(f"{app.url}/api/openapi.json", timeout=PATIENCE).json()
    assert {f"{method} {path}" for path, methods in described["paths"].items() for method in methods} == {
        "post /api/upload", "post /api/jobs", "get /api/jobs", "get /api/jobs/{job}", "post /api/jobs/{job}/cancel",
        "get /api/jobs/{job}/result", "get /api/jobs/{job}/clip", "get /api/jobs/{job}/file", "post /api/after",
    }  # fmt: skip
    assert set(described["components"]["schemas"]) == {"Status", "Submitted", "Jobs", "Result", "Uploaded", "Refusal"}
    body = described["paths"]["/api/jobs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert list(body["properties"]) == list(PARAMETERS)
    assert all(value["description"] for value in body["properties"].values())
    after = described["paths"]["/api/after"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert list(after["properties"]) == list(AFTER) and after["properties"]["join"]["items"] == {"type": "string"}
    assert body["properties"]["seed"]["type"] == "integer" and body["properties"]["image"]["type"] == ["string", "null"]


def test_an_assistant_makes_a_clip_with_the_tools(app, picture):
    """The official client, its file sent by `gradio upload-mcp`."""

    async def assist() -> None:
        sending = StdioServerParameters(command=GRADIO, args=["upload-mcp", app.url, str(picture.parent)])
        async with stdio_client(sending) as (read, write), ClientSession(read, write) as files:
            await files.initialize()
            address = (await files.call_tool("upload_file_to_gradio", {"file": str(picture)})).content[0].text
        async with (
            streamable_http_client(f"{app.url}/gradio_api/mcp/") as (read, write, _),
            ClientSession(read, write) as assistant,
        ):
            await assistant.initialize()

            async def call(tool: str, **values) -> str:
                return (await assistant.call_tool(tool, values)).content[0].text

            tools = {tool.name: tool for tool in (await assistant.list_tools()).tools}
            assert list(tools) == ["submit", "after", "status", "cancel", "result", "list"]
            assert tools["submit"].inputSchema["properties"]["seed"]["description"].endswith("-1 draws one")
            job = json.loads(await call("submit", image=address, prompt="by an assistant", seed=5, frames=17))["job"]
            while json.loads(await call("status", job=job))["state"] != "done":
                await asyncio.sleep(0.2)
            clip, settings = (await assistant.call_tool("result", {"job": job})).content
            assert json.loads(settings.text)["seed"] == 5
            assert httpx.get(clip.text, timeout=PATIENCE).headers["content-type"] == "video/mp4"
            assert json.loads(await call("list", limit=1))["jobs"][0]["prompt"] == "by an assistant"
            assert json.loads(await call("cancel", job=job))["state"] == "done"
            assert "there is no job 'other' of yours" in await call("status", job="other")
            assert "Only uploaded files" in await call("submit", image="http://127.0.0.1:9/a.png", prompt="x")
            assert "Unknown tool" in await call("generate", prompt="x")

    with ThreadPoolExecutor(1) as thread:  # the browser's loop has the main one
        thread.submit(asyncio.run, assist()).result()


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


@pytest.mark.hardening(3)
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

        def submit_all(self, drafts, owner, clips, asker):
            return ["a-job"]

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
