// What goes on at the server, as it goes on: one stream of events for the page, and polling where there is none.
// While it is paused, or nobody sees the page, nothing is fetched at all.
import { batch, computed, effect, signal, useEffect, useRef, useState } from "./view.js";
import { get, locked } from "./api.js";
import { setServerTime } from "./format.js";
import { follow, pause } from "./sse.js";

/** How often is looked where there are no events. */
const POLL_MS = 3_000;
/** How long is waited before a broken stream is taken up again, at first and at most. */
const RETRY_MIN_MS = 500;
const RETRY_MAX_MS = 10_000;
/** How often is looked although there are events: not everything that changes is told. */
const LOOK_MS = 10_000;
/** How far two refreshes of what is shown are apart. */
const REFRESH_MS = 1_000;

/** Somebody has stopped the updates. */
export const paused = signal(false);
const hidden = signal(document.hidden);
/** Whether updates are wanted. */
export const active = computed(() => !paused.value && !hidden.value && !locked.value);
/** `connecting`, `live`, `polling` or `offline`. */
const connection = signal("connecting");
/** The same, or `paused`. */
export const link = computed(() => (paused.value ? "paused" : connection.value));
/** The newest numbers: those of `GET /stats`. */
export const stats = signal(null);
/** Grows when what is shown may be out of date. */
export const changes = signal(0);

const listeners = new Set();

/** Calls with every move `{id, state}` of a task. Answers how to stop. */
export function onMove(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export const togglePaused = () => (paused.value = !paused.value);

document.addEventListener("visibilitychange", () => (hidden.value = document.hidden));

let due = null;
let refreshed = 0;

/** Says that something has changed: soon, and not too often. */
function touch() {
  if (due !== null) return;
  due = setTimeout(
    () => {
      due = null;
      refreshed = Date.now();
      if (active.value) changes.value += 1;
    },
    Math.max(0, refreshed + REFRESH_MS - Date.now()),
  );
}

function takeStats(numbers) {
  setServerTime(numbers.now);
  stats.value = numbers;
}

function take({ event, data }) {
  if (event === "stats") takeStats(data);
  else if (event === "tasks" || event === "task") {
    for (const move of [data].flat()) listeners.forEach((listener) => listener(move));
    touch();
  } else if (event === "changed" || event === "reset") touch();
}

/** Looks for itself once. */
async function poll(stop) {
  try {
    takeStats(await get("stats", stop));
    if (connection.value !== "live") connection.value = "polling";
    touch();
  } catch (error) {
    if (!stop.aborted) connection.value = "offline";
  }
}

async function run(stop) {
  let last;
  let wait = RETRY_MIN_MS;
  // What has been missed while nobody looked.
  touch();
  const look = setInterval(() => connection.value === "live" && poll(stop), LOOK_MS);
  stop.addEventListener("abort", () => clearInterval(look));
  while (!stop.aborted) {
    try {
      const opened = () => {
        connection.value = "live";
        wait = RETRY_MIN_MS;
        // Events may have been missed, also if the server is another one now.
        touch();
      };
      await follow("events?topics=stats,tasks", { last, signal: stop, opened }, (event) => {
        last = event.id ?? last;
        batch(() => take(event));
      });
    } catch (error) {
      if (stop.aborted) return;
    }
    // It has ended, or could not be had.
    if (connection.value === "live") connection.value = "connecting";
    const until = Date.now() + wait;
    while (!stop.aborted && Date.now() < until) {
      await poll(stop);
      await pause(Math.min(POLL_MS, Math.max(0, until - Date.now())), stop);
    }
    wait = Math.min(2 * wait, RETRY_MAX_MS);
  }
}

/** Begins to follow the server, whenever that is wanted. */
export const startLive = () =>
  effect(() => {
    if (!active.value) return;
    const stop = new AbortController();
    run(stop.signal);
    return () => stop.abort();
  });

/**
 * What a page shows: fetched when `key` changes, and again when the server has changed while updates are wanted.
 * What is there stays while the next is fetched. `key` null: nothing to fetch.
 * @template T
 * @param {string|null} key
 * @param {(signal: AbortSignal) => Promise<T>} fetcher
 * @param {{every?: number, events?: boolean}} [options] also so often, in ms; or only so often: for what no event tells, and
 *   for what is too dear to be fetched at every event
 */
export function useLive(key, fetcher, { every, events = true } = {}) {
  const [shown, show] = useState({ key: null, data: undefined, error: null });
  const state = useRef({ busy: null, again: false }).current;
  state.fetcher = fetcher;

  const load = () => {
    if (key === null) return;
    if (state.busy) {
      state.again = true;
      return;
    }
    const stop = (state.busy = new AbortController());
    const finish = (next) => {
      if (state.busy !== stop) return;
      state.busy = null;
      show(next);
      if (state.again) {
        state.again = false;
        setTimeout(state.load, REFRESH_MS);
      }
    };
    state.fetcher(stop.signal).then(
      (data) => finish({ key, data, error: null }),
      (error) => stop.signal.aborted || finish((before) => ({ key, data: before.key === key ? before.data : undefined, error })),
    );
  };
  state.load = load;

  useEffect(() => {
    load();
    return () => {
      state.busy?.abort();
      state.busy = null;
      state.again = false;
    };
  }, [key]);
  useEffect(() => {
    if (!every) return;
    const timer = setInterval(() => active.peek() && state.load(), every);
    return () => clearInterval(timer);
  }, [every]);
  useEffect(() => {
    if (!events) return;
    // Subscribes past the component, which need not be drawn for that.
    let first = true;
    return changes.subscribe(() => {
      if (!first) state.load();
      first = false;
    });
  }, []);

  const current = shown.key === key;
  return { data: current ? shown.data : undefined, error: current ? shown.error : null, refresh: () => state.load() };
}
