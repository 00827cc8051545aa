// How things stand, at a glance.
import { address, buckets, capabilities, Card, Chart, Choice, duration, Empty, get, go, html, Icon, Loading, mayOperate, Name, now, PageHead, percent, place, rate, short, stats, t, useLive, useRef } from "../kit.js";
import { FailureList } from "./failures.js";
import { queueHref, QueueTable } from "./queues.js";

const WINDOWS = ["15m", "1h", "24h", "7d"];
/** How many bars the throughput has at most. */
const BARS = 60;
/** How long a queue may wait without anything running before it is called stuck, in ms. */
const STUCK_MS = 10_000;
/** How many groups of failures are shown. */
const GROUPS = 4;
const MINUTE_S = 60;
/** How often, in ms, is looked at what changes with the time alone, and at what takes the server some work. */
const SLOW = { every: 5_000, events: false };

const SERIES = ["succeeded", "failed", "cancelled"];

export function Overview() {
  const asked = place.value.query.get("window");
  const window = WINDOWS.includes(asked) ? asked : "15m";
  const series = useLive(window, (signal) => get(`stats/timeseries?window=${window}`, signal), SLOW);
  const workers = useLive("workers", (signal) => get("workers", signal), SLOW);
  const failures = useLive("failures", (signal) => get("failures", signal), SLOW);
  const points = series.data?.points ?? [];
  const numbers = stats.value;
  if (!numbers) return html`<${PageHead} title=${t("page.overview")} /><${Loading} />`;
  const windows = WINDOWS.map((name) => [name, t(`window.${name}`)]);
  const total = Object.values(numbers.totals).reduce((sum, count) => sum + count, 0);
  return html`
    <${PageHead} title=${t("page.overview")}>
      <${Choice}
        label=${t("window.label")}
        options=${windows}
        value=${window}
        onChange=${(name) => go(address("", { window: name === "15m" ? null : name }), { replace: true })}
      />
    <//>
    <${Attention} queues=${numbers.queues} workers=${workers.data} points=${points} />
    <${Tiles} totals=${numbers.totals} points=${points} window=${window} />
    ${total === 0 && html`<${First} />`}
    ${(total > 0 || numbers.queues.length > 0) &&
    html`<div class="pair"><${Throughput} points=${points} /><${Depth} points=${points} /></div>
          <${Card}
            title=${t("page.queues")}
            actions=${html`<a class="quiet-link" href="queues">${t("overview.all_queues")} <${Icon} name="right" size="14" /></a>`}
          >
            <${QueueTable} queues=${busiest(numbers.queues)} brief />
          <//>`}
    ${failures.data?.groups.length > 0 &&
    html`<${Card}
      title=${t("overview.failures")}
      actions=${html`<a class="quiet-link" href="failures">${t("overview.all_failures")} <${Icon} name="right" size="14" /></a>`}
    >
      <${FailureList} groups=${newest(failures.data.groups)} />
    <//>`}
  `;
}

const newest = (groups) => [...groups].sort((a, b) => (a.last_at < b.last_at ? 1 : -1)).slice(0, GROUPS);

/** How many queues are shown. */
const QUEUES = 8;
const busiest = (queues) => {
  const weight = ({ counts }) => counts.running * 1_000_000 + counts.waiting + counts.scheduled;
  return [...queues].sort((a, b) => weight(b) - weight(a) || (a.name < b.name ? -1 : 1)).slice(0, QUEUES);
};

const First = () => html`<${Card} class="first">
  <${Empty} icon="submit" title=${t("overview.first")}>
    <p>${t("overview.first_text")}</p>
    ${mayOperate() && html`<a class="button primary" href="submit">${t("page.submit")}</a>`}
  <//>
<//>`;

const Tile = ({ state, label = t(`state.${state}`), value, note, q }) => html`<a class="tile" data-state=${state} href=${q ? address("tasks", { q }) : undefined}>
  <span class="tile-label"><${Icon} name=${state} /> ${label}</span>
  <span class="tile-value number">${value}</span>
  <span class="tile-note muted">${note || "\u00a0"}</span>
</a>`;

function Tiles({ totals, points, window }) {
  const inWindow = (name) => points.reduce((sum, point) => sum + point[name], 0);
  const failed = inWindow("failed");
  const ended = inWindow("succeeded") + failed;
  const exporting = totals.exporting > 0 && t("tile.exporting", { n: totals.exporting });
  const held = totals.held > 0 && t("tile.held", { n: totals.held });
  const within = t("tile.in", { window: t(`window.${window}`) }) + (ended ? ` · ${percent(failed / ended)}` : "");
  return html`<div class="tiles">
    <${Tile} state="running" value=${short(totals.running + totals.exporting)} note=${exporting} q="state:running,exporting" />
    <${Tile} state="waiting" value=${short(totals.waiting)} note=${held} q="state:waiting" />
    <${Tile} state="scheduled" value=${short(totals.scheduled)} q="state:scheduled,retrying" />
    <${Tile} state="succeeded" label=${t("tile.throughput")} value=${rate(lately(points))} note=${t("tile.per_minute")} />
    <${Tile} state="failed" value=${short(failed)} note=${within} q="state:failed" />
  </div>`;
}

/** Tasks that ended per minute, over the last minute or so. */
function lately(points) {
  let [count, seconds] = [0, 0];
  for (const point of [...points].reverse()) {
    if (seconds >= MINUTE_S) break;
    count += point.succeeded + point.failed + point.cancelled;
    seconds += point.seconds;
  }
  return seconds ? (count / seconds) * MINUTE_S : 0;
}

function Throughput({ points }) {
  const bars = buckets(points, BARS);
  const perMinute = (name) => (point) => (point.seconds ? (point[name] / point.seconds) * MINUTE_S : 0);
  const series = SERIES.map((name) => ({ key: name, name: t(`state.${name}`), of: perMinute(name) }));
  return html`<${Chart} kind="bars" title=${t("chart.throughput")} note=${t("tile.per_minute")} points=${bars} series=${series} />`;
}

function Depth({ points }) {
  const series = ["waiting", "running"].map((name) => ({ key: name, name: t(`state.${name}`), of: (point) => point[name] }));
  return html`<${Chart} kind="lines" title=${t("chart.depth")} note=${t("chart.tasks")} points=${points} series=${series} />`;
}

/** Since when each queue has waited while nothing of it ran. */
function useStuck(queues) {
  const since = useRef(new Map()).current;
  const at = now.value;
  for (const { name, counts, settings } of queues) {
    const stuck = counts.waiting > 0 && counts.running === 0 && counts.exporting === 0 && !settings.paused;
    if (!stuck) since.delete(name);
    else if (!since.has(name)) since.set(name, at);
  }
  return queues.filter(({ name }) => since.has(name) && at - since.get(name) >= STUCK_MS).map((queue) => ({ ...queue, for: at - since.get(queue.name) }));
}

function Attention({ queues, workers, points }) {
  const stuck = useStuck(queues);
  const items = [];
  const late = workers?.filter(({ state }) => state === "expired") ?? [];
  const dead = workers?.filter(({ state }) => state === "dead") ?? [];
  if (workers && !workers.some(({ state }) => state === "alive")) items.push(["failed", t("attention.no_worker"), "workers"]);
  for (const { name } of dead) items.push(["failed", html`${t("attention.dead")} <${Name}>${name}<//>`, "workers"]);
  for (const { name } of late) items.push(["retrying", html`${t("attention.expired")} <${Name}>${name}<//>`, "workers"]);
  for (const queue of stuck) {
    const text = t("attention.stuck", { n: queue.counts.waiting, time: duration(queue.for) });
    items.push(["retrying", html`<${Name}>${queue.name}<//> – ${text}`, queueHref(queue.name)]);
  }
  for (const { name, counts, settings } of queues) {
    const waiting = counts.waiting + counts.scheduled;
    if (settings.paused && waiting) items.push(["held", html`<${Name}>${name}<//> – ${t("attention.paused", { n: waiting })}`, queueHref(name)]);
  }
  const failed = points.reduce((sum, point) => sum + point.failed, 0);
  const ended = points.reduce((sum, point) => sum + point.succeeded + point.failed, 0);
  // A few failures are life; many are news.
  if (failed >= 3 && failed / ended >= 0.2) {
    items.push(["failed", t("attention.failing", { n: failed, part: percent(failed / ended) }), "failures"]);
  }
  const open = capabilities.value?.open;
  if (!items.length && !open) return null;
  return html`<section class="attention" aria-label=${t("attention.title")}>
    <ul>
      ${items.map(
        ([state, text, href], at) => html`<li key=${at} data-state=${state}>
          <${Icon} name=${state === "held" ? "held" : "failures"} /> <span>${text}</span>
          <a class="quiet-link" href=${href}>${t("attention.look")} <${Icon} name="right" size="14" /></a>
        </li>`,
      )}
      ${open &&
      html`<li data-state="open"><${Icon} name="unlocked" /> <span>${t("attention.open")}</span></li>`}
    </ul>
  </section>`;
}
