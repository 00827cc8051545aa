// Believable work for pictures and for looking at every page.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const HOUR_MS = 3_600_000;

/** What the commands do: they are called as in real life, and do nothing. */
const PROGRAMS = {
  "render-report": "",
  "send-mail": "",
  resize: "",
  thumbnail: "",
  backup: "",
  "rotate-logs": "",
  "unpack": 'echo "opening $1" >&2; echo "no space left on device" >&2; exit 28',
  "check-config": 'echo "reading $1"; echo "$1:12: unknown key" >&2; exit 2',
  "poll-feed": "echo attempt; exit 75",
  "slow-report": "exec sleep 30",
  record: "exec sleep 600",
  "cut-video": `i=0
while [ $i -lt 400 ]; do
  i=$((i+1))
  printf 'frame=%5d fps=%2d time=00:00:%02d.%02d bitrate=2104kbits/s\\n' $((i*24)) 25 $((i/2%60)) $((i%100))
  [ $((i % 9)) = 0 ] && printf '\\033[33mwarning:\\033[0m past duration 0.%03d too large\\n' $((i*7%1000)) >&2
  sleep 0.4
done`,
};

const directory = mkdtempSync(join(tmpdir(), "lts-console-programs-"));
process.on("exit", () => rmSync(directory, { recursive: true, force: true }));
for (const [name, script] of Object.entries(PROGRAMS)) {
  const fails = '[ -z "$FAILS" ] || { echo "${0##*/}: $FAILS" >&2; exit 1; }';
  writeFileSync(join(directory, name), `#!/bin/sh\n${fails}\n${script}\n`, { mode: 0o755 });
}

/** A task that runs one of them. */
const run = (line, more = {}, env = {}) => ({
  kind: "process",
  payload: { argv: line.split(" "), env: { PATH: `${directory}:/usr/bin:/bin`, ...env } },
  ...more,
});

/** Fills a server: queues with limits, tasks in every state, failures of a few kinds. */
export async function seed(server) {
  const queue = (name, settings) => server.call("PUT", `queues/${name}`, settings);
  await queue("video", { concurrency: 2 });
  await queue("reports", { concurrency: 4, rate: { count: 10, period: "1s", burst: 5 } });
  await queue("mail", { rate: { count: 100, period: "1m" } });
  await queue("archive", { concurrency: 1, paused: true });
  const batch = [];
  for (let n = 1; n <= 24; n += 1) batch.push(run(`render-report --month ${n}`, { queue: "reports", labels: { tenant: n % 2 ? "acme" : "globex" } }));
  for (let n = 1; n <= 40; n += 1) batch.push(run(`send-mail --to user-${100 + n}`, { queue: "mail" }));
  for (let n = 1; n <= 5; n += 1) batch.push(run(`unpack part-${n}.tar`, { queue: "imports" }));
  for (let n = 1; n <= 3; n += 1) batch.push(run(`send-mail --to user-${200 + n}`, { queue: "imports" }, { FAILS: "connect: timed out" }));
  batch.push(run("slow-report --year 2026", { queue: "reports", timeout: "1s" }));
  batch.push(run("poll-feed https://feeds.example/prices", { queue: "imports", retry: { max_attempts: 5, min_delay: "20m", max_delay: "1h" } }));
  for (let n = 1; n <= 6; n += 1) batch.push(run(`backup --month 2026-${String(n).padStart(2, "0")}`, { queue: "archive" }));
  batch.push(run("backup --full", { queue: "archive", held: true }));
  batch.push(run("rotate-logs", { queue: "reports", run_at: new Date(Date.now() + HOUR_MS).toISOString() }));
  await server.call("POST", "tasks/batch", batch);
  const ids = {};
  const cut = run("cut-video --from camera/north.ts --begin 12:00 --end 12:10", { queue: "video", labels: { camera: "north", batch: "2026-11" }, timeout: "30m" });
  ids.running = (await server.submit(cut)).id;
  for (const name of ["lobby", "garage", "roof", "gate", "yard"]) await server.submit(run(`record ${name}`, { queue: "video", labels: { camera: name } }));
  const stopped = await server.submit(run("record cellar"));
  await server.until("it runs", async () => (await server.task(stopped.id)).state === "running");
  await server.call("POST", `tasks/${stopped.id}/cancel`);
  ids.failed = (await server.submit(run("check-config site.toml", { queue: "imports", retry: { max_attempts: 3, min_delay: "50ms", max_delay: "100ms" } }))).id;
  ids.succeeded = (await server.submit('{"kind":"process","queue":"reports","payload":{"argv":["echo","order","9007199254740993"],"env":{"ORDER":"9007199254740993"}}}')).id;
  await server.ended(ids.failed);
  await server.ended(ids.succeeded);
  await server.ended(stopped.id);
  return ids;
}

const SMALL = [
  (n) => ["reports", `render-report --month ${1 + (n % 12)} --tenant ${n % 2 ? "acme" : "globex"}`],
  (n) => ["mail", `send-mail --template welcome --to user-${1000 + n}`],
  (n) => ["images", `resize --width 640 img-${String(n * 37).padStart(6, "0")}.jpg`],
  (n) => ["mail", `send-mail --template invoice --to user-${2000 + n}`],
  (n) => ["images", `thumbnail img-${String(n * 53).padStart(6, "0")}.jpg`],
];
/** Every how many of them fail. */
const FAILS = 17;

/** Goes on with small tasks for so long, so that the charts have something to show. */
export async function trickle(server, forMs) {
  const end = Date.now() + forMs;
  for (let round = 0, n = 0; Date.now() < end; round += 1) {
    const size = 2 + Math.round(3 * (1 + Math.sin(round / 4)));
    const batch = Array.from({ length: size }, () => {
      n += 1;
      const [queue, line] = SMALL[n % SMALL.length](n);
      return run(line, { queue }, n % FAILS ? {} : { FAILS: "connection reset by peer" });
    });
    await server.call("POST", "tasks/batch", batch);
    await new Promise((resolve) => setTimeout(resolve, 1_500));
  }
}
