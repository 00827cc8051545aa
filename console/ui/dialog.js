// Dialogs: the browser's own, which keeps the focus within and gives it back.
import { Button, html, IconButton, Name, Problem, signal, t, useAction, useEffect, useId, useRef } from "../kit.js";

/**
 * @param {{title: string, onClose: () => void, children: any,
 *   action?: {text: string, form?: string, danger?: boolean, busy?: boolean, disabled?: boolean, onClick?: () => void}}} props
 */
export function Dialog({ title, onClose, children, action, class: extra }) {
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
  const close = () => dialog.current.close();
  const { text, danger, busy, disabled, ...rest } = action ?? {};
  return html`<dialog
    ref=${dialog}
    class=${extra}
    aria-labelledby=${id}
    onClose=${onClose}
    onClick=${(event) => event.target === dialog.current && close()}
  >
    <div class="dialog-frame">
      <header class="card-head">
        <h2 id=${id}>${title}</h2>
        <${IconButton} icon="close" label=${t("action.close")} onClick=${close} />
      </header>
      <div class="dialog-body">${children}</div>
      ${action &&
      html`<footer class="dialog-foot">
        <${Button} onClick=${close}>${t("action.dismiss")}<//>
        <${Button} kind=${danger ? "danger" : "primary"} type=${rest.form ? "submit" : "button"} busy=${busy} disabled=${busy || disabled} ...${rest}>${text}<//>
      </footer>`}
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

/** Asks so before something that cannot be undone: in the words of this name, with the values that they need. `what` it is done to. */
export const warn = (name, run, what, values) =>
  ask({
    title: t(`ask.${name}`),
    text: html`<p>${t(`ask.${name}_text`, values)}</p>
      ${what && html`<p><${Name}>${what}<//></p>`}`,
    action: t(`ask.${name}_do`),
    danger: true,
    run,
  });

/** Where questions appear. */
export function Questions() {
  const question = asked.value;
  return question && html`<${Question} key=${question.title} ...${question} />`;
}

function Question({ title, text, action, danger, run }) {
  const close = () => (asked.value = null);
  const { act, busy, error } = useAction(() => run().then(close));
  return html`<${Dialog} title=${title} onClose=${close} action=${{ text: action, danger, busy, onClick: act }}>
    ${text}<${Problem} error=${error} />
  <//>`;
}
