// What is around every page: where one can go, whether it is live, language and theme.
import { bind, Button, capabilities, Dialog, Field, go, html, Icon, IconButton, keysOn, learnCapabilities, Live, locked, Looks, mayOperate, otherLanguage, place, Problem, Questions, request, send, short, speak, stats, t, toastError, Toasts, toggleKeys, togglePaused, toggleTheme, useAction, useEffect, useState, visible } from "../kit.js";

const PAGES = [
  ["", "overview", "g o"],
  ["tasks", "tasks", "g t"],
  ["queues", "queues", "g q"],
  ["workers", "workers", "g w"],
  ["failures", "failures", "g f"],
];

export function Shell({ children }) {
  const [help, showHelp] = useState(false);
  useEffect(
    () =>
      bind({
        ...Object.fromEntries(PAGES.map(([path, , keys]) => [keys, () => go(path)])),
        "g s": () => mayOperate() && go("submit"),
        "/": () => document.querySelector("[data-search]")?.focus() ?? go("tasks"),
        ".": togglePaused,
        t: toggleTheme,
        l: () => speak(otherLanguage()),
        "?": () => showHelp(true),
      }),
    [],
  );
  if (locked.value) return html`<${SignIn} /><${Toasts} />`;
  return html`<div class="shell">
    <a class="skip" href="#main" onClick=${skip}>${t("nav.skip")}</a>
    <${Side} openHelp=${() => showHelp(true)} />
    <main id="main">${children}</main>
    ${help && html`<${Help} close=${() => showHelp(false)} />`}
    <${Questions} /><${Toasts} />
  </div>`;
}

function skip(event) {
  event.preventDefault();
  document.querySelector("h1")?.focus();
}

function Side({ openHelp }) {
  const here = place.value.path.split("/")[0];
  const failed = stats.value?.totals.failed;
  return html`<header class="side">
    <a class="brand" href=".">
      <svg width="22" height="22" viewBox="0 0 22 22" aria-hidden="true">
        <rect width="22" height="22" rx="6" />
        <path d="M6 7h10M6 11h7M6 15h4" />
      </svg>
      <span>${visible(capabilities.value?.name || "lts")}</span>
    </a>
    <nav aria-label=${t("nav.pages")}>
      ${PAGES.map(
        ([path, name]) => html`<a key=${name} href=${path || "."} aria-current=${here === path ? "page" : undefined}>
          <${Icon} name=${name} /> <span>${t(`page.${name}`)}</span>
          ${name === "failures" && failed > 0 && html`<span class="nav-count number" data-state="failed">${short(failed)}</span>`}
        </a>`,
      )}
      ${mayOperate() &&
      html`<a href="submit" class="nav-submit" aria-current=${here === "submit" ? "page" : undefined}>
        <${Icon} name="submit" /> <span>${t("page.submit")}</span>
      </a>`}
    </nav>
    <div class="side-foot">
      <${Live} />
      <div class="row">
        <${Looks} />
        <${IconButton} icon="keyboard" label=${t("help.title")} onClick=${openHelp} />
        ${capabilities.value && !capabilities.value.open && html`<${IconButton} icon="exporting" label=${t("sign_in.out")} onClick=${signOut} />`}
      </div>
    </div>
  </header>`;
}

const KEYS = [
  ["help.go", PAGES.map(([, name, keys]) => [keys, `page.${name}`]).concat([["g s", "page.submit"]])],
  [
    "help.list",
    [
      ["/", "help.search"],
      ["j", "help.next"],
      ["k", "help.previous"],
      ["Enter", "help.open"],
      ["x", "help.select"],
    ],
  ],
  [
    "help.everywhere",
    [
      [".", "live.toggle"],
      ["t", "theme.toggle"],
      ["l", "help.language"],
      ["?", "help.title"],
    ],
  ],
];

const Help = ({ close }) => html`<${Dialog} title=${t("help.title")} onClose=${close} class="dialog-wide">
  <div class="help">
    ${KEYS.map(
      ([title, keys]) => html`<section key=${title}>
        <h3>${t(title)}</h3>
        <dl>
          ${keys.map(
            ([key, what]) => html`<div key=${key}>
              <dt>${key.split(" ").map((each) => html`<kbd>${each}</kbd>`)}</dt>
              <dd>${t(what)}</dd>
            </div>`,
          )}
        </dl>
      </section>`,
    )}
  </div>
  <label class="check">
    <input type="checkbox" checked=${keysOn.value} onChange=${toggleKeys} /> <span>${t("help.keys_on")}</span>
  </label>
  <p class="muted small">
    lts ${capabilities.value?.version} · <a href="docs" data-outside="1">${t("help.api")}</a>
  </p>
<//>`;

const signOut = () => request("session", { method: "DELETE" }).then(() => location.reload(), toastError);

function SignIn() {
  const [token, set] = useState("");
  const { act, busy, error } = useAction(async () => {
    await send("POST", "session", { token: token.trim() });
    await learnCapabilities();
  });
  return html`<main class="sign-in">
    <form class="card" onSubmit=${act}>
      <h1 tabindex="-1">${t("sign_in.title")}</h1>
      <p class="muted">${t("sign_in.lead")}</p>
      <${Field} label=${t("sign_in.token")}>
        ${(attributes) => html`<input
          ...${attributes}
          type="password"
          autocomplete="current-password"
          required
          value=${token}
          onInput=${(event) => set(event.target.value)}
        />`}
      <//>
      <${Problem} error=${error} />
      <${Button} kind="primary" type="submit" busy=${busy}>${t("sign_in.action")}<//>
    </form>
  </main>`;
}
