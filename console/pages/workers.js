// Workers: who takes tasks, and how they do.
import { actionsHead, address, Ago, Fetched, get, html, IconButton, ListCard, Mark, mayOperate, Name, now, number, PageHead, send, t, Table, toast, useLive, visible, warn } from "../kit.js";

/** How often is looked: of heartbeats no event tells. */
const EVERY_MS = 2_000;
const STATES = { alive: "succeeded", draining: "held", expired: "retrying", dead: "failed" };

export function Workers() {
  const fetched = useLive("workers", (signal) => get("workers", signal), { every: EVERY_MS, events: false });
  return html`
    <${PageHead} title=${t("page.workers")} lead=${t("workers.lead")} />
    <${Fetched} of=${fetched}>
      ${(workers) =>
        html`<${ListCard} of=${workers} name="workers"><${Rows} workers=${workers} refresh=${fetched.refresh} /><//>`}
    <//>
  `;
}

const columns = () => [
  [t("column.state"), "state-cell"],
  [t("column.worker")],
  [t("state.running"), "right"],
  [t("column.lease"), "right"],
  [t("column.beats"), "right wide-only"],
  actionsHead(),
];

const drain = (id, name, refresh) =>
  warn(
    "drain",
    async () => {
      await send("POST", `workers/${id}/drain`);
      toast(t("done.drain", { name: visible(name) }));
      refresh();
    },
    name,
  );

const Rows = ({ workers, refresh }) => html`<${Table} label=${t("page.workers")} head=${columns()}>
  ${workers.map(
    ({ id, name, state: life, draining, beats, expires_at, running }) => {
      const state = draining && life === "alive" ? "draining" : life;
      return html`<tr key=${id}>
      <td class="state-cell"><${Mark} as=${STATES[state]}>${t(`worker.${state}`)}<//></td>
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
      ${mayOperate() &&
      html`<td class="right">
        ${life !== "dead" && !draining && html`<${IconButton} icon="stop" label=${t("worker.drain", { name: visible(name) })} onClick=${() => drain(id, name, refresh)} />`}
      </td>`}
    </tr>`;
    },
  )}
<//>`;
