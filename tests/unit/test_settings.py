"""Settings come from the environment, and a mistake there is said at once."""

import getpass
import os
import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

from wan_ui import settings as settings_module
from wan_ui.errors import UserError
from wan_ui.settings import ROOT, RULES, Settings, load_settings


@pytest.mark.hardening(5)
def test_defaults_are_safe_and_paths_absolute():
    settings = load_settings({})
    assert settings.host == "127.0.0.1" and settings.auth == ""
    assert settings.outputs.is_absolute() and settings.cache.is_absolute() and "~" not in str(settings.cache)


def test_values_are_parsed_to_their_types():
    settings = load_settings({"WAN_UI_PORT": "8000", "WAN_UI_MAX_OUTPUTS_GB": "1.5", "WAN_UI_OUTPUTS": "/tmp/x"})
    assert (settings.port, settings.max_outputs_gb, settings.outputs) == (8000, 1.5, Path("/tmp/x"))


@pytest.mark.hardening(35)
@pytest.mark.parametrize(
    "name, value, words",
    [
        ("HOST", "http://0.0.0.0", "an address or host name"),
        ("HOST", "localhost:7860", "an address or host name"),
        ("HOST", "300.1.1.1", "an address or host name"),
        ("HOST", "two words", "an address or host name"),
        ("PORT", "eighty", "a whole number from 1 to 65535"),
        ("PORT", "-1", "a whole number from 1 to 65535"),
        ("PORT", "0", "a whole number from 1 to 65535"),
        ("PORT", "99999", "a whole number from 1 to 65535"),
        ("PORT", "78_60", "a whole number from 1 to 65535"),
        ("PORT", "７８６０", "a whole number from 1 to 65535"),
        ("PORT", "9" * 5000, "a whole number from 1 to 65535"),
        ("HOSTS", "http://wan.example.com", "host names such as"),
        ("HOSTS", "a b", "host names such as"),
        ("PROXIES", "nginx", "addresses or networks"),
        ("ROOT_PATH", "a b", "a path such as /wan"),
        ("ROOT_PATH", "//evil.example", "a path such as /wan"),
        ("MAX_CONNECTIONS", "3", "a whole number of at least 8"),
        ("OUTPUTS", str(ROOT / "README.md"), "a folder"),
        ("CACHE", "~nobody-of-that-name/x", "a folder"),
        ("CATALOG", "/nowhere/catalog.toml", "a file that is there"),
        ("HUB", "ftp://hub", "an address such as https://huggingface.co"),
        ("HUB", "https://hub:99999", "an address such as https://huggingface.co"),
        ("MODEL", "wan-9", "one of wan-tiny, i2v-a14b, t2v-a14b, ti2v-5b"),
        ("SCHEME", "fp7", "one of bf16, fp8"),
        ("ENGINE", "foo", "one of auto, diffusers, lightx2v"),
        ("LIGHTX2V_PATH", "/nowhere", "a checkout of ModelTC/LightX2V"),
        ("LIGHTX2V_ATTENTION", "flash", "one of auto, torch_sdpa, flash_attn2, flash_attn3, fa3_fwd, sage_attn2"),
        ("LIGHTX2V_OFFLOAD", "yes", "one of auto, none, text, model, block"),
        ("LIGHTX2V_DTYPE", "fp7", "one of auto, bf16, fp16"),
        ("LIGHTX2V_COMPILE", "maybe", "one of auto, on, off"),
        ("GPU_GIB", "nan", "0 \\(all\\), or GiB from 1"),
        ("GPU_GIB", "0.5", "0 \\(all\\), or GiB from 1"),
        ("STAGE_TIMEOUT", "0", "a whole number of at least 1"),
        ("MAX_QUEUE", "0", "a whole number of at least 1"),
        ("MAX_PROMPT", "0", "a whole number of at least 1"),
        ("MAX_UPLOAD_MB", "0", "a whole number from 1"),
        ("MAX_AUDIO_SECONDS", "inf", "a number from 1"),
        ("SHARED_DOWNLOADS", "2", "one of 0, 1"),
        ("MAX_OUTPUTS_GB", "nan", "a number from 0"),
        ("MAX_OUTPUT_DAYS", "-1", "a number from 0"),
        ("THREADS", "two", "a whole number from 0 to 1024"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name_and_what_is_allowed(name, value, words):
    with pytest.raises(UserError, match=f"^WAN_UI_{name}=.*: expected {words}"):
        load_settings({f"WAN_UI_{name}": value})


def test_the_login_is_not_repeated_in_its_refusal():
    with pytest.raises(UserError, match=r"^WAN_UI_AUTH: expected") as refusal:
        load_settings({"WAN_UI_AUTH": "hunter2"})
    assert "hunter2" not in str(refusal.value)


def test_other_mistakes_name_the_variable():
    with pytest.raises(UserError, match="unknown setting WAN_UI_PROT; known are: WAN_UI_HOST"):
        load_settings({"WAN_UI_PROT": "80"})
    with pytest.raises(
        UserError, match="WAN_UI_LIGHTX2V_PATCHES_OFF='x': expected names of patches, separated by commas: bf16_loader,"
    ):
        load_settings({"WAN_UI_LIGHTX2V_PATCHES_OFF": "x"})
    with pytest.raises(UserError, match=r"^GRADIO_SERVER_PORT='x': expected"):
        load_settings({"GRADIO_SERVER_PORT": "x"})
    with pytest.raises(UserError, match="WAN_UI_PORT='99999'"):
        replace(Settings(), port=99999)  # as `serve --port` makes one


def test_set_to_nothing_is_the_default():
    assert load_settings({f"WAN_UI_{field.name.upper()}": "" for field in fields(Settings)}) == load_settings({})


def test_addresses_are_made_right():
    assert load_settings({"WAN_UI_HOST": "[::1]"}).host == "::1"
    assert load_settings({"HF_ENDPOINT": "hf-mirror.com"}).hub == "https://hf-mirror.com"
    assert load_settings({"HF_ENDPOINT": "http://10.0.0.2:8080/"}).hub == "http://10.0.0.2:8080"


def test_kubernetes_own_variables_are_no_settings():
    """A Service called wan-ui, and one called wan-ui-outputs, in the same namespace."""
    environ = {
        "WAN_UI_SERVICE_HOST": "10.43.0.7",
        "WAN_UI_SERVICE_PORT": "7860",
        "WAN_UI_SERVICE_PORT_HTTP": "7860",
        "WAN_UI_PORT": "tcp://10.43.0.7:7860",
        "WAN_UI_PORT_7860_TCP": "tcp://10.43.0.7:7860",
        "WAN_UI_PORT_7860_TCP_PROTO": "tcp",
        "WAN_UI_PORT_7860_TCP_PORT": "7860",
        "WAN_UI_PORT_7860_TCP_ADDR": "10.43.0.7",
        "WAN_UI_OUTPUTS_SERVICE_HOST": "10.43.0.8",
        "WAN_UI_OUTPUTS_PORT_80_UDP_ADDR": "10.43.0.8",
        "WAN_UI_OUTPUTS_PORT": "udp://10.43.0.8:80",
    }
    assert load_settings(environ) == load_settings({})


def test_the_readme_lists_every_setting_with_its_default():
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Settings")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in section.splitlines() if line.startswith("| `")]
    listed = {}
    for names, defaults, _ in rows:
        variables = re.findall(r"`(WAN_UI_[A-Z0-9_]+)`", names)
        listed |= dict(zip(variables, re.split(r", ", defaults), strict=True))
    fresh = Settings()
    assert list(sorted(listed)) == sorted(f"WAN_UI_{field.name.upper()}" for field in fields(Settings))
    for field in fields(Settings):
        words, value = listed[f"WAN_UI_{field.name.upper()}"].strip("`").partition(" (")[0].strip("`"), field.default
        if isinstance(value, Path):
            assert words == "~/.cache/wan-ui" or Path(words).resolve() == getattr(fresh, field.name)
        elif field.name == "scheme":
            assert words == "its default"
        else:
            assert words == (f"{value:g}" if isinstance(value, float) else str(value))


def test_the_choices_are_those_that_lightx2v_is_configured_with():
    from wan_ui.engines.kernel_choice import ATTENTION
    from wan_ui.engines.lightx2v_config import OFFLOADS

    for name, known in (("lightx2v_attention", ATTENTION), ("lightx2v_offload", OFFLOADS)):
        assert RULES[name].allowed == f"one of auto, {', '.join(known)}"


def test_only_settings_reads_the_environment():
    readers = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "wan_ui").rglob("*.py")
        if any(word in path.read_text() for word in ("os.environ", "getenv"))
    ]
    assert readers == ["wan_ui/settings.py"]


def test_the_doors_between_the_rooms():
    """Who may import what, as Python does it; what can be read from the files is in test_doors.py."""
    heavy = "torch|diffusers|transformers|gguf|safetensors|lightx2v|gradio"
    code = (
        "import sys, importlib\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        f"print(sorted(set('{heavy}'.split('|')) & set(sys.modules)))"
    )

    modules = ("wan_ui.__main__", "wan_ui.queue.pipeline", "wan_ui.queue.worker", "wan_ui.files.places")
    done = subprocess.run([sys.executable, "-c", code, *modules], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_settings_is_frozen():
    with pytest.raises(AttributeError):
        Settings().port = 1


@pytest.mark.parametrize(
    "given, kept", [("wan", "/wan"), ("/wan/", "/wan"), ("/", ""), ("https://a.b/c", "https://a.b/c")]
)
def test_a_root_path_has_its_slash(given, kept):
    assert load_settings({"WAN_UI_ROOT_PATH": given}).root_path == kept


@pytest.fixture
def environ(monkeypatch):
    """The environment, to be changed by what is tested."""
    monkeypatch.setattr(os, "environ", dict(os.environ))


@pytest.fixture
def nobody(environ, monkeypatch):
    """A user id without a name, and no HOME."""

    def unknown(*_):
        raise KeyError("getpwuid(): uid not found: 4242")

    import pwd

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)


def test_without_a_home_the_cache_is_beside_the_clips(nobody, tmp_path):
    assert load_settings({"WAN_UI_OUTPUTS": str(tmp_path)}).cache == tmp_path / "cache"
    assert load_settings({"WAN_UI_CACHE": str(tmp_path / "own")}).cache == tmp_path / "own"


def test_a_home_that_cannot_be_written_is_none(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/proc/1")
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).startswith("/proc"))
    assert load_settings({"WAN_UI_OUTPUTS": str(tmp_path)}).cache == tmp_path / "cache"


def test_libraries_find_a_home_and_a_name(nobody, monkeypatch, tmp_path):
    monkeypatch.setattr(settings_module, "_current", None)
    monkeypatch.setenv("WAN_UI_OUTPUTS", str(tmp_path))
    settings_module.settings()
    assert Path.home() == tmp_path / "cache" and getpass.getuser() == "wan-ui"


def test_the_page_is_started_without_proxies_but_downloads_keep_them(environ, monkeypatch, tmp_path):
    monkeypatch.setattr(settings_module, "_proxies", None)
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    monkeypatch.setenv("all_proxy", "socks5://proxy:1080")
    monkeypatch.setenv("NO_PROXY", "hub.lan")
    monkeypatch.setenv("GRADIO_SERVER_PORT", "tcp://10.43.0.7:80")  # of a Kubernetes Service
    monkeypatch.setenv("GRADIO_SERVER_NAME", "::")
    given = {"http": "http://proxy:3128", "https": "socks5://proxy:1080"}
    assert settings_module.proxies() == given
    assert settings_module.page_environment(Settings(outputs=tmp_path)) == tmp_path / "uploads"
    assert not [name for name in os.environ if name.lower() in ("http_proxy", "https_proxy", "all_proxy")]
    assert os.environ["NO_PROXY"] == "hub.lan" and os.environ["GRADIO_TEMP_DIR"] == str(tmp_path / "uploads")
    assert (os.environ["GRADIO_SERVER_NAME"], os.environ["GRADIO_SERVER_PORT"]) == ("127.0.0.1", "7860")
    assert settings_module.proxies() == given
