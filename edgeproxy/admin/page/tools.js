// The forms: explain, purge (preview, then the purge with its receipt) and warm. What comes back is shown beside.

import { call, lines } from "./api.js";
import { byId, el, pill } from "./dom.js";
import { octets, span, whole } from "./format.js";

const said = (text, kind = "") => el("p", { class: `said ${kind}` }, text);
const show = (id, ...nodes) => byId(id).replaceChildren(...nodes.flat().filter(Boolean));
const field = (form, name) => form.elements[name].value.trim();
const fields = (text) => text.split("|").map((part) => part.trim()).filter(Boolean);

/** Run `work` for a submitted form: one at a time, and what goes wrong is told. */
function submitted(form, result, work) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button:not([type])");
    button.disabled = true;
    try {
      await work();
    } catch (error) {
      show(result, said(error.message, "bad"));
    } finally {
      button.disabled = false;
    }
  });
}

// -- explain ---------------------------------------------------------------------------------------------

function verdict({ explanation }) {
  const pills = [];
  if (explanation.decision === "pass") pills.push(pill(`passed: ${explanation.reason}`, "warn"));
  else if (explanation.stored) pills.push(pill(`stored for ${span(explanation.ttl)}`, "ok"));
  else pills.push(pill(`not stored: ${explanation.reason}`, "bad"));
  if (explanation.answer.assumed) pills.push(pill("of an assumed answer", "warn"));
  const { name, at } = explanation.rule;
  pills.push(pill(at === "built-in" ? "no rule" : `${name} (${at})`));
  explanation.tags.forEach((tag) => pills.push(pill(`tag ${tag}`)));
  return el("div", { class: "pills" }, pills);
}

function stored(entry) {
  if (!entry) return said("Nothing is stored for it now.");
  return entry.variants.map((variant) => {
    const pills = [
      variant.fresh ? pill(`in the cache, fresh for ${span(variant.ttl)}`, "ok") : pill(`in the cache, stale since ${span(-variant.ttl)}`, "warn"),
      pill(`age ${span(variant.age)}`), pill(`status ${variant.status}`), pill(octets(variant.length)), pill(`${whole(variant.hits)} hits`),
    ];
    Object.entries(variant.vary).forEach(([name, value]) => pills.push(pill(`${name}: ${value ?? "(none)"}`)));
    return el("div", { class: "pills" }, pills);
  });
}

async function explain(form) {
  const query = new URLSearchParams({ url: field(form, "url"), method: field(form, "method") });
  fields(field(form, "headers")).forEach((line) => query.append("header", line));
  fields(field(form, "answer")).forEach((line) => query.append("answer_header", line));
  const found = await call(`api/explain?${query}`);
  show("explain-result", verdict(found), stored(found.entry), el("pre", { tabindex: "0" }, found.text));
}

// -- purge -----------------------------------------------------------------------------------------------

const PURGES = {
  url: ["URL or path", "/api/pitches/1"],
  tag: ["Tag", "pitches"],
  prefix: ["Prefix of a URL or path", "/api/"],
  pattern: ["Pattern with *", "/api/*/comments"],
  all: ["", ""],
};

let previewed = null; // what the last preview was of: a purge is of that and nothing else

function order(form) {
  const kind = form.elements.kind.value;
  return { [kind]: kind === "all" ? true : field(form, "value"), soft: form.elements.soft.checked };
}

function counted({ objects, bytes }) {
  if (objects === "unknown") return "an unknown number of objects";
  const size = bytes === "unknown" ? "" : `, ${octets(bytes)}`;
  return `${whole(objects)} ${objects === 1 ? "object" : "objects"}${size}`;
}

const layers = (receipt) => el("div", { class: "pills" },
  Object.entries(receipt.layers).map(([layer, how]) => pill(`${layer}: ${how}`, how === "ok" ? "ok" : "bad")));

function changed() {
  previewed = null;
  byId("purge-now").disabled = true;
  byId("purge-now").textContent = "Purge";
}

