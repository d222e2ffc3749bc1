// The part of a picture that is used: moved by pointer, finger and arrow keys, its size changed by + and -, two fingers or
// the wheel (while it has the focus). What comes out is a centre and a zoom, see wan_ui/crop.py; the server is told when a
// change is over.
const area = () => element.querySelector('.w-crop'), part = element.closest('[id$=-part]').id.replace('-part', '');
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
let now = null, telling = 0; // x, y, zoom
let focused = ''; // what has the focus here, also while it is drawn anew
let moved = null; // of which picture a person has moved it: an answer from before that draws it anew does not move it back

// Where picture and part are, in pixels of the area.
const places = () => {
  const picture = area().querySelector('img'), [wide, high] = area().dataset.shape.split(',').map(Number);
  const scale = Math.min(area().clientWidth / picture.naturalWidth, area().clientHeight / picture.naturalHeight);
  const width = picture.naturalWidth * scale, height = picture.naturalHeight * scale;
  const most = Math.min(width / wide, height / high) / now.zoom, w = wide * most, h = high * most;
  const left = (area().clientWidth - width) / 2, top = (area().clientHeight - height) / 2;
  const x = clamp(now.x * width - w / 2, 0, width - w), y = clamp(now.y * height - h / 2, 0, height - h);
  return { left, top, width, height, x, y, w, h };
};

const draw = () => {
  if (!area() || !area().querySelector('img').naturalWidth || !area().clientWidth) return;
  const { left, top, x, y, w, h, width, height } = places(), box = area().querySelector('.w-crop-box');
  Object.assign(box.style, { left: `${left + x}px`, top: `${top + y}px`, width: `${w}px`, height: `${h}px` });
  const frame = area().querySelector('.w-crop-frame') ?? area().insertBefore(Object.assign(document.createElement('div'), { className: 'w-crop-frame' }), box);
  Object.assign(frame.style, { left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px` });
  const edges = [x, y, width - x - w, height - y - h].map((edge) => `${Math.max(edge, 0)}px`);
  frame.style.borderWidth = `${edges[1]} ${edges[2]} ${edges[3]} ${edges[0]}`;
  box.classList.toggle('whole', w > width - 1 && h > height - 1);
};

const say = () => {
  const words = `${Math.round(now.x * 100)} percent across, ${Math.round(now.y * 100)} percent down, ${now.zoom.toFixed(1)} times closer`;
  area().querySelector('[role=status]').textContent = words;
};

// A person's change. A centre beyond what can be reached would have to be brought back before anything moves.
const move = (x, y, zoom) => {
  now.zoom = clamp(zoom, 1, Number(area().dataset.most));
  [now.x, now.y] = [x, y];
  const place = places();
  now.x = clamp((place.x + place.w / 2) / place.width, 0, 1);
  now.y = clamp((place.y + place.h / 2) / place.height, 0, 1);
  moved = area().querySelector('img').src;
  draw();
  if (!telling) window.wanUi.changes();
  clearTimeout(telling);
  telling = setTimeout(() => {
    telling = 0;
    say();
    trigger('move_crop', { part, crop: [now.x, now.y, now.zoom] });
  }, 250);
};

const begin = () => {
  if (!area()) return;
  const [x, y, zoom] = area().dataset.now.split(',').map(Number);
  if (area().querySelector('img').src === moved) say();
  else now = { x, y, zoom };
  area().querySelector('img').addEventListener('load', draw);
  draw();
  if (focused && document.activeElement === document.body) area().querySelector(focused)?.focus({ preventScroll: true });
};

element.addEventListener('focusin', ({ target }) => {
  focused = target.closest('.w-crop-box') ? '.w-crop-box' : target.dataset.crop ? `[data-crop=${target.dataset.crop}]` : '';
});
element.addEventListener('focusout', ({ relatedTarget }) => { if (relatedTarget) focused = ''; });
document.addEventListener('pointerdown', ({ target }) => { if (!element.contains(target)) focused = ''; });

// One finger or the pointer moves it, two change its size.
const held = new Map();
let apart = 0;
const distance = () => {
  const [one, other] = [...held.values()];
  return Math.hypot(one.x - other.x, one.y - other.y);
};
element.addEventListener('pointerdown', (event) => {
  const box = event.target.closest('.w-crop-box');
  if (!box || event.button) return;
  held.set(event.pointerId, { x: event.clientX, y: event.clientY });
  box.setPointerCapture?.(event.pointerId);
  if (held.size === 2) apart = distance();
});
element.addEventListener('pointermove', (event) => {
  const before = held.get(event.pointerId);
  if (!before || !area()) return;
  held.set(event.pointerId, { x: event.clientX, y: event.clientY });
  const { width, height } = places();
  if (held.size === 2) {
    move(now.x, now.y, now.zoom * distance() / apart);
    apart = distance();
  } else if (held.size === 1) move(now.x + (event.clientX - before.x) / width, now.y + (event.clientY - before.y) / height, now.zoom);
});
for (const end of ['pointerup', 'pointercancel', 'lostpointercapture']) element.addEventListener(end, ({ pointerId }) => held.delete(pointerId));

element.addEventListener('keydown', (event) => {
  if (!event.target.closest('.w-crop-box') || event.ctrlKey || event.metaKey || event.altKey) return;
  const far = event.shiftKey ? 0.1 : 0.02;
  const acts = {
    ArrowLeft: [-far, 0, 1], ArrowRight: [far, 0, 1], ArrowUp: [0, -far, 1], ArrowDown: [0, far, 1],
    '+': [0, 0, 1.1], '=': [0, 0, 1.1], '-': [0, 0, 1 / 1.1], _: [0, 0, 1 / 1.1],
  };
  if (event.key === '0') move(0.5, 0.5, 1);
  else if (acts[event.key]) move(now.x + acts[event.key][0], now.y + acts[event.key][1], now.zoom * acts[event.key][2]);
  else return;
  event.preventDefault();
});
element.addEventListener('wheel', (event) => {
  const box = event.target.closest('.w-crop-box');
  if (!box || (!event.ctrlKey && document.activeElement !== box)) return;
  event.preventDefault();
  move(now.x, now.y, now.zoom * (event.deltaY < 0 ? 1.1 : 1 / 1.1));
}, { passive: false });
element.addEventListener('click', (event) => {
  const act = event.target.closest('[data-crop]')?.dataset.crop;
  if (act === 'back') move(0.5, 0.5, 1);
  else if (act) move(now.x, now.y, now.zoom * (act === 'in' ? 1.2 : 1 / 1.2));
});

new ResizeObserver(draw).observe(element);
watch('value', begin);
begin();
