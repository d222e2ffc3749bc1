// Small comforts that need no server: chips that write into the prompt, Ctrl+Enter, and on a phone
// the progress card scrolled into view. Listeners sit on the document because Gradio redraws parts.
(() => {
  const prompt = () => document.querySelector("#prompt textarea");

  const addPhrase = (phrase) => {
    const box = prompt();
    const words = box.value.split(",").map((part) => part.trim()).filter(Boolean);
    if (!words.includes(phrase)) words.push(phrase);
    box.value = words.join(", ");
    box.dispatchEvent(new Event("input", { bubbles: true }));
    box.focus();
  };

  const showProgress = () => {
    if (window.innerWidth < 900) document.querySelector("#card")?.scrollIntoView({ behavior: "smooth", block: "start" });
  };

  document.addEventListener("click", (event) => {
    const chip = event.target.closest("[data-phrase]");
    if (chip) addPhrase(chip.dataset.phrase);
    if (event.target.closest("#generate, [data-example], [data-tile]")) setTimeout(showProgress, 150);
  });

  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      document.querySelector("button#generate, #generate button")?.click();
    }
  });
})();
