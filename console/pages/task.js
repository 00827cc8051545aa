// One task: where it stands, what it writes, what it was given and gave, and what can be done with it.
import { address, Ago, Button, bytes, Card, Clock, Copy, Dialog, duration, Empty, failureKind, Fetched, Field, get, getText, go, html, Icon, IconButton, Json, Log, Mark, mayOperate, memberText, Meter, Name, now, PageHead, parseSpan, part, percent, pretty, Problem, request, send, StateMark, t, taskHref, titleOf, toast, toastError, Took, typedSpan, useAction, useEffect, useLive, useState, useValues, visible, warn } from "../kit.js";

/** How often a running task is looked at for its progress, in ms. */
const PROGRESS_MS = 2_000;
/** Largest result that is shown, in bytes. */
const RESULT_SHOWN_MAX = 1 << 20;

const ended = (task) => ["succeeded", "failed", "cancelled"].includes(task.state);

async function fetchTask(id, signal) {
  const [text, attempts] = await Promise.all([getText(`tasks/${part(id)}`, signal), get(`tasks/${part(id)}/attempts`, signal)]);
  return { ...JSON.parse(text), attempts, payloadText: memberText(text, "payload"), resultText: memberText(text, "result") };
}

export function Task({ id }) {
  const [every, look] = useState();
  const fetched = useLive(id, (signal) => fetchTask(id, signal), { every });
  const running = fetched.data && !ended(fetched.data);
  useEffect(() => look(running ? PROGRESS_MS : undefined), [running]);
  if (fetched.error?.status === 404) {
    return html`<${PageHead} title=${t("task.gone")} crumbs=${html`<${Crumbs} />`} />
      <${Empty} icon="search" title=${t("task.gone_text")}><bdi class="mono">${visible(id)}</bdi><//>`;
  }
  return html`<${Fetched} of=${fetched}>${(task) => html`<${Whole} task=${task} refresh=${fetched.refresh} error=${fetched.error} />`}<//>`;
}

const Crumbs = () => html`<a href="tasks">${t("page.tasks")}</a>`;

