// Talks to the port that the page came from. The token stays in this tab (sessionStorage) and goes out as
// Authorization, to this origin alone; EventSource cannot send it, so events are read from a fetch.

const KEY = "edgeproxy-admin-token";

export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

let ask = async () => false; // shows the dialog; true once there is a token to try
export const onToken = (dialog) => { ask = dialog; };
export const hasToken = () => Boolean(sessionStorage.getItem(KEY));
export function setToken(token) {
  if (token) sessionStorage.setItem(KEY, token);
  else sessionStorage.removeItem(KEY);
}

async function request(path, options, token) {
  const headers = { Accept: "application/json", ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  return fetch(path, { ...options, headers, cache: "no-store", credentials: "omit", redirect: "error" });
}

async function problem(answer) {
  let detail = `${answer.status} ${answer.statusText}`;
  try { detail = (await answer.json()).detail || detail; } catch { /* not ours: the status says it */ }
  return new Refused(answer.status, detail);
}

/** One call. Where it is refused for want of a token, that is asked for, once; a token that was given while it was on its way is tried first. */
async function answered(path, options = {}) {
  const token = sessionStorage.getItem(KEY);
  const answer = await request(path, options, token);
  if (answer.status !== 401) return answer;
  const refused = await problem(answer);
  if (sessionStorage.getItem(KEY) === token && !(await ask(refused.message))) throw refused;
  return request(path, options, sessionStorage.getItem(KEY));
}

const posted = (body, headers = {}) => ({ method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json", ...headers } });

/** JSON of a call that nobody waits for: it never asks for a token. */
export async function quietly(path) {
  const answer = await request(path, {}, sessionStorage.getItem(KEY));
  if (!answer.ok) throw await problem(answer);
  return answer.json();
}

/** JSON of a call; `accept` are further statuses whose body is an answer. */
export async function call(path, { body, method, accept = [] } = {}) {
  const options = body === undefined ? { method } : posted(body);
  const answer = await answered(path, options);
  if (!answer.ok && !accept.includes(answer.status)) throw await problem(answer);
  return answer.json();
}

async function* pieces(answer, separator) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      held += value;
      const found = held.split(separator);
      held = found.pop();
      yield* found;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** The lines of a JSON lines answer, as they come. */
export async function* lines(path, body) {
  const answer = await answered(path, posted(body, { Accept: "application/x-ndjson" }));
  if (!answer.ok) throw await problem(answer);
  for await (const line of pieces(answer, "\n")) if (line) yield JSON.parse(line);
}

/** Server-sent events, each the JSON of its data, until the stream or `signal` ends. */
export async function* events(path, signal) {
  const answer = await answered(path, { headers: { Accept: "text/event-stream" }, signal });
  if (!answer.ok) throw await problem(answer);
  for await (const event of pieces(answer, "\n\n")) {
    const data = event.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6));
    if (data.length) yield JSON.parse(data.join("\n"));
  }
}
