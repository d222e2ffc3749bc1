""" "More with this clip": the clip on the stage becomes another, by a job like any other."""

import gradio as gr

from wan_ui.changes import MAX_JOINED
from wan_ui.errors import UserError
from wan_ui.queue.draft import Draft
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.speaking import PART
from wan_ui.tasks import NEXT, SOUND
from wan_ui.ui import form
from wan_ui.ui.answers import Answer
from wan_ui.ui.handlers.observe import observe
from wan_ui.ui.refusals import guard
from wan_ui.ui.security import uploaded
from wan_ui.ui.session import asker, identify
from wan_ui.ui.values import of_event, text_of_event, texts_of_event
from wan_ui.ui.view import View
from wan_ui.ui.voice import speaking_of


@guard
def make(browser: dict, view: View, event: gr.EventData, voice, *sent) -> Answer:
    browser, owner = identify(browser, PIPELINE.settings)
    *told, turn = sent
    try:
        changes, after = of_event(event, "changes"), texts_of_event(event, "next")
        if not isinstance(changes, dict):
            raise UserError("changes: expected names and values", field="changes")
        if len(after) > MAX_JOINED:
            raise UserError(f"next: at most {MAX_JOINED} clips can follow, not {len(after)}", field="next")
        laid = changes.get("sound") == "voice"
        if laid and not voice:
            raise UserError("sound: choose a sound file under Speech first", field="sound")
        inputs = {SOUND.name: uploaded(voice, SOUND.name)} if laid else {}
        changes = {name: value for name, value in changes.items() if name != "sound"}
        speaking = {name: value for name, value in speaking_of(told).items() if laid and name in PART}
        jobs = dict(zip([entry.name for entry in NEXT], after, strict=False))
        draft = Draft(
            inputs, task="after-work", job=text_of_event(event, "job"), jobs=jobs, changes=changes, speaking=speaking
        )
        job_id = PIPELINE.submit(draft, owner, asker(PIPELINE.settings))
        view.active.append(job_id)
        view.follow.append(job_id)
        view.last, view.complaint = "", None
        view.bring("result")
    except UserError as error:
        form.complain(view, "result_message", error, turn)
    return observe(browser, view)