function Whole({ task, refresh, error }) {
  const running = !ended(task);
  const [execution, choose] = useState(null);
  const shown = execution ?? task.execution;
  const latest = shown === task.execution;
  return html`
    <${PageHead} name=${titleOf(task)} title=${html`<bdi class="mono task-title">${titleOf(task)}</bdi>`} crumbs=${html`<${Crumbs} />`}>
      ${mayOperate() && html`<${Actions} task=${task} refresh=${refresh} />`}
    <//>
    <${Problem} error=${error} retry=${refresh} />
    <div class="task-line">
      <${StateMark} phase=${task.phase} pill />
      <span class="muted"><${Name}>${task.kind}<//></span>
      <span class="id-line mono"><bdi>${visible(task.id)}</bdi><${Copy} text=${task.id} label=${t("task.copy_id")} /></span>
    </div>
    ${task.stop_unconfirmed && html`<p class="note" data-state="failed"><${Icon} name="failures" /> ${t("task.stop_unconfirmed")}</p>`}
    <${Timeline} task=${task} />
    <${Why} task=${task} />
    <${Progress} task=${task} />
    <div class="task-page">
      <div class="task-main">
        <${Card} title=${latest ? t("task.log") : t("task.log_of", { n: shown })} class="flush">
          <${Log} key=${`${task.id} ${shown}`} id=${task.id} execution=${shown} latest=${latest} running=${running} />
        <//>
        ${task.payloadText !== undefined &&
        html`<${Card}
          title=${t("task.payload")}
          actions=${html`<span class="muted small">${bytes(task.payload_bytes)}</span><${Copy} text=${task.payloadText} label=${t("action.copy")} />`}
        >
          <${Json} text=${task.payloadText} label=${t("task.payload")} />
        <//>`}
        <${Result} task=${task} />
      </div>
      <aside class="task-aside" aria-label=${t("task.facts")}>
        <${Facts} task=${task} />
        <${Attempts} task=${task} shown=${shown} choose=${choose} />
      </aside>
    </div>
  `;
}

/** Where it has been and where it is: with the time that each step took. */
function Timeline({ task }) {
  const steps = [{ icon: "submit", name: t("step.submitted"), at: task.created_at }];
  const begun = ["running", "exporting", "succeeded", "failed"].includes(task.state) || (task.state === "cancelled" && task.started_at);
  if (!begun && task.state !== "cancelled") {
    const until = (task.phase === "scheduled" || task.phase === "retrying") && task.run_at;
    steps.push({ icon: task.phase, name: t(`state.${task.phase}`), at: until, current: true, future: until && Date.parse(until) > now.value });
  }
  if (begun) {
    const name = task.attempt > 1 ? t("step.attempt", { n: task.attempt }) : t("step.started");
    steps.push({ icon: "running", name, at: task.started_at, current: task.state === "running" });
  } else if (task.state !== "cancelled") steps.push({ icon: "running", name: t("step.started"), ahead: true });
  if (task.state === "exporting") steps.push({ icon: "exporting", name: t("state.exporting"), current: true });
  if (task.phase === "cancelling") steps.push({ icon: "cancelling", name: t("state.cancelling"), current: true });
  if (ended(task)) steps.push({ icon: task.state, name: t(`state.${task.state}`), at: task.finished_at, current: true });
  else steps.push({ icon: task.cancel_requested ? "cancelled" : "succeeded", name: t("step.end"), ahead: true });
  const between = (at) => {
    const [from, to] = [steps[at - 1]?.at, steps[at].at ?? (steps[at - 1]?.current ? new Date(now.value).toISOString() : null)];
    if (!from || !to || steps[at].future || steps[at - 1].future) return null;
    return duration(Math.max(0, Date.parse(to) - Date.parse(from)));
  };
  return html`<ol class="timeline" aria-label=${t("task.timeline")}>
    ${steps.map(
      ({ icon, name, at, current, ahead }, n) => html`<li
        key=${name}
        class=${ahead ? "ahead" : ""}
        data-state=${current ? (icon === "submit" ? "waiting" : icon) : undefined}
        aria-current=${current ? "step" : undefined}
      >
        ${n > 0 && html`<span class="timeline-took muted number">${between(n) ?? ""}</span>`}
        <span class="timeline-dot"><${Icon} name=${icon} size="14" /></span>
        <span class="timeline-name">${name}</span>
        <span class="timeline-at muted">${at && html`<${Clock} at=${at} />`}</span>
      </li>`,
    )}
  </ol>`;
}

function Why({ task }) {
  const { failure } = task;
  if (!failure || task.state === "succeeded" || (task.state === "running" && !task.cancel_requested)) return null;
  if (failure.kind === "cancelled") return null;
  return html`<section class="why" data-state=${task.state === "failed" ? "failed" : "retrying"} aria-label=${t("task.failure")}>
    <${Icon} name="failures" />
    <div>
      <h2>
        ${failureKind(failure.kind)}
        ${failure.exit_code != null && html`<span class="muted"> · ${t("task.exit_code", { n: failure.exit_code })}</span>`}
        ${failure.fatal && html`<span class="muted"> · ${t("task.fatal")}</span>`}
      </h2>
      <pre>${visible(failure.message)}</pre>
      ${task.phase === "retrying" &&
      html`<p class="muted">${t("task.next_attempt", { n: task.attempt + 1, max: task.retry.max_attempts })} <${Ago} at=${task.run_at} /></p>`}
    </div>
  </section>`;
}

function Progress({ task }) {
  if (!task.progress || task.state !== "running") return null;
  const { done, total, message } = task.progress;
  return html`<section class="progress" aria-label=${t("task.progress")}>
    <div class="row">
      <span>${visible(message) || t("task.progress")}</span><span class="space"></span>
      ${total > 0 && html`<span class="number">${percent(done / total)}</span>`}
    </div>
    ${total > 0 && html`<${Meter} value=${done} max=${total} label=${t("task.progress")} />`}
  </section>`;
}

function Facts({ task }) {
  const result = task.kind === "process" && task.resultText ? JSON.parse(task.resultText) : null;
  const fact = (name, value) => value != null && html`<div key=${name}><dt>${t(`fact.${name}`)}</dt><dd>${value}</dd></div>`;
  const labels = Object.entries(task.labels);
  return html`<${Card} title=${t("task.facts")}>
    <dl class="facts">
      ${fact("queue", html`<a href=${`queues/${part(task.queue)}`}><${Name}>${task.queue}<//></a>`)}
      ${fact("ran", task.started_at && html`<${Took} from=${task.started_at} to=${task.finished_at ?? (task.state === "waiting" ? task.started_at : null)} />`)}
      ${fact("exit_code", result?.exit_code)} ${fact("memory", result?.max_rss_kib != null ? bytes(result.max_rss_kib * 1024) : null)}
      ${fact("cpu", result?.user_ms != null ? duration(result.user_ms + (result.sys_ms ?? 0)) : null)}
      ${fact("attempt", t("fact.attempt_of", { n: task.attempt, max: task.retry.max_attempts }))}
      ${fact("interruptions", task.interruptions > 0 ? task.interruptions : null)}
      ${fact("priority", task.priority !== 0 ? task.priority : null)}
      ${fact("timeout", task.timeout ? duration(parseSpan(task.timeout) ?? 0) : null)}
      ${fact("deadline", task.deadline && html`<${Clock} at=${task.deadline} />`)}
      ${fact("run_at", task.run_at !== task.created_at && !ended(task) ? html`<${Ago} at=${task.run_at} />` : null)}
      ${fact("created", html`<${Ago} at=${task.created_at} />`)}
      ${fact("worker", task.worker && html`<a class="mono small" href=${address("tasks", { q: `worker:${task.worker}` })}>${visible(task.worker)}</a>`)}
      ${fact(
        "labels",
        labels.length > 0
          ? labels.map(
              ([name, value]) => html`<a class="label" key=${name} href=${address("tasks", { q: `label.${name}:"${value}"` })}
                ><bdi>${visible(name)}</bdi>=<bdi>${visible(value)}</bdi></a
              >`,
            )
          : null,
      )}
    </dl>
  <//>`;
}

