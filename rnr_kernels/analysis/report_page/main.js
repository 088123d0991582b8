// What is chosen, the keys, and the start.

const report = { pieces: [], ids: [], prompts: [], starts: [], tokens: [] };
const state = { base: 0, prompt: 0, position: -1, open: false };

async function chooseBase(base) {
  state.base = base;
  const side = `base${base}`;
  const [rank, same] = await Promise.all([column(`${side}.rank`), column(`${side}.same`)]);
  if (state.base !== base) return; // another has been chosen since
  const [unshifted, marginal] = facts.lastRanks;
  const classOf = Uint8Array.from(rank, (each) => (each > unshifted) + (each > marginal));
  Object.assign(report, { rank, same, classOf, meanKl: null });
  await prepareSort();
  byId("base").value = String(base);
  showOverview(base, choosePiece);
  applyFilter();
  showResponse();
  if (state.open) await showDetails();
  remember();
}

async function prepareSort() {
  if (filter.sort !== "kl" || report.meanKl) return;
  const { base } = state;
  const kl = await column(`base${base}.kl`);
  if (state.base !== base) return;
  report.meanKl = report.prompts.map((_, prompt) => {
    const [from, to] = [report.starts[prompt], report.starts[prompt + 1]];
    let sum = 0;
    for (let row = from; row < to; row++) sum += natsOf(kl[row]);
    return sum / Math.max(1, to - from);
  });
}

function choosePrompt(prompt, position = -1) {
  if (prompt === undefined) return;
  state.prompt = prompt;
  state.position = position;
  showResponse();
  if (state.open && position < 0) state.position = nextHit(-1, 1);
  if (state.open) openToken(state.position);
  scrollToPrompt(prompt);
  remember();
}

function focusToken(position) {
  if (position < 0) return;
  state.position = position;
  markTokens();
  tokenAt(position)?.focus();
  if (state.open) openToken(position);
}

function openToken(position) {
  if (position < 0 || !tokenAt(position)) return closeDetails();
  Object.assign(state, { position, open: true });
  markTokens();
  remember();
  return showDetails();
}

function closeDetails() {
  state.open = false;
  byId("details").hidden = true;
  document.documentElement.classList.remove("with-details");
  markTokens();
  tokenAt(state.position)?.focus();
  remember();
}

function moveToken(step) {
  focusToken(nextHit(state.position, step));
}

function movePrompt(step) {
  const onToken = document.activeElement?.closest?.("#tokens");
  choosePrompt(neighbour(step));
  if (onToken) focusToken(nextHit(-1, 1));
}

function choosePiece(text) {
  filter.classes = facts.classes.map((_, number) => number === facts.classes.length - 1);
  filter.token = `"${text}"`;
  byId("token-search").value = filter.token;
  refilter();
  if (!list.shown.includes(state.prompt)) choosePrompt(list.shown[0]);
  byId("explorer").scrollIntoView({ block: "start" });
}

function refilter() {
  applyFilter();
  filter.classes.forEach((on, number) => {
    byId("classes").querySelectorAll("button")[number].setAttribute("aria-pressed", String(on));
  });
  markTokens();
}

function remember() {
  const parts = [`base=${state.base}`, `prompt=${state.prompt + 1}`];
  if (state.open) parts.push(`token=${state.position + 1}`);
  history.replaceState(null, "", `#${parts.join("&")}`);
}

// What the address names, as far as it is there.
function remembered() {
  const named = new URLSearchParams(location.hash.slice(1));
  const number = (key, most) => {
    const value = Number(named.get(key) ?? NaN);
    return Number.isInteger(value) && value >= 0 && value <= most ? value : null;
  };
  return {
    base: number("base", facts.bases.length - 1) ?? 0,
    prompt: (number("prompt", report.prompts.length) || 1) - 1,
    position: (number("token", report.tokens.length) || 0) - 1,
  };
}

function toggleTheme() {
  const dark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "light" : "dark";
}

const KEYS = [
  ["←  →", "previous, next token that the filter keeps"],
  ["↑  ↓", "previous, next prompt"],
  ["Home  End", "first, last token"],
  ["Enter", "the token under both models"],
  ["Esc", "close; leave a field"],
  ["/", "search prompts and responses"],
  ["1  2  3", "show or dim a class"],
  ["t", "light or dark"],
  ["?", "this list"],
];

