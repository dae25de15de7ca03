// The page: follows the events, hands what they say to tiles, charts and tables, and asks for a token.

import * as alerts from "./alerts.js";
import * as api from "./api.js";
import { Chart, points } from "./charts.js";
import { byId, el } from "./dom.js";
import { count, octets, percent, span, time, whole } from "./format.js";
import * as life from "./life.js";
import * as tables from "./tables.js";
import * as tools from "./tools.js";

const HOUR = 3600;
const SLOW = 10; // seconds
const history = new Map(); // start of a slot -> its numbers
let seen = null; // the latest event, with the latest tables
let paused = false;
let version = "";
let unkept = ""; // why no versions of the rules are kept
let asked = 0; // when the slower questions were last asked

// -- charts and tiles ------------------------------------------------------------------------------------

const inCache = (p) => p.requests - p.passes;
const rate = (of) => (p) => Math.max(0, of(p)) / p.seconds;
const charts = [
  new Chart(byId("charts"), {
    title: "Requests", unit: "/s", scale: "linear", stacked: true, format: count,
    series: [
      { name: "hits", kind: "hit", of: rate((p) => p.hits) },
      { name: "misses", kind: "miss", of: rate((p) => inCache(p) - p.hits) },
      { name: "passed", kind: "pass", of: rate((p) => p.passes) },
    ],
  }),
  new Chart(byId("charts"), {
    title: "Hit ratio", unit: "of those that asked the cache", scale: "share", format: percent,
    series: [{ name: "", kind: "hit", of: (p) => (inCache(p) > 0 ? Math.min(1, p.hits / inCache(p)) : null) }],
  }),
  new Chart(byId("charts"), {
    title: "Latency", unit: "", scale: "log", format: time,
    series: [
      { name: "p50", kind: "p50", of: (p) => p.p50 },
      { name: "p95", kind: "p95", of: (p) => p.p95 },
      { name: "p99", kind: "p99", of: (p) => p.p99 },
    ],
  }),
];

const TILES = [
  { key: "hit_ratio", title: "Hit ratio" }, { key: "rate", title: "Requests a second" },
  { key: "p95", title: "Latency, p95" }, { key: "errors", title: "Answers 5xx" },
  { key: "saved", title: "Origin time saved" }, { key: "memory", title: "Memory (L1)" },
].map((tile) => {
  const value = el("dd", {}, "–");
  const note = el("p", {}, "\u00a0");
  const node = el("div", { class: "tile", "data-tile": tile.key }, el("dl", {}, el("dt", {}, tile.title), value), note);
  byId("tiles").append(node);
  return { ...tile, node, value, note };
});

function tile(key, value, note, bad = false) {
  const found = TILES.find((one) => one.key === key);
  found.value.textContent = value;
  found.note.textContent = note || "\u00a0";
  found.node.classList.toggle("bad", bad);
}

/** Requests a second over the last whole slot and the one going on. */
function present() {
  const slot = Math.floor(seen.now / seen.step) * seen.step;
  const requests = [slot - seen.step, slot].reduce((sum, at) => sum + (history.get(at)?.requests || 0), 0);
  return requests / (seen.step + seen.now - slot);
}

function draw() {
  const { all, store, window_seconds: seconds } = seen;
  charts.forEach((chart) => chart.show(points(history, seen.step, seen.now, seconds)));
  const over = `over ${seconds < HOUR ? `${seconds / 60} min` : "1 hour"}`;
  tile("hit_ratio", percent(all.hit_ratio), `${count(all.hits)} of ${count(all.requests - all.passes)} ${over}`);
  tile("rate", count(present()), `${count(all.requests)} ${over}`);
  tile("p95", time(all.p95), `p50 ${time(all.p50)}, p99 ${time(all.p99)}`);
  const share = all.requests ? all.errors / all.requests : 0;
  tile("errors", whole(all.errors), all.requests ? `${percent(share)} of all ${over}` : "", all.errors > 0);
  tile("saved", span(all.saved_seconds), `${octets(all.bytes)} sent ${over}`);
  tile("memory", octets(store?.l1_bytes), store ? `of ${octets(store.l1_max_bytes)}, ${count(store.l1_entries)} objects` : "");
}

