// The life of the rules: what each has earned and what that suggests, the versions they had and the way back,
// and the set that is tried beside them.

import { call, quietly } from "./api.js";
import { byId, el, meter, pill } from "./dom.js";
import { count, octets, percent, span, whole } from "./format.js";

const day = (at) => new Date(at * 1000).toISOString().slice(0, 16).replace("T", " ");
const said = (text, kind = "") => el("p", { class: `said ${kind}` }, text);

// -- savings ---------------------------------------------------------------------------------------------

const FOUND = { query: "query parameters", header: "headers in the key", cookie: "cookies in the key", vary: "fields that answers vary on" };

function suggestion(name, at, why, line) {
  return el("li", {}, el("span", {}, el("b", {}, name), at ? el("small", { class: "muted mono" }, ` ${at}`) : "", ` ${why}`), line ? el("code", {}, line) : null);
}

async function savings() {
  const [told, split] = await Promise.all([quietly("api/savings"), quietly("api/doctor")]);
  const rows = Object.entries(told.rules).sort((a, b) => b[1].saved_seconds - a[1].saved_seconds);
  const most = rows.length ? rows[0][1].saved_seconds : 0;
  const head = ["Rule", "Origin time saved", "From the cache", "Nothing new", "Unread"];
  const body = rows.slice(0, 12).map(([name, row]) => {
    const watched = (row.read || 0) + (row.unread || 0);
    return el("tr", {}, el("th", { scope: "row" }, name),
      el("td", {}, meter(most ? row.saved_seconds / most : 0), span(row.saved_seconds)), el("td", {}, octets(row.saved_bytes)),
      el("td", {}, row.looks ? `${count(row.looks - row.changed)} of ${count(row.looks)}` : "–"),
      el("td", {}, watched ? percent(row.unread / watched) : "–"));
  });
  byId("savings-table").replaceChildren(
    el("thead", {}, el("tr", {}, head.map((title, index) => el("th", { scope: "col", class: index ? "" : "left" }, title)))),
    el("tbody", {}, body.length ? body : el("tr", {}, el("td", { class: "empty", colspan: head.length }, "Nothing yet: no rule has had a request."))));
  const ideas = rows.flatMap(([name, row]) => row.suggestions.map((one) => suggestion(name, row.at, one.why, one.line)));
  ideas.push(...split.findings.map(({ rule, kind, pairs, line }) => suggestion(rule.name, rule.at, `${FOUND[kind]} that made no difference: ${Object.keys(pairs).join(", ")}`, line)));
  byId("savings-ideas").replaceChildren(...(ideas.length ? ideas : [el("li", { class: "muted" }, "No change is suggested by what was seen so far.")]));
}

// -- versions --------------------------------------------------------------------------------------------

let asked = null; // the button that wants to be pressed again

/** A button that does what it says when it is pressed a second time. */
function twice(text, sure, work) {
  const button = el("button", { type: "button", class: "quiet small" }, text);
  button.addEventListener("click", async () => {
    if (asked !== button) {
      asked = button;
      button.textContent = sure;
      button.classList.replace("quiet", "danger");
      return;
    }
    asked = null;
    button.disabled = true;
    try {
      const done = await work();
      byId("life-result").replaceChildren(said(done.candidate ? `${done.candidate.version} answers for ${done.candidate.percent} % of the keys.` : `Rules version ${done.version} in force, ${whole(done.rules)} rules.`, "ok"));
    } catch (error) {
      byId("life-result").replaceChildren(said(error.message, "bad"));
    }
    await versions().catch(() => {});
  });
  button.addEventListener("blur", () => {
    if (asked !== button) return;
    asked = null;
    button.textContent = text;
    button.classList.replace("danger", "quiet");
  });
  return button;
}

function tried(told) {
  const { candidate, compared, differing, pairs } = told;
  const groups = pairs.slice(0, 6).map((pair) => el("li", {},
    el("span", {}, el("b", {}, pair.old.name === pair.new.name ? pair.new.name : `${pair.old.name} → ${pair.new.name}`), ` ${whole(pair.requests)} requests`),
    ...pair.changes.slice(0, 4).map((change) => el("code", {}, `${change.field}: ${change.old} → ${change.new}`)),
    pair.samples.length ? el("small", { class: "muted mono" }, pair.samples[0]) : null));
  const steps = [1, 10, 50, 100].filter((percentage) => percentage > candidate.percent);
  return [
    el("div", { class: "pills" }, pill(`${candidate.version} is tried`, "warn"), pill(candidate.percent ? `answers for ${candidate.percent} % of the keys` : "without effect"), candidate.by ? pill(`by ${candidate.by}`) : null),
    el("p", {}, `${whole(compared)} requests compared (one in ${candidate.sample}), ${whole(differing)} decided otherwise`),
    el("ul", { class: "ideas" }, groups),
    el("div", { class: "pills" },
      steps.map((percentage) => twice(`${percentage} %`, `Promote to ${percentage} %?`, () => call("api/rules/promote", { body: { percent: percentage, by: "page" } }))),
      twice("Give up", "Try it no more?", () => call("api/rules/rollback", { body: { by: "page" } }))),
  ];
}

async function versions() {
  const told = await quietly("api/rules/history");
  const differences = told.candidate ? await quietly("api/rules/shadow") : null;
  if (asked?.isConnected) return; // somebody is about to press it
  const present = told.versions.find((one) => one.in_force);
  const place = (one) => {
    if (one === present) return pill("in force", "ok");
    // What was brought back has a row for each time: there is nothing to bring back.
    if (one.version === present?.version) return el("small", {}, "the same rules");
    return twice("Bring back", `Bring ${one.version} back?`, () => call("api/rules/rollback", { body: { to: one.version, by: "page" } }));
  };
  const rows = told.versions.slice(-8).reverse().map((one) => el("tr", {},
    el("th", { scope: "row" }, el("span", { class: "mono" }, one.version), el("small", {}, `${day(one.at)}Z`)),
    el("td", { class: "left" }, one.how, one.by && el("small", {}, one.by)),
    el("td", {}, whole(one.rules)),
    el("td", {}, place(one))));
  byId("versions-table").replaceChildren(el("tbody", {}, rows));
  byId("versions-held").textContent = told.held ? `${told.held.version} holds until the rule files are edited` : "";
  byId("shadow").hidden = !differences;
  byId("shadow").replaceChildren(...(differences ? tried(differences) : []));
}

/** `unkept`: why no versions are kept, if none are. */
export async function refresh(unkept) {
  byId("versions-none").textContent = unkept || "";
  byId("versions-none").hidden = !unkept;
  await Promise.all([savings(), unkept ? null : versions()]);
}
