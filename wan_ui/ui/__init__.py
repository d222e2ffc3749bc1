"""The page: its layout, then all of its wiring. Builders build, this file connects.

Handlers (handlers.py) only submit, observe and cancel; the jobs live in the pipeline. A timer looks at
the job every half second while one is active, and a load event does so when the page is opened, so a
reload, a second tab or a restart of the app all find their job again.
"""

import logging
from pathlib import Path

import gradio as gr
from gradio.utils import get_upload_folder
from starlette.middleware import Middleware

from wan_ui.catalog import find_model, load_catalog
from wan_ui.settings import Settings
from wan_ui.ui import examples, handlers, server, uploads
from wan_ui.ui.aliases import Aliases
from wan_ui.ui.api import build_api
from wan_ui.ui.compare_tab import build_compare_tab
from wan_ui.ui.doctor_tab import build_doctor_tab
from wan_ui.ui.examples import build_examples, load_examples
from wan_ui.ui.handlers import BUSY, NEW_VIEW
from wan_ui.ui.history import build_history
from wan_ui.ui.in_view import build_in_view
from wan_ui.ui.inputs import build_inputs
from wan_ui.ui.models_panel import build_models_panel, usable
from wan_ui.ui.progress_card import build_progress_card
from wan_ui.ui.result import build_result
from wan_ui.ui.security import VISITOR, CheckedBlocks, Guard, harden
from wan_ui.ui.session import browser_state
from wan_ui.ui.theme import CSS, FAVICON, SCRIPTS, build_theme

HEADER = (
    '<header class="w-header"><svg viewBox="0 0 32 32" aria-hidden="true"><rect width="32" height="32" rx="9"/>'
    '<path d="M7 19c3-7 5-7 7.500-1s4.500 6 10.500-6"/></svg><h1>Wan UI</h1>'
    "<p>a picture and a sentence become a clip</p></header>"
)


