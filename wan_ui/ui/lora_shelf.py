"""The LoRA shelf, folded until it is pressed: pictures, search, tags, words for the prompt; one press adds a LoRA, or
both files of one that has a file for each expert.

What is searched and which tags are on is the browser's; a tile's `data-words` has all that is looked through.
"""

import re
from collections import Counter
from collections.abc import Sequence

import gradio as gr

from wan_ui import loras
from wan_ui.catalog import Model
from wan_ui.loras.covers import cover_of
from wan_ui.loras.pairs import likely
from wan_ui.settings import Settings
from wan_ui.ui.lora_picker import TARGET_WORDS, refused
from wan_ui.ui.lora_pictures import offer
from wan_ui.ui.markup import Markup

MOST_TAGS = 12  # that can be pressed
SCRIPT = """
const events = ['open_shelf', 'take_lora'];
let words = '', tags = new Set();
const look = () => {
  const search = element.querySelector('input[type=search]');
  if (!search) return;
  if (search.value !== words && document.activeElement !== search) search.value = words;
  const wanted = words.toLowerCase().split(/\\s+/).filter(Boolean);
  const tiles = [...element.querySelectorAll('[data-words]')];
  let shown = 0;
  for (const tile of tiles) {
    const has = wanted.every((word) => tile.dataset.words.includes(word))
      && [...tags].every((tag) => tile.dataset.tags.split('\\n').includes(tag));
    tile.hidden = !has;
    shown += has;
  }
  for (const chip of element.querySelectorAll('[data-tag]')) {
    chip.setAttribute('aria-pressed', tags.has(chip.dataset.tag));
  }
  const found = shown ? `${shown} of ${tiles.length}` : 'Nothing on the shelf has all of that.';
  element.querySelector('[data-found]').textContent = shown === tiles.length ? '' : found;
};
element.addEventListener('input', (event) => {
  if (event.target.type !== 'search') return;
  words = event.target.value;
  look();
});
element.addEventListener('click', (event) => {
  const tag = event.target.closest('[data-tag]')?.dataset.tag;
  if (tag !== undefined) {
    if (!tags.delete(tag)) tags.add(tag);
    look();
  }
  const button = event.target.closest('[data-do]');
  if (!button || !events.includes(button.dataset.do)) return;
  if (button.dataset.do === 'take_lora') window.wanUi.changes();
  const files = (button.dataset.files || '').split('\\n');
  trigger(button.dataset.do, { files, open: button.dataset.open === 'true' });
});
// A picture that cannot be shown leaves the drawn one.
element.addEventListener('error', (event) => { if (event.target.matches('img')) event.target.remove(); }, true);
let focused = '';
element.addEventListener('focusin', (event) => { focused = event.target.dataset.key || ''; });
element.addEventListener('focusout', (event) => { if (event.relatedTarget) focused = ''; });
watch('value', () => {
  look();
  if (focused && !element.contains(document.activeElement)) {
    element.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }
});
"""


def build_lora_shelf() -> gr.HTML:
    return gr.HTML(shelf_button(False), elem_id="lora-shelf", js_on_load=SCRIPT, apply_default_css=False)


def shelf_button(is_open: bool) -> Markup:
    words, turned = ("Close the shelf", "false") if is_open else ("LoRA shelf: pictures, search, words", "true")
    return Markup(
        '<button type="button" class="w-shelf-open" data-do="open_shelf" data-open="{to}" data-key="shelf" '
        'aria-expanded="{expanded}">{words}</button>'
    ).format(to=turned, expanded=str(is_open).lower(), words=words)


