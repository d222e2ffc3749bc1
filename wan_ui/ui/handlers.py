"""What the page's events do: submit, observe, cancel, and filling in the form. Nothing here waits for a job.

Handlers run without Gradio's preprocessing: values arrive as the browser sent them and are checked by
`wan_ui.intake`, which also serves the command line, so that a forged value meets the same words.
"""

import functools
import logging
import time
from pathlib import Path

import gradio as gr

from wan_ui import muxer
from wan_ui.catalog import Model, load_catalog
from wan_ui.errors import UserError
from wan_ui.intake import Draft
from wan_ui.jobs import Job
from wan_ui.pipeline import PIPELINE
from wan_ui.speech_intake import SpeechDraft
from wan_ui.ui import history, inputs, lora_picker, models_panel, progress_card, result
from wan_ui.ui import voice as voice_part
from wan_ui.ui.examples import load_examples
from wan_ui.ui.markup import text
from wan_ui.ui.security import uploaded
from wan_ui.ui.session import identify
from wan_ui.words import read_for

log = logging.getLogger(__name__)

BUSY, IDLE = 0.5, 3.0  # seconds between looks
UNSURE = 2.0  # seconds after an event in which its answer may still be under way
# One per page. active: ids of this person's waiting and running jobs; last: the one that ended last while
# the page was open; selected: the clip on the stage; watch: look often until then, something was asked for;
# unsure: see `look`;
# sent: what the page shows already; loras: those that are chosen; model: the one in the form; left: the one
# that was there before a Load button was pressed.
NEW_VIEW = {
    "active": [],
    "last": "",
    "selected": "",
    "watch": 0.0,
    "unsure": 0.0,
    "sent": {},
    "loras": [],
    "model": "",
    "left": "",
}


def guard(handler):
    """An unexpected error keeps its traceback in the log; the page shows that there was one."""

    @functools.wraps(handler)
    def guarded(*args, **kwargs):
        try:
            return handler(*args, **kwargs)
        except Exception as error:
            if isinstance(error, gr.Error):
                raise
            log.exception("%s failed", handler.__name__)
            words = "That did not work because of an error in Wan UI; its log says more."
            raise gr.Error(words, print_exception=False) from None

    return guarded


# ---------------------------------------------------------------- observe


@guard
def look(browser: dict, view: dict) -> list:
    """The timer's. Answers may overtake each other: for a while after an event all is sent again, so that an older
    answer that came in last does not stay. The browser leaves alone what is the same."""
    if time.time() < view["unsure"]:
        view["sent"] = {}
    return _observe(browser, view)


@guard
def observe(browser: dict, view: dict) -> list:
    """With the answer to any other event than the timer's."""
    view["unsure"] = time.time() + UNSURE
    return _observe(browser, view)


def _observe(browser: dict, view: dict) -> list:
    """Updates for `observed` in __init__.py, in its order; only what differs from what the page shows is sent."""
    browser, owner = identify(browser, PIPELINE.settings)
    catalog = load_catalog(PIPELINE.settings.catalog)
    jobs = PIPELINE.history(owner, history.LIMIT)
    by_id = {job.id: job for job in jobs}
    # Running first, then the queue; the newest is first in `jobs`.
    active = sorted((job for job in reversed(jobs) if job.active), key=lambda job: job.state != "running")

    for job_id in view["active"]:
        ended = by_id.get(job_id)
        if ended is not None and not ended.active:
            view["last"] = job_id
            if PIPELINE.clip(ended) is not None:
                view["selected"] = job_id
    view["active"] = [job.id for job in active]
    last = by_id.get(view["last"])
    browser["job"] = active[0].id if active else view["last"]
    browser["loras"] = view["loras"]

    if active:
        position = PIPELINE.position(active[0])
        card = progress_card.job_card(active[0], position, PIPELINE.model, jobs, catalog, len(active) - 1, last)
    elif last is not None:
        card = progress_card.job_card(last, 0, PIPELINE.model, jobs, catalog)
    else:
        card = progress_card.model_card(PIPELINE.model, catalog)
    selected = by_id.get(view["selected"]) or PIPELINE.job(view["selected"], owner)
    status, download = PIPELINE.model, PIPELINE.staging.status
    form_model = _form_model(view)
    busy = (
        bool(active) or status.state == "loading" or download.active or time.time() < max(view["watch"], view["unsure"])
    )
    rights = {"own": owner == "local", "fetch": _may_download(owner)}
    return [
        _if_new(view, "card", card, lambda: card),
        _if_new(view, "result", _key(selected), lambda: result.result_html(selected, catalog)),
        _if_new(
            view,
            "history",
            [view["selected"], *map(_key, jobs)],
            lambda: history.history_html(jobs, view["selected"]),
        ),
        _if_new(
            view,
            "download",
            download,
            lambda: models_panel.download_html(download, catalog, fetch=rights["fetch"]),
        ),
        _if_new(
            view,
            "models",
            models_panel.models_key(status, download, PIPELINE.settings),
            lambda: models_panel.models_html(status, download, PIPELINE.settings, **rights),
        ),
        _if_new(
            view,
            "loras",
            lora_picker.rows_key(view["loras"], form_model, jobs, PIPELINE.settings),
            lambda: lora_picker.rows_html(view["loras"], form_model, jobs, PIPELINE.settings),
        ),
        _if_new(view, "cancel", bool(active), lambda: gr.update(visible=bool(active))),
        _if_new(view, "timer", busy, lambda: gr.Timer(BUSY if busy else IDLE, active=True)),
        _if_new(view, "browser", browser, lambda: browser),
        view,
    ]


