// The Compare tab: choosing clips, and clips played in step. `element` is the gr.HTML's own root; its
// content is redrawn by the server, so players are found again after each change.
const HEAT = [[0, 0, 0], [90, 20, 130], [210, 50, 60], [255, 170, 40], [255, 255, 230]];

const chosen = () => [...element.querySelectorAll('[data-pick][aria-pressed=true]')]
  .sort((a, b) => a.dataset.order - b.dataset.order).map((tile) => tile.dataset.pick);

const number = () => {
  const jobs = chosen();
  element.querySelectorAll('[data-pick]').forEach((tile) => {
    const place = jobs.indexOf(tile.dataset.pick);
    const words = place < 0 ? '' : place === 0 ? 'measure' : String(place + 1);
    const badge = tile.querySelector('.w-cmp-place');
    if ((badge.dataset.said ?? '') === words) return;  // a write would call the observer below again
    badge.dataset.said = words;  // what is read there may be a translation
    badge.textContent = words;
  });
  element.querySelectorAll('[data-needs]').forEach((button) => {
    button.disabled = jobs.length < button.dataset.needs;
  });
};

element.addEventListener('click', (event) => {
  const tile = event.target.closest('[data-pick]');
  if (tile) {
    const on = tile.getAttribute('aria-pressed') !== 'true';
    tile.setAttribute('aria-pressed', on);
    tile.dataset.order = Date.now();
    number();
    if (document.querySelector('#compare-message [role=alert]')) trigger('picked', {});
  }
  const button = event.target.closest('[data-cmp]');
  if (!button || button.disabled) return;
  wanUi.asked();
  if (button.dataset.cmp === 'compare') {
    trigger('compare', { jobs: chosen() });
    const there = document.querySelector('.w-cmp');  // the same clips again: nothing is drawn anew
    if (there) setTimeout(() => wanUi.bring(there, true), 1000);
  }
  if (button.dataset.cmp === 'grid') {
    const schemes = [...element.querySelectorAll('.w-cmp-schemes input:checked')].map((box) => box.value);
    trigger('grid', { jobs: chosen(), schemes });
  }
  if (button.dataset.cmp === 'export') trigger('export', {});
});

