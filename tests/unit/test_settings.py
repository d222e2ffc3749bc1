"""Settings come from the environment, and a mistake there is said at once."""

import subprocess
import sys
from pathlib import Path

import pytest

from wan_ui.errors import UserError
from wan_ui.settings import ROOT, Settings, load_settings


def test_defaults_are_safe_and_paths_absolute():
    settings = load_settings({})
    assert settings.host == "127.0.0.1" and settings.auth == ""
    assert settings.outputs.is_absolute() and settings.cache.is_absolute() and "~" not in str(settings.cache)


def test_values_are_parsed_to_their_types():
    settings = load_settings({"WAN_UI_PORT": "8000", "WAN_UI_MAX_OUTPUTS_GB": "1.5", "WAN_UI_OUTPUTS": "/tmp/x"})
    assert (settings.port, settings.max_outputs_gb, settings.outputs) == (8000, 1.5, Path("/tmp/x"))


@pytest.mark.parametrize(
    "environ, words",
    [
        ({"WAN_UI_PORT": "eighty"}, "WAN_UI_PORT='eighty': expected int"),
        ({"WAN_UI_PORT": "-1"}, "must not be negative"),
        ({"WAN_UI_PROT": "80"}, "unknown setting WAN_UI_PROT; known are: WAN_UI_HOST"),
    ],
)
def test_mistakes_name_the_variable(environ, words):
    with pytest.raises(UserError, match=words):
        load_settings(environ)


def test_only_settings_reads_the_environment():
    readers = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "wan_ui").rglob("*.py")
        if any(word in path.read_text() for word in ("os.environ", "getenv"))
    ]
    assert readers == ["wan_ui/settings.py"]


def test_the_doors_between_the_rooms():
    """Who may import what: the page stays free of torch, the engines stay free of gradio."""
    heavy = "torch|diffusers|transformers|gguf|safetensors|lightx2v"
    code = (
        "import sys, importlib\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        f"print(sorted(set('{heavy}|gradio'.split('|')) & set(sys.modules)))"
    )

    def loaded(*modules: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", code, *modules], cwd=ROOT, capture_output=True, text=True, check=True
        )
        return eval(done.stdout.splitlines()[-1])

    assert loaded("wan_ui.__main__", "wan_ui.pipeline", "wan_ui.worker", "wan_ui.weights") == []
    assert loaded("wan_ui.ui") == ["gradio"]
    assert "gradio" not in loaded("wan_ui.engines.diffusers")


def test_settings_is_frozen():
    with pytest.raises(AttributeError):
        Settings().port = 1


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("HOSTS", "http://wan.example.com", "is not a host name"),
        ("HOSTS", "a b", "is not a host name"),
        ("PROXIES", "nginx", "is not an address or a network"),
        ("ROOT_PATH", "a b", "is not a path"),
        ("ROOT_PATH", "//evil.example", "is not a path"),
        ("MAX_CONNECTIONS", "3", "a browser alone needs 8"),
    ],
)
def test_how_the_page_is_reached_is_checked(name, value, words):
    with pytest.raises(UserError, match=f"WAN_UI_{name}.*{words}"):
        load_settings({f"WAN_UI_{name}": value})


@pytest.mark.parametrize(
    "given, kept", [("wan", "/wan"), ("/wan/", "/wan"), ("/", ""), ("https://a.b/c", "https://a.b/c")]
)
def test_a_root_path_has_its_slash(given, kept):
    assert load_settings({"WAN_UI_ROOT_PATH": given}).root_path == kept