def _key(job: Job | None) -> tuple | None:
    return job and (job.id, job.state, PIPELINE.clip(job) is not None)


def _if_new(view: dict, part: str, key, update):
    if part in view["sent"] and view["sent"][part] == key:
        return gr.skip()
    view["sent"][part] = key
    return update()


@guard
def arrive(browser: dict, view: dict) -> list:
    """A page was opened or reloaded: show the job this browser followed, else the newest clip."""
    browser, owner = identify(browser, PIPELINE.settings)
    kept = lora_picker.from_values(browser["loras"])
    # In place: Gradio hands every event of a page the same object.
    view.update(NEW_VIEW, active=[], sent={}, loras=kept, model=_first_model())
    jobs = PIPELINE.history(owner, history.LIMIT)
    if isinstance(browser["job"], str) and PIPELINE.job(browser["job"], owner):
        view["active"] = [browser["job"]]  # if it has ended meanwhile, that is shown
    view["selected"] = next((job.id for job in jobs if PIPELINE.clip(job) is not None), "")
    return observe(browser, view)


def _first_model() -> str:
    """The one that a new page has chosen."""
    usable, wanted = models_panel.usable(PIPELINE.settings), PIPELINE.settings.model
    return wanted if wanted in usable or not usable else next(iter(usable))


# ---------------------------------------------------------------- submit and cancel


@guard
def submit(browser: dict, view: dict, picture, prompt, model, scheme, size, frames, steps, seed, voice) -> list:
    """Updates: picture note, voice note, message, then `Observed`."""
    browser, owner = identify(browser, PIPELINE.settings)
    try:
        draft = Draft(
            image=uploaded(picture),
            prompt=prompt or "",
            model=model or "",
            scheme=scheme or "",
            size=size or "auto",
            frames=None if frames in (None, "") else frames,
            steps=None if steps in (None, "") else steps,
            seed=-1 if seed in (None, "") else seed,
            loras=lora_picker.specs(view["loras"]),
            audio=uploaded(voice, "audio"),
        )
        _follow(view, PIPELINE.submit(draft, owner))
    except UserError as error:
        if error.field == "image":
            return [complaint(error), gr.skip(), "", *observe(browser, view)]
        if error.field == "audio":
            return [gr.skip(), complaint(error), complaint(error), *observe(browser, view)]
        return [gr.skip(), gr.skip(), complaint(error), *observe(browser, view)]
    return [gr.skip(), gr.skip(), "", *observe(browser, view)]


@guard
def add_speech(browser: dict, view: dict, voice, event: gr.EventData) -> list:
    """ "Add speech" beside a finished clip: updates for the voice's note, then `Observed`."""
    browser, owner = identify(browser, PIPELINE.settings)
    try:
        _follow(view, PIPELINE.submit(SpeechDraft(audio=uploaded(voice, "audio"), job=_job_id(event)), owner))
    except UserError as error:
        return [complaint(error), *observe(browser, view)]
    return [gr.skip(), *observe(browser, view)]


