"""LoRAs that come in through the page: what a link means, names, what is kept, and a real download from a small hub."""

import time
from pathlib import Path

import pytest

from tests.hub import Hub
from tests.loras.test_shelf import write
from wan_ui import limits
from wan_ui.errors import UserError
from wan_ui.loras import arrival, scan
from wan_ui.loras.arrival import arriving, check_room, keep, read_link, safe_name
from wan_ui.queue.lora_download import LoraDownloads
from wan_ui.settings import Settings

SETTINGS = Settings()


@pytest.mark.parametrize(
    "words, repo, revision, file, name",
    [
        ("a/b/c.safetensors", "a/b", "main", "c.safetensors", "c.safetensors"),
        (" a/b:deep/c d.safetensors ", "a/b", "main", "deep/c d.safetensors", "c d.safetensors"),
        (
            "https://huggingface.co/a/b/resolve/main/x/c.safetensors?download=true",
            "a/b",
            "main",
            "x/c.safetensors",
            None,
        ),
        ("https://huggingface.co/a/b/blob/v1.0/c.safetensors", "a/b", "v1.0", "c.safetensors", None),
        ("huggingface.co/a/b/blob/main/c.safetensors", "a/b", "main", "c.safetensors", None),
        ("https://hf.co/a/b/resolve/refs%2Fpr%2F3/c.safetensors", "a/b", "refs/pr/3", "c.safetensors", None),
        ("a/b/pytorch_lora_weights.safetensors", "a/b", "main", None, "b_pytorch_lora_weights.safetensors"),
        ("a/b/high_noise_model.safetensors", "a/b", "main", None, "b_high_noise_model.safetensors"),
    ],
)
def test_a_link(words, repo, revision, file, name):
    link = read_link(words, SETTINGS)
    assert (link.repo, link.revision) == (repo, revision)
    assert link.file == file or file is None
    assert link.name == (name or file.rpartition("/")[2])


def test_the_address_is_the_hub_s_of_the_settings():
    link = read_link("https://huggingface.co/a/b/resolve/refs%2Fpr%2F3/x y#.safetensors".replace("#", "%23"), SETTINGS)
    assert (
        link.url(Settings(hub="http://mirror:8000/"))
        == "http://mirror:8000/a/b/resolve/refs%2Fpr%2F3/x%20y%23.safetensors"
    )


@pytest.mark.hardening(4)
@pytest.mark.parametrize(
    "words",
    [
        *("", "x", "a/b", "https://huggingface.co/a/b", "https://huggingface.co/a/b/tree/main", "a/b/../c.safetensors"),
        *(
            "https://civitai.com/models/1",
            "http://169.254.169.254/a/b/c.safetensors",
            "ftp://huggingface.co/a/b/c.safetensors",
        ),
        *("https://huggingface.co@evil.example/a/b/c.safetensors", "https://u:p@huggingface.co/a/b/c.safetensors"),
        *("https://huggingface.co.evil.example/a/b/c.safetensors", "a/b/c.pt", "a/b/c.bin", "a/b/c.safetensors.pth"),
        *(
            "../b/c.safetensors",
            "a/b//c.safetensors",
            "a/b/x\\..\\c.safetensors",
            "a/b/c\n.safetensors",
            "file:///etc/passwd",
        ),
        *("https://huggingface.co/a/b/resolve/main/%2e%2e/c.safetensors", "a/b/resolve"),
    ],
)
def test_what_is_no_link_to_a_lora(words):
    with pytest.raises(UserError) as refused:
        read_link(words, SETTINGS)
    assert refused.value.field == "link"


@pytest.mark.hardening(2)
@pytest.mark.parametrize(
    "sent, kept",
    [
        ("Wan2.2 spin (v2) HIGH.safetensors", "Wan2.2 spin (v2) HIGH.safetensors"),
        ("../../etc/x.safetensors", "x.safetensors"),
        ("C:\\loras\\x.safetensors", "x.safetensors"),
        (".hidden.safetensors", "hidden.safetensors"),
        ("a\0b\nc<d>.safetensors", "a_b_c_d_.safetensors"),
        ("x.SafeTensors", "x.safetensors"),
        ("高噪 旋转.safetensors", "高噪 旋转.safetensors"),
        ("con.safetensors", "lora_con.safetensors"),
        (".safetensors", "lora.safetensors"),
        ("..safetensors", "lora.safetensors"),
        ("x" * 300 + ".safetensors", "x" * 120 + ".safetensors"),
        ("水" * 119 + ".safetensors", "水" * 66 + ".safetensors"),  # file systems count bytes
    ],
)
def test_a_name_is_made_safe(sent, kept):
    assert safe_name(sent) == kept


@pytest.mark.hardening(10)
@pytest.mark.parametrize("name", ["x.pt", "x.ckpt", "x.safetensors.pth", "x", "x.zip", ""])
def test_no_other_kind_of_file(name):
    with pytest.raises(UserError, match=r"a LoRA is a \.safetensors file"):
        safe_name(name)


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "loras").mkdir()
    return Settings(loras=tmp_path / "loras")


def arrive(settings: Settings, name: str, make) -> str:
    with arriving(settings) as folder:
        make(folder / name)
        return keep(folder / name, settings)


def names(settings: Settings) -> list[str]:
    return sorted(path.name for path in settings.loras.rglob("*"))


