// JSON without loss: numbers stay the text that they are, whatever their size.

const BLANK = /[ \t\n\r]*/y;
const STRING = /"(?:[^"\\\u0000-\u001f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*"/y;
const SCALAR = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null/y;
/** Deepest nesting that is read. */
const DEPTH_MAX = 200;

/**
 * A value and where it stands in its text.
 * @typedef {{type: "object"|"array"|"string"|"number"|"literal", from: number, to: number, text?: string,
 *   members?: {name: string, value: Node}[], items?: Node[]}} Node
 */

/** Reads JSON; throws a SyntaxError with the place. @returns {Node} */
export function read(text) {
  let at = 0;
  const match = (pattern) => {
    pattern.lastIndex = at;
    const found = pattern.exec(text);
    if (found) at = pattern.lastIndex;
    return found?.[0];
  };
  const fail = () => {
    const line = text.slice(0, at).split("\n");
    throw Object.assign(new SyntaxError(`${line.length}:${line.at(-1).length + 1}`), {
      line: line.length,
      column: line.at(-1).length + 1,
    });
  };
  const expect = (letter) => {
    match(BLANK);
    if (text[at] !== letter) fail();
    at += 1;
  };
  const string = () => {
    const found = match(STRING);
    if (found === undefined) fail();
    return JSON.parse(found);
  };
  function list(close, one) {
    at += 1;
    const found = [];
    match(BLANK);
    if (text[at] === close) {
      at += 1;
      return found;
    }
    for (;;) {
      found.push(one());
      match(BLANK);
      if (text[at] === close) break;
      expect(",");
    }
    at += 1;
    return found;
  }
  function value(depth) {
    match(BLANK);
    if (depth > DEPTH_MAX) fail();
    const from = at;
    if (text[at] === "{") {
      const members = list("}", () => {
        match(BLANK);
        const name = string();
        expect(":");
        return { name, value: value(depth + 1) };
      });
      return { type: "object", from, to: at, members };
    }
    if (text[at] === "[") return { type: "array", items: list("]", () => value(depth + 1)), from, to: at };
    if (text[at] === '"') return { type: "string", text: string(), from, to: at };
    const scalar = match(SCALAR);
    if (!scalar) fail();
    return { type: /[-\d]/.test(scalar[0]) ? "number" : "literal", text: scalar, from, to: at };
  }
  const whole = value(0);
  match(BLANK);
  if (at < text.length) fail();
  return whole;
}

/** The text of a member of an object, as it stands there. */
export function memberText(text, name) {
  const member = read(text).members?.find((member) => member.name === name);
  return member && text.slice(member.value.from, member.value.to);
}

/** The same value, one member a line. */
export function pretty(text, node = read(text), indent = "") {
  const deeper = `${indent}  `;
  const lines =
    node.type === "object"
      ? node.members.map(({ name, value }) => `${deeper}${JSON.stringify(name)}: ${pretty(text, value, deeper)}`)
      : node.type === "array"
        ? node.items.map((item) => deeper + pretty(text, item, deeper))
        : null;
  if (!lines) return text.slice(node.from, node.to);
  const [open, close] = node.type === "object" ? "{}" : "[]";
  return lines.length ? `${open}\n${lines.join(",\n")}\n${indent}${close}` : open + close;
}
