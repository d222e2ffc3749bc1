// Small comforts that need no server: chips that write into the prompt, Ctrl+Enter, a prompt that
// survives a reload, downloads with a telling name, and on a phone the progress card scrolled into
// view. Listeners sit on the document because Gradio redraws parts.
(() => {
  const prompt = () => document.querySelector("#prompt textarea");

  const write = (text) => {
    prompt().value = text;
    prompt().dispatchEvent(new Event("input", { bubbles: true }));
  };

  const addPhrase = (phrase) => {
    const words = prompt().value.split(",").map((part) => part.trim()).filter(Boolean);
    if (!words.includes(phrase)) write([...words, phrase].join(", "));
    prompt().focus();
  };

  // Gradio reloads the page by itself when the server comes back from a restart.
  document.addEventListener("input", (event) => {
    if (event.target === prompt()) sessionStorage.setItem("wan-ui-prompt", event.target.value);
  });
  const kept = sessionStorage.getItem("wan-ui-prompt");
  const waiting = kept && setInterval(() => {
    if (!prompt()) return;
    clearInterval(waiting);
    if (!prompt().value) write(kept);
  }, 100);

  const showProgress = () => {
    if (window.innerWidth < 900) document.querySelector("#card")?.scrollIntoView({ behavior: "smooth", block: "start" });
  };

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
    if (event.target.closest("#generate, [data-example], [data-tile]")) setTimeout(showProgress, 150);
    if (event.target.closest("[data-do=speak]")) {
      const voice = document.querySelector("#voice .waveform-container");
      if (voice) setTimeout(showProgress, 150);
      else document.querySelector("#voice-part").scrollIntoView({ behavior: "smooth", block: "center" });
    }
  });

  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      document.querySelector("button#generate, #generate button")?.click();
    }
  });
})();
