// What the pages of servers share: the key, what changes, one answer, evidence that is dropped.
const live = (() => {
  const { make, grouped, counted, number, folded, answerOf, tip } = parts;
  const $ = (name) => document.getElementById(name);
  const KEY = `toploc-key ${location.pathname}`;
  const MOST_ITEMS = 1000;
  const MOST_BYTES = 128 * 2 ** 20;
  const MOST_SHOWN = 400000;
  const AT_ONCE = 4;
  const TRIES = 6;
  const sleep = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

  const when = (seconds) => new Date(1000 * seconds).toISOString().slice(0, 19).replace("T", " ");
  const took = (seconds) => (seconds < 1 ? `${number(1000 * seconds)} ms` : `${number(seconds)} s`);

  const say = (text) => {
    $("problem").hidden = !text;
    $("problem").textContent = text;
  };

  class Refused extends Error {
    constructor(status, message, code) {
      super(message);
      this.status = status;
      this.code = code;
    }
  }

  const errorOf = async (reply) => {
    let told;
    try { told = JSON.parse(await reply.text()).error; } catch { told = undefined; }
    const message = typeof told === "string" ? told : told?.message;
    return new Refused(reply.status, message ?? `the server answered ${reply.status}`, told?.code);
  };

  // A request of this server with the key, if there is one. Throws Refused.
  const ask = async (path, options = {}) => {
    const headers = new Headers(options.headers);
    const key = sessionStorage.getItem(KEY);
    if (key) headers.set("authorization", `Bearer ${key}`);
    const reply = await fetch(path, { cache: "no-store", redirect: "error", ...options, headers });
    if (reply.ok) return reply;
    const error = await errorOf(reply);
    // A reply to an earlier key says nothing of the one that was given since.
    if (error.status === 401 && sessionStorage.getItem(KEY) === key) wantKey(key ? "The server does not take this key." : "");
    throw error;
  };
  const json = async (path) => (await ask(path)).json();

  const wantKey = (problem) => {
    sessionStorage.removeItem(KEY);
    for (const name of ["overview", "answer"]) $(name).hidden = true;
    document.querySelector("nav.sections").hidden = true;
    status("", "");
    say(problem);
    if ($("key").hidden) {
      $("key").hidden = false;
      $("key").elements.key.focus();
    }
  };

  const status = (kind, text) => {
    $("status").className = kind;
    $("status").textContent = text;
    $("status").hidden = !text;
  };

  // Reads events for as long as the server sends them. EventSource cannot send a key.
  const events = async (path, heard) => {
    const reader = (await ask(path)).body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const whole = (rest + value).split("\n\n");
      rest = whole.pop();
      for (const event of whole) {
        const fields = Object.fromEntries(event.split("\n").map((line) => [line.split(":", 1)[0], line.slice(line.indexOf(":") + 1).trim()]));
        if (fields.event) heard(fields.event, JSON.parse(fields.data));
      }
    }
  };

  // Connects again until the server wants a key.
  let watching = false;
  const watch = async (page) => {
    if (watching) return;
    watching = true;
    for (let wait = 1; ; wait = Math.min(2 * wait, 15)) {
      let why;
      try {
        await events(page.events, (kind, value) => {
          wait = 0.5;
          $("key").hidden = true;
          if (kind === "problem") {
            say(value);
            return;
          }
          say("");
          status("live", "live");
          if ($("answer").hidden) $("overview").hidden = document.querySelector("nav.sections").hidden = false;
          page.show(value);
        });
        await sleep(0.2);
        continue;
      } catch (error) {
        if (error.status === 401) {
          if ($("key").hidden) continue;
          watching = false;
          return;
        }
        why = error instanceof Refused ? error.message : "the server cannot be reached";
      }
      status("lost", `not live: ${why}; it is tried again`);
      await sleep(wait);
    }
  };

  const rowsOf = (facts) => facts.filter(([, value]) => value !== undefined && value !== null && value !== "").flatMap(([name, value]) =>
    [make("dt", { textContent: name }), make("dd", {}, ...(value instanceof Node ? [value] : [String(value)]))]);
  const factsOf = (facts) => make("dl", { className: "facts" }, ...rowsOf(facts));

  const receiptsOf = (answer) => answer.choices.filter((choice) => choice.receipt).map((choice) => {
    const { statement, signature } = choice.receipt;
    const told = Object.entries(statement).map(([name, value]) =>
      [name.replaceAll("_", " "), name === "issued_at" ? `${when(value)} UTC` : typeof value === "object" ? JSON.stringify(value) : value]);
    return folded(`receipt of choice ${choice.index}`, factsOf([...told, ["signature", signature]]));
  });

  // JSON that is fetched when it is looked at, and may be saved.
  const rawOf = (label, name, load) => {
    const text = make("pre", { textContent: "…", tabIndex: 0 });
    const save = make("button", { type: "button", className: "save", textContent: "Save", disabled: true });
    const element = folded(label, save, text);
    element.addEventListener("toggle", async () => {
      if (!element.open || !save.disabled) return;
      try {
        const whole = await load();
        text.textContent = whole.length > MOST_SHOWN ? `${whole.slice(0, MOST_SHOWN)}…` : whole;
        save.disabled = false;
        save.addEventListener("click", () => {
          const url = URL.createObjectURL(new Blob([whole], { type: "application/json" }));
          make("a", { href: url, download: name }).click();
          setTimeout(() => URL.revokeObjectURL(url), 1000);
        });
      } catch (error) {
        text.textContent = error.message;
      }
    });
    return element;
  };

  // A line of a test's sum over answers, [number, sum, threshold] each, under its threshold.
  const lineOf = (points) => {
    const WIDTH = 340;
    const HEIGHT = 120;
    const draw = (name, attributes, text) => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", name);
      for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
      if (text !== undefined) element.textContent = text;
      return element;
    };
    const first = points[0][0];
    const last = points.at(-1)[0];
    const top = 1.1 * Math.max(...points.map(([, sum, threshold]) => Math.max(sum, threshold)));
    const across = (place) => (last === first ? WIDTH : ((place - first) / (last - first)) * WIDTH);
    const up = (value) => HEIGHT * (1 - value / top);
    const path = (column) => {
      const drawn = points.map((point) => `${across(point[0]).toFixed(1)} ${up(point[column]).toFixed(1)}`);
      return last === first ? `M0 ${up(points[0][column]).toFixed(1)}H${WIDTH}` : `M${drawn.join("L")}`;
    };
    const [, sum, threshold] = points.at(-1);
    const drawn = draw("svg", { viewBox: `-54 -10 ${WIDTH + 66} ${HEIGHT + 46}`, role: "img" });
    if (sum >= threshold) drawn.setAttribute("class", "raised");
    drawn.setAttribute("aria-label", `the sum is ${number(sum)} after ${counted(last, "answer")}, an alarm is at ${number(threshold)}`);
    for (const share of [0, 0.5, 1]) {
      const y = up(share * top);
      drawn.append(draw("line", { class: share ? "grid" : "axis", x1: 0, x2: WIDTH, y1: y, y2: y }));
      drawn.append(draw("text", { class: "up", x: -6, y: y + 3.5 }, number(share * top)));
    }
    for (const place of first === last ? [last] : [first, last]) {
      drawn.append(draw("text", { class: "across", x: across(place), y: HEIGHT + 15 }, grouped(place)));
    }
    drawn.append(draw("text", { class: "across", x: WIDTH / 2, y: HEIGHT + 15 }, "answers"));
    drawn.append(draw("path", { class: "bound", d: path(2) }), draw("path", { class: "sum", d: path(1) }));
    drawn.append(draw("text", { class: "bound", x: 4, y: up(points[0][2]) - 4 }, "alarm"));
    return drawn;
  };

  const open = async (page) => {
    tip().hidden = true;
    const [, id] = location.hash.match(/^#answer\/(.+)$/) ?? [];
    document.querySelector("nav.sections").hidden = id !== undefined || !$("key").hidden;
    if ($("key").hidden) {
      $("overview").hidden = id !== undefined;
      $("answer").hidden = id === undefined;
    }
    if (id === undefined) return;
    const list = $("answer").querySelector("ol");
    const legend = $("answer").querySelector(".legend");
    list.replaceChildren();
    legend.hidden = true;
    try {
      const { answer, facts, more } = await page.answer(decodeURIComponent(id));
      if (location.hash !== `#answer/${id}`) return;
      say("");
      legend.hidden = !answer.choices.some((choice) => choice.shown.length);
      list.replaceChildren(answerOf(answer, facts, [...receiptsOf(answer), ...more]));
    } catch (error) {
      if (error.status !== 401) say(error.message);
    }
    $("answer").querySelector("h2").focus();
  };

  // Each answer of a text, as it is written there: numbers must not change.
  const itemsOf = (text) => {
    const lines = text.split("\n").map((line) => line.trim()).filter(Boolean);
    try {
      if (lines.length > 1 && typeof JSON.parse(lines[0]) === "object") return lines;
    } catch { /* one object on several lines */ }
    return text.trim() ? [text] : [];
  };

  const readFile = async (page, file) => {
    if (file.size > MOST_BYTES) throw new Refused(0, `${file.name} is larger than ${grouped(MOST_BYTES)} bytes; give it to toploc audit`);
    const start = await file.slice(0, 4).text();
    if (start !== "PAR1") return itemsOf(await file.text());
    const reply = await ask(page.rows, { method: "POST", body: file, headers: { "content-type": "application/vnd.apache.parquet" } });
    return itemsOf(await reply.text());
  };

  const verify = async (page, item, signal) => {
    for (let left = TRIES; ; left--) {
      try {
        const headers = { "content-type": "application/json" };
        return await (await ask(page.verify(), { method: "POST", body: item, headers, signal })).json();
      } catch (error) {
        if (![429, 503].includes(error.status) || left <= 1) throw error;
        await sleep(1);
      }
    }
  };

  const verdictOf = (place, found, alone) => {
    const line = make("summary", {}, make("span", { className: "verdict", textContent: found.verdict }), ` ${grouped(place + 1)}. `);
    line.append(make("code", { textContent: found.answer?.id ?? "no id" }), ` ${found.problem ?? found.answer.reasons[0] ?? ""}`);
    const element = make("details", {}, line);
    element.addEventListener("toggle", () => {
      if (!element.open || element.childElementCount > 1 || !found.answer) return;
      const report = rawOf("report as JSON", "report.json", async () => JSON.stringify(found.report, null, 1));
      element.append(make("ol", { className: "list" }, answerOf(found.answer, [counted(found.answer.tokens, "token")], [...receiptsOf(found.answer), report])));
    });
    element.open = alone;
    return make("li", { className: found.verdict }, element);
  };

  let stopping;
  const verifyAll = async (page, read) => {
    stopping?.abort();
    const stop = (stopping = new AbortController());
    const { verify: button, stop: stopper } = $("drop").elements;
    const progress = (text) => { if (stopping === stop) $("progress").textContent = text; };
    const counts = {};
    $("verdicts").replaceChildren();
    button.disabled = true;
    try {
      progress("reading");
      const all = await read();
      const items = all.slice(0, MOST_ITEMS);
      if (!items.length) { progress("there is nothing to verify"); return; }
      stopper.hidden = items.length < 2;
      const left = all.length - items.length;
      const rest = left ? `; ${grouped(left)} more are left out, give them to toploc audit` : "";
      const told = () => Object.entries(counts).sort().map(([name, count]) => `${grouped(count)} ${name}`).join(", ");
      const places = items.map(() => $("verdicts").appendChild(make("li", { hidden: true })));
      let done = 0;
      let next = 0;
      const work = async () => {
        while (next < items.length && !stop.signal.aborted) {
          const place = next++;
          let found;
          try {
            const { answer, report } = await verify(page, items[place], stop.signal);
            found = { verdict: answer.verdict, answer, report };
          } catch (error) {
            if (stop.signal.aborted || error.status === 401) { stop.abort(); return; }
            found = { verdict: "unread", problem: error.message };
          }
          counts[found.verdict] = (counts[found.verdict] ?? 0) + 1;
          places[place].replaceWith(verdictOf(place, found, items.length === 1));
          progress(`${grouped(++done)} of ${grouped(items.length)}: ${told()}${rest}`);
        }
      };
      progress(`0 of ${grouped(items.length)}`);
      await Promise.all(Array.from({ length: Math.min(AT_ONCE, items.length) }, work));
      if (stop.signal.aborted) progress(`stopped after ${grouped(done)} of ${grouped(items.length)}: ${told()}`);
    } catch (error) {
      if (error.status !== 401) progress(error.message);
    } finally {
      if (stopping === stop) {
        button.disabled = false;
        stopper.hidden = true;
      }
    }
  };

  const takeEvidence = (page) => {
    const form = $("drop");
    const readAll = (files) => async () => (await Promise.all([...files].map((file) => readFile(page, file)))).flat();
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      verifyAll(page, async () => itemsOf(form.elements.text.value));
    });
    form.elements.files.addEventListener("change", () => {
      const files = [...form.elements.files.files];
      form.elements.files.value = "";
      if (files.length) verifyAll(page, readAll(files));
    });
    form.elements.stop.addEventListener("click", () => stopping?.abort());
    const area = $("evidence");
    const over = (event) => {
      if (![...event.dataTransfer.types].includes("Files")) return;
      event.preventDefault();
      form.classList.toggle("over", event.type !== "drop" && event.type !== "dragleave");
      if (event.type === "drop") verifyAll(page, readAll(event.dataTransfer.files));
    };
    for (const name of ["dragenter", "dragover", "dragleave", "drop"]) area.addEventListener(name, over);
  };

  // `page`: a `note` on evidence; the addresses of `events`, `rows` and, by a function, `verify`; `show(state)`; and `answer(id)`, which gives
  // an answer with its facts and what follows it.
  const start = (page) => {
    $("note").textContent = page.note;
    takeEvidence(page);
    $("key").addEventListener("submit", (event) => {
      event.preventDefault();
      const key = $("key").elements.key.value.trim();
      $("key").elements.key.value = "";
      if (/[^\x21-\x7e]/.test(key)) { say("A key has no blanks, and no signs beyond ASCII."); return; }
      sessionStorage.setItem(KEY, key);
      $("key").hidden = true;
      begin();
    });
    const begin = () => {
      say("");
      status("", "connecting");
      watch(page);
      open(page);
    };
    const nav = document.querySelector("nav.sections");
    nav.append(...[...document.querySelectorAll("#overview > section")].map((section) =>
      make("a", { href: `#${section.id}`, textContent: section.querySelector("h2").textContent })));
    addEventListener("hashchange", () => open(page));
    // Before the key takes away the figures of a chunk: one Escape does one thing.
    addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !$("answer").hidden && tip().hidden) location.hash = "";
    }, true);
    begin();
  };

  return { start, ask, json, say, when, took, factsOf, rawOf, lineOf };
})();
