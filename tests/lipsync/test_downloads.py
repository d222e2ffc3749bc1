"""The official weights: fetched into one folder from a small hub on loopback, and what a folder in part means."""

from dataclasses import replace

import pytest

from tests.hub import Hub
from wan_ui.__main__ import main
from wan_ui.errors import UserError
from wan_ui.files import download
from wan_ui.lipsync import choice, downloads
from wan_ui.lipsync.choice import EMBEDDED, OFFICIAL, choose_weights, shortcoming
from wan_ui.lipsync.files import DETECTOR, DWPOSE_SOURCES, PARSER, POSE, SOURCES, find_weights
from wan_ui.settings import load_settings, settings, use


@pytest.fixture
def hub(tmp_path):
    server = Hub().start()
    server.settings = replace(load_settings({}), models=tmp_path / "models", hub=server.url)
    for number, (repo, file, _) in enumerate((SOURCES | DWPOSE_SOURCES).values()):
        server.files[f"/{repo}/resolve/main/{file}"] = bytes([number]) * (3_000 + number)
    yield server
    server.stop()


def test_all_that_the_pass_needs_is_fetched(hub):
    download.fetch(downloads.plan(hub.settings))
    folder = hub.settings.models / OFFICIAL
    assert find_weights(folder)[1] == [] and (folder / PARSER).is_file()
    assert (folder / "musetalkV15/unet.pth").read_bytes() == bytes([1]) * 3_001
    assert (folder / "whisper/model.safetensors").read_bytes() == bytes([6]) * 3_006
    assert not (folder / DETECTOR).exists()
    hub.requests.clear()
    assert all(item.present for item in downloads.plan(hub.settings)) and not hub.requests
    assert [item.file for item in downloads.plan(hub.settings, dwpose=True) if not item.present] == [
        "yolox_l.onnx",
        "dw-ll_ucoco_384.onnx",
    ]


def test_files_in_upstreams_other_format_are_not_fetched_again(hub):
    folder = hub.settings.models / OFFICIAL
    (folder / "whisper").mkdir(parents=True)
    (folder / "whisper/pytorch_model.bin").write_bytes(b"as upstream's script leaves it")
    here = [item.target.name for item in downloads.plan(hub.settings) if item.present]
    assert here == ["pytorch_model.bin"]


def test_a_damaged_file_is_found_and_fetched_again(hub):
    download.fetch(downloads.plan(hub.settings))
    unet = hub.settings.models / OFFICIAL / "musetalkV15/unet.pth"
    unet.write_bytes(bytes(3_001))
    assert [item.target for item in downloads.plan(hub.settings, check=True) if not item.present] == [unet]


def test_without_a_network_each_file_is_named(tmp_path):
    config = replace(load_settings({}), models=tmp_path, hub="http://127.0.0.1:9")
    with pytest.raises(UserError, match="cannot be reached") as caught:
        downloads.plan(config)
    for repo, file, _ in SOURCES.values():
        assert f"http://127.0.0.1:9/{repo}/resolve/main/{file}" in str(caught.value)


def test_the_command(hub, capsys):
    before = settings()
    use(hub.settings)
    try:
        assert main(["download", "musetalk", "--dry-run"]) == 0
        shown = capsys.readouterr().out
        assert "TMElyralab/MuseTalk/musetalkV15/unet.pth" in shown and "to download for speech" in shown
        assert not (hub.settings.models / OFFICIAL / "musetalkV15/unet.pth").exists()
        assert main(["download", "musetalk", "dwpose"]) == 0
        assert (hub.settings.models / OFFICIAL / POSE).is_file()
        assert main(["download", "musetalk", "fp8"]) == 1
        assert "choose dwpose, or none" in capsys.readouterr().err
    finally:
        use(before)


def test_a_folder_in_part_is_said(hub, monkeypatch):
    config, folder = hub.settings, hub.settings.models / OFFICIAL
    assert shortcoming(config) == "" and choose_weights(config)[0] == EMBEDDED
    download.fetch(downloads.plan(config))
    assert shortcoming(config) == "" and choose_weights(config)[0] == folder
    (folder / PARSER).unlink()
    assert f"lacks {PARSER}" in shortcoming(config) and choose_weights(config)[0] == folder
    (folder / "sd-vae/config.json").unlink()
    (folder / "musetalkV15/unet.pth").unlink()
    words = shortcoming(config)
    assert "lacks musetalkV15/unet.safetensors or musetalkV15/unet.pth, sd-vae/config.json" in words
    assert "download musetalk" in words and str(config.models) not in words, "a visitor sees it"
    assert choose_weights(config) == (EMBEDDED, f"the small embedded MuseTalk ({words})")


def test_dwposes_files_without_what_runs_them_are_said(hub, monkeypatch):
    download.fetch(downloads.plan(hub.settings, dwpose=True))
    monkeypatch.setattr(choice, "can_run_dwpose", lambda: False)
    assert "make dwpose" in shortcoming(hub.settings)
    monkeypatch.setattr(choice, "can_run_dwpose", lambda: True)
    assert shortcoming(hub.settings) == ""
