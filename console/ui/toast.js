// Short notes of what was done, at the edge of the page.
import { html, Icon, IconButton, signal, t } from "../kit.js";

/** How long a note stays, in ms; one of a failure stays until it is closed. */
const SEEN_MS = 6_000;
const NOTES_MAX = 4;

const notes = signal([]);
let number = 0;

/** @param {string} text @param {"succeeded"|"failed"} [kind] @param {{href: string, text: string}} [link] */
export function toast(text, kind = "succeeded", link = null) {
  number += 1;
  const note = { key: number, text, kind, link };
  notes.value = [...notes.value, note].slice(-NOTES_MAX);
  if (kind !== "failed") setTimeout(() => close(note.key), SEEN_MS);
}

/** Says why something could not be done. */
export const toastError = (error) => toast([error.title, error.message].filter(Boolean).join(": "), "failed");

function close(key) {
  notes.value = notes.value.filter((note) => note.key !== key);
}

export const Toasts = () => html`<div class="toasts" role="status" aria-live="polite">
  ${notes.value.map(
    (note) => html`<div class="toast" key=${note.key} data-state=${note.kind}>
      <${Icon} name=${note.kind} />
      <span>${note.text}</span>
      ${note.link && html`<a href=${note.link.href}>${note.link.text}</a>`}
      <${IconButton} icon="close" label=${t("action.close")} onClick=${() => close(note.key)} />
    </div>`,
  )}
</div>`;
