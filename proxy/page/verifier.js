// A verifier's page: what it is, and what it verified of late.
(() => {
  const { make, grouped, counted, number } = parts;
  const { start, json, when, took, factsOf, rawOf } = live;
  const $ = (name) => document.getElementById(name);
  const VERDICTS = ["accepted", "rejected", "undecided"];
  const PRIVACY = {
    own: "The newest that this server's process remembers. Whoever has the key that asked for one sees its text; others see figures and verdicts.",
    figures: "The newest that this server's process remembers, by figures and verdicts. No text is kept.",
  };
  const cell = (value, kind = "") => make("td", { className: `number ${kind}`, textContent: value });

  const identityOf = (state) => {
    const { thresholds, bounds } = state;
    const rate = thresholds.impostor_rate;
    return factsOf([
      ["role", state.role],
      ["models", state.models.join(", ")],
      ["engine", state.engine],
      ["thresholds", `${thresholds.name}, ${thresholds.dtype}`],
      ["from", thresholds.provenance],
      ["a chunk passes", `with up to ${number(bounds.mismatches)} mismatches of 128, mantissa mean ${number(bounds.mantissa_mean)}, median ${number(bounds.mantissa_median)}`],
      ["impostors that pass", rate === null ? "not measured" : `${number(100 * rate)} % of chunks`],
      ["signs with", state.keys.join(", ")],
      ["running", `${grouped(state.running)} of at most ${grouped(state.limits.verify_concurrency)}`],
      ["malformed", state.malformed ? grouped(state.malformed) : ""],
    ]);
  };

  const tableOf = (totals) => {
    const heads = ["model", ...VERDICTS, "all", "median", "95 %", "took", "tokens read", "last, UTC"];
    const head = make("tr", {}, ...heads.map((name, i) => make("th", { className: i ? "number" : "", textContent: name })));
    const rows = totals.map(({ model, verdicts, seconds, tokens, last }) => make("tr", {},
      make("td", { textContent: model }),
      ...VERDICTS.map((name) => cell(grouped(verdicts[name] ?? 0), verdicts[name] && name !== "accepted" ? name : "")),
      cell(grouped(Object.values(verdicts).reduce((sum, count) => sum + count, 0))),
      ...[seconds.median, seconds.high, seconds.all].map((time) => cell(took(time))), cell(grouped(tokens)), cell(when(last))));
    const element = make("div", { className: "wide", tabIndex: 0 }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
    element.setAttribute("role", "region");
    element.setAttribute("aria-label", "Verifications by claimed model");
    return element;
  };

  // In place of what is there, unless nothing of it changed: where the reader is stays.
  const known = {};
  const put = (name, value, of) => {
    const told = JSON.stringify(value);
    if (known[name] === told) return;
    known[name] = told;
    const area = $(name);
    const focused = area.contains(document.activeElement) ? document.activeElement : null;
    const href = focused?.getAttribute("href");
    const scrolled = area.querySelector(".wide")?.scrollLeft ?? 0;
    area.replaceChildren(...[of(value)].flat());
    const wide = area.querySelector(".wide");
    if (wide) wide.scrollLeft = scrolled;
    const again = href ? [...area.querySelectorAll("a")].find((line) => line.getAttribute("href") === href) : wide;
    if (focused) again?.focus({ preventScroll: true });
  };

  const listOf = (newest) => {
    if (!newest.length) return make("li", { className: "nothing", textContent: "There is none." });
    return newest.map(({ id, made_at, model, verdict, reason, seconds, tokens }) => {
      const line = make("a", { href: `#answer/${id}` }, make("span", { className: "verdict", textContent: verdict }));
      line.append(make("time", { textContent: when(made_at) }), `${model} · ${counted(tokens, "token")} · ${took(seconds)}`);
      if (reason) line.append(make("span", { className: "reason", textContent: reason }));
      return make("li", { className: verdict }, line);
    });
  };

  start({
    note: "It counts like any verification.",
    events: "v1/toploc/page/events",
    rows: "v1/toploc/page/rows",
    verify: () => "v1/toploc/page/verify",
    show: (state) => {
      $("privacy").textContent = PRIVACY[state.page === "own" && state.keyed ? "own" : "figures"];
      const { totals, newest, ...identity } = state;
      put("identity", identity, identityOf);
      put("models", totals, (found) => (found.length ? tableOf(found) : make("p", { textContent: "Nothing was verified yet." })));
      put("listed", newest, listOf);
    },
    answer: async (id) => {
      const { answer, report } = await json(`v1/toploc/page/verifications/${encodeURIComponent(id)}`);
      const facts = [counted(answer.tokens, "token")];
      if (!report) facts.push("figures alone: the text is for the key that asked");
      const more = [rawOf(report ? "report as JSON" : "figures as JSON", `${id}.json`, async () => JSON.stringify(report ?? answer, null, 1))];
      return { answer: { ...answer, id: answer.id ?? id }, facts, more };
    },
  });
})();
