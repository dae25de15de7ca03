// The tables: rules (sortable), origins, recent errors, most wanted, and why answers do not come from the cache.

import { byId, el, meter, pill } from "./dom.js";
import { ago, count, octets, percent, span, time, whole } from "./format.js";

const COLUMNS = [
  { key: "name", title: "Rule", text: true },
  { key: "requests", title: "Requests" },
  { key: "rate", title: "per s" },
  { key: "hit_ratio", title: "Hit ratio" },
  { key: "p50", title: "p50" },
  { key: "p95", title: "p95" },
  { key: "p99", title: "p99" },
  { key: "errors", title: "5xx" },
  { key: "bytes", title: "Sent" },
  { key: "saved_seconds", title: "Origin time saved" },
];

let sorting = { key: "requests", descending: true };
let places = new Map(); // rule -> file:line
let last = null;

export const setPlaces = (rules) => { places = new Map(rules.map(({ name, at }) => [name, at])); };

function heading() {
  const cells = COLUMNS.map(({ key, title, text }) => {
    const sorted = sorting.key === key;
    const button = el("button", { type: "button" }, title);
    button.addEventListener("click", () => {
      sorting = { key, descending: sorted ? !sorting.descending : !text };
      byId("rules-table").replaceChildren();
      if (last) rules(last);
      byId("rules-table").querySelector(`[data-key="${key}"] button`).focus();
    });
    return el("th", { scope: "col", class: text ? "left" : "", "data-key": key, "aria-sort": sorted ? (sorting.descending ? "descending" : "ascending") : "none" }, button);
  });
  return el("thead", {}, el("tr", {}, cells));
}

function compare(a, b) {
  const [x, y] = [a[sorting.key], b[sorting.key]];
  const way = sorting.descending ? -1 : 1;
  if (sorting.key === "name") return way * x.localeCompare(y);
  if (x === null || y === null || x === undefined || y === undefined) return (x === null || x === undefined) - (y === null || y === undefined);
  return way * (x - y) || a.name.localeCompare(b.name);
}

function row(rule, seconds, className) {
  const idle = !rule.requests;
  return el("tr", { class: idle ? "idle" : className || "" },
    el("th", { scope: "row" }, rule.name, rule.at && el("small", {}, rule.at)),
    el("td", {}, whole(rule.requests)),
    el("td", {}, idle ? "–" : count(rule.requests / seconds)),
    el("td", {}, rule.hit_ratio === null ? (rule.passes ? "passed" : "–") : [meter(rule.hit_ratio), el("span", { class: "share" }, percent(rule.hit_ratio))]),
    el("td", {}, time(rule.p50)), el("td", {}, time(rule.p95)), el("td", {}, time(rule.p99)),
    el("td", {}, rule.errors ? pill(whole(rule.errors), "bad") : idle ? "–" : "0"),
    el("td", {}, idle ? "–" : octets(rule.bytes)),
    el("td", {}, idle ? "–" : span(rule.saved_seconds)));
}

export function rules(seen) {
  last = seen;
  const table = byId("rules-table");
  if (!table.tHead) table.append(heading(), el("tbody"));
  const seconds = seen.window_seconds;
  const told = new Map(seen.rules.map((rule) => [rule.name, rule]));
  const none = { requests: 0, hits: 0, passes: 0, errors: null, bytes: null, saved_seconds: null, hit_ratio: null, p50: null, p95: null, p99: null };
  const names = new Set([...told.keys(), ...places.keys()]);
  const rows = [...names].map((name) => {
    const at = places.get(name) || (name === "none" ? "no rule: plain HTTP caching" : "");
    const rule = { ...none, ...told.get(name), name, at };
    return { ...rule, rate: rule.requests / seconds };
  });
  rows.sort(compare);
  const body = rows.map((rule) => row(rule, seconds));
  body.push(row({ ...seen.all, name: "All rules", at: "" }, seconds, "all"));
  table.tBodies[0].replaceChildren(...body);
}

const STATES = { usable: "ok", "half-open": "warn" };

