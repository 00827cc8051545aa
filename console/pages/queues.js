// Queues: how deep they are, how they are limited, and whether they run.
import { html, useState } from "../lib/view.js";
import { get, mayOperate, part, send } from "../lib/api.js";
import { duration, parseSpan, short } from "../lib/format.js";
import { t } from "../lib/i18n.js";
import { stats, useLive } from "../lib/live.js";
import { address, go } from "../lib/router.js";
import { visible } from "../lib/text.js";
import { Dialog } from "../ui/dialog.js";
import { Icon } from "../ui/icons.js";
import { Button, Empty, Fetched, Field, IconButton, Meter, Name, PageHead, Problem } from "../ui/parts.js";
import { toast, toastError } from "../ui/toast.js";

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

/** A rate in words: 10 per second. */
export function rateText(rate) {
  if (!rate) return null;
  const period = parseSpan(rate.period) ?? 1_000;
  const words = period === 1_000 ? t("rate.second", { n: rate.count }) : t("rate.period", { n: rate.count, period: duration(period) });
  return rate.burst > 1 ? `${words} ${t("rate.burst", { n: rate.burst })}` : words;
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
        queues.length
          ? html`<div class="card flush"><${QueueTable} queues=${queues} changed=${fetched.refresh} /></div>`
          : html`<div class="card"><${Empty} icon="queues" title=${t("queues.none")}>${t("queues.none_text")}<//></div>`}
    <//>
    ${creating && html`<${Create} close=${() => create(false)} />`}
  `;
}

const Count = ({ n, queue, state }) =>
  n ? html`<a class="plain-link number" href=${address("tasks", { q: `state:${state} queue:"${queue}"` })}>${short(n)}</a>` : html`<span class="muted number">0</span>`;

export const QueueTable = ({ queues, brief, changed }) => html`<div class="table-scroll" tabindex="0" role="region" aria-label=${t("page.queues")}>
  <table aria-label=${t("page.queues")}>
    <thead>
      <tr>
        <th scope="col">${t("column.queue")}</th>
        <th scope="col">${t("state.running")}</th>
        <th scope="col" class="right">${t("state.waiting")}</th>
        <th scope="col" class="right">${t("state.scheduled")}</th>
        <th scope="col" class="right">${t("state.succeeded")}</th>
        <th scope="col" class="right">${t("state.failed")}</th>
        <th scope="col" class="wide-only">${t("column.limits")}</th>
        ${!brief && mayOperate() && html`<th scope="col"><span class="off-screen">${t("column.actions")}</span></th>`}
      </tr>
    </thead>
    <tbody>
      ${queues.map(({ name, counts, settings }) => {
        const running = counts.running + counts.exporting;
        return html`<tr key=${name}>
          <th scope="row">
            <a class="task-link" href=${queueHref(name)}><${Name}>${name}<//></a>
            ${settings.paused && html` <span class="state state-pill small" data-state="held"><${Icon} name="held" /> ${t("queue.paused")}</span>`}
          </th>
          <td>
            <span class="number">${short(running)}${settings.concurrency ? html`<span class="muted"> / ${short(settings.concurrency)}</span>` : ""}</span>
            ${settings.concurrency && html`<${Meter} value=${running} max=${settings.concurrency} label=${t("queue.used", { name: visible(name) })} />`}
          </td>
          <td class="right"><${Count} n=${counts.waiting} queue=${name} state="waiting" /></td>
          <td class="right"><${Count} n=${counts.scheduled} queue=${name} state="scheduled,retrying" /></td>
          <td class="right"><${Count} n=${counts.succeeded} queue=${name} state="succeeded" /></td>
          <td class="right"><${Count} n=${counts.failed} queue=${name} state="failed" /></td>
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
    </tbody>
  </table>
</div>`;

const limitsText = ({ concurrency, rate }) =>
  [concurrency && t("limits.concurrency", { n: concurrency }), rateText(rate)].filter(Boolean).join(" · ") || t("limits.none");

function Create({ close }) {
  const [name, set] = useState("");
  const [error, fail] = useState(null);
  const submit = async (event) => {
    event.preventDefault();
    try {
      // One that is there keeps what it has.
      const there = await get(queueHref(name)).catch((error) => (error.status === 404 ? null : Promise.reject(error)));
      if (!there) adopt(await send("PUT", queueHref(name), {}));
      close();
      go(queueHref(name));
    } catch (error) {
      fail(error);
    }
  };
  return html`<${Dialog}
    title=${t("queues.create")}
    onClose=${close}
    footer=${(dismiss) => html`<${Button} onClick=${dismiss}>${t("action.dismiss")}<//>
      <${Button} kind="primary" type="submit" form="create">${t("queues.create_do")}<//>`}
  >
    <form id="create" class="form" onSubmit=${submit}>
      <${Field} label=${t("queues.name")} hint=${t("queues.name_hint")} wide>
        ${(attributes) => html`<input ...${attributes} required maxlength="128" value=${name} onInput=${(event) => set(event.target.value)} />`}
      <//>
    </form>
    ${error && html`<${Problem} error=${error} />`}
  <//>`;
}
