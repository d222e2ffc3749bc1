"""One bad string takes the page from nobody: rows that are stored already, names in the LoRA folder, the API."""

import json
import os
import shutil
import sqlite3

import httpx
import pytest

from wan_ui.loras.folder import SHIPPED


@pytest.mark.hardening(42, 35)
def test_the_page_is_drawn_with_what_is_stored_and_lies_about(scripted, picture, tmp_path):
    loras = tmp_path / "loras"
    loras.mkdir()
    for name in (b"gem\xfctlich.safetensors", b"\xb7\xe7\xb8\xf1.safetensors"):
        shutil.copyfile(next(SHIPPED.glob("*teal*.safetensors")), os.fsencode(loras) + b"/" + name)
    app = scripted(WAN_UI_LORAS=str(loras))
    with httpx.Client(base_url=app.url, timeout=60) as web:

        def call(name: str, text: str) -> str:
            answer = web.post(f"/gradio_api/call/{name}", content=text, headers={"Content-Type": "application/json"})
            return web.get(f"/gradio_api/call/{name}/{answer.json()['event_id']}").text

        path = web.post("/gradio_api/upload", files={"files": ("hills.png", picture.read_bytes())}).json()[0]
        image = json.dumps({"path": path, "meta": {"_type": "gradio.FileData"}})
        answer = call(
            "generate", f'{{"data": [{image}, "half \\ud83d a pair", "", "", "auto", null, null, 1, "", null]}}'
        )
        assert json.loads(answer.split("data: ")[-1])[1]["prompt"] == "half \ufffd a pair"
        with sqlite3.connect(app.folder / "outputs" / "wan_ui.sqlite") as database:
            (request,) = database.execute("SELECT request FROM jobs").fetchone()
            bad = {**json.loads(request), "prompt": "stored \ud800 before", "seed": 2**70, "size": "x"}
            database.execute("UPDATE jobs SET request = ?", (json.dumps(bad),))
        page = web.get("/")
        assert page.status_code == 200 and "gem\\\\xfctlich" in page.text and "\\\\xb7\\\\xe7" in page.text
        answer = call("arrive", '{"data": [{}, null, ""]}')
        assert "event: complete" in answer and "before" in answer
        answer = call("choices", '{"data": [{}, null]}')
        assert "event: complete" in answer and "before" in answer
    assert "Traceback" not in app.log()
