// What is filtered, and the list of prompts: only the rows in sight are in the document.

const ROW_HEIGHT = 58;
const SPARE_ROWS = 6;

const filter = { classes: facts.classes.map(() => true), token: "", prompt: "", sort: "order" };
const list = { shown: [], hits: null, searched: null };

function isFiltering() {
  return filter.token !== "" || filter.classes.includes(false);
}

// 1 for each piece whose text holds what is looked for; is it, where that stands in quotes.
function wantedPieces(query) {
  const exact = query.length > 2 && query.startsWith('"') && query.endsWith('"');
  const wanted = exact ? query.slice(1, -1) : query.toLowerCase();
  return Uint8Array.from(report.pieces, (piece, token) => {
    const forms = [piece, visible(piece, report.ids[token])];
    return forms.some((form) => exact ? form === wanted : form.toLowerCase().includes(wanted));
  });
}

function applyFilter() {
  const wanted = filter.token === "" ? null : wantedPieces(filter.token);
  const { tokens, classOf, starts } = report;
  report.hit = new Uint8Array(tokens.length);
  list.hits = new Uint32Array(report.prompts.length);
  for (let prompt = 0; prompt < list.hits.length; prompt++) {
    for (let row = starts[prompt]; row < starts[prompt + 1]; row++) {
      const hit = filter.classes[classOf[row]] && (wanted === null || wanted[tokens[row]]);
      report.hit[row] = hit;
      list.hits[prompt] += hit;
    }
  }
  list.shown = [...report.prompts.keys()].filter(isShown);
  sortPrompts();
  describeFound();
  byId("rows").style.height = `${list.shown.length * ROW_HEIGHT}px`;
  showRows();
}

function isShown(prompt) {
  if (isFiltering() && list.hits[prompt] === 0) return false;
  return filter.prompt === "" || searchedTexts()[prompt].includes(filter.prompt.toLowerCase());
}

// Instruction and response of each prompt, in lower case; made at the first search.
function searchedTexts() {
  list.searched ??= report.prompts.map((instruction, prompt) => {
    const [from, to] = [report.starts[prompt], report.starts[prompt + 1]];
    return `${instruction}\n${textOf(from, to)}`.toLowerCase();
  });
  return list.searched;
}

function textOf(from, to) {
  let text = "";
  for (let row = from; row < to; row++) text += report.pieces[report.tokens[row]];
  return text;
}

function sortPrompts() {
  if (filter.sort === "order") return;
  const shifted = facts.classes.length - 1;
  const key = filter.sort === "shifted"
    ? report.prompts.map((_, prompt) => sharesOf(prompt)[shifted])
    : report.meanKl;
  if (!key) return; // still being decoded
  list.shown.sort((a, b) => key[b] - key[a] || a - b);
}

function sharesOf(prompt) {
  const [from, to] = [report.starts[prompt], report.starts[prompt + 1]];
  const shares = facts.classes.map(() => 0);
  for (let row = from; row < to; row++) shares[report.classOf[row]]++;
  return shares.map((number) => number / Math.max(1, to - from));
}

function describeFound() {
  const prompts = count(list.shown.length, "prompt");
  const hits = list.shown.reduce((sum, prompt) => sum + list.hits[prompt], 0);
  byId("found").textContent = `${prompts}, ${count(hits, isFiltering() ? "hit" : "token")}`;
}

function showRows() {
  const host = byId("list");
  const first = Math.max(0, Math.floor(host.scrollTop / ROW_HEIGHT) - SPARE_ROWS);
  const last = Math.min(list.shown.length,
    Math.ceil((host.scrollTop + host.clientHeight) / ROW_HEIGHT) + SPARE_ROWS);
  const rows = [];
  for (let place = first; place < last; place++) rows.push(promptRow(place));
  byId("rows").replaceChildren(...rows);
  const current = byId(`prompt-${state.prompt}`);
  if (current) host.setAttribute("aria-activedescendant", current.id);
  else host.removeAttribute("aria-activedescendant");
}

function promptRow(place) {
  const prompt = list.shown[place];
  const shares = sharesOf(prompt);
  const shifted = shares.length - 1;
  const summary = isFiltering()
    ? count(list.hits[prompt], "hit")
    : `${percent(shares[shifted])} ${facts.classes[shifted]}`;
  const row = el("div", {
    class: "prompt-row", id: `prompt-${prompt}`, role: "option", "data-prompt": prompt,
    "aria-selected": String(prompt === state.prompt), "aria-posinset": place + 1,
    "aria-setsize": list.shown.length,
  },
  el("span", { class: "number" }, String(prompt + 1)),
  el("span", { class: "line", dir: "auto" }, report.prompts[prompt].slice(0, 200)),
  shareBar(shares), el("span", { class: "dim" }, summary));
  row.style.top = `${place * ROW_HEIGHT}px`;
  return row;
}

function scrollToPrompt(prompt) {
  const place = list.shown.indexOf(prompt);
  const host = byId("list");
  const top = place * ROW_HEIGHT;
  if (place >= 0 && (top < host.scrollTop || top + ROW_HEIGHT > host.scrollTop + host.clientHeight)) {
    host.scrollTop = top - (host.clientHeight - ROW_HEIGHT) / 2;
  }
  showRows();
}

// The next prompt of the list in a direction; the first where the current one is filtered out.
function neighbour(step) {
  const place = list.shown.indexOf(state.prompt);
  return place < 0 ? list.shown[0] : list.shown[place + step];
}
