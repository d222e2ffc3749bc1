// No answer stays with the server. Gradio gets its answers through one stream, which the server closes when none is
// under way, and opens it again with an event that is sent after that. An event that is sent while the word of the
// closing still travels finds it open: its answer waits at the server until some other event comes, and the page stands
// still, for good where none does. So what is waited for is counted here, and where no stream is open for it, an event
// that does nothing (#poke) opens one. And what an answer says too late is taken out of it on its way, see acts.js.
(() => {
  const ask = window.fetch, acts = window.wanUiActs;
  const awaited = new Set(); // ids of events
  const joining = new Set(); // events that have no id yet
  const kept = []; // messages that nobody has taken yet
  const patience = 300; // milliseconds; Gradio itself opens one at once
  let open = 0, timer = null;

  const look = () => {
    clearTimeout(timer);
    if (!awaited.size || open) return;
    timer = setTimeout(() => {
      document.querySelector("#poke")?.click();
      look();
    }, patience);
  };

  // An answer may be quicker than the id of its event; the id of another may take as long as it likes.
  const named = async (id) => {
    while (!awaited.has(id) && joining.size) await Promise.race(joining);
  };

  // A message of the stream, as Gradio is to get it.
  const hear = async (line) => {
    if (!/process_completed|unexpected_error/.test(line)) return line;
    const message = JSON.parse(line.slice("data: ".length));
    if (message.msg === "unexpected_error") awaited.clear(); // the app has been started anew: Gradio says so
    if (message.msg !== "process_completed") return line;
    await Promise.race([named(message.event_id), new Promise((go) => setTimeout(go, patience))]);
    return acts.mend(message) ? `data: ${JSON.stringify(message)}` : line;
  };
  const taken = (line) => {
    if (line.includes("process_completed")) awaited.delete(JSON.parse(line.slice("data: ".length)).event_id);
  };

  // One message at each read. What Gradio has not taken when it breaks a stream off is kept for the next.
  const follow = (body, closed) => {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader(), encoder = new TextEncoder();
    reader.closed.catch(() => {}).finally(closed);
    let rest = "", lines = [], over = false;
    const pull = async (controller) => {
      for (lines.unshift(...kept.splice(0)); !lines.length; lines.unshift(...kept.splice(0))) {
        const { value, done } = await reader.read();
        const parts = (rest + (value ?? "")).split("\n\n");
        rest = done ? "" : parts.pop();
        lines = parts.filter(Boolean);
        if (done && !lines.length) return controller.close();
      }
      const line = await hear(lines.shift());
      if (over) {
        kept.push(line);
        return look();
      }
      controller.enqueue(encoder.encode(`${line}\n\n`));
      taken(line);
    };
    const cancel = (why) => {
      over = true;
      kept.push(...lines);
      return reader.cancel(why);
    };
    return new ReadableStream({ pull, cancel }, { highWaterMark: 0 });
  };

  const stream = async (...request) => {
    open += 1;
    const closed = () => {
      open -= 1;
      look();
    };
    try {
      const response = await ask(...request);
      const { status, statusText, headers } = response;
      return new Response(follow(response.body, closed), { status, statusText, headers });
    } catch (error) {
      awaited.clear(); // no server
      closed();
      throw error;
    }
  };

  const join = async (...request) => {
    const call = acts.sending(request[1]?.body);
    const asked = ask(...request);
    const known = asked.then((response) => (response.ok ? response.clone().json() : {})).then(({ event_id: id }) => {
      if (!id) return;
      awaited.add(id);
      acts.sent(id, call);
      look();
    }).catch(() => {}).finally(() => joining.delete(known));
    joining.add(known);
    return asked;
  };

  window.fetch = (...request) => {
    const { pathname } = new URL(request[0].url ?? request[0], location.href);
    if (pathname.endsWith("/queue/data")) return stream(...request);
    return (pathname.endsWith("/queue/join") ? join : ask)(...request);
  };
})();
