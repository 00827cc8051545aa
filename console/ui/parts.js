// The small parts that pages are made of.
import { clock, dark, duration, has, html, Icon, IconButton, language, LANGUAGES, link, mayOperate, moment, now, relative, speak, t, toast, togglePaused, toggleTheme, useEffect, useId, useRef, useState, visible } from "../kit.js";

/** A drawing, a word and a colour: those of a phase. */
export const Mark = ({ as, class: extra = "", children }) => html`<span class=${`state ${extra}`} data-state=${as}><${Icon} name=${as} /> ${children}</span>`;

/** A state or phase. */
export const StateMark = ({ phase, pill }) => html`<${Mark} as=${phase} class=${pill ? "state-pill" : ""}>${t(`state.${phase}`)}<//>`;

/** How long ago something was, with the moment itself as a hint. */
export function Ago({ at }) {
  if (!at) return html`<span class="muted">–</span>`;
  return html`<time datetime=${at} title=${moment(at)}>${relative(Date.parse(at) - now.value)}</time>`;
}

export const Clock = ({ at }) => html`<time datetime=${at} title=${moment(at)}>${clock(at)}</time>`;

/** How long something took, or has taken so far. */
export function Took({ from, to }) {
  if (!from) return html`<span class="muted">–</span>`;
  const end = to ? Date.parse(to) : now.value;
  return html`<span class="number">${duration(Math.max(0, end - Date.parse(from)))}</span>`;
}

/** A name that somebody else gave: kept apart from the text around it. */
export const Name = ({ children }) => html`<bdi class="name">${visible(children)}</bdi>`;

export function Button({ icon, kind = "", children, busy, ...rest }) {
  return html`<button type="button" class=${`button ${kind}`} aria-busy=${busy ? "true" : undefined} ...${rest}>
    ${icon && html`<${Icon} name=${icon} />`} ${children && html`<span>${children}</span>`}
  </button>`;
}

/** One of a few choices, of which one holds. */
export const Choice = ({ label, options, value, onChange }) => html`<div class="choice" role="group" aria-label=${label}>
  ${options.map(
    ([key, text]) => html`<button type="button" key=${key} aria-pressed=${key === value} onClick=${() => onChange(key)}>
      ${text}
    </button>`,
  )}
</div>`;

export const Card = ({ title, actions, children, class: extra = "" }) => html`<section class=${`card ${extra}`}>
  ${title && html`<header class="card-head"><h2>${title}</h2>${actions && html`<div class="row">${actions}</div>`}</header>`} ${children}
</section>`;

export const Empty = ({ title, children, icon = "tasks" }) => html`<div class="empty">
  <${Icon} name=${icon} size="24" />
  <p class="empty-title">${title}</p>
  ${children && html`<div class="muted">${children}</div>`}
</div>`;

/** What a list is shown on; where there is nothing in it, this is said of things of this name. */
export const ListCard = ({ of, name, icon = name, children }) =>
  of.length ? html`<div class="card flush">${children}</div>` : html`<div class="card"><${Empty} icon=${icon} title=${t(`none.${name}`)}>${t(`none_text.${name}`)}<//></div>`;

/** Something that is done upon a wish: whether it goes on, and why it failed. `act` serves as a handler of events. */
export function useAction(run) {
  const [state, set] = useState({ busy: false, error: null });
  const act = async (event) => {
    event?.preventDefault?.();
    set({ busy: true, error: null });
    const error = await run().then(
      () => null,
      (error) => error,
    );
    set({ busy: false, error });
  };
  return { ...state, act };
}

/** Why something cannot be shown. */
export const Problem = ({ error, retry }) =>
  error &&
  html`<div class="problem" role="alert">
  <${Icon} name="failures" />
  <div>
    <strong>${error.title ?? t("problem.internal")}</strong>
    ${error.message && html`<p>${visible(error.message)}</p>`}
  </div>
  ${retry && html`<${Button} onClick=${retry}>${t("action.again")}<//>`}
