"""Settings, resolved once into a frozen object. This is the only file that reads the environment.

Every field can be set by `WAN_UI_<FIELD>`, for example `WAN_UI_PORT=8000`; set to nothing it keeps its default. A
bad value is an error that names the variable and what is allowed. There are no layers, profiles or config files
beside this. A new setting is one line of Settings, its rule (wan_ui/rules.py) and a row of the README's table.
"""

import getpass
import os
import re
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from wan_ui import limits, rules
from wan_ui.catalog import load_catalog
from wan_ui.errors import UserError
from wan_ui.place import DATA, INSTALLED, PACKAGE
from wan_ui.rules import Rule
from wan_ui.tasks import STAGES

ROOT = PACKAGE.parent  # a checkout; of an installed package the folder of all packages, from which children start
ENGINES = ("auto", "diffusers", "lightx2v")
# Of the LightX2V engine: the walk through the VAE, its decoder's and the blocks' kernels, products with GGUF weights
# that were dequantised once, or by a kernel at every use, short steps as CUDA graphs. Of both engines: frames that go
# into the MP4 while later ones are decoded.
LEVERS = ("vae", "decoder", "blocks", "products", "dequantise", "stream", "graphs")
# Of the diffusers engine on a CPU in float32: what wan_ui/engines/cpu_kernels.py and cpu_blocks.py do in fewer passes.
CPU_LEVERS = ("convolutions", "norms", "upsampling", "prompt", "products", "rotation")
# A patch is called as its file; wan_ui/patches itself is above this.
PATCHES = tuple(sorted(file.stem for file in (PACKAGE / "patches").glob("[!_]*.py") if file.stem != "record"))
# Gradio's and the hub's own variables are honoured because Spaces and Docker images set them.
ALIASES = {
    "WAN_UI_HOST": "GRADIO_SERVER_NAME",
    "WAN_UI_PORT": "GRADIO_SERVER_PORT",
    "WAN_UI_HUB": "HF_ENDPOINT",
    "WAN_UI_ROOT_PATH": "GRADIO_ROOT_PATH",
    "WAN_UI_HOSTS": "SPACE_HOST",
}
LANGUAGES = ("en", "zh")
# Kubernetes sets these in every container for a Service whose name begins with "wan-ui".
SERVICE = re.compile(r"WAN_UI_(.*_)?(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://.*")  # the value of WAN_UI_PORT then


def setting(default: Any, rule: Rule) -> Any:
    return field(default=default, metadata={"rule": rule})


def _home_cache() -> Path | None:
    """~/.cache/wan-ui; None for those who have no home, or none that can be written."""
    try:
        folder = Path.home() / ".cache" / "wan-ui"
        there = next(path for path in (folder, *folder.parents) if path.exists())
    except (RuntimeError, OSError):  # no HOME, and a user id without an entry in the list of users
        return None
    return folder if os.access(there, os.W_OK | os.X_OK) else None


def user_folder(system: str, environ: Mapping[str, str], home: Path) -> Path:
    """Where programs of this system (sys.platform) keep what a user makes with them."""
    if system == "win32":
        base = environ.get("LOCALAPPDATA") or home / "AppData" / "Local"
    elif system == "darwin":
        base = home / "Library" / "Application Support"
    else:
        base = environ.get("XDG_DATA_HOME") or home / ".local" / "share"
    return Path(base) / "wan-ui"


def _own_folder() -> Path:
    """Where outputs, models and loras are: where a checkout is started, an installed program's in the user's folder."""
    try:
        return user_folder(sys.platform, os.environ, Path.home()) if INSTALLED else Path()
    except RuntimeError:  # no HOME, and a user id without an entry in the list of users
        return Path()


