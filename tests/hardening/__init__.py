import wan_ui.ui  # noqa: F401 - before the tests import Gradio: it is a second slower then