function drawTables() {
  tables.rules(seen);
  tables.origins(seen);
  tables.troubles(seen);
  tables.wanted(seen);
  tables.reasons(seen);
  const node = seen.node ? `${seen.node.workers_ready} of ${seen.node.workers} workers` : "one worker";
  document.querySelector("[data-span]").textContent = `over the last ${{ "1m": "minute", "5m": "5 minutes", "1h": "hour" }[seen.window]}`;
  byId("about").textContent = `${location.host}, up ${span(seen.uptime_seconds)}`;
  const l2 = seen.store?.l2 === "none" ? "no shared store" : `shared store ${seen.store?.l2_name || ""} ${seen.store?.l2 || ""}`;
  byId("foot").textContent = `edgeproxy ${seen.version || ""}, ${node}, ${whole(seen.connections)} connections, ${whole(seen.websockets?.open)} WebSockets, ${l2}`;
}

function state(text, kind) {
  byId("state").textContent = text;
  byId("state").className = `pill ${kind}`;
}

// -- following -------------------------------------------------------------------------------------------

function take(event) {
  for (const row of event.history) history.set(row.at, row);
  for (const at of history.keys()) if (at < event.now - HOUR - 60) history.delete(at);
  seen = { ...seen, ...event };
  if (paused) return;
  const down = (seen.origins || []).filter((origin) => origin.state !== "usable").length;
  if (seen.state !== "ready") state(seen.state, "warn");
  else if (down) state(`${down} of ${seen.origins.length} origins out`, "bad");
  else state("serving", "ok");
  draw();
  if (event.rules) drawTables();
  if (seen.now - asked >= SLOW) {
    asked = seen.now;
    slowly();
  }
}

/** What changes seldom or costs more: each for itself, and what is wrong the stream says. */
async function slowly() {
  alerts.refresh().catch(() => {});
  await rules();
  life.refresh(unkept).catch(() => {});
}

async function rules() {
  try {
    const told = await api.quietly("api/rules");
    unkept = told.unkept;
    if (told.version === version) return;
    version = told.version;
    tables.setPlaces(told.rules);
    if (seen) tables.rules(seen);
  } catch { /* the stream says what is wrong */ }
}

let following = null;

async function follow() {
  following?.abort();
  const mine = new AbortController();
  following = mine;
  let pause = 1;
  while (!mine.signal.aborted) {
    try {
      const window = document.querySelector("input[name=window]:checked").value;
      history.clear();
      let first = true;
      for await (const event of api.events(`api/events?window=${window}`, mine.signal)) {
        byId("trouble").hidden = true;
        pause = 1;
        if (first) asked = 0;
        first = false;
        take(event);
      }
    } catch (error) {
      if (mine.signal.aborted) return;
      if (error instanceof api.Refused) byId("trouble").textContent = error.message;
      if (error.status === 401) { // asking again by ourselves would put the dialog in the way
        state("locked", "bad");
        byId("trouble").hidden = false;
        return;
      }
    }
    if (mine.signal.aborted) return;
    state("connection lost", "bad");
    if (!byId("trouble").textContent) byId("trouble").textContent = "The admin port does not answer. Trying again.";
    byId("trouble").hidden = false;
    await new Promise((resolve) => { setTimeout(resolve, pause * 1000); });
    pause = Math.min(10, pause * 2);
    byId("trouble").textContent = "";
  }
}

// -- the token -------------------------------------------------------------------------------------------

function askToken(why) {
  const dialog = byId("token-dialog");
  const form = byId("token-form");
  byId("token-why").textContent = why;
  form.reset();
  if (dialog.open) return Promise.resolve(false);
  dialog.showModal();
  return new Promise((resolve) => {
    const done = (event) => {
      event.preventDefault();
      const token = form.elements.token.value.trim();
      const used = event.type === "submit";
      if (used) api.setToken(token);
      dialog.close();
      form.removeEventListener("submit", done);
      dialog.removeEventListener("cancel", done);
      byId("token-cancel").removeEventListener("click", done);
      resolve(used && Boolean(token));
    };
    form.addEventListener("submit", done);
    dialog.addEventListener("cancel", done);
    byId("token-cancel").addEventListener("click", done);
  });
}

api.onToken(askToken);
byId("token").addEventListener("click", async () => {
  const why = api.hasToken() ? "This tab has a token. Another one takes its place; an empty one forgets it." : "Purging and warming up need it.";
  if (await askToken(why)) follow();
});
byId("windows").addEventListener("change", follow);
byId("pause").addEventListener("click", () => {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  byId("pause").textContent = paused ? "Go on" : "Pause";
  if (paused) state("paused", "warn");
});

tools.start();
follow();
setInterval(rules, 15000);
