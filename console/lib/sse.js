// Server-sent events over fetch: unlike EventSource it can say from where to go on, and it tells why it failed.
import { request } from "./api.js";

/** Cuts a stream of text into events. @returns {(text: string) => {event: string, data: string, id?: string}[]} */
export function parser() {
  let rest = "";
  return (text) => {
    rest += text;
    const blocks = rest.split(/\r?\n\r?\n/);
    rest = blocks.pop();
    return blocks.map(parsed).filter((event) => event.data !== null || event.id !== undefined);
  };
}

function parsed(block) {
  const event = { event: "message", data: null };
  for (const line of block.split(/\r?\n/)) {
    const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    if (field === "data") event.data = event.data === null ? value : `${event.data}\n${value}`;
    else if (field === "event") event.event = value;
    else if (field === "id") event.id = value;
  }
  return event;
}

/**
 * Follows a stream until it ends or the signal is aborted; throws if it cannot be had.
 * @param {(event: {event: string, data: any, id?: string}) => void} each with its data parsed
 * @param {() => void} [opened]
 */
export async function follow(path, { last, signal, opened }, each) {
  const headers = { accept: "text/event-stream", ...(last ? { "last-event-id": last } : {}) };
  const answer = await request(path, { headers, signal, cache: "no-store" });
  opened?.();
  const cut = parser();
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    for (const event of cut(value)) each({ ...event, data: event.data ? JSON.parse(event.data) : null });
  }
}

/** Waits, unless the signal is aborted first. */
export const pause = (ms, signal) =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
