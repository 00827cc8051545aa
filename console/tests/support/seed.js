// Believable work for pictures and for looking at every page.

const HOUR_MS = 3_600_000;

/** Fills a server: queues with limits, tasks in every state, failures of a few kinds. */
export async function seed(server) {
  const queue = (name, settings) => server.call("PUT", `queues/${name}`, settings);
  await queue("video", { concurrency: 2 });
  await queue("reports", { concurrency: 4, rate: { count: 10, period: "1s", burst: 5 } });
  await queue("mail", { rate: { count: 100, period: "1m" } });
  await queue("archive", { concurrency: 1, paused: true });
  const sh = (script, more = {}) => ({ kind: "process", payload: { argv: ["sh", "-c", script] }, ...more });
  const argv = (words, more = {}) => ({ kind: "process", payload: { argv: words.split(" ") }, ...more });
  const batch = [];
  for (let n = 1; n <= 24; n += 1) batch.push(argv(`echo report --month ${n}`, { queue: "reports", labels: { tenant: n % 2 ? "acme" : "globex" } }));
  for (let n = 1; n <= 40; n += 1) batch.push(argv(`echo send --to user-${100 + n}`, { queue: "mail" }));
  for (let n = 1; n <= 5; n += 1) batch.push(sh(`echo "opening part-${n}.tar" >&2; echo "no space left on device" >&2; exit 28`, { queue: "archive-check", retry: { max_attempts: 1 } }));
  for (let n = 1; n <= 3; n += 1) batch.push(sh(`echo "connect: timed out" >&2; exit 7`, { queue: "mail" }));
  batch.push(sh("sleep 30", { queue: "reports", timeout: "1s" }));
  batch.push(sh("echo attempt; exit 75", { queue: "reports", retry: { max_attempts: 5, min_delay: "20m", max_delay: "1h" } }));
  for (let n = 1; n <= 6; n += 1) batch.push(argv(`tar -czf /srv/archive/2026-${String(n).padStart(2, "0")}.tgz /srv/data`, { queue: "archive" }));
  batch.push(argv("backup --full", { queue: "archive", held: true }));
  batch.push(argv("rotate-logs", { queue: "reports", run_at: new Date(Date.now() + HOUR_MS).toISOString() }));
  await server.call("POST", "tasks/batch", batch);
  const ids = {};
  const cut = `for i in $(seq 1 400); do printf 'frame=%5d fps=%2d time=00:00:%02d.%02d bitrate=2104kbits/s\\n' $((i*24)) 25 $((i/2)) $((i%100)); [ $((i % 9)) = 0 ] && printf '\\033[33mwarning:\\033[0m past duration 0.%03d too large\\n' $((i*7%1000)) >&2; sleep 0.4; done`;
  ids.running = (await server.shell(cut, { queue: "video", labels: { camera: "north", batch: "2026-11" }, timeout: "30m" })).id;
  for (const name of ["lobby", "garage", "roof", "gate", "yard"]) await server.submit(argv(`sleep 600`, { queue: "video", labels: { camera: name } }));
  const stopped = await server.command("sleep", "600");
  await server.until("it runs", async () => (await server.task(stopped.id)).state === "running");
  await server.call("POST", `tasks/${stopped.id}/cancel`);
  ids.failed = (await server.shell('echo "reading config"; echo "config.toml:12: unknown key" >&2; exit 2', { queue: "reports", retry: { max_attempts: 3, min_delay: "50ms", max_delay: "100ms" } })).id;
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
      const words = line.split(" ");
      // The words are only shown: what runs is harmless, and is there on every machine.
      const script = n % FAILS ? ": $0 $@" : `echo "${words[0]}: connection reset by peer" >&2; exit 1`;
      return { kind: "process", queue, payload: { argv: ["sh", "-c", script, ...words] } };
    });
    await server.call("POST", "tasks/batch", batch);
    await new Promise((resolve) => setTimeout(resolve, 1_500));
  }
}