const ACTIONS = {
  ArrowLeft: () => moveToken(-1),
  ArrowRight: () => moveToken(1),
  ArrowUp: () => movePrompt(-1),
  ArrowDown: () => movePrompt(1),
  Home: () => focusToken(nextHit(-1, 1)),
  End: () => focusToken(nextHit(report.starts[state.prompt + 1] - report.starts[state.prompt], -1)),
  "/": () => byId("search").focus(),
  t: toggleTheme,
  "?": () => byId("keys").showModal(),
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("keys").open) return;
  const { target } = event;
  const typing = target.matches("input, select, textarea");
  if (event.key === "Escape") {
    if (typing) target.blur();
    else if (state.open) closeDetails();
    return;
  }
  if (typing || target.closest(".before")) return;
  const token = target.closest("#tokens .token");
  if (token && (event.key === "Enter" || event.key === " ")) {
    event.preventDefault();
    openToken(Number(token.dataset.position));
    return;
  }
  const action = ACTIONS[event.key] ?? classAction(event.key);
  if (!action) return;
  event.preventDefault();
  action();
}

function classAction(key) {
  const number = Number(key) - 1;
  return number in filter.classes ? () => toggleClass(number) : null;
}

function toggleClass(number) {
  filter.classes[number] = !filter.classes[number];
  refilter();
}

function listen() {
  document.addEventListener("keydown", onKey);
  byId("tokens").addEventListener("click", (event) => {
    const token = event.target.closest(".token");
    if (!token) return;
    token.focus();
    openToken(Number(token.dataset.position));
  });
  byId("rows").addEventListener("click", (event) => {
    const row = event.target.closest(".prompt-row");
    if (row) choosePrompt(Number(row.dataset.prompt));
  });
  byId("list").addEventListener("scroll", () => requestAnimationFrame(showRows), { passive: true });
  new ResizeObserver(showRows).observe(byId("list"));
  onInput("search", "input", (value) => { filter.prompt = value; });
  onInput("token-search", "input", (value) => { filter.token = value; });
  onInput("sort", "change", (value) => { filter.sort = value; return prepareSort(); });
  byId("base").addEventListener("change", (event) => chooseBase(Number(event.target.value)));
  byId("theme").addEventListener("click", toggleTheme);
  byId("keys-button").addEventListener("click", () => byId("keys").showModal());
  byId("previous").addEventListener("click", () => movePrompt(-1));
  byId("next").addEventListener("click", () => movePrompt(1));
}

function onInput(id, kind, take) {
  byId(id).addEventListener(kind, async (event) => {
    await take(event.target.value);
    refilter();
    byId("list").scrollTop = 0;
    showRows();
  });
}

function fillControls() {
  const numbers = `${count(facts.numPrompts, "response")}, ${count(facts.numTokens, "token")}`;
  byId("subtitle").textContent = `${facts.aligned} and what its base makes of it: ${numbers}`;
  byId("base").append(...facts.bases.map(({ name }, i) => el("option", { value: i }, name)));
  byId("classes").append(...facts.classes.map((name, number) => {
    const button = el("button", { type: "button", class: "chip", "aria-pressed": "true", title: `${number + 1}` },
      el("span", { class: `swatch fill${number}`, "aria-hidden": "true" }), ` ${name}`);
    button.addEventListener("click", () => toggleClass(number));
    return button;
  }));
  const close = el("button", { type: "button" }, "Close");
  close.addEventListener("click", () => byId("keys").close());
  byId("keys").append(el("h2", { id: "keys-title" }, "Keyboard"), el("dl", {},
    ...KEYS.flatMap(([key, text]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, text)])), close);
  byId("footer").textContent = "Classes after Lin et al. 2023. This file fetches nothing. Numbers "
    + "are rounded for display; exact values are in the Parquet table.";
  showLegend();
}

async function start() {
  const names = ["pieces", "ids", "prompts", "starts", "tokens"];
  const columns = await Promise.all(names.map(column));
  names.forEach((name, i) => { report[name] = columns[i]; });
  fillControls();
  const { base, prompt, position } = remembered();
  state.prompt = prompt;
  await chooseBase(base);
  listen();
  if (position >= 0 && tokenAt(position)) {
    await openToken(position);
  }
  scrollToPrompt(prompt);
  performance.mark("interactive");
  document.documentElement.dataset.ready = "true";
}

start().catch((error) => {
  const old = typeof DecompressionStream === "undefined";
  byId("failure").hidden = false;
  byId("failure").textContent = old
    ? "This browser cannot unpack the report: it needs Chrome 123, Firefox 120, Safari 17.5 or newer."
    : `The report could not be shown: ${error.message}`;
  throw error;
});
