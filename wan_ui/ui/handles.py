"""Two handles on one line, for a part of a clip or of a sound; what they do is in handles.js."""

from wan_ui.ui.markup import Markup


def handles_html(steps: int, rate: float, least: int, leap: int = 1, names: bool = False) -> Markup:
    """steps: of the whole; rate: of them a second; least: between the handles; leap: of an arrow key. names: they are
    fields of a form."""
    limits = Markup(
        'type="range" min="0" max="{steps}" step="1" data-rate="{rate:g}" data-least="{least}" data-leap="{leap}"'
    ).format(steps=steps, rate=rate, least=least, leap=leap)
    start, end = (Markup('name="{}" ').format(name) if names else Markup() for name in ("start", "end"))
    return Markup(
        '<div class="w-trim"><input {start}data-handle="start" {limits} value="0" aria-label="Begins at">'
        '<input {end}data-handle="end" {limits} value="{steps}" aria-label="Ends at"></div>'
        '<output class="w-trim-words w-quiet">All of it, {seconds:.1f} s</output>'
    ).format(start=start, limits=limits, end=end, steps=steps, seconds=steps / rate)
