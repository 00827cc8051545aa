// Workers: who takes tasks, and how they do.
import { html } from "../lib/view.js";
import { get } from "../lib/api.js";
import { now, number } from "../lib/format.js";
import { t } from "../lib/i18n.js";
import { useLive } from "../lib/live.js";
import { address } from "../lib/router.js";
import { visible } from "../lib/text.js";
import { Icon } from "../ui/icons.js";
import { Ago, Empty, Fetched, Name, PageHead } from "../ui/parts.js";

const STATES = { alive: "succeeded", expired: "retrying", dead: "failed" };

export function Workers() {
  const fetched = useLive("workers", (signal) => get("workers", signal));
  return html`
    <${PageHead} title=${t("page.workers")} lead=${t("workers.lead")} />
    <${Fetched} of=${fetched}>
      ${(workers) =>
        workers.length
          ? html`<div class="card flush"><${Table} workers=${workers} /></div>`
          : html`<div class="card"><${Empty} icon="workers" title=${t("workers.none")}>${t("workers.none_text")}<//></div>`}
    <//>
  `;
}

const Table = ({ workers }) => html`<div class="table-scroll" tabindex="0" role="region" aria-label=${t("page.workers")}>
  <table aria-label=${t("page.workers")}>
    <thead>
      <tr>
        <th scope="col">${t("column.state")}</th>
        <th scope="col">${t("column.worker")}</th>
        <th scope="col" class="right">${t("state.running")}</th>
        <th scope="col" class="right">${t("column.lease")}</th>
        <th scope="col" class="right wide-only">${t("column.beats")}</th>
      </tr>
    </thead>
    <tbody>
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
    </tbody>
  </table>
</div>`;
