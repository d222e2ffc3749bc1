"""The insides of Gradio and uvicorn that this page replaces, overrides or reads: one list, checked at the start.

None of them is promised by anybody, and most fail silently: a function that is replaced under a name which nobody looks
up any more replaces nothing, and the server fetches for strangers again. So each entry says where it is, what it is
called with, and whose code looks it up; what is not so is an error by name before the page is served.
"""

import inspect
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from gradio.components import Component

from wan_ui.code_names import names_in
from wan_ui.errors import UserError


@dataclass(frozen=True)
class Seam:
    """place    module:name, as `pkgutil.resolve_name` has it
    takes       names that its parameters begin with, without self
    has         attributes of a class, also those that its `__init__` sets
    used_by     places of those whose code looks the last part of the name up: they get what takes its place
    """

    place: str
    takes: tuple[str, ...] = ()
    has: tuple[str, ...] = ()
    used_by: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.place.rpartition(":")[2].rpartition(".")[2]


SEAMS = (
    # security.py replaces
    Seam(
        "gradio.processing_utils:async_ssrf_protected_get",
        takes=("url",),
        used_by=("gradio.processing_utils:async_ssrf_protected_download",),
    ),
    Seam(
        "gradio.routes:secure_url_stream_response",
        takes=("url", "request"),
        used_by=("gradio.routes:App.create_app",),
    ),
    Seam(
        "gradio.route_utils:GradioMultiPartParser",
        takes=("headers", "stream"),
        has=("on_headers_finished", "parse", "_current_part", "_files_to_close_on_error"),
        used_by=("gradio.route_utils:upload_fn",),
    ),
    Seam(
        "gradio.state_holder:SessionState",
        takes=("blocks",),
        has=("blocks_config", "config_values", "_update_config", "_update_value_in_config", "__setitem__"),
        used_by=("gradio.state_holder:StateHolder.__getitem__",),
    ),
    Seam("gradio.route_utils:SessionState", used_by=("gradio.route_utils:restore_session_state",)),
    # guard.py reads
    Seam("gradio.routes:App", has=("cookie_id", "tokens")),
    # security.py overrides
    Seam("gradio.blocks:Blocks.preprocess_data", takes=("block_fn", "inputs", "state", "explicit_call")),
    Seam("gradio.blocks:Blocks.call_function", takes=("block_fn", "processed_input")),
    Seam("gradio.blocks:Blocks.postprocess_data", takes=("block_fn", "predictions", "state")),
    # server.py replaces and overrides
    Seam(
        "gradio.http_server:start_server",
        takes=("app", "server_name", "server_port"),
        used_by=("gradio.blocks:Blocks.launch",),
    ),
    Seam("gradio.http_server:Server", takes=("config",), has=("run_in_thread", "run", "close", "thread")),
    Seam("uvicorn:Server", takes=("config",), has=("run", "started", "should_exit")),
    Seam(
        "uvicorn.protocols.http.h11_impl:H11Protocol",
        has=(
            *("connection_made", "connection_lost", "data_received"),
            *("client", "conn", "loop", "transport", "timeout_keep_alive_task"),
        ),
    ),
    # light_gradio.py hides the sources from it; launch.py slows the looks at the queue down, and leaves its statistics
    Seam("gradio.component_meta:create_or_modify_pyi", used_by=("gradio.component_meta:ComponentMeta.__new__",)),
    Seam("gradio.blocks:Blocks", has=("_queue",)),
    Seam("gradio.queueing:Queue", has=("sleep_when_free", "ANAYLTICS_CACHE_FREQUENCY")),
    # kept_events.py replaces the one and overrides the other
    Seam("gradio.queueing:Queue.clean_events", takes=("session_hash", "event_id")),
    Seam("gradio.utils:LRUCache", has=("__setitem__",)),
    # read by values.py, session.py and filling.py
    Seam("gradio.events:EventData", has=("_data",)),
    Seam("gradio.context:LocalContext.request"),
    Seam("gradio.processing_utils:save_file_to_cache", takes=("file_path", "cache_dir")),
    # rest.py calls it; mcp_tools.py replaces two of the second's on its one instance
    Seam("gradio.route_utils:upload_fn", takes=("request", "upload_dir", "max_file_size", "upload_id")),
    Seam("gradio.mcp:GradioMCPServer", takes=("blocks",), has=("tool_to_endpoint", "postprocess_output_data")),
    Seam("gradio.blocks:Blocks", has=("mcp_server_obj", "mcp_error")),
    # api.py replaces it on three components
    Seam("gradio.components:Component.example_payload"),
)


def check(seams: tuple[Seam, ...] = SEAMS) -> None:
    """Raises UserError that names every one that is not as it was."""
    wrong = [f"{seam.place} {fault}" for seam in seams for fault in _faults(seam)]
    if wrong:
        raise UserError(
            f"gradio: version {version('gradio')} is not the one that this page was made for: {'; '.join(wrong)}. "
            "Install the versions in requirements.txt"
        )


def replace(place: str, ours: Any) -> None:
    """Put `ours` at a place that SEAMS has."""
    if place not in [seam.place for seam in SEAMS]:
        raise KeyError(f"{place} is not in SEAMS")
    module, _, name = place.partition(":")
    setattr(pkgutil.resolve_name(module), name, ours)


def replace_on(component: Component, name: str, ours: Any) -> None:
    """On this one component alone; SEAMS has it of all."""
    if f"gradio.components:Component.{name}" not in [seam.place for seam in SEAMS]:
        raise KeyError(f"{name} of a component is not in SEAMS")
    setattr(component, name, ours)


def _faults(seam: Seam) -> Iterator[str]:
    try:
        found = pkgutil.resolve_name(seam.place)
    except (ImportError, AttributeError):
        yield "is not there"
        return
    if seam.takes:
        taken = [name for name in inspect.signature(found).parameters if name != "self"]
        if tuple(taken[: len(seam.takes)]) != seam.takes:
            yield f"takes ({', '.join(taken)}), not ({', '.join(seam.takes)}, ...)"
    known = {name for part in getattr(found, "__mro__", ()) for name in (*vars(part), *_set_by(part))}
    for name in seam.has:
        if name not in known:
            yield f"has no {name}"
    for user in seam.used_by:
        try:
            code = inspect.unwrap(pkgutil.resolve_name(user)).__code__
        except (ImportError, AttributeError):
            yield f"was used by {user}, which is not there"
            continue
        if seam.name not in names_in(code):
            yield f"is not used by {user} any more"


def _set_by(part: type) -> set[str]:
    """Names in the code of a class's methods: the attributes that they set are among them."""
    methods = [method for method in vars(part).values() if inspect.isfunction(method)]
    return {name for method in methods for name in names_in(method.__code__)}
