// JSON as it is: coloured, one member a line, and not a digit of it lost.
import { html, pretty, t, useMemo, useState, visible } from "../kit.js";

/** Longer values are shown without colours, in characters. */
const COLOURED_MAX = 100_000;
/** Of the longest only so much is shown at first. */
const SHOWN_MAX = 200_000;

const TOKEN = /("(?:\\.|[^"\\])*")(: )?|-?\d[\d.eE+-]*|true|false|null/g;

function marked(text) {
  const parts = [];
  let from = 0;
  for (const { 0: whole, 1: string, 2: colon, index } of text.matchAll(TOKEN)) {
    const token = string ?? whole;
    const kind = colon ? "name" : string ? "string" : /[-\d]/.test(token[0]) ? "number" : "literal";
    parts.push(text.slice(from, index), html`<span class=${`json-${kind}`}>${visible(token)}</span>`);
    from = index + token.length;
  }
  return [...parts, text.slice(from)];
}

/** @param {{text: string, label: string}} props any text; what is no JSON is shown as it is */
export function Json({ text, label }) {
  const [whole, showWhole] = useState(false);
  const shown = whole ? text : text.slice(0, SHOWN_MAX);
  const content = useMemo(() => {
    if (text.length > COLOURED_MAX) return visible(shown);
    try {
      return marked(pretty(text));
    } catch {
      return visible(shown);
    }
  }, [text, shown]);
  return html`<div class="code" role="group" tabindex="0" aria-label=${label}>
    <pre>${content}</pre>
    ${shown.length < text.length &&
    html`<button type="button" class="button" onClick=${() => showWhole(true)}>${t("json.whole")}</button>`}
  </div>`;
}
