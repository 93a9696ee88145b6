// What pages show of answers. Whatever these hold goes into the page as text: by textContent alone.
"use strict";
const parts = (() => {
  const FIGURES = ["mismatches", "mantissa mean", "mantissa median", "decoy hits"];

  const make = (name, properties = {}, ...children) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(properties)) element[key] = value;
    element.append(...children);
    return element;
  };
  const grouped = (count) => count.toLocaleString("en");
  const counted = (count, noun) => `${grouped(count)} ${noun}${count === 1 ? "" : "s"}`;
  const number = (figure) => (figure >= 2 ** 63 ? "none equal" : String(Number(figure.toPrecision(3))));
  const tip = () => document.getElementById("figures");

  const chunkOf = (choice, chunk, place, text) => {
    const element = make("span", { className: `chunk ${chunk.passed ? "passed" : "failed"}`, tabIndex: 0, textContent: text });
    element.setAttribute("aria-describedby", tip().id);
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
      tip().replaceChildren(make("b", { textContent: head }), make("table", {}, make("tbody", {}, ...rows)));
      tip().hidden = false;
      const box = [...element.getClientRects()].find((rect) => rect.width) ?? element.getBoundingClientRect();
      const below = box.bottom + 6 + tip().offsetHeight < innerHeight;
      tip().style.top = `${Math.max(4, below ? box.bottom + 6 : box.top - tip().offsetHeight - 6)}px`;
      tip().style.left = `${Math.max(4, Math.min(box.left, innerWidth - tip().offsetWidth - 8))}px`;
    };
    const hide = () => { tip().hidden = true; };
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
    const apart = choice.shown.some((chunk) => chunk.text !== undefined);
    if (!apart && choice.shown.length) {
      element.append(make("div", { className: "strip" }, ...choice.shown.map((chunk, place) => chunkOf(choice, chunk, place, place))));
    }
    return element;
  };

  const checkOf = (check) => {
    const place = check.choice === undefined ? check.name : `${check.name} of choice ${check.choice}`;
    const reason = check.reason ? ` (${check.reason})` : "";
    const element = make("li", { className: check.status }, make("b", { textContent: `${check.status} ${place}` }));
    element.append(`${check.message ? ": " : ""}${check.message}${reason}`);
    if (check.details?.length) element.append(make("pre", { textContent: check.details.join("\n") }));
    return element;
  };

  const checksOf = (checks) => make("ul", { className: "checks" }, ...checks.map(checkOf));

  const folded = (label, ...content) => make("details", {}, make("summary", { textContent: label }), ...content);

  // `facts` are said beside the answer's name; `more` follows all else.
  const answerOf = (answer, facts, more = []) => {
    const head = make("h3", {}, make("span", { className: "verdict", textContent: answer.verdict }));
    head.append(make("code", { textContent: answer.id ?? "no id" }));
    if (answer.worst) facts = [...facts, `worst: ${answer.worst}`];
    head.append(make("small", { textContent: [answer.model ?? "unknown model", ...facts].join(" · ") }));
    const element = make("li", { className: `answer ${answer.verdict}` }, head);
    const worst = ["failed", "undecided", "skipped"].find((status) => answer.checks.some((check) => check.status === status));
    const bad = answer.checks.filter((check) => check.status === worst || check.status === "undecided");
    if (bad.length) element.append(checksOf(bad));
    element.append(...answer.choices.map((choice) => choiceOf(choice, answer.choices.length === 1)));
    const others = answer.checks.filter((check) => !bad.includes(check));
    if (others.length) element.append(folded(counted(others.length, bad.length ? "other check" : "check"), checksOf(others)));
    if (answer.response !== undefined) element.append(make("pre", { className: "response", textContent: answer.response, tabIndex: 0 }));
    if (answer.request !== undefined) element.append(folded("request", make("pre", { textContent: answer.request })));
    element.append(...more);
    return element;
  };

  addEventListener("keydown", (event) => { if (event.key === "Escape" && tip()) tip().hidden = true; });
  return { make, grouped, counted, number, choiceOf, checksOf, folded, answerOf, tip };
})();
