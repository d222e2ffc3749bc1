"""Below the shelf, for who may: a LoRA fetched by a link to the hub, or sent as a file, into the LoRA folder."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import gradio as gr

from wan_ui.errors import UserError
from wan_ui.loras.arrival import arriving, check_room, keep, safe_name
from wan_ui.queue.lora_download import LoraDownload
from wan_ui.settings import Settings
from wan_ui.ui.markup import Markup

ADDRESS = "/api/lora-files"
# What is typed stays when the part is drawn anew; a file goes by XMLHttpRequest, which tells how far it is.
SCRIPT = """
let typed = '', kept = null, sending = null;
const said = (words, bad) => {
  const line = element.querySelector('[data-said]');
  if (!line) return;
  line.textContent = words;
  line.classList.toggle('bad', Boolean(bad));
};
const send = (file) => {
  const request = sending = new XMLHttpRequest();
  const done = (words, bad) => {
    sending = null;
    said(words, bad);
    if (!bad) document.querySelector('#lora-refresh')?.click();
  };
  request.upload.onprogress = ({ loaded, total }) => {
    said(loaded < total ? `Sending ${file.name}: ${Math.floor(100 * loaded / total)} %` : `Looking at ${file.name}`);
  };
  request.onload = () => {
    let answer = {};
    try { answer = JSON.parse(request.responseText); } catch { /* a proxy's own page */ }
    if (request.status === 201) done(`${answer.name} is on the shelf.`);
    else done(answer.error || `${file.name} was not taken (${request.status}).`, true);
  };
  request.onerror = () => done(`${file.name} could not be sent: the app does not answer.`, true);
  request.open('POST', `api/lora-files?name=${encodeURIComponent(file.name)}`);
  request.setRequestHeader('content-type', 'application/octet-stream');
  request.send(file);
};
element.addEventListener('input', (event) => { if (event.target.matches('[data-link]')) typed = event.target.value; });
element.addEventListener('change', (event) => {
  const [file] = event.target.files || [];
  if (file && !sending) send(file);
  if (event.target.files) event.target.value = '';
});
const fetchIt = () => {
  if (!typed.trim()) return;
  trigger('fetch_lora', { link: typed });
};
element.addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && event.target.matches('[data-link]') && !event.ctrlKey && !event.metaKey) fetchIt();
});
element.addEventListener('click', (event) => {
  const act = event.target.closest('[data-do]')?.dataset.do;
  if (act === 'fetch_lora') fetchIt();
  if (act === 'stop_lora') trigger('stop_lora', {});
  if (act === 'choose_file') element.querySelector('input[type=file]').click();
});
watch('value', () => {
  const part = element.querySelector('[data-kept]'), link = element.querySelector('[data-link]');
  if (!part) return;
  if (kept !== null && part.dataset.kept !== kept) {
    typed = '';
    document.querySelector('#lora-refresh')?.click();
  }
  kept = part.dataset.kept;
  if (link && document.activeElement !== link) link.value = typed;
});
"""


def build_lora_get() -> gr.HTML:
    return gr.HTML("", elem_id="lora-get", js_on_load=SCRIPT, apply_default_css=False)


def get_html(status: LoraDownload) -> Markup:
    return Markup(
        '<div class="w-shelf w-shelf-get" data-kept="{kept}"><b>Another LoRA</b>'
        '<div class="w-shelf-link"><input data-link aria-label="A Hugging Face link" '
        'placeholder="owner/repo/file.safetensors, or the link of a file on Hugging Face">'
        '<button type="button" class="w-button" data-do="fetch_lora"{disabled}>Fetch'
        "</button></div>"
        '<div class="w-shelf-do"><button type="button" class="w-button" data-do="choose_file">Choose a file</button>'
        '<input type="file" accept=".safetensors" hidden aria-label="A LoRA file"></div>'
        '{progress}<p class="w-note" role="status" data-said></p></div>'
    ).format(kept=status.kept, disabled=" disabled" if status.active else "", progress=_progress(status))


def _progress(status: LoraDownload) -> Markup:
    name = status.name
    match status.state:
        case "asking":
            return Markup('<p class="w-quiet">Asking for {}</p><div class="w-bar open"><i></i></div>').format(name)
        case "running":
            percent = 100 * status.done / max(status.total, 1)
            said = f"{name}: {status.done / 1e6:.0f} of {status.total / 1e6:.0f} MB"
            return Markup(
                '<p class="w-quiet">{said}</p><div class="w-bar" role="progressbar" aria-label="Fetching {name}" '
                'aria-valuemin="0" aria-valuemax="100" aria-valuenow="{percent:.0f}">'
                '<i style="width:{percent:.1f}%"></i></div><div class="w-shelf-do"><button type="button" '
                'class="w-button" data-do="stop_lora">Cancel</button></div>'
            ).format(said=said, name=name, percent=percent)
        case "done":
            return Markup('<p class="w-quiet" role="status">{} is on the shelf.</p>').format(name)
        case "cancelled":
            return Markup('<p class="w-quiet" role="status">{} was cancelled; nothing of it was kept.</p>').format(name)
        case "failed":
            return Markup('<p class="w-note bad" role="alert">{}</p>').format(status.words)
    return Markup()


async def receive_file(name: str, length: int, parts: AsyncIterator[bytes], settings: Settings) -> str:
    """A file as it arrives, into the LoRA folder; the name that it has there. Raises UserError."""
    name = safe_name(name)
    await asyncio.to_thread(check_room, length, settings)
    with arriving(settings) as folder:
        path = folder / name
        try:
            with path.open("wb") as file:
                beginning, seen = b"", 0
                async for part in parts:
                    if seen < 9:
                        beginning = (beginning + part)[:9]
                    seen += len(part)
                    if len(beginning) == 9 and beginning[8:9] != b"{":
                        raise UserError(f"file: {name} is not what its name says: no safetensors file", field="file")
                    await asyncio.to_thread(file.write, part)
        except OSError as error:
            raise UserError(f"disk: {name} could not be stored ({error.strerror})", field="file") from None
        if seen != length:
            raise UserError(f"file: {seen} of {length} bytes of {name} arrived; send it again", field="file")
        return await asyncio.to_thread(keep, Path(path), settings)
