"""The page: page.py builds it, launch.py serves it, handlers/ is what its events do, seams.py what Gradio must have."""

from wan_ui.ui import light_gradio  # noqa: F401, before whatever else imports Gradio
