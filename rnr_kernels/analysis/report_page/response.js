// The response of one prompt, a button for each token; only this one is in the document.

function showResponse() {
  const { prompt } = state;
  const [from, to] = [report.starts[prompt], report.starts[prompt + 1]];
  byId("response-title").textContent = `Prompt ${prompt + 1} of ${report.prompts.length}`;
  byId("instruction").textContent = report.prompts[prompt];
  const shares = sharesOf(prompt).map((share, i) => `${percent(share)} ${facts.classes[i]}`);
  byId("prompt-shares").textContent = to > from
    ? `${count(to - from, "token")}: ${shares.join(", ")}` : "The table has no tokens of this prompt.";
  const nodes = [];
  for (let row = from; row < to; row++) nodes.push(tokenNode(row, row - from));
  byId("tokens").replaceChildren(...nodes);
  markTokens();
}

function tokenNode(row, position) {
  const token = report.tokens[row];
  const [piece, id] = [report.pieces[token], report.ids[token]];
  const number = report.classOf[row];
  const differs = !report.same[row];
  const label = `${visible(piece, id)}, ${facts.classes[number]}, base rank ${report.rank[row]}`
    + (differs ? ", argmax differs" : "");
  return el("span", {
    class: `token class${number}${differs ? " differs" : ""}`, role: "button", tabindex: "-1",
    "data-position": position, "aria-label": label, title: label,
  }, flowing(piece, id));
}

// What the filter and the selection say of the tokens that are there already.
function markTokens() {
  const from = report.starts[state.prompt];
  const nodes = byId("tokens").children;
  const dim = isFiltering();
  for (let position = 0; position < nodes.length; position++) {
    nodes[position].classList.toggle("miss", dim && !report.hit[from + position]);
    nodes[position].tabIndex = -1;
    nodes[position].removeAttribute("aria-current");
  }
  const current = nodes[state.position] ?? nodes[Math.max(0, nextHit(-1, 1))];
  if (current) current.tabIndex = 0;
  if (state.open && nodes[state.position]) nodes[state.position].setAttribute("aria-current", "true");
}

// The nearest token after (step 1) or before (step -1) a position that the filter keeps; -1: none.
function nextHit(position, step) {
  const [from, to] = [report.starts[state.prompt], report.starts[state.prompt + 1]];
  for (let at = position + step; at >= 0 && at < to - from; at += step) {
    if (report.hit[from + at]) return at;
  }
  return -1;
}

function tokenAt(position) {
  return byId("tokens").children[position];
}

function showLegend() {
  const [unshifted, marginal] = facts.lastRanks;
  const ranks = [
    unshifted === 1 ? "1" : `1–${unshifted}`, `${unshifted + 1}–${marginal}`, `> ${marginal}`,
  ];
  const entries = facts.classes.map((name, number) => el("span", {},
    el("span", { class: `token class${number}` }, name), ` base rank ${ranks[number]}`));
  entries.push(el("span", {}, el("span", { class: "token differs" }, "underlined"),
    " the two models would choose different tokens"));
  byId("legend").replaceChildren(...entries);
}
