// Queues: how deep they are, how they are limited, and whether they run.
import { actionsHead, address, Button, Dialog, duration, Fetched, Field, get, go, html, IconButton, ListCard, Mark, mayOperate, Meter, Name, PageHead, parseSpan, part, Problem, send, short, stats, t, Table, toast, toastError, useAction, useLive, useState, visible } from "../kit.js";

export const queueHref = (name) => `queues/${part(name)}`;

export async function setPaused(name, paused) {
  try {
    const queue = await send("POST", `${queueHref(name)}/${paused ? "pause" : "resume"}`);
    toast(t(paused ? "done.pause" : "done.resume", { name: visible(name) }));
    adopt(queue);
  } catch (error) {
    toastError(error);
  }
}

/** Shows at once what the server has answered. */
export function adopt(queue) {
  const numbers = stats.value;
  if (!numbers) return;
  const others = numbers.queues.filter(({ name }) => name !== queue.name);
  stats.value = { ...numbers, queues: [...others, queue].sort((a, b) => (a.name < b.name ? -1 : 1)) };
}

const SECOND_MS = 1_000;

/** A rate in words: 10 per second. */
export function rateText(rate) {
  if (!rate) return null;
  const period = parseSpan(rate.period) ?? SECOND_MS;
  const unit = { [SECOND_MS]: "second", [60 * SECOND_MS]: "minute", [3_600 * SECOND_MS]: "hour" }[period] ?? "period";
  const words = t(`rate.${unit}`, { n: rate.count, period: duration(period) });
  return rate.burst > 1 ? words + t("rate.burst", { n: rate.burst }) : words;
}

export function Queues() {
  const fetched = useLive("queues", (signal) => get("queues", signal));
  const [creating, create] = useState(false);
  return html`
    <${PageHead} title=${t("page.queues")}>
      ${mayOperate() && html`<${Button} icon="submit" onClick=${() => create(true)}>${t("queues.create")}<//>`}
    <//>
    <${Fetched} of=${fetched}>
      ${(queues) =>
        html`<${ListCard} of=${queues} name="queues"><${QueueTable} queues=${queues} changed=${fetched.refresh} /><//>`}
    <//>
    ${creating && html`<${Create} close=${() => create(false)} />`}
  `;
}

/** The phases behind a count, as a query says them. */
export const phasesOf = (state) => (state === "scheduled" ? "scheduled,retrying" : state);

export const Paused = ({ of, class: extra = "" }) => of.settings.paused && html` <${Mark} as="held" class=${`state-pill ${extra}`}>${t("queue.paused")}<//>`;

const Count = ({ n, queue, state }) =>
  n ? html`<a class="plain-link number" href=${address("tasks", { q: `state:${state} queue:"${queue}"` })}>${short(n)}</a>` : html`<span class="muted number">0</span>`;

const columns = (brief) => [
  [t("column.queue")],
  [t("state.running")],
  ...["waiting", "scheduled", "succeeded", "failed"].map((state) => [t(`state.${state}`), "right"]),
  [t("column.limits"), "wide-only"],
  !brief && actionsHead(),
];

export const QueueTable = ({ queues, brief, changed }) => html`<${Table} label=${t("page.queues")} head=${columns(brief)}>
      ${queues.map(({ name, counts, settings }) => {
        const running = counts.running + counts.exporting;
        return html`<tr key=${name}>
          <th scope="row">
            <a class="task-link" href=${queueHref(name)}><${Name}>${name}<//></a>
            <${Paused} of=${{ settings }} class="small" />
          </th>
          <td>
            <span class="number">${short(running)}${settings.concurrency ? html`<span class="muted"> / ${short(settings.concurrency)}</span>` : ""}</span>
            ${settings.concurrency && html`<${Meter} value=${running} max=${settings.concurrency} label=${t("queue.used", { name: visible(name) })} />`}
          </td>
          ${["waiting", "scheduled", "succeeded", "failed"].map(
            (state) => html`<td class="right" key=${state}><${Count} n=${counts[state]} queue=${name} state=${phasesOf(state)} /></td>`,
          )}
          <td class="wide-only muted">${limitsText(settings)}</td>
          ${!brief &&
          mayOperate() &&
          html`<td class="right">
            <${IconButton}
              icon=${settings.paused ? "play" : "pause"}
              label=${t(settings.paused ? "queue.resume_name" : "queue.pause_name", { name: visible(name) })}
              onClick=${async () => (await setPaused(name, !settings.paused), changed?.())}
            />
          </td>`}
        </tr>`;
      })}
<//>`;

const limitsText = ({ concurrency, rate }) =>
  [concurrency && t("limits.concurrency", { n: concurrency }), rateText(rate)].filter(Boolean).join(" · ") || t("limits.none");

function Create({ close }) {
  const [name, set] = useState("");
  const { act, busy, error } = useAction(async () => {
    // One that is there keeps what it has.
    const there = await get(queueHref(name)).catch((error) => (error.status === 404 ? null : Promise.reject(error)));
    if (!there) adopt(await send("PUT", queueHref(name), {}));
    close();
    go(queueHref(name));
  });
  return html`<${Dialog} title=${t("queues.create")} onClose=${close} action=${{ text: t("queues.create_do"), form: "create", busy }}>
    <form id="create" class="form" onSubmit=${act}>
      <${Field} label=${t("queues.name")} hint=${t("queues.name_hint")} wide>
        ${(attributes) => html`<input ...${attributes} required maxlength="128" value=${name} onInput=${(event) => set(event.target.value)} />`}
      <//>
    </form>
    <${Problem} error=${error} />
  <//>`;
}
