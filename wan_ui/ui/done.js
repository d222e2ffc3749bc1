// Done is heard. The title and the icon of the page say how many clips are being made and what has ended while nobody
// looked; where a person has asked for it, so do a notification and a soft sound. What they asked for is kept in this
// browser. The server sends the news with its answers (wan_ui/ui/in_view.py), each with a number that grows.
window.wanUiDone = (() => {
  const KEY = "wan-ui-done", TOLD = "wan-ui-told";
  const NAME = "Wan UI";
  const ENDS = { done: "Done", failed: "Failed", interrupted: "Interrupted" };
  const BUSY = "#e5a50a", GOOD = "#2e9d5b", BAD = "#d5383f";
  const wishes = { notify: false, sound: false, ...JSON.parse(localStorage.getItem(KEY) || "{}") };
  let active = 0, heard = 0, missed = []; // states of what has ended while nobody looked
  let trouble = "";

  const away = () => document.hidden || !document.hasFocus();

  // ---- title and icon

  const title = () => {
    const count = active ? `(${active}) ` : "";
    if (!missed.length) return count + NAME;
    const same = missed.every((state) => state === missed[0]);
    const words = same ? ENDS[missed[0]] : "Ended";
    return `${count}${missed.length > 1 ? `${missed.length} ${words.toLowerCase()}` : words} – ${NAME}`;
  };

  const icon = (dot) =>
    `data:image/svg+xml,${encodeURIComponent(
      '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="9" fill="#5b5bd6"/>' +
        '<path d="M7 19c3-7 5-7 7.500-1s4.500 6 10.500-6" fill="none" stroke="#fff" stroke-width="3.200" stroke-linecap="round"/>' +
        (dot ? `<circle cx="24.500" cy="7.500" r="7" fill="${dot}" stroke="#fff" stroke-width="2"/>` : "") + "</svg>",
    )}`;

  let drawn = ""; // the dot on the icon
  const draw = () => {
    document.title = title();
    const dot = missed.length ? (missed.every((state) => state === "done") ? GOOD : BAD) : active ? BUSY : "";
    if (dot === drawn) return;
    drawn = dot;
    const link = document.querySelector("link[rel~=icon]") ?? document.head.appendChild(document.createElement("link"));
    Object.assign(link, { rel: "icon", href: icon(dot) });
  };

  const looked = () => {
    if (away() || !missed.length) return;
    missed = [];
    draw();
  };
  for (const act of ["visibilitychange", "focus"]) (act === "focus" ? window : document).addEventListener(act, looked);

  // ---- notification

  const notify = async ({ job, state, words }) => {
    const options = { body: words, tag: `wan-ui-${job}` }; // two tabs show one
    const name = wanUiWords.say(state === "done" ? "Your clip is done" : `Your clip: ${ENDS[state].toLowerCase()}`);
    try {
      const shown = new Notification(name, options);
      shown.onclick = () => {
        window.focus();
        shown.close();
      };
    } catch { // phones leave that to a service worker
      (await navigator.serviceWorker?.getRegistration())?.showNotification(name, options);
    }
  };

  const ask = async () => {
    if (!("Notification" in window)) return "This browser has no notifications here: they need https, or localhost.";
    const answer = await Notification.requestPermission();
    if (answer === "granted") return "";
    return answer === "denied"
      ? "Your browser does not let this page notify you. Allow it in the site's settings, beside the address, then tick this again."
      : "Your browser has not allowed it yet: tick this again and answer its question.";
  };

  // ---- sound: two soft tones, upwards when it went well

  let audio = null;
  const wake = async () => {
    audio ??= new AudioContext();
    if (audio.state === "suspended") await audio.resume(); // waits for a press
  };
  const play = (well) => {
    if (audio?.state !== "running") return; // later would be too late
    for (const [place, frequency] of (well ? [659.25, 987.77] : [440, 329.63]).entries()) {
      const start = audio.currentTime + 0.02 + 0.16 * place;
      const tone = new OscillatorNode(audio, { type: "sine", frequency });
      const loudness = new GainNode(audio, { gain: 0 });
      loudness.gain.setValueAtTime(0, start);
      loudness.gain.linearRampToValueAtTime(0.09, start + 0.02);
      loudness.gain.exponentialRampToValueAtTime(0.0001, start + 0.7);
      tone.connect(loudness).connect(audio.destination);
      tone.start(start);
      tone.stop(start + 0.75);
    }
  };
  const press = () => { if (wishes.sound) wake(); }; // browsers let a page be heard once it was pressed
  for (const act of ["pointerdown", "keydown"]) document.addEventListener(act, press, { once: true });

  // ---- what a person has asked for

  const show = () => {
    const part = document.querySelector("#heard details");
    if (!part) return;
    const chosen = [wishes.notify && "notification", wishes.sound && "sound"].filter(Boolean);
    part.hidden = part.hidden && !active && !chosen.length;
    part.querySelector("summary").textContent = chosen.length ? `Tells you when it is done: ${chosen.join(", ")}` : "Tell me when it is done";
    for (const box of part.querySelectorAll("[data-heard]")) box.checked = wishes[box.dataset.heard];
    part.querySelector("[role=status]").textContent = trouble;
  };

  document.addEventListener("change", async ({ target }) => {
    const wish = target.dataset?.heard;
    if (!wish) return;
    const on = target.checked;
    trouble = wish === "notify" && on ? await ask() : "";
    wishes[wish] = on && !trouble;
    localStorage.setItem(KEY, JSON.stringify(wishes));
    show();
    if (wish === "sound" && on) {
      await wake();
      play(true); // as it will be
    }
  });

  // ---- the news

  const tell = (news) => {
    if (away()) {
      missed.push(news.state);
      if (wishes.notify && window.Notification?.permission === "granted") notify(news);
    }
    if (localStorage.getItem(TOLD) === news.job) return; // another tab was faster
    localStorage.setItem(TOLD, news.job);
    if (wishes.sound) play(news.state === "done");
  };

  const news = (order) => {
    active = Number(order.active);
    for (const ended of JSON.parse(order.ended)) {
      if (ended.number <= heard) continue;
      heard = ended.number;
      tell(ended);
    }
    draw();
    show();
  };

  return { news, show };
})();
