// Curves by position, drawn as SVG: a line for each base, with its band.

const WIDTH = 340;
const HEIGHT = 220;
const EDGE = { left: 42, right: 10, top: 10, bottom: 38 };
const NUM_COLOURS = 6;

// A scale from [low, high] to pixels, by logarithm or linearly, with its ticks.
function scale(low, high, from, to, log) {
  const place = log ? Math.log : (x) => x;
  const span = place(high) - place(low) || 1;
  return {
    at: (value) => from + ((place(value) - place(low)) / span) * (to - from),
    back: (pixel) => {
      const x = place(low) + ((pixel - from) / (to - from)) * span;
      return log ? Math.exp(x) : x;
    },
    ticks: log ? logTicks(low, high) : linearTicks(low, high),
  };
}

function logTicks(low, high) {
  const steps = high / low > 1000 ? [1] : [1, 2, 5];
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); 10 ** power <= high; power++) {
    for (const step of steps) {
      const tick = step * 10 ** power;
      if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push(tick);
    }
  }
  return ticks;
}

function linearTicks(low, high) {
  const rough = (high - low) / 4 || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((each) => each * power >= rough) * power;
  const ticks = [];
  for (let n = Math.ceil(low / step); n * step <= high * 1.001; n++) ticks.push(n * step);
  return ticks;
}

// One chart of every base's curve of that name; the chosen base's is drawn last and thickest.
function chart(name, chosen) {
  const label = facts.curves[name];
  const lines = facts.bases.map((base, number) => ({
    number, name: base.name, count: base.curves.count, ...base.curves[name],
  }));
  const axes = axesOf(lines, name);
  const picture = svg("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": described(label, lines[chosen]),
  });
  picture.append(...grid(axes, label));
  for (const line of [...lines.filter((each) => each.number !== chosen), lines[chosen]]) {
    picture.append(...drawn(line, axes, line.number === chosen));
  }
  const readout = el("figcaption", {}, label);
  followPointer(picture, readout, axes, label, lines[chosen]);
  return el("figure", { "data-curve": name }, picture, readout);
}

function axesOf(lines, name) {
  const log = name === "base_rank";
  const values = lines
    .flatMap((line) => [line.mean, line.low ?? [], line.high ?? []].flat())
    .filter((value) => value !== null);
  const longest = Math.max(2, ...lines.map((line) => line.mean.length));
  const low = log ? 1 : 0;
  const largest = values.reduce((most, value) => Math.max(most, value), log ? 2 : 0);
  const high = name === "base_probability" ? 1 : largest || 1;
  return {
    x: scale(1, longest, EDGE.left, WIDTH - EDGE.right, true),
    y: scale(low, high, HEIGHT - EDGE.bottom, EDGE.top, log),
  };
}

function described(label, line) {
  const points = [1, 2, 5, 10, 20, 50, 100, 200, 500]
    .filter((position) => position <= line.mean.length && line.mean[position - 1] !== null)
    .map((position) => `${short(line.mean[position - 1])} at token ${position}`);
  return `${label} by position, ${line.name}: ${points.join(", ") || "no values"}`;
}

function grid({ x, y }, label) {
  const bottom = HEIGHT - EDGE.bottom;
  const parts = [svg("line", { class: "axis", x1: EDGE.left, x2: WIDTH - EDGE.right, y1: bottom, y2: bottom })];
  for (const tick of y.ticks) {
    const at = y.at(tick);
    parts.push(svg("line", { class: "grid", x1: EDGE.left, x2: WIDTH - EDGE.right, y1: at, y2: at }));
    parts.push(svg("text", { x: EDGE.left - 6, y: at + 4, class: "end" }, short(tick)));
  }
  for (const tick of x.ticks) {
    parts.push(svg("text", { x: x.at(tick), y: bottom + 16, class: "middle" }, short(tick)));
  }
  parts.push(svg("text", { x: WIDTH - EDGE.right, y: HEIGHT - 5, class: "end" }, "response token"));
  return parts;
}

function drawn(line, axes, isChosen) {
  const colour = `line${line.number % NUM_COLOURS}`;
  const parts = [];
  if (isChosen && line.low) {
    parts.push(svg("path", { class: `band ${colour}`, d: bandPath(line, axes) }));
  }
  const path = linePath(line.mean, axes);
  parts.push(svg("path", { class: `curve ${colour}${isChosen ? " chosen" : ""}`, d: path }));
  return parts;
}

function point({ x, y }, index, value) {
  return `${x.at(index + 1).toFixed(1)} ${y.at(value).toFixed(1)}`;
}

// A value that JSON has no number for interrupts the line.
function linePath(values, axes) {
  let pen = "M";
  return values.map((value, index) => {
    const part = value === null ? "" : `${pen}${point(axes, index, value)}`;
    pen = value === null ? "M" : "L";
    return part;
  }).join("");
}

function bandPath(line, axes) {
  const places = line.low.map((_, index) => index).filter((i) => line.low[i] !== null);
  const there = places.map((i) => point(axes, i, line.high[i]));
  const back = places.map((i) => point(axes, i, line.low[i])).reverse();
  return there.length ? `M${[...there, ...back].join("L")}Z` : "";
}

function followPointer(picture, readout, axes, label, line) {
  const cursor = svg("line", { class: "cursor", y1: EDGE.top, y2: HEIGHT - EDGE.bottom, hidden: "" });
  picture.append(cursor);
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const pixel = ((event.clientX - box.left) / box.width) * WIDTH;
    const position = Math.max(1, Math.min(line.mean.length, Math.round(axes.x.back(pixel))));
    cursor.removeAttribute("hidden");
    setAttributes(cursor, { x1: axes.x.at(position), x2: axes.x.at(position) });
    readout.textContent = reading(label, line, position - 1);
  });
  picture.addEventListener("pointerleave", () => {
    cursor.setAttribute("hidden", "");
    readout.textContent = label;
  });
}

function reading(label, line, index) {
  const value = line.mean[index];
  const band = line.low && line.low[index] !== null
    ? ` (${short(line.low[index])} to ${short(line.high[index])})` : "";
  const number = value === null ? "infinite" : short(value) + band;
  return `Token ${index + 1}: ${label} ${number}; ${count(line.count[index], "response")}`;
}