@dataclass(frozen=True)
class Settings:
    """All that a host may want to change. Every value is checked and paths are made absolute; nothing is created here.

    Raises UserError naming the variable, whoever makes one.
    """

    host: str = setting("127.0.0.1", rules.ADDRESS)  # 0.0.0.0 in the Docker image and on Spaces
    port: int = setting(7860, rules.whole(1, 65535))
    # asks for a login
    auth: str = setting("", rules.text('"user:password", or nothing', r"([^:]+:.+)?", secret=True))
    # names by which the page is reached besides this machine's own, separated by commas
    hosts: str = setting("", rules.HOST_NAMES)
    # addresses or networks of reverse proxies whose X-Forwarded headers are believed
    proxies: str = setting("", rules.NETWORKS)
    root_path: str = setting("", rules.ROOT_PATH)  # where a reverse proxy shows the page
    # open at once from one address; a browser alone needs 8
    max_connections: int = setting(limits.MAX_CONNECTIONS, rules.whole(8))
    # of one address, on a shared one; 0: any number
    max_requests_per_minute: int = setting(limits.MAX_REQUESTS_PER_MINUTE, rules.whole(0))
    # 1: the queue is offered to assistants as tools of the Model Context Protocol (requirements-mcp.txt)
    mcp: int = setting(0, rules.one_of(0, 1))
    # an address that is told of every job that ends; its path may be a secret
    webhook: str = setting("", rules.WEBHOOK)
    webhook_private: int = setting(0, rules.one_of(0, 1))  # 1: it may be this machine, or in a private network
    max_page_gb: float = setting(limits.MAX_PAGE_GB, rules.number(1, 10_000))  # memory of the page's process
    outputs: Path = setting(_own_folder() / "outputs", rules.folder())  # jobs, clips and the database
    # downloaded weights: <models>/<owner>/<repo>/<file>
    models: Path = setting(_own_folder() / "models", rules.folder())
    # LoRA files, in subfolders too; those of assets/loras are listed beside them
    loras: Path = setting(_own_folder() / "loras", rules.folder())
    # ComfyUI installations (or their folder `models`), separated by commas, whose files are offered as well
    comfyui: str = setting("", rules.text("folders of ComfyUI installations, separated by commas"))
    hub: str = setting("https://huggingface.co", rules.URL)  # or a mirror; HF_ENDPOINT is honoured
    # files derived from shipped ones; safe to delete
    cache: Path = setting(_home_cache() or _own_folder() / "outputs" / "cache", rules.folder())
    catalog: Path = setting(DATA / "configs" / "catalog.toml", rules.file())
    model: str = setting("wan-tiny", rules.text("a model of the catalog"))  # loaded when the app starts
    scheme: str = setting("", rules.text("a scheme of the model"))  # empty: the model's default
    engine: str = setting("auto", rules.one_of(*ENGINES))
    # a checkout of ModelTC/LightX2V; empty: the installed package, if any
    lightx2v_path: str = setting("", rules.text("a checkout of ModelTC/LightX2V"))
    lightx2v_attention: str = setting(
        "auto", rules.one_of("auto", "torch_sdpa", "flash_attn2", "flash_attn3", "fa3_fwd", "sage_attn2")
    )
    lightx2v_offload: str = setting("auto", rules.one_of("auto", "none", "text", "model", "block"))  # idle weights
    lightx2v_dtype: str = setting("auto", rules.one_of("auto", "bf16", "fp16"))
    # what GGUF weights multiply as: exact where memory allows, never rounded a second time, or in fp8 if it fits
    lightx2v_gguf: str = setting("auto", rules.one_of("auto", "bf16", "e4m3"))
    # load without these patches, to compare
    lightx2v_patches_off: str = setting("", rules.names("names of patches", PATCHES))
    # what is left as LightX2V does it, to compare
    lightx2v_plain: str = setting("", rules.names("names of optimisations", LEVERS))
    # what is left as diffusers does it on a CPU, to compare
    cpu_plain: str = setting("", rules.names("names of optimisations", CPU_LEVERS))
    # half a minute at load for steps that take a third less time
    lightx2v_compile: str = setting("auto", rules.one_of("auto", "on", "off"))
    # both halves of guidance in one pass of the transformer (diffusers engine), or one after the other
    guidance_passes: str = setting("auto", rules.one_of("auto", "one", "two"))
    # GPUs with a worker each: all, or numbers; auto: all that the model fits; none: no worker here at all
    gpus: str = setting("auto", rules.text("auto, all, none, or numbers of GPUs, separated by commas"))
    # workers: on a machine without a GPU that many (0: one), with GPUs at most that many (0: one each)
    workers: int = setting(0, rules.whole(0, 64))
    # GPUs, or on a CPU processes, that share every clip
    parallel: int = setting(1, rules.whole(1, 64))
    # GPU memory that may be used, GiB. The choice of what stays on the GPU follows it
    gpu_gib: float = setting(0.0, rules.number(1, 10_000, "0 (all), or GiB from 1 to 10000", zero=True))
    # workers of other machines, on Ray: auto starts a head here, HOST:PORT is a head's address; empty: none
    ray: str = setting("", rules.text("auto or HOST:PORT", r"(auto|[^\s:]+:[0-9]{1,5})?"))
    # text and pictures are encoded while the form is filled in, by a worker that has nothing else to do
    prepare: int = setting(1, rules.one_of(0, 1))
    # seconds without progress until the worker is killed; and those of single stages
    stage_timeout: int = setting(limits.STAGE_TIMEOUT, rules.whole(1))
    stage_timeouts: str = setting("", rules.numbers_of("seconds of stages", tuple(stage.name for stage in STAGES)))
    max_queue: int = setting(limits.MAX_QUEUE, rules.whole(1))  # jobs waiting; one more is refused
    # of them, of one visitor on a shared address; 0: no limit of their own
    max_queue_per_visitor: int = setting(limits.MAX_QUEUE_PER_VISITOR, rules.whole(0))
    max_prompt: int = setting(limits.MAX_PROMPT, rules.whole(1))  # characters
    max_upload_mb: int = setting(limits.MAX_UPLOAD_MB, rules.whole(1, 100_000))
    max_uploads_gb: float = setting(limits.MAX_UPLOADS_GB, rules.number(0.001, 1_000_000))  # all that wait
    # frames x width x height of one job, in millions
    max_job_megapixels: float = setting(limits.MAX_JOB_MEGAPIXELS, rules.number(0.001, 1_000_000))
    max_segments: int = setting(limits.MAX_SEGMENTS, rules.whole(1))  # of a clip that goes on from its last frame
    max_clip_seconds: float = setting(limits.MAX_CLIP_SECONDS, rules.number(1, 100_000))  # of a clip that is continued
    # of speech; longer audio is refused
    max_audio_seconds: float = setting(limits.MAX_AUDIO_SECONDS, rules.number(1, 100_000))
    # 1: on a shared address, too, anybody may start downloads of models from the page
    shared_downloads: int = setting(0, rules.one_of(0, 1))
    # of one person; the oldest finished clips are deleted beyond this, and those older than that; 0 keeps them
    max_outputs_gb: float = setting(limits.MAX_OUTPUTS_GB, rules.number(0, 1_000_000))
    max_output_days: float = setting(limits.MAX_OUTPUT_DAYS, rules.number(0, 1_000_000))
    # of all visitors of a shared address together; 0: no limit
    max_visitors_gb: float = setting(limits.MAX_VISITORS_GB, rules.number(0, 1_000_000))
    max_cache_gb: float = setting(limits.MAX_CACHE_GB, rules.number(0, 1_000_000))  # 0: no limit
    lang: str = setting("auto", rules.one_of("auto", *LANGUAGES))  # of the command line; auto: as the terminal's
    threads: int = setting(0, rules.whole(0, 1024))  # CPU threads for torch; 0: all that this process may use

    def __post_init__(self) -> None:
        for known in fields(self):
            value = read(known.name, getattr(self, known.name))
            object.__setattr__(self, known.name, value)


