// One thing done with many tasks: first they are counted, then it is asked, then it is done.
import { html, signal, useEffect, useState } from "../lib/view.js";
import { send } from "../lib/api.js";
import { t } from "../lib/i18n.js";
import { Dialog } from "./dialog.js";
import { Button, Loading, Problem } from "./parts.js";
import { toast } from "./toast.js";

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
  const [state, set] = useState({ busy: false, error: null, progress: null });
  useEffect(() => {
    const find = async () => {
      const which = typeof asked === "function" ? await asked() : asked;
      found(which);
      count(await over(action, which, true));
    };
    find().catch((error) => set({ busy: false, error }));
  }, []);
  const run = async () => {
    set({ busy: true, error: null, progress: null });
    try {
      const total = await over(action, which, false, (progress) => set({ busy: true, error: null, progress }));
      toast(t(`bulk.done.${action}`, { n: total.changed }) + (total.skipped ? ` ${t("bulk.skipped", { n: total.skipped })}` : ""));
      close();
      done?.();
    } catch (error) {
      set({ busy: false, error, progress: null });
    }
  };
  const none = counted && counted.matched === 0;
  const footer = (dismiss) => html`
    <${Button} onClick=${dismiss}>${t("action.dismiss")}<//>
    <${Button}
      kind=${action === "retry" || action === "start" ? "primary" : "danger"}
      busy=${state.busy}
      disabled=${!counted || none || state.busy}
      onClick=${run}
    >
      ${counted && !none ? t(`bulk.do.${action}`, { n: counted.matched }) + (counted.more ? "+" : "") : t(`action.${action}`)}
    <//>
  `;
  return html`<${Dialog} title=${t(`bulk.title.${action}`)} onClose=${close} footer=${footer}>
    ${!counted && !state.error && html`<${Loading} />`}
    ${counted &&
    html`<p role="status" class="bulk-count">
        ${none ? t("bulk.none") : t("bulk.count", { n: counted.matched })}${counted.more ? ` ${t("bulk.more")}` : ""}
      </p>
      ${counted.skipped > 0 && html`<p class="muted">${t("bulk.left", { n: counted.skipped })}</p>`}
      ${!none && html`<p class="muted">${t(`bulk.note.${action}`)}</p>`}`}
    ${state.progress && html`<p role="status">${t("bulk.progress", { n: state.progress.changed })}</p>`}
    ${state.error && html`<${Problem} error=${state.error} />`}
  <//>`;
}
