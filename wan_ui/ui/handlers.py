"""What the page's events do: submit, observe, cancel, and filling in the form. Nothing here waits for a job.

Handlers run without Gradio's preprocessing: values arrive as the browser sent them and are checked by
`wan_ui.queue.intake`, which also serves the command line, so that a forged value meets the same words.
"""

import functools
import logging
import time
from dataclasses import replace
from pathlib import Path

import gradio as gr

from wan_ui.catalog import Model, load_catalog
from wan_ui.errors import UserError
from wan_ui.loras import TARGETS
from wan_ui.media import muxer
from wan_ui.queue.intake import Draft
from wan_ui.queue.jobs import Job
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.queue.speech_intake import SpeechDraft
from wan_ui.queue.words import read_for
from wan_ui.ui import examples, form, history, in_view, inputs, lora_picker, models_panel, progress_card, result
from wan_ui.ui import voice as voice_part
from wan_ui.ui.markup import text
from wan_ui.ui.security import uploaded
from wan_ui.ui.session import for_visitor, identify
from wan_ui.ui.values import as_text, number_of_event, of_event, text_of_event

log = logging.getLogger(__name__)

BUSY, IDLE = 0.5, 3.0  # seconds between looks
UNSURE = 2.0  # seconds after an event in which its answer may still be under way
# One per page. active: ids of this person's waiting and running jobs; last: the one that ended last while
# the page was open; selected: the clip on the stage; follow: jobs asked for here whose clips take the stage when
# they are done; watch: look often until then, something was asked for; unsure: see `look`; sent: what the page
# shows already; show: what comes into view, see in_view.py; loras: those that are chosen; model, scheme: those in
# the form; form, complaint: see form.py; refused: the picture just taken away was.
NEW_VIEW = {
    "active": [],
    "last": "",
    "selected": "",
    "follow": [],
    "watch": 0.0,
    "unsure": 0.0,
    "sent": {},
    "show": (0, "", False),
    "loras": [],
    "model": "",
    "scheme": "",
    "form": {},
    "complaint": None,
    "refused": False,
}


def guard(handler):
    """A refusal is shown as it is. An unexpected error keeps its traceback in the log; the page shows one."""

    @functools.wraps(handler)
    def guarded(*args, **kwargs):
        try:
            return handler(*args, **kwargs)
        except Exception as error:
            raise failed(handler.__name__, error) from None

    return guarded


def failed(name: str, error: Exception) -> gr.Error:
    """What the page shows of an error that a handler did not expect."""
    if isinstance(error, gr.Error):
        return error
    if isinstance(error, UserError):  # the job table is locked, or the like
        return gr.Error(text(for_visitor(str(error), PIPELINE.settings)), print_exception=False)
    log.error("%s failed", name, exc_info=error)
    return gr.Error("That did not work because of an error in Wan UI; its log says more.", print_exception=False)


# ---------------------------------------------------------------- observe


@guard
def look(browser: dict, view: dict) -> list:
    """The timer's. Answers may overtake each other: for a while after an event all is sent again, so that an older
    answer that came in last does not stay. The browser leaves alone what is the same."""
    if time.monotonic() < view["unsure"]:
        view["sent"] = {}
    return _observe(browser, view)


@guard
def observe(browser: dict, view: dict) -> list:
    """With the answer to any other event than the timer's."""
    view["unsure"] = time.monotonic() + UNSURE
    return _observe(browser, view)


