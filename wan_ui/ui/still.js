// A page at which nothing happens computes nothing. Gradio's first "Loading" measures how long it lasts, frame by frame,
// and goes on with that when it is gone: a tenth of a core for as long as a page is open. It has kept the browser's own
// function for it from before this script, so its frame is the one that was asked for behind our back: that is dropped.
(() => {
  const ask = window.requestAnimationFrame;
  const asked = new Set(); // numbers of frames; each is one more than the last
  window.requestAnimationFrame = (callback) => {
    const number = ask(callback);
    asked.add(number);
    return number;
  };

  const drop = () => {
    const loading = document.querySelector('[data-testid="status-tracker"]:not(.hide)');
    if (loading || !document.querySelector("#card")) {
      setTimeout(drop, 500);
      return;
    }
    const last = ask(() => {});
    for (let number = last - 100; number < last; number += 1) {
      if (!asked.has(number)) window.cancelAnimationFrame(number);
    }
    window.requestAnimationFrame = ask;
  };
  setTimeout(drop, 500);
})();
