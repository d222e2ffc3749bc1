"""The page: its layout, then all of its wiring. Builders build, this file connects.

Handlers (handlers/) only submit, observe and cancel; the jobs live in the pipeline. A timer looks at
the job every half second while one is active, and a load event does so when the page is opened, so a
reload, a second tab or a restart of the app all find their job again.
"""

from collections.abc import Callable
from typing import Any

import gradio as gr

from wan_ui.addresses import address_of
from wan_ui.catalog import find_model
from wan_ui.files import found
from wan_ui.settings import Settings
from wan_ui.ui.after_part import build_after
from wan_ui.ui.answers import Answer, Options, afterwards, check_drawn, connect, on
from wan_ui.ui.api import build_api
from wan_ui.ui.compare_tab import build_compare_tab
from wan_ui.ui.doctor_tab import build_doctor_tab
from wan_ui.ui.done_part import build_heard
from wan_ui.ui.examples import build_examples, load_examples
from wan_ui.ui.first_hint import build_first_hint
from wan_ui.ui.handlers import (
    after,
    changing,
    choosing,
    clips,
    loras,
    observe,
    presets,
    restore,
    submit,
    tray,
    waiting,
)
from wan_ui.ui.header import build_header
from wan_ui.ui.history import build_history
from wan_ui.ui.in_view import build_in_view
from wan_ui.ui.inputs import build_inputs
from wan_ui.ui.models_panel import build_models_panel, usable
from wan_ui.ui.progress_card import build_progress_card
from wan_ui.ui.queue_part import build_queue
from wan_ui.ui.result import build_result
from wan_ui.ui.security import CheckedBlocks
from wan_ui.ui.session import browser_state
from wan_ui.ui.view import View