def _observe(browser: dict, view: dict) -> list:
    """Updates for `observed` in __init__.py, in its order; only what differs from what the page shows is sent."""
    browser, owner = identify(browser, PIPELINE.settings)
    catalog = load_catalog(PIPELINE.settings.catalog)
    status = replace(PIPELINE.model, words=for_visitor(PIPELINE.model.words, PIPELINE.settings))
    download = models_panel.still_true(PIPELINE.staging.status, PIPELINE.settings)
    download = replace(download, words=for_visitor(download.words, PIPELINE.settings))
    jobs = PIPELINE.history(owner, history.LIMIT)
    by_id = {job.id: job for job in jobs}
    # Running first, then the queue; the newest is first in `jobs`.
    active = sorted((job for job in reversed(jobs) if job.active), key=lambda job: job.state != "running")

    for job_id in dict.fromkeys([*view["active"], *view["follow"]]):  # an answer under way may have taken one away
        ended = by_id.get(job_id)
        if ended is not None and not ended.active:
            _ended(view, ended)
    view["active"] = [job.id for job in active]
    last = by_id.get(view["last"])
    browser["job"] = active[0].id if active else view["last"]
    browser["follow"] = list(view["follow"])
    browser["loras"] = view["loras"]
    browser["form"] = form.to_keep(view)

    if active:
        position = PIPELINE.position(active[0])
        card = progress_card.job_card(active[0], position, status, jobs, catalog, len(active) - 1, last)
    elif last is not None:
        unseen = view["selected"] != last.id and PIPELINE.clip(last) is not None
        card = progress_card.job_card(last, 0, status, jobs, catalog, unseen=unseen)
    else:
        card = progress_card.model_card(status, catalog)
    selected = by_id.get(view["selected"]) or PIPELINE.job(view["selected"], owner)
    form_model = _form_model(view)
    form.forget_what_is_mended(view, form_model, owner)
    busy = (
        bool(active)
        or status.state == "loading"
        or download.active
        or time.monotonic() < max(view["watch"], view["unsure"])
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
        *(_if_new_html(view, place, form.complaint_html(view, place, PIPELINE.settings)) for place in form.PLACES),
        _if_new_html(view, "using", form.using_html(view, form_model)),
        _if_new_html(view, "examples", examples.note_html(form.with_words(view, form_model))),
        _if_new_html(view, "show", in_view.order(view["show"])),
        _if_new(view, "cancel", bool(active), lambda: gr.update(visible=bool(active))),
        _if_new(view, "timer", busy, lambda: gr.Timer(BUSY if busy else IDLE, active=True)),
        _if_new(view, "browser", browser, lambda: browser),
        view,
    ]


def _ended(view: dict, job: Job) -> None:
    """A clip that was asked for here takes the stage; one from elsewhere only an empty one."""
    view["last"] = job.id
    followed = job.id in view["follow"]
    if followed:
        view["follow"].remove(job.id)
    clip = PIPELINE.clip(job) is not None
    if clip and (followed or not view["selected"]):
        view["selected"] = job.id
    if followed:
        _show(view, "result" if clip else "card", gentle=True)


def _show(view: dict, part: str, gentle: bool = False) -> None:
    """With the next answer `part` comes into view; gently: only if nobody has scrolled since they asked for it."""
    view["show"] = (view["show"][0] + 1, part, gentle)


def _key(job: Job | None) -> tuple | None:
    return job and (job.id, job.state, PIPELINE.clip(job) is not None)


def _if_new(view: dict, part: str, key, update):
    if part in view["sent"] and view["sent"][part] == key:
        return gr.skip()
    view["sent"][part] = key
    return update()


def _if_new_html(view: dict, part: str, html: str):
    return _if_new(view, part, html, lambda: html)


@guard
def arrive(browser: dict, view: dict) -> list:
    """A page was opened or reloaded: the form as it was, the job that this browser followed, else the newest clip.

    Updates: picture, voice, seed, then `_fill`'s and `Observed`.
    """
    browser, owner = identify(browser, PIPELINE.settings)
    follow = browser["follow"] if isinstance(browser["follow"], list) else []
    follow = [job for job in follow[: history.LIMIT] if isinstance(job, str) and PIPELINE.job(job, owner)]
    # In place: Gradio hands every event of a page the same object.
    view.update(NEW_VIEW, active=[], sent={}, form={}, follow=follow, loras=lora_picker.from_values(browser["loras"]))
    kept = browser["form"] if isinstance(browser["form"], dict) else {}
    chosen = _first_choice(kept, owner)
    filled = _fill(view, *chosen, **_offered(kept)) if chosen else [gr.skip()] * FILLED
    files = [_kept_file(kept.get(name)) for name in ("picture", "voice")]
    seed = kept["seed"] if _is_whole(kept.get("seed")) else -1
    # The browser's storage gets it back with this answer: who reloads again at once loses nothing.
    view["form"] = form.kept_again(kept, *files)
    jobs = PIPELINE.history(owner, history.LIMIT)
    followed = browser["job"] if isinstance(browser["job"], str) and PIPELINE.job(browser["job"], owner) else ""
    view["active"] = [*follow, *([followed] if followed else [])]  # what has ended meanwhile is shown
    view["selected"] = next((job.id for job in jobs if PIPELINE.clip(job) is not None), "")
    return [*(file or gr.skip() for file in files), seed, *filled, *observe(browser, view)]


