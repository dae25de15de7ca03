// What fires now, what may soon, what is over, and whether the receivers took it. Hidden where nobody watches.

import { quietly } from "./api.js";
import { byId, el, pill } from "./dom.js";
import { ago, span } from "./format.js";

const KIND = { critical: "bad", warning: "warn" };

function row(one, now) {
  const when = one.over ? `over ${ago(now - one.over)}, lasted ${span(one.for)}` : one.fired ? `for ${span(one.for)}` : "may fire soon";
  return el("li", { class: one.over || !one.fired ? "alert past" : "alert" },
    pill(one.over ? "over" : one.severity, one.over || !one.fired ? "" : KIND[one.severity]),
    el("div", {}, el("p", {}, el("b", {}, one.alert), " ", el("span", { class: "muted" }, when)), el("p", {}, one.summary),
      one.fired && !one.over ? el("details", {}, el("summary", {}, "What to do"), el("p", {}, one.runbook)) : null));
}

function standing(one, now) {
  if (one.hangs || one.said) return [`${one.receiver}: ${one.said}`, "bad"];
  return [`${one.receiver}: ${one.sent ? `told ${ago(now - one.sent)}` : "told nothing yet"}`, one.sent ? "ok" : ""];
}

let shown = "";

export async function refresh() {
  const told = await quietly("api/alerts");
  byId("alerts-card").hidden = !told.watching;
  if (!told.watching) return 0;
  const { now } = told;
  const rows = [...told.firing, ...told.pending, ...told.over.slice(0, 3)];
  // Every few seconds the times change: what is open stays open unless something else did.
  const what = JSON.stringify([rows.map((one) => [one.alert, one.severity, one.labels, one.fired, one.over]), told.receivers.map((one) => [one.said, one.sent])]);
  if (what !== shown || !byId("alerts-list").querySelector("details[open]")) {
    shown = what;
    const quiet = told.firing.length ? [] : [el("li", { class: "muted" }, told.looked ? "Nothing fires." : "Nothing has been looked at yet.")];
    byId("alerts-list").replaceChildren(...quiet, ...rows.map((one) => row(one, now)));
    byId("alerts-receivers").replaceChildren(...told.receivers.map((one) => pill(...standing(one, now))));
  }
  return told.firing.length;
}
