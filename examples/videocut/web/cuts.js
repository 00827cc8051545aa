// The cuts, a page at a time, what can be done with each, and its videos.
import { Ago, ask, Card, Empty, Fetched, get, html, Icon, IconButton, mayOperate, Meter, onMove, Pager, part, percent, request, send, StateMark, t, Table, toast, toastError, Took, useEffect, useLive, useState, visible, withParams } from "/lts/assets/latest/kit.js";
import { ours } from "./form.js";

const PAGE = 10;
/** How often is looked how far they are that run, in ms: no event tells that. */
const PROGRESS_MS = 1_000;
const ended = (task) => ["succeeded", "failed", "cancelled"].includes(task.state);

export function Cuts({ chosen, choose }) {
  const [{ cursor, trail }, turn] = useState({ cursor: null, trail: [] });
  const [every, look] = useState();
  const fetched = useLive(`cuts ${cursor}`, (signal) => get(withParams("tasks", { q: "kind:videocut", cursor, limit: PAGE }), signal), { every });
  const running = fetched.data?.tasks.some(({ state }) => state === "running");
  useEffect(() => look(running ? PROGRESS_MS : undefined), [running]);
  // What moves is seen to move at once; the rest of the row comes with the next look.
  const [moved, move] = useState({});
  useEffect(() => onMove(({ id, state }) => move((moved) => ({ ...moved, [id]: state }))), []);
  useEffect(() => move({}), [fetched.data]);
  return html`<${Fetched} of=${fetched}>
    ${({ tasks, next }) => html`
      ${tasks.length
        ? html`<${Card} class="flush">
            <${Table} label=${t("cut.title")} head=${columns()} class="cut-table">
              ${tasks.map((task) => {
                const state = moved[task.id];
                const now = state && state !== task.state ? { ...task, state, phase: state } : task;
                return html`<${Row} key=${task.id} task=${now} chosen=${task.id === chosen} choose=${choose} refresh=${fetched.refresh} />`;
              })}
            <//>
          <//>`
        : html`<${Card}><${Empty} title=${t("cut.none")}>${t("cut.none_text")}<//><//>`}
      <${Pager} cursor=${cursor} next=${next} trail=${trail} to=${(cursor, trail) => turn({ cursor, trail })} />
    `}
  <//>`;
}

const columns = () => [
  [t("column.state"), "state-cell"],
  [t("cut.piece")],
  [t("column.created"), "wide-only right"],
  [t("column.took"), "wide-only right"],
  [t("column.actions"), "right"],
];

/** What a cut is called: its video and its range, else its id. */
export function named({ id, labels: { video, from, to } }) {
  return video ? t("cut.name", { video: visible(video), from: Number(from), to: Number(to) }) : visible(id);
}

function Row({ task, chosen, choose, refresh }) {
  const { id, state } = task;
  const failure = state === "failed" && task.failure;
  return html`<tr class="task-row" aria-selected=${chosen ? "true" : "false"} onClick=${(event) => !event.target.closest("button, a") && choose(id)}>
    <td class="state-cell"><${StateMark} phase=${task.phase} /></td>
    <td class="task-cell">
      <button type="button" class="cut-name task-link" aria-pressed=${chosen} onClick=${() => choose(id)}><bdi>${named(task)}</bdi></button>
      <span class="task-sub muted">
        ${failure ? html`<span class="failure-text" title=${visible(failure.message)}>${visible(failure.message.split("\n")[0])}</span>` : html`<${Far} task=${task} />`}
      </span>
    </td>
    <td class="wide-only right"><${Ago} at=${task.created_at} /></td>
    <td class="wide-only right"><${Took} from=${task.started_at} to=${task.finished_at ?? (state === "running" || state === "exporting" ? null : task.started_at)} /></td>
    <td class="right cut-actions">
      <a class="button icon-button" href=${`tasks/${part(id)}`} title=${t("cut.details")} aria-label=${t("cut.do", { action: t("cut.details"), what: named(task) })}><${Icon} name="info" /></a>
      ${mayOperate() && html`<${Actions} task=${task} refresh=${refresh} />`}
    </td>
  </tr>`;
}

/** How far it is, or else which one it is. */
function Far({ task }) {
  if (task.state !== "running" || !task.progress?.total) return html`<span class="mono">${visible(task.id)}</span>`;
  const { done, total } = task.progress;
  return html`<span class="far"><${Meter} value=${done} max=${total} label=${t("task.progress")} /><span class="number">${percent(done / total)}</span></span>`;
}

function Actions({ task, refresh }) {
  const { id, state } = task;
  const what = named(task);
  const order = (action) => () =>
    send("POST", `tasks/${part(id)}/${action}`).then(() => (toast(t(`done.${action}`)), refresh()), toastError);
  const remove = () =>
    ask({
      title: t("ask.delete"),
      text: html`<p>${what}</p><p class="muted">${t("cut.delete_text")}</p>`,
      action: t("action.delete"),
      danger: true,
      run: async () => {
        await request(`tasks/${part(id)}`, { method: "DELETE" });
        toast(t("done.delete"));
        refresh();
      },
    });
  const button = (icon, action, onClick) => html`<${IconButton} icon=${icon} label=${t("cut.do", { action, what })} onClick=${onClick} />`;
  return html`
    ${state === "held" && button("play", t("action.start"), order("start"))}
    ${(state === "failed" || state === "cancelled") && button("retrying", t("action.retry"), order("retry"))}
    ${(state === "waiting" || state === "running") && !task.cancel_requested && button("stop", t("cut.stop"), order("cancel"))}
    ${(state === "held" || ended(task)) && button("trash", t("action.delete"), remove)}
  `;
}

/** The video before and after. */
export function Players({ id }) {
  const fetched = useLive(id, (signal) => get(ours(`cuts/${part(id)}`), signal));
  if (id === null) return html`<${Card} class="players"><${Empty} icon="play" title=${t("cut.choose")} /><//>`;
  if (fetched.error?.status === 404) return html`<${Card} class="players"><${Empty} icon="play" title=${t("cut.gone")} /><//>`;
  return html`<${Card} class="players">
    <${Fetched} of=${fetched}>
      ${({ before, after, from, to, state }) => html`<div class="screens">
        <${Screen} title=${t("cut.before")} video=${before} at=${`#t=${from},${to}`} none=${t("cut.before_gone")} />
        <${Screen} title=${t("cut.after")} video=${after} at="" none=${t(state === "succeeded" ? "cut.after_gone" : "cut.after_none")} />
      </div>`}
    <//>
  <//>`;
}

const Screen = ({ title, video, at, none }) => html`<figure class="screen">
  <figcaption><h2>${title}</h2> ${video && html`<bdi class="muted small">${visible(video.name)}</bdi>`}</figcaption>
  ${video
    ? html`<video key=${video.id} src=${ours(`media/${part(video.id)}`).href + at} controls preload="metadata" playsinline aria-label=${`${title}: ${visible(video.name)}`}></video>`
    : html`<p class="screen-none muted">${none}</p>`}
</figure>`;
