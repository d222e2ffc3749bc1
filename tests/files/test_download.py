"""The download command against a small hub on loopback: plan, resume, checksums, broken connections, no network."""

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.hub import PIECE, Hub
from wan_ui.__main__ import main
from wan_ui.catalog import KnownFile, Repository, load_catalog
from wan_ui.errors import Cancelled, UserError
from wan_ui.files import copies, download, found, places
from wan_ui.queue.background_download import BackgroundDownload, DownloadStatus
from wan_ui.settings import ROOT, load_settings, settings, use

SHIPPED = load_catalog(load_settings({}).catalog)["ti2v-5b"]
SCHEME = SHIPPED.scheme("")
PINNED = "d" * 40
DIT = SCHEME.high.partition(":")[2]
# The shipped entry with a pin and sizes that the small hub below can keep.
MODEL = replace(
    SHIPPED,
    repositories={
        SCHEME.high.partition(":")[0]: Repository(PINNED, {DIT: KnownFile(size=9_000)}),
        SHIPPED.t5.partition(":")[0]: Repository("", {SHIPPED.t5.partition(":")[2]: KnownFile(about=7_000)}),
    },
)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    server = Hub().start()
    monkeypatch.setattr(download, "PAUSE", 0.01)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repo, file, revision: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "no-cache"))
    server.settings = replace(load_settings({}), models=tmp_path / "models", hub=server.url)
    for number, ref in enumerate(places.needed_files(MODEL, SCHEME, "lightx2v")):
        repo, _, file = ref.partition(":")
        revision = PINNED if file == DIT else "main"
        size = 9_000 if file == DIT else 5_000 + 1_000 * number
        server.files[f"/{repo}/resolve/{revision}/{file}"] = bytes([number]) * size
    yield server
    server.stop()


def plan(hub, **options):
    return download.plan(MODEL, SCHEME, hub.settings, "lightx2v", **options)


def test_plan_has_sizes_and_leaves_out_what_the_scheme_replaces(hub):
    items = plan(hub)
    assert {item.file for item in items} >= {
        "config.json",
        "Wan2.2_VAE.pth",
        "models_t5_umt5-xxl-enc-fp8.pth",
        "Wan2_2-TI2V-5B-Turbo-Q8_0.gguf",
    }
    assert not any("diffusion_pytorch_model" in item.file or "enc-bf16" in item.file for item in items)
    assert all(item.size >= 5_000 and item.revision == "c" * 40 and not item.present for item in items)
    assert all(method == "HEAD" for method, *_ in hub.requests)


@pytest.mark.hardening(11, 27)
def test_the_pinned_revision_is_fetched_and_compared_with_the_catalog(hub):
    item = next(item for item in plan(hub) if item.file == DIT)
    assert f"/resolve/{PINNED}/" in item.url and item.size == 9_000
    assert next(item for item in plan(hub) if item.file == "config.json").url.endswith("/resolve/main/config.json")

    hub.files[item.url.removeprefix(hub.url)] = bytes(9_001)
    with pytest.raises(UserError, match=r"offers 9,001 bytes .* the catalog means 9,000 bytes"):
        plan(hub)
    hub.files[item.url.removeprefix(hub.url)] = bytes(9_000)
    known = Repository(PINNED, {DIT: KnownFile(size=9_000, sha256="a" * 64)})
    other = replace(MODEL, repositories={SCHEME.high.partition(":")[0]: known})
    with pytest.raises(UserError, match=r"with aaaaaaaaaaaa\. The repository has been changed"):
        download.plan(other, SCHEME, hub.settings, "lightx2v")


def test_a_file_of_the_wrong_size_is_fetched_again_without_being_asked(hub):
    """For example one that was copied by hand, and not to its end."""
    download.fetch(plan(hub))
    (path,) = hub.settings.models.rglob(DIT)
    path.write_bytes(bytes(100))
    (item,) = [item for item in plan(hub) if not item.present]
    assert item.file == DIT
    download.fetch([item])
    assert path.stat().st_size == 9_000


def test_fetch_then_everything_is_there(hub):
    seen = []
    download.fetch(plan(hub), lambda item, done: seen.append((item.file, done)))
    paths = places.locate(MODEL, SCHEME, hub.settings, "lightx2v")
    assert paths.vae.name == "Wan2.2_VAE.pth" and paths.t5.name.endswith("fp8.pth")
    assert ("config.json", 5_000) in seen
    assert not list(hub.settings.models.rglob("*.part"))
    hub.requests.clear()
    assert all(item.present for item in plan(hub)) and hub.requests == []


@pytest.mark.hardening(27)
def test_a_broken_connection_is_resumed(hub):
    hub.cut = 1
    items = plan(hub)[:1]
    hub.requests.clear()
    download.fetch(items)
    assert [start for _, _, start in hub.requests] == [0, 2_500]
    assert items[0].target.read_bytes() == bytes([0]) * 5_000


