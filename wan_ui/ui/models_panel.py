"""What can run here and what cannot, each with its reason."""

import gradio as gr

from wan_ui import weights
from wan_ui.catalog import Model, Scheme
from wan_ui.settings import Settings
from wan_ui.ui.markup import text


def usable(catalog: dict[str, Model], settings: Settings) -> dict[str, list[Scheme]]:
    """Models that can run here with the schemes that can."""
    found = {}
    for name, model in catalog.items():
        ready = [scheme for scheme in model.schemes.values() if not weights.availability(model, scheme, settings)]
        if ready:
            found[name] = ready
    return found


def build_models_panel() -> gr.HTML:
    with gr.Accordion("Models", open=False, elem_id="models", elem_classes="w-part"):
        return gr.HTML("", elem_id="models-table", apply_default_css=False)


def models_html(catalog: dict[str, Model], settings: Settings, loaded: tuple[str, str] = ("", "")) -> str:
    rows = []
    for model in catalog.values():
        for scheme in model.schemes.values():
            reason = weights.availability(model, scheme, settings)
            if (model.name, scheme.name) == loaded:
                kind, words = "good", "loaded"
            else:
                kind, words = ("idle", reason) if reason else ("good", "can run here")
            rows.append(
                f"<tr><td>{text(model.title)}</td><td>{text(scheme.title)}</td>"
                f'<td><span class="w-dot {kind}"></span> {text(words)}</td></tr>'
            )
    return (
        '<table class="w-table"><thead><tr><th scope="col">Model</th><th scope="col">Weights</th>'
        f'<th scope="col">On this machine</th></tr></thead><tbody>{"".join(rows)}</tbody></table>'
    )