def shelf_html(chosen: Sequence[dict], model: Model, settings: Settings, *, is_open: bool) -> Markup:
    if not is_open:
        return shelf_button(False)
    entries = [entry for entry in loras.available(settings) if not refused(entry, model)]
    pairs = likely(entries)
    taken = {spec["file"] for spec in chosen}
    tiles = Markup().join(_tile(entry, pairs.get(entry.name), taken, model) for entry in entries)
    counts = Counter(tag for entry in entries for tag in entry.tags)
    chips = Markup().join(
        Markup(
            '<button type="button" class="w-chip" data-tag="{tag}" data-key="tag {tag}" aria-pressed="false">'
            "{tag}</button>"
        ).format(tag=tag)
        for tag, _ in counts.most_common(MOST_TAGS)
    )
    tags = Markup('<div class="w-chips" role="group" aria-label="Tags">{}</div>').format(chips) if chips else Markup()
    search = Markup(
        '<input type="search" data-key="search" placeholder="Search names, tags and words" '
        'aria-label="Search the LoRA shelf">'
    )
    nothing = Markup('<p class="w-quiet">No LoRA for this model is here yet.</p>')
    body = (
        Markup('{search}{tags}<p class="w-quiet" role="status" data-found></p><ul>{tiles}</ul>').format(
            search=search, tags=tags, tiles=tiles
        )
        if entries
        else nothing
    )
    return Markup('{button}<section class="w-shelf" aria-label="LoRA shelf">{body}</section>').format(
        button=shelf_button(True), body=body
    )


def _tile(entry: loras.LoraEntry, pair: tuple[str, str] | None, taken: set[str], model: Model) -> Markup:
    parts = ["a file for each expert" if entry.paired else ""]
    if entry.made_for in TARGET_WORDS and not entry.paired and not model.family.single:
        parts.append(TARGET_WORDS[entry.made_for].lower())
    ranks = sorted({entry.ranks[0], entry.ranks[-1]}) if entry.ranks else []
    parts.append(f"rank {' to '.join(map(str, ranks))}" if ranks else "")
    parts.append(entry.notes if len(entry.notes) <= 90 else f"{entry.notes[:89]}…")
    about = " · ".join(filter(None, parts))
    searched = "\n".join([entry.name, entry.notes, *entry.tags, *entry.trigger_words]).lower()
    words = Markup().join(
        Markup(
            '<button type="button" class="w-chip" data-phrase="{word}" data-key="shelf word {word}" '
            'title="Add to the prompt">{word}</button>'
        ).format(word=word)
        for word in entry.trigger_words
    )
    chips = (
        Markup('<div class="w-chips" role="group" aria-label="Words for the prompt">{}</div>').format(words)
        if words
        else Markup()
    )
    tags = "\n".join(entry.tags)
    title = entry.name.rpartition("/")[2].removesuffix(".safetensors")
    return Markup(
        '<li data-shelf="{name}" data-words="{searched}" data-tags="{tags}">'
        '{picture}<div class="w-shelf-about"><b title="{name}" translate="no">{title}</b>'
        '<span class="w-quiet">{about}</span>{chips}{buttons}</div></li>'
    ).format(
        name=entry.name,
        searched=searched,
        tags=tags,
        picture=_picture(entry, title),
        title=title,
        about=about,
        chips=chips,
        buttons=_buttons(entry, pair, taken),
    )


def _picture(entry: loras.LoraEntry, title: str) -> Markup:
    """Its own over a drawn one, which stays where there is none or a broken one."""
    hue = sum(entry.name.encode("utf-8", "replace")) * 37 % 360
    letters = "".join(word[0] for word in re.findall(r"[^\W_]+", title)[:2]).upper()
    cover = cover_of(entry)
    shown = Markup('<img src="{}" alt="" loading="lazy">').format(offer(cover)) if cover else Markup()
    return Markup(
        '<div class="w-shelf-picture" style="--hue:{hue}"><span aria-hidden="true">{letters}</span>{shown}</div>'
    ).format(hue=hue, letters=letters, shown=shown)


def _buttons(entry: loras.LoraEntry, pair: tuple[str, str] | None, taken: set[str]) -> Markup:
    def button(words: str, label: str, files: Sequence[str]) -> Markup:
        off = " disabled" if set(files) <= taken else ""
        return Markup(
            '<button type="button" class="w-button" data-do="take_lora" data-files="{files}" '
            'data-key="take {words} {name}" aria-label="{label}"{off}>'
            "{added}</button>"
        ).format(
            files="\n".join(files),
            words=words,
            name=entry.name,
            label=label,
            off=off,
            added="Added" if off else words,
        )

    found = button("Add", f"Add {entry.name}", [entry.name])
    if pair:
        found += button("Add high + low", f"Add {pair[0]} on high noise and {pair[1]} on low noise", pair)
    return Markup('<div class="w-shelf-do">{}</div>').format(found)
