// What needs no server: chips that write into the prompt, Ctrl+Enter, a prompt that survives a reload, downloads with
// a telling name; and what only the browser knows: whether a list was chosen from or only closed, in which order a
// person acted, whether a press was the second half of a double click, and where the page is scrolled. Listeners sit
// on the document because Gradio redraws parts.
window.wanUi = (() => {
  const find = (selector) => document.querySelector(selector);
  const prompt = () => find("#prompt textarea");
  // Milliseconds in which a second press on the same button belongs to the first; what the browser itself calls a double
  // click does so however busy the page was between the two.
  const patience = 700;

  const write = (text) => {
    prompt().value = text;
    prompt().dispatchEvent(new Event("input", { bubbles: true }));
  };

  const addPhrase = (phrase) => {
    const words = prompt().value.split(",").map((part) => part.trim()).filter(Boolean);
    if (!words.includes(phrase)) write([...words, phrase].join(", "));
    prompt().focus();
  };

  // ---- presets, see presets.js: only what is one

  const presets = () => {
    let stored = {};
    try { stored = JSON.parse(localStorage.getItem("wan-ui-presets")) ?? {}; } catch { /* nothing that can be read */ }
    const named = (entry) => typeof entry?.name === "string" && entry.name && typeof entry.settings === "object";
    const good = Array.isArray(stored.presets) ? stored.presets.filter(named) : [];
    return { presets: good, start: good.some(({ name }) => name === stored.start) ? stored.start : "" };
  };
  const keepPresets = (kept) => {
    try { localStorage.setItem("wan-ui-presets", JSON.stringify(kept)); } catch { return false; }
    return true;
  };
  // What a fresh page begins with: one that is not a page reloaded.
  const start = () => {
    const { presets: all, start: name } = presets();
    return sessionStorage.getItem("wan-ui-form") ? null : all.find((preset) => preset.name === name);
  };

  // Gradio reloads the page by itself when the server comes back from a restart. What is kept is what is there when the
  // page goes, so that a prompt which an example or old settings brought is kept as well: for this tab, and for the next
  // that is opened when all are closed, or the browser has ended without a word.
  const kept = sessionStorage.getItem("wan-ui-prompt") ?? start()?.settings.prompt ?? localStorage.getItem("wan-ui-prompt");
  const keepPrompt = () => {
    if (!prompt() || waiting) return;
    sessionStorage.setItem("wan-ui-prompt", prompt().value);
    localStorage.setItem("wan-ui-prompt", prompt().value);
  };
  let waiting = kept && setInterval(() => {
    if (!prompt()) return;
    waiting = clearInterval(waiting);
    if (!prompt().value) write(kept);
  }, 100);
  window.addEventListener("pagehide", () => {
    keepPrompt();
    const line = find("#using [data-kept]");
    if (line) keep(line.dataset);
  });

  // When the prompt has rested for a second, what is entered is encoded (#rested); not when it was just sent.
  let resting = 0;
  document.addEventListener("input", ({ target }) => {
    if (!target.closest("#prompt")) return;
    clearTimeout(resting);
    resting = setTimeout(() => {
      keepPrompt();
      find("#rested")?.click();
    }, 1000);
  });
  document.addEventListener("click", ({ target }) => { if (target.closest("#generate")) clearTimeout(resting); }, true);

  // The line at Generate with the highest number is the newest, whichever was drawn last; see wan_ui/ui/form.py.
  let newest = 0;
  const keep = (line) => {
    if (Number(line.number) < newest) return;
    newest = Number(line.number);
    sessionStorage.setItem("wan-ui-form", line.kept);
  };

  const returned = (known) => {
    const browser = { ...known, zone: -new Date().getTimezoneOffset() };
    const mine = JSON.parse(sessionStorage.getItem("wan-ui-form") || "{}");
    if (mine.form) return { ...browser, loras: mine.loras, form: { ...browser.form, ...mine.form } };
    const first = start();
    return first ? { ...browser, form: { ...browser.form, start: first } } : browser;
  };

  // ---- answers, see wan_ui/ui/in_view.py

  // torn: one came after a newer one, or is missing. An answer with all parts mends that, if no newer one was before it.
  let last = 0, torn = false;
  const arrived = ({ answer, whole }) => {
    const number = Number(answer);
    if (whole !== undefined && number > last) torn = false;
    else if (number !== last + 1) torn = true;
    last = Math.max(last, number);
  };
  const heard = () => (torn ? -1 : last);

  // ---- into view

  const parts = {
    card: "#card", result: "#result .w-stage", message: "#message", result_message: "#result-message",
    loras_message: "#lora-message", examples_message: "#examples-message", from_video: "#from-video-message",
    lora: "#lora-rows li:last-child", form: "#prompt", longer: "#longer", tray: "#tray", queue: "#queue",
    history: "#history-part", seed: "#seed", picture: "#picture-part", download: "#download",
  };
  let shown = 0, scrolled = false, again = null;

  // How far to scroll until `element` is whole in view: below the card, where that sticks, and above Generate.
  const distance = (element) => {
    const box = element.getBoundingClientRect(), card = find("#card"), actions = find("#actions");
    let top = box.top, above = 12, below = 12;
    if (card && find("#right").contains(element) && element !== card) {
      const stage = find("#result .w-stage");
      if (getComputedStyle(card).position === "sticky") {
        above = card.offsetHeight + 10;
        if (stage && stage !== element && !stage.contains(element)) above += stage.offsetHeight + 12;
      } else if (element.matches(".w-stage")) top = card.getBoundingClientRect().top; // both fit on a phone
    }
    if (find("#left")?.contains(element) && !actions.contains(element)) below = actions.offsetHeight + 8;
    const room = window.innerHeight - below;
    if (top < above || box.bottom - top > room - above) return top - above;
    return box.bottom > room ? Math.min(box.bottom - room, top - above) : 0;
  };

  // what: an element, or the selector of one that may be drawn anew. gently: only if nobody has scrolled since they asked
  // for it.
  const bring = (what, gently = false) => {
    if (gently && scrolled) return;
    const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    const element = () => (typeof what === "string" ? find(what) : what);
    const place = () => {
      const { top = 0, height = 0 } = element()?.getBoundingClientRect() ?? {};
      return [top + window.scrollY, height].map(Math.round).join();
    };
    const go = (behavior) => {
      const far = element()?.isConnected ? distance(element()) : 0;
      if (Math.abs(far) > 2) window.scrollBy({ top: far, behavior });
    };
    scrolled = false;
    go(calm ? "instant" : "smooth");
    // What is drawn meanwhile may move it, and on a slow machine that takes seconds.
    let at = null, looks = 0;
    const look = () => {
      looks += 1;
      again = looks < 10 && !scrolled ? setTimeout(look, 900) : null;
      if (scrolled || place() === at) return;
      [at, looks] = [place(), Math.min(looks, 1)];
      go("instant");
    };
    clearTimeout(again);
    again = setTimeout(look, 900);
  };

  const show = ({ number, part, gentle }) => {
    if (Number(number) <= shown) return; // an older answer, or the same again
    shown = Number(number);
    setTimeout(() => { if (find(parts[part])) bring(parts[part], gentle !== undefined); }, 80);
  };

  const asked = () => { scrolled = false; };

  // Nothing moves under a finger: a press that ends on something else than it began on does nothing.
  document.addEventListener("mousedown", () => {
    if (again) window.scrollTo({ top: window.scrollY, behavior: "instant" });
    again = clearTimeout(again);
  }, true);

  const scrolls = (event) => { if (event.isTrusted) scrolled = true; };
  for (const act of ["wheel", "touchmove"]) document.addEventListener(act, scrolls, { passive: true });

  // ---- what was chosen, and when

  const opened = {};
  let changing = 0, waits = null; // changes of LoRAs, which are not sent with the form, that are not answered yet
  let turn = 0;

  // A list says that there was input whenever it closes. null: nothing else was chosen than when it was opened. What it
  // shows is read as it gets the focus: Gradio tells of that a while later, when something may be chosen already.
  const field = (list) => find(`#${list} input`);
  document.addEventListener("focusin", ({ target }) => {
    for (const list of ["model", "scheme"]) if (target === field(list)) opened[list] = target.value;
  });
  const chosen = (list, value) => {
    const shown = field(list).value;
    if (shown === opened[list]) return null;
    opened[list] = shown;
    return value;
  };

  // That of LoRAs is emptied by the answer: until then it may be closed again with what was chosen in it.
  let added = null;
  const adding = (name) => {
    changes();
    if (!name || name === added) return null;
    added = name;
    return name;
  };

  // Generate waits until the server has them.
  const changes = () => { changing += 1; };
  const settled = () => {
    changing = Math.max(0, changing - 1);
    if (changing || !waits) return;
    clearTimeout(waits.late);
    waits = void waits.button.click();
  };
  const wait = (button) => {
    if (waits) return;
    waits = { button, late: setTimeout(() => { changing = 1; settled(); }, 10000) }; // an answer that never came
  };

  const stamp = (values) => [...values.slice(0, -1), ++turn];

  // ---- speech for a clip that is there: where the form has no voice, the press asks for one

  let speechFor = "";
  const speechIsFor = (job) => { speechFor = job; };
  const speak = (values) => {
    const [, , voice] = values;
    if (!voice) find("#speech-file input[type=file]").click();
    return stamp(values);
  };
  const speakWith = ([browser, view, file, , ...values]) => stamp([browser, view, file, speechFor, ...values]);

  // ---- presses

  const makers = "#generate, [data-example], [data-do=speak], [data-do=download_model], [data-cmp=grid], [data-cmp=export]";
  let pressed = "", until = 0, written = false;

  const answered = () => { until = Math.min(until, performance.now() + patience); };

  document.addEventListener("click", (event) => {
    const button = event.target.closest(makers);
    if (button?.id === "generate" && changing) {
      event.preventDefault();
      event.stopImmediatePropagation();
      wait(button);
      return;
    }
    if (!button) {
      pressed = "";
      return;
    }
    const { do: act, cmp, example, job, scheme } = button.dataset;
    const name = [button.id, act, cmp, example, job, scheme].join();
    if (name === pressed && (performance.now() < until || event.detail > 1) && !written) {
      event.preventDefault();
      event.stopImmediatePropagation();
      return;
    }
    [pressed, written] = [name, false];
    until = performance.now() + (button.id === "generate" ? 10000 : patience); // the answer to Generate shortens it
  }, true);

  // A part that is drawn anew while the button in it is held down takes the click away: it is that of the new one, which
  // may look otherwise by now: a tile is no longer the chosen one, its clip has begun.
  const buttons = "button, label, [role=option], a";
  let held = null;
  const bare = (button) => {
    const copy = button.cloneNode(true);
    for (const name of ["class", "aria-pressed", "aria-selected"]) copy.removeAttribute(name);
    return copy.outerHTML;
  };
  const same = (one, other) => {
    const id = ["tile", "more"].find((name) => one.dataset[name]);
    return id ? one.dataset[id] === other.dataset[id] : bare(one) === bare(other);
  };
  document.addEventListener("mousedown", (event) => { held = event.target.closest(buttons); }, true);
  document.addEventListener("mouseup", (event) => {
    const button = event.target.closest(buttons);
    if (held && button && !held.isConnected && same(held, button)) button.click();
    held = null;
  }, true);

  document.addEventListener("input", (event) => {
    written = true;
    if (event.target !== prompt()) return;
    find("#message [data-field=prompt]")?.setAttribute("hidden", ""); // the next complaint is drawn anew
  });

  // The server names every file clip.mp4 in its answer, and that wins over the link's own name.
  const save = async (link) => {
    const address = URL.createObjectURL(await (await fetch(link.href)).blob());
    Object.assign(document.createElement("a"), { href: address, download: link.download }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  };

  document.addEventListener("click", (event) => {
    const download = event.target.closest("a[download]");
    if (download && download.href.startsWith(location.origin)) {
      event.preventDefault();
      save(download);
    }
    const chip = event.target.closest("[data-phrase]");
    if (chip) addPhrase(chip.dataset.phrase);
    const earlier = event.target.closest("[data-prompt]");
    if (earlier) {
      write(earlier.dataset.prompt);
      prompt().focus();
    }
  });

  document.addEventListener("keydown", (event) => {
    if (["PageUp", "PageDown", "Home", "End", "ArrowUp", "ArrowDown", "Tab"].includes(event.key)) scrolls(event);
    const list = event.target.closest("[role=combobox]");
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      event.stopImmediatePropagation(); // a list would choose its first entry
      // What is typed in a field of a LoRA counts when it is left.
      if (event.target.matches("#lora-rows input")) event.target.blur();
      if (!event.repeat && find("#generate")?.offsetParent) find("#generate").click();
    } else if (list) {
      // Gradio's list opens again behind a Tab, takes a modifier as the beginning of a word, and Enter in a closed
      // list chooses what cannot be seen.
      const passing = ["Tab", "Shift", "Control", "Alt", "Meta"].includes(event.key) || event.ctrlKey || event.metaKey;
      if (passing || (event.key === "Enter" && list.ariaExpanded !== "true")) event.stopImmediatePropagation();
    }
  }, true);

  // A list that Escape has closed opens again with a click.
  document.addEventListener("mousedown", (event) => {
    const list = event.target.closest("[role=combobox]");
    if (list && list === document.activeElement && list.ariaExpanded !== "true") list.blur();
  }, true);

  // ---- the clips of one press, see wan_ui/ui/batch.py

  const videos = (part) => [...part.querySelectorAll(".w-batch video")];
  const together = (part, button) => {
    const paused = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", paused);
    button.textContent = paused ? "Pause all" : "Play all";
    for (const video of videos(part)) paused ? video.play().catch(() => {}) : video.pause();
  };
  // They loop at the same length: one that is behind, since it came later or was not drawn for a while, joins the first.
  setInterval(() => {
    const [first, ...others] = videos(document).filter((video) => video.readyState >= 2);
    if (!first || first.paused || document.hidden) return;
    for (const video of others) {
      const length = Math.min(video.duration, first.duration);
      const apart = Math.abs(video.currentTime - first.currentTime);
      if (!video.paused && Math.min(apart, Math.abs(length - apart)) > 0.15) video.currentTime = first.currentTime % video.duration;
      else if (video.paused) video.play().catch(() => {});
    }
  }, 500);

  // ---- tabs, opened from elsewhere: <button data-tab="models-tab">

  const openTab = (id) => find(`#${id}-button`)?.click();
  document.addEventListener("click", ({ target }) => {
    const id = target.closest("[data-tab]")?.dataset.tab;
    if (!id) return;
    openTab(id);
    find(`#${id}-button`)?.focus();
    bring("#tabs");
  });

  // The clips are chosen there as a person would.
  const compare = (jobs) => {
    openTab("compare-tab");
    let tries = 100;
    const choose = setInterval(() => {
      const tiles = [...document.querySelectorAll("[data-pick]")];
      if (!tiles.length && (tries -= 1)) return;
      clearInterval(choose);
      for (const tile of tiles) {
        const wanted = jobs.includes(tile.dataset.pick);
        if (wanted !== (tile.getAttribute("aria-pressed") === "true")) tile.click();
      }
      find("[data-cmp=compare]")?.click();
    }, 100);
  };

  // ---- several clips of the history are chosen; and a clip by its link

  const chosenTiles = new Set();
  const choosing = () => {
    const bar = find(".w-history-bar");
    if (!bar) return;
    const on = bar.classList.contains("choosing");
    for (const tile of document.querySelectorAll("[data-tile]")) {
      tile.classList.toggle("chosen", on && chosenTiles.has(tile.dataset.tile));
      if (on) tile.setAttribute("aria-pressed", chosenTiles.has(tile.dataset.tile));
    }
    bar.querySelector("[role=status]").textContent = `${chosenTiles.size} chosen`;
    for (const button of bar.querySelectorAll("[data-many]")) {
      button.disabled = chosenTiles.size < (button.dataset.many === "make" ? 2 : 1);
    }
  };
  const choose = ({ dataset: { tile } }) => {
    if (!chosenTiles.delete(tile)) chosenTiles.add(tile);
    choosing();
  };
  const linked = () => new URLSearchParams(location.search).get("clip") ?? "";
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-link]");
    if (!button) return;
    const address = `${location.origin}${location.pathname}?clip=${button.dataset.link}`;
    const copied = await navigator.clipboard?.writeText(address).then(() => true, () => false);
    if (copied) button.textContent = "Link copied";
    else window.prompt(wanUiWords.say("The link to this clip:"), address);
  });

  return { openTab, speechIsFor, speak, speakWith, presets, keepPresets, chosenTiles, choosing, choose, linked, compare, together, keep, returned, arrived, heard, show, bring, asked, chosen, adding, added: () => { added = null; settled(); }, changes, settled, stamp, answered };
})();
