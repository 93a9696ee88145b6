// The gateway's page: its upstreams, and the answers in its store.
(() => {
  const { make, grouped, counted, number } = parts;
  const { start, json, ask, when, took, factsOf, rawOf, lineOf, say } = live;
  const $ = (name) => document.getElementById(name);
  const form = $("filter");
  // What decides comes first: a phone is as wide as five columns.
  const FIRST = ["accepted", "rejected", "undecided"];
  const REST = ["weak", "missing", "unchecked", "pending"];
  const link = (id, text) => make("a", { href: `#answer/${encodeURIComponent(id)}`, textContent: text });
  const chip = (text) => make("span", { className: "verdict", textContent: text });
  const cell = (value, kind = "") => make("td", { className: `number ${kind}`, textContent: value });

  const tableOf = (upstream) => {
    const heads = ["model", ...FIRST, "audited", "answers", ...REST, "audit, median", "audit, 95 %", "verifiers took", "tokens read"];
    const counts = (verdicts, names) => names.map((name) =>
      cell(grouped(verdicts[name] ?? 0), verdicts[name] && ["rejected", "undecided"].includes(name) ? name : ""));
    const head = make("tr", {}, ...heads.map((name, i) => make("th", { className: i ? "number" : "", textContent: name })));
    const rows = upstream.models.map(({ model, answers, audited, verdicts, seconds, tokens }) => make("tr", {},
      make("td", { textContent: model }), ...counts(verdicts, FIRST), cell(grouped(audited)), cell(grouped(answers)), ...counts(verdicts, REST),
      ...[seconds.median, seconds.high, audited ? seconds.all : null].map((time) => cell(time === null ? "–" : took(time))),
      cell(audited ? grouped(tokens) : "–")));
    const element = make("div", { className: "wide", tabIndex: 0 }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
    element.setAttribute("role", "region");
    element.setAttribute("aria-label", `Answers of ${upstream.upstream}`);
    return element;
  };

  const testOf = (test) => {
    const raised = test.value >= test.threshold;
    const figure = make("figure", { className: "chart" }, make("figcaption", { textContent: `${test.test}, ${test.model}` }));
    if (test.points.length) figure.append(lineOf(test.points));
    const state = `${number(test.value)} of ${number(test.threshold)} after ${counted(test.answers, "answer")}; highest ${number(test.highest)}`;
    figure.append(make("p", { className: raised ? "raised" : "", textContent: raised ? `alarm: ${state}` : state }));
    return figure;
  };

  const upstreamOf = (upstream) => {
    const unchecked = upstream.proofs === "none" && !upstream.verifiers.length;
    const state = unchecked && upstream.state === "trusted" ? "not checked" : upstream.state;
    const head = make("h3", {}, upstream.upstream, chip(state));
    const since = [`since ${when(upstream.since)}`];
    if (upstream.state === "quarantined") since.push(upstream.until === null ? "until an operator's word" : `until ${when(upstream.until)}`);
    if (upstream.state === "probation") since.push(`${counted(upstream.probation, "more accepted answer")} to be trusted`);
    head.append(make("small", { textContent: since.join(", ") }));
    const share = upstream.audit_rate === 1 ? "all" : `${number(100 * upstream.audit_rate)} %`;
    const how = upstream.proofs === "none" ? "by their text alone, " : "";
    const checks = unchecked ? "none is checked" : `${share} checked ${how}${upstream.when === "inline" ? "before they are delivered" : "in the background"}`;
    const facts = factsOf([
      ["why", upstream.reason ? make("span", {}, upstream.reason, " ", ...(upstream.answer ? [link(upstream.answer, "the answer")] : [])) : ""],
      ["for", upstream.serves.map((model) => (model === "*" ? "all models" : model)).join(", ")],
      ["answers", checks],
      ["verifiers", upstream.verifiers.join(", ")],
    ]);
    const element = make("article", { className: `card ${state}` }, head, facts);
    if (upstream.models.length) element.append(tableOf(upstream));
    else element.append(make("p", { textContent: "No answer yet." }));
    if (upstream.tests.length) element.append(make("div", { className: "charts" }, ...upstream.tests.map(testOf)));
    return element;
  };

  // In place of what is there, unless nothing of it changed: where the reader is stays.
  const known = new Map();
  const showUpstreams = (upstreams) => {
    const area = $("upstreams");
    for (const [place, upstream] of upstreams.entries()) {
      const told = JSON.stringify(upstream);
      if (known.get(upstream.upstream) === told) continue;
      known.set(upstream.upstream, told);
      const made = upstreamOf(upstream);
      const before = area.children[place];
      if (!before) { area.append(made); continue; }
      const scrolled = before.querySelector(".wide")?.scrollLeft ?? 0;
      const focused = before.contains(document.activeElement);
      before.replaceWith(made);
      const wide = made.querySelector(".wide");
      if (wide) {
        wide.scrollLeft = scrolled;
        if (focused) wide.focus({ preventScroll: true });
      }
    }
  };

  let before;
  let listed;
  const list = async () => {
    const asked = new URLSearchParams({ upstream: form.elements.upstream.value, verdict: form.elements.verdict.value });
    if (before !== undefined) asked.set("before", before);
    let told;
    try {
      told = await json(`toploc/answers?${asked}`);
    } catch (error) {
      if (error.status !== 401) say(error.message);
      return;
    }
    if (listed === JSON.stringify(told)) return;
    listed = JSON.stringify(told);
    const { answers, more } = told;
    const focused = document.activeElement?.closest?.("#listed a")?.getAttribute("href");
    $("listed").replaceChildren(...answers.map((answer) => {
      const line = link(answer.id, "");
      line.append(chip(answer.verdict), make("time", { textContent: when(answer.made_at) }), `${answer.upstream} · ${answer.model}`);
      if (answer.reason) line.append(make("span", { className: "reason", textContent: answer.reason }));
      return make("li", { className: answer.verdict }, line);
    }));
    if (!answers.length) $("listed").append(make("li", { className: "nothing", textContent: "There is none." }));
    if (focused) [...$("listed").querySelectorAll("a")].find((line) => line.getAttribute("href") === focused)?.focus({ preventScroll: true });
    $("older").disabled = !more;
    $("newest").disabled = before === undefined;
    $("older").onclick = () => { before = answers.at(-1).made_at; list(); };
  };
  $("newest").addEventListener("click", () => { before = undefined; list(); });
  form.addEventListener("change", () => { before = undefined; list(); });
  form.addEventListener("submit", (event) => event.preventDefault());

  const offer = (select, names) => {
    const there = [...select.options].map((option) => option.value);
    for (const name of names) if (!there.includes(name)) select.append(make("option", { value: name, textContent: name }));
  };
  const chosen = make("select", { name: "upstream" });
  $("more").append(make("label", {}, "by the verifiers of ", chosen));

  start({
    note: "Nothing of it is stored, and nobody's trust changes.",
    events: "toploc/events",
    rows: "toploc/rows",
    verify: () => `toploc/verify?${new URLSearchParams({ upstream: chosen.value })}`,
    show: (state) => {
      $("span").textContent = `Counted over the last ${counted(state.keep_days, "day")}. Times are UTC.`;
      if (state.failing) say(`Answers cannot be stored: ${state.failing}`);
      offer(form.elements.upstream, state.upstreams.map((upstream) => upstream.upstream));
      offer(chosen, state.upstreams.filter((upstream) => upstream.verifiers.length).map((upstream) => upstream.upstream));
      $("evidence").hidden = !chosen.options.length;
      showUpstreams(state.upstreams);
      if (before === undefined) list();
    },
    answer: async (id) => {
      const found = await json(`toploc/answers/${encodeURIComponent(id)}`);
      const facts = [`by ${found.upstream}`, found.route, `${when(found.made_at)} UTC`, counted(found.answer.tokens, "token")];
      if (found.reason) facts.push(found.reason);
      const report = { verdict: found.verdict, reason: found.reason, report: found.report };
      const evidence = async () => (await ask(`toploc/reports/${encodeURIComponent(id)}/evidence`)).text();
      const more = [rawOf("report as JSON", `${id}-report.json`, async () => JSON.stringify(report, null, 1)), rawOf("evidence as JSON", `${id}.json`, evidence)];
      return { answer: found.answer, facts, more };
    },
  });
})();
