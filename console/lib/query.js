// The query language of lists, as the server reads it: terms between blanks, quotes around blanks.

/** @returns {string[]} the terms, with their quotes */
export function terms(query) {
  return query.match(/(?:"[^"]*"?|[^\s"])+/g) ?? [];
}

const plain = (text) => text.replaceAll('"', "");

/** The value of the first term of this field. */
export function valueOf(query, field) {
  const term = terms(query).find((term) => term.startsWith(`${field}:`));
  return term && plain(term.slice(field.length + 1));
}

export const quoted = (value) => (/\s/.test(value) ? `"${plain(value)}"` : plain(value));

/** The query with another value of this field; without it if there is none. */
export function withTerm(query, field, value) {
  const rest = terms(query).filter((term) => !term.startsWith(`${field}:`));
  return (value ? [`${field}:${quoted(value)}`, ...rest] : rest).join(" ");
}

export const STATES = ["held", "waiting", "scheduled", "running", "exporting", "succeeded", "failed", "cancelled"];

const FIELDS = ["state:", "queue:", "kind:", "label.", "created:", "attempt:", "worker:", "error:", "payload.", "id:"];
const AGES = ["<5m", "<1h", "<24h", ">1h", ">24h"];
const SUGGESTIONS_MAX = 8;

/** What the word before the caret may become. @returns {{text: string, whole: string}[]} the words and the queries */
export function suggestions(query, caret, { queues = [], kinds = [] } = {}) {
  const before = query.slice(0, caret);
  const start = before.search(/(?:"[^"]*"?|[^\s"])*$/);
  const word = before.slice(start);
  const [, field, begun] = /^([\w.]+:)?(.*)$/s.exec(word);
  const values = {
    "state:": [...STATES, "retrying", "cancelling"],
    "queue:": queues,
    "kind:": kinds,
    "created:": AGES,
    "attempt:": [">1", ">2", "1"],
  };
  const found = field ? (values[field] ?? []).map((value) => field + quoted(value)) : FIELDS;
  return found
    .filter((text) => text.startsWith(word) && text !== word && (field || begun || !query.trim() || /\s$/.test(before)))
    .slice(0, SUGGESTIONS_MAX)
    .map((text) => {
      const space = /[:.]$/.test(text) ? "" : " ";
      return { text, whole: query.slice(0, start) + text + space + query.slice(caret).trimStart() };
    });
}