RULES = {known.name: known.metadata["rule"] for known in fields(Settings)}


def variable(name: str) -> str:
    """The variable that sets a field."""
    return f"WAN_UI_{name.upper()}"


def read(name: str, value: Any, source: str = "") -> Any:
    """A setting's value by its rule. Raises UserError naming `source`, where it came from (default: its variable)."""
    rule = RULES[name]
    try:
        return rule.read(value)
    except ValueError:
        shown = "" if rule.secret else f"={str(value)!r}"
        raise UserError(f"{source or variable(name)}{shown}: expected {rule.allowed}") from None


def split_names(text: str) -> tuple[str, ...]:
    """ "a, b" -> ("a", "b")"""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def load_settings(environ: dict[str, str]) -> Settings:
    """Settings from the defaults and `environ`. Raises UserError naming a bad or unknown variable."""
    set_here = {
        name: text
        for name, text in environ.items()
        if text.strip() and not SERVICE.fullmatch(name) and not SERVICE_ADDRESS.fullmatch(text)
    }
    known = [variable(name) for name in RULES]
    unknown = sorted(name for name in set_here if name.startswith("WAN_UI_") and name not in known)
    if unknown:
        raise UserError(f"unknown setting {unknown[0]}; known are: {', '.join(known)}")
    values = {}
    for name in RULES:
        sources = (variable(name), ALIASES.get(variable(name), ""))
        source = next((source for source in sources if source in set_here), "")
        if source:
            values[name] = read(name, set_here[source], source)
    if "cache" not in values and not _home_cache():
        values["cache"] = values.get("outputs", _own_folder() / "outputs") / "cache"
    settings = Settings(**values)
    _check_names(settings)
    return settings


