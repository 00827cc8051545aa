// The console: finds the page by its address.
import { active, BulkQuestion, capabilities, changes, Empty, html, learnCapabilities, locked, matched, PageHead, place, render, startKeys, startLanguage, startLive, startRouter, t, useEffect } from "./kit.js";
import { Shell } from "./ui/shell.js";
import { Failures } from "./pages/failures.js";
import { Overview } from "./pages/overview.js";
import { Queue } from "./pages/queue.js";
import { Queues } from "./pages/queues.js";
import { Submit } from "./pages/submit.js";
import { Task } from "./pages/task.js";
import { Tasks } from "./pages/tasks.js";
import { Workers } from "./pages/workers.js";

const PAGES = {
  "": Overview,
  tasks: Tasks,
  "tasks/{id}": Task,
  queues: Queues,
  "queues/{name}": Queue,
  workers: Workers,
  failures: Failures,
  submit: Submit,
};

const NotFound = () => html`<${PageHead} title=${t("not_found.title")} />
  <${Empty} title=${t("not_found.text")} icon="search"><a href=".">${t("page.overview")}</a><//>`;

function App() {
  const found = matched(Object.keys(PAGES), place.value.path);
  const Page = found ? PAGES[found.pattern] : NotFound;
  const key = found ? found.pattern + JSON.stringify(found.parts) : place.value.path;
  useEffect(() => {
    // Who cannot see is told where they are.
    if (document.activeElement && document.activeElement !== document.body) document.querySelector("h1")?.focus({ preventScroll: true });
  }, [key]);
  return html`<${Shell}><${Page} key=${key} ...${found?.parts} /><//><${BulkQuestion} />`;
}

async function start() {
  await startLanguage();
  startRouter();
  startKeys();
  // Draws the page at once; what the server is comes when it comes.
  render(html`<${App} />`, document.body);
  startLive();
  const learn = () => capabilities.value ?? learnCapabilities().catch(() => {});
  learn();
  // A server that was not there is asked again.
  changes.subscribe(() => active.peek() && !capabilities.peek() && !locked.peek() && learn());
}

start();
