// Columns: gzip in base64, decoded when they are first asked for. Integers are in byte planes.

const facts = JSON.parse(document.getElementById("facts").textContent);
const decoded = new Map();

function hasColumn(name) {
  return decoded.has(name) || document.getElementById(`column:${name}`) !== null;
}

function column(name) {
  if (!decoded.has(name)) decoded.set(name, decode(document.getElementById(`column:${name}`)));
  return decoded.get(name);
}

async function decode(block) {
  const bytes = await unzipped(bytesOf(block.textContent));
  const kind = block.dataset.kind;
  block.remove(); // its text is needed no more
  if (kind === "json") return JSON.parse(new TextDecoder().decode(bytes));
  return joined(bytes, Number(kind[1]));
}

function bytesOf(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
  return bytes;
}

async function unzipped(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function joined(bytes, width) {
  if (width === 1) return bytes;
  const length = bytes.length / width;
  const values = width === 2 ? new Uint16Array(length) : new Uint32Array(length);
  for (let plane = 0; plane < width; plane++) {
    const from = plane * length;
    for (let i = 0; i < length; i++) values[i] |= bytes[from + i] << (8 * plane);
  }
  return values;
}

// A stored quantity in nats; a narrow column cannot reach 2**32 - 1, which is infinity.
function natsOf(stored) {
  return stored === 2 ** 32 - 1 ? Infinity : stored / 2 ** facts.natsBits;
}

const TOP_INFINITE = 2 ** 16 - 1;
const TOP_BEYOND = TOP_INFINITE - 1;

// The top tokens of one token under one side: [{token, probability, beyond}], likeliest first.
async function topTokens(side, prompt, row) {
  const chunk = Math.floor(prompt / facts.chunkPrompts);
  if (!hasColumn(`${side}.top.${chunk}`)) return [];
  const [tokens, steps, starts] = await Promise.all([
    column(`${side}.top.${chunk}`), column(`${side}.steps.${chunk}`), column("starts"),
  ]);
  const first = starts[chunk * facts.chunkPrompts];
  const rows = starts[Math.min((chunk + 1) * facts.chunkPrompts, starts.length - 1)] - first;
  const top = [];
  let below = 0;
  for (let at = row - first; at < tokens.length; at += rows) {
    below = (below + steps[at]) % 2 ** 16;
    const probability = below === TOP_INFINITE ? 0 : Math.exp(-below / 2 ** facts.topBits);
    top.push({ token: tokens[at], probability, beyond: below === TOP_BEYOND });
  }
  return top;
}