function Attempts({ task, shown, choose }) {
  if (!task.attempts.length) return null;
  return html`<${Card} title=${t("task.attempts")} class="flush">
    <ol class="attempts">
      ${[...task.attempts].reverse().map((attempt) => {
        const state = ["succeeded", "running", "exporting", "cancelled"].includes(attempt.outcome) ? attempt.outcome : "failed";
        return html`<li key=${attempt.execution}>
          <button
            type="button"
            aria-pressed=${attempt.execution === shown}
            title=${t("task.show_log")}
            onClick=${() => choose(attempt.execution === task.execution ? null : attempt.execution)}
          >
            <${Mark} as=${state}>${t("task.attempt", { n: attempt.attempt })}<//>
            <span class="muted number"><${Took} from=${attempt.started_at} to=${attempt.ended_at} /></span>
            <span class="attempt-why muted">
              ${attempt.failure
                ? `${failureKind(attempt.failure.kind)}${attempt.failure.exit_code != null ? ` · ${t("task.exit_code", { n: attempt.failure.exit_code })}` : ""}`
                : t(`state.${state}`)}
            </span>
          </button>
        </li>`;
      })}
    </ol>
  <//>`;
}

function Result({ task }) {
  const [loaded, load] = useState(null);
  useEffect(() => load(null), [task.id, task.execution, task.result_bytes]);
  if (task.state !== "succeeded" || !task.result_bytes) return null;
  const text = task.resultText ?? loaded;
  const fetchIt = () => getText(`tasks/${part(task.id)}/result`).then(load, toastError);
  const size = html`<span class="muted small">${bytes(task.result_bytes)}</span>`;
  return html`<${Card}
    title=${t("task.result")}
    actions=${html`${size}${text != null && html`<${Copy} text=${text} label=${t("action.copy")} />`}
      <a class="button icon-button" href=${`api/v1/tasks/${part(task.id)}/result`} download aria-label=${t("task.download_result")} title=${t("task.download_result")}
        ><${Icon} name="download"
      /></a>`}
  >
    ${text != null
      ? html`<${Json} text=${text} label=${t("task.result")} />`
      : task.result_bytes <= RESULT_SHOWN_MAX
        ? html`<${Button} onClick=${fetchIt}>${t("task.show_result")}<//>`
        : html`<p class="muted">${t("task.result_large")}</p>`}
  <//>`;
}

