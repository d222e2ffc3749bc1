// A page at which nothing happens computes nothing. Gradio measures how long a "Loading" lasts, frame by frame, and its
// first one goes on with that when it is gone: a tenth of a core for as long as a page is open. Such a frame is told by
// what it computes; none is asked for while no loading is in sight. All else, a browser's extensions and what drives it
// in a test as well, is left alone. This runs before Gradio's own scripts: they keep the function that they find.
(() => {
  const ask = window.requestAnimationFrame.bind(window);
  const measures = /^\(\)=>\{[^{}]*\bperformance\.now\(\)-[^{}]*\/1e3[^{}]*\}$/;
  const loading = () => document.querySelector('[data-testid="status-tracker"]:not(.hide)');
  window.requestAnimationFrame = (callback) => (measures.test(callback) && !loading() ? 0 : ask(callback));
})();
