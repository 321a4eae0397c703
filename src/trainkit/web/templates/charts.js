"use strict";
// Line charts in SVG. A chart has series {name, style, points: [[x, y], ...]}; it is drawn anew when they change.

const SVG = "http://www.w3.org/2000/svg";
const COLORS = ["--c0", "--c1", "--c2", "--c3", "--c4", "--c5"];
// Of validation and of training, for the first six runs, the next six, and so on.
const DASHES = [["none", "5 4"], ["16 3", "2 2"], ["9 3 2 3", "2 7"], ["9 3 2 3 2 3", "5 3 1 3"]];

function svg(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

// Round values that cover [low, high] in about `count` steps.
function ticks(low, high, count) {
  const span = high - low || Math.abs(high) || 1;
  const power = 10 ** Math.floor(Math.log10(span / count));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => span / size <= count) || 10 * power;
  const values = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-6; value += step) {
    values.push(Number(value.toPrecision(12)));
  }
  return values;
}

function short(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) return value.toExponential(1).replace("e+", "e");
  return String(Number(value.toPrecision(4)));
}

class Chart {
  constructor(title) {
    this.series = new Map();
    this.figure = document.createElement("figure");
    this.figure.className = "chart";
    this.caption = document.createElement("figcaption");
    this.caption.textContent = title;
    this.legend = document.createElement("ul");
    this.legend.className = "legend";
    this.picture = svg("svg", { viewBox: "0 0 480 260", role: "img", "aria-label": title });
    this.figure.append(this.caption, this.picture, this.legend);
    this.picture.addEventListener("pointermove", (event) => this.point(event));
    this.picture.addEventListener("pointerleave", () => { this.at = null; this.draw(); });
  }

  // The look of a curve: `place` chooses the color, and the dashes where the colors begin again.
  add(key, name, place, training) {
    const dashes = DASHES[Math.floor(place / COLORS.length) % DASHES.length][training ? 1 : 0];
    const style = { class: training ? "line train" : "line", stroke: `var(${COLORS[place % COLORS.length]})`, "stroke-dasharray": dashes };
    if (!this.series.has(key)) this.series.set(key, { name, style, points: [] });
    return this.series.get(key);
  }

  point(event) {
    const box = this.picture.getBoundingClientRect();
    this.at = ((event.clientX - box.left) / box.width) * 480;
    this.draw();
  }

  draw() {
    const shown = [...this.series.values()].filter((one) => one.points.length);
    const points = shown.flatMap((one) => one.points);
    this.picture.replaceChildren();
    this.figure.hidden = points.length === 0;
    if (!points.length) return;
    const [left, right, top, bottom] = [52, 468, 10, 232];
    const xs = points.map((point) => point[0]);
    const ys = points.map((point) => point[1]);
    let [x0, x1] = [Math.min(...xs, 0), Math.max(...xs)];
    const positive = ys.every((y) => y > 0);
    const log = positive && Math.max(...ys) / Math.min(...ys) > 50;
    const scale = log ? Math.log10 : (y) => y;
    let [y0, y1] = [Math.min(...ys.map(scale)), Math.max(...ys.map(scale))];
    if (x1 === x0) x1 = x0 + 1;
    if (y1 === y0) [y0, y1] = [y0 - Math.abs(y0) * 0.05 - 1e-9, y1 + Math.abs(y1) * 0.05 + 1e-9];
    const px = (x) => left + ((x - x0) / (x1 - x0)) * (right - left);
    const py = (y) => bottom - ((scale(y) - y0) / (y1 - y0)) * (bottom - top);
    for (const value of ticks(y0, y1, 5)) {
      if (log && !Number.isInteger(value) && y1 - y0 > 1.5) continue;
      const y = bottom - ((value - y0) / (y1 - y0)) * (bottom - top);
      this.picture.append(svg("line", { class: "grid", x1: left, x2: right, y1: y, y2: y }));
      this.picture.append(svg("text", { x: left - 6, y: y + 4, "text-anchor": "end" }, short(log ? 10 ** value : value)));
    }
    for (const value of ticks(x0, x1, 6)) {
      this.picture.append(svg("text", { x: px(value), y: bottom + 16, "text-anchor": "middle" }, short(value)));
    }
    for (const one of shown) {
      const path = one.points.map(([x, y], place) => `${place ? "L" : "M"}${px(x).toFixed(1)} ${py(y).toFixed(1)}`).join("");
      this.picture.append(svg("path", { ...one.style, d: path }));
      if (one.points.length === 1) {
        const [x, y] = one.points[0];
        this.picture.append(svg("circle", { cx: px(x), cy: py(y), r: 3, fill: one.style.stroke }));
      }
    }
    let at = null;
    if (this.at != null) {
      at = x0 + ((this.at - left) / (right - left)) * (x1 - x0);
      const x = Math.min(Math.max(this.at, left), right);
      this.picture.append(svg("line", { class: "hover", x1: x, x2: x, y1: top, y2: bottom }));
    }
    this.legend.replaceChildren(...shown.map((one) => this.entry(one, at)));
  }

  // Name of a series with its value where the pointer is, else with its last one.
  entry(one, at) {
    const item = document.createElement("li");
    const key = svg("svg", { viewBox: "0 0 48 12", "aria-hidden": "true" });
    key.append(svg("path", { ...one.style, d: "M0 6L48 6" }));
    let point = one.points[one.points.length - 1];
    if (at !== null) {
      for (const other of one.points) if (Math.abs(other[0] - at) < Math.abs(point[0] - at)) point = other;
    }
    const value = document.createElement("b");
    value.textContent = short(point[1]);
    item.append(key, `${one.name} `, value, at === null ? "" : ` at ${short(point[0])}`);
    return item;
  }
}
