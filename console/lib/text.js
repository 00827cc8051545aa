// Text that others have written: nothing in it may hide, reorder or colour what is around it.

// Control characters (but tab and line feed), marks that change the direction of text, and what has no width.
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]/g;

/** Makes the hidden visible: U+202E becomes `⟨202E⟩`. */
export const visible = (text) =>
  String(text).replace(HIDDEN, (letter) => `⟨${letter.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);

const ESCAPE = /\u001b(?:\[([0-9;:]*)([@-~])|\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[@-Z\\-_])|\u009b([0-9;:]*)([@-~])/g;

/** What the codes of an SGR sequence turn on; the ones that turn it off again are 22 and 24. */
const ON = { 1: "bold", 2: "dim", 4: "underline" };
const OFF = { 22: ["bold", "dim"], 24: ["underline"], 39: ["colour"] };

function styled(style, codes) {
  let next = { ...style };
  const numbers = (codes || "0").split(/[;:]/).map(Number);
  for (let at = 0; at < numbers.length; at += 1) {
    const code = numbers[at];
    if (code === 0) next = {};
    else if (ON[code]) next[ON[code]] = true;
    else if (OFF[code]) OFF[code].forEach((name) => delete next[name]);
    else if ((code >= 30 && code <= 37) || (code >= 90 && code <= 97)) next.colour = code % 10;
    // 256 or all colours: passed over with their numbers, since they may not be readable on ours.
    else if (code === 38 || code === 48) at += { 5: 2, 2: 4 }[numbers[at + 1]] ?? 0;
  }
  return next;
}

/**
 * A line of a log as parts with a style; other sequences of terminals are dropped.
 * @returns {{parts: {text: string, style: object}[], style: object}} and the style that goes on
 */
export function coloured(line, style = {}) {
  const parts = [];
  let from = 0;
  const push = (text) => {
    if (text) parts.push({ text: visible(text), style });
  };
  // A carriage return begins the line anew, as a progress bar does.
  const text = line.replace(/\r+$/, "");
  const shown = text.slice(text.lastIndexOf("\r") + 1);
  for (const found of shown.matchAll(ESCAPE)) {
    push(shown.slice(from, found.index));
    from = found.index + found[0].length;
    if ((found[2] ?? found[4]) === "m") style = styled(style, found[1] ?? found[3]);
  }
  push(shown.slice(from));
  return { parts, style };
}

export const classOf = (style) =>
  [
    style.bold && "ansi-bold",
    style.dim && "ansi-dim",
    style.underline && "ansi-underline",
    style.colour !== undefined && `ansi-${style.colour}`,
  ]
    .filter(Boolean)
    .join(" ");

/** The words of a command line, as a shell cuts them; null while a quote is open. */
export function words(line) {
  const found = [];
  let word = null;
  let quote = null;
  for (let at = 0; at < line.length; at += 1) {
    const letter = line[at];
    if (quote) {
      if (letter === quote) quote = null;
      else if (letter === "\\" && quote === '"' && /["\\$`]/.test(line[at + 1] ?? "")) word += line[(at += 1)];
      else word += letter;
    } else if (letter === "'" || letter === '"') {
      quote = letter;
      word ??= "";
    } else if (letter === "\\" && at + 1 < line.length) {
      word = (word ?? "") + line[(at += 1)];
    } else if (/\s/.test(letter)) {
      if (word !== null) found.push(word);
      word = null;
    } else {
      word = (word ?? "") + letter;
    }
  }
  if (quote) return null;
  if (word !== null) found.push(word);
  return found;
}

/** Whether a command line asks for what only a shell can do. */
export const needsShell = (line) => /[|&;<>()$`*?[\]#~{}\n]/.test(line.replace(/'[^']*'/g, "").replace(/\\./g, ""));