def _first_choice(kept: dict, owner: str) -> tuple[str, str] | None:
    """Model and scheme of a new page: what was chosen in this browser, else what is loaded, else the default."""
    usable, status = models_panel.usable(PIPELINE.settings), PIPELINE.model
    loaded = status.kept[:2] or (status.model, status.scheme)
    wishes = [(kept.get("model"), kept.get("scheme"))]
    wishes += [loaded] if owner == "local" else []
    wishes += [(PIPELINE.settings.model, PIPELINE.settings.scheme), *((name, "") for name in usable)]
    return next(((name, str(scheme)) for name, scheme in wishes if isinstance(name, str) and name in usable), None)


def _kept_file(path) -> str:
    """A picture or a voice that this browser had in its form, if it is still there."""
    if not isinstance(path, str):
        return ""
    try:
        path = uploaded({"path": path})
    except UserError:
        return ""
    return path if path and Path(path).is_file() else ""


# ---------------------------------------------------------------- submit and cancel


@guard
def submit(
    browser: dict, view: dict, model, scheme, picture, prompt, size, frames, steps, fps, seed, voice, turn
) -> list:
    """Updates: picture note, voice note, then `Observed`."""
    browser, owner = identify(browser, PIPELINE.settings)
    held = form.read(picture, prompt, size, frames, steps, fps, seed, voice)
    try:
        draft = Draft(
            image=uploaded(picture),
            prompt=as_text(prompt, "prompt"),
            model=as_text(model, "model"),
            scheme=as_text(scheme, "scheme"),
            size=as_text(size, "size", "auto"),
            frames=None if frames in (None, "") else frames,
            steps=None if steps in (None, "") else steps,
            fps=None if fps in (None, "") else fps,
            seed=-1 if seed in (None, "") else seed,
            loras=lora_picker.specs(view["loras"]),
            audio=uploaded(voice, "audio"),
        )
        _follow(view, PIPELINE.submit(draft, owner))
    except UserError as error:
        form.complain(view, "message", error, turn, held)
        _show(view, "message")
        picture_note = complaint(error) if error.field == "image" else gr.skip()
        voice_note = complaint(error) if error.field == "audio" else gr.skip()
        return [picture_note, voice_note, *observe(browser, view)]
    return [gr.skip(), gr.skip(), *observe(browser, view)]


@guard
def add_speech(browser: dict, view: dict, voice, turn, event: gr.EventData) -> list:
    """ "Add speech" beside a finished clip: updates for the voice's note, then `Observed`."""
    browser, owner = identify(browser, PIPELINE.settings)
    try:
        _follow(view, PIPELINE.submit(SpeechDraft(audio=uploaded(voice, "audio"), job=_job_id(event)), owner))
    except UserError as error:
        form.complain(view, "result_message", error, turn, {"voice": voice})
        _show(view, "result_message")
        return [complaint(error) if error.field == "audio" else gr.skip(), *observe(browser, view)]
    return [gr.skip(), *observe(browser, view)]


@guard
def run_example(browser: dict, view: dict, turn, event: gr.EventData) -> list:
    """With the form's model, weights and LoRAs, as the line above the examples says; everything else is the
    example's or the model's own, and the form shows it. Updates: picture, voice, seed, `_fill`'s, `Observed`."""
    offered, number = examples.load_examples(), of_event(event, "example")
    if type(number) is not int or not 0 <= number < len(offered):
        raise UserError(f"example: there are {len(offered)} examples, counted from 0", field="example")
    example = offered[number]
    browser, owner = identify(browser, PIPELINE.settings)
    voice = str(example.audio) if example.audio else None
    try:
        draft = Draft(
            image=str(example.image),
            prompt=example.prompt,
            model=view["model"],
            scheme=view["scheme"],
            loras=lora_picker.specs(view["loras"]),
            audio=voice or "",
        )
        _follow(view, PIPELINE.submit(draft, owner))
    except UserError as error:
        form.complain(view, "examples_message", error, turn)
        _show(view, "examples_message")
        return [*[gr.skip()] * (3 + FILLED), *observe(browser, view)]
    filled = _fill(view, view["model"], view["scheme"], prompt=example.prompt)
    return [str(example.image), voice, -1, *filled, *observe(browser, view)]


@guard
def cancel(browser: dict, view: dict) -> list:
    """The Cancel button: the job in the card."""
    browser, owner = identify(browser, PIPELINE.settings)
    if view["active"]:
        PIPELINE.cancel(view["active"][0], owner)
        _show(view, "card")
    return observe(browser, view)


