// How a file gets into the page. Gradio's fields go by the type that the browser gives a file: many browsers have none
// for what is read here (JPEG 2000, CAF, AC-3), and a voice may come in a video. What a file is, the server says, beside
// the field: here every file gets through, chosen, dropped or pasted, with a type that its field takes. One that is
// dropped or pasted beside the fields goes to the field of its kind. And what the browser cannot show is marked.
(() => {
  const sounds = "aac ac3 aif aiff amr asf au avi caf eac3 flac m4a m4v mka mkv mov mp3 mp4 mpeg mpg oga ogg opus " +
    "3gp ts w64 wav webm wma wmv";
  const clips = /\.(mp4|m4v|mov)$/i; // of these one may be ours
  const videos = "3gp asf avi gif m4v mkv mov mp4 mpeg mpg ts webm webp wmv";
  const pictures = "avif bmp gif heic heif ico j2k jp2 jpeg jpg mpo pbm pgm png ppm tif tiff webp";
  const endings = (names) => names.split(" ").map((name) => `.${name}`).join(",");
  const fields = [
    { part: "#picture-part", note: "#picture-note", type: "image/x-unknown", accept: `image/*,${endings(pictures)}` },
    { part: "#end-part", note: "#end-note", type: "image/x-unknown", accept: `image/*,${endings(pictures)}` },
    { part: "#voice-part", note: "#voice-note", type: "audio/x-unknown", accept: `audio/*,video/*,${endings(sounds)}` },
    { part: "#speech-file", note: "#result-message", type: "audio/x-unknown", accept: `audio/*,video/*,${endings(sounds)}` },
    { part: "#before-part", note: "#before-note", type: "video/mp4", accept: `video/*,${endings(videos)}` },
    { part: "#pose-part", note: "#pose-note", type: "video/mp4", accept: `video/*,${endings(videos)}` },
    { part: "#mask-part", note: "#mask-note", type: "video/mp4", accept: `video/*,${endings(videos)}` },
    { part: "#face-part", note: "#face-note", type: "video/mp4", accept: `video/*,${endings(videos)}` },
    { part: "#performance-part", note: "#performance-note", type: "video/mp4", accept: `video/*,${endings(videos)}` },
    { part: "#history-part", note: "#from-video-message", type: "video/mp4", accept: "video/mp4,.mp4" },
  ];
  const [picture, end, voice] = fields;
  const settings = fields.at(-1);
  const around = (element) => fields.find(({ part }) => element.closest?.(part));
  const find = ({ part }, what) => document.querySelector(`${part} ${what}`);

  const ofKind = (file) => {
    const ending = file.name.split(".").pop().toLowerCase();
    return /^(audio|video)\//.test(file.type) || sounds.split(" ").includes(ending) ? voice : picture;
  };

  // Only the type changes; with several files it is the first that is meant.
  const typed = (file, { type }) => {
    const kept = file.type.startsWith(type.split("/")[0] + "/");
    const files = new DataTransfer();
    files.items.add(kept ? file : new File([file], file.name, { type, lastModified: file.lastModified }));
    return files.files;
  };

  // ---- what need not be sent at all: said beside the field, whose file stays

  const clear = () => document.querySelectorAll(".w-file-note").forEach((note) => note.remove());

  const isRefused = (field, file, folder = false) => {
    clear();
    const most = window.gradio_config?.max_file_size ?? Infinity, megabytes = (bytes) => (bytes / 2 ** 20).toFixed(1);
    if (!folder && file.size <= most) return false;
    const note = Object.assign(document.createElement("div"), { className: "w-file-note" });
    const words = Object.assign(document.createElement("p"), { className: "w-note bad", role: "alert" });
    words.textContent = folder
      ? `${file.name} is a folder; choose a file`
      : `${file.name} has ${megabytes(file.size)} MB; at most ${megabytes(most)} MB can be sent. Make it smaller first.`;
    note.append(words);
    document.querySelector(field.note).after(note);
    wanUi.bring(note);
    return true;
  };

  document.addEventListener("click", (event) => { if (event.isTrusted) clear(); }, true);

  // ---- chosen

  const give = (field, file, patience = 50) => {
    const input = find(field, "input[type=file]");
    if (input) {
      input.files = typed(file, field);
      input.dispatchEvent(new Event("change", { bubbles: true }));
    } else if (patience) { // a sound is there already, or the microphone or the clipboard has been chosen
      if (patience === 50) find(field, "[data-testid=source-select] button")?.click();
      setTimeout(() => give(field, file, patience - 1), 100);
    }
  };

  // A video of ours carries its settings (`wan_ui` in the list of its keys), which are meant wherever it is dropped or
  // pasted, but on a field that takes a video. The file is read only here.
  const carries = async (file) => {
    if (!file.type.startsWith("video/") && !clips.test(file.name)) return false;
    if (file.size > (window.gradio_config?.max_file_size ?? Infinity)) return false;
    return new TextDecoder("latin1").decode(await file.arrayBuffer()).includes("mdtawan_ui");
  };
  const place = async (file, field) => {
    const own = field === null || [picture, end].includes(field) ? await carries(file) : false;
    if (own) wanUi.openTab("create-tab");
    return own ? settings : (field ?? ofKind(file));
  };

  const isFile = (input) => input.matches?.("input[type=file]") && around(input);

  document.addEventListener("click", (event) => {
    if (isFile(event.target)) event.target.accept = around(event.target).accept;
  }, true);

  document.addEventListener("change", (event) => {
    const field = isFile(event.target), file = event.target.files?.[0];
    if (!field || !file) return;
    if (isRefused(field, file)) {
      event.stopImmediatePropagation();
      event.target.value = "";
    } else event.target.files = typed(file, field);
  }, true);

  // ---- dropped

  let within = false; // a picture of the page itself is dragged

  document.addEventListener("dragstart", () => { within = true; });
  document.addEventListener("dragend", () => { within = false; });

  // Without this a file that misses its field takes the place of the page.
  document.addEventListener("dragover", (event) => {
    if (event.dataTransfer?.types.includes("Files")) event.preventDefault();
  });

  // Several pictures, or a folder of them, are for the tray; see wan_ui/ui/several.py.
  const forTray = async (entries) => {
    const files = [];
    const read = async (entry) => {
      if (entry.isFile) files.push(await new Promise((done, failed) => entry.file(done, failed)));
      else {
        const reader = entry.createReader();
        const some = () => new Promise((done, failed) => reader.readEntries(done, failed));
        for (let part = await some(); part.length && files.length < 500; part = await some()) {
          for (const inner of part.filter(({ isFile }) => isFile)) await read(inner);
        }
      }
    };
    for (const entry of entries) await read(entry);
    files.sort((one, other) => one.name.localeCompare(other.name, undefined, { numeric: true }));
    wanUi.tray(files.filter(({ name }) => !name.startsWith(".")));
  };

  const severalPictures = (transfer) => {
    if (!document.querySelector("#picture-part")?.offsetParent) return null;
    const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    if (entries.length === 1 && entries[0].isDirectory) return entries;
    const pictures = [...transfer.files].filter((file) => ofKind(file) === picture);
    return pictures.length > 1 || entries.some(({ isDirectory }) => isDirectory) ? entries : null;
  };

  document.addEventListener("drop", async (event) => {
    const file = event.dataTransfer?.files[0];
    if (!file) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    for (const field of fields) find(field, "[aria-dropeffect]")?.dispatchEvent(new DragEvent("dragleave"));
    const dropped = !within && severalPictures(event.dataTransfer);
    if (dropped) {
      clear();
      forTray(dropped);
      return;
    }
    const over = around(event.target) ?? null;
    if (!over && within) return;
    const folder = event.dataTransfer.items[0]?.webkitGetAsEntry?.()?.isDirectory;
    const field = folder ? (over ?? ofKind(file)) : await place(file, over);
    if (field !== settings && !document.querySelector(field.part)?.offsetParent) return;
    if (!isRefused(field, file, folder)) give(field, file);
  }, true);

  // ---- pasted

  document.addEventListener("paste", async (event) => {
    const file = event.clipboardData?.files[0];
    if (!file) return;
    // From a web page or an office program comes a text with its picture: in a field the text is meant.
    if (event.target.closest("input, textarea") && event.clipboardData.getData("text/plain")) return;
    const over = around(event.target) ?? null, near = document.querySelector((over ?? ofKind(file)).part);
    const video = file.type.startsWith("video/") || clips.test(file.name);
    if (!near?.offsetParent && !video) return;
    event.preventDefault();
    const field = await place(file, over), part = document.querySelector(field.part);
    if (field !== settings && !part?.offsetParent) return;
    if (isRefused(field, file)) return;
    give(field, file);
    wanUi.bring(part);
  });

  // ---- not shown by this browser, though it may well be read by the server

  const shown = (event) => {
    if (event.target.matches?.(":is(#picture, #end) img, #voice audio")) {
      event.target.toggleAttribute("data-unshown", event.type === "error");
    }
  };
  for (const name of ["error", "load", "loadedmetadata"]) document.addEventListener(name, shown, true);
})();
