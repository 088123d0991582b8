// One token under both models.

const SHOWN_BEFORE = 4000;

async function showDetails() {
  const { prompt, position, base } = state;
  const row = report.starts[prompt] + position;
  const sides = ["aligned", `base${base}`];
  const [aligned, ofBase, kl, klBack] = await Promise.all([
    ...sides.map((side) => sideFacts(side, prompt, row)),
    column(`${sides[1]}.kl`), column(`${sides[1]}.klback`),
  ]);
  const isStale = !state.open || state.prompt !== prompt || state.position !== position
    || state.base !== base;
  if (isStale) return;
  const host = byId("details");
  host.replaceChildren(
    detailsBar(), detailsTitle(row, position), topTables(row, aligned, ofBase),
    factTable(aligned, ofBase),
    divergences(row, natsOf(kl[row]), natsOf(klBack[row])), textSoFar(row, position),
  );
  host.hidden = false;
  document.documentElement.classList.add("with-details");
  tokenAt(position).scrollIntoView({ block: "nearest" });
  const before = host.querySelector(".before");
  before.scrollTop = before.scrollHeight;
}

async function sideFacts(side, prompt, row) {
  const names = ["rank", "ties", "logprob", "entropy"];
  const [columns, top] = await Promise.all([
    Promise.all(names.map((name) => column(`${side}.${name}`))), topTokens(side, prompt, row),
  ]);
  const [rank, ties, logprob, entropy] = columns.map((values) => values[row]);
  return { rank, ties, below: natsOf(logprob), entropy: natsOf(entropy), top };
}

function detailsBar() {
  const button = (text, label, action) => {
    const node = el("button", { type: "button", "aria-label": label, title: label }, text);
    node.addEventListener("click", action);
    return node;
  };
  return el("div", { class: "bar" },
    el("div", { class: "controls" },
      button("←", "Previous token (←)", () => moveToken(-1)),
      button("→", "Next token (→)", () => moveToken(1))),
    button("×", "Close (Esc)", closeDetails));
}

function detailsTitle(row, position) {
  const token = report.tokens[row];
  const number = report.classOf[row];
  const length = report.starts[state.prompt + 1] - report.starts[state.prompt];
  return el("div", {},
    el("h2", { id: "details-title" },
      el("span", { class: `token class${number}` }, visible(report.pieces[token], report.ids[token])),
      ` ${facts.classes[number]}`),
    el("p", { class: "note" }, `Token ${position + 1} of ${length}, position ${position}, `
      + `id ${report.ids[token]}${facts.eos.includes(token) ? ", end of sequence" : ""}`));
}

function topTables(row, aligned, ofBase) {
  const names = [facts.aligned, facts.bases[state.base].name];
  const lists = [aligned, ofBase];
  const kept = lists.some((side) => side.top.length);
  if (!kept) return el("p", { class: "note" }, "The table holds no top tokens.");
  const both = el("div", { class: "tops" },
    ...lists.map((side, number) => topTable(row, side, names[number], number)));
  const others = new Set(ofBase.top.map(({ token }) => token));
  const shared = aligned.top.filter(({ token }) => others.has(token)).length;
  const most = Math.min(aligned.top.length, ofBase.top.length);
  return el("div", {}, both, most
    ? el("p", { class: "note" }, `${shared} of the ${most} likeliest are the same tokens.`) : null);
}

function topTable(row, { top, rank, below }, name, number) {
  const chosen = report.tokens[row];
  const own = { token: chosen, probability: Math.exp(-below) }; // finer than as one of the top
  const rows = top.map((entry, place) => (entry.token === chosen
    ? topRow(own, place + 1, true) : topRow(entry, place + 1, false)));
  if (top.length && !top.some(({ token }) => token === chosen)) {
    rows.push(topRow(own, rank, true, "outside"));
  }
  return el("table", { class: `top side${number}` },
    el("caption", { title: name }, number ? "base" : "aligned", el("b", {}, name)),
    el("colgroup", {}, ...["place", "piece", "chance"].map((kind) => el("col", { class: kind }))),
    el("thead", { class: "sr" }, el("tr", {},
      ...["rank", "token", "probability"].map((text) => el("th", { scope: "col" }, text)))),
    el("tbody", {}, ...rows));
}

function topRow({ token, probability, beyond }, place, isChosen, extra = "") {
  const meter = el("span", { class: "meter", "aria-hidden": "true" });
  meter.style.width = `${100 * probability}%`;
  const text = visible(report.pieces[token], report.ids[token]);
  return el("tr", { class: `${extra}${isChosen ? " chosen" : ""}`, "aria-current": isChosen || null },
    el("td", { class: "place" }, place.toLocaleString("en")),
    el("td", { class: "mono", title: `id ${report.ids[token]}` }, text),
    el("td", { class: "chance" }, meter, el("span", {}, percent(probability, beyond))));
}

function factTable(aligned, ofBase) {
  const lines = [
    ["rank", (side) => side.rank.toLocaleString("en")],
    ["ties", (side) => side.ties.toLocaleString("en")],
    ["probability", (side) => percent(Math.exp(-side.below))],
    ["log-probability", (side) => logarithm(side.below)],
    ["entropy", (side) => nats(side.entropy)],
  ];
  const head = ["", "aligned", "base"].map((text) => el("th", { scope: "col" }, text));
  return el("table", { class: "facts" }, el("thead", {}, el("tr", {}, ...head)),
    el("tbody", {}, ...lines.map(([name, value]) => el("tr", { "data-fact": name },
      el("th", { scope: "row" }, name), el("td", {}, value(aligned)), el("td", {}, value(ofBase))))));
}

function divergences(row, kl, klBack) {
  const lines = [
    ["KL(aligned ‖ base)", nats(kl)], ["KL(base ‖ aligned)", nats(klBack)],
    ["same argmax", report.same[row] ? "yes" : "no"],
  ];
  return el("dl", {}, ...lines.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

function textSoFar(row, position) {
  const text = textOf(row - position, row);
  const shown = text.length > SHOWN_BEFORE ? `… ${text.slice(-SHOWN_BEFORE)}` : text;
  return el("div", {}, el("h3", {}, "The response so far"),
    el("pre", { class: "before", tabindex: "0", dir: "auto", "aria-label": "The response so far" },
      shown, el("mark", {}, flowing(report.pieces[report.tokens[row]], report.ids[report.tokens[row]]))),
    el("p", { class: "note" }, "Ranks and ties are exact. Logarithms and divergences, in nats, are "
      + "rounded to 0.0001, top probabilities to 0.05 % of themselves; exact values are in the "
      + "Parquet table."));
}
