// What failed alike, together.
import { actOn, address, Ago, Button, failureKind, Fetched, Field, get, go, html, IconButton, isOf, ListCard, mayOperate, Name, number, PageHead, place, queryOf, short, stats, t, taskHref, useLive, visible, withParams } from "../kit.js";

/** How often is looked: the server gathers them from many tasks. */
const EVERY_MS = 3_000;

export function Failures() {
  const queue = place.value.query.get("queue") ?? "";
  const q = queue && `queue:"${queue}"`;
  const fetched = useLive(`failures ${q}`, (signal) => get(withParams("failures", { q }), signal), { every: EVERY_MS, events: false });
  const queues = stats.value?.queues ?? [];
  return html`
    <${PageHead} title=${t("page.failures")} lead=${t("failures.lead")}>
      ${queues.length > 1 &&
      html`<${Field} label=${t("column.queue")}>
        ${(attributes) => html`<select ...${attributes} value=${queue} onChange=${(event) => go(address("failures", { queue: event.target.value }), { replace: true })}>
          <option value="">${t("failures.every_queue")}</option>
          ${queues.map(({ name }) => html`<option key=${name} value=${name}>${visible(name)}</option>`)}
        </select>`}
      <//>`}
    <//>
    <${Fetched} of=${fetched}>
      ${({ groups, looked_at }) =>
        html`<${ListCard} of=${groups} name="failures" icon="succeeded"><${FailureList} groups=${groups} actions=${mayOperate()} refresh=${fetched.refresh} /><//>
          ${groups.length > 0 && html`<p class="muted small">${t("failures.looked_at", { n: looked_at })}</p>`}`}
    <//>
  `;
}

/** How many tasks are looked at to find those of a group: a page, and so many of them. */
const [PAGE, PAGES] = [1_000, 10];

/** The tasks of a group, and no others. */
async function idsOf(group) {
  const ids = [];
  let cursor = null;
  for (let page = 0; page < PAGES; page += 1) {
    const { tasks, next } = await get(withParams("tasks", { q: queryOf(group), cursor, limit: PAGE }));
    ids.push(...tasks.filter((task) => isOf(group, task)).map((task) => task.id));
    if (!next) break;
    cursor = next;
  }
  return { ids };
}

export const FailureList = ({ groups, actions, refresh }) => html`<ul class="failure-list">
  ${groups.map(
    (group) => html`<li key=${`${group.kind} ${group.fingerprint}`}>
      <span class="failure-count number" title=${number(group.count)}>${short(group.count)}<span aria-hidden="true">×</span></span>
      <div class="failure-what">
        <a class="task-link" href=${address("tasks", { q: queryOf(group) })}><bdi>${visible(group.message.split("\n")[0])}</bdi></a>
        <span class="task-sub muted">
          ${failureKind(group.kind)} · ${group.queues.map((name, at) => html`${at > 0 && ", "}<${Name}>${name}<//>`)}
          ${" · "}${t("failures.last")} <${Ago} at=${group.last_at} />
          ${" · "}<a href=${taskHref(group.sample_id)}>${t("failures.sample")}</a>
        </span>
      </div>
      ${actions &&
      html`<div class="row">
        <${Button} icon="retrying" onClick=${() => actOn("retry", () => idsOf(group), refresh)}>${t("failures.retry")}<//>
        <${IconButton} icon="trash" label=${t("failures.discard")} onClick=${() => actOn("delete", () => idsOf(group), refresh)} />
      </div>`}
    </li>`,
  )}
</ul>`;
