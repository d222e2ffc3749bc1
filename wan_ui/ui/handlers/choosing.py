"""Model and weights: chosen in the form, loaded, downloaded."""

import time
from collections.abc import Callable

import gradio as gr

from wan_ui.errors import UserError
from wan_ui.files import found
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.ui import form, inputs, models_panel
from wan_ui.ui.answers import Answer
from wan_ui.ui.handlers.filling import choose, fill_recipe
from wan_ui.ui.handlers.observe import IDLE, observe
from wan_ui.ui.refusals import guard, refusal
from wan_ui.ui.session import identify, may_download
from wan_ui.ui.values import as_text, text_of_event
from wan_ui.ui.view import View


@guard
def choose_model(browser: dict, view: View, name: str | None) -> Answer:
    """One person's app loads the model at once. None: the list was opened and closed again, see `chosen` in page.js."""
    if name is None or name == view.model:
        return observe(browser, view)
    _must_run_here(name)
    _load(browser, view, name, "")
    return {**choose(view, name), **observe(browser, view)}


@guard
def choose_scheme(browser: dict, view: View, name: str, scheme: str | None) -> Answer:
    """As `choose_model`. `name` is the model that the person saw beside it, which may be older than a Load."""
    there = (name, scheme) == (view.model, view.scheme) and PIPELINE.model.state != "failed"
    if scheme is None or there:
        return observe(browser, view)
    _must_run_here(name, scheme)
    status = PIPELINE.model
    if status.state == "failed" or (status.model, status.scheme) != (name, scheme):
        _load(browser, view, name, scheme)
    return {**choose(view, name, scheme), **observe(browser, view)}


@guard
def choose_motion(browser: dict, view: View, motion) -> Answer:
    """Its steps and guidance come with it."""
    model = form.model_of(view, found.models(PIPELINE.settings))
    return {**fill_recipe(view, model, as_text(motion, "motion")), **observe(browser, view)}


@guard
def load_model(browser: dict, view: View, event: gr.EventData) -> Answer:
    """A Load button. The model is chosen in the form as well."""
    name, scheme = text_of_event(event, "model"), text_of_event(event, "scheme")
    if identify(browser, PIPELINE.settings)[1] != "local":
        raise gr.Error("Several people use this app: a model is loaded with its clip.", print_exception=False)
    _must_run_here(name, scheme)
    _load(browser, view, name, scheme)
    return {**choose(view, name, scheme), **observe(browser, view)}


@guard
def load_worker(browser: dict, view: View, event: gr.EventData) -> Answer:
    """Of a worker's card, as the two after it."""
    name, scheme = text_of_event(event, "model"), text_of_event(event, "scheme")
    _must_run_here(name, scheme)
    engine = PIPELINE.settings.engine
    return _of_worker(browser, view, event, lambda worker: PIPELINE.load(name, scheme, engine, worker))


@guard
def unload_worker(browser: dict, view: View, event: gr.EventData) -> Answer:
    return _of_worker(browser, view, event, lambda worker: PIPELINE.pool[worker].unload())


@guard
def restart_worker(browser: dict, view: View, event: gr.EventData) -> Answer:
    return _of_worker(browser, view, event, PIPELINE.pool.restart_one)


def _of_worker(browser: dict, view: View, event: gr.EventData, do: Callable[[str], None]) -> Answer:
    if identify(browser, PIPELINE.settings)[1] != "local":
        words = "Several people use this app: only the person at its machine may change the workers."
        raise gr.Error(words, print_exception=False)
    try:
        do(text_of_event(event, "worker"))
    except UserError as error:
        raise refusal(error) from None
    view.watch = time.monotonic() + IDLE
    return observe(browser, view)


def _must_run_here(name: str, scheme: str | None = None) -> None:
    offers = models_panel.usable(PIPELINE.settings).get(as_text(name, "model"), [])
    schemes = [found.name for found in offers]
    if not schemes or scheme not in (None, *schemes):
        raise gr.Error("That model cannot run here.", print_exception=False)


def _load(browser: dict, view: View, name: str, scheme: str) -> None:
    # On a shared server a choice must not swap the model under everybody else: it is loaded with the job.
    if identify(browser, PIPELINE.settings)[1] == "local":
        try:
            PIPELINE.load(name, scheme, PIPELINE.settings.engine)
        except UserError as error:
            raise refusal(error) from None
        view.last = ""  # the card is free for the loading
        view.watch = time.monotonic() + IDLE


@guard
def refresh_choices(view: View) -> Answer:
    """Something was downloaded or has gone. The choice stays if it can."""
    catalog, usable = found.models(PIPELINE.settings), models_panel.usable(PIPELINE.settings)
    if not usable:
        return {}
    models = [(catalog[found].short_title, found) for found in usable]
    name = view.model if view.model in usable else next(iter(usable))
    schemes = inputs.scheme_choices(catalog[name], usable[name], view.scheme)
    if (name, schemes["value"]) == (view.model, view.scheme):
        return {"model": gr.update(choices=models), "scheme": gr.update(choices=schemes["choices"])}
    view.model, view.scheme = name, schemes["value"]
    return {"model": gr.update(choices=models, value=name), "scheme": gr.update(**schemes)}


@guard
def download_model(browser: dict, view: View, event: gr.EventData) -> Answer:
    """A Download button. The download belongs to the app: closing the tab changes nothing."""
    check_download(browser)
    try:
        PIPELINE.download.start(text_of_event(event, "model"), text_of_event(event, "scheme"), PIPELINE.settings.engine)
    except UserError as error:
        raise refusal(error) from None
    view.bring("download")
    return observe(browser, view)


@guard
def stop_download(browser: dict, view: View) -> Answer:
    check_download(browser)
    PIPELINE.download.cancel()
    view.watch = time.monotonic() + IDLE
    return observe(browser, view)


def check_download(browser: dict) -> None:
    if not may_download(identify(browser, PIPELINE.settings)[1], PIPELINE.settings):
        words = "Downloads are not started from a shared address, unless WAN_UI_SHARED_DOWNLOADS=1 allows it."
        raise gr.Error(words, print_exception=False)
