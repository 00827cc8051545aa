// The console: finds the page by its address.
import { active, BulkQuestion, capabilities, changes, html, learnCapabilities, locked, matched, place, render, startKeys, startLanguage, startLive, startRouter, useEffect } from "./kit.js";
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

function App() {
  // The server answers no other addresses than these.
  const { pattern, parts } = matched(Object.keys(PAGES), place.value.path) ?? { pattern: "" };
  const Page = PAGES[pattern];
  const key = pattern + JSON.stringify(parts);
  useEffect(() => {
    // Who cannot see is told where they are.
    if (document.activeElement && document.activeElement !== document.body) document.querySelector("h1")?.focus({ preventScroll: true });
  }, [key]);
  return html`<${Shell}><${Page} key=${key} ...${parts} /><//><${BulkQuestion} />`;
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