@pytest.mark.hardening(27)
def test_a_killed_download_goes_on_in_the_next_run(hub):
    (item,) = plan(hub)[:1]
    item.target.parent.mkdir(parents=True)
    item.part.write_bytes(bytes(3_000))
    again = plan(hub)[0]
    assert (again.have, again.left) == (3_000, 2_000)
    hub.requests.clear()
    download.fetch([again])
    assert hub.requests == [("GET", again.url.removeprefix(hub.url), 3_000)]


@pytest.mark.hardening(27)
def test_wrong_content_of_the_right_size_is_fetched_again(hub):
    hub.spoil = 1
    items = plan(hub)[1:2]
    download.fetch(items)
    assert items[0].target.read_bytes() == bytes([1]) * 6_000
    items[0].target.write_bytes(bytes([9]) * 6_000)
    assert plan(hub)[1].present, "a plain run trusts files in place"
    damaged = plan(hub, check=True)[1]
    assert not damaged.present
    download.fetch([damaged])
    assert damaged.target.read_bytes() == bytes([1]) * 6_000


@pytest.mark.hardening(27)
def test_content_that_stays_wrong_is_never_used(hub):
    hub.spoil = 99
    items = plan(hub)[:1]
    items = [replace(items[0], etag="0" * 64)]
    with pytest.raises(UserError, match=r"not complete after 5 attempts.*checksum"):
        download.fetch(items)
    assert not items[0].target.exists() and not items[0].part.exists()


@pytest.mark.hardening(28)
def test_no_network_says_which_file_from_where_and_where_to_put_it(hub):
    nowhere = replace(hub.settings, hub="http://127.0.0.1:9")
    with pytest.raises(UserError) as caught:
        download.plan(MODEL, SCHEME, nowhere, "lightx2v")
    text = str(caught.value)
    assert "http://127.0.0.1:9 cannot be reached" in text
    target = nowhere.models / "Wan-AI/Wan2.2-TI2V-5B/Wan2.2_VAE.pth"
    assert f"http://127.0.0.1:9/Wan-AI/Wan2.2-TI2V-5B/resolve/main/Wan2.2_VAE.pth -> {target}" in text
    assert f"/resolve/{PINNED}/{DIT} (0.00 GB) -> " in text
    assert len(text.splitlines()) == 2 + len(hub.files)


def test_a_socks_proxy_is_refused_in_words_and_not_used_for_what_is_exempt(hub, monkeypatch):
    monkeypatch.setattr(download, "proxies", lambda: {"http": "socks5://127.0.0.1:9"})
    with pytest.raises(UserError, match=r"SOCKS proxy socks5://127.0.0.1:9; set HTTP_PROXY to an HTTP proxy"):
        plan(hub)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert plan(hub)


def test_a_gated_repository_says_what_to_do_and_a_token_opens_it(hub, monkeypatch):
    """The large files are on another host, which is not told the token."""
    monkeypatch.setattr("wan_ui.files.hub._idle", [])  # a token is read when the process begins
    hub.gated, hub.store = {"Wan-AI/Wan2.2-TI2V-5B": ["hf_good"]}, True
    page = f"{hub.url}/Wan-AI/Wan2.2-TI2V-5B"
    with pytest.raises(UserError, match=r"HTTP 401; Wan-AI/Wan2\.2-TI2V-5B is gated") as refused:
        plan(hub)
    assert f"Accept its licence at {page} with your account, then set HF_TOKEN" in str(refused.value)
    monkeypatch.setattr("wan_ui.files.hub._idle", [])
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(UserError, match=r"HTTP 403; .* is gated"):
        plan(hub)
    monkeypatch.setattr("wan_ui.files.hub._idle", [])
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    items = [item for item in plan(hub) if item.file in ("config.json", "Wan2.2_VAE.pth")]
    hub.tokens.clear()
    hub.requests.clear()
    download.fetch(items)
    told = dict(zip([path for _, path, _ in hub.requests], hub.tokens, strict=True))
    assert {path.startswith("/store"): token for path, token in told.items()} == {False: "hf_good", True: ""}
    assert all(item.target.stat().st_size == item.size for item in items)


def test_offline_mode_asks_nothing(hub, monkeypatch):
    monkeypatch.setattr("wan_ui.files.hub._idle", [])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"HF_HUB_OFFLINE is set.*unset it to download"):
        plan(hub)
    assert hub.requests == []


