"""Looks: one theme built on Gradio's bare base, our style sheet, and no font that must be fetched.

The colours are CSS variables in style.css, with a light and a dark value each; the theme only points
Gradio's own variables at them, so that native controls and our own HTML cannot drift apart. All text
pairs reach a contrast of 4.5:1 (tests/ui checks them with axe-core in both modes).
"""

from pathlib import Path

import gradio as gr

HERE = Path(__file__).parent
CSS = [HERE / "style.css", HERE / "qa.css"]
FAVICON = HERE / "favicon.svg"
FIRST_SCRIPTS = [HERE / f"{name}.js" for name in ("still", "english")]
SCRIPTS = [HERE / f"{name}.js" for name in ("words", "acts", "stream", "page", "files", "done", "handles")]

SANS = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "DejaVu Sans", "sans-serif")
MONO = ("ui-monospace", "SF Mono", "Cascadia Mono", "DejaVu Sans Mono", "monospace")

# Gradio variable -> ours. The same value serves for dark mode: ours switch by themselves.
POINTERS = {
    "body_background_fill": "var(--w-page)",
    "body_text_color": "var(--w-text)",
    "body_text_color_subdued": "var(--w-muted)",
    "background_fill_primary": "var(--w-card)",
    "background_fill_secondary": "var(--w-sunken)",
    "border_color_primary": "var(--w-line)",
    "border_color_accent": "var(--w-accent)",
    "block_background_fill": "transparent",
    "block_border_color": "var(--w-line)",
    "block_label_background_fill": "transparent",
    "block_label_text_color": "var(--w-text)",
    "block_title_text_color": "var(--w-text)",
    "block_info_text_color": "var(--w-muted)",
    "input_background_fill": "var(--w-field)",
    "input_background_fill_focus": "var(--w-field)",
    "input_border_color": "var(--w-line-strong)",
    "input_border_color_focus": "var(--w-accent)",
    "input_placeholder_color": "var(--w-muted)",
    "button_primary_background_fill": "var(--w-strong)",
    "button_primary_background_fill_hover": "var(--w-strong-hover)",
    "button_primary_text_color": "var(--w-on-strong)",
    "button_primary_border_color": "transparent",
    "button_secondary_background_fill": "var(--w-field)",
    "button_secondary_background_fill_hover": "var(--w-sunken)",
    "button_secondary_text_color": "var(--w-text)",
    "button_secondary_border_color": "var(--w-line-strong)",
    "checkbox_label_background_fill": "var(--w-field)",
    "checkbox_label_background_fill_hover": "var(--w-sunken)",
    "checkbox_label_background_fill_selected": "var(--w-accent-soft)",
    "checkbox_label_text_color": "var(--w-text)",
    "checkbox_label_text_color_selected": "var(--w-accent-text)",
    "checkbox_label_border_color": "var(--w-line-strong)",
    "checkbox_label_border_color_selected": "var(--w-accent)",
    "checkbox_background_color_selected": "var(--w-accent)",
    "checkbox_border_color_selected": "var(--w-accent)",
    "slider_color": "var(--w-accent)",
    "link_text_color": "var(--w-accent-text)",
    "error_background_fill": "var(--w-bad-soft)",
    "error_text_color": "var(--w-bad)",
    "error_border_color": "var(--w-bad)",
    "color_accent": "var(--w-accent)",
    "color_accent_soft": "var(--w-accent-soft)",
}
SHAPES = {
    "block_border_width": "0px",
    "block_shadow": "none",
    "block_padding": "0px",
    "block_radius": "12px",
    "block_title_text_weight": "550",
    "block_title_text_size": "13px",
    "block_label_text_size": "13px",
    "block_info_text_size": "12.5px",
    "input_radius": "10px",
    "input_border_width": "1px",
    "input_shadow": "none",
    "input_shadow_focus": "0 0 0 3px var(--w-accent-soft)",
    "input_text_size": "14.5px",
    "button_large_radius": "10px",
    "button_small_radius": "9px",
    "button_large_text_weight": "600",
    "button_primary_shadow": "none",
    "button_secondary_shadow": "none",
    "checkbox_label_padding": "6px 11px",
    "checkbox_label_shadow": "none",
    "layout_gap": "18px",
    "form_gap_width": "0px",
    "section_header_text_weight": "600",
}


def build_theme() -> gr.themes.Base:
    theme = gr.themes.Base(
        primary_hue="indigo", neutral_hue="zinc", font=SANS, font_mono=MONO, radius_size="md", text_size="md"
    )
    values = dict(SHAPES)
    for name, value in POINTERS.items():
        values[name] = value
        if hasattr(theme, f"{name}_dark"):
            values[f"{name}_dark"] = value
    return theme.set(**values)
