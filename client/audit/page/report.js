// Shows the answers of the element `data`.
(() => {
  const { make, grouped, counted, answerOf, tip } = parts;
  const PAGE = 10;
  const answers = JSON.parse(document.getElementById("data").textContent);
  const form = document.getElementById("filter");
  if (!form) return;
  const list = document.getElementById("list");
  const navigation = [...document.querySelectorAll("nav.pages")];
  let found = answers;
  let page = 0;

  const shown = (answer) => {
    const facts = [answer.day, `line ${grouped(answer.line)}`, counted(answer.tokens, "token")];
    if (answer.verifier) facts.push(`by ${answer.verifier}`);
    return answerOf(answer, facts);
  };

  const show = () => {
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    page = Math.max(0, Math.min(page, pages - 1));
    tip().hidden = true;
    list.replaceChildren(...found.slice(page * PAGE, (page + 1) * PAGE).map(shown));
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
  form.addEventListener("submit", (event) => event.preventDefault());
  show();
})();
