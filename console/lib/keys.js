// The keyboard: single keys, and `g` with another.
import { signal } from "./view.js";
import { setting } from "./base.js";

/** How long `g` waits for its second key, in ms. */
const CHORD_MS = 1_500;

/** Single keys can be turned off, for those who speak to their computer. */
export const keysOn = signal(setting.get("keys") !== "off");

export function toggleKeys() {
  keysOn.value = !keysOn.value;
  setting.set("keys", keysOn.value ? null : "off");
}

const bindings = new Map();

/** Binds keys, as `{ "g t": action }`. Answers how to undo it. */
export function bind(keys) {
  const before = Object.keys(keys).map((key) => [key, bindings.get(key)]);
  for (const [key, action] of Object.entries(keys)) bindings.set(key, action);
  return () => {
    for (const [key, action] of before) {
      if (bindings.get(key) !== keys[key]) continue;
      if (action) bindings.set(key, action);
      else bindings.delete(key);
    }
  };
}

const typing = (element) =>
  element instanceof HTMLElement && (element.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(element.tagName));

const writes = (element) => typing(element) && !/^(checkbox|radio|button)$/.test(element.type);

let chord = null;

export function startKeys() {
  document.addEventListener("keydown", (event) => {
    if (!keysOn.value || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (writes(event.target) || document.querySelector("dialog[open]")) return;
    const key = chord && Date.now() - chord.at < CHORD_MS ? `${chord.key} ${event.key}` : event.key;
    chord = null;
    const action = bindings.get(key) ?? bindings.get(event.key);
    if (action) {
      // `false`: it does not concern what is there.
      if (action(event) !== false) event.preventDefault();
    } else if (event.key === "g") {
      chord = { key: "g", at: Date.now() };
    }
  });
}