@guard
def run_example(browser: dict, view: dict, model, scheme, event: gr.EventData) -> list:
    """Updates: picture, prompt, voice, then `submit`'s. With the chosen LoRAs; other settings are the model's own."""
    examples, number = load_examples(), event._data.get("example")
    if not (isinstance(number, int) and 0 <= number < len(examples)):
        raise gr.Error("There is no such example.", print_exception=False)
    example = examples[number]
    browser, owner = identify(browser, PIPELINE.settings)
    try:
        chosen = lora_picker.specs(view["loras"])
        draft = Draft(
            image=str(example.image),
            prompt=example.prompt,
            model=model or "",
            scheme=scheme or "",
            loras=chosen,
            audio=str(example.audio or ""),
        )
        _follow(view, PIPELINE.submit(draft, owner))
        words = ""
    except UserError as error:
        words = complaint(error)
    voice = str(example.audio) if example.audio else None
    return [str(example.image), example.prompt, voice, gr.skip(), gr.skip(), words, *observe(browser, view)]


@guard
def cancel(browser: dict, view: dict) -> list:
    """The Cancel button: the job in the card."""
    browser, owner = identify(browser, PIPELINE.settings)
    if view["active"]:
        PIPELINE.cancel(view["active"][0], owner)
    return observe(browser, view)


@guard
def stop(browser: dict, view: dict, event: gr.EventData) -> list:
    """Cancel the job that is shown."""
    browser, owner = identify(browser, PIPELINE.settings)
    PIPELINE.cancel(_job_id(event), owner)
    return observe(browser, view)


def _follow(view: dict, job_id: str) -> None:
    view["active"].append(job_id)
    view["last"] = ""


def complaint(error: UserError) -> str:
    words = str(error)
    return f'<p class="w-note bad" role="alert">{text(words[:1].upper() + words[1:])}</p>'


# ---------------------------------------------------------------- history


def _job_id(event: gr.EventData) -> str:
    return str(event._data.get("job", ""))


@guard
def select(browser: dict, view: dict, event: gr.EventData) -> list:
    _, owner = identify(browser, PIPELINE.settings)
    if PIPELINE.job(_job_id(event), owner):
        view["selected"] = _job_id(event)
    return observe(browser, view)


@guard
def remove(browser: dict, view: dict, event: gr.EventData) -> list:
    _, owner = identify(browser, PIPELINE.settings)
    PIPELINE.delete(_job_id(event), owner)
    newest = (job.id for job in PIPELINE.history(owner, history.LIMIT) if PIPELINE.clip(job) is not None)
    view["selected"] = next(newest, "")
    return observe(browser, view)


@guard
def reuse_seed(browser: dict, event: gr.EventData):
    _, owner = identify(browser, PIPELINE.settings)
    job = PIPELINE.job(_job_id(event), owner)
    return job.request.seed if job else gr.skip()


@guard
def restore(browser: dict, view: dict, event: gr.EventData) -> list:
    """Load settings of a job: picture, voice, model, seed, message, `Inputs.of_model`, LoRAs, `Observed`."""
    _, owner = identify(browser, PIPELINE.settings)
    job = PIPELINE.job(_job_id(event), owner)
    if job is None:
        return [*[gr.skip()] * 12, *observe(browser, view)]
    picture, voice = PIPELINE.clips / job.id / "input.png", Path(job.request.audio or "-")
    try:
        updates = [
            str(picture) if picture.is_file() else gr.skip(),
            str(voice) if voice.is_file() else None,
            *_settings(view, job.request.to_dict()),
        ]
    except UserError as error:
        updates = [*[gr.skip()] * 4, complaint(error), *[gr.skip()] * 7]
    return [*updates, *observe(browser, view)]


@guard
def restore_from_video(browser: dict, view: dict, video) -> list:
    """Load settings out of an uploaded MP4: updates for its own message, then those of `restore` less the picture."""
    try:
        path = Path(uploaded(video, "video"))
        with path.open("rb") as file:
            if file.read(12)[4:8] != b"ftyp":
                raise UserError("video: this is not an MP4 file", field="video")
        found = _settings(view, muxer.read_metadata(path))
        name = text(video.get("orig_name") or "the video")
        words = f'<p class="w-quiet" role="status">Settings loaded from {name}. A video does not carry its picture.</p>'
        updates = [words, *found]
    except UserError as error:
        updates = [complaint(error), *[gr.skip()] * 10]
    return [*updates, *observe(browser, view)]


