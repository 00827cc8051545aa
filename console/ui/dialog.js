// Dialogs: the browser's own, which keeps the focus within and gives it back.
import { html, signal, useEffect, useId, useRef, useState } from "../lib/view.js";
import { t } from "../lib/i18n.js";
import { Button, IconButton, Problem } from "./parts.js";

/** @param {{title: string, onClose: () => void, footer?: any, children: any}} props */
export function Dialog({ title, onClose, children, footer, class: extra = "" }) {
  const dialog = useRef(null);
  const id = useId();
  useEffect(() => {
    const before = document.activeElement;
    dialog.current.showModal();
    return () => {
      // The browser gives the focus back when it is closed, but not when it is taken away.
      if (before?.isConnected) before.focus();
      else document.querySelector("h1")?.focus();
    };
  }, []);
  return html`<dialog
    ref=${dialog}
    class=${extra}
    aria-labelledby=${id}
    onClose=${onClose}
    onClick=${(event) => event.target === dialog.current && dialog.current.close()}
  >
    <div class="dialog-frame">
      <header class="card-head">
        <h2 id=${id}>${title}</h2>
        <${IconButton} icon="close" label=${t("action.close")} onClick=${() => dialog.current.close()} />
      </header>
      <div class="dialog-body">${children}</div>
      ${footer && html`<footer class="dialog-foot">${footer(() => dialog.current.close())}</footer>`}
    </div>
  </dialog>`;
}

const asked = signal(null);

/**
 * Asks before something is done, and does it in the dialog, which stays open with the error if it fails.
 * @param {{title: string, text: any, action: string, danger?: boolean, run: () => Promise<void>}} question
 */
export function ask(question) {
  asked.value = question;
}

/** Where questions appear. */
export function Questions() {
  const question = asked.value;
  return question && html`<${Question} key=${question.title} ...${question} />`;
}

function Question({ title, text, action, danger, run }) {
  const [state, set] = useState({ busy: false, error: null });
  const close = () => (asked.value = null);
  const confirm = async () => {
    set({ busy: true, error: null });
    try {
      await run();
      close();
    } catch (error) {
      set({ busy: false, error });
    }
  };
  const footer = (dismiss) => html`
    <${Button} onClick=${dismiss}>${t("action.dismiss")}<//>
    <${Button} kind=${danger ? "danger" : "primary"} busy=${state.busy} disabled=${state.busy} onClick=${confirm}>
      ${action}
    <//>
  `;
  return html`<${Dialog} title=${title} onClose=${close} footer=${footer}>
    ${text}${state.error && html`<${Problem} error=${state.error} />`}
  <//>`;
}