def test_it_is_kept_under_its_name_and_nothing_is_overwritten(settings):
    assert arrive(settings, "spin.safetensors", lambda path: write(path, trigger_words="one")) == "spin.safetensors"
    before = (settings.loras / "spin.safetensors").read_bytes()
    assert arrive(settings, "Spin.safetensors", lambda path: write(path, trigger_words="two")) == "Spin-2.safetensors"
    assert (settings.loras / "spin.safetensors").read_bytes() == before
    with pytest.raises(UserError, match=r"the same file is here already, as spin\.safetensors"):
        arrive(settings, "other.safetensors", lambda path: write(path, trigger_words="one"))
    assert names(settings) == ["Spin-2.safetensors", "spin.safetensors"]  # nothing is left of what arrived
    assert {entry.name for entry in scan(settings.loras) if not entry.shipped} == set(names(settings))


@pytest.mark.hardening(10)
@pytest.mark.parametrize(
    "make, words",
    [
        (lambda path: path.write_bytes(b"\x80\x04 a pickle"), "Python pickle"),
        (lambda path: path.write_bytes(b"PK\x03\x04 a torch archive"), "Python pickle"),
        (lambda path: path.write_bytes(b"<html>no such file</html>"), "was not kept"),
        (lambda path: path.write_bytes(b""), "was not kept"),
        (lambda path: write(path, width=333), "its model is 333 wide, which no model here is"),
        (lambda path: (write(path), path.write_bytes(path.read_bytes()[:-40])), "was not kept"),
    ],
)
def test_what_is_no_lora_of_a_known_model_is_not_kept(settings, make, words):
    with pytest.raises(UserError, match=words):
        arrive(settings, "x.safetensors", make)
    assert names(settings) == []


@pytest.mark.limit("LORA_GB", "LORAS_GB")
def test_how_large_one_and_all_may_be(settings, monkeypatch):
    monkeypatch.setattr(limits, "LORA_GB", 1000 / 1e9)
    monkeypatch.setattr(limits, "LORAS_GB", 1500 / 1e9)
    check_room(1000, settings)
    with pytest.raises(UserError, match="a LoRA may have"):
        check_room(1001, settings)
    (settings.loras / "there").write_bytes(bytes(500))
    check_room(1000, settings)
    (settings.loras / "more").write_bytes(bytes(1))
    with pytest.raises(UserError, match="the LoRA folder is full"):
        check_room(1000, settings)
    monkeypatch.setattr(limits, "MIN_FREE_MB", 1e12)
    with pytest.raises(UserError, match="GB are free"):
        check_room(1, settings)


def test_what_a_killed_app_left_goes_with_the_next_arrival(settings, monkeypatch):
    old = settings.loras / arrival.ARRIVING / "old"
    old.mkdir(parents=True)
    (old / "x.safetensors").write_bytes(bytes(9))
    with arriving(settings):
        assert old.exists()
    monkeypatch.setattr(arrival, "LEFT", -10.0)
    with arriving(settings):
        assert not old.exists()
    assert not old.parent.exists()


@pytest.fixture
def hub(settings):
    hub = Hub().start()
    write(settings.loras.parent / "made.safetensors", trigger_words="spin")
    hub.files["/a/b/resolve/main/spin.safetensors"] = (settings.loras.parent / "made.safetensors").read_bytes()
    hub.files["/a/b/resolve/main/page.safetensors"] = b"<html>"
    yield hub
    hub.stop()


def ended(downloads: LoraDownloads, seconds: float = 90.0):
    end = time.monotonic() + seconds
    while downloads.status.active:
        assert time.monotonic() < end
        time.sleep(0.02)
    return downloads.status


def test_one_is_fetched_looked_at_and_kept(settings, hub):
    downloads = LoraDownloads(Settings(loras=settings.loras, hub=hub.url))
    downloads.start("https://huggingface.co/a/b/blob/main/spin.safetensors")
    status = ended(downloads)
    assert (status.state, status.name, status.kept) == ("done", "spin.safetensors", 1), status.words
    assert (settings.loras / "spin.safetensors").read_bytes() == hub.files["/a/b/resolve/main/spin.safetensors"]
    for link, words in (
        ("a/b/spin.safetensors", "the same file is here already"),
        ("a/b/page.safetensors", "was not kept"),
        ("a/b/nowhere.safetensors", "404"),
    ):
        downloads.start(link)
        status = ended(downloads)
        assert status.state == "failed" and words in status.words and status.kept == 1
    assert names(settings) == ["spin.safetensors"]


def test_it_is_cancelled_and_nothing_of_it_stays(settings, hub):
    hub.limit = 0  # it sends nothing
    downloads = LoraDownloads(Settings(loras=settings.loras, hub=hub.url))
    downloads.start("a/b/spin.safetensors")
    with pytest.raises(UserError, match="is being fetched"):
        downloads.start("a/b/page.safetensors")
    downloads.cancel()
    hub.limit = None
    assert ended(downloads).state == "cancelled"
    assert names(settings) == []


def test_one_that_is_too_large_is_not_fetched(settings, hub, monkeypatch):
    monkeypatch.setattr(limits, "LORA_GB", 10 / 1e9)
    downloads = LoraDownloads(Settings(loras=settings.loras, hub=hub.url))
    downloads.start("a/b/spin.safetensors")
    status = ended(downloads)
    assert status.state == "failed" and "a LoRA may have" in status.words
    assert [how for how, *_ in hub.requests] == ["HEAD"]
    assert names(settings) == []


def test_a_hub_that_is_not_there_is_said(settings):
    downloads = LoraDownloads(Settings(loras=settings.loras, hub="http://127.0.0.1:9"))
    downloads.start("a/b/spin.safetensors")
    assert "http://127.0.0.1:9 cannot be reached" in ended(downloads).words
    assert Path(settings.loras).is_dir() and names(settings) == []