def test_the_library_itself_downloads_from_this_hub(hub, tmp_path):
    """What stands in for the hub here is one for huggingface_hub as well."""
    hub.store = True
    code = (
        "from huggingface_hub import hf_hub_download as get; import sys; "
        "print(*(get('Wan-AI/Wan2.2-TI2V-5B', file) for file in sys.argv[1:]), sep='\\n')"
    )
    environ = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", code, "config.json", "Wan2.2_VAE.pth"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    stored = {path.rpartition("/")[2]: content for path, content in hub.files.items() if "TI2V-5B/" in path}
    paths = [Path(line) for line in done.stdout.splitlines()]
    assert [path.read_bytes() for path in paths] == [stored["config.json"], stored["Wan2.2_VAE.pth"]]


@pytest.mark.parametrize("place", ["comfyui", "cache", "models"])
def test_a_file_that_this_machine_has_is_linked(hub, tmp_path, monkeypatch, place):
    monkeypatch.setattr(copies, "SMALL", 100)
    ref = next(ref for ref in hub.files if ref.endswith("Wan2.2_VAE.pth"))
    content = hub.files[ref]
    etag = hashlib.sha256(content).hexdigest()
    here = {
        "comfyui": tmp_path / "ComfyUI" / "models" / "vae" / "my-vae.pth",
        "cache": tmp_path / "cache" / "models--somebody--else" / "blobs" / etag,
        "models": hub.settings.models / "somebody" / "else" / "vae.pth",
    }[place]
    here.parent.mkdir(parents=True)
    here.write_bytes(content)
    (here.parent / "another-of-this-size").write_bytes(bytes(len(content)))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    hub.settings = replace(hub.settings, comfyui=str(tmp_path / "ComfyUI") if place == "comfyui" else "")
    monkeypatch.setattr(found, "stand_in", lambda *args: None)
    item = next(item for item in plan(hub) if item.file == "Wan2.2_VAE.pth")
    assert not item.present and here in item.elsewhere
    seen = []
    hub.requests.clear()
    download.fetch([item], on_found=lambda item, path: seen.append((item.file, path)))
    assert seen == [("Wan2.2_VAE.pth", here)] and hub.requests == []
    assert item.target.samefile(here)
    item.target.unlink()
    here.write_bytes(content[:-1] + b"!")  # as large, and another
    seen.clear()
    download.fetch([item], on_found=lambda item, path: seen.append(path))
    assert seen == [] and item.target.read_bytes() == content


@pytest.mark.hardening(25, 28)
def test_a_file_that_is_gone_and_a_full_disk(hub, monkeypatch):
    items = plan(hub)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100}))
    with pytest.raises(UserError, match=r"disk: .* are needed and .* WAN_UI_MODELS"):
        download.fetch(items)
    del hub.files[items[0].url.removeprefix(hub.url)]
    with pytest.raises(UserError, match=r"config\.json: .*404"):
        plan(hub)


@pytest.mark.parametrize("status, attempts", [(404, 1), (401, 1), (403, 1), (410, 1), (429, 5), (503, 5)])
def test_what_will_not_get_better_is_not_tried_again(hub, status, attempts):
    items = plan(hub)[:1]
    hub.refuse = status
    hub.requests.clear()
    with pytest.raises(UserError, match=rf"config\.json: .*{status}"):
        download.fetch(items)
    assert len(hub.requests) == attempts


def test_a_part_that_is_longer_than_the_hub_thinks_starts_again(hub):
    items = plan(hub)[:1]
    items[0].target.parent.mkdir(parents=True)
    items[0].part.write_bytes(bytes(10))
    hub.refuse = 416
    with pytest.raises(UserError, match="not complete"):
        download.fetch(items)
    assert not items[0].part.exists()


def test_an_end_is_heard_during_a_pause(hub, monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 3600.0)
    hub.refuse = 503
    asked = []

    def listen(item, done):
        asked.append(done)
        if len(asked) == 3:
            raise Cancelled

    started = time.monotonic()
    with pytest.raises(Cancelled):
        download.fetch(plan(hub)[:1], listen)
    assert time.monotonic() - started < 1800


FETCH = """
import json, sys
from pathlib import Path
from wan_ui.files import download
repo, file, url, target, size, etag = json.loads(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
item = download.Item(repo, file, url, Path(target), size, etag, "")
download.fetch([item])
"""


@pytest.mark.hardening(38)
def test_two_processes_that_fetch_one_file_get_it_once(hub):
    item = plan(hub)[0]
    hub.files[item.url.removeprefix(hub.url)] = content = bytes(3 * PIECE)
    item = plan(hub)[0]
    hub.pause = 0.2
    values = json.dumps([item.repo, item.file, item.url, str(item.target), item.size, item.etag])
    command = [sys.executable, "-c", FETCH, values]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, cwd=ROOT, **pipes) for _ in range(2)]
    assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
    hub.requests.clear()
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    errors = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert len(hub.requests) == 1 and item.target.read_bytes() == content
    assert [path.name for path in item.target.parent.iterdir()] == [item.target.name], "neither part nor lock stays"