@guard
def stop(browser: dict, view: dict, event: gr.EventData) -> list:
    """Cancel the job that is shown."""
    browser, owner = identify(browser, PIPELINE.settings)
    PIPELINE.cancel(_job_id(event), owner)
    return observe(browser, view)


def _follow(view: dict, job_id: str) -> None:
    view["active"].append(job_id)
    view["follow"].append(job_id)
    view["last"], view["complaint"] = "", None
    _show(view, "result")


def complaint(error: UserError) -> str:
    return form.note(for_visitor(str(error), PIPELINE.settings))


# ---------------------------------------------------------------- history


def _job_id(event: gr.EventData) -> str:
    return text_of_event(event, "job")


@guard
def select(browser: dict, view: dict, event: gr.EventData) -> list:
    """A tile, or "Show it" in the card."""
    _, owner = identify(browser, PIPELINE.settings)
    if PIPELINE.job(_job_id(event), owner):
        view["selected"] = _job_id(event)
        _follow_only(view, view["selected"])
        if view["complaint"] and view["complaint"]["place"] == "result_message":  # it was about the clip before
            view["complaint"] = None
        _show(view, "result")
    return observe(browser, view)


@guard
def hold(browser: dict, view: dict, event: gr.EventData) -> list:
    """The clip on the stage is being watched: no other takes its place."""
    if _job_id(event) == view["selected"]:
        _follow_only(view, view["selected"])
    return observe(browser, view)


def _follow_only(view: dict, job_id: str) -> None:
    view["follow"][:] = [job for job in view["follow"] if job == job_id]


@guard
def remove(browser: dict, view: dict, event: gr.EventData) -> list:
    _, owner = identify(browser, PIPELINE.settings)
    PIPELINE.delete(_job_id(event), owner)
    newest = (job.id for job in PIPELINE.history(owner, history.LIMIT) if PIPELINE.clip(job) is not None)
    view["selected"] = next(newest, "")
    view["last"] = "" if view["last"] == _job_id(event) else view["last"]
    _show(view, "result")
    return observe(browser, view)


@guard
def reuse_seed(browser: dict, view: dict, event: gr.EventData) -> list:
    """Updates: seed, `Observed`."""
    browser, owner = identify(browser, PIPELINE.settings)
    job = PIPELINE.job(_job_id(event), owner)
    if job is not None:
        _show(view, "seed")
    return [job.request.seed if job else gr.skip(), *observe(browser, view)]


@guard
def restore(browser: dict, view: dict, turn, event: gr.EventData) -> list:
    """Load settings of a job. Updates: picture, voice, seed, `_fill`'s, `Observed`."""
    browser, owner = identify(browser, PIPELINE.settings)
    job = PIPELINE.job(_job_id(event), owner)
    if job is None:
        return [*[gr.skip()] * (3 + FILLED), *observe(browser, view)]
    picture, voice = PIPELINE.clips / job.id / "input.png", Path(job.request.audio or "-")
    try:
        filled = _settings(view, {**job.request.to_dict(), **_of_base(job)})
    except UserError as error:
        form.complain(view, "result_message", error, turn)
        _show(view, "result_message")
        return [*[gr.skip()] * (3 + FILLED), *observe(browser, view)]
    files = [str(picture) if picture.is_file() else gr.skip(), str(voice) if voice.is_file() else None]
    _show(view, "form")
    return [*files, *filled, *observe(browser, view)]


def _of_base(job: Job) -> dict:
    """What made the clip that speech was added to, as far as the speech has values of its own there."""
    if job.request.kind != "lipsync":
        return {}
    try:
        values = muxer.read_metadata(Path(job.request.video))
    except UserError:
        return {}
    return {name: values[name] for name in ("frames", "steps") if name in values}


@guard
def restore_from_video(browser: dict, view: dict, video) -> list:
    """Load settings out of an uploaded MP4. Updates: its own message, then those of `restore` but the files."""
    try:
        path = Path(uploaded(video, "video"))
        if not path.is_file():
            raise UserError("video: choose an MP4 file first", field="video")
        with path.open("rb") as file:
            if file.read(12)[4:8] != b"ftyp":
                raise UserError("video: this is not an MP4 file", field="video")
        values = muxer.read_metadata(path)
        filled = _settings(view, values)
        name = text(as_text(video.get("orig_name"), "video", "the video"))
        words = f"Settings loaded from {name}. A video does not carry its picture. {text(_left_out(values))}"
        words = f'<p class="w-quiet" role="status">{words}</p>'
        _show(view, "form")
    except UserError as error:
        words, filled = complaint(error), [gr.skip()] * (1 + FILLED)
        _show(view, "from_video")
    return [words, *filled, *observe(browser, view)]


