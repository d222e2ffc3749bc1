// What a person did last counts. An answer that fills in fields (old settings, an example, a preset, another model) may
// still be on its way when the person changes one of them by hand: what it says of that field is older, and is taken out
// of it before Gradio gets it; see stream.js. The server is told afterwards what the form holds (#retell).
window.wanUiActs = (() => {
  const files = ["image", "audio", "video"];
  const kinds = [...files, "textbox", "radio", "slider", "number", "checkbox"]; // what is chosen from a list goes in order
  const calls = new Map(); // id of an event under way -> what it fills in, and how many acts there were when it was sent
  const acts = {}; // name of a field -> its last act: its number, and the value
  let count = 0, keptBack = false, known = null;

  // id of a component -> its name, of those that a person fills in
  const fields = () => {
    const named = ({ type, props }) => kinds.includes(type) && props.elem_id;
    const components = window.gradio_config?.components ?? [];
    known ??= components.length ? new Map(components.filter(named).map(({ id, props }) => [id, props.elem_id])) : null;
    return known ?? new Map();
  };
  const fieldOf = (element) => {
    const names = new Set(fields().values());
    for (let one = element; one; one = one.parentElement) if (names.has(one.id)) return one.id;
    return "";
  };
  const act = (target) => {
    const name = fieldOf(target);
    if (name) acts[name] = { number: (count += 1), value: target.value };
  };
  document.addEventListener("input", ({ target }) => act(target), true);
  document.addEventListener("change", ({ target }) => { if (target.type === "file") act(target); }, true);
  document.addEventListener("click", ({ target, isTrusted }) => {
    const button = isTrusted && target.closest("button"); // Remove, Clear, Reset
    if (button) act(button);
  }, true);

  // Of an event that is about to be sent. body: what is sent
  const sending = (body) => {
    let call = {};
    try { call = JSON.parse(body); } catch { /* not one of Gradio's */ }
    const { outputs = [] } = window.gradio_config?.dependencies.find(({ id }) => id === call.fn_index) ?? {};
    const filled = outputs.map((id) => fields().get(id));
    return filled.some(Boolean) ? { filled, count } : null;
  };
  const sent = (id, call) => { if (call) calls.set(id, call); };

  // A choice that is not offered any more gives way.
  const fits = ({ choices, minimum, maximum }, { value }) => (
    !choices?.length ? !(value < minimum || value > maximum) : choices.some(([, one]) => String(one) === value)
  );
  const without = (update, last) => {
    if (update?.__type__ !== "update") return { __type__: "update" };
    if (!("value" in update) || !fits(update, last)) return update;
    const { value, ...rest } = update;
    return rest;
  };
  // The answer, as far as it is not older than what was done to its fields.
  const mend = (message) => {
    const call = calls.get(message.event_id), data = message.output?.data;
    calls.delete(message.event_id);
    if (!call || !Array.isArray(data)) return false;
    let mended = false;
    data.forEach((update, place) => {
      const last = acts[call.filled[place]];
      if (!last || last.number <= call.count) return;
      data[place] = without(update, last);
      mended = true;
    });
    keptBack ||= mended;
    return mended;
  };
  const retell = () => {
    if (keptBack) document.querySelector("#retell")?.click();
    keptBack = false;
  };
  return { sending, sent, mend, retell };
})();
