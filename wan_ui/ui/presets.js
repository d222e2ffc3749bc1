// The presets of this browser: drawn, chosen, renamed and deleted here; see wan_ui/ui/presets.py. Another tab may change
// them as well, so they are read anew before each change.
const list = element.querySelector('ul'), name = element.querySelector('.w-preset-new input');
const said = element.querySelector('[role=status]');
const make = (tag, values, ...children) => {
  const made = Object.assign(document.createElement(tag), values);
  made.append(...children);
  return made;
};
let removed = null; // [preset, its place, whether it was the start] of the last Delete

const change = (act) => {
  const kept = window.wanUi.presets();
  act(kept);
  if (!window.wanUi.keepPresets(kept)) said.textContent = 'This browser keeps nothing more: delete a preset, or export them.';
  draw();
};

const button = (words, title, act) => {
  const made = make('button', { type: 'button', className: 'w-button', textContent: words, title });
  made.ariaLabel = title;
  made.addEventListener('click', act);
  return made;
};

const rename = (preset, row) => {
  const field = make('input', { type: 'text', value: preset.name, maxLength: 60, ariaLabel: `New name of ${preset.name}` });
  let over = false; // taking the field away blurs it
  const done = (keep) => {
    if (over) return;
    const wanted = field.value.trim().replace(/\s+/g, ' ');
    if (keep && wanted && wanted !== preset.name && window.wanUi.presets().presets.some((other) => other.name === wanted)) {
      said.textContent = `There is a preset called ${wanted} already.`;
      return;
    }
    over = true;
    change((kept) => {
      const entry = kept.presets.find((other) => other.name === preset.name);
      if (!entry || !keep || !wanted) return;
      if (kept.start === entry.name) kept.start = wanted;
      entry.name = wanted;
    });
    [...list.querySelectorAll('[data-name]')].find(({ dataset }) => dataset.name === (keep && wanted || preset.name))?.focus();
  };
  field.addEventListener('keydown', (event) => {
    if (!['Enter', 'Escape'].includes(event.key)) return;
    event.preventDefault(); // else it presses the button that gets the focus
    done(event.key === 'Enter');
  });
  field.addEventListener('blur', () => done(true));
  row.replaceChildren(field);
  field.focus();
  field.select();
};

const remove = (preset) => {
  change((kept) => {
    const place = kept.presets.findIndex((other) => other.name === preset.name);
    if (place < 0) return;
    removed = [kept.presets[place], place, kept.start === preset.name];
    kept.presets.splice(place, 1);
    if (kept.start === preset.name) kept.start = '';
  });
  said.replaceChildren(`${preset.name} deleted. `, button('Undo', `Bring ${preset.name} back`, () => {
    change((kept) => {
      const [entry, place, start] = removed;
      if (kept.presets.some((other) => other.name === entry.name)) return;
      kept.presets.splice(place, 0, entry);
      if (start) kept.start = entry.name;
    });
    said.textContent = '';
  }));
};

const draw = () => {
  const { presets, start } = window.wanUi.presets();
  element.querySelector('[data-empty]').hidden = presets.length > 0;
  element.querySelector('[data-preset=export]').disabled = !presets.length;
  list.replaceChildren(...presets.map((preset) => {
    const row = make('li', {}), first = preset.name === start;
    const use = button(preset.name, `Use ${preset.name}`, () => {
      window.wanUi.changes();
      trigger('use_preset', { preset });
    });
    use.dataset.name = preset.name;
    const begin = button(first ? '● Start' : '○ Start', first ? `A new page begins with ${preset.name}: no longer` : `Begin a new page with ${preset.name}`, () => change((kept) => {
      kept.start = kept.start === preset.name ? '' : preset.name;
    }));
    begin.ariaPressed = first;
    row.append(use, begin, button('Rename', `Rename ${preset.name}`, () => rename(preset, row)), button('Delete', `Delete ${preset.name}`, () => remove(preset)));
    return row;
  }));
};

const save = () => {
  window.wanUi.changes();
  trigger('save_preset', { name: name.value, words: element.querySelector('[data-words]').checked });
};
name.addEventListener('keydown', (event) => { if (event.key === 'Enter') save(); });

const file = () => {
  const kept = window.wanUi.presets();
  const content = new Blob([JSON.stringify(kept, null, 2)], { type: 'application/json' });
  const address = URL.createObjectURL(content);
  make('a', { href: address, download: 'wan-ui-presets.json' }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
};

const read = () => {
  const input = make('input', { type: 'file', accept: '.json,application/json', hidden: true, id: 'presets-input' });
  document.querySelector('#presets-input')?.remove();
  input.addEventListener('change', async () => {
    const chosen = input.files[0];
    if (!chosen) return;
    if (chosen.size > 1000000) {
      said.textContent = `${chosen.name} has more than 1 MB: it is no file of presets.`;
      return;
    }
    window.wanUi.changes();
    trigger('import_presets', { content: await chosen.text() });
  });
  document.body.append(input);
  input.click();
};

element.addEventListener('click', ({ target }) => {
  const act = target.closest('[data-preset]')?.dataset.preset;
  if (act === 'save') save();
  if (act === 'export') file();
  if (act === 'import') read();
});

// A preset of the same name is replaced.
window.wanUi.toldPresets = (told) => {
  if (!told?.presets) return;
  const given = JSON.parse(told.presets);
  change((kept) => {
    for (const preset of given.presets) {
      const place = kept.presets.findIndex((other) => other.name === preset.name);
      if (place < 0) kept.presets.push(preset);
      else kept.presets[place] = preset;
    }
    if (given.start) kept.start = given.start;
  });
  name.value = '';
  said.textContent = '';
};
window.addEventListener('storage', ({ key }) => { if (key === null || key === 'wan-ui-presets') draw(); });
draw();
