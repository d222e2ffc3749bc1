"""The LoRA picker: what is chosen, where each goes, and what became of it.

The chosen list lives in the page's `view` ("loras": file, strength, target), so that Generate, a restored clip
and the picker cannot disagree. A LoRA is added by choosing it in a list; its row then says which expert it is
put on and why, warns where that is not what its maker meant, and offers its trigger words for the prompt.
"""

from dataclasses import asdict, dataclass

import gradio as gr

from wan_ui import limits, loras
from wan_ui.catalog import Model
from wan_ui.errors import UserError
from wan_ui.families import NOISE_TARGETS, TARGETS
from wan_ui.loras.choice import MAX_STRENGTH
from wan_ui.queue.jobs import Job
from wan_ui.request import LoraMatch, LoraSpec
from wan_ui.settings import Settings
from wan_ui.ui.markup import Markup
from wan_ui.ui.session import for_visitor, is_local

TARGET_WORDS = {"high_noise": "High noise", "low_noise": "Low noise", "both": "Both"}
# Each control has a data-key, by which the focus finds it again when the rows are drawn anew.
SCRIPT = """
const events = ['remove_lora', 'target_lora', 'strength_lora'];
const send = (control, more) => {
  window.wanUi.changes();
  trigger(control.dataset.do, { file: control.dataset.file, ...more });
};
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-do]');
  if (button && events.includes(button.dataset.do)) send(button, {});
});
element.addEventListener('change', (event) => {
  const control = event.target.closest('input[data-do], select[data-do]');
  if (control && !control.value) control.value = control.defaultValue; // emptied: it is as it was
  else if (control && events.includes(control.dataset.do)) send(control, { value: control.value });
});
element.addEventListener('input', (event) => {
  const slider = event.target.closest('input[type=range]');
  if (slider) slider.closest('.w-lora-strength').querySelector('input[type=number]').value = slider.value;
});
let focused = '';
element.addEventListener('focusin', (event) => { focused = event.target.dataset.key || ''; });
element.addEventListener('focusout', (event) => { if (event.relatedTarget) focused = ''; });
watch('value', () => {
  if (focused && !element.contains(document.activeElement)) {
    element.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }
});
"""


@dataclass(frozen=True)
class LoraPicker:
    add: gr.Dropdown
    refresh: gr.Button
    message: gr.HTML
    rows: gr.HTML


def build_lora_picker(model: Model, settings: Settings) -> LoraPicker:
    with gr.Column(elem_id="loras"):
        with gr.Row(elem_id="lora-add-row"):
            add = gr.Dropdown(
                label="Add a LoRA", choices=choices(model, settings), value=None, min_width=150, elem_id="lora-add"
            )
            refresh = gr.Button("Refresh", size="sm", scale=0, min_width=84, elem_id="lora-refresh")
        message = gr.HTML("", elem_id="lora-message", apply_default_css=False)
        rows = gr.HTML("", elem_id="lora-rows", js_on_load=SCRIPT, apply_default_css=False)
    return LoraPicker(add, refresh, message, rows)


def choices(model: Model, settings: Settings) -> list[tuple[str, str]]:
    """Those that fit the model, as the list shows them."""
    return [(_choice(entry), entry.name) for entry in loras.available(settings) if not refused(entry, model)]


def _choice(entry: loras.LoraEntry) -> str:
    parts = [entry.name]
    if entry.made_for in NOISE_TARGETS:
        parts.append(TARGET_WORDS[entry.made_for].lower())
    if entry.notes:
        parts.append(entry.notes if len(entry.notes) <= 60 else f"{entry.notes[:59]}…")
    return " · ".join(parts)


def refused(entry: loras.LoraEntry, model: Model) -> str:
    """ "" when the entry can be chosen for the model, else why not."""
    return f"{entry.name} cannot be used: {entry.problem}" if entry.problem else loras.fits(entry, model)


# ---------------------------------------------------------------- the chosen list


def add(chosen: list[dict], name: str, model: Model, settings: Settings) -> list[dict]:
    """With `name` at the end, on the target that suits it. Raises UserError."""
    entry = loras.find(name, loras.available(settings))
    reason = refused(entry, model)
    if reason:
        raise UserError(f"loras: {reason}", field="loras")
    if any(spec["file"] == entry.name for spec in chosen):
        raise UserError(f"loras: {entry.name} is chosen already; its strength is in its row", field="loras")
    if len(chosen) >= limits.LORAS_PER_JOB:
        raise UserError(f"loras: at most {limits.LORAS_PER_JOB} together", field="loras")
    return [*chosen, asdict(LoraSpec(entry.name, 1.0, loras.suggest(entry, model)[0]))]