def build_ui(settings: Settings) -> gr.Blocks:
    catalog = load_catalog(settings.catalog)
    find_model(catalog, settings.model).scheme(settings.scheme)  # a wrong setting is said before anything starts
    ready = usable(settings)
    chosen = settings.model if settings.model in ready or not ready else next(iter(ready))
    names = [scheme.name for scheme in ready.get(chosen, [])]
    wanted = settings.scheme or catalog[chosen].default_scheme

    # Uploads are deleted from Gradio's own cache when they are a day old; a job keeps its own copy.
    with CheckedBlocks(title="Wan UI", analytics_enabled=False, fill_width=True, delete_cache=(3600, 86400)) as page:
        browser, view, timer = browser_state(), gr.State(NEW_VIEW), gr.Timer(BUSY, active=False)
        gr.HTML(HEADER, apply_default_css=False)
        in_view = build_in_view()
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Create"):
                with gr.Row(elem_id="desk"):
                    with gr.Column(elem_id="left", scale=5, min_width=320):
                        scheme = wanted if wanted in names else (names or [""])[0]
                        inputs = build_inputs(ready, catalog, chosen, scheme, settings)
                    with gr.Column(elem_id="right", scale=8, min_width=320):
                        card = build_progress_card()
                        result, result_message = build_result()
                        samples = build_examples(load_examples())
                        past = build_history()
                models = build_models_panel()
            with gr.Tab("Compare") as compare_tab:
                wire_compare = build_compare_tab(browser)
            with gr.Tab("Doctor") as doctor_tab:
                wire_doctor = build_doctor_tab(browser)
        build_api(settings.max_queue, server.address_of(settings.host, settings.port))

        observed = [
            card,
            result,
            past.grid,
            models.download,
            models.table,
            inputs.loras.rows,
            inputs.message,
            inputs.loras.message,
            samples.message,
            result_message,
            inputs.using,
            samples.note,
            in_view,
            inputs.cancel,
            timer,
            browser,
            view,
        ]
        # Values arrive as the browser sent them and are checked by wan_ui.queue.intake; see handlers.py.
        plain = {"api_visibility": "private", "preprocess": False, "show_progress": "hidden"}
        light = {**plain, "concurrency_limit": None, "trigger_mode": "multiple"}  # many people may look at once
        once = {**light, "trigger_mode": "once"}  # not again before the last answer is there
        latest = {**light, "trigger_mode": "always_last"}
        # Whatever fills in model and weights: one after the other, so that the last answer is that to the last act.
        in_order = {**plain, "concurrency_id": "form", "concurrency_limit": 1, "trigger_mode": "multiple"}
        stamp = "(...values) => wanUi.stamp(values)"  # see form.py

        wire_compare(compare_tab, light)
        wire_doctor(doctor_tab, light)

        chosen = [inputs.model, *inputs.of_model(), inputs.loras.add]  # what `handlers._fill` fills in
        filled = [inputs.picture, inputs.voice.audio, inputs.seed, *chosen, *observed]

        page.load(handlers.arrive, [browser, view], filled, **in_order)  # starts the timer
        timer.tick(handlers.look, [browser, view], observed, **once)

        sent = [inputs.picture_note, inputs.voice.note, *observed]
        form = [browser, view, inputs.model, inputs.scheme, *inputs.held(), inputs.turn]
        pressed = inputs.generate.click(handlers.submit, form, sent, js=stamp, **light)
        pressed.then(None, js="() => wanUi.answered()", api_visibility="private", show_progress="hidden")
        inputs.cancel.click(handlers.cancel, [browser, view], observed, **light)
        example = [browser, view, inputs.turn]
        samples.cards.select(handlers.run_example, example, filled, js=stamp, **{**in_order, "trigger_mode": "once"})
        # Not `prompt.change`, which every key is.
        gr.on(
            [part.change for part in inputs.held() if part is not inputs.prompt] + [inputs.prompt.blur],
            handlers.remember,
            [browser, view, *inputs.held(), inputs.turn],
            observed,
            js=stamp,
            **latest,
        )

        inputs.fps.change(handlers.show_lengths, [inputs.model, inputs.fps], inputs.frames, **latest)

        cropped = [inputs.picture, inputs.crop, inputs.picture_note]
        gr.on(
            [inputs.picture.change, inputs.size.change, inputs.model.change],
            handlers.show_crop,
            [view, inputs.picture, inputs.size, inputs.model],
            cropped,
            **latest,
        )
        gr.on(
            [inputs.voice.audio.change, inputs.picture.change, inputs.size.change, inputs.model.change, result.change],
            handlers.check_face,
            [browser, view, inputs.voice.audio, inputs.picture, inputs.size, inputs.model],
            inputs.voice.note,
            **latest,
        )
        gr.on(
            [inputs.prompt.change, inputs.model.change, inputs.loras.rows.change],
            handlers.read_prompt,
            [view, inputs.prompt, inputs.model],
            inputs.reading,
            **latest,
        )
        # `input`, not `change`: only a choice loads a model, not the filling in of old settings. Not `select`
        # either, which the keyboard does not fire. A list that is only opened and closed fires `input` as well:
        # page.js knows what it was when it was opened.
        loras = inputs.loras
        for name, part in (("model", inputs.model), ("scheme", inputs.scheme), ("lora", loras.add)):
            opened = f"(value) => {{ wanUi.opened.{name} = value; }}"
            part.focus(None, part, js=opened, api_visibility="private", show_progress="hidden", queue=False)
        inputs.model.input(
            handlers.choose_model,
            [browser, view, inputs.model],
            [*chosen, *observed],
            js="(browser, view, name) => [browser, view, wanUi.chosen('model', name)]",
            **in_order,
        )
        inputs.scheme.input(
            handlers.choose_scheme,
            [browser, view, inputs.model, inputs.scheme],
            [*chosen, *observed],
            js="(browser, view, name, scheme) => [browser, view, name, wanUi.chosen('scheme', scheme)]",
            **in_order,
        )
        loras.add.input(
            handlers.add_lora,
            [browser, view, loras.add, inputs.turn],
            [loras.add, *observed],
            js="(browser, view, name, turn) => wanUi.stamp([browser, view, wanUi.chosen('lora', name), turn])",
            **light,
        )

        models.table.change(handlers.refresh_choices, view, [inputs.model, inputs.scheme], **in_order)
        models.table.load_model(handlers.load_model, [browser, view], [*chosen, *observed], **in_order)
        models.table.download_model(handlers.download_model, [browser, view], observed, **once)
        models.download.stop_download(handlers.stop_download, [browser, view], observed, **once)

        loras.refresh.click(handlers.refresh_loras, [browser, view], [loras.add, *observed], **light)
        loras.rows.remove_lora(handlers.remove_lora, [browser, view], observed, **light)
        loras.rows.target_lora(handlers.change_target, [browser, view], observed, **light)
        loras.rows.strength_lora(handlers.change_strength, [browser, view], observed, **light)

        for part in (past.grid, card):
            part.select(handlers.select, [browser, view], observed, **light)
        result.hold(handlers.hold, [browser, view], observed, **light)
        result.remove(handlers.remove, [browser, view], observed, **light)
        result.stop(handlers.stop, [browser, view], observed, **light)
        speech = [browser, view, inputs.voice.audio, inputs.turn]
        result.speak(handlers.add_speech, speech, [inputs.voice.note, *observed], js=stamp, **once)
        result.reuse(handlers.reuse_seed, [browser, view], [inputs.seed, *observed], **light)
        result.restore(handlers.restore, [browser, view, inputs.turn], filled, js=stamp, **in_order)
        past.from_video.upload(
            handlers.restore_from_video,
            [browser, view, past.from_video],
            [past.message, inputs.seed, *chosen, *observed],
            **in_order,
        )
    return page


def launch(page: gr.Blocks, settings: Settings, clips: str) -> None:
    """Serve in a thread, and say where."""
    logging.getLogger("httpx").setLevel(logging.WARNING)  # Gradio asks itself whether it is up
    harden()
    folder = Path(get_upload_folder())
    uploads.keep_clean(folder, ours=folder.is_relative_to(settings.outputs))
    server.install(settings, lambda app: Guard(app, settings))
    page.queue(max_size=None)
    page.launch(
        server_name=f"[{settings.host}]" if ":" in settings.host else settings.host,
        server_port=settings.port,
        auth=tuple(settings.auth.split(":", 1)) if settings.auth else None,
        # Every clip lies under an id that cannot be guessed; the examples are everybody's.
        allowed_paths=[clips, str(examples.FOLDER)],
        max_file_size=f"{settings.max_upload_mb}mb",
        app_kwargs={"middleware": [Middleware(Aliases, folder=folder, header=VISITOR.decode())]},
        root_path=settings.root_path,
        theme=build_theme(),
        css_paths=CSS,
        head="".join(f"<script>{script.read_text(encoding='utf-8')}</script>" for script in SCRIPTS),
        favicon_path=FAVICON,
        footer_links=["api"],
        share=False,
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        quiet=True,
        prevent_thread_lock=True,
    )
    print(f"Wan UI: {page.local_url}", flush=True)
