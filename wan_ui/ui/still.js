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

// Who asks for less motion sees a clip once, and again when they press play.
const calm = window.matchMedia("(prefers-reduced-motion: reduce)");
document.addEventListener("play", ({ target }) => { if (calm.matches) target.loop = false; }, true);

// Gradio keeps a "loading" of each component that any event has as an input, and draws all of them anew three times with
// every event, though only a stream shows it: with forty fields two fifths of the script that a look at a job runs. So
// those of inputs are forgotten at once.
document.addEventListener("DOMContentLoaded", async () => {
  const parts = Object.values(await import(new URL("STATUS_TRACKER", document.baseURI)));
  const { prototype } = parts.find((part) => part?.prototype?.resolve_args);
  const { update } = prototype;
  prototype.update = function (event) {
    update.call(this, event);
    for (const [id, { type }] of Object.entries(this.current)) if (type === "input") delete this.current[id];
  };
});

// For each of its 260 components Gradio looks through all events, of which some are for forty: twice, while the page is
// opened, a sixth of the script that runs then. It does not change meanwhile, so it is looked through once for all.
document.addEventListener("DOMContentLoaded", async () => {
  const { prototype } = (await import(new URL("APP_TREE", document.baseURI))).AppTree;
  let seen = null, found = null;
  const look = (events) => {
    [seen, found] = [events, new Map()];
    for (const { targets } of events)
      for (const [id, name] of new Map([...targets].reverse())) if (name) found.set(id, [...(found.get(id) ?? []), name]);
    queueMicrotask(() => { seen = found = null; });
  };
  prototype.find_attached_events = (component, events) => {
    if (seen !== events) look(events);
    component.props.shared_props.attached_events = found.get(component.id) ?? [];
    return component;
  };
});
