// The tray of pictures: files are sent one by one, as the server takes them, and then told to it by their paths.
const pictures = /\.(avif|bmp|gif|heic|heif|ico|j2k|jp2|jpeg|jpg|mpo|pbm|pgm|png|ppm|tif|tiff|webp)$/i;
const most = 20;
const events = ['word_tray', 'size_tray', 'remove_tray', 'clear_tray'];

const state = (words) => {
  const place = element.querySelector('.w-tray-state');
  if (place) place.textContent = words;
};

const send = async (files) => {
  const chosen = files.filter((file) => file.type.startsWith('image/') || pictures.test(file.name));
  const left = files.length - chosen.length, sent = [], refused = [];
  window.wanUi.changes();
  for (const [number, file] of chosen.slice(0, most).entries()) {
    state(`Sending picture ${number + 1} of ${Math.min(chosen.length, most)} …`);
    const form = new FormData();
    form.append('files', file, file.name);
    const answer = await fetch('gradio_api/upload', { method: 'POST', body: form }).catch(() => null);
    if (answer?.ok) sent.push({ path: (await answer.json())[0], orig_name: file.name });
    else refused.push(`${file.name} could not be sent${answer ? `: ${(await answer.text()).slice(0, 200)}` : ''}`);
  }
  state('');
  if (left) refused.push(`${left} ${left === 1 ? 'file is' : 'files are'} no picture.`);
  if (chosen.length > most) refused.push(`At most ${most} pictures; ${chosen.length - most} were left out.`);
  trigger('add_tray', { files: sent, refused });
};

const choose = (folder) => {
  const input = Object.assign(document.createElement('input'), { type: 'file', multiple: true });
  if (folder) input.webkitdirectory = true;
  else input.accept = 'image/*,.heic,.heif,.avif,.jp2';
  input.id = 'tray-input';
  input.hidden = true;
  document.querySelector('#tray-input')?.remove();
  input.addEventListener('change', () => send([...input.files]));
  document.body.append(input);
  input.click();
};

window.wanUi.tray = send;
document.addEventListener('click', (event) => {
  const button = event.target.closest('[data-choose]');
  if (button) choose(button.dataset.choose === 'folder');
});

element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-do]');
  if (!button || !events.includes(button.dataset.do)) return;
  window.wanUi.changes();
  trigger(button.dataset.do, { at: Number(button.dataset.at ?? -1) });
});
element.addEventListener('change', (event) => {
  const control = event.target.closest('[data-do]');
  if (!control || !events.includes(control.dataset.do)) return;
  window.wanUi.changes();
  trigger(control.dataset.do, { at: Number(control.dataset.at), value: control.value });
});
let focused = '';
element.addEventListener('focusin', (event) => { focused = event.target.dataset.key || ''; });
element.addEventListener('focusout', (event) => { if (event.relatedTarget) focused = ''; });
watch('value', () => {
  if (focused && !element.contains(document.activeElement)) {
    element.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }
});
