// The lines of a log, as pieces of its two streams come in.
import { coloured } from "./text.js";

/** Most lines that are kept; the oldest go first. */
export const LINES_MAX = 20_000;
/** A longer line is cut in two, lest one without an end fill the page. */
const LINE_LETTERS_MAX = 8_000;

/** @typedef {{key: number, stream: "stdout"|"stderr", raw: string, open: boolean, style: object}} Line */

export class LogLines {
  /** @type {Line[]} */
  lines = [];
  dropped = false;
  #next = 0;
  #before = -1;
  /** The line of each stream that has no end yet. */
  #open = {};

  /** Takes what a stream has written after what came before. */
  append(stream, text) {
    let style = this.#open[stream]?.style ?? this.#last(stream)?.after ?? {};
    const pieces = text.split("\n");
    pieces.forEach((piece, at) => {
      const ended = at < pieces.length - 1;
      const open = this.#open[stream];
      if (open && open.raw.length + piece.length <= LINE_LETTERS_MAX) {
        // A new object, so that it is drawn anew.
        const line = this.#made(open.key, stream, open.raw + piece, !ended, open.style);
        this.lines[this.lines.lastIndexOf(open)] = line;
        this.#open[stream] = ended ? undefined : line;
        style = line.after;
      } else if (piece || ended) {
        const line = this.#made((this.#next += 1), stream, piece.slice(0, LINE_LETTERS_MAX), !ended, style);
        this.lines.push(line);
        this.#open[stream] = ended ? undefined : line;
        style = line.after;
      }
    });
    if (this.lines.length > LINES_MAX) {
      this.lines = this.lines.slice(-LINES_MAX);
      this.dropped = true;
    }
  }

  /** Takes whole lines that were written before all others. */
  prepend(stream, text) {
    const pieces = text.replace(/\n$/, "").split("\n");
    let style = {};
    const lines = pieces.map((piece) => {
      const line = this.#made((this.#before -= 1), stream, piece.slice(0, LINE_LETTERS_MAX), false, style);
      style = line.after;
      return line;
    });
    this.lines = [...lines, ...this.lines];
  }

  #last(stream) {
    return this.lines.findLast((line) => line.stream === stream);
  }

  #made(key, stream, raw, open, style) {
    const { parts, style: after } = coloured(raw, style);
    return { key, stream, raw, open, style, parts, after, text: parts.map((part) => part.text).join("") };
  }
}

/** Cuts text at each place where the searched one is, whatever the case. @returns {{text: string, hit: boolean}[]} */
export function hits(text, searched) {
  if (!searched) return [{ text, hit: false }];
  const found = [];
  const [low, wanted] = [text.toLowerCase(), searched.toLowerCase()];
  let from = 0;
  for (let at = low.indexOf(wanted); at >= 0; at = low.indexOf(wanted, from)) {
    if (at > from) found.push({ text: text.slice(from, at), hit: false });
    from = at + wanted.length;
    found.push({ text: text.slice(at, from), hit: true });
  }
  if (from < text.length) found.push({ text: text.slice(from), hit: false });
  return found;
}
