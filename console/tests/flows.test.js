// What people do with the console, done in a real browser against a real server.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { rmSync } from "node:fs";
import { mkdtemp, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { given, holds, link, state } from "./support/pages.js";

const world = given();
const { visit } = world;

const directory = await mkdtemp(join(tmpdir(), "lts-console-flow-"));
process.on("exit", () => rmSync(directory, { recursive: true, force: true }));
/** A file that commands wait for: what a test lets happen happens only then. */
const file = (name) => join(directory, name);
const waits = (name) => `while [ ! -e ${file(name)} ]; do sleep 0.05; done`;

const alive = (pid) => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

const held = (queue, count) =>
  world.server.call("POST", "tasks/batch", Array.from({ length: count }, (_, n) => ({ kind: "process", queue, held: true, payload: { argv: ["echo", `held-${n}`] } })));

test("a command is submitted from the form, and seen to succeed", () =>
  visit("submit", {}, async (page) => {
    await page.getByLabel("Command", { exact: true }).fill("echo 'one two' three");
    await page.getByText("More options").click();
    await page.getByLabel("Labels").fill("team=blue");
    await page.locator("form").getByRole("button", { name: "Submit task" }).click();
    await state(page, "succeeded");
    await page.getByRole("log").getByText("one two three").waitFor();
    await page.getByText("team=blue").waitFor();
    assert.match(await page.locator(".facts").innerText(), /Exit code\s*0/);
    assert.match(page.url(), /\/tasks\/[0-9a-f-]+$/);
    const id = decodeURIComponent(page.url().split("/").at(-1));
    assert.deepEqual((await world.server.task(id)).payload.argv, ["echo", "one two", "three"]);
  }));

test("a mistake in the form is said at its field, and nothing is sent", () =>
  visit("submit?kind=other", {}, async (page) => {
    await page.getByRole("textbox", { name: "Kind" }).fill("mine");
    await page.getByRole("textbox", { name: "Payload" }).fill('{"a": }');
    const sent = [];
    page.on("request", (request) => request.method() === "POST" && sent.push(request.url()));
    await page.locator("form").getByRole("button", { name: "Submit task" }).click();
    await page.getByText("line 1, column 7").waitFor();
    assert.equal(await page.evaluate(() => document.activeElement.dataset.field), "payload");
    assert.deepEqual(sent, []);
  }));

test("a log is followed while it is written, by stream and by word", async () => {
  const { id } = await world.server.shell(`echo first; echo careful >&2; ${waits("log")}; echo second; ${waits("log-end")}`);
  await visit(`tasks/${id}`, {}, async (page) => {
    const log = page.getByRole("log");
    await log.getByText("first").waitFor();
    await log.getByText("careful").waitFor();
    assert.equal(await log.getByText("second").count(), 0);
    await writeFile(file("log"), "");
    await log.getByText("second").waitFor();
    await page.getByRole("button", { name: "stderr" }).click();
    assert.equal(await log.locator(".log-line").count(), 1);
    await page.getByRole("button", { name: "Both" }).click();
    await page.getByRole("searchbox", { name: "Search the log" }).fill("SECO");
    await holds(page, () => document.querySelectorAll(".log-line").length === 1);
    assert.equal(await log.locator("mark").innerText(), "seco");
    assert.equal(await page.locator(".task-line .state").getAttribute("data-state"), "running");
    await writeFile(file("log-end"), "");
    await state(page, "succeeded");
  });
});

test("a long log is shown from its end, goes back, and is downloaded whole", async () => {
  const { id } = await world.server.command("seq", "1", "60000");
  await world.server.ended(id);
  await visit(`tasks/${id}`, {}, async (page) => {
    const log = page.getByRole("log");
    await log.getByText("60000", { exact: true }).waitFor();
    const first = () => log.locator(".log-line").first().innerText();
    const before = Number(await first());
    await page.getByRole("button", { name: "Show earlier lines" }).click();
    await holds(page, (before) => Number(document.querySelector(".log-line").innerText) < before, before);
    assert.match(await page.title(), /^seq 1 60000/);
    const download = page.waitForEvent("download");
    await page.getByRole("button", { name: "Download", exact: true }).click();
    const lines = (await readFile(await (await download).path(), "utf8")).trimEnd().split("\n");
    assert.equal(lines.length, 60_000);
    assert.equal(lines.at(-1), "60000");
  });
});

test("a sleeping task is cancelled, and everything it started is dead", async () => {
  const { id } = await world.server.shell("sleep 600 & echo pid $! $$; wait");
  await visit(`tasks/${id}`, {}, async (page) => {
    const line = await page.getByRole("log").getByText(/pid \d+ \d+/).innerText();
    const pids = line.match(/\d+/g).map(Number);
    assert.ok(pids.every(alive), line);
    const button = page.getByRole("button", { name: "Cancel", exact: true });
    await button.click();
    await page.getByRole("dialog").getByRole("button", { name: "Never mind" }).click();
    assert.ok(await button.evaluate((element) => element === document.activeElement), "the focus is back where it was");
    await button.click();
    await page.getByRole("dialog").getByRole("button", { name: "Cancel the task" }).click();
    await state(page, "cancelled");
    assert.ok(!pids.some(alive), "its processes are gone");
    assert.equal((await world.server.task(id)).state, "cancelled");
  });
});

test("a failed task is retried when its cause is mended", async () => {
  const { id } = await world.server.shell(`cat ${file("cause")}`);
  await visit(`tasks/${id}`, {}, async (page) => {
    await state(page, "failed");
    await page.locator(".why").getByText("No such file").waitFor();
    await writeFile(file("cause"), "mended\n");
    await page.getByRole("button", { name: "Retry", exact: true }).click();
    await state(page, "succeeded");
    await page.getByRole("log").getByText("mended").waitFor();
    assert.equal(await page.locator(".why").count(), 0);
  });
});

test("many tasks are counted first, then cancelled: those that are chosen", async () => {
  await held("chosen", 5);
  const left = (count) => world.server.until(`${count} are held`, async () => (await world.server.call("GET", "queues/chosen")).counts.held === count);
  await visit("tasks?q=queue:chosen", {}, async (page) => {
    const rows = page.locator("tbody tr");
    await rows.nth(4).waitFor();
    for (const n of [0, 2]) await rows.nth(n).getByRole("checkbox").check();
    await page.getByText("2 selected").waitFor();
    await page.locator(".selection").getByRole("button", { name: "Cancel" }).click();
    await page.getByRole("dialog").getByText("2 tasks will be changed").waitFor();
    await left(5);
    await page.getByRole("dialog").getByRole("button", { name: "Cancel 2" }).click();
    await page.getByText("2 tasks cancelled").waitFor();
    await left(3);
    await holds(page, () => document.querySelectorAll('tbody [data-state="cancelled"]').length === 2);
    assert.equal(await rows.count(), 5, "no row has gone");
  });
});

test("many tasks are counted first, then cancelled: all that match, also those on other pages", async () => {
  await held("all", 60);
  await visit("tasks?q=queue:all", {}, async (page) => {
    await page.locator("tbody tr").nth(49).waitFor();
    await page.getByRole("checkbox", { name: "Select all on this page" }).check();
    await page.getByRole("button", { name: "Select all matching tasks" }).click();
    await page.locator(".selection").getByRole("button", { name: "Cancel" }).click();
    await page.getByRole("dialog").getByText("60 tasks will be changed").waitFor();
    assert.equal((await world.server.call("GET", "queues/all")).counts.held, 60, "counting changes nothing");
    await page.getByRole("dialog").getByRole("button", { name: "Cancel 60" }).click();
    await page.getByText("60 tasks cancelled").waitFor();
    assert.equal((await world.server.call("GET", "queues/all")).counts.cancelled, 60);
  });
});

test("pages of a list are walked and kept in the address", async () => {
  await held("paged", 70);
  await visit("tasks?q=queue:paged", {}, async (page) => {
    const first = await page.locator("[data-row]").first().getAttribute("data-row");
    await page.getByRole("button", { name: "Older" }).click();
    await holds(page, () => document.querySelectorAll("tbody tr").length === 20);
    assert.match(page.url(), /cursor=/);
    const again = page.url();
    await page.reload();
    await holds(page, () => document.querySelectorAll("tbody tr").length === 20);
    assert.equal(page.url(), again);
    await page.getByRole("button", { name: "Newer" }).click();
    await page.waitForSelector(`[data-row="${first}"]`);
    await page.goBack();
    await holds(page, () => document.querySelectorAll("tbody tr").length === 20);
  });
});

test("the query bar completes, refuses and finds", () =>
  visit("tasks", {}, async (page) => {
    const bar = page.getByRole("combobox");
    await bar.fill("sta");
    await page.getByRole("option", { name: "state:" }).waitFor();
    await bar.press("ArrowDown");
    await bar.press("Enter");
    assert.equal(await bar.inputValue(), "state:");
    await bar.pressSequentially("canc");
    await bar.press("ArrowDown");
    await bar.press("Enter");
    assert.equal(await bar.inputValue(), "state:cancelled ");
    await bar.press("Enter");
    await page.waitForURL(/q=state%3Acancelled/);
    await holds(page, () => {
      const marks = [...document.querySelectorAll("tbody .state")];
      return marks.length > 0 && marks.every((mark) => mark.dataset.state === "cancelled");
    });
    await bar.fill("stat:failed");
    await bar.press("Enter");
    await page.getByText("did you mean `state:`?").waitFor();
  }));

test("new tasks are announced, and no row moves until they are wanted", async () => {
  await held("pill", 3);
  await visit("tasks?q=queue:pill", {}, async (page) => {
    await link(page, "live");
    const ids = () => page.$$eval("[data-row]", (links) => links.map((link) => link.dataset.row));
    await page.locator("tbody tr").nth(2).waitFor();
    const before = await ids();
    await held("pill", 2);
    await page.getByRole("button", { name: "2 new tasks" }).waitFor();
    assert.deepEqual(await ids(), before);
    // What is there changes in its place.
    await world.server.call("POST", `tasks/${before[1]}/cancel`);
    await page.locator("tbody tr").nth(1).locator('[data-state="cancelled"]').waitFor();
    assert.deepEqual(await ids(), before);
    await page.getByRole("button", { name: "2 new tasks" }).click();
    await page.locator("tbody tr").nth(4).waitFor();
    assert.deepEqual((await ids()).slice(2), before);
  });
});

test("a queue is paused, its limits are changed, and it goes on", async () => {
  await world.server.call("PUT", "queues/limits", { concurrency: 1 });
  const settings = async () => (await world.server.call("GET", "queues/limits")).settings;
  await visit("queues/limits", {}, async (page) => {
    await page.getByRole("button", { name: "Pause", exact: true }).click();
    await page.locator("h1").getByText("paused").waitFor();
    assert.equal((await settings()).paused, true);
    await page.getByLabel("Concurrency").fill("3");
    await page.getByLabel("Starts").fill("20");
    await page.getByLabel("per", { exact: true }).fill("1m");
    await page.getByLabel("Burst").fill("5");
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByText("Limits of limits saved").waitFor();
    assert.deepEqual(await settings(), { concurrency: 3, rate: { count: 20, period: "PT60S", burst: 5 }, paused: true });
    await page.getByRole("button", { name: "Resume", exact: true }).click();
    await page.getByRole("button", { name: "Pause", exact: true }).waitFor();
    assert.equal((await settings()).paused, false);
    // A limit that makes no sense is refused in words, and nothing is changed.
    await page.getByLabel("per", { exact: true }).fill("soon");
    await page.getByRole("button", { name: "Save" }).click();
    await page.locator(".problem").waitFor();
    assert.equal((await settings()).rate.period, "PT60S");
  });
});

test("a queue is purged of what has not begun", async () => {
  await held("purge", 4);
  await visit("queues/purge", {}, async (page) => {
    await page.getByRole("button", { name: "Purge…" }).click();
    await page.getByRole("dialog").getByText("4 tasks that have not begun").waitFor();
    await page.getByRole("dialog").getByRole("button", { name: "Purge" }).click();
    await page.getByText("4 tasks removed").waitFor();
    assert.equal((await world.server.call("GET", "tasks?q=queue:purge")).tasks.length, 0);
  });
});

test("a worker drains once that is confirmed", async () => {
  const worker = randomUUID();
  await world.server.call("POST", "leases/register", { worker, name: "old hand", ttl: "PT300S" });
  await visit("workers", {}, async (page) => {
    const row = page.getByRole("row").filter({ hasText: "old hand" });
    await row.getByText("Alive").waitFor();
    await row.getByRole("button", { name: "Drain old hand" }).click();
    await page.getByRole("dialog").getByText("old hand").waitFor();
    assert.equal((await world.server.call("POST", "leases/heartbeat", { worker })).drain, false, "nothing before it is confirmed");
    await page.getByRole("dialog").getByRole("button", { name: "Drain" }).click();
    await page.getByText("old hand drains").waitFor();
    await row.getByText("Draining").waitFor();
    assert.equal(await row.getByRole("button").count(), 0);
    assert.equal((await world.server.call("POST", "leases/heartbeat", { worker })).drain, true);
    await world.server.call("POST", "leases/leave", { worker });
    await row.waitFor({ state: "detached" });
  });
});

test("a task is cloned with changes, and not a digit of its payload is lost", async () => {
  const made = await world.server.submit('{"kind":"process","held":true,"payload":{"argv":["echo","x"],"env":{"N":"1"},"stdin":"9007199254740993"}}');
  const typed = await world.server.submit('{"kind":"other","held":true,"payload":{"id":9007199254740993,"f":1.10}}');
  await visit(`tasks/${typed.id}`, {}, async (page) => {
    await page.locator(".code").getByText("9007199254740993").waitFor();
    await page.locator(".code").getByText("1.10").waitFor();
    await page.getByRole("button", { name: "Clone…" }).click();
    const payload = page.getByRole("dialog").getByLabel("Payload");
    await payload.fill((await payload.inputValue()).replace("1.10", "1.20"));
    await page.getByRole("dialog").getByLabel("Queue").fill("clones");
    await page.getByRole("dialog").getByText("Hold it until").click();
    await page.getByRole("dialog").getByRole("button", { name: "Submit task" }).click();
    await holds(page, (id) => !location.pathname.endsWith(id), typed.id);
    await page.locator(".code").getByText("1.20").waitFor();
    const id = page.url().split("/").at(-1);
    const text = await (await fetch(`${world.server.url}/api/v1/tasks/${id}`)).text();
    assert.match(text, /"id": ?9007199254740993/);
    assert.match(text, /"f": ?1\.20/);
    assert.match(text, /"queue":"clones"/);
  });
  await visit(`tasks/${made.id}`, {}, async (page) => {
    await page.getByRole("button", { name: "Delete" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
    await page.waitForURL(/\/tasks$/);
    await assert.rejects(world.server.task(made.id), /404/);
  });
});

test("a task that waits is given another time and priority", async () => {
  const made = await world.server.shell("true", { delay: "1h" });
  await visit(`tasks/${made.id}`, {}, async (page) => {
    await page.getByRole("button", { name: "Reschedule…" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel("Priority").fill("7");
    await dialog.getByRole("button", { name: "Reschedule" }).click();
    await page.getByText("Rescheduled").waitFor();
    const moved = await world.server.task(made.id);
    assert.deepEqual([moved.priority, moved.run_at], [7, made.run_at], "what is not filled in stays");
    await page.getByRole("button", { name: "Reschedule…" }).click();
    await dialog.getByLabel("Not before so long from now").fill("0s");
    await dialog.getByRole("button", { name: "Reschedule" }).click();
    assert.equal((await world.server.ended(made.id)).state, "succeeded");
  });
});

test("what failed alike is retried together, and nothing else", async () => {
  const fail = (script) => world.server.shell(script, { queue: "alike" });
  const made = [await fail("exit 41"), await fail("exit 42"), await fail("echo more >&2; exit 43")];
  for (const { id } of made) await world.server.ended(id);
  await visit("failures?queue=alike", {}, async (page) => {
    const group = page.locator(".failure-list li").filter({ hasText: /^2×/ });
    await group.getByRole("button", { name: "Retry all…" }).click();
    await page.getByRole("dialog").getByText("2 tasks will be changed").waitFor();
    await page.getByRole("dialog").getByRole("button", { name: "Retry 2" }).click();
    await page.getByText("2 tasks queued again").waitFor();
    const generations = await Promise.all(made.map(async ({ id }) => (await world.server.ended(id)).generation));
    assert.deepEqual(generations, [1, 1, 0]);
  });
});

test("while it is paused nothing is fetched, and what was missed comes afterwards", async () => {
  await held("pause", 1);
  await visit("tasks?q=queue:pause", {}, async (page) => {
    await link(page, "live");
    await page.locator("tbody tr").first().waitFor();
    await page.keyboard.press(".");
    await link(page, "paused");
    const asked = [];
    page.on("request", (request) => asked.push(request.url()));
    await held("pause", 2);
    const { id } = await world.server.command("true");
    await world.server.ended(id);
    // More than the longest that anything live waits: polling is every 3 s.
    await page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 4_000)));
    assert.deepEqual(asked, []);
    await page.keyboard.press(".");
    await page.getByRole("button", { name: "2 new tasks" }).waitFor();
    await link(page, "live");
  });
});

test("a page that nobody sees fetches nothing", () =>
  visit("", {}, async (page) => {
    await link(page, "live");
    const closed = page.waitForEvent("requestfailed", (request) => request.url().includes("/events"));
    const turn = (hidden) =>
      page.evaluate((hidden) => {
        Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
        document.dispatchEvent(new Event("visibilitychange"));
      }, hidden);
    await turn(true);
    await closed;
    const opened = page.waitForRequest((request) => request.url().includes("/events"));
    await turn(false);
    await opened;
    await link(page, "live");
  }));

test("where events do not come through, it looks for itself", () =>
  visit("tasks?q=queue:polled", {}, async (page) => {
    await page.route("**/api/v1/events*", (route) => route.abort());
    await page.reload();
    await link(page, "polling");
    await held("polled", 1);
    await page.locator("tbody tr").first().waitFor();
  }));

test("a restart of the server is survived: no row is lost, and live goes on", async () => {
  await held("restart", 3);
  const running = await world.server.shell(`echo begun; ${waits("restart")}; echo done`);
  await world.server.until("it runs", async () => (await world.server.task(running.id)).state === "running");
  await visit(`tasks/${running.id}`, {}, async (task) => {
    await task.getByRole("log").getByText("begun").waitFor();
    await visit("tasks?q=queue:restart", {}, async (page) => {
      await link(page, "live");
      await page.locator("tbody tr").nth(2).waitFor();
      await world.server.down();
      await link(page, "offline");
      assert.equal(await page.locator("tbody tr").count(), 3, "what was shown stays");
      await world.server.up();
      await link(page, "live");
      await world.server.submit({ kind: "process", queue: "restart", payload: { argv: ["true"] } });
      await page.getByRole("button", { name: "1 new task" }).click();
      await page.locator("tbody tr").nth(3).waitFor();
    });
    await writeFile(file("restart"), "");
    await state(task, "succeeded");
    await task.getByRole("log").getByText("done").waitFor();
    assert.equal(await task.getByRole("log").getByText("begun").count(), 1, "no line twice");
  });
});

test("everything is reached with the keyboard", async () => {
  await held("keys", 3);
  await visit("", {}, async (page) => {
    await link(page, "live");
    for (const [keys, path] of [["gt", "/tasks"], ["gq", "/queues"], ["gw", "/workers"], ["gf", "/failures"], ["gs", "/submit"], ["go", "/"]]) {
      for (const key of keys) await page.keyboard.press(key);
      await page.waitForURL((url) => url.pathname === path);
    }
    await page.keyboard.press("g");
    await page.keyboard.press("t");
    await page.waitForSelector("[data-search]");
    await page.keyboard.press("/");
    await page.keyboard.type("queue:keys");
    await page.keyboard.press("Enter");
    await page.waitForURL(/q=queue/);
    await holds(page, () => document.querySelectorAll("tbody tr").length === 3);
    await page.evaluate(() => document.activeElement.blur());
    const at = () => page.evaluate(() => [...document.querySelectorAll("[data-row]")].indexOf(document.activeElement));
    for (const [key, row] of [["j", 0], ["j", 1], ["k", 0], ["j", 1]]) {
      await page.keyboard.press(key);
      assert.equal(await at(), row, key);
    }
    await page.keyboard.press("x");
    await page.getByText("1 selected").waitFor();
    assert.equal(await at(), 1, "the focus stays");
    await page.keyboard.press("Enter");
    await page.waitForURL(/\/tasks\/[0-9a-f-]+$/);
    await page.keyboard.press("t");
    assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), "dark");
    await page.keyboard.press("t");
    await page.keyboard.press("l");
    await page.getByRole("link", { name: "概览" }).waitFor();
    assert.equal(await page.evaluate(() => document.documentElement.lang), "zh-CN");
    await page.keyboard.press("l");
    await page.keyboard.press("?");
    await page.getByRole("dialog").waitFor();
    await page.getByRole("checkbox", { name: "Single-key shortcuts" }).uncheck();
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "detached" });
    await page.keyboard.press("l");
    await page.getByRole("link", { name: "Overview" }).waitFor();
  });
});

test("the language and the theme that were chosen are kept", () =>
  visit("workers", {}, async (page) => {
    await page.getByRole("button", { name: "中文" }).click();
    await page.getByRole("button", { name: "切换浅色与深色" }).click();
    await page.goto(`${world.server.url}/queues`);
    await page.getByRole("heading", { name: "队列" }).waitFor();
    assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), "dark");
    await page.evaluate(() => localStorage.clear());
  }));

test("a chart can be read as a table", () =>
  visit("", {}, async (page) => {
    // They are counted every few seconds.
    await world.server.until("there is a bar", async () => {
      await world.server.command("true");
      return page.locator(".chart rect").count();
    });
    await page.locator(".chart-card").first().getByRole("button", { name: "Show as table" }).click();
    await page.locator(".chart-table").getByRole("columnheader", { name: "Succeeded" }).waitFor();
    assert.ok((await page.locator(".chart-table tbody tr").count()) > 0);
  }));