</div>`;

/** Waits a moment before it says that it waits: what comes at once needs no word. */
export function Loading() {
  const [seen, see] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => see(true), 300);
    return () => clearTimeout(timer);
  }, []);
  return html`<p class="loading muted" aria-live="polite">${seen && t("loading")}</p>`;
}

/** What was fetched: the problem, nothing yet, or what it is. */
export function Fetched({ of: { data, error, refresh }, children }) {
  if (data === undefined) return error ? html`<${Problem} error=${error} retry=${refresh} />` : html`<${Loading} />`;
  return children(data);
}

/** A page's title and what can be done there; with its name as text where the title is more. */
export function PageHead({ title, name = title, lead, children, crumbs }) {
  useEffect(() => {
    document.title = `${name} · lts`;
  }, [name]);
  return html`<header class="page-head">
    <div class="page-title">
      ${crumbs && html`<nav class="crumbs" aria-label=${t("nav.crumbs")}>${crumbs}</nav>`}
      <h1 tabindex="-1">${title}</h1>
      ${lead && html`<p class="muted">${lead}</p>`}
    </div>
    ${children && html`<div class="row page-actions">${children}</div>`}
  </header>`;
}

/** Puts text where it can be pasted from; also where the page is not from a safe origin. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = Object.assign(document.createElement("textarea"), { value: text, className: "off-screen" });
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    if (!done) return toast(t("copy.failed"), "failed");
  }
  toast(t("copy.done"));
}

export const Copy = ({ text, label }) => html`<${IconButton} icon="copy" label=${label} onClick=${() => copy(text)} />`;

/** A field of a form with its label, hint and error. `children(attributes)` is the control. */
export function Field({ label, hint, error, children, wide }) {
  const id = useId();
  const described = [hint && `${id}-hint`, error && `${id}-error`].filter(Boolean).join(" ") || undefined;
  return html`<div class=${`field ${wide ? "field-wide" : ""}`}>
    <label for=${id}>${label}</label>
    ${children({ id, "aria-describedby": described, "aria-invalid": error ? "true" : undefined })}
    ${hint && html`<p class="hint" id=${`${id}-hint`}>${hint}</p>`}
    ${error && html`<p class="field-error" id=${`${id}-error`}><${Icon} name="failures" size="14" /> ${error}</p>`}
  </div>`;
}

/** The values of a form, with what was typed or ticked in the field of a name. */
export const withField = (values, name, { target }) => ({ ...values, [name]: target.type === "checkbox" ? target.checked : target.value });

/** The values of a form, and what makes the handler of a field. */
export function useValues(first) {
  const [values, set] = useState(first);
  return [values, (name) => (event) => set(withField(values, name, event))];
}

/** How much of a whole is taken. */
export function Meter({ value, max, label }) {
  const bar = useRef(null);
  const part = max > 0 ? Math.min(1, value / max) : 0;
  useEffect(() => {
    bar.current.style.width = `${part * 100}%`;
  }, [part]);
  return html`<div
    class="meter"
    role="meter"
    aria-label=${label}
    aria-valuemin="0"
    aria-valuemax=${max}
    aria-valuenow=${Math.min(value, max)}
  >
    <div ref=${bar}></div>
  </div>`;
}

/** A table that can be moved sideways where it has no room; `head` are its columns: text, or text and a class. */
export const Table = ({ label, head, children, class: extra, scroll = "" }) => html`<div class=${`table-scroll ${scroll}`} tabindex="0" role="group" aria-label=${label}>
  <table class=${extra}>
    <thead>
      <tr>
        ${head.filter(Boolean).map(([content, kind], at) => html`<th key=${at} scope="col" class=${kind}>${content}</th>`)}
      </tr>
    </thead>
    <tbody>
      ${children}
    </tbody>
  </table>
</div>`;

/** The head of a column of buttons. */
export const actionsHead = () => mayOperate() && [html`<span class="off-screen">${t("column.actions")}</span>`];

/** The kind of a failure in words. */
export const failureKind = (kind) => (has(`failure.${kind}`) ? t(`failure.${kind}`) : kind);

export const otherLanguage = () => Object.keys(LANGUAGES).find((name) => name !== language.value);

/** Theme and language. */
export const Looks = () => html`
  <${IconButton}
    icon=${dark.value ? "sun" : "moon"}
    label=${t("theme.toggle")}
    onClick=${toggleTheme}
  />
  <button type="button" class="button icon-button" lang=${otherLanguage()} onClick=${() => speak(otherLanguage())}>
    ${language.value === "en" ? "中文" : "EN"}
  </button>
`;

/** Whether what is shown follows the server; pressed, it does not. */
export const Live = () => {
  const state = link.value;
  return html`<button
    type="button"
    class="live"
    data-link=${state}
    aria-pressed=${state === "paused"}
    title=${t("live.toggle")}
    onClick=${togglePaused}
  >
    <span class="dot" aria-hidden="true"></span>
    <span>${t(`live.${state}`)}</span>
    <${Icon} name=${state === "paused" ? "play" : "pause"} size="14" />
  </button>`;
};
