// Small charts, drawn by hand: stacked areas and lines over time, one cursor for all of them.

import { el, svg } from "./dom.js";
import { clock } from "./format.js";

const PAD = { left: 44, right: 4, top: 6, bottom: 18 };
const charts = [];
let pointed = null; // the share of the width that the pointer is at

/** Ticks that people like, at most `most` of them, from 0 to `top`. */
function ticks(top, most) {
  const rough = top / most;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * unit >= rough) * unit;
  const found = [];
  for (let at = 0; at <= top * 1.0001; at += step) found.push(at);
  return found;
}

const SCALES = {
  linear: (values) => {
    const top = Math.max(1, ...values) * 1.08;
    return { marks: ticks(top, 4), place: (value) => value / top };
  },
  share: () => ({ marks: [0, 0.25, 0.5, 0.75, 1], place: (value) => value }),
  log: (values) => {
    const real = values.filter((value) => value > 0);
    const low = Math.floor(Math.log10(Math.min(...real, 1e-3)));
    const high = Math.max(low + 2, Math.ceil(Math.log10(Math.max(...real, 1e-3))));
    const marks = [];
    for (let power = low; power <= high; power += 1) marks.push(10 ** power);
    return { marks, place: (value) => (Math.log10(Math.max(value, 10 ** low)) - low) / (high - low) };
  },
};

