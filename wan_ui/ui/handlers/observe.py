"""What the page shows of the jobs: at every look of its timer, with the answer to every event, when it is opened."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from wan_ui.errors import UserError
from wan_ui.files import found
from wan_ui.machine.gpus import GAUGES
from wan_ui.queue.jobs import Job
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.ui import (
    after_part,
    done_part,
    examples,
    first_hint,
    form,
    history,
    in_view,
    inputs,
    lora_get,
    lora_picker,
    lora_shelf,
    memory_part,
    models_panel,
    offload_part,
    presets,
    progress_card,
    queue_part,
    result,
    voice,
    workers_part,
)
from wan_ui.ui import batch as batch_part
from wan_ui.ui import picture as pictures
from wan_ui.ui import several as several_part
from wan_ui.ui.answers import Answer
from wan_ui.ui.handlers.filling import fill, fill_fields, is_whole, offered
from wan_ui.ui.markup import Markup
from wan_ui.ui.refusals import guard
from wan_ui.ui.security import uploaded
from wan_ui.ui.session import for_visitor, identify, may_download
from wan_ui.ui.view import View

BUSY, IDLE = 0.5, 3.0  # seconds between looks


@guard
def look(browser: dict, view: View, heard) -> Answer:
    """The timer's. heard: the newest answer that the page has, none if they did not come one after the other. It has
    had the answer to the look before this one: what was drawn until then and is not there came late or never, and all
    is drawn again. The browser leaves alone what is the same."""
    with view.drawing:
        if not isinstance(heard, int) or heard < view.looked:
            view.sent = {}
        answer = _numbered(browser, view)
        view.looked = view.answers
    return answer


@guard
def observe(browser: dict, view: View) -> Answer:
    """With the answer to any other event than the timer's."""
    with view.drawing:
        return _numbered(browser, view)


def _numbered(browser: dict, view: View) -> Answer:
    """See in_view.py. An answer that fails has a number as well, and is missed."""
    whole = not view.sent
    view.answers += 1
    answer = _observed(browser, view)
    if not answer:
        view.answers -= 1
        return {"view": view}
    return {
        **answer,
        "in_view": in_view.order(view.answers, whole, view.show, len(view.active), view.ended),
        "view": view,
    }