def build_ui(settings: Settings) -> gr.Blocks:
    catalog = found.models(settings)
    find_model(catalog, settings.model).scheme(settings.scheme)  # a wrong setting is said before anything starts
    ready = usable(settings)
    chosen = settings.model if settings.model in ready or not ready else next(iter(ready))
    names = [scheme.name for scheme in ready.get(chosen, [])]
    wanted = settings.scheme or catalog[chosen].default_scheme

    # Uploads are deleted from Gradio's own cache when they are a day old; a job keeps its own copy.
    with CheckedBlocks(title="Wan UI", analytics_enabled=False, fill_width=True, delete_cache=(3600, 86400)) as page:
        browser, view, timer = browser_state(), gr.State(View()), gr.Timer(observe.BUSY, active=False)
        build_header()
        in_view, heard = build_in_view(), gr.Number(0, visible=False)
        linked, speech_for = gr.Textbox("", visible=False), gr.Textbox("", visible=False)
        poke, rested = gr.Button(elem_id="poke", visible="hidden"), gr.Button(elem_id="rested", visible="hidden")
        retell = gr.Button(elem_id="retell", visible="hidden")
        able = gr.HTML("", visible="hidden", apply_default_css=False)  # see models_panel.py:able_html
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Create", elem_id="create-tab"):
                hint = build_first_hint()
                with gr.Row(elem_id="desk"):
                    with gr.Column(elem_id="left", scale=5, min_width=320):
                        scheme = wanted if wanted in names else (names or [""])[0]
                        inputs = build_inputs(ready, catalog, chosen, scheme, settings)
                    with gr.Column(elem_id="right", scale=8, min_width=320):
                        card = build_progress_card()
                        result, result_message, sound = build_result()
                        build_heard()
                        more = build_after()
                        queue = build_queue()
                        samples = build_examples(load_examples())
                past = build_history()
            with gr.Tab("Models", elem_id="models-tab"):
                models = build_models_panel()
            with gr.Tab("Compare", elem_id="compare-tab") as compare_tab:
                wire_compare = build_compare_tab(browser)
            with gr.Tab("Doctor", elem_id="doctor-tab") as doctor_tab:
                wire_doctor = build_doctor_tab(browser)
        build_api(settings.max_queue, address_of(settings.host, settings.port))

        observed = {
            "card": card,
            "result": result,
            "after": more,
            "history": past.grid,
            "queue": queue,
            "earlier": inputs.earlier,
            "undo": past.undo,
            "download": models.download,
            "models": models.table,
            "able": able,
            "hint": hint,
            "workers": models.workers,
            "loras": inputs.loras.rows,
            "shelf": inputs.shelf,
            "lora_get": inputs.lora_get,
            "message": inputs.message,
            "loras_message": inputs.loras.message,
            "examples_message": samples.message,
            "result_message": result_message,
            "using": inputs.using,
            "offload_note": inputs.offload.note,
            "examples_note": samples.note,
            "in_view": in_view,
            "cancel": inputs.cancel,
            "generate": inputs.generate,
            "tray": inputs.tray,
            "timer": timer,
            "browser": browser,
            "view": view,
        }
        picture, end = inputs.picture, inputs.end
        # What handlers fill in: see form.py, also for `filled`.
        of_model = {**inputs.of_model(), "filled": inputs.filled, **observed}
        of_video = {
            "keep_picture": inputs.keep_picture,
            "seed": inputs.seed,
            "clips": inputs.several.clips,
            "segments": inputs.longer.segments,
            **of_model,
        }
        longer = {"before": inputs.longer.clip, "segments": inputs.longer.segments}
        files = {"picture": picture.image, "end": end.image, "voice": inputs.voice.audio, "pose": inputs.pose.clip}
        told = inputs.voice.told()
        files |= {name: getattr(inputs.performance, name) for name in ("performance", "face", "mask")}
        whole = {**files, **told, **longer, **of_video}
        driving = inputs.performance
        performed_note = {"performance_note": driving.note, "shown_pose": driving.shown}
        before_note, pose_note = {"before_note": inputs.longer.note}, {"pose_note": inputs.pose.note}
        voice_note = {"voice_note": inputs.voice.note}

        # Values arrive as the browser sent them and are checked by wan_ui.queue.intake; see handlers.
        plain: Options = {"api_visibility": "private", "preprocess": False, "show_progress": "hidden"}
        # Hidden, it is still counted in each frame of the screen, by every output: half of what an open page costs.
        plain["show_progress_on"] = []
        # Many people may look at once.
        light: Options = {**plain, "concurrency_limit": None, "trigger_mode": "multiple"}
        once: Options = {**light, "trigger_mode": "once"}  # not again before the last answer is there
        latest: Options = {**light, "trigger_mode": "always_last"}
        # Whatever fills in model and weights: one after the other, so that the last answer is that to the last act.
        in_order: Options = {**plain, "concurrency_id": "form", "concurrency_limit": 1, "trigger_mode": "multiple"}
        returned = "(browser, view) => [wanUi.returned(browser), view, wanUi.linked()]"
        stamp = "(...values) => wanUi.stamp(values)"  # see form.py
        silent: Options = {"api_visibility": "private", "show_progress": "hidden"}  # answered in the browser

        connect(poke.click, lambda: {}, [], {}, **light)  # see stream.js
        wire_compare(compare_tab, light)
        wire_doctor(doctor_tab, light)

        fills = [
            connect(page.load, observe.arrive, [browser, view, linked], whole, js=returned, **in_order)
        ]  # starts the timer
        with_heard = "(browser, view) => [browser, view, wanUi.heard()]"  # see in_view.py
        connect(timer.tick, observe.look, [browser, view, heard], observed, js=with_heard, **once)

        voice_change = [component.change for component in told.values()]
        files_change = [picture.image.change, end.image.change, inputs.voice.audio.change]
        form = [browser, view, inputs.model, inputs.scheme, *inputs.held(), inputs.turn]
        notes = {
            "picture_note": picture.note,
            "end_note": end.note,
            **voice_note,
            **before_note,
            **pose_note,
            **performed_note,
            "mask_note": driving.mask_note,
            "face_note": driving.face_note,
        }
        sent = {**notes, **observed}
        pressed = connect(inputs.generate.click, submit.submit, form, sent, js=stamp, **light)
        afterwards(pressed, "() => wanUi.answered()", **silent)
        encoded = [rested.click, picture.image.change, end.image.change, inputs.size.change, inputs.frames.change]
        connect(on(encoded), submit.prepare, form[:-1], {}, **latest)
        connect(inputs.cancel.click, submit.cancel, [browser, view], observed, **light)
        example: Options = {**in_order, "trigger_mode": "once"}
        press = [browser, view, inputs.turn]
        fills.append(connect(samples.cards.select, submit.run_example, press, whole, js=stamp, **example))
        texts_left = [inputs.prompt.blur, inputs.longer.segments.blur]  # not `change`, which every key is
        settings_change = [inputs.size.change, inputs.frames.change, inputs.steps.change, inputs.fps.change]
        recipe = inputs.recipe
        settings_change += [part.change for part in (recipe.guidance, recipe.guidance_low, recipe.shift)]
        settings_change += [recipe.solver.change, recipe.cache.change, recipe.negative.blur]
        connect(
            on(
                [
                    *settings_change,
                    inputs.seed.change,
                    inputs.draft.change,
                    inputs.keep_picture.change,
                    driving.overlap.change,
                    inputs.offload.way.change,
                    inputs.several.clips.change,
                    *files_change,
                    inputs.longer.clip.change,
                    inputs.pose.clip.change,
                    *(clip.change for clip in (driving.performance, driving.face, driving.mask)),
                    *voice_change,
                    *texts_left,
                    retell.click,  # see acts.js
                ]
            ),
            changing.remember,
            [browser, view, *inputs.held(), inputs.seen, inputs.turn],
            observed,
            js=stamp,
            **latest,
        )

        connect(
            on([inputs.longer.clip.change, inputs.size.change, inputs.model.change]),
            changing.look_before,
            [inputs.longer.clip, inputs.size, inputs.model],
            {"fps": inputs.fps, **before_note},
            **latest,
        )
        connect(
            on([inputs.pose.clip.change, inputs.size.change, inputs.model.change]),
            changing.look_at_pose,
            [inputs.pose.clip, inputs.size, inputs.model],
            pose_note,
            **latest,
        )
        connect(
            on([driving.performance.change, inputs.model.change]),
            changing.look_at_performance,
            [driving.performance, inputs.model],
            performed_note,
            **latest,
        )
        mask, face = {"mask_note": driving.mask_note}, {"face_note": driving.face_note}
        connect(driving.mask.change, changing.look_at_mask, [driving.mask], mask, **latest)
        connect(driving.face.change, changing.look_at_face, [driving.face], face, **latest)
        shown: Options = {**once, "show_progress": "minimal", "show_progress_on": [driving.shown]}
        connect(driving.look.click, changing.show_pose, [driving.performance], performed_note, **shown)
        fps = [inputs.model, inputs.fps]
        connect(inputs.fps.change, changing.show_lengths, fps, {"frames": inputs.frames}, **latest)
        of_crop = [view, picture.image, inputs.size, inputs.model]
        connect(
            on([picture.image.change, inputs.size.change, inputs.model.change]),
            changing.show_crop,
            of_crop,
            {"picture": picture.image, "picture_crop": picture.crop, "picture_note": picture.note},
            **latest,
        )
        moved = [browser, view, picture.image, end.image, inputs.size, inputs.model]
        by_hand: Options = {**plain, "concurrency_id": "crop", "concurrency_limit": 1, "trigger_mode": "multiple"}
        of_crops = {"picture": picture.image, "picture_crop": picture.crop, "picture_note": picture.note}
        of_crops |= {"end": end.image, "end_crop": end.crop, "end_note": end.note}
        for one in (picture.crop, end.crop):
            change = connect(one.move_crop, changing.move_crop, moved, {**of_crops, **observed}, **by_hand)
            afterwards(change, "() => wanUi.settled()", **silent)
        connect(
            on([end.image.change, picture.image.change, inputs.size.change, inputs.model.change]),
            changing.show_end_crop,
            [*of_crop, end.image],
            {"end": end.image, "end_crop": end.crop, "end_note": end.note},
            **latest,
        )
        connect(
            on([*files_change, inputs.size.change, inputs.model.change, result.change, *voice_change]),
            changing.check_face,
            [browser, view, inputs.voice.audio, picture.image, inputs.size, inputs.model, *told.values()],
            {**voice_note, "voice_trim": inputs.voice.trim, "voice_faces": inputs.voice.faces},
            **latest,
        )
        gr.on(voice_change, None, js="() => { wanUi.followPart?.(); wanUi.followFace?.(); }", **silent)
        voice = inputs.voice.audio
        gr.on(  # another sound: its whole
            [voice.upload, voice.clear, voice.stop_recording],
            None,
            None,
            [inputs.voice.start, inputs.voice.end],
            js="() => [null, null]",
            **silent,
        )
        connect(
            on([inputs.prompt.change, inputs.model.change, inputs.loras.rows.change]),
            changing.read_prompt,
            [view, inputs.prompt, inputs.model],
            {"reading": inputs.reading},
            **latest,
        )
        # `input`, not `change`: only a choice loads a model, not the filling in of old settings. Not `select`
        # either, which the keyboard does not fire. A list that is only opened and closed fires `input` as well:
        # page.js knows what it was when it was opened.
        added = {"lora_choices": inputs.loras.add, **observed}
        named = "(browser, view, name) => [browser, view, wanUi.chosen('model', name)]"
        by_name = [browser, view, inputs.model]
        fills.append(connect(inputs.model.input, choosing.choose_model, by_name, of_model, js=named, **in_order))
        named = "(browser, view, name, scheme) => [browser, view, name, wanUi.chosen('scheme', scheme)]"
        by_name = [browser, view, inputs.model, inputs.scheme]
        fills.append(connect(inputs.scheme.input, choosing.choose_scheme, by_name, of_model, js=named, **in_order))
        by_motion = [browser, view, recipe.motion]
        fills.append(connect(recipe.motion.input, choosing.choose_motion, by_motion, of_model, **in_order))
        of_size = {"size": inputs.size, "own_size_note": inputs.own_size.note, "filled": inputs.filled, **observed}
        sized = connect(inputs.own_size.part.own_size, changing.use_own_size, [browser, view], of_size, **in_order)
        afterwards(sized, "() => wanUi.settled()", **silent)
        fills.append(sized)
        length = inputs.own_length
        of_length = {"frames": inputs.frames, "own_length_note": length.note, "filled": inputs.filled, **observed}
        timed = connect(length.typed.own_length, changing.use_own_length, [browser, view], of_length, **in_order)
        afterwards(timed, "() => wanUi.settled()", **silent)
        fills.append(timed)
        adding = connect(
            inputs.loras.add.input,
            loras.add_lora,
            [browser, view, inputs.loras.add, inputs.turn],
            added,
            js="(browser, view, name, turn) => wanUi.stamp([browser, view, wanUi.adding(name), turn])",
            **light,
        )
        afterwards(adding, "() => wanUi.added()", **silent)

        boxes = {"model": inputs.model, "scheme": inputs.scheme}
        connect(able.change, choosing.refresh_choices, [view], boxes, **in_order)
        fills.append(connect(models.table.load_model, choosing.load_model, [browser, view], of_model, **in_order))
        for part in (models.table, hint):
            connect(part.download_model, choosing.download_model, [browser, view], observed, **once)
        connect(models.workers.load_worker, choosing.load_worker, [browser, view], observed, **once)
        connect(models.workers.unload_worker, choosing.unload_worker, [browser, view], observed, **once)
        connect(models.workers.restart_worker, choosing.restart_worker, [browser, view], observed, **once)
        connect(models.download.stop_download, choosing.stop_download, [browser, view], observed, **once)

        connect(inputs.loras.refresh.click, loras.refresh_loras, [browser, view], added, **light)
        connect(inputs.shelf.open_shelf, loras.open_shelf, [browser, view], observed, **light)
        connect(inputs.lora_get.fetch_lora, loras.fetch_lora, [browser, view], observed, **once)
        connect(inputs.lora_get.stop_lora, loras.stop_lora, [browser, view], observed, **once)
        rows = inputs.loras.rows
        for change, handler in (
            (rows.remove_lora, loras.remove_lora),
            (rows.target_lora, loras.change_target),
            (rows.strength_lora, loras.change_strength),
            (inputs.shelf.take_lora, loras.take_lora),
        ):
            changed = connect(change, handler, [browser, view], observed, **light)
            afterwards(changed, "() => wanUi.settled()", **silent)

        pictures = inputs.tray
        acts: list[tuple[Any, Callable[..., Answer]]] = [
            (pictures.add_tray, tray.add),
            (pictures.word_tray, tray.write),
            (pictures.size_tray, tray.resize),
            (pictures.remove_tray, tray.remove),
            (pictures.clear_tray, tray.clear),
        ]
        for act, answer in acts:
            changed = connect(act, answer, [browser, view], observed, **light)
            afterwards(changed, "() => wanUi.settled()", **silent)

        kept, of_presets = inputs.presets.part, {"presets_told": inputs.presets.told}
        held = [browser, view, inputs.model, inputs.scheme, *inputs.held()]
        preset = connect(kept.save_preset, presets.save, held, {**of_presets, **observed}, **light)
        afterwards(preset, "() => wanUi.settled()", **silent)
        preset = connect(kept.import_presets, presets.take_file, [browser, view], {**of_presets, **observed}, **light)
        afterwards(preset, "() => wanUi.settled()", **silent)
        preset = connect(kept.use_preset, presets.use, [browser, view], {**of_presets, **whole}, **in_order)
        afterwards(preset, "() => wanUi.settled()", **silent)
        fills.append(preset)

        speech = [browser, view, inputs.voice.audio, *told.values(), inputs.turn]
        for clips_part in (past.grid, card):
            connect(clips_part.select, clips.select, [browser, view], observed, **light)
        connect(past.grid.turn_page, clips.turn_page, [browser, view], observed, **light)
        connect(past.bar.search, clips.search, [browser, view], observed, **light)
        connect(past.bar.pack, clips.pack, [browser, view], {"archive": past.archive, **observed}, **once)
        connect(past.bar.star_many, clips.star_many, [browser, view], observed, **light)
        connect(past.bar.make, after.make, speech, observed, js=stamp, **once)
        for part in (past.bar, past.menu):
            connect(part.remove_many, clips.remove_many, [browser, view], observed, **light)
        connect(past.undo.undo, clips.undo, [browser, view], observed, **light)
        connect(result.hold, clips.hold, [browser, view], observed, **light)
        connect(result.remove, clips.remove, [browser, view], observed, **light)
        connect(more.make, after.make, speech, observed, js=stamp, **once)
        connect(result.open, clips.select, [browser, view], observed, **light)
        connect(result.side_by_side, clips.side_by_side, [browser, view], observed, **light)
        connect(result.stop_batch, clips.stop_batch, [browser, view], observed, **light)
        connect(result.remove_rest, clips.remove_rest, [browser, view], observed, **light)
        chosen_now = [browser, view, sound, speech_for, *told.values(), inputs.turn]
        spoken = {"voice": voice, **told, "filled": inputs.filled, **voice_note, **observed}
        speak, speak_with = "(...values) => wanUi.speak(values)", "(...values) => wanUi.speakWith(values)"
        fills.append(connect(sound.upload, submit.add_speech_with, chosen_now, spoken, js=speak_with, **in_order))
        of_seed = {"seed": inputs.seed, "filled": inputs.filled, **observed}
        fills.append(connect(result.reuse, restore.reuse_seed, [browser, view], of_seed, **in_order))
        old = [browser, view, inputs.turn]
        for part in (result, past.menu):
            connect(part.stop, submit.stop, [browser, view], observed, **light)
            connect(part.star, clips.star, [browser, view, inputs.turn], observed, js=stamp, **light)
            connect(part.speak, submit.add_speech, speech, {**voice_note, **observed}, js=speak, **once)
            fills.append(connect(part.extend, restore.extend, old, whole, js=stamp, **in_order))
            fills.append(connect(part.restore, restore.restore, old, whole, js=stamp, **in_order))
        for failed in (card, result):
            fills.append(connect(failed.fit, submit.run_fitting, old, whole, js=stamp, **in_order))
        fills.append(connect(queue.edit_job, waiting.edit, old, whole, js=stamp, **in_order))
        connect(queue.leave_job, waiting.leave, [browser, view], observed, **light)
        connect(queue.move_job, waiting.move, [browser, view], observed, **light)
        connect(queue.pause_line, waiting.pause, [browser, view], observed, **light)
        connect(queue.stop_all, waiting.stop_all, [browser, view], observed, **light)
        connect(queue.double_job, waiting.double, old, observed, js=stamp, **once)
        for part in (card, past.menu):
            connect(part.again, submit.again, old, observed, js=stamp, **once)
        connect(queue.stop_job, submit.stop, [browser, view], observed, **light)
        video = [browser, view, past.from_video]
        of_upload = {"from_video": past.message, **whole}
        fills.append(connect(past.from_video.upload, restore.restore_from_video, video, of_upload, **in_order))

        for filling in fills:  # all of its values are drawn then
            drawn = filling.success(None, inputs.filled, inputs.seen, js="(number) => number", **silent)
            afterwards(drawn, "() => wanUiActs.retell()", **silent)
    for block in page.blocks.values():
        check_drawn(block, getattr(block, "value", None))
    return page