def _settings(view: dict, values: dict) -> list:
    """Updates for the seed and `_fill`'s; the LoRAs go into `view`. Raises UserError when the model cannot run here."""
    usable, name = models_panel.usable(PIPELINE.settings), str(values.get("model") or "")
    if not name:
        raise UserError("model: no model made this clip, so it has no settings to load", field="model")
    if name not in usable:
        raise UserError(f"model: made with {name}, which cannot run here", field="model")
    values = {**values, "size": f"{values.get('width')}x{values.get('height')}"}
    view["loras"] = lora_picker.from_values(values.get("loras"))
    seed = values["seed"] if _is_whole(values.get("seed")) else -1
    prompt = str(values.get("prompt", ""))
    return [seed, *_fill(view, name, str(values.get("scheme")), prompt=prompt, **_offered(values))]


def _left_out(values: dict) -> str:
    """Which settings of a video of another version, or a damaged one, the form does not take over."""
    name = str(values.get("model"))
    model, schemes = load_catalog(PIPELINE.settings.catalog)[name], models_panel.usable(PIPELINE.settings)[name]
    size, fewest, most = f"{values.get('width')}x{values.get('height')}", *model.steps
    loras = values.get("loras", [])
    taken = {
        "scheme": values.get("scheme") in [scheme.name for scheme in schemes],
        "size": size in [f"{width}x{height}" for width, height in model.sizes],
        "frames": _is_whole(values.get("frames")) and values["frames"] in model.frames,
        "steps": _is_whole(values.get("steps")) and fewest <= values["steps"] <= most,
        "fps": not values.get("fps") or values["fps"] in model.rates,
        "seed": _is_whole(values.get("seed")),
        "prompt": isinstance(values.get("prompt"), str),
        "loras": len(lora_picker.from_values(loras)) == (len(loras) if isinstance(loras, list) else 0),
    }
    left = ", ".join(part for part, good in taken.items() if not good)
    return f"Not taken over, since this version or model does not offer it: {left}." if left else ""


def _offered(values: dict) -> dict:
    """Size, frames, steps and fps of a stored form or request, which may hold anything; `_fill` takes what it may."""
    whole = {name: values[name] for name in ("frames", "steps", "fps") if _is_whole(values.get(name))}
    return {"size": str(values.get("size")), **whole}


