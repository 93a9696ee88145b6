// Shows the answers of the element `data`. Whatever they hold goes into the page as text: by textContent alone.
"use strict";
(() => {
  const PAGE = 10;
  const FIGURES = ["mismatches", "mantissa mean", "mantissa median", "decoy hits"];
  const answers = JSON.parse(document.getElementById("data").textContent);
  const form = document.getElementById("filter");
  if (!form) return;
  const list = document.getElementById("list");
  const tip = document.getElementById("figures");
  const navigation = [...document.querySelectorAll("nav.pages")];
  let found = answers;
  let page = 0;

  const make = (name, properties = {}, ...children) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(properties)) element[key] = value;
    element.append(...children);
    return element;
  };
  const grouped = (count) => count.toLocaleString("en");
  const counted = (count, noun) => `${grouped(count)} ${noun}${count === 1 ? "" : "s"}`;
  const number = (figure) => (figure >= 2 ** 63 ? "none equal" : String(Number(figure.toPrecision(3))));

  const chunkOf = (choice, chunk, place, text) => {
    const element = make("span", { className: `chunk ${chunk.passed ? "passed" : "failed"}`, tabIndex: 0, textContent: text });
    element.setAttribute("aria-describedby", tip.id);
    const first = 32 * place;
    const last = Math.min(first + 32, choice.tokens) - 1;
    const show = () => {
      const rows = chunk.figures.map((pair, i) => {
        const row = make("tr", {}, make("td", { textContent: FIGURES[i] }));
        row.append(make("td", { textContent: pair ? `${number(pair[0])} of ${number(pair[1])}` : "none" }));
        if (pair && pair[0] > pair[1]) row.className = "beyond";
        return row;
      });
      const tokens = first === last ? `token ${grouped(first)}` : `tokens ${grouped(first)} to ${grouped(last)}`;
      const head = `chunk ${place}, ${tokens}: ${chunk.passed ? "passed" : "failed"}`;
      tip.replaceChildren(make("b", { textContent: head }), make("table", {}, make("tbody", {}, ...rows)));
      tip.hidden = false;
      const box = [...element.getClientRects()].find((rect) => rect.width) ?? element.getBoundingClientRect();
      const below = box.bottom + 6 + tip.offsetHeight < innerHeight;
      tip.style.top = `${Math.max(4, below ? box.bottom + 6 : box.top - tip.offsetHeight - 6)}px`;
      tip.style.left = `${Math.max(4, Math.min(box.left, innerWidth - tip.offsetWidth - 8))}px`;
    };
    const hide = () => { tip.hidden = true; };
    element.addEventListener("mouseenter", show);
    element.addEventListener("focus", show);
    element.addEventListener("mouseleave", hide);
    element.addEventListener("blur", hide);
    return element;
  };

  const choiceOf = (choice, alone) => {
    const element = make("div", { className: "choice" });
    const notes = [alone ? "" : `choice ${choice.index}`, counted(choice.tokens, "token")];
    notes.push(choice.chunks ? `${grouped(choice.failed)} of ${counted(choice.chunks, "chunk")} failed` : "no chunk has figures");
    if (choice.cut) notes.push(`the page has the first ${counted(choice.shown.length, "chunk")}, the evidence has the rest`);
    const whole = choice.text !== undefined;
    if (whole && choice.chunks) notes.push("the text cannot be told apart by chunks: it is not just what the tokens say");
    element.append(make("small", { textContent: notes.filter(Boolean).join(" · ") }));
    const text = make("div", { className: "text", dir: "auto" });
    if (whole) text.textContent = choice.text;
    else choice.shown.forEach((chunk, place) => {
      if (chunk.text !== undefined) text.append(chunkOf(choice, chunk, place, chunk.text || "∅"));
    });
    if (text.childNodes.length) element.append(text);
    if (whole && choice.shown.length) {
      element.append(make("div", { className: "strip" }, ...choice.shown.map((chunk, place) => chunkOf(choice, chunk, place, place))));
    }
    return element;
  };

  const checkOf = (check) => {
    const place = check.choice === undefined ? check.name : `${check.name} of choice ${check.choice}`;
    const reason = check.reason ? ` (${check.reason})` : "";
    const element = make("li", { className: check.status }, make("b", { textContent: `${check.status} ${place}` }));
    element.append(`: ${check.message}${reason}`);
    return element;
  };

  const answerOf = (answer) => {
    const head = make("h3", {}, make("span", { className: "verdict", textContent: answer.verdict }));
    head.append(make("code", { textContent: answer.id ?? "no id" }));
    const facts = [answer.model ?? "unknown model", answer.day, `line ${grouped(answer.line)}`, counted(answer.tokens, "token")];
    if (answer.worst) facts.push(`worst: ${answer.worst}`);
    if (answer.verifier) facts.push(`by ${answer.verifier}`);
    head.append(make("small", { textContent: facts.join(" · ") }));
    const element = make("li", { className: `answer ${answer.verdict}` }, head);
    const worst = ["failed", "undecided", "skipped"].find((status) => answer.checks.some((check) => check.status === status));
    const bad = answer.checks.filter((check) => check.status === worst || check.status === "undecided");
    if (bad.length) element.append(make("ul", { className: "checks" }, ...bad.map(checkOf)));
    element.append(...answer.choices.map((choice) => choiceOf(choice, answer.choices.length === 1)));
    const others = answer.checks.filter((check) => !bad.includes(check));
    if (others.length) {
      const all = make("ul", { className: "checks" }, ...others.map(checkOf));
      element.append(make("details", {}, make("summary", { textContent: counted(others.length, "other check") }), all));
    }
    if (answer.request !== undefined) {
      element.append(make("details", {}, make("summary", { textContent: "request" }), make("pre", { textContent: answer.request })));
    }
    return element;
  };

  const show = () => {
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    page = Math.max(0, Math.min(page, pages - 1));
    tip.hidden = true;
    list.replaceChildren(...found.slice(page * PAGE, (page + 1) * PAGE).map(answerOf));
    for (const nav of navigation) {
      nav.hidden = pages === 1;
      const go = (label, to) => {
        const button = make("button", { type: "button", textContent: label, disabled: to < 0 || to >= pages });
        button.addEventListener("click", () => { page = to; show(); navigation[0].scrollIntoView(); });
        return button;
      };
      const first = found.length ? page * PAGE + 1 : 0;
      const last = Math.min(found.length, (page + 1) * PAGE);
      const where = `${grouped(first)} to ${grouped(last)} of ${grouped(found.length)}, page ${grouped(page + 1)} of ${grouped(pages)}`;
      nav.replaceChildren(go("Back", page - 1), make("span", { textContent: where }), go("Next", page + 1));
    }
  };

  const filter = () => {
    const { verdict, model, reason, id } = form.elements;
    found = answers.filter((answer) =>
      (!verdict.value || answer.verdict === verdict.value)
      && (!model.value || (answer.model ?? "unknown") === model.value)
      && (!reason.value || answer.reasons.includes(reason.value))
      && (!id.value || (answer.id ?? "").includes(id.value.trim())));
    page = 0;
    show();
  };

  const offer = (select, values) => {
    const counts = new Map();
    for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
    select.closest("label").hidden = counts.size < 2;
    select.append(make("option", { value: "", textContent: "all" }));
    for (const [value, count] of [...counts].sort((a, b) => b[1] - a[1])) {
      select.append(make("option", { value, textContent: `${value} (${grouped(count)})` }));
    }
  };
  offer(form.elements.verdict, answers.map((answer) => answer.verdict));
  offer(form.elements.model, answers.map((answer) => answer.model ?? "unknown"));
  offer(form.elements.reason, answers.flatMap((answer) => answer.reasons));
  for (const event of ["input", "change"]) form.addEventListener(event, filter);
  form.hidden = answers.length < 2;
  document.querySelector(".legend").hidden = !answers.some((answer) => answer.choices.some((choice) => choice.shown.length));
  addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });
  form.addEventListener("submit", (event) => event.preventDefault());
  show();
})();
