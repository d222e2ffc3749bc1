"""Who is asking, and what this browser was looking at.

The browser keeps {"owner": token, "job": id, "follow": ids, "loras": chosen, "tray": its pictures,
"form": its values} in its local
storage, so that a reload finds its jobs and its form again. On a loopback address there is one person, called
"local", who shares the history with the command line. On any other address each browser is an owner of its own,
known by a random token.
"""

import re
import secrets

import gradio as gr
from gradio.context import LocalContext

from wan_ui.scrub import clean
from wan_ui.settings import Settings
from wan_ui.ui.visitor import is_loopback

# Not a secret: local storage is readable in its own browser anyway. Fixed, so that a restart of the
# app can still read what the browser kept.
KEY, SECRET = "wan-ui", "wan-ui-browser-state"
TOKEN = re.compile(r"[0-9a-f]{32}")
NOTHING = {"owner": "", "job": "", "follow": [], "loras": [], "tray": [], "form": {}}


def browser_state() -> gr.BrowserState:
    return gr.BrowserState(dict(NOTHING), storage_key=KEY, secret=SECRET)


def is_local(settings: Settings) -> bool:
    """Whether the event that is being answered comes from the person at this machine; see guard.Guard."""
    request = LocalContext.request.get(None)
    said = request.headers.get("wan-ui-visitor") if request is not None else None
    return is_loopback(settings.host) and said in (None, "local")


def asker(settings: Settings) -> str:
    """The address of the visitor whose event is being answered, as guard.Guard says it; "" of the person here."""
    request = LocalContext.request.get(None)
    return "" if request is None or is_local(settings) else request.headers.get("wan-ui-address", "")


def may_download(owner: str, settings: Settings) -> bool:
    """On a shared address strangers could fill the disk: only where a setting allows it."""
    return owner == "local" or bool(settings.shared_downloads)


def for_visitor(words: str, settings: Settings) -> str:
    """Words as whoever asks may read them: where files lie is for the person at this machine alone."""
    return words if is_local(settings) else clean(words, settings)


def identify(browser: dict | None, settings: Settings) -> tuple[dict, str]:
    """What the browser keeps, with a token if it had none, and the owner it stands for."""
    kept = {**NOTHING, **(browser if isinstance(browser, dict) else {})}
    kept["job"] = kept["job"] if isinstance(kept["job"], str) and len(kept["job"]) < 100 else ""
    kept = {key: kept[key] for key in NOTHING}
    if not (isinstance(kept["owner"], str) and TOKEN.fullmatch(kept["owner"])):
        kept["owner"] = secrets.token_hex(16)
    # The prefix keeps a forged token from ever being another kind of owner.
    return kept, "local" if is_local(settings) else f"browser-{kept['owner']}"
