"""The page is served: in a thread, on the machine's own terms (server.py), behind the guard (guard.py)."""

import logging
import sys
import threading
import time
from pathlib import Path

import gradio as gr
from gradio.routes import templates
from gradio.utils import get_upload_folder
from jinja2 import ChoiceLoader, DictLoader
from starlette.middleware import Middleware

from wan_ui import limits
from wan_ui.settings import Settings
from wan_ui.ui import examples, frontend, mcp_tools, server, uploads
from wan_ui.ui.aliases import Aliases
from wan_ui.ui.guard import VISITOR, Guard
from wan_ui.ui.kept_events import keep_events
from wan_ui.ui.markup import Markup
from wan_ui.ui.pwa import HEAD
from wan_ui.ui.rest import build_rest
from wan_ui.ui.security import harden
from wan_ui.ui.theme import CSS, FAVICON, FIRST_SCRIPTS, SCRIPTS, build_theme

SLOWED = f"After {limits.LOGIN_TRIES} wrong tries this form waits for half a minute before each further one."


def launch(page: gr.Blocks, settings: Settings, clips_folder: str) -> None:
    """Serve in a thread, and say where."""
    if settings.mcp:
        mcp_tools.check_package()
    logging.getLogger("httpx").setLevel(logging.WARNING)  # Gradio asks itself whether it is up
    harden()
    folder = Path(get_upload_folder())
    uploads.keep_clean(folder, _is_ours(folder, settings))
    ready, rest = threading.Event(), build_rest(settings)
    server.install(settings, lambda app: Guard(app, rest, settings, ready))
    begin_with(FIRST_SCRIPTS)
    keep_events(page._queue)
    page._queue.sleep_when_free = 0.02  # seconds between looks at it; 0.001, its own, is 5 % of a core for an idle app
    page._queue.ANAYLTICS_CACHE_FREQUENCY = sys.maxsize  # events between statistics, with pandas, that nobody can see
    name, _, password = settings.auth.partition(":")
    page.launch(
        server_name=f"[{settings.host}]" if ":" in settings.host else settings.host,
        server_port=settings.port,
        auth=(name, password) if settings.auth else None,
        auth_message=SLOWED,  # Gradio's form says nothing when it is not answered
        # Every clip lies under an id that cannot be guessed; the examples are everybody's.
        allowed_paths=[clips_folder, str(examples.FOLDER)],
        max_file_size=f"{settings.max_upload_mb}mb",
        app_kwargs={"middleware": [Middleware(Aliases, folder=folder, header=VISITOR.decode())]},
        root_path=settings.root_path,
        theme=build_theme(),
        css_paths=CSS,
        head=HEAD
        + Markup().join(
            Markup("<script>{}</script>").format(Markup(script.read_text(encoding="utf-8"))) for script in SCRIPTS
        ),
        favicon_path=FAVICON,
        footer_links=["api"],
        share=False,
        run_history=False,
        state_session_capacity=limits.SESSIONS,
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=bool(settings.mcp),
        quiet=True,
        prevent_thread_lock=True,
        _frontend=False,  # it would ask itself for the page and give up when that takes more than 3 s
    )
    if settings.mcp:
        mcp_tools.offer(page)
    ready.set()
    print(f"Wan UI: {page.local_url}", flush=True)


def begin_with(scripts: list[Path]) -> None:
    """Let the page begin with scripts; those of `head` run when Gradio's own have long begun."""
    name = "frontend/index.html"
    loader = templates.env.loader
    assert loader is not None
    html, *_ = loader.get_source(templates.env, name)
    head = Markup("<head>")
    assert html.count(head) == 1, "Gradio's page has another form"
    first = Markup().join(
        Markup("<script>{{% raw %}}{}{{% endraw %}}</script>").format(Markup(script.read_text(encoding="utf-8")))
        for script in scripts
    )
    for word, pattern in (("STATUS_TRACKER", "statustracker-*.js"), ("APP_TREE", "core-*.js")):
        (file,) = frontend.FOLDER.glob(pattern)
        first = first.replace(word, f"./assets/{file.name}")
    html = html.replace(head, head + first)
    templates.env.loader = ChoiceLoader([DictLoader({name: html}), loader])


def tidy(settings: Settings) -> None:
    """Once nothing is served: of uploads that were still arriving nothing is left."""
    folder = Path(get_upload_folder())
    if _is_ours(folder, settings):
        uploads.collect(folder, time.time(), idle=-1.0)


def _is_ours(folder: Path, settings: Settings) -> bool:
    """Whether no other app uploads there."""
    return folder.is_relative_to(settings.outputs)