def _settings(view: dict, values: dict) -> list:
    """Updates for model, seed, message, `Inputs.of_model` and the LoRA list; the chosen LoRAs go into `view`.

    Raises UserError when the model cannot run here.
    """
    settings = PIPELINE.settings
    catalog = load_catalog(settings.catalog)
    usable = models_panel.usable(settings)
    model: Model | None = catalog.get(str(values.get("model")))
    if model is None or model.name not in usable:
        raise UserError(f"model: made with {values.get('model')}, which cannot run here", field="model")
    size = f"{values.get('width')}x{values.get('height')}"
    offered = {f"{width}x{height}" for width, height in model.sizes}
    frames, steps, seed = values.get("frames"), values.get("steps"), values.get("seed")
    updates = inputs.model_updates(
        model,
        usable[model.name],
        str(values.get("scheme")),
        size if size in offered else "auto",
        frames if frames in model.frames else 0,
        steps if isinstance(steps, int) and model.steps[0] <= steps <= model.steps[1] else 0,
    )
    updates[0] = gr.update(info=model.hint or None, value=str(values.get("prompt", "")))
    view["loras"] = lora_picker.from_values(values.get("loras"))
    seed = seed if isinstance(seed, int) else -1
    return [model.name, seed, "", *updates, _lora_choices(view, model)]


# ---------------------------------------------------------------- the form


@guard
def read_prompt(view: dict, prompt: str, name: str) -> str:
    """What the model will make of the prompt as it stands."""
    model = load_catalog(PIPELINE.settings.catalog).get(name) if isinstance(name, str) else None
    if model is None or not isinstance(prompt, str) or not prompt.strip():
        return ""
    prompt = prompt[: PIPELINE.settings.max_prompt]
    return inputs.reading_html(read_for(model, prompt, lora_picker.specs(view["loras"]), PIPELINE.settings))


@guard
def choose_model(browser: dict, view: dict, name: str) -> list:
    """Updates for `Inputs.of_model`, LoRAs, then `Observed`; one person's app loads the model at once."""
    settings = PIPELINE.settings
    catalog = load_catalog(settings.catalog)
    usable = models_panel.usable(settings)
    if name not in usable:
        raise gr.Error("That model cannot run here.", print_exception=False)
    # The list was opened and closed again; a press on Load closes it too, and that may be told after the press.
    if name == view["model"] or (name == view["left"] and time.time() < view["unsure"]):
        return [*[gr.skip()] * 7, *observe(browser, view)]
    updates = inputs.model_updates(catalog[name], usable[name])
    _load(browser, view, name, "")
    return [*updates, _lora_choices(view, catalog[name]), *observe(browser, view)]


@guard
def refresh_choices(view: dict, name: str, scheme: str) -> list:
    """Updates for model and scheme: something was downloaded or has gone. The choice stays if it can."""
    catalog, usable = load_catalog(PIPELINE.settings.catalog), models_panel.usable(PIPELINE.settings)
    if not usable:
        return [gr.skip(), gr.skip()]
    kept = view["model"] = name if name in usable else next(iter(usable))
    return [
        gr.update(choices=[(catalog[found].title, found) for found in usable], value=kept),
        gr.update(**inputs.scheme_choices(catalog[kept], usable[kept], scheme)),
    ]


@guard
def load_model(browser: dict, view: dict, event: gr.EventData) -> list:
    """A Load button: updates for model, `Inputs.of_model`, LoRAs, `Observed`. It is chosen in the form as well."""
    name, scheme = (str(event._data.get(key, "")) for key in ("model", "scheme"))
    if identify(browser, PIPELINE.settings)[1] != "local":
        raise gr.Error("Several people use this app: a model is loaded with its clip.", print_exception=False)
    catalog, usable = load_catalog(PIPELINE.settings.catalog), models_panel.usable(PIPELINE.settings)
    if scheme not in [found.name for found in usable.get(name, [])]:
        raise gr.Error("That model cannot run here.", print_exception=False)
    view["left"], view["unsure"] = view["model"], time.time() + UNSURE
    _load(browser, view, name, scheme)
    updates = inputs.model_updates(catalog[name], usable[name], scheme)
    return [name, *updates, _lora_choices(view, catalog[name]), *observe(browser, view)]


@guard
def download_model(browser: dict, view: dict, event: gr.EventData) -> list:
    """A Download button. The download belongs to the app: closing the tab changes nothing."""
    _check_download(browser)
    try:
        PIPELINE.staging.start(
            str(event._data.get("model", "")), str(event._data.get("scheme", "")), PIPELINE.settings.engine
        )
    except UserError as error:
        raise gr.Error(text(error), print_exception=False) from None
    return observe(browser, view)


