// Workers: who takes tasks, and how they do.
import { address, Ago, Empty, Fetched, get, html, Icon, Name, now, number, PageHead, t, Table, useLive, visible } from "../kit.js";

/** How often is looked: of heartbeats no event tells. */
const EVERY_MS = 2_000;
const STATES = { alive: "succeeded", expired: "retrying", dead: "failed" };

export function Workers() {
  const fetched = useLive("workers", (signal) => get("workers", signal), { every: EVERY_MS, events: false });
  return html`
    <${PageHead} title=${t("page.workers")} lead=${t("workers.lead")} />
    <${Fetched} of=${fetched}>
      ${(workers) =>
        workers.length
          ? html`<div class="card flush"><${Rows} workers=${workers} /></div>`
          : html`<div class="card"><${Empty} icon="workers" title=${t("workers.none")}>${t("workers.none_text")}<//></div>`}
    <//>
  `;
}

const columns = () => [
  [t("column.state"), "state-cell"],
  [t("column.worker")],
  [t("state.running"), "right"],
  [t("column.lease"), "right"],
  [t("column.beats"), "right wide-only"],
];

const Rows = ({ workers }) => html`<${Table} label=${t("page.workers")} head=${columns()}>
  ${workers.map(
    ({ id, name, state, beats, expires_at, running }) => html`<tr key=${id}>
      <td class="state-cell"><span class="state" data-state=${STATES[state]}><${Icon} name=${STATES[state]} /> ${t(`worker.${state}`)}</span></td>
      <td class="task-cell">
        <span><${Name}>${name}<//></span>
        <span class="task-sub muted mono">${visible(id)}</span>
      </td>
      <td class="right">
        ${running
          ? html`<a class="plain-link number" href=${address("tasks", { q: `state:running,exporting worker:${id}` })}>${number(running)}</a>`
          : html`<span class="muted number">0</span>`}
      </td>
      <td class="right">${Date.parse(expires_at) > now.value ? "" : html`<span class="failure-text">${t("worker.ended")}</span> `}<${Ago} at=${expires_at} /></td>
      <td class="right number wide-only">${number(beats)}</td>
    </tr>`,
  )}
<//>`;
