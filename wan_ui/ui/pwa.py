"""What the page is given beside Gradio's own: its words in Chinese, and what makes it an app that a browser may
install, with a window and an icon.

Gradio's own manifest has an icon that it cannot draw and is linked at the host's root, where a proxy may have another
program. There is no service worker: without the server the page can do nothing.
"""

from pathlib import Path

from starlette.responses import FileResponse, JSONResponse, Response

from wan_ui.ui.markup import Markup
from wan_ui.words.translate import TABLE

HERE = Path(__file__).parent
ICONS = {"icon-192.png": "any", "icon-512.png": "any", "icon-maskable.png": "maskable"}
SIZES = {"icon-192.png": "192x192"}
# Addresses are relative to the manifest's own, so that they are right below any path of a proxy.
MANIFEST = {
    "name": "Wan UI",
    "short_name": "Wan UI",
    "description": "A picture and a sentence become a moving clip.",
    "id": "./",
    "start_url": "./",
    "scope": "./",
    "display": "standalone",
    "background_color": "#111113",
    "theme_color": "#5b5bd6",
    "icons": [
        {"src": name, "sizes": SIZES.get(name, "512x512"), "type": "image/png", "purpose": purpose}
        for name, purpose in ICONS.items()
    ],
}
# Gradio's own page links the host's root.
HEAD = Markup(
    '<meta name="theme-color" content="#5b5bd6"><link rel="apple-touch-icon" href="./icon-192.png">'
    """<script>document.querySelector("link[rel=manifest]")?.setAttribute("href", "./manifest.json");</script>"""
)


def answer(path: str) -> Response | None:
    """The manifest, an icon or the table of words; None for other addresses."""
    name = path.strip("/")
    if name == "words/zh.json":
        return FileResponse(TABLE, media_type="application/json", headers={"cache-control": "no-cache"})
    if name == "manifest.json":
        return JSONResponse(MANIFEST, media_type="application/manifest+json")
    return FileResponse(HERE / name, media_type="image/png") if name in ICONS else None