async function preview(form) {
  changed();
  const wanted = order(form);
  const receipt = await call("api/cache/purge", { body: { ...wanted, dry_run: true }, accept: [503] });
  if (!receipt.layers) throw new Error(receipt.detail);
  previewed = wanted;
  const now = byId("purge-now");
  now.disabled = false;
  now.textContent = wanted.soft ? "Mark stale" : "Purge";
  show("purge-result", said(`${wanted.soft ? "Would be marked stale" : "Would go"}: ${counted(receipt)}.`), layers(receipt));
}

async function purge() {
  const wanted = previewed;
  changed();
  try {
    const receipt = await call("api/cache/purge", { body: wanted, accept: [503] });
    if (!receipt.layers) throw new Error(receipt.detail);
    const whole = Object.values(receipt.layers).every((how) => how === "ok");
    const what = receipt.kind === "all" ? "everything" : `${receipt.kind} ${receipt.value}`;
    const text = whole
      ? `Purge ${receipt.number}: ${what} is ${receipt.soft ? "stale" : "served no more"}.`
      : `Purge ${receipt.number} did not reach every layer: what is named below may still be served.`;
    show("purge-result", said(text, whole ? "ok" : "bad"), layers(receipt));
  } catch (error) {
    show("purge-result", said(error.message, "bad"));
  }
}

// -- warm ------------------------------------------------------------------------------------------------

let job = null;

function progress(told, news) {
  const results = Object.entries(told.results || {}).map(([word, number]) => pill(`${word} ${whole(number)}`, word === "failed" || word === "refused" ? "bad" : "ok"));
  const latest = news.slice(-6).map((one) => `${one.result.padEnd(12)} ${one.reason ? `(${one.reason}) ` : ""}${one.url}`);
  show("warm-result",
    el("progress", { max: told.total || 1, value: told.done || 0, "aria-label": "URLs done" }),
    said(`${told.state}: ${whole(told.done)} of ${told.total === null ? "?" : whole(told.total)} URLs`),
    el("div", { class: "pills" }, results), latest.length ? el("pre", {}, latest.join("\n")) : null);
}

async function warm(form) {
  const kind = form.elements.kind.value;
  const values = {
    urls: () => field(form, "urls").split("\n").map((line) => line.trim()).filter(Boolean),
    sitemap: () => field(form, "sitemap"),
    most_wanted: () => Number(field(form, "most_wanted")),
  };
  const told = { state: "running", total: null, done: 0, results: {} };
  const news = [];
  try {
    for await (const line of lines("api/cache/warm", { [kind]: values[kind](), rate: Number(field(form, "rate")) })) {
      if (line.job) {
        Object.assign(told, line.job);
        job = line.job.id;
      } else {
        Object.assign(told, { done: line.done, total: line.total });
        if (line.url) {
          news.push(line);
          told.results[line.result] = (told.results[line.result] || 0) + 1;
        }
      }
      byId("warm-stop").hidden = told.state !== "running";
      progress(told, news);
    }
  } finally {
    byId("warm-stop").hidden = true;
  }
}

// -- wiring ----------------------------------------------------------------------------------------------

export function start() {
  const [explaining, purging, warming] = ["explain-form", "purge-form", "warm-form"].map(byId);
  submitted(explaining, "explain-result", () => explain(explaining));
  submitted(purging, "purge-result", () => preview(purging));
  submitted(warming, "warm-result", () => warm(warming));
  purging.addEventListener("input", () => {
    changed();
    const kind = purging.elements.kind.value;
    const label = byId("purge-value");
    label.hidden = kind === "all";
    label.querySelector("[data-label]").textContent = PURGES[kind][0];
    purging.elements.value.placeholder = PURGES[kind][1];
  });
  byId("purge-now").addEventListener("click", purge);
  warming.addEventListener("input", () => {
    for (const label of warming.querySelectorAll("[data-for]")) label.hidden = label.dataset.for !== warming.elements.kind.value;
  });
  byId("warm-stop").addEventListener("click", () => {
    if (job) call(`api/cache/warm/${encodeURIComponent(job)}`, { method: "DELETE" }).catch((error) => show("warm-result", said(error.message, "bad")));
  });
}