function Actions({ task, refresh }) {
  const [cloning, clone] = useState(false);
  const [rescheduling, reschedule] = useState(false);
  const path = `tasks/${part(task.id)}`;
  const act = (action) =>
    send("POST", `${path}/${action}`).then(() => {
      toast(t(`done.${action}`));
      refresh();
    }, toastError);
  const cancel = () =>
    warn("cancel", async () => {
      await send("POST", `${path}/cancel`);
      toast(t("done.cancel"));
      refresh();
    });
  const remove = () =>
    warn(
      "delete",
      async () => {
        await request(path, { method: "DELETE" });
        toast(t("done.delete"));
        go("tasks");
      },
      task.id,
    );
  const done = ended(task);
  const exportFailed = task.state === "failed" && task.failure?.kind === "export";
  return html`
    ${task.state === "held" && html`<${Button} kind="primary" icon="play" onClick=${() => act("start")}>${t("action.start")}<//>`}
    ${exportFailed && html`<${Button} kind="primary" icon="exporting" onClick=${() => act("retry-export")}>${t("action.retry-export")}<//>`}
    ${done && html`<${Button} kind=${task.state === "failed" && !exportFailed ? "primary" : ""} icon="retrying" onClick=${() => act("retry")}>${t("action.retry")}<//>`}
    ${(task.state === "held" || task.state === "waiting") && html`<${Button} icon="scheduled" onClick=${() => reschedule(true)}>${t("action.reschedule")}<//>`}
    ${!done && html`<${Button} icon="stop" disabled=${task.cancel_requested} onClick=${cancel}>${t("action.cancel")}<//>`}
    <${Button} icon="edit" onClick=${() => clone(true)}>${t("action.clone")}<//>
    ${(done || task.state === "held") && html`<${IconButton} icon="trash" label=${t("action.delete")} onClick=${remove} />`}
    ${cloning && html`<${Clone} task=${task} close=${() => clone(false)} />`}
    ${rescheduling && html`<${Reschedule} task=${task} close=${() => reschedule(false)} refresh=${refresh} />`}
  `;
}

/** Another time, or another priority: only what is filled in is changed. */
function Reschedule({ task, close, refresh }) {
  const [values, edit] = useValues({ delay: "", priority: String(task.priority) });
  const { act, busy, error } = useAction(async () => {
    const to = {};
    if (values.delay.trim()) to.delay = values.delay.trim();
    if (Number(values.priority) !== task.priority) to.priority = Number(values.priority);
    await send("POST", `tasks/${part(task.id)}/reschedule`, to);
    toast(t("done.reschedule"));
    close();
    refresh();
  });
  return html`<${Dialog} title=${t("reschedule.title")} onClose=${close} action=${{ text: t("reschedule.do"), form: "reschedule", busy }}>
    <form id="reschedule" class="form" onSubmit=${act}>
      <${Field} label=${t("reschedule.delay")} hint=${t("reschedule.delay_hint")}>
        ${(attributes) => html`<input ...${attributes} value=${values.delay} placeholder="0s" onInput=${edit("delay")} />`}
      <//>
      <${Field} label=${t("fact.priority")}>
        ${(attributes) => html`<input ...${attributes} type="number" value=${values.priority} onInput=${edit("priority")} />`}
      <//>
    </form>
    <${Problem} error=${error} />
  <//>`;
}

/** A new task like this one, with changes: its payload is edited as text, so that no number is changed by the way. */
function Clone({ task, close }) {
  const first = task.payloadText === undefined ? null : pretty(task.payloadText);
  const [values, edit] = useValues({
    payload: first,
    queue: task.queue,
    priority: String(task.priority),
    timeout: task.timeout ? typedSpan(task.timeout) : "",
    attempts: String(task.retry.max_attempts),
    held: false,
  });
  const { act, busy, error } = useAction(async () => {
    const made = await send("POST", `tasks/${part(task.id)}/clone`, changesText(task, first, values));
    toast(t("done.clone"));
    close();
    go(taskHref(made.id));
  });
  const input = (name, type = "text") => (attributes) => html`<input ...${attributes} type=${type} value=${values[name]} onInput=${edit(name)} />`;
  return html`<${Dialog} title=${t("clone.title")} class="dialog-wide" onClose=${close} action=${{ text: t("page.submit"), form: "clone", busy }}>
    <form id="clone" class="form" onSubmit=${act}>
      ${first !== null &&
      html`<${Field} label=${t("task.payload")} wide>
        ${(attributes) => html`<textarea ...${attributes} class="mono" rows="9" spellcheck="false" value=${values.payload} onInput=${edit("payload")}></textarea>`}
      <//>`}
      <${Field} label=${t("fact.queue")}>${input("queue")}<//>
      <${Field} label=${t("fact.priority")}>${input("priority", "number")}<//>
      <${Field} label=${t("fact.timeout")} hint=${t("submit.span_hint")}>${input("timeout")}<//>
      <${Field} label=${t("submit.attempts")}>${input("attempts", "number")}<//>
      <label class="check field-wide">
        <input type="checkbox" checked=${values.held} onChange=${edit("held")} />
        <span>${t("submit.held")}</span>
      </label>
    </form>
    <${Problem} error=${error} />
  <//>`;
}

/** Only what is another, as JSON text. */
function changesText(task, first, values) {
  const changes = [];
  const change = (name, text) => changes.push(`${JSON.stringify(name)}:${text}`);
  if (first !== null && values.payload !== first) change("payload", values.payload.trim() || "null");
  if (values.queue !== task.queue) change("queue", JSON.stringify(values.queue));
  if (Number(values.priority) !== task.priority) change("priority", String(Number(values.priority)));
  if (values.timeout && values.timeout !== typedSpan(task.timeout)) change("timeout", JSON.stringify(values.timeout));
  if (Number(values.attempts) !== task.retry.max_attempts) change("retry", JSON.stringify({ ...task.retry, max_attempts: Number(values.attempts) }));
  if (values.held) change("held", "true");
  return `{${changes.join(",")}}`;
}
