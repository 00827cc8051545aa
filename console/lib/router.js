// Addresses within the console, relative to where it is mounted.
import { withParams } from "./api.js";
import { signal } from "./view.js";

const base = () => new URL(document.baseURI).pathname;

function here() {
  const path = location.pathname.startsWith(base()) ? location.pathname.slice(base().length) : "";
  return { path: path.replace(/\/$/, ""), query: new URLSearchParams(location.search), state: history.state };
}

/** Where we are: the path without a slash at its beginning, and the query. */
export const place = signal(here());

/** Goes to an address of the console, such as `tasks?q=state:failed`. */
export function go(to, { replace = false, state = null } = {}) {
  const url = new URL(to || ".", document.baseURI);
  history[replace ? "replaceState" : "pushState"](state, "", url);
  place.value = here();
  if (!replace) scrollTo(0, 0);
}

/** The address of a page with parameters; those without a value are left out. */
export const address = (path, params = {}) => withParams(path, params) || ".";

/** Which of these patterns (`tasks/{id}`) an address is, and its parts. */
export function matched(patterns, path) {
  const steps = path.split("/");
  for (const pattern of patterns) {
    const wanted = pattern.split("/");
    if (wanted.length !== steps.length) continue;
    const parts = {};
    const fits = wanted.every((step, at) => {
      const name = /^\{(\w+)\}$/.exec(step)?.[1];
      if (!name) return step === steps[at];
      try {
        parts[name] = decodeURIComponent(steps[at]);
      } catch {
        return false;
      }
      return steps[at] !== "";
    });
    if (fits) return { pattern, parts };
  }
  return null;
}

/** Lets links within the console not load the page anew. */
export function startRouter() {
  addEventListener("popstate", () => (place.value = here()));
  document.addEventListener("click", (event) => {
    const anchor = event.target.closest?.("a[href]");
    const plain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
    if (!anchor || !plain || event.defaultPrevented || anchor.target || anchor.hasAttribute("download")) return;
    const url = new URL(anchor.href);
    const ours = url.origin === location.origin && url.pathname.startsWith(base()) && !anchor.dataset.outside;
    if (!ours || url.hash) return;
    event.preventDefault();
    go(url.href);
  });
}
