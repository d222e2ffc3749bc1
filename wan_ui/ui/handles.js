// Two handles on one line, for a part of a clip or of a sound (handles.py): they never pass each other, and say in
// seconds where they are. `moved` is told of the handle that a person moves.
window.wanUi.handles = (element, moved = () => {}) => {
  const part = (name) => element.querySelector(`.w-trim [data-handle=${name}]`);
  const show = () => {
    const start = part('start'), end = part('end');
    if (!start) return;
    const [first, last, rate] = [Number(start.value), Number(end.value), Number(start.dataset.rate)];
    const [from, to] = [first / rate, last / rate];
    element.querySelector('.w-trim').style.setProperty('--from', first / start.max);
    element.querySelector('.w-trim').style.setProperty('--to', last / end.max);
    const whole = first === 0 && last === Number(end.max);
    element.querySelector('.w-trim-words').textContent =
      whole ? `All of it, ${to.toFixed(1)} s` : `${from.toFixed(2)} s to ${to.toFixed(2)} s, ${(to - from).toFixed(2)} s`;
    start.setAttribute('aria-valuetext', `${from.toFixed(2)} seconds`);
    end.setAttribute('aria-valuetext', `${to.toFixed(2)} seconds`);
  };
  // In seconds; the end itself needs no number.
  const seconds = () => {
    const start = part('start'), end = part('end');
    if (!start) return null;
    const rate = Number(start.dataset.rate);
    return {
      start: Number(start.value) / rate,
      end: Number(end.value) === Number(end.max) ? '' : Number(end.value) / rate,
      all: Number(end.max) / rate,
    };
  };
  const set = (from, to) => {
    const start = part('start'), end = part('end');
    if (!start) return;
    const rate = Number(start.dataset.rate);
    start.value = Math.round((from || 0) * rate);
    end.value = to ? Math.round(to * rate) : end.max;
    show();
  };
  element.addEventListener('input', ({ target }) => {
    const start = part('start'), end = part('end');
    if (target !== start && target !== end) return;
    const least = Number(start.dataset.least);
    if (Number(end.value) - Number(start.value) < least) {
      if (target === start) start.value = Number(end.value) - least; else end.value = Number(start.value) + least;
    }
    show();
    moved(target);
  });
  // Arrow keys go a leap at a time, with Shift the smallest step.
  element.addEventListener('keydown', (event) => {
    const ways = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }, way = ways[event.key];
    if (!way || ![part('start'), part('end')].includes(event.target)) return;
    event.preventDefault();
    event.target.value = Number(event.target.value) + way * (event.shiftKey ? 1 : Number(event.target.dataset.leap));
    event.target.dispatchEvent(new Event('input', { bubbles: true }));
  });
  return { show, seconds, set };
};
