"""Settings, resolved once into a frozen object. This is the only file that reads the environment.

Every field can be set by `WAN_UI_<FIELD>`, for example `WAN_UI_PORT=8000`. A bad value is an error
that names the variable; there are no layers, profiles or config files beside this.
"""

import ipaddress
import os
import re
from dataclasses import dataclass, fields
from pathlib import Path

from wan_ui.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
HOST_NAME = re.compile(r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?")
ROOT_PATH = re.compile(r"((https?://[^\s/?#]+)?(/?[A-Za-z0-9._~@-]+(/[A-Za-z0-9._~@-]+)*)?)")


@dataclass(frozen=True)
class Settings:
    """All that a host may want to change. Paths are made absolute; nothing is created here."""

    host: str = "127.0.0.1"  # 0.0.0.0 in the Docker image and on Spaces
    port: int = 7860
    auth: str = ""  # "user:password" asks for a login
    hosts: str = ""  # names by which the page is reached besides this machine's own, separated by commas
    proxies: str = ""  # addresses or networks of reverse proxies whose X-Forwarded headers are believed
    root_path: str = ""  # "/wan": where a reverse proxy shows the page; GRADIO_ROOT_PATH is honoured
    max_connections: int = 64  # open at once from one address
    outputs: Path = Path("outputs")  # jobs, clips and the database
    models: Path = Path("models")  # downloaded weights: <models>/<owner>/<repo>/<file>
    loras: Path = Path("loras")  # LoRA files, in subfolders too; those of assets/loras are listed beside them
    hub: str = "https://huggingface.co"  # or a mirror; HF_ENDPOINT is honoured
    cache: Path = Path.home() / ".cache" / "wan-ui"  # files derived from shipped ones; safe to delete
    catalog: Path = ROOT / "configs" / "catalog.toml"
    model: str = "wan-tiny"  # loaded when the app starts
    scheme: str = ""  # empty: the model's default
    engine: str = "auto"
    lightx2v_path: str = ""  # a checkout of ModelTC/LightX2V; empty: the installed package, if any
    lightx2v_attention: str = "auto"  # torch_sdpa, flash_attn2, flash_attn3, sage_attn2
    lightx2v_offload: str = "auto"  # none, model, block: where idle weights stay
    lightx2v_dtype: str = "auto"  # bf16, fp16
    lightx2v_patches_off: str = ""  # names, separated by commas: load without these patches, to compare
    lightx2v_compile: str = "auto"  # on, off: half a minute at load for steps that take a third less time
    gpu_gib: float = 0.0  # GPU memory that may be used, GiB; 0: all. The choice of what stays on the GPU follows it
    stage_timeout: int = 900  # seconds without progress after which the worker is killed
    max_queue: int = 20  # jobs waiting; one more is refused
    max_prompt: int = 2000  # characters
    max_upload_mb: int = 32
    max_audio_seconds: float = 600.0  # of speech; longer audio is refused
    shared_downloads: int = 0  # 1: on a shared address, too, anybody may start downloads of models from the page
    max_outputs_gb: float = 20.0  # oldest finished clips are deleted beyond this
    max_output_days: float = 0.0  # and those older than this; 0 keeps them for ever
    threads: int = 0  # CPU threads for torch; 0: all that this process may use


def _parse(name: str, kind: type, text: str):
    try:
        value = kind(text)
    except ValueError:
        raise UserError(f"{name}={text!r}: expected {kind.__name__}, for example {name}=1") from None
    if kind in (int, float) and value < 0:
        raise UserError(f"{name}={text}: must not be negative")
    if kind is Path:
        value = value.expanduser().resolve()
    return value


def split_names(text: str) -> tuple[str, ...]:
    """ "a, b" -> ("a", "b")"""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _check_addresses(values: dict) -> None:
    """How the page is reached. Raises UserError; puts the slash before root_path."""
    for name in split_names(values["hosts"]):
        if not HOST_NAME.fullmatch(name):
            raise UserError(
                f"WAN_UI_HOSTS: {name!r} is not a host name; write names such as wan.example.com, no http://"
            )
    for name in split_names(values["proxies"]):
        try:
            ipaddress.ip_network(name, strict=False)
        except ValueError:
            raise UserError(
                f"WAN_UI_PROXIES: {name!r} is not an address or a network; write for example 127.0.0.1 or 10.0.0.0/8"
            ) from None
    path = values["root_path"].strip().rstrip("/")
    if not ROOT_PATH.fullmatch(path):
        raise UserError(f"WAN_UI_ROOT_PATH: {path!r} is not a path; write for example /wan, or https://example.com/wan")
    if path and not path.startswith(("/", "http://", "https://")):
        path = f"/{path}"
    values["root_path"] = path
    if values["max_connections"] < 8:
        raise UserError(f"WAN_UI_MAX_CONNECTIONS={values['max_connections']}: a browser alone needs 8")


def load_settings(environ: dict[str, str]) -> Settings:
    """Settings from the defaults and `environ`. Raises UserError naming a bad or unknown variable."""
    known = {f"WAN_UI_{f.name.upper()}": f for f in fields(Settings)}
    unknown = sorted(name for name in environ if name.startswith("WAN_UI_") and name not in known)
    if unknown:
        raise UserError(f"unknown setting {unknown[0]}; known are: {', '.join(known)}")
    values = {}
    for name, field in known.items():
        kind = type(field.default) if not isinstance(field.default, Path) else Path
        values[field.name] = _parse(name, kind, environ.get(name, str(field.default)))
    _check_addresses(values)
    return Settings(**values)


_current: Settings | None = None


def use(values: Settings) -> None:
    """Make `values` the settings of this process: the worker is handed its parent's."""
    global _current
    _current = values


def settings() -> Settings:
    """The settings of this process. Raises UserError when the environment has a bad value."""
    if _current is None:
        use(_from_environment())
    return _current


def default_environment(values: dict[str, str]) -> None:
    """Set variables that a library reads at its import, where the host has not set them itself."""
    for name, value in values.items():
        os.environ.setdefault(name, value)


def child_environment(values: dict[str, str]) -> dict[str, str]:
    """This process's environment with `values`, for a child."""
    return {**os.environ, **values}


def _from_environment() -> Settings:
    # Gradio's and the hub's own variables are honoured because Spaces and Docker images set them.
    environ = {name: value for name, value in os.environ.items() if name.startswith("WAN_UI_")}
    names = {
        "HOST": "GRADIO_SERVER_NAME",
        "PORT": "GRADIO_SERVER_PORT",
        "HUB": "HF_ENDPOINT",
        "ROOT_PATH": "GRADIO_ROOT_PATH",
    }
    for ours, theirs in ((f"WAN_UI_{ours}", theirs) for ours, theirs in names.items()):
        if theirs in os.environ:
            environ.setdefault(ours, os.environ[theirs])
    if os.environ.get("SPACE_HOST"):
        environ.setdefault("WAN_UI_HOSTS", os.environ["SPACE_HOST"])
    return load_settings(environ)