def add_pair(chosen: list[dict], high: str, low: str, model: Model, settings: Settings) -> list[dict]:
    """With both files of one LoRA, each on its expert; one that is chosen already is put there. Raises UserError."""
    for name, target in ((high, "high_noise"), (low, "low_noise")):
        if not any(spec["file"] == name for spec in chosen):
            chosen = add(chosen, name, model, settings)
        chosen = change(chosen, name, target=target)
    return chosen


def change(chosen: list[dict], file: str, **values) -> list[dict]:
    """With other values for `file`; what is not a value keeps the old one."""
    if "strength" in values:
        try:
            values["strength"] = round(min(max(float(values["strength"]), -MAX_STRENGTH), MAX_STRENGTH), 3)
        except (TypeError, ValueError):
            return chosen
    if values.get("target", "both") not in TARGETS:
        return chosen
    return [{**spec, **values} if spec["file"] == file else spec for spec in chosen]


def remove(chosen: list[dict], file: str) -> list[dict]:
    return [spec for spec in chosen if spec["file"] != file]


def from_values(values) -> list[dict]:
    """The list of a stored request or of a video's metadata, which may hold anything."""
    found = []
    for value in values if isinstance(values, list | tuple) else ():
        if isinstance(value, dict) and isinstance(value.get("file"), str):
            spec = asdict(LoraSpec(value["file"][:500]))
            found.append(change([spec], spec["file"], **{k: value[k] for k in ("strength", "target") if k in value})[0])
    return found[: limits.LORAS_PER_JOB]


def specs(chosen: list[dict]) -> tuple[LoraSpec, ...]:
    return tuple(LoraSpec(**spec) for spec in chosen)


def last_match(spec: LoraSpec, jobs: list[Job]) -> LoraMatch | None:
    """What became of the same file on the same target in the newest of `jobs` that used it."""
    for job in jobs:
        for match in job.result.loras:
            if (match.file, match.target) == (spec.file, spec.target):
                return match
    return None


# ---------------------------------------------------------------- drawing


def rows_key(chosen: list[dict], model: Model, jobs: list[Job], settings: Settings) -> list:
    """Whatever the rows show: they are drawn again when this differs."""
    return [chosen, model.name, [last_match(spec, jobs) for spec in specs(chosen)], _folder_key(chosen, settings)]


def _folder_key(chosen: list[dict], settings: Settings) -> list:
    """Only the folder of somebody who has chosen something is looked at again and again."""
    return [entry.size for entry in loras.available(settings)] if chosen else []


def rows_html(chosen: list[dict], model: Model, jobs: list[Job], settings: Settings) -> Markup:
    entries = loras.available(settings)
    rows = Markup().join(_row(spec, entries, model, last_match(spec, jobs)) for spec in specs(chosen))
    chosen_list = Markup('<ul class="w-loras">{}</ul>').format(rows) if rows else Markup()
    return chosen_list + _others(entries, model, settings)


def _others(entries: list[loras.LoraEntry], model: Model, settings: Settings) -> Markup:
    """What lies in the user's folder and cannot be chosen, with the reason; and where files go when there is none."""
    reasons = [reason for entry in entries if not entry.shipped and (reason := refused(entry, model))]
    hint = Markup()
    if all(entry.shipped or refused(entry, model) for entry in entries):
        place = settings.loras if is_local(settings) else "the LoRA folder of the machine where this runs"
        words = f"For LoRAs of your own, put .safetensors files into {place} and press Refresh."
        hint = Markup('<p class="w-quiet">{}</p>').format(words)
    if not reasons:
        return hint
    items = Markup().join(Markup("<li>{}</li>").format(for_visitor(reason, settings)) for reason in reasons)
    files = "1 file does" if len(reasons) == 1 else f"{len(reasons)} files do"
    return Markup(
        '{hint}<details class="w-lora-others"><summary>{files} not fit</summary><ul>{items}</ul></details>'
    ).format(hint=hint, files=files, items=items)


