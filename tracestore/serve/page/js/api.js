// Asking the server: JSON, the token where one is needed, problems as errors, answers kept for the time of the visit.

import { h } from "./dom.js";

export class Problem extends Error {
  constructor(status, type, detail) {
    super(detail);
    this.status = status;
    this.type = type;
  }
}

const KEY = "tracestore-token";
const MOST_KEPT = 60;
const kept = new Map();

/** Ask for a path under /api; the answer is kept. */
export async function ask(path) {
  if (kept.has(path)) return kept.get(path);
  const answer = request(path);
  kept.set(path, answer);
  if (kept.size > MOST_KEPT) kept.delete(kept.keys().next().value);
  answer.catch(() => kept.delete(path));
  return answer;
}

/** Ask a named query. Parameters go in the body: addresses are written to logs, bodies are not. */
export async function query(name, params = {}) {
  const given = Object.fromEntries(Object.entries(params).filter(([, value]) => value !== "" && value !== null && value !== undefined));
  return request(`api/queries/${encodeURIComponent(name)}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(given),
  });
}

export const trace = (id) => ask(`api/traces/${encodeURIComponent(id)}`);
export const output = (id, part = "") => ask(`api/outputs/${encodeURIComponent(id)}${part}`);
export const catalogue = async () => (await ask("api/queries")).queries;

async function request(path, options = {}) {
  const token = sessionStorage.getItem(KEY);
  const headers = { Accept: "application/json", ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch {
    throw new Problem(0, "unreachable", "The server does not answer. Is tracestore serve still running?");
  }
  if (answer.status === 401) {
    await askForToken(Boolean(token));
    return request(path, options);
  }
  if (answer.ok) return answer.json();
  const told = await answer.json().catch(() => ({}));
  throw new Problem(answer.status, told.type ?? "", told.detail ?? `The server answered with ${answer.status}.`);
}

let asking = null;

function askForToken(wrong) {
  asking ??= new Promise((resolve) => {
    const field = h("input", { type: "password", id: "token", autocomplete: "off", required: true });
    const form = h("form", { method: "dialog" },
      h("h2", {}, "This server asks for its token"),
      wrong && h("p.problem", {}, "The token that was given is not the right one."),
      h("p.hint", {}, "It is in the file that was named with --token-file. The page keeps it until this tab is closed."),
      h("label.field", { htmlFor: "token" }, "Token", field),
      h("p", {}, h("button.main", { type: "submit" }, "Go on")));
    const dialog = h("dialog", { "aria-label": "Token" }, form);
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.addEventListener("close", () => {
      sessionStorage.setItem(KEY, field.value.trim());
      dialog.remove();
      asking = null;
      resolve();
    });
    document.body.append(dialog);
    dialog.showModal();
  });
  return asking;
}
