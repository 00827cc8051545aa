// JSON as it is: coloured, one member a line, and not a digit of it lost.
import { html, useMemo, useState } from "../lib/view.js";
import { read } from "../lib/json.js";
import { visible } from "../lib/text.js";
import { t } from "../lib/i18n.js";

/** Longer values are shown without colours, in characters. */
const COLOURED_MAX = 100_000;
/** Of the longest only so much is shown at first. */
const SHOWN_MAX = 200_000;

const mark = (kind, text) => html`<span class=${`json-${kind}`}>${visible(text)}</span>`;

function drawn(text, node, indent) {
  const deeper = `${indent}  `;
  const list = (open, close, items) =>
    items.length
      ? [`${open}\n`, ...items.flatMap((item, at) => [deeper, ...item, at < items.length - 1 ? ",\n" : "\n"]), indent + close]
      : [open + close];
  if (node.type === "object") {
    return list("{", "}", node.members.map(({ name, value }) => [mark("name", JSON.stringify(name)), ": ", ...drawn(text, value, deeper)]));
  }
  if (node.type === "array") return list("[", "]", node.items.map((item) => drawn(text, item, deeper)));
  return [mark(node.type, text.slice(node.from, node.to))];
}

/** @param {{text: string, label: string}} props any text; what is no JSON is shown as it is */
export function Json({ text, label }) {
  const [whole, showWhole] = useState(false);
  const shown = whole ? text : text.slice(0, SHOWN_MAX);
  const content = useMemo(() => {
    if (text.length > COLOURED_MAX) return visible(shown);
    try {
      return drawn(text, read(text), "");
    } catch {
      return visible(shown);
    }
  }, [text, shown]);
  return html`<div class="code" role="region" tabindex="0" aria-label=${label}>
    <pre>${content}</pre>
    ${shown.length < text.length &&
    html`<button type="button" class="button" onClick=${() => showWhole(true)}>${t("json.whole")}</button>`}
  </div>`;
}
