// Shares, most shifted tokens, and curves.

function showOverview(base, choosePiece) {
  showShares();
  showMostShifted(base, choosePiece);
  const names = Object.keys(facts.curves);
  byId("charts").replaceChildren(...names.map((name) => chart(name, base)), lineKey(base));
  showCurveTable(base);
}

function showShares() {
  const head = el("tr", {}, el("th", { scope: "col" }, "pair"), el("th", { class: "bar-cell" }),
    ...facts.classes.map((name) => el("th", { scope: "col" }, name)));
  byId("shares").replaceChildren(
    el("thead", {}, head), el("tbody", {}, ...facts.shares.map(shareRow)),
  );
}

function shareRow({ title, published, shares }) {
  const values = shares.map(([share]) => share);
  const name = published ? `${title} (published)` : title;
  return el("tr", published ? { class: "published" } : {},
    el("th", { scope: "row" }, name), el("td", { class: "bar-cell" }, shareBar(values)),
    ...shares.map((share) => shareCell(share, published)));
}

function shareCell([share, low, high], published) {
  const cell = el("td", {}, (100 * share).toFixed(1));
  if (!published) {
    const interval = `${(100 * low).toFixed(1)}–${(100 * high).toFixed(1)}`;
    cell.append(el("span", { class: "interval" }, interval));
  }
  return cell;
}

// The three classes side by side; the numbers stand beside it as text.
function shareBar(values) {
  const bar = el("div", { class: "share-bar", "aria-hidden": "true" });
  values.forEach((value, number) => {
    const part = el("span", { class: `fill${number}` });
    part.style.flexGrow = value;
    bar.append(part);
  });
  return bar;
}

function showMostShifted(base, choosePiece) {
  const tokens = facts.bases[base].mostShifted;
  byId("most").replaceChildren(...tokens.map(([token, shifted, all]) => {
    const text = visible(report.pieces[token], report.ids[token]);
    const button = el("button", {
      type: "button", class: "chip", "aria-label": `${text}, shifted ${shifted} of ${all} times`,
    }, el("span", { class: "mono" }, text), " ", el("span", { class: "dim" }, `${shifted}/${all}`));
    button.addEventListener("click", () => choosePiece(text));
    return el("li", {}, button);
  }));
  if (!tokens.length) byId("most").append(el("li", { class: "note" }, "No token is shifted."));
}

function lineKey(base) {
  const entries = facts.bases.map(({ name }, number) => {
    const sample = svg("svg", { viewBox: "0 0 30 10", class: "sample", "aria-hidden": "true" },
      svg("path", { class: `curve line${number % NUM_COLOURS}`, d: "M0 5L30 5" }));
    return el("span", number === base ? { class: "chosen" } : {}, sample, " ", name);
  });
  return el("p", { class: "key" }, ...entries);
}

function showCurveTable(base) {
  const { curves } = facts.bases[base];
  const places = [1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000]
    .filter((position) => position <= curves.count.length);
  const names = Object.keys(facts.curves);
  const head = ["token", ...names.map((name) => facts.curves[name]), "responses"];
  byId("curve-table").replaceChildren(
    el("thead", {}, el("tr", {}, ...head.map((text) => el("th", { scope: "col" }, text)))),
    el("tbody", {}, ...places.map((position) => {
      const values = names.map((name) => curves[name].mean[position - 1]);
      return el("tr", {}, el("th", { scope: "row" }, String(position)),
        ...values.map((value) => el("td", {}, value === null ? "∞" : short(value))),
        el("td", {}, curves.count[position - 1].toLocaleString("en")));
    })),
  );
}
