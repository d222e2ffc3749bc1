// Gradio has texts of its own in the browser's language, chosen as it starts. It is told English, as all of the page is
// drawn in, and words.js translates the whole: so they agree, whichever language is chosen later.
(() => {
  window.wanUiLanguages = navigator.languages;
  for (const [name, value] of [["language", "en"], ["languages", ["en"]]]) {
    Object.defineProperty(navigator, name, { configurable: true, get: () => value });
  }
})();