def _is_whole(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# ---------------------------------------------------------------- the form


FILLED = 9  # model, `Inputs.of_model`, the list of LoRAs


def _fill(
    view: dict,
    name: str,
    scheme: str = "",
    *,
    size: str = "auto",
    frames: int = 0,
    steps: int = 0,
    fps: int = 0,
    prompt: str | None = None,
) -> list:
    """The form has this model now, with these settings as far as it offers them: updates for the model,
    `Inputs.of_model`, the list of LoRAs. These and `_choose`'s are the only ones for model and scheme, and their
    events are answered one after the other (`form` in __init__.py), so that the last to arrive is the last done."""
    model, schemes = load_catalog(PIPELINE.settings.catalog)[name], models_panel.usable(PIPELINE.settings)[name]
    size = size if size in [f"{width}x{height}" for width, height in model.sizes] else "auto"
    frames = frames if frames in model.frames else 0
    steps = steps if model.steps[0] <= steps <= model.steps[1] else 0
    fps = fps if fps in model.rates else 0
    updates = inputs.model_updates(model, schemes, scheme, size, frames, steps, fps)
    view["scheme"] = inputs.scheme_choices(model, schemes, scheme)["value"] or ""
    if prompt is not None:
        updates[0] = gr.update(info=model.hint or None, value=prompt)
    return [name, *updates, _lora_choices(view, model)]


def _choose(view: dict, name: str, scheme: str = "") -> list:
    """As `_fill`, for a choice: with the model that is there already its other settings stay."""
    if name != view["model"]:
        return _fill(view, name, scheme)
    model, schemes = load_catalog(PIPELINE.settings.catalog)[name], models_panel.usable(PIPELINE.settings)[name]
    boxes = inputs.scheme_choices(model, schemes, scheme)
    view["scheme"] = boxes["value"] or ""
    return [name, gr.skip(), gr.skip(), gr.update(**boxes), *[gr.skip()] * (FILLED - 4)]


@guard
def read_prompt(view: dict, prompt: str, name: str) -> str:
    """What the model will make of the prompt as it stands."""
    model = load_catalog(PIPELINE.settings.catalog).get(name) if isinstance(name, str) else None
    if model is None or not isinstance(prompt, str) or not prompt.strip():
        return ""
    prompt = prompt[: PIPELINE.settings.max_prompt]
    return inputs.reading_html(read_for(model, prompt, lora_picker.specs(view["loras"]), PIPELINE.settings))


def show_lengths(name: str, fps: int) -> dict:
    """The lengths in seconds follow the frames per second."""
    model = load_catalog(PIPELINE.settings.catalog).get(name) if isinstance(name, str) else None
    return gr.update(choices=inputs.lengths(model, fps)) if model and fps in model.rates else gr.skip()


@guard
def remember(browser: dict, view: dict, picture, prompt, size, frames, steps, fps, seed, voice, turn) -> list:
    """Something in the form has changed."""
    form.changed(view, form.read(picture, prompt, size, frames, steps, fps, seed, voice), turn)
    return observe(browser, view)


@guard
def choose_model(browser: dict, view: dict, name: str | None) -> list:
    """Updates: `_fill`'s, then `Observed`; one person's app loads the model at once. None: the list was opened and
    closed again, see `chosen` in page.js."""
    if name is None or name == view["model"]:
        return [*[gr.skip()] * FILLED, *observe(browser, view)]
    _must_run_here(name)
    _load(browser, view, name, "")
    return [*_choose(view, name), *observe(browser, view)]


@guard
def choose_scheme(browser: dict, view: dict, name: str, scheme: str | None) -> list:
    """As `choose_model`. `name` is the model that the person saw beside it, which may be older than a Load."""
    there = (name, scheme) == (view["model"], view["scheme"]) and PIPELINE.model.state != "failed"
    if scheme is None or there:
        return [*[gr.skip()] * FILLED, *observe(browser, view)]
    _must_run_here(name, scheme)
    status = PIPELINE.model
    if status.state == "failed" or (status.model, status.scheme) != (name, scheme):
        _load(browser, view, name, scheme)
    return [*_choose(view, name, scheme), *observe(browser, view)]


@guard
def load_model(browser: dict, view: dict, event: gr.EventData) -> list:
    """A Load button: updates as `choose_model`'s. It is chosen in the form as well."""
    name, scheme = text_of_event(event, "model"), text_of_event(event, "scheme")
    if identify(browser, PIPELINE.settings)[1] != "local":
        raise gr.Error("Several people use this app: a model is loaded with its clip.", print_exception=False)
    _must_run_here(name, scheme)
    _load(browser, view, name, scheme)
    return [*_choose(view, name, scheme), *observe(browser, view)]


def _must_run_here(name: str, scheme: str | None = None) -> None:
    offers = models_panel.usable(PIPELINE.settings).get(as_text(name, "model"), [])
    schemes = [found.name for found in offers]
    if not schemes or scheme not in (None, *schemes):
        raise gr.Error("That model cannot run here.", print_exception=False)


@guard
def refresh_choices(view: dict) -> list:
    """Updates for model and scheme: something was downloaded or has gone. The choice stays if it can."""
    catalog, usable = load_catalog(PIPELINE.settings.catalog), models_panel.usable(PIPELINE.settings)
    if not usable:
        return [gr.skip(), gr.skip()]
    models = [(catalog[found].short_title, found) for found in usable]
    name = view["model"] if view["model"] in usable else next(iter(usable))
    schemes = inputs.scheme_choices(catalog[name], usable[name], view["scheme"])
    if (name, schemes["value"]) == (view["model"], view["scheme"]):
        return [gr.update(choices=models), gr.update(choices=schemes["choices"])]
    view["model"], view["scheme"] = name, schemes["value"]
    return [gr.update(choices=models, value=name), gr.update(**schemes)]


@guard
def download_model(browser: dict, view: dict, event: gr.EventData) -> list:
    """A Download button. The download belongs to the app: closing the tab changes nothing."""
    _check_download(browser)
    try:
        PIPELINE.staging.start(text_of_event(event, "model"), text_of_event(event, "scheme"), PIPELINE.settings.engine)
    except UserError as error:
        raise gr.Error(text(for_visitor(str(error), PIPELINE.settings)), print_exception=False) from None
    _show(view, "download")
    return observe(browser, view)


@guard
def stop_download(browser: dict, view: dict) -> list:
    _check_download(browser)
    PIPELINE.staging.cancel()
    view["watch"] = time.monotonic() + IDLE
    return observe(browser, view)


def _may_download(owner: str) -> bool:
    """On a shared address strangers could fill the disk: only where a setting allows it."""
    return owner == "local" or bool(PIPELINE.settings.shared_downloads)


def _check_download(browser: dict) -> None:
    if not _may_download(identify(browser, PIPELINE.settings)[1]):
        words = "Downloads are not started from a shared address, unless WAN_UI_SHARED_DOWNLOADS=1 allows it."
        raise gr.Error(words, print_exception=False)


def _load(browser: dict, view: dict, name: str, scheme: str) -> None:
    # On a shared server a choice must not swap the model under everybody else: it is loaded with the job.
    if identify(browser, PIPELINE.settings)[1] == "local":
        try:
            PIPELINE.load(name, scheme, PIPELINE.settings.engine)
        except UserError as error:
            raise gr.Error(text(for_visitor(str(error), PIPELINE.settings)), print_exception=False) from None
        view["last"] = ""  # the card is free for the loading
        view["watch"] = time.monotonic() + IDLE


@guard
def check_face(browser: dict, view: dict, voice, picture, size: str, name: str) -> str:
    """The voice's note: before minutes are spent, whether there is a face that can speak, and anything to be spoken."""
    if not voice:
        return ""
    _, owner = identify(browser, PIPELINE.settings)
    catalog = load_catalog(PIPELINE.settings.catalog)
    model = catalog.get(as_text(name, "model")) or next(iter(catalog.values()))
    job = PIPELINE.job(view["selected"], owner)
    clip = PIPELINE.silent_clip(job) if job else None
    try:
        audio, picture = uploaded(voice, "audio"), uploaded(picture)
        return voice_part.voice_note(audio, picture, clip, as_text(size, "size", "auto"), model, PIPELINE.settings)
    except UserError as error:
        return complaint(error)


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
def add_lora(browser: dict, view: dict, name, turn) -> list:
    """Chosen in the list: updates for the list (empty again), `Observed`. None: it was only closed."""
    if not name:
        return [gr.skip(), *observe(browser, view)]
    try:
        view["loras"] = lora_picker.add(view["loras"], as_text(name, "loras"), _form_model(view), PIPELINE.settings)
        _show(view, "lora")
    except UserError as error:
        form.complain(view, "loras_message", error, turn)
        _show(view, "loras_message")
    return [gr.update(value=None), *observe(browser, view)]


@guard
def change_strength(browser: dict, view: dict, event: gr.EventData) -> list:
    file, value = text_of_event(event, "file"), number_of_event(event, "value")
    view["loras"] = lora_picker.change(view["loras"], file, strength=value)
    return observe(browser, view)


@guard
def change_target(browser: dict, view: dict, event: gr.EventData) -> list:
    file, value = text_of_event(event, "file"), text_of_event(event, "value")
    if value not in TARGETS:
        raise UserError(f"target: {value!r} is not one of {', '.join(TARGETS)}", field="target")
    view["loras"] = lora_picker.change(view["loras"], file, target=value)
    return observe(browser, view)


@guard
def remove_lora(browser: dict, view: dict, event: gr.EventData) -> list:
    view["loras"] = lora_picker.remove(view["loras"], text_of_event(event, "file"))
    return observe(browser, view)


@guard
def show_crop(view: dict, picture, size: str, name: str) -> list:
    """Updates: picture, crop, note. A picture that is refused is taken away, which is a change as well, and the browser
    may tell of it more than once: the reason stays until there is another picture."""
    if not picture:
        return [gr.skip(), "", gr.skip() if view["refused"] else ""]
    catalog = load_catalog(PIPELINE.settings.catalog)
    model = catalog.get(as_text(name, "model")) or next(iter(catalog.values()))
    try:
        preview = inputs.crop_preview(uploaded(picture), as_text(size, "size", "auto"), model)
        view["refused"] = False
        return [gr.skip(), *preview]
    except UserError as error:
        view["refused"] = True
        return [None, "", complaint(error)]