def _check_names(settings: Settings) -> None:
    """What can only be told by looking at other files."""
    catalog = load_catalog(settings.catalog)
    if settings.model not in catalog:
        raise UserError(f"WAN_UI_MODEL={settings.model!r}: expected one of {', '.join(catalog)}")
    try:
        if not settings.scheme.startswith("found-"):  # what is here is looked for when it is loaded
            catalog[settings.model].scheme(settings.scheme)
    except UserError:
        schemes = ", ".join(catalog[settings.model].schemes)
        raise UserError(f"WAN_UI_SCHEME={settings.scheme!r}: expected one of {schemes} (of {settings.model})") from None
    for folder in split_names(settings.comfyui):
        if not os.path.isdir(os.path.expanduser(folder)):
            raise UserError(f"WAN_UI_COMFYUI: {folder!r} is no folder; expected {RULES['comfyui'].allowed}")
    path = settings.lightx2v_path
    if path and not os.path.isfile(os.path.join(path, "lightx2v", "infer.py")):
        raise UserError(f"WAN_UI_LIGHTX2V_PATH={path!r}: expected {RULES['lightx2v_path'].allowed}")


_current: Settings | None = None


def use(values: Settings) -> None:
    """Make `values` the settings of this process: the worker is handed its parent's."""
    global _current
    _current = values


def settings() -> Settings:
    """The settings of this process. Raises UserError when the environment has a bad value."""
    if _current is None:
        loaded = load_settings(dict(os.environ))
        use(loaded)
        _stand_in_home(loaded)
        return loaded
    return _current


def terminal_language() -> str:
    """Of LANGUAGES, for what the command line says, errors of the settings themselves included."""
    wanted = os.environ.get("WAN_UI_LANG", "").strip()
    if wanted in LANGUAGES:
        return wanted
    locale = next(filter(None, (os.environ.get(name) for name in ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    return "zh" if locale.lower().startswith("zh") else "en"


def default_environment(values: dict[str, str]) -> None:
    """Set variables that a library reads at its import, where the host has not set them itself."""
    for name, value in values.items():
        os.environ.setdefault(name, value)


def set_environment(values: dict[str, str]) -> None:
    """Of a worker's process, at its start: what it is to see, whatever the host has set for the page."""
    os.environ.update(values)


def lent_gpu() -> bool:
    """Whether this is a Space of Hugging Face's ZeroGPU, whose GPU is there in its own calls alone."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def visible_devices() -> str | None:
    """What the host lets CUDA see; None: all."""
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def _stand_in_home(values: Settings) -> None:
    """Libraries (triton, torch, the hub's) look for a home and a user's name at import or later, and raise without."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(values.cache)
    try:
        getpass.getuser()
    except (KeyError, OSError):  # a user id that is in no list of users
        os.environ["USER"] = "wan-ui"


def page_environment(values: Settings) -> Path:
    """What Gradio reads at its import, to be called before; the folder of uploads.

    /tmp/gradio, its own choice, may be another user's. The self-test that it makes over HTTP must not go through a
    proxy, and it raises at import for a SOCKS proxy; the page fetches nothing but downloads, which ask `proxies`.
    Before it listens it tries the port on an IPv4 socket, whatever the address.
    """
    default_environment({"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(values.outputs / "uploads")})
    os.environ.update({"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(values.port)})
    global _proxies
    _proxies = proxies()
    for name in list(os.environ):
        if re.fullmatch(r"(?i)(http|https|all|ws|wss|ftp)_proxy", name):
            del os.environ[name]
    return Path(os.environ["GRADIO_TEMP_DIR"])


_proxies: dict[str, str] | None = None


def proxies() -> dict[str, str]:
    """Scheme -> proxy, as the host has set them; NO_PROXY stays in the environment."""
    if _proxies is not None:
        return _proxies
    found = urllib.request.getproxies()
    return {scheme: found[name] for scheme in ("http", "https") for name in ("all", scheme) if name in found}


def ray_token() -> tuple[Path, bool]:
    """The file in which Ray looks for its token, and whether the token stands in the environment itself."""
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return Path(path) if path else Path.home() / ".ray" / "auth_token", bool(os.environ.get("RAY_AUTH_TOKEN"))


def child_environment(values: dict[str, str]) -> dict[str, str]:
    """This process's environment with `values`, for a child."""
    return {**os.environ, **values}
