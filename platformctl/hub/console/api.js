// The control API. The token is in sessionStorage alone: this tab, until it is closed.

const ROOT = new URL("../api/v1/", document.baseURI);
const KEY = "platformctl.token";
const TIMEOUT_MS = 10000;
const seen = new Map(); // path -> {tag, body}: what If-None-Match spares us

export class ApiError extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `the hub answered ${status}`);
    this.status = status;
    this.code = problem.code || "";
    this.hint = problem.hint || "";
  }
  get whole() { return this.hint ? `${this.message}. ${this.hint}` : this.message; }
}

export const hasToken = () => Boolean(sessionStorage.getItem(KEY));
export function setToken(token) {
  seen.clear();
  if (token) sessionStorage.setItem(KEY, token);
  else sessionStorage.removeItem(KEY);
}

/** One request. Returns the parsed body; raises ApiError for an answer, TypeError or DOMException for none. */
export async function call(path, { method = "GET", body } = {}) {
  const headers = new Headers({ accept: "application/json" });
  const token = sessionStorage.getItem(KEY);
  if (token) headers.set("authorization", `Bearer ${token}`);
  if (body !== undefined) headers.set("content-type", "application/json");
  const known = method === "GET" ? seen.get(path) : undefined;
  if (known) headers.set("if-none-match", known.tag);
  const answer = await fetch(new URL(path, ROOT), {
    method, headers, body: body === undefined ? undefined : JSON.stringify(body),
    cache: "no-store", credentials: "same-origin", redirect: "error", signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  if (answer.status === 304 && known) return known.body;
  if (!answer.ok) throw new ApiError(answer.status, await answer.json().catch(() => ({})));
  if (answer.status === 204) return null;
  const parsed = await answer.json();
  const tag = answer.headers.get("etag");
  if (method === "GET" && tag) seen.set(path, { tag, body: parsed });
  return parsed;
}

/** A whole list, page after page. */
export async function list(name) {
  const items = [];
  let next = null;
  do {
    const page = await call(`${name}?limit=1000${next ? `&continue=${encodeURIComponent(next)}` : ""}`);
    items.push(...page.items);
    next = page.next;
  } while (next);
  return items;
}
