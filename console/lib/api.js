// Speaks to the server's HTTP API.
import { urlOf } from "./base.js";
import { has, t } from "./i18n.js";
import { signal } from "./view.js";

/** Whether the server asks who we are. */
export const locked = signal(false);

/** What the server answered that it is, and as whom it sees us. */
export const capabilities = signal(null);

/** An answer that is no success, or none at all. */
export class ApiError extends Error {
  constructor(status, problem) {
    super(problem?.detail ?? "");
    this.status = status;
    this.code = problem?.code ?? (status ? "internal" : "unreachable");
    this.errors = problem?.errors ?? [];
  }

  /** In the words of the page; the server's own where they say more. */
  get title() {
    return has(`problem.${this.code}`) ? t(`problem.${this.code}`) : this.code;
  }
}

/** Sends a request, to a path of the API, of the server beside it (`/healthz`), or to a URL; answers the response if it is a success. */
export async function request(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path instanceof URL ? path : urlOf(path.startsWith("/") ? path.slice(1) : `api/v1/${path}`), options);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ApiError(0, { detail: "" });
  }
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => null);
  if (answer.status === 401) locked.value = true;
  throw new ApiError(answer.status, problem);
}

/** The text of an answer, for what must not lose a digit. */
export const getText = async (path, signal) => (await request(path, { signal })).text();

export const get = async (path, signal) => (await request(path, { signal })).json();

/** Sends a body: an object, or JSON that is text already. */
export async function send(method, path, body) {
  const text = body === undefined || typeof body === "string" ? body : JSON.stringify(body);
  const headers = text === undefined ? {} : { "content-type": "application/json" };
  const answer = await request(path, { method, headers, body: text });
  return answer.status === 204 ? null : answer.json();
}

/** A part of an address. */
export const part = encodeURIComponent;

/** Joins parameters; those without a value are left out. */
export function withParams(path, params) {
  const given = Object.entries(params).filter(([, value]) => value != null && value !== "");
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

export async function learnCapabilities() {
  capabilities.value = await get("capabilities");
  locked.value = false;
}

/** Whether who looks may also change something. */
export const mayOperate = () => {
  const seen = capabilities.value;
  return !!seen && !seen.read_only && (seen.caller.role === "operator" || seen.caller.role === "admin");
};
