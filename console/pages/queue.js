// One queue: its numbers, its limits, which can be changed while it runs, and its newest tasks.
import { address, Button, Card, Empty, Fetched, Field, get, html, Icon, mayOperate, Name, number, PageHead, Problem, send, STATES, t, TaskTable, toast, typedSpan, useAction, useLive, useState, visible, warn, withField, withParams } from "../kit.js";
import { adopt, phasesOf, Paused, queueHref, rateText, setPaused } from "./queues.js";

const NEWEST = 10;

export function Queue({ name }) {
  const queue = useLive(name, (signal) => get(queueHref(name), signal));
  const tasks = useLive(`tasks of ${name}`, (signal) => get(withParams("tasks", { q: `queue:"${name}"`, limit: NEWEST }), signal));
  const crumbs = html`<a href="queues">${t("page.queues")}</a>`;
  if (queue.error?.status === 404) {
    return html`<${PageHead} title=${t("queue.gone")} crumbs=${crumbs} /><${Empty} icon="queues" title=${t("queue.gone_text")}><${Name}>${name}<//><//>`;
  }
  return html`<${Fetched} of=${queue}>
    ${(found) => html`
      <${PageHead}
        name=${visible(name)}
        title=${html`<${Name}>${name}<//> <${Paused} of=${found} />`}
        crumbs=${crumbs}
      >
        ${mayOperate() && html`<${Actions} name=${name} queue=${found} refresh=${queue.refresh} />`}
      <//>
      <${Counts} name=${name} counts=${found.counts} />
      <div class="queue-page">
        <${Card}
          title=${t("queue.newest")}
          class="flush"
          actions=${html`<a class="quiet-link" href=${address("tasks", { q: `queue:"${name}"` })}>${t("queue.all")} <${Icon} name="right" size="14" /></a>`}
        >
          <${Fetched} of=${tasks}>
            ${({ tasks }) => (tasks.length ? html`<${TaskTable} tasks=${tasks} label=${t("queue.newest")} brief />` : html`<${Empty} title=${t("tasks.none")} />`)}
          <//>
        <//>
        <${Limits} name=${name} settings=${found.settings} changed=${queue.refresh} />
      </div>
    `}
  <//>`;
}

const Counts = ({ name, counts }) => html`<ul class="counts" aria-label=${t("tasks.states")}>
  ${STATES.map(
    (state) => html`<li key=${state}>
      <a data-state=${state} href=${address("tasks", { q: `state:${phasesOf(state)} queue:"${name}"` })}>
        <span class="tile-label"><${Icon} name=${state} /> ${t(`state.${state}`)}</span>
        <span class="count-value number">${number(counts[state])}</span>
      </a>
    </li>`,
  )}
</ul>`;

function Actions({ name, queue, refresh }) {
  const { paused } = queue.settings;
  const waiting = queue.counts.held + queue.counts.waiting + queue.counts.scheduled;
  const purge = () =>
    warn(
      "purge",
      async () => {
        let removed = 0;
        for (let more = true; more; ) {
          const answer = await send("POST", `${queueHref(name)}/purge`);
          removed += answer.deleted;
          more = answer.more && answer.deleted > 0;
        }
        toast(t("done.purge", { n: removed }));
        refresh();
      },
      name,
      { n: waiting },
    );
  return html`
    <${Button} icon="trash" disabled=${waiting === 0} onClick=${purge}>${t("action.purge")}<//>
    <${Button}
      kind=${paused ? "primary" : ""}
      icon=${paused ? "play" : "pause"}
      onClick=${async () => (await setPaused(name, !paused), refresh())}
    >
      ${t(paused ? "action.resume" : "action.pause")}
    <//>
  `;
}

const valuesOf = ({ concurrency, rate }) => ({
  concurrency: concurrency ? String(concurrency) : "",
  count: rate ? String(rate.count) : "",
  period: rate ? typedSpan(rate.period) : "1s",
  burst: rate ? String(rate.burst) : "1",
});

/** The limits; while they are edited, what others change does not disturb. */
function Limits({ name, settings, changed }) {
  const [edited, edit] = useState(null);
  const values = edited ?? valuesOf(settings);
  const set = (field) => (event) => edit(withField(values, field, event));
  const { act, busy, error } = useAction(async () => {
    const rate = values.count ? { count: Number(values.count), period: values.period || "1s", burst: Number(values.burst || 1) } : null;
    adopt(await send("PUT", queueHref(name), { concurrency: Number(values.concurrency) || null, rate, paused: settings.paused }));
    edit(null);
    toast(t("done.limits", { name: visible(name) }));
    changed();
  });
  const input = (field, more) => (attributes) => html`<input ...${attributes} ...${more} readonly=${!mayOperate()} value=${values[field]} onInput=${set(field)} />`;
  const whole = { type: "number", min: 1, step: 1, inputmode: "numeric" };
  return html`<${Card} title=${t("queue.limits")}>
    <form class="form" onSubmit=${act}>
      <${Field} label=${t("limits.concurrency_label")} hint=${t("limits.concurrency_hint")} wide>
        ${input("concurrency", { ...whole, placeholder: t("limits.unlimited") })}
      <//>
      <${Field} label=${t("limits.rate_label")}>${input("count", { ...whole, placeholder: t("limits.unlimited") })}<//>
      <${Field} label=${t("limits.period_label")}>${input("period", { disabled: !values.count })}<//>
      <${Field} label=${t("limits.burst_label")} hint=${t("limits.burst_hint")} wide>${input("burst", { ...whole, disabled: !values.count })}<//>
      ${settings.rate && html`<p class="muted small field-wide">${t("limits.now")} ${rateText(settings.rate)}</p>`}
      ${mayOperate() &&
      html`<div class="row field-wide">
        <${Button} kind="primary" type="submit" disabled=${!edited || busy} busy=${busy}>${t("action.save")}<//>
        ${edited && html`<${Button} onClick=${() => edit(null)}>${t("action.dismiss")}<//>`}
      </div>`}
    </form>
    <${Problem} error=${error} />
  <//>`;
}