@pytest.fixture
def in_use(hub, tmp_path):
    """Settings of this process, with a catalog that knows of no pins."""
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(load_settings({}).catalog.read_text().partition("\n[repositories.")[0])
    use(replace(hub.settings, catalog=catalog))
    hub.files = {path.replace(PINNED, "main"): content for path, content in hub.files.items()}
    yield hub
    use(load_settings({}))


def test_the_command(in_use, capsys):
    assert main(["download", "ti2v-5b", "gguf-Q8_0", "--engine", "lightx2v", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "Wan2_2-TI2V-5B-Turbo-Q8_0.gguf" in shown and "to download" in shown
    assert "main (no commit is pinned)  hum-ma/Wan2.2-TI2V-5B-Turbo-GGUF" in shown
    assert not in_use.settings.models.exists()
    assert main(["download", "ti2v-5b", "gguf-Q8_0", "--engine", "lightx2v"]) == 0
    assert "all files are there" in capsys.readouterr().out
    assert main(["download", "wan-tiny", "bf16"]) == 1
    assert "ships with Wan UI" in capsys.readouterr().err
    assert main(["download", "ti2v-5b", "bf16"]) == 1
    assert "scheme: 'bf16' is not available" in capsys.readouterr().err


def test_the_command_shows_the_distill_pair_and_keeps_the_configs_of_the_experts(in_use, capsys):
    model = load_catalog(in_use.settings.catalog)["i2v-a14b"]
    for ref in places.needed_files(model, model.scheme("gguf-Q4_K_M"), "lightx2v"):
        repo, file = places.split(ref)
        in_use.files[f"/{repo}/resolve/main/{file}"] = bytes(1000)
    assert main(["download", "i2v-a14b", "gguf-Q4_K_M", "--engine", "lightx2v", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("(distill LoRA, high noise)") == shown.count("(distill LoRA, low noise)") == 1
    assert "the distill LoRA pair is loaded with them, on both experts" in shown
    assert "high_noise_model/config.json" in shown and "low_noise_model/config.json" in shown
    assert "diffusion_pytorch_model" not in shown, "the DIT shards that the scheme replaces, tens of gigabytes"


def wait(background: BackgroundDownload) -> DownloadStatus:
    while background.status.active:
        time.sleep(0.01)
    return background.status


def test_in_the_background_with_progress(in_use, monkeypatch):
    background = BackgroundDownload(settings())
    background.start("ti2v-5b", "", "lightx2v")
    status = wait(background)
    assert status.state == "done" and status.done == status.total == sum(map(len, in_use.files.values()))
    assert (status.model, status.scheme) == ("ti2v-5b", "gguf-Q8_0")
    with pytest.raises(UserError, match="ships with Wan UI"):
        background.start("wan-tiny", "bf16", "auto")


def test_in_the_background_cancelled_then_resumed(in_use, monkeypatch):
    """While nothing arrives: the hub has sent 2,000 bytes and sends no more."""
    monkeypatch.setattr("tests.hub.PIECE", 1000)
    in_use.limit = 2000
    background = BackgroundDownload(settings())
    background.start("ti2v-5b", "", "lightx2v")
    while background.status.done < 2000:
        assert background.status.active
        time.sleep(0.01)
    background.cancel()
    assert wait(background).state == "cancelled"
    assert [path.stat().st_size for path in settings().models.rglob("*.part")] == [2000]
    in_use.limit = None
    in_use.requests.clear()
    background.start("ti2v-5b", "", "lightx2v")
    assert wait(background).state == "done"
    assert ("GET", "/Wan-AI/Wan2.2-TI2V-5B/resolve/main/config.json", 2000) in in_use.requests


def test_in_the_background_one_at_a_time_and_failures_are_said(in_use, monkeypatch):
    held = threading.Event()
    monkeypatch.setattr(download, "plan", lambda *args: held.wait(120) and [])
    background = BackgroundDownload(settings())
    background.start("ti2v-5b", "", "lightx2v")
    with pytest.raises(UserError, match="ti2v-5b gguf-Q8_0 is being downloaded"):
        background.start("i2v-a14b", "fp8", "lightx2v")
    held.set()
    assert wait(background).state == "done"
    monkeypatch.undo()
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repo, file, revision: None)
    background = BackgroundDownload(replace(settings(), hub="http://127.0.0.1:9"))
    background.start("ti2v-5b", "", "lightx2v")
    status = wait(background)
    assert (
        status.state == "failed"
        and "cannot be reached" in status.words
        and "Wan2.2_VAE.pth (2.82 GB) -> " in status.words
    )