const start = (root) => {
  root.dataset.ready = '1';
  root.ending?.abort();  // other clips in the same elements
  root.ending = new AbortController();
  const { signal } = root.ending;
  const frames = Number(root.dataset.frames), fps = Number(root.dataset.fps);
  const videos = [...root.querySelectorAll('video')];
  const figures = [...root.querySelectorAll('.w-cmp-clip')];
  const canvas = root.querySelector('canvas'), slider = root.querySelector('.w-cmp-frame');
  const wipe = root.querySelector('.w-cmp-wipe'), label = root.querySelector('.w-cmp-label');
  const play = root.querySelector('[data-play]');
  const cursors = [...root.querySelectorAll('.w-cmp-cursor')];
  let frame = 0, playing = false, mode = 'side', other = 1;

  const heat = () => {
    const [a, b] = [videos[0], videos[other]];
    if (mode !== 'difference' || !a.videoWidth || !b.videoWidth) return;
    const [width, height] = [a.videoWidth, a.videoHeight];
    const read = (video) => {
      const scratch = Object.assign(document.createElement('canvas'), { width, height }).getContext('2d');
      scratch.drawImage(video, 0, 0, width, height);
      return scratch.getImageData(0, 0, width, height).data;
    };
    const [x, y] = [read(a), read(b)];
    Object.assign(canvas, { width, height });
    const out = new ImageData(width, height);
    for (let i = 0; i < x.length; i += 4) {
      const most = Math.max(Math.abs(x[i] - y[i]), Math.abs(x[i + 1] - y[i + 1]), Math.abs(x[i + 2] - y[i + 2]));
      const level = Math.min(4, Math.sqrt(most / 8)), below = Math.floor(level), part = level - below;
      for (let c = 0; c < 3; c++) {
        out.data[i + c] = HEAT[below][c] * (1 - part) + HEAT[Math.min(below + 1, 4)][c] * part;
      }
      out.data[i + 3] = 255;
    }
    canvas.getContext('2d').putImageData(out, 0, 0);
  };

  const show = () => {
    slider.value = frame;
    label.firstChild.nodeValue = `frame ${frame + 1} of ${frames}`;
    cursors.forEach((cursor) => {
      const x = Number(cursor.dataset.left) + frame / Math.max(1, frames - 1) * Number(cursor.dataset.width);
      cursor.setAttribute('x1', x);
      cursor.setAttribute('x2', x);
    });
    heat();
  };

  const seek = (to) => {
    frame = Math.min(frames - 1, Math.max(0, to));
    videos.forEach((video) => { video.currentTime = (frame + 0.5) / fps; });
    show();
  };

  const pause = () => {
    playing = false;
    videos.forEach((video) => video.pause());
    play.textContent = 'Play';
    seek(frame);
  };

  const tick = () => {
    if (!playing || signal.aborted || !root.isConnected) return;
    const now = videos[0].currentTime;
    if (videos[0].ended || Math.floor(now * fps) >= frames) {
      videos.forEach((video) => { video.currentTime = 0; video.play(); });
    } else {
      videos.slice(1).forEach((video) => {
        if (Math.abs(video.currentTime - now) > 0.75 / fps) video.currentTime = now;
      });
      const at = Math.min(frames - 1, Math.floor(now * fps));
      if (at !== frame) { frame = at; show(); }
    }
    requestAnimationFrame(tick);
  };

  const go = async () => {
    playing = true;
    play.textContent = 'Pause';
    if (frame >= frames - 1) seek(0);
    await Promise.all(videos.map((video) => video.play().catch(() => {})));
    tick();
  };

  const look = () => {
    root.dataset.mode = mode;
    root.querySelectorAll('[data-mode-is]').forEach((button) => {
      button.setAttribute('aria-pressed', button.dataset.modeIs === mode);
    });
    root.querySelectorAll('[data-other]').forEach((button) => {
      button.setAttribute('aria-pressed', Number(button.dataset.other) === other);
    });
    figures.forEach((figure, k) => {
      figure.classList.toggle('w-cmp-on', k === 0 || k === other);
      figure.style.clipPath = mode === 'wipe' && k === other ? `inset(0 0 0 ${wipe.value}%)` : '';
    });
    heat();
  };

  videos.forEach((video) => video.addEventListener('seeked', heat, { signal }));
  videos.forEach((video) => video.addEventListener('loadeddata', heat, { signal }));
  slider.addEventListener('input', () => { if (playing) pause(); seek(Number(slider.value)); }, { signal });
  wipe.addEventListener('input', look, { signal });
  root.addEventListener('click', (event) => {
    const button = event.target.closest('button');
    if (!button) return;
    if (button.dataset.play !== undefined) playing ? pause() : go();
    if (button.dataset.step) { if (playing) pause(); seek(frame + Number(button.dataset.step)); }
    if (button.dataset.modeIs) { mode = button.dataset.modeIs; look(); }
    if (button.dataset.other) { other = Number(button.dataset.other); look(); }
  }, { signal });
  root.querySelectorAll('.w-cmp-plot').forEach((plot) => plot.addEventListener('click', (event) => {
    const cursor = plot.querySelector('.w-cmp-cursor'), box = plot.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * plot.viewBox.baseVal.width;
    if (playing) pause();
    seek(Math.round((x - cursor.dataset.left) / cursor.dataset.width * (frames - 1)));
  }, { signal }));
  root.addEventListener('keydown', (event) => {
    if (event.target.matches('input')) return;
    if (event.key === 'ArrowRight' || event.key === 'ArrowLeft') {
      event.preventDefault();
      if (playing) pause();
      seek(frame + (event.key === 'ArrowRight' ? 1 : -1));
    }
  }, { signal });
  play.textContent = 'Play';
  look();
  seek(0);
};

const find = () => {
  element.querySelectorAll('.w-cmp:not([data-ready])').forEach((root) => { start(root); wanUi.bring(root, true); });
  if (element.querySelector('[data-pick]')) number();
};
new MutationObserver(find).observe(element, { childList: true, subtree: true });
find();
