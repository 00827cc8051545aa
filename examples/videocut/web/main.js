// The management page, made of the console's parts: a form, the cuts, and the videos of the one that is chosen.
import { dictionaryPlaces, Fetched, get, html, learnCapabilities, Live, Looks, PageHead, Questions, render, startLanguage, startLive, t, Toasts, useLive, useState, visible } from "/lts/assets/latest/kit.js";
import { Cuts, Players } from "./cuts.js";
import { NewCut, ours } from "./form.js";

/** Files come and go in the directory: how often is looked, in ms. */
const LOOK_MS = 10_000;

function App() {
  const [chosen, choose] = useState(null);
  const videos = useLive("videos", (signal) => get(ours("videos"), signal), { every: LOOK_MS, events: false });
  return html`
    <header class="bar">
      <span class="brand"><${Mark} /> <span>videocut</span></span>
      <span class="space"></span>
      <${Live} />
      <a class="button quiet" href="tasks">${t("cut.console")}</a>
      <${Looks} />
    </header>
    <main class="cuts-page">
      <${PageHead} title=${t("cut.title")} lead=${t("cut.lead")} />
      <div class="cuts-top">
        <section class="card" aria-label=${t("cut.new")}>
          <h2>${t("cut.new")}</h2>
          <${Fetched} of=${videos}>${({ videos, directory }) => html`<${NewCut} videos=${videos} directory=${visible(directory)} made=${choose} />`}<//>
        </section>
        <${Players} key=${chosen} id=${chosen} />
      </div>
      <${Cuts} chosen=${chosen} choose=${choose} />
    </main>
    <${Questions} /><${Toasts} />
  `;
}

const Mark = () => html`<svg width="22" height="22" viewBox="0 0 22 22" aria-hidden="true">
  <rect width="22" height="22" rx="6" />
  <path d="M6 6l10 8M6 16l10-8M5.5 6.5h.1M5.5 15.5h.1" />
</svg>`;

dictionaryPlaces.push(new URL("./", import.meta.url));
await startLanguage();
render(html`<${App} />`, document.body);
startLive();
// Until this is known, nothing is offered that changes anything.
await learnCapabilities();