@guard
def stop_download(browser: dict, view: dict) -> list:
    _check_download(browser)
    PIPELINE.staging.cancel()
    view["watch"] = time.time() + IDLE
    return observe(browser, view)


def _may_download(owner: str) -> bool:
    """On a shared address strangers could fill the disk: only where a setting allows it."""
    return owner == "local" or bool(PIPELINE.settings.shared_downloads)


def _check_download(browser: dict) -> None:
    if not _may_download(identify(browser, PIPELINE.settings)[1]):
        words = "Downloads are not started from a shared address, unless WAN_UI_SHARED_DOWNLOADS=1 allows it."
        raise gr.Error(words, print_exception=False)


@guard
def choose_scheme(browser: dict, view: dict, name: str, scheme: str) -> list:
    status = PIPELINE.model
    if status.state == "failed" or (status.model, status.scheme) != (name, scheme):
        _load(browser, view, name, scheme)
    return observe(browser, view)


def _load(browser: dict, view: dict, name: str, scheme: str) -> None:
    # On a shared server a choice must not swap the model under everybody else: it is loaded with the job.
    if identify(browser, PIPELINE.settings)[1] == "local":
        try:
            PIPELINE.load(name, scheme, PIPELINE.settings.engine)
        except UserError as error:
            raise gr.Error(text(error), print_exception=False) from None
        view["last"] = ""  # the card is free for the loading
        view["watch"] = time.time() + IDLE


@guard
def check_face(voice, picture, size: str, name: str) -> str:
    """The voice's note: before minutes are spent, whether there is a face that can speak."""
    if not voice or not picture:
        return ""
    catalog = load_catalog(PIPELINE.settings.catalog)
    model = catalog.get(name) or next(iter(catalog.values()))
    try:
        return voice_part.face_note(uploaded(picture), size or "auto", model)
    except UserError:  # said beside the picture
        return ""


# ---------------------------------------------------------------- LoRAs


def _lora_choices(view: dict, model: Model):
    """Update for the list that LoRAs are added from; the form now has this model."""
    view["model"] = model.name
    return gr.update(choices=lora_picker.choices(model, PIPELINE.settings), value=None)


def _form_model(view: dict) -> Model:
    catalog = load_catalog(PIPELINE.settings.catalog)
    return catalog.get(view["model"]) or next(iter(catalog.values()))


@guard
def refresh_loras(browser: dict, view: dict) -> list:
    """The ↻ button: the folder is read again. Updates for the list, then `Observed`."""
    view["sent"].pop("loras", None)
    return [_lora_choices(view, _form_model(view)), *observe(browser, view)]


@guard
def add_lora(browser: dict, view: dict, name) -> list:
    """Chosen in the list: updates for the list (empty again), message, `Observed`."""
    words = ""
    try:
        view["loras"] = lora_picker.add(view["loras"], str(name or ""), _form_model(view), PIPELINE.settings)
    except UserError as error:
        words = complaint(error)
    return [gr.update(value=None), words, *observe(browser, view)]


@guard
def change_strength(browser: dict, view: dict, event: gr.EventData) -> list:
    file, value = str(event._data.get("file", "")), event._data.get("value")
    view["loras"] = lora_picker.change(view["loras"], file, strength=value)
    return observe(browser, view)


@guard
def change_target(browser: dict, view: dict, event: gr.EventData) -> list:
    file, value = str(event._data.get("file", "")), event._data.get("value")
    view["loras"] = lora_picker.change(view["loras"], file, target=value)
    return observe(browser, view)


@guard
def remove_lora(browser: dict, view: dict, event: gr.EventData) -> list:
    view["loras"] = lora_picker.remove(view["loras"], str(event._data.get("file", "")))
    return observe(browser, view)


@guard
def show_crop(picture, size: str, name: str) -> list:
    """Updates: picture, crop, note."""
    if not picture:
        return [gr.skip(), "", gr.skip()]
    catalog = load_catalog(PIPELINE.settings.catalog)
    model = catalog.get(name) or next(iter(catalog.values()))
    try:
        return [gr.skip(), *inputs.crop_preview(uploaded(picture), size or "auto", model)]
    except UserError as error:
        return [None, "", complaint(error)]