def _row(spec: LoraSpec, entries: list[loras.LoraEntry], model: Model, match: LoraMatch | None) -> Markup:
    file = spec.file
    notes: list[str] = []
    extras, entry = Markup(), None
    try:
        entry = loras.find(spec.file, entries)
    except UserError as error:
        trouble = [error.words]
    else:
        reason = refused(entry, model)
        trouble = [reason] if reason else loras.warnings(spec, entry)
        target, why = loras.suggest(entry, model)
        if target == spec.target:
            notes.append(f"Suggested: {TARGET_WORDS[target].lower()}, {why}.")
        elif not reason:
            words = f"{TARGET_WORDS[target]} is suggested: {why}."
            extras += Markup('<p class="w-lora-note">{}</p>').format(words)
        if entry.notes:
            extras += Markup('<p class="w-lora-note" translate="no">“{}”</p>').format(entry.notes)
    notes.insert(0, _counts(spec, entry, match))
    bad = Markup().join(Markup('<p class="w-lora-note bad" role="alert">{}</p>').format(words) for words in trouble)
    return Markup(
        '<li class="w-lora" data-lora="{file}"><div class="w-lora-top"><b translate="no">{file}</b>'
        '<button type="button" class="w-lora-remove" data-do="remove_lora" data-file="{file}" '
        'data-key="remove {file}" aria-label="Remove {file}" title="Remove">×</button></div>'
        "{strength}{target}{bad}{extras}"
        '<p class="w-lora-note">{notes}</p>{triggers}</li>'
    ).format(
        file=file,
        strength=_strength(spec),
        target=_target(spec, model),
        bad=bad,
        extras=extras,
        notes=" ".join(filter(None, notes)),
        triggers=_triggers(entry),
    )


def _counts(spec: LoraSpec, entry: loras.LoraEntry | None, match: LoraMatch | None) -> str:
    """ "Matched 80/80 layers, high noise; 0 low noise." once it was used, before that what the file holds."""
    if match is not None:
        sides = [f"{count} layers, {side.replace('_', ' ')}" for side, count in match.matched.items()]
        others = [side for side in NOISE_TARGETS if side not in match.matched and spec.target != "both"]
        sides += [f"0, {side.replace('_', ' ')}" for side in others]
        left = f" Not in the model: {', '.join(match.unmatched[:3])}." if match.unmatched else ""
        return f"Matched {'; '.join(sides)}.{left}"
    if entry is None or not entry.layers:
        return ""
    names = {"both": ""} | {side: f" for {words.lower()}" for side, words in TARGET_WORDS.items() if side != "both"}
    counts = " and ".join(f"{count} layers{names[side]}" for side, count in entry.layers.items())
    return f"The file has {counts}."


def _strength(spec: LoraSpec) -> Markup:
    file = spec.file
    common = Markup('data-do="strength_lora" data-file="{file}" step="0.05" value="{strength:g}"').format(
        file=file, strength=spec.strength
    )
    return Markup(
        '<div class="w-lora-strength"><span>Strength</span>'
        '<input type="range" min="0" max="2" {common} data-key="slide {file}" aria-label="Strength of {file}">'
        '<input type="number" min="{least:g}" max="{most:g}" {common} data-key="number {file}" '
        'aria-label="Strength of {file} as a number"></div>'
    ).format(common=common, file=file, least=-MAX_STRENGTH, most=MAX_STRENGTH)


def _target(spec: LoraSpec, model: Model) -> Markup:
    if model.family.single:
        return Markup()
    file = spec.file
    radios = Markup().join(
        Markup(
            '<label><input type="radio" name="target {file}" value="{target}" data-do="target_lora" data-file="{file}" '
            'data-key="{target} {file}"{checked}><span>{words}</span></label>'
        ).format(file=file, target=target, checked=" checked" if target == spec.target else "", words=words)
        for target, words in TARGET_WORDS.items()
    )
    return Markup('<div class="w-lora-target" role="radiogroup" aria-label="Expert for {file}">{radios}</div>').format(
        file=file, radios=radios
    )


def _triggers(entry: loras.LoraEntry | None) -> Markup:
    if entry is None or not entry.trigger_words:
        return Markup()
    chips = Markup().join(
        Markup(
            '<button type="button" class="w-chip" data-phrase="{word}" data-key="word {word}">{word}</button>'
        ).format(word=word)
        for word in entry.trigger_words
    )
    return Markup('<div class="w-chips" role="group" aria-label="Add trigger words to the prompt">{}</div>').format(
        chips
    )
