"""Two handles on one line, for a part of a clip or of a sound; what they do is in handles.js."""


def handles_html(steps: int, rate: float, least: int, leap: int = 1, names: bool = False) -> str:
    """steps: of the whole; rate: of them a second; least: between the handles; leap: of an arrow key. names: they are
    fields of a form."""
    limits = f'type="range" min="0" max="{steps}" step="1" data-rate="{rate:g}" data-least="{least}" data-leap="{leap}"'
    start, end = (f'name="{name}" ' if names else "" for name in ("start", "end"))
    return (
        f'<div class="w-trim"><input {start}data-handle="start" {limits} value="0" aria-label="Begins at">'
        f'<input {end}data-handle="end" {limits} value="{steps}" aria-label="Ends at"></div>'
        f'<output class="w-trim-words w-quiet">All of it, {steps / rate:.1f} s</output>'
    )
