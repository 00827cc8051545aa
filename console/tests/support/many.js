// How fast the console and its lists are over a great many tasks: `scripts/console-test --many [PROGRAM]`.
//
// Fills a store on disk, asks each kind of list again and again, and opens the pages in a browser. Prints a table; ends
// with 1 if the first list takes longer than is asked, or one list of the server does.
import { existsSync } from "node:fs";
import { rm } from "node:fs/promises";
import { Browser } from "./browser.js";
import { Server } from "./server.js";

const TASKS = Number(process.env.TASKS ?? 1_000_000);
/** Of them run as commands, so that there are ends, failures and workers. */
const COMMANDS = Math.min(10_000, TASKS / 10);
const BATCH = 5_000;
const QUEUES = ["mail", "video", "reports", "thumbs", "index"];
/** How often each list is asked. */
const REPEATS = 30;
/** What is asked of them, in ms. */
const LIST_MS = 50;
const FIRST_LIST_MS = 300;

const task = (number) => ({
  kind: "nobody",
  queue: QUEUES[number % QUEUES.length],
  priority: number % 7,
  labels: { batch: String(number % 1_000), team: number % 2 ? "blue" : "red" },
  payload: { number, text: "x".repeat(80) },
  ...(number % 10 === 3 && { held: true }),
  ...(number % 10 === 4 && { delay: `${1 + (number % 600)}h` }),
});

const command = (number) => ({
  kind: "process",
  queue: "commands",
  payload: { argv: ["sh", "-c", number % 5 ? "exit 0" : `echo 'no space on disk ${number % 7}' >&2; exit ${1 + (number % 3)}`] },
  retry: { max_attempts: 1 },
});

async function fill(server) {
  for (let at = 0; at < TASKS; at += BATCH) {
    const count = Math.min(BATCH, TASKS - at);
    const make = (_, n) => (at + n < COMMANDS ? command(at + n) : task(at + n));
    await server.call("POST", "tasks/batch", Array.from({ length: count }, make));
  }
  // A tenth is cancelled: an end without a run.
  let changed = 0;
  for (let next = true; next && changed < TASKS / 10; ) {
    const answer = await server.call("POST", "task-actions", { action: "cancel", q: "queue:index", limit: 10_000 });
    changed += answer.changed;
    next = answer.changed > 0;
  }
  const over = async () => {
    const { queues } = await server.call("GET", "stats");
    const { counts } = queues.find((queue) => queue.name === "commands");
    return counts.waiting + counts.running === 0;
  };
  await server.until("the commands end", over, 1_200_000);
}

async function timed(act) {
  const begun = performance.now();
  const answer = await act();
  return [performance.now() - begun, answer];
}

const percentile = (values, part) => values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * part))];
let slow = 0;

async function list(server, name, path) {
  const spent = [];
  let last;
  for (let n = 0; n < REPEATS; n++) {
    const [took, answer] = await timed(() => server.call("GET", path));
    spent.push(took);
    last = answer;
  }
  const [middle, most] = [percentile(spent, 0.5), Math.max(...spent)];
  if (middle > LIST_MS) slow += 1;
  const rows = last.tasks?.length ?? last.groups?.length ?? "";
  console.log(`${name.padEnd(44)} ${middle.toFixed(1).padStart(8)} ${most.toFixed(1).padStart(8)} ${String(rows).padStart(6)}`);
  return last;
}

// STORE names a file that is kept, and filled only if it is new.
const store = process.env.STORE;
const filledBefore = store !== undefined && existsSync(store);
const server = await Server.start(process.env.LTS, { store });
const browser = await Browser.start();
try {
  const [filled] = await timed(() => filledBefore || fill(server));
  const { totals } = await server.call("GET", "stats");
  console.log(`${TASKS} tasks, filled in ${(filled / 1_000).toFixed(0)} s: ${JSON.stringify(totals)}`);
  console.log(`${"list, limit 50, ms".padEnd(44)} ${"p50".padStart(8)} ${"max".padStart(8)} ${"rows".padStart(6)}`);
  const tasks = (q, more = "") => `tasks?limit=50${q && `&q=${encodeURIComponent(q)}`}${more}`;
  const first = await list(server, "all", tasks(""));
  await list(server, "the next page", tasks("", `&cursor=${encodeURIComponent(first.next)}`));
  const queries = [
    "state:waiting", "state:running", "state:failed", "state:succeeded", "state:cancelled", "state:scheduled", "state:failed,cancelled",
    "queue:video", "queue:commands state:failed", "queue:index state:cancelled", "queue:nothing", "kind:process", "kind:nobody state:waiting",
    "label.batch:7", "label.batch:7 state:waiting", "label.team:blue", "label.team:none", "created:<1h", "created:>1h", "created:<1h state:failed",
    "id:0", "id:ffffffff", "attempt:>0", "attempt:>3", "worker:ffff", "error:space", 'error:"no such words"', "payload.number:999999",
  ];
  for (const query of queries) {
    const page = await list(server, query, tasks(query));
    if (page.next) await list(server, `    its next page`, tasks(query, `&cursor=${encodeURIComponent(page.next)}`));
  }
  for (const path of ["stats", "queues", "workers", "failures", "stats/timeseries?window=1h"]) await list(server, path, path);
  for (const [name, path, sign] of [["tasks", "tasks", "tbody tr"], ["overview", "", ".card"], ["failures", "failures", "h1"]]) {
    const spent = [];
    for (let n = 0; n < 5; n++) {
      const page = await browser.context.newPage();
      const [took] = await timed(async () => {
        await page.goto(`${server.url}/${path}`, { waitUntil: "commit" });
        await page.waitForSelector(sign);
      });
      spent.push(took);
      await page.close();
    }
    const middle = percentile(spent, 0.5);
    if (name === "tasks" && middle > FIRST_LIST_MS) slow += 1;
    console.log(`page ${name}: first shown after ${middle.toFixed(0)} ms (${Math.min(...spent).toFixed(0)} to ${Math.max(...spent).toFixed(0)})`);
  }
} finally {
  await browser.stop();
  await server.down();
  if (server.directory) await rm(server.directory, { recursive: true, force: true });
}
if (slow) {
  console.log(`${slow} above what is asked: ${LIST_MS} ms for a list, ${FIRST_LIST_MS} ms for the first in the browser`);
  process.exit(1);
}
