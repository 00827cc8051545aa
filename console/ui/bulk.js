// One thing done with many tasks: first they are counted, then it is asked, then it is done.
import { Dialog, html, Loading, Problem, send, signal, t, toast, useAction, useEffect, useState } from "../kit.js";

/** Most ids in one request. */
const IDS_MAX = 1_000;

const wished = signal(null);

/**
 * @param {"cancel"|"retry"|"start"|"delete"} action
 * @param {{q: string}|{ids: string[]}|(() => Promise<{ids: string[]}>)} which
 * @param {() => void} done
 */
export function actOn(action, which, done) {
  wished.value = { action, which, done };
}

export const BulkQuestion = () => wished.value && html`<${Bulk} ...${wished.value} close=${() => (wished.value = null)} />`;

/** Goes over all that is meant, request by request. */
async function over(action, which, dryRun, progress) {
  const total = { matched: 0, changed: 0, skipped: 0, more: false };
  const add = (answer) => {
    for (const name of ["matched", "changed", "skipped"]) total[name] += answer[name];
    progress?.({ ...total });
  };
  const base = { action, dry_run: dryRun };
  if (which.ids) {
    for (let at = 0; at < which.ids.length; at += IDS_MAX) {
      add(await send("POST", "task-actions", { ...base, ids: which.ids.slice(at, at + IDS_MAX) }));
    }
    return total;
  }
  for (let cursor = null; ; ) {
    const answer = await send("POST", "task-actions", { ...base, q: which.q, ...(cursor && { cursor }) });
    add(answer);
    cursor = answer.next;
    // Counted is only the first part: who has more than that need not know how many.
    if (!cursor || dryRun) return { ...total, more: !!cursor };
  }
}

function Bulk({ action, which: asked, done, close }) {
  const [which, found] = useState(null);
  const [counted, count] = useState(null);
  const [progress, show] = useState(null);
  const find = useAction(async () => {
    const which = typeof asked === "function" ? await asked() : asked;
    found(which);
    count(await over(action, which, true));
  });
  useEffect(() => {
    find.act();
  }, []);
  const run = useAction(async () => {
    const total = await over(action, which, false, show);
    toast(t(`bulk.done.${action}`, { n: total.changed }) + (total.skipped ? ` ${t("bulk.skipped", { n: total.skipped })}` : ""));
    close();
    done?.();
  });
  const none = counted?.matched === 0;
  const error = find.error ?? run.error;
  const wish = {
    text: counted && !none ? t(`bulk.do.${action}`, { n: counted.matched }) + (counted.more ? "+" : "") : t(`action.${action}`),
    danger: action === "cancel" || action === "delete",
    busy: run.busy,
    disabled: !counted || none,
    onClick: run.act,
  };
  return html`<${Dialog} title=${t(`bulk.title.${action}`)} onClose=${close} action=${wish}>
    ${find.busy && html`<${Loading} />`}
    ${counted &&
    html`<p role="status" class="bulk-count">
        ${none ? t("bulk.none") : t("bulk.count", { n: counted.matched })}${counted.more ? ` ${t("bulk.more")}` : ""}
      </p>
      ${counted.skipped > 0 && html`<p class="muted">${t("bulk.left", { n: counted.skipped })}</p>`}
      ${!none && html`<p class="muted">${t(`bulk.note.${action}`)}</p>`}`}
    ${run.busy && progress && html`<p role="status">${t("bulk.progress", { n: progress.changed })}</p>`}
    <${Problem} error=${error} />
  <//>`;
}
