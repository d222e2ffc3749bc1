// No answer stays with the server. Gradio gets its answers through one stream, which the server closes when none is
// under way, and opens it again with an event that is sent after that. An event that is sent while the word of the
// closing still travels finds it open: its answer waits at the server until some other event comes, and the page stands
// still, for good where none does. So what is waited for is counted here, and where no stream is open for it, an event
// that does nothing (#poke) opens one.
(() => {
  const ask = window.fetch;
  const awaited = new Set(); // ids of events
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

  const hear = (line) => {
    const message = JSON.parse(line.slice("data: ".length));
    if (message.msg === "process_completed") awaited.delete(message.event_id);
    if (message.msg === "unexpected_error") awaited.clear(); // the app has been started anew: Gradio says so
  };

  const follow = async (body) => {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      const lines = (rest + part.value).split("\n\n");
      rest = lines.pop();
      lines.filter((line) => /process_completed|unexpected_error/.test(line)).forEach(hear);
    }
  };

  const stream = async (...request) => {
    open += 1;
    const closed = () => {
      open -= 1;
      look();
    };
    try {
      const response = await ask(...request);
      follow(response.clone().body).catch(() => {}).finally(closed); // Gradio breaks it off when it has heard the end
      return response;
    } catch (error) {
      awaited.clear(); // no server
      closed();
      throw error;
    }
  };

  window.fetch = async (...request) => {
    const { pathname } = new URL(request[0].url ?? request[0], location.href);
    if (pathname.endsWith("/queue/data")) return stream(...request);
    const response = await ask(...request);
    if (pathname.endsWith("/queue/join") && response.ok) {
      response.clone().json().then(({ event_id }) => {
        awaited.add(event_id);
        look();
      });
    }
    return response;
  };
})();
