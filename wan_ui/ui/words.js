// The page in the language of who reads it. What is drawn is English; while Chinese is chosen, every text of the page
// and what its attributes say is looked for in the table (wan_ui/words/zh.json, asked for then alone) and replaced as
// it is drawn, and put back when English is chosen again. In English nothing is observed. The rules are those of
// wan_ui/words/translate.py. What people typed and what their files are called stays: see KEPT.
window.wanUiWords = (() => {
  const KEY = "wan-ui-language";
  const KEPT = "textarea, script, style, code, pre, kbd, [translate=no], [contenteditable], [data-phrase], [data-prompt], [data-tag], [data-name]";
  const ATTRIBUTES = ["title", "aria-label", "placeholder", "alt", "label", "aria-valuetext"];
  const LONGEST = 2000, DEEPEST = 4, SPLIT = 0.5, MOST_JOINED = 5, FEW = 8;
  const SEPARATORS = [["\n", "\n"], [". ", "。"], ["; ", "；"], [": ", "："], [" · ", " · "], [", ", "，"], [" (", "（"]];
  const ENDS = { ".": "。", "!": "！", "?": "？", ":": "：", ")": "）", ";": "；" };
  const PART = /[,.;:] | \(| · /, chinese = /[\u3000-\u9fff\uff00-\uffef]/, letter = /[A-Za-z]/;

  // ---- the table: rows without values by their English, templates by their rarest word

  let exact = new Map(), templates = new Map(), language = "en";

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
    return pairs.filter(([part, other]) => part.replace(/[^A-Za-z]/g, "").length >= FEW && other);
  };

  const read = ({ texts, others }) => {
    const given = { ...others, ...texts };
    const bare = Object.entries(given).map(withoutEnds).filter(([english, words]) => english && words);
    const rows = Object.entries({ ...Object.fromEntries(Object.entries(given).flatMap(between)), ...Object.fromEntries(bare), ...given });
    exact = new Map(rows.filter(([english]) => !english.includes("{}")).map(([english, words]) => [english.toLowerCase(), words]));
    const made = rows.filter(([english]) => english.includes("{}")).map(([english, target]) => {
      const own = english.replaceAll("{}", ""), words = english.toLowerCase().match(/(?<![a-z}])[a-z]+(?![a-z{])/g) ?? [];
      return { english, target, letters: own.replace(/[^A-Za-z]/g, "").length, length: own.length, words: [...new Set(words)].sort() };
    });
    const number = new Map();
    for (const { words } of made) for (const word of words) number.set(word, (number.get(word) ?? 0) + 1);
    templates = new Map();
    for (const template of made) {
      const rarest = template.words.reduce((one, other) => (number.get(other) < number.get(one) ? other : one), template.words[0] ?? "");
      if (!templates.has(rarest)) templates.set(rarest, []);
      templates.get(rarest).push(template);
    }
  };

  // Those with more letters of their own, then with more signs, come first.
  const candidates = (low) => {
    const words = new Set(["", ...(low.match(/[a-z]+/g) ?? [])]);
    const found = [...words].flatMap((word) => templates.get(word) ?? []);
    return found.sort((one, other) => other.letters - one.letters || other.length - one.length || (one.english < other.english ? -1 : 1));
  };

  const match = (template, text) => {
    if (!template.pattern) {
      const parts = template.english.split("{}").map((part) => part.replace(/[.*+?^${}()|[\]\\/-]/g, "\\$&"));
      // Of two values in a row the first is a number.
      template.pattern = new RegExp(`^${parts.join("(.*?)").replaceAll("(.*?)(.*?)", "(\\d[\\d.]*(?: × \\d+)?|)(.*?)")}$`, "is");
    }
    return template.pattern.exec(text);
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

  // Parts that are a row of the table only with the next ones, joined: titles have commas.
  const together = (parts, separator) => {
    const found = [];
    for (let at = 0; at < parts.length;) {
      let end = Math.min(parts.length, at + MOST_JOINED);
      while (end > at + 1 && !exact.has(parts.slice(at, end).join(separator).toLowerCase())) end -= 1;
      found.push(parts.slice(at, end).join(separator));
      at = end;
    }
    return found;
  };

  const count = (text) => text.replace(/[^A-Za-z]/g, "").length;

  // The template with values in English order. `{=}` takes one as it is: it is to be typed so, or somebody has.
  const fill = ({ english, target, letters }, values, depth) => {
    const says = [": {}", ". {}", "; {}"].some((end) => english.endsWith(end));
    let cost = 0, next = 0;
    const words = target.replace(/\{(\d*)(=?)\}/g, (_, given, plain) => {
      const number = given ? Number(given) : next++, value = values[number];
      const [left, said] = plain ? [0.1, value] : best(value, depth + 1);
      cost += left;
      if (says && number === values.length - 1) return said;
      // Another sentence begins in it, which is not this template's; or a template of few letters fits by chance.
      if (PART.test(value)) cost += 10 / Math.max(1, letters);
      if (left && !plain && value.includes(" ") && !/^\d/.test(value) && letters < FEW) cost += LONGEST;
      return said;
    });
    return [cost, words];
  };

  // Sentence by sentence, then by its parts, with Chinese punctuation.
  const inPieces = (text, depth) => {
    const found = [], end = ENDS[text.at(-1)];
    if (end) {
      const [cost, words] = best(text.slice(0, -1), depth + 1);
      const opened = text.at(-1) === ")" && words.split("（").length > words.split("）").length;
      found.push([cost, words + (opened || chinese.test(words.at(-1) ?? "") ? end : text.at(-1))]);
    }
    for (const [separator, other] of SEPARATORS) {
      const parts = together(split(text, separator), separator);
      if (parts.length < 2) continue;
      const said = parts.map((part) => best(part, depth + 1));
      let shown = said.map(([, words]) => words);
      if (!shown.some((words) => chinese.test(words))) continue;
      if (separator === " (") shown = shown.map((words, place) => (place ? words.replace(/\)$/, "）") : words));
      found.push([said.reduce((sum, [cost]) => sum + cost, SPLIT), shown.join(other)]);
    }
    return found;
  };

  // What leaves the fewest letters of English, and how many those are.
  const find = (text, depth) => {
    const low = text.toLowerCase();
    if (exact.has(low)) return [0, exact.get(low)];
    let found = [count(text), text];
    if (depth > DEEPEST || !found[0]) return found;
    const compare = (one) => { if (one[0] < found[0]) found = one; };
    for (const template of candidates(low)) {
      const values = match(template, text)?.slice(1);
      if (!values) continue;
      const filled = fill(template, values, depth);
      if (!filled[0]) return filled;
      compare(filled);
    }
    if (text.length > 1) inPieces(text, depth).forEach(compare);
    return found;
  };

  // The same, remembered: a text is asked for in many parts of another.
  const cache = new Map();
  const best = (text, depth) => {
    const key = `${depth}${text}`;
    if (cache.has(key)) return cache.get(key);
    if (cache.size > 20000) cache.clear();
    const found = find(text, depth);
    cache.set(key, found);
    return found;
  };

  // A text in the language that is chosen.
  const say = (text) => {
    if (language === "en" || text.length > LONGEST || !letter.test(text)) return text;
    const inner = text.trim(), start = text.indexOf(inner);
    return text.slice(0, start) + best(inner.replace(/\s+/g, " "), 0)[1] + text.slice(start + inner.length);
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
    if (over) field.parentElement.dataset.inChinese = words;
    else delete field.parentElement.dataset.inChinese;
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
