// Tasks in a table, a page at a time.
import { Ago, Button, go, html, Icon, Name, part, percent, StateMark, t, Table, Took, visible } from "../kit.js";

export const taskHref = (id) => `tasks/${part(id)}`;

/** What a task is called: its command, else its kind and id. */
export const titleOf = (task) => visible(task.summary || task.kind);

/** @param {{tasks: object[], label: string, selection?: {has, toggle, all, toggleAll}, brief?: boolean}} props */
export function TaskTable({ tasks, label, selection, brief }) {
  const tick = selection && html`<input type="checkbox" aria-label=${t("tasks.select_page")} checked=${selection.all} onChange=${selection.toggleAll} />`;
  const head = [
    selection && [tick, "tick-cell"],
    [t("column.state"), "state-cell"],
    [t("column.task")],
    !brief && [t("column.queue"), "wide-only"],
    [t("column.created"), "wide-only right"],
    [t("column.took"), "wide-only right"],
  ];
  return html`<${Table} label=${label} head=${head} class="task-table">
    ${tasks.map((task) => html`<${Row} key=${task.id} task=${task} selection=${selection} brief=${brief} />`)}
  <//>`;
}

function open(event, id) {
  // What stands in the row keeps its own meaning, and marked text stays marked.
  if (event.target.closest("a, input, label, button") || String(getSelection())) return;
  if (event.metaKey || event.ctrlKey) window.open(new URL(taskHref(id), document.baseURI), "_blank");
  else go(taskHref(id));
}

const Row = ({ task, selection, brief }) => html`<tr
  class=${`task-row ${task.gone ? "gone" : ""}`}
  aria-selected=${selection ? (selection.has(task.id) ? "true" : "false") : undefined}
  onClick=${(event) => open(event, task.id)}
>
  ${selection &&
  html`<td class="tick-cell">
    <label class="tick">
      <input
        type="checkbox"
        aria-label=${t("tasks.select", { name: titleOf(task) })}
        checked=${selection.has(task.id)}
        onChange=${() => selection.toggle(task.id)}
      />
    </label>
  </td>`}
  <td class="state-cell"><${StateMark} phase=${task.phase} /></td>
  <td class="task-cell">
    <a class="task-link" href=${taskHref(task.id)} data-row=${task.id}><bdi>${titleOf(task)}</bdi></a>
    <span class="task-sub muted"><${Sub} task=${task} /></span>
  </td>
  ${!brief && html`<td class="wide-only"><a class="plain-link" href=${`queues/${part(task.queue)}`}><${Name}>${task.queue}<//></a></td>`}
  <td class="wide-only right"><${Ago} at=${task.created_at} /></td>
  <td class="wide-only right"><${Took} from=${task.started_at} to=${endOf(task)} /></td>
</tr>`;

/** When it stopped running; a task that waits again has not run since. */
const endOf = (task) => task.finished_at ?? (task.state === "running" || task.state === "exporting" ? null : task.started_at);

function Sub({ task }) {
  const failure = (task.state === "failed" || task.phase === "retrying") && task.failure;
  const again = task.attempt > 1 && `${t("task.attempt_of", { n: task.attempt, max: task.retry.max_attempts })} · `;
  if (failure) return html`${again}<span class="failure-text" title=${visible(failure.message)}>${visible(failure.message.split("\n")[0])}</span>`;
  if (task.state === "running" && task.progress) {
    const { done, total, message } = task.progress;
    return html`${again}${total > 0 ? percent(done / total) : ""} ${visible(message)}`;
  }
  const labels = Object.entries(task.labels);
  return html`${again}<span>${visible(task.kind)}</span> · <span class="mono">${visible(task.id)}</span>
    ${labels.map(([name, value]) => html`<span class="label" key=${name}><bdi>${visible(name)}</bdi>=<bdi>${visible(value)}</bdi></span>`)}`;
}

/**
 * Pages of a list of which only the next one is known: `trail` are the cursors of those that one came by.
 * @param {{cursor: string|null, next: string|null, trail: (string|null)[], to: (cursor: string|null, trail: (string|null)[]) => void}} props
 */
export function Pager({ cursor, next, trail, to }) {
  if (!cursor && !next) return null;
  return html`<nav class="pager" aria-label=${t("pager.label")}>
    ${cursor && html`<${Button} icon="left" onClick=${() => to(trail.at(-1) ?? null, trail.slice(0, -1))}>${t("pager.newer")}<//>`}
    ${cursor && html`<${Button} kind="quiet" onClick=${() => to(null, [])}>${t("pager.newest")}<//>`}
    <span class="space"></span>
    ${next && html`<button type="button" class="button" onClick=${() => to(next, [...trail, cursor])}><span>${t("pager.older")}</span> <${Icon} name="right" /></button>`}
  </nav>`;
}