def _observed(browser: dict, view: View) -> Answer:
    """Updates of what differs from what the page shows."""
    browser, owner = identify(browser, PIPELINE.settings)
    catalog = found.models(PIPELINE.settings)
    status = replace(PIPELINE.model, words=for_visitor(PIPELINE.model.words, PIPELINE.settings))
    rows = PIPELINE.pool.rows()
    download = models_panel.still_true(PIPELINE.download.status, PIPELINE.settings)
    said = [for_visitor(words, PIPELINE.settings) for words in (download.words, *download.found)]
    download = replace(download, words=said[0], found=tuple(said[1:]))
    jobs = PIPELINE.history(owner, history.LIMIT)
    by_id = {job.id: job for job in jobs}
    waiting = PIPELINE.waiting(owner)
    active = [*(job for job in reversed(jobs) if job.state == "running"), *waiting]
    if view.editing and view.editing not in [job.id for job in waiting]:
        view.editing = ""

    for job_id in dict.fromkeys([*view.active, *view.follow]):  # an answer under way may have taken one away
        ended = by_id.get(job_id)
        if ended is not None and not ended.active:
            _ended(view, ended)
    view.active = [job.id for job in active]
    _onto_the_stage(view, active, owner)
    last = by_id.get(view.last)
    browser["job"] = active[0].id if active else view.last
    browser["follow"] = list(view.follow)
    if view.fills:  # before, it is not known what this browser has kept
        browser["loras"], browser["form"] = list(view.loras), form.to_keep(view)
        browser["tray"] = several_part.to_keep(view.tray)

    several = len(rows) > 1
    if active:
        position = PIPELINE.position(active[0])
        card = progress_card.job_card(
            active[0],
            position,
            status,
            jobs,
            catalog,
            len(active) - 1,
            last,
            unseen=view.selected != active[0].id and view.batch != active[0].request.batch,
            several=several,
        )
    elif last is not None:
        unseen = view.selected != last.id and PIPELINE.clip(last) is not None
        card = progress_card.job_card(last, 0, status, jobs, catalog, unseen=unseen, several=several)
    else:
        card = progress_card.model_card(status, catalog)
    selected = by_id.get(view.selected) or PIPELINE.job(view.selected, owner)
    model = form.model_of(view, catalog)
    form.forget_what_is_mended(view, model, owner)
    working = any(row.state in ("loading", "working") for row in rows)
    busy = bool(active) or working or status.state == "loading" or download.active or time.monotonic() < view.watch
    busy = busy or bool(view.removed) or (bool(view.shelf) and PIPELINE.lora_downloads.status.active)
    if view.removed and time.monotonic() > view.undo_until:
        view.removed = []
    own, fetch = owner == "local", may_download(owner, PIPELINE.settings)

    answer: Answer = {}

    def draw(part: str, key: Any, update: Callable[[], Any]) -> None:
        if part not in view.sent or view.sent[part] != key:
            view.sent[part] = key
            answer[part] = update()

    def draw_html(part: str, html: Markup) -> None:
        draw(part, html, lambda: html)

    draw_html("card", card)
    together = PIPELINE.batch(view.batch, owner)
    if len(together) > 1:
        draw("result", batch_part.key(together), lambda: batch_part.batch_html(together))
    else:
        view.batch = ""
        siblings = len(PIPELINE.batch(selected.request.batch, owner)) if selected else 1
        draw(
            "result",
            [_key(selected), selected and (selected.star, progress_card.preview(selected)), several, siblings],
            lambda: result.result_html(selected, catalog, several, siblings),
        )
    alone = None if view.batch else selected  # several that play together are not one to change
    draw(
        "after",
        after_part.after_key(alone, jobs),
        lambda: after_part.after_html(alone, jobs, PIPELINE.settings),
    )
    shown, total = PIPELINE.page(owner, view.words, view.starred, view.page * history.PAGE, history.PAGE)
    if view.page and not shown:  # the last page is empty now
        view.page = max(0, (total - 1) // history.PAGE)
        shown, total = PIPELINE.page(owner, view.words, view.starred, view.page * history.PAGE, history.PAGE)
    draw_html("earlier", inputs.earlier_html(job.request.made_with.prompt for job in jobs if job.request.made_with))
    outlook = PIPELINE.pool.line.outlooks.get(owner)
    sought = bool(view.words or view.starred)
    draw(
        "history",
        [view.selected, several, view.page, total, sought, outlook, history.days(shown, view.zone)]
        + [(_key(job), job.star) for job in shown],
        lambda: history.history_html(shown, view.selected, several, view.page, total, sought, outlook, view.zone),
    )
    undo = bool(view.removed) and time.monotonic() < view.undo_until
    draw_html("undo", history.undo_html(len(view.removed)) if undo else Markup())
    draw("download", download, lambda: models_panel.download_html(download, catalog, fetch=fetch))
    usable = models_panel.usable(PIPELINE.settings)
    draw_html(
        "workers",
        (memory_part.memory_html(rows, list(GAUGES.looks)) if own else Markup())
        + workers_part.workers_html(rows, PIPELINE.pool.troubles, usable, catalog, PIPELINE.settings, own=own),
    )
    draw_html("able", models_panel.able_html(usable))
    draw(
        "models",
        models_panel.models_key(status, download, PIPELINE.settings),
        lambda: models_panel.models_html(status, download, PIPELINE.settings, own=own, fetch=fetch),
    )
    draw(
        "loras",
        lora_picker.rows_key(view.loras, model, jobs, PIPELINE.settings),
        lambda: lora_picker.rows_html(view.loras, model, jobs, PIPELINE.settings),
    )
    draw(
        "shelf",
        [view.shelf, model.name, [spec["file"] for spec in view.loras]] if view.shelf else [],
        lambda: lora_shelf.shelf_html(view.loras, model, PIPELINE.settings, is_open=bool(view.shelf)),
    )
    draw_html(
        "hint",
        first_hint.hint_html(model, list(GAUGES.looks), download, PIPELINE.settings, own=own, fetch=fetch),
    )
    lora = PIPELINE.lora_downloads.status
    lora = replace(lora, words=for_visitor(lora.words, PIPELINE.settings))
    draw_html("lora_get", lora_get.get_html(lora) if view.shelf and fetch else Markup())
    for place in form.PLACES:
        draw_html(place, form.complaint_html(view, place, PIPELINE.settings))
    scheme = form.scheme_of(view, model)
    needs = memory_part.needs(view, model, scheme, jobs, rows, PIPELINE.settings)
    draw_html("using", form.line_html(view, model, needs))
    draw_html("offload_note", offload_part.note_html(view, model, scheme, jobs, rows, PIPELINE.settings))
    takes = inputs.takes(model, "picture")
    tray, trouble = (view.tray, view.tray_trouble) if takes else ([], "")
    draw_html("tray", several_part.tray_html(tray, trouble, model))
    made = "Save the waiting clip" if view.editing else several_part.button(view.form.get("clips"), tray)
    draw("generate", made, lambda: made)
    left = PIPELINE.seconds_left(owner) if waiting else {}
    draw_html("queue", queue_part.queue_html(waiting, left, view.editing, len(active) > len(waiting)))
    draw_html("examples_note", examples.note_html(form.with_words(view, model), model))
    draw("in_view", [view.show, len(active), view.ended], str)  # `_numbered` has the words
    draw("cancel", bool(active), lambda: gr.update(visible=bool(active)))
    draw("timer", busy, lambda: gr.Timer(BUSY if busy else IDLE, active=True))
    draw("browser", browser, lambda: browser)
    return answer


def _ended(view: View, job: Job) -> None:
    """A clip that was asked for here takes the stage; one from elsewhere only an empty one."""
    view.last, view.ended = job.id, done_part.with_end(view.ended, job)
    followed = job.id in view.follow
    if followed:
        view.follow.remove(job.id)
    clip = PIPELINE.clip(job) is not None
    if clip and (followed or not view.selected):
        view.selected, view.batch = job.id, job.request.batch
    if followed:
        view.bring("result" if clip else "card", gently=True)


def _onto_the_stage(view: View, active: list[Job], owner: str) -> None:
    """A clip that was asked for here is seen as it is made, where no other one plays."""
    shown = PIPELINE.job(view.selected, owner)
    if shown is not None and (shown.active or PIPELINE.clip(shown) is not None):
        return
    if active and active[0].state == "running" and active[0].id in view.follow:
        view.selected = active[0].id


def _key(job: Job | None) -> tuple | None:
    return (job.id, job.state, PIPELINE.clip(job) is not None) if job else None


@guard
def arrive(browser: dict, view: View, linked="") -> Answer:
    """A page was opened or reloaded: the form as it was, the job that this browser followed, else the newest clip."""
    view.zone = history.read_zone(browser)
    browser, owner = identify(browser, PIPELINE.settings)
    follow = browser["follow"] if isinstance(browser["follow"], list) else []
    follow = [job for job in follow[: history.LIMIT] if isinstance(job, str) and PIPELINE.job(job, owner)]
    view.follow, view.loras, view.sent = follow, lora_picker.from_values(browser["loras"]), {}
    kept = browser["form"] if isinstance(browser["form"], dict) else {}
    with contextlib.suppress(UserError):  # none, or none that can be read: the page begins as it ended
        first = presets.read(kept.get("start"))
        kept = {name: kept.get(name) for name in (*form.PARTS, "crops", *voice.FIELDS.values())} | first["settings"]
        view.loras = first["loras"]
    chosen = _first_choice(kept, owner)
    filled = fill(view, *chosen, **offered(kept)) if chosen else {}
    files = {name: _kept_file(kept.get(name)) for name, entry in form.PARTS.items() if entry.file}
    seed = kept["seed"] if is_whole(kept.get("seed")) else -1
    filled["clips"] = several_part.read_clips(kept.get("clips"))
    filled["keep_picture"] = kept.get("keep_picture") is not False
    form.fill(view, clips=filled["clips"], keep_picture=filled["keep_picture"])
    view.tray, view.tray_trouble = _kept_tray(browser["tray"]), ""
    # The browser's storage gets all of it back with this answer: who reloads again at once loses nothing.
    segments = kept.get("segments") if isinstance(kept.get("segments"), str) else None  # a person may write already
    filled |= fill_fields(view, seed=seed, segments=segments, **{name: path for name, path in files.items() if path})
    there = {part: path for part in pictures.PARTS if (path := view.form.get(part))}
    view.crops = pictures.from_kept(kept.get("crops"), there)
    if files["voice"]:
        told = voice.to_form(voice.of_form(kept))
        form.fill(view, **told)
        filled |= {**told, "filled": view.fills}
    jobs = PIPELINE.history(owner, history.LIMIT)
    followed = browser["job"] if isinstance(browser["job"], str) and PIPELINE.job(browser["job"], owner) else ""
    view.active = [*follow, *([followed] if followed else [])]  # what has ended meanwhile is shown
    view.selected = next((job.id for job in jobs if PIPELINE.clip(job) is not None), "")
    if isinstance(linked, str) and linked:
        if PIPELINE.job(linked, owner) is not None:
            view.selected, view.active = linked, [job for job in view.active if job == linked]
        else:
            words = "clip: there is no such clip of yours: it was deleted, or it is another person's"
            form.complain(view, "result_message", UserError(words, field="link"), 0)
        view.bring("result")
    elif being_made := [job for job in reversed(jobs) if job.id in follow and job.state == "running"]:
        view.selected = being_made[0].id
    return {**filled, **observe(browser, view)}


def _kept_tray(kept: Any) -> list[dict[str, str]]:
    """Its pictures, as far as they are still there."""
    tray = []
    for entry in kept[: several_part.MOST] if isinstance(kept, list) else []:
        path = _kept_file(entry.get("path")) if isinstance(entry, dict) else ""
        own = {name: entry.get(name) for name in ("name", "words", "size")} if path else {}
        with contextlib.suppress(UserError):
            if path and all(isinstance(value, str) for value in own.values()):
                tray.append(several_part.entry_of(path, **own))
    return tray


def _first_choice(kept: dict, owner: str) -> tuple[str, str] | None:
    """Model and scheme of a new page: what was chosen in this browser, else what is loaded, else the default."""
    usable, status = models_panel.usable(PIPELINE.settings), PIPELINE.model
    wishes: list[tuple[Any, ...]] = [(kept.get("model"), kept.get("scheme"))]
    wishes += [status.kept[:2] or (status.model, status.scheme)] if owner == "local" else []
    wishes += [(PIPELINE.settings.model, PIPELINE.settings.scheme), *((name, "") for name in usable)]
    return next(((name, str(scheme)) for name, scheme in wishes if isinstance(name, str) and name in usable), None)


def _kept_file(path: Any) -> str:
    """A picture or a voice that this browser had in its form, if it is still there."""
    if not isinstance(path, str):
        return ""
    try:
        path = uploaded({"path": path})
    except UserError:
        return ""
    return path if path and Path(path).is_file() else ""
