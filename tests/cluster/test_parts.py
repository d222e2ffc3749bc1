"""What needs no Ray: versions, labels, what a machine has, addresses, files, and a head that is not there."""

import stat
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests.job_requests import job_request
from tests.ports import free_port
from wan_ui.cluster import cluster, labels, parcels, start
from wan_ui.cluster.cluster import Cluster
from wan_ui.cluster.have import Have, _loras, lacks
from wan_ui.cluster.versions import difference, versions
from wan_ui.errors import UserError
from wan_ui.queue.messages import Generate
from wan_ui.request import Result
from wan_ui.settings import Settings


def test_what_differs_is_named_and_a_label_says_it_again():
    here = versions()
    assert difference(dict(here), here) == ""
    assert difference(here | {"Wan UI": "0.0.9"}, here) == f"Wan UI 0.0.9 there, {here['Wan UI']} here"
    assert difference(here | {"Python": "3.12.1"}, here) == f"Python 3.12.1 there, {here['Python']} here"
    assert "files of Wan UI abc there" in difference(here | {"files": "abc"}, here)
    assert "Ray of an unknown version there" in difference(
        {k: v for k, v in here.items() if k != "Ray"}, here | {"Ray": "2"}
    )
    said = labels.labels("gpu-2", 3, 1)
    node = {"Labels": said | {"ray.io/node-id": "x"}, "NodeManagerAddress": "10.0.0.3", "NodeID": "x"}
    offer = labels.read(node)
    assert (offer.name, offer.workers, offer.gpus, offer.address) == ("gpu-2", 3, 1, "10.0.0.3")
    assert offer.versions == {name: value for name, value in here.items()}
    assert labels.read(node | {"Labels": labels.page_labels()}) is None and labels.read(node | {"Labels": {}}) is None
    assert labels.NAME.fullmatch(labels.own_name())


def test_a_job_goes_only_where_its_files_are(tmp_path):
    settings = Settings(loras=tmp_path / "none", models=tmp_path, outputs=tmp_path, cache=tmp_path)
    shipped = next(name for name in _loras(settings) if "high" not in name)
    size = _loras(settings)[shipped]
    job = job_request(loras=[{"file": shipped, "strength": 1}])
    there = Have({"wan-tiny bf16": ["auto", "diffusers"]}, {shipped: size})
    assert lacks(job, there, settings, "b") == ""
    assert lacks(job_request(scheme="fp8"), there, settings, "b").startswith("b lacks files of wan-tiny with fp8")
    assert lacks(job_request(engine="lightx2v"), there, settings, "b") != ""
    assert lacks(job, replace(there, loras={}), settings, "b").startswith(f"b lacks the LoRA {shipped}")
    assert "another file" in lacks(job, replace(there, loras={shipped: size - 1}), settings, "b")
    path = job_request(loras=[{"file": "/a/b.safetensors", "strength": 1}])
    assert "which lies on the page's machine" in lacks(path, there, settings, "b")


def test_files_go_there_and_come_back(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    parcels.put({"input.png": b"picture"}, here)
    message = Generate(job_request(image=str(here / "input.png")), here)
    parcels.put(parcels.inputs_of(message.request), there)
    moved = parcels.moved(message, there)
    assert moved.folder == there and moved.request.inputs == {"image": str(there / "input.png")}
    parcels.put({"clip.mp4": b"clip", "poster.jpg": b"poster", "other": b"-"}, there)
    made = parcels.outputs_of(Result("clip.mp4", "poster.jpg", "gone.mp4"), there)
    assert made == {"clip.mp4": b"clip", "poster.jpg": b"poster"}
    parcels.put({"../clip.mp4": b"clip"}, here)
    assert (here / "clip.mp4").read_bytes() == b"clip" and not (tmp_path / "clip.mp4").exists()


def test_only_private_addresses_and_known_hosts():
    assert start.resolved("10.0.0.2") == "10.0.0.2" and start.resolved("localhost") == "127.0.0.1"
    with pytest.raises(UserError, match=r"8\.8\.8\.8 is not a private address"):
        start.resolved("8.8.8.8")
    with pytest.raises(UserError, match=r"'no-such-host\.invalid' is not known"):
        start.resolved("no-such-host.invalid")
    assert start.is_own("127.0.0.1") and not start.is_own("10.255.255.1")
    with pytest.raises(UserError, match=r"WAN_UI_RAY='10\.0\.0\.2': expected auto or HOST:PORT"):
        Settings(ray="10.0.0.2")


def test_the_token_is_made_once_and_for_its_owner_alone(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "ray" / "token"))
    with pytest.raises(UserError, match=f"Copy the file {tmp_path}/ray/token from the machine of the page"):
        start.check_token()
    path = start.make_token()
    first = path.read_text()
    assert len(first) == 64 and stat.S_IMODE(path.stat().st_mode) == 0o600
    start.make_token()
    start.check_token()
    assert path.read_text() == first


def test_a_head_that_cannot_be_reached_is_said_and_harms_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(start, "is_own", lambda address: False)
    monkeypatch.setattr(start, "check_installed", lambda: None)
    monkeypatch.setattr(cluster, "AGAIN", 0.01)
    head = f"127.0.0.1:{free_port()}"
    one = Cluster(Settings(ray=head, outputs=tmp_path, cache=tmp_path), SimpleNamespace(troubles=("before",)), "x:y")
    with pytest.raises(UserError, match=f"the head at {head} cannot be reached .Connection refused"):
        one._reach()
    one.start()
    while not one.words:
        one.stopping.wait(0.01)
    one.close()
    assert head in one.words and not one.thread.is_alive()
    assert one.pool.troubles == ("before", one.words)