function path(points) {
  let drawn = "";
  let open = false;
  for (const [x, y] of points) {
    if (y === null) { open = false; continue; }
    drawn += `${open ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
    open = true;
  }
  return drawn;
}

export class Chart {
  /** `series`: {name, kind (colour), of (point -> number or null)}; `scale`: linear, share or log;
      `stacked` areas lie on each other, the first at the bottom. */
  constructor(parent, { title, unit, series, scale, stacked = false, format }) {
    Object.assign(this, { title, series, scale, stacked, format, points: [] });
    this.keys = series.map(() => el("b"));
    this.when = el("span", { class: "muted" }, unit);
    this.unit = unit;
    this.canvas = svg("svg", { role: "img" });
    const legend = el("span", { class: "keys" }, series.map(({ name, kind }, index) =>
      el("span", {}, el("i", { class: `s-${kind}` }), `${name} `, this.keys[index])));
    parent.append(el("figure", { class: "chart" }, el("figcaption", {}, el("h2", {}, title), this.when, legend), this.canvas));
    this.canvas.addEventListener("pointermove", (event) => {
      const box = this.canvas.getBoundingClientRect();
      point((event.clientX - box.left - PAD.left) / (box.width - PAD.left - PAD.right));
    });
    this.canvas.addEventListener("pointerleave", () => point(null));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    charts.push(this);
  }

  show(points) {
    this.points = points;
    this.draw();
  }

  draw() {
    const { width, height } = this.canvas.getBoundingClientRect();
    const { points } = this;
    if (width < 60 || points.length < 2) return;
    const right = width - PAD.right;
    const bottom = height - PAD.bottom;
    const x = (index) => PAD.left + (index / (points.length - 1)) * (right - PAD.left);
    const values = this.values();
    const { marks, place } = SCALES[this.scale](values.flat().filter((value) => value !== null));
    const y = (value) => bottom - place(value) * (bottom - PAD.top);
    const drawn = [];
    for (const mark of marks) {
      const at = Math.round(y(mark)) + 0.5;
      if (at < PAD.top - 1) continue;
      drawn.push(svg("line", { class: "grid", x1: PAD.left, x2: right, y1: at, y2: at }));
      drawn.push(svg("text", { x: PAD.left - 6, y: at + 3.5, "text-anchor": "end" }, this.format(mark)));
    }
    const steps = Math.max(2, Math.min(6, Math.floor((right - PAD.left) / 90)));
    for (let step = 0; step <= steps; step += 1) {
      const index = Math.round((step / steps) * (points.length - 1));
      const anchor = step === 0 ? "start" : step === steps ? "end" : "middle";
      const precise = points.at(-1).at - points[0].at < 200;
      drawn.push(svg("text", { x: x(index), y: height - 4, "text-anchor": anchor }, clock(points[index].at, precise)));
    }
    this.series.forEach(({ kind }, number) => drawn.push(...this.shapes(kind, number, values, x, y, bottom)));
    const index = this.pointed();
    if (pointed !== null) drawn.push(svg("line", { class: "cursor", x1: x(index), x2: x(index), y1: PAD.top, y2: bottom }));
    this.canvas.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.canvas.replaceChildren(...drawn);
    this.read(index);
  }

  /** Per series, the value at each point; stacked ones as the upper edge. */
  values() {
    const below = this.points.map(() => 0);
    return this.series.map(({ of }) => this.points.map((p, index) => {
      const value = of(p);
      if (!this.stacked) return value;
      below[index] += value || 0;
      return below[index];
    }));
  }

  shapes(kind, number, values, x, y, bottom) {
    const upper = values[number].map((value, index) => [x(index), value === null ? null : y(value)]);
    if (!this.stacked) {
      const shapes = [svg("path", { class: `line s-${kind}`, d: path(upper) })];
      if (this.series.length === 1 && upper.every(([, at]) => at !== null)) {
        const d = `${path(upper)}L${upper.at(-1)[0]} ${bottom}L${upper[0][0]} ${bottom}Z`;
        shapes.unshift(svg("path", { class: `area under s-${kind}`, d }));
      }
      return shapes;
    }
    const lower = this.points.map((_, index) => [x(index), number ? y(values[number - 1][index]) : bottom]);
    return [svg("path", { class: `area s-${kind}`, d: `${path(upper)}${path(lower.reverse()).replace("M", "L")}Z` })];
  }

  pointed() {
    const last = this.points.length - 1;
    return pointed === null ? last : Math.round(pointed * last);
  }

  read(index) {
    const at = this.points[index];
    if (!at) return;
    const told = this.series.map(({ of }) => { const value = of(at); return value === null ? "–" : this.format(value); });
    told.forEach((text, number) => { this.keys[number].textContent = text; });
    this.when.textContent = pointed === null ? this.unit : clock(at.at, true);
    this.canvas.setAttribute("aria-label", `${this.title}, now ${this.series.map(({ name }, n) => `${name} ${told[n]}`).join(", ")}`);
  }
}

function point(share) {
  pointed = share === null ? null : Math.max(0, Math.min(1, share));
  charts.forEach((chart) => chart.draw());
}

/** A wide point tells the worst p95 and p99 of its slots, and the p50 of the busiest: percentiles have no sum.
    The slots of history as evenly spaced points: `seconds` back from the last whole slot, `most` at most. */
export function points(history, step, now, seconds, most = 120) {
  const end = Math.floor(now / step) * step;
  const wide = Math.max(1, Math.ceil(seconds / step / most)) * step;
  const last = Math.floor(end / wide) * wide;
  const found = [];
  for (let at = last - Math.ceil(seconds / wide) * wide; at < last; at += wide) {
    const point = { at, requests: 0, hits: 0, passes: 0, errors: 0, bytes: 0, p50: null, p95: null, p99: null, seconds: wide };
    let heaviest = 0;
    for (let slot = at; slot < at + wide; slot += step) {
      const row = history.get(slot);
      if (!row) continue;
      for (const key of ["requests", "hits", "passes", "errors", "bytes"]) point[key] += row[key];
      if (row.requests > heaviest) { heaviest = row.requests; point.p50 = row.p50; }
      point.p95 = Math.max(point.p95 ?? 0, row.p95 ?? 0);
      point.p99 = Math.max(point.p99 ?? 0, row.p99 ?? 0);
    }
    found.push(point);
  }
  return found;
}
