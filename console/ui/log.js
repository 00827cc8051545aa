// What a task writes, as it writes it.
import { active, ApiError, Button, Choice, classOf, follow, hits, html, IconButton, LogLines, part, pause, Problem, request, t, toastError, useEffect, useLayoutEffect, useRef, useState, withParams } from "../kit.js";

/** How much of each stream is read at first, and each time earlier lines are asked for, in bytes. */
const TAIL_BYTES = 256 << 10;
/** How much one answer has at most. */
const ANSWER_BYTES = 1 << 20;
/** How many lines are in the page at first, and more each time. */
const DRAWN_LINES = 1_000;
const RETRY_MS = 1_000;
const STREAMS = ["stdout", "stderr"];
/** How near the end counts as being there, in pixels. */
const NEAR_END = 24;

const pathOf = (id, params) => withParams(`tasks/${part(id)}/logs`, params);

/** A part of a stream: its bytes, and how long the stream is. */
async function readRange(id, stream, execution, range, signal) {
  try {
    const answer = await request(pathOf(id, { stream, execution }), { headers: { range: `bytes=${range}` }, signal });
    const data = new Uint8Array(await answer.arrayBuffer());
    const length = Number(answer.headers.get("x-log-length") ?? data.length);
    const from = Number(/^bytes (\d+)-/.exec(answer.headers.get("content-range") ?? "")?.[1] ?? 0);
    return { data, from, length };
  } catch (error) {
    // A part of nothing: the stream is empty.
    if (error instanceof ApiError && (error.status === 416 || error.status === 404)) return { data: new Uint8Array(), from: 0, length: 0 };
    throw error;
  }
}

/** Text from the first whole line on, unless it is the beginning; and from which byte. */
function wholeLines({ data, from }) {
  if (from === 0) return { text: new TextDecoder().decode(data), from };
  const cut = data.indexOf(10) + 1;
  return { text: new TextDecoder().decode(data.subarray(cut)), from: from + cut };
}

/** Reads the end of a log, and follows it if it is the last one of its task. */
function useLog(id, execution, latest, running) {
  const [, redraw] = useState(0);
  const log = useRef(null);
  const updating = active.value;
  const key = `${id} ${latest ? "latest" : execution}`;
  if (log.current?.key !== key) {
    log.current = { key, lines: new LogLines(), start: { stdout: 0, stderr: 0 }, last: null, state: "loading", error: null, execution, running };
  }
  const current = log.current;
  useEffect(() => {
    if (!updating && current.state !== "loading") return;
    const stop = new AbortController();
    let frame = 0;
    const draw = () => {
      frame ||= requestAnimationFrame(() => {
        frame = 0;
        redraw((count) => count + 1);
      });
    };
    run(current, id, latest, stop.signal, draw).catch((error) => {
      if (stop.signal.aborted) return;
      Object.assign(current, { state: "failed", error });
      draw();
    });
    return () => {
      stop.abort();
      cancelAnimationFrame(frame);
    };
  }, [key, updating]);
  const earlier = async () => {
    for (const stream of STREAMS.filter((stream) => current.start[stream] > 0).reverse()) {
      const end = current.start[stream];
      const range = `${Math.max(0, end - TAIL_BYTES)}-${end - 1}`;
      const found = wholeLines(await readRange(id, stream, current.execution, range));
      current.start[stream] = found.from < end ? found.from : 0;
      current.lines.prepend(stream, found.text);
    }
    redraw((count) => count + 1);
  };
  return { ...current, earlier };
}

async function run(log, id, latest, signal, draw) {
  if (log.last === null && log.execution > 0) {
    const ends = await Promise.all(STREAMS.map((stream) => readRange(id, stream, log.execution, `-${TAIL_BYTES}`, signal)));
    log.lines = new LogLines();
    // Which line came when is not known: at the end stands what matters most.
    for (const at of log.running ? [1, 0] : [0, 1]) {
      const { text, from } = wholeLines(ends[at]);
      log.start[STREAMS[at]] = from;
      if (text) log.lines.append(STREAMS[at], text);
    }
    log.last = `${log.execution}:${ends.map(({ from, data }) => from + data.length).join(":")}`;
  }
  log.state = latest ? "following" : "ended";
  draw();
  while (latest && log.state === "following" && !signal.aborted) {
    try {
      await follow(pathOf(id, { follow: true }), { last: log.last, signal }, (event) => take(log, event, draw));
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof ApiError && error.status === 404) throw error;
    }
    if (log.state === "following") await pause(RETRY_MS, signal);
  }
}