export function origins(seen) {
  const head = ["Origin", "State", "Asked", "Failed", "5xx", "Retries", "Opened", "Now", "Head after"];
  const rows = seen.origins.map((origin) => el("tr", {},
    el("th", { scope: "row" }, origin.origin, el("small", {}, origin.canary ? `${origin.pool}, canary ${origin.canary}` : origin.pool)),
    el("td", { class: "left" }, pill(origin.state, STATES[origin.state] || "bad"), origin.reason && el("small", {}, origin.reason)),
    el("td", {}, count(origin.requests)),
    el("td", {}, count(origin.failures)), el("td", {}, count(origin.errors)), el("td", {}, count(origin.retries)),
    el("td", {}, count(origin.breaker_opens)),
    el("td", {}, origin.queued ? `${origin.in_flight} + ${origin.queued}` : String(origin.in_flight)),
    el("td", {}, origin.requests ? time(origin.latency_seconds) : "–")));
  byId("origins-table").replaceChildren(
    el("thead", {}, el("tr", {}, head.map((title, index) => el("th", { scope: "col", class: index < 2 ? "left" : "" }, title)))),
    el("tbody", {}, rows.length ? rows : el("tr", {}, el("td", { class: "empty", colspan: head.length }, "No worker has told of an origin yet."))));
}

export function troubles(seen) {
  const table = byId("troubles-table");
  if (!seen.troubles.length) {
    table.replaceChildren(el("tbody", {}, el("tr", {}, el("td", { class: "empty" }, "None since the start. The origin answers, and so does the edge."))));
    return;
  }
  const head = ["Last", "Reason", "Client got", "Times", "Rule", "Example"];
  const rows = seen.troubles.map((one) => el("tr", {},
    el("td", { class: "left" }, ago(seen.now - one.last)),
    el("td", { class: "left" }, one.reason || "the origin’s own answer"),
    el("td", { class: "left" }, one.saved_by ? pill("stale answer", "warn") : pill(one.status || "nothing", "bad")),
    el("td", {}, whole(one.count)),
    el("td", { class: "left" }, one.rule),
    el("td", { class: "left wrap mono" }, `${one.method} ${one.url}`, el("small", {}, `request ${one.request_id}`))));
  table.replaceChildren(
    el("thead", {}, el("tr", {}, head.map((title, index) => el("th", { scope: "col", class: index === 3 ? "" : "left" }, title)))),
    el("tbody", {}, rows));
}

export function wanted(seen) {
  const list = byId("wanted-list");
  if (!seen.wanted.length) {
    list.replaceChildren(el("li", { class: "muted" }, el("span", {}, "Nothing has been answered from the cache yet.")));
    return;
  }
  const most = seen.wanted[0].weight;
  list.replaceChildren(...seen.wanted.slice(0, 10).map(({ url, rule, weight }) => el("li", {},
    el("span", { class: "mono", title: url }, url.replace(/^https?:\/\//, "")),
    el("span", { class: "muted" }, rule), meter(weight / most))));
}

const REASONS = [
  ["not_stored", "Answers not stored", "miss"],
  ["passes", "Requests passed without asking the cache", "pass"],
  ["lookup_misses", "Lookups that found nothing usable", "miss"],
  ["stale_served", "Stale answers served instead", "p50"],
  ["edge_answers", "Refused by the edge itself", "bad"],
];

export function reasons(seen) {
  const groups = [];
  for (const [key, title, kind] of REASONS) {
    const found = Object.entries(seen[key] || {}).sort((a, b) => b[1] - a[1]);
    if (!found.length) continue;
    const most = found[0][1];
    groups.push(el("h3", {}, title));
    for (const [reason, number] of found.slice(0, 6)) {
      groups.push(el("div", { class: "reason" }, el("span", {}, reason), meter(number / most, kind), el("span", {}, count(number))));
    }
  }
  byId("reasons-list").replaceChildren(...(groups.length ? groups : [el("p", { class: "muted" }, "Nothing yet: every request came from the cache, or there was none.")]));
}
