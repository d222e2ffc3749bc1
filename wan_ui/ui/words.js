// The page in the language of who reads it. What is drawn is English; while Chinese is chosen, every text of the page
// and what its attributes say is looked for in the table (wan_ui/words/zh.json, asked for then alone) and replaced as
// it is drawn, and put back when English is chosen again. In English nothing is observed. The rules are those of
// wan_ui/words/translate.py. What people typed and what their files are called stays: see KEPT.
window.wanUiWords = (() => {
  const KEY = "wan-ui-language";
  const KEPT = "textarea, script, style, code, pre, kbd, [translate=no], [contenteditable], [data-phrase], [data-prompt], [data-tag], [data-name]";
  const ATTRIBUTES = ["title", "aria-label", "placeholder", "alt", "label", "aria-valuetext"];
  const LONGEST = 2000, DEEPEST = 4, WEAK = 8;
  const SEPARATORS = [["\n", "\n"], [". ", "。"], ["; ", "；"], [": ", "："], [" · ", " · "], [", ", "，"], [" (", "（"]];
  const ENDS = { ".": "。", "!": "！", "?": "？", ":": "：", ")": "）", ";": "；" };
  const chinese = /[\u3000-\u9fff\uff00-\uffef]/, letter = /[A-Za-z]/;

  // ---- the table

  let exact = new Map(), templates = [], language = "en";
  const cache = new Map();

  // A row as it reads where a text is split, or its field is named elsewhere.
  const withoutEnds = ([english, words]) => {
    const field = /^[a-z_]+: (?=.*[a-z]{4})/.exec(english);
    if (field && words.includes("：")) return [english.slice(field[0].length), words.slice(words.indexOf("：") + 1)];
    const bare = english.replace(/^[;,.:·(] ?|[:;,.)]$/g, "");
    return bare === english ? ["", ""] : [bare, words.replace(/^[；，。：·（] ?|[：；，。）]$/g, "")];
  };

  // The parts of a row around its values, as they stand alone where a value is a link or a button.
  const between = ([english, words]) => {
    const parts = english.split("{}"), others = words.split(/\{=?\}/);
    if (parts.length === 1 || parts.length !== others.length) return [];
    const pairs = parts.map((part, place) => [part.trim(), others[place].trim()]);
    return pairs.filter(([part, other]) => part.replace(/[^A-Za-z]/g, "").length >= WEAK && other);
  };

  const read = ({ texts, others }) => {
    const given = { ...others, ...texts };
    const bare = Object.entries(given).map(withoutEnds).filter(([english, words]) => english && words);
    const rows = Object.entries({ ...Object.fromEntries(Object.entries(given).flatMap(between)), ...Object.fromEntries(bare), ...given });
    exact = new Map(rows.filter(([english]) => !english.includes("{}")).map(([english, words]) => [english.toLowerCase(), words]));
    templates = rows.filter(([english]) => english.includes("{}")).map(([english, target]) => {
      const parts = english.split("{}");
      const longest = parts.reduce((one, other) => (other.length > one.length ? other : one)).toLowerCase();
      return { parts, target, longest, letters: parts.join("").replace(/[^A-Za-z]/g, "").length };
    });
    const length = ({ parts }) => parts.join("").length;
    templates.sort((one, other) => other.letters - one.letters || length(other) - length(one));
  };

  const match = (template, text, low) => {
    if (!low.includes(template.longest)) return null;
    if (!template.pattern) {
      const pattern = template.parts.map((part) => part.replace(/[.*+?^${}()|[\]\\/-]/g, "\\$&")).join("(.*?)");
      // Of two values in a row the first is a number.
      template.pattern = new RegExp(`^${pattern.replaceAll("(.*?)(.*?)", "(\\d[\\d.]*|)(.*?)")}$`, "is");
    }
    return template.pattern.exec(text);
  };

  // Whether it may be the value of a template with few words of its own.
  const believed = ([value, words], strict) => !value || /^\d/.test(value) || (!strict && (words !== null || !value.includes(" ")));

  // values: as they are and translated. `{=}` takes one as it is: it is to be typed so.
  const fill = (target, values) => {
    let next = 0;
    return target.replace(/\{(\d*)(=?)\}/g, (_, number, plain) => {
      const [value, words] = values[number ? Number(number) : next++];
      return plain ? value : (words ?? value);
    });
  };

  // At each separator that does not stand in parentheses.
  const split = (text, separator) => {
    const parts = [];
    let depth = 0, begin = 0;
    for (let at = 0; at < text.length; at = Math.max(at + 1, begin)) {
      if (depth === 0 && text.startsWith(separator, at)) {
        parts.push(text.slice(begin, at));
        begin = at + separator.length;
      }
      depth = Math.max(0, depth + (text[at] === "(" ? 1 : text[at] === ")" ? -1 : 0));
    }
    return [...parts, text.slice(begin)];
  };

  const pieces = (text, depth, strict) => {
    const end = ENDS[text.at(-1)];
    if (end && text.length > 1) {
      const inner = known(text.slice(0, -1), depth + 1, strict);
      if (inner !== null) return inner + (chinese.test(inner.at(-1) ?? "") ? end : text.at(-1));
    }
    for (const [separator, other] of SEPARATORS) {
      const parts = split(text, separator);
      if (parts.length < 2) continue;
      const found = parts.map((part) => known(part, depth + 1, strict));
      if (found.every((part) => part === null)) continue;
      if (strict && found.some((part, place) => part === null && letter.test(parts[place]))) continue;
      let shown = found.map((part, place) => part ?? parts[place]);
      if (!shown.some((part) => chinese.test(part))) return shown.join(separator);
      if (separator === " (") shown = shown.map((part, place) => (place ? part.replace(/\)$/, "）") : part));
      return shown.join(other);
    }
    return null;
  };

  // strict: of a value, which may be what somebody typed: all of it is in the table, or nothing.
  const known = (text, depth, strict) => {
    const low = text.toLowerCase();
    if (exact.has(low)) return exact.get(low);
    if (depth > DEEPEST || !letter.test(text)) return null;
    for (const template of templates) {
      const found = match(template, text, low);
      if (!found || found.slice(1).some((part) => part.includes(" · "))) continue;
      const values = found.slice(1).map((value) => [value, known(value, depth + 1, true)]);
      if (template.letters < WEAK && !values.every((value) => believed(value, strict))) continue;
      return fill(template.target, values);
    }
    return pieces(text, depth, strict);
  };

  // A text in the language that is chosen.
  const say = (text) => {
    if (language === "en" || text.length > LONGEST || !letter.test(text)) return text;
    if (cache.has(text)) return cache.get(text);
    const inner = text.trim(), start = text.indexOf(inner);
    const words = text.slice(0, start) + (known(inner.replace(/\s+/g, " "), 0, false) ?? inner) + text.slice(start + inner.length);
    if (cache.size > 5000) cache.clear();
    cache.set(text, words);
    return words;
  };

  // ---- what is drawn

  // The English of what was replaced, and what stands there since: another text there is a new one.
  const texts = new WeakMap(), attributes = new WeakMap();
  const isKept = (element) => !element || element.closest(KEPT);

  const replaceText = (node) => {
    const before = texts.get(node);
    if (before?.shown === node.data || isKept(node.parentElement)) return;
    const shown = say(node.data);
    if (shown === node.data) return;
    texts.set(node, { english: node.data, shown });
    node.data = shown;
  };

  const replaceAttribute = (element, name) => {
    const value = element.getAttribute(name), before = attributes.get(element) ?? {};
    if (value === null || before[name]?.shown === value || element.closest("[translate=no]")) return;
    const shown = say(value);
    if (shown === value) return;
    attributes.set(element, { ...before, [name]: { english: value, shown } });
    element.setAttribute(name, shown);
  };

  // A list of Gradio's shows what is chosen as the value of a field, which Gradio reads again: the Chinese lies over it.
  const value = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value");
  const lists = new Set();
  const cover = (field) => {
    const words = language === "en" ? "" : say(value.get.call(field));
    const over = words && words !== value.get.call(field);
    if (over) field.parentElement.dataset.words = words;
    else delete field.parentElement.dataset.words;
  };
  const watchList = (field) => {
    if (!lists.has(field)) {
      lists.add(field);
      Object.defineProperty(field, "value", {
        configurable: true,
        get: () => value.get.call(field),
        set: (given) => { value.set.call(field, given); cover(field); },
      });
      field.addEventListener("input", () => cover(field));
    }
    cover(field);
  };

  const replaceAll = (root) => {
    if (root.nodeType === Node.TEXT_NODE) return replaceText(root);
    if (root.nodeType !== Node.ELEMENT_NODE || root.matches("script, style")) return;
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT);
    for (let node = root; node; node = walker.nextNode()) {
      if (node.nodeType === Node.TEXT_NODE) replaceText(node);
      else {
        for (const name of ATTRIBUTES) if (node.hasAttribute(name)) replaceAttribute(node, name);
        if (node.matches("input[role=combobox]")) watchList(node);
      }
    }
  };

  const restore = () => {
    const walker = document.createTreeWalker(document.documentElement, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT);
    for (let node = walker.currentNode; node; node = walker.nextNode()) {
      if (node.nodeType === Node.TEXT_NODE) {
        if (texts.get(node)?.shown === node.data) node.data = texts.get(node).english;
        texts.delete(node);
      } else {
        for (const [name, { english, shown }] of Object.entries(attributes.get(node) ?? {})) {
          if (node.getAttribute(name) === shown) node.setAttribute(name, english);
        }
        attributes.delete(node);
      }
    }
    for (const field of lists) {
      cover(field);
      delete field.value;
    }
    lists.clear();
  };

  // What it wrote itself comes back as changes, and is known by what stands there.
  const observer = new MutationObserver((changes) => {
    for (const change of changes) {
      if (change.type === "childList") for (const node of change.addedNodes) replaceAll(node);
      else if (change.type === "characterData") replaceText(change.target);
      else replaceAttribute(change.target, change.attributeName);
    }
  });

  // ---- which language

  const stored = () => { try { return localStorage.getItem(KEY); } catch { return null; } };
  const wanted = () => {
    const first = (window.wanUiLanguages ?? navigator.languages).find((name) => /^(zh|en)\b/i.test(name)) ?? "en";
    return ["en", "zh"].includes(stored()) ? stored() : first.slice(0, 2).toLowerCase();
  };

  let table = null, asked = "en";
  const use = async (chosen) => {
    asked = chosen;
    if (chosen === "zh") {
      table ??= fetch("words/zh.json").then((answer) => (answer.ok ? answer.json() : Promise.reject(answer.status))).then(read);
      try { await table; } catch { table = null; return; }
    }
    if (chosen === language || chosen !== asked) return;
    observer.disconnect();
    language = chosen;
    cache.clear();
    document.documentElement.lang = chosen === "zh" ? "zh-CN" : "en";
    if (chosen === "en") return restore();
    replaceAll(document.documentElement);
    observer.observe(document.documentElement, {
      subtree: true, childList: true, characterData: true, attributes: true, attributeFilter: ATTRIBUTES,
    });
  };

  document.addEventListener("click", ({ target }) => {
    if (!target.closest("[data-language]")) return;
    const chosen = asked === "en" ? "zh" : "en";
    try { localStorage.setItem(KEY, chosen); } catch { /* for this page alone */ }
    use(chosen);
  });
  use(wanted());

  return { say, use, chosen: () => language };
})();