function take(log, { event, data, id }, draw) {
  if (event === "end") log.state = "ended";
  if (event === "log") {
    if (data.execution !== log.execution) {
      // It was started anew.
      Object.assign(log, { execution: data.execution, lines: new LogLines(), start: { stdout: 0, stderr: 0 } });
    }
    log.lines.append(data.stream, data.text);
    log.last = id ?? log.last;
  }
  draw();
}

/** Everything of the log, into a file. */
async function download(id, stream, execution) {
  const parts = [];
  for (const each of stream === "both" ? STREAMS : [stream]) {
    for (let from = 0, length = 1; from < length; ) {
      const found = await readRange(id, each, execution, `${from}-${from + ANSWER_BYTES - 1}`);
      if (!found.data.length) break;
      parts.push(found.data);
      from += found.data.length;
      length = found.length;
    }
  }
  const url = URL.createObjectURL(new Blob(parts, { type: "text/plain" }));
  Object.assign(document.createElement("a"), { href: url, download: `${id}.${execution}.log` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** @param {{id: string, execution: number, latest: boolean, running: boolean}} props */
export function Log({ id, execution, latest, running }) {
  const log = useLog(id, execution, latest, running);
  const [stream, setStream] = useState("both");
  const [searched, search] = useState("");
  const [wrap, setWrap] = useState(true);
  const [tailing, tail] = useState(true);
  const [drawn, draw] = useState(DRAWN_LINES);
  // One that grows has its height from the beginning, and keeps it.
  const [tall] = useState(running);
  const box = useRef(null);

  const chosen = log.lines.lines.filter((line) => stream === "both" || line.stream === stream);
  const found = searched ? chosen.filter((line) => line.text.toLowerCase().includes(searched.toLowerCase())) : chosen;
  const shown = found.slice(-drawn);
  const more = found.length > shown.length || log.start.stdout > 0 || log.start.stderr > 0;

  useLayoutEffect(() => {
    if (tailing && box.current) box.current.scrollTop = box.current.scrollHeight;
  });
  const scrolled = ({ target }) => {
    const atEnd = target.scrollHeight - target.scrollTop - target.clientHeight < NEAR_END;
    if (atEnd !== tailing) tail(atEnd);
  };
  const earlier = async () => {
    tail(false);
    draw(drawn + DRAWN_LINES);
    if (found.length <= shown.length) await log.earlier().catch(toastError);
  };
  return html`<div class="log">
    <div class="log-bar">
      <${Choice}
        label=${t("log.streams")}
        value=${stream}
        onChange=${setStream}
        options=${[
          ["both", t("log.both")],
          ["stdout", "stdout"],
          ["stderr", "stderr"],
        ]}
      />
      <input
        type="search"
        class="log-search"
        placeholder=${t("log.search")}
        aria-label=${t("log.search")}
        value=${searched}
        onInput=${(event) => search(event.target.value)}
      />
      ${searched && html`<span class="muted small" role="status">${t("log.found", { n: found.length })}</span>`}
      <span class="space"></span>
      ${running && latest && html`<${Button} icon="down" kind="quiet" aria-pressed=${tailing} onClick=${() => tail(!tailing)}>${t("log.follow")}<//>`}
      <${IconButton} icon="wrap" label=${t("log.wrap")} aria-pressed=${wrap} onClick=${() => setWrap(!wrap)} />
      <${IconButton}
        icon="download"
        label=${t("log.download")}
        disabled=${!chosen.length}
        onClick=${() => download(id, stream, log.execution).catch(toastError)}
      />
    </div>
    <div ref=${box} class=${`log-lines ${wrap ? "wrap" : ""} ${tall ? "tall" : ""}`} tabindex="0" role="log" aria-live="off" aria-label=${t("task.log")} onScroll=${scrolled}>
      ${more && html`<button type="button" class="button log-more" onClick=${earlier}>${t("log.earlier")}</button>`}
      ${shown.map((line) => html`<${LogLine} key=${line.key} line=${line} searched=${searched} />`)}
      ${!shown.length && html`<p class="log-none">${t(noneOf(log, searched, running))}</p>`}
    </div>
    <${Problem} error=${log.error} />
  </div>`;
}

function noneOf(log, searched, running) {
  if (searched) return "log.not_found";
  if (log.state === "loading") return "loading";
  return running || log.execution === 0 ? "log.none_yet" : "log.none";
}

function LogLine({ line, searched }) {
  return html`<div class="log-line" data-stream=${line.stream}>
    ${line.parts.map(({ text, style }, at) =>
      searched
        ? hits(text, searched).map(({ text, hit }, n) =>
            hit ? html`<mark key=${`${at} ${n}`}>${text}</mark>` : html`<span class=${classOf(style)}>${text}</span>`,
          )
        : html`<span key=${at} class=${classOf(style)}>${text}</span>`,
    )}${line.parts.length ? "" : "\u00a0"}
  </div>`;
}

