// What is sent for what stands in the form: JSON text, so that numbers of any size stay as they were typed.
import { read } from "./json.js";
import { needsShell, words } from "./text.js";

/** A mistake in a field, as a key of the dictionary. */
export class FieldMistake extends Error {
  constructor(field, key, values = {}) {
    super(key);
    Object.assign(this, { field, key, values });
  }
}

/** JSON that was typed; refuses what is none. */
function typed(field, text) {
  try {
    read(text);
    return text.trim();
  } catch (error) {
    throw new FieldMistake(field, "submit.not_json", { line: error.line ?? 1, column: error.column ?? 1 });
  }
}

/** The words of a command; through a shell where only that understands it. */
export function argvOf(line) {
  if (needsShell(line)) return ["sh", "-c", line.trim()];
  return words(line);
}

/** `NAME=value` lines. */
function variables(field, text) {
  const found = {};
  for (const line of text.split("\n")) {
    if (!line.trim()) continue;
    const at = line.indexOf("=");
    if (at < 1) throw new FieldMistake(field, "submit.not_pair", { line: line.trim() });
    found[line.slice(0, at).trim()] = line.slice(at + 1);
  }
  return found;
}

const given = (object) => Object.fromEntries(Object.entries(object).filter(([, value]) => value !== "" && value !== undefined));
const filled = (object) => (Object.keys(object).length ? object : undefined);

/** What a payload may look like. */
export const TEMPLATES = {
  docker: '{\n  "image": "busybox:latest",\n  "cmd": ["echo", "hello"]\n}',
  http: '{\n  "preset": "push",\n  "url": "https://",\n  "input": {}\n}',
  other: "{}",
};

function commandPayload(values) {
  const argv = argvOf(values.command);
  if (!argv) throw new FieldMistake("command", "submit.open_quote");
  if (!argv.length) throw new FieldMistake("command", "submit.needed");
  return JSON.stringify(given({ argv, cwd: values.cwd, env: filled(variables("env", values.env)), stdin: values.stdin }));
}

/** The body of the request. Throws a `FieldMistake`. */
export function bodyOf(type, values) {
  const payload = type === "process" ? commandPayload(values) : typed("payload", values.payload);
  const kind = type === "other" ? values.kind.trim() : type;
  if (!kind) throw new FieldMistake("kind", "submit.needed");
  const rest = given({
    queue: values.queue.trim() === "default" ? "" : values.queue.trim(),
    priority: Number(values.priority) || undefined,
    timeout: values.timeout.trim(),
    delay: values.delay.trim(),
    retry: Number(values.attempts) > 1 ? { max_attempts: Number(values.attempts) } : undefined,
    labels: filled(variables("labels", values.labels)),
    held: values.held || undefined,
  });
  const more = JSON.stringify(rest).slice(1, -1);
  return `{"kind":${JSON.stringify(kind)},"payload":${payload}${more && `,${more}`}}`;
}

/** The same request from a command line. */
export const curlOf = (url, body) => `curl ${url} -H 'content-type: application/json' -d '${body.replaceAll("'", `'\\''`)}'`;
