// Every page in both languages and both themes: whoever uses it can; and what others have written stays harmless.
import assert from "node:assert/strict";
import { test } from "node:test";
import { check, settled } from "./support/axe.js";
import { given, link } from "./support/pages.js";
import { seed } from "./support/seed.js";
import { Server } from "./support/server.js";

let ids;
const world = given({
  async prepare(server) {
    ids = await seed(server);
  },
});
const { visit } = world;
/** Most bytes of JS and CSS (160 KiB). */
const SIZE_MAX = 160 << 10;

const pages = () => ({
  overview: "",
  tasks: "tasks",
  "tasks that match": "tasks?q=state:failed",
  "tasks that match not": "tasks?q=id:nothing",
  "a running task": `tasks/${ids.running}`,
  "a failed task": `tasks/${ids.failed}`,
  "a task that has succeeded": `tasks/${ids.succeeded}`,
  "no task": "tasks/nothing",
  queues: "queues",
  "a queue": "queues/video",
  workers: "workers",
  failures: "failures",
  "the form": "submit",
  "another form": "submit?kind=docker",
});

for (const language of ["en", "zh-CN"]) {
  for (const theme of ["light", "dark"]) {
    test(`everybody can use every page: ${language}, ${theme}`, async () => {
      for (const [name, path] of Object.entries(pages())) {
        await visit(path, { language, theme }, async (page) => {
          await settled(page);
          await check(page, name);
          const text = await page.innerText("body");
          assert.doesNotMatch(text, /undefined|NaN|\[object|\{\w+\}/, name);
        });
      }
    });
  }
}

test("what belongs together stands together", async () => {
  const boxes = (page, selector) => page.locator(selector).evaluateAll((all) => all.map((one) => one.getBoundingClientRect().toJSON()));
  await visit("", {}, async (page) => {
    await settled(page);
    const [icons, texts] = [await boxes(page, ".attention li > .icon"), await boxes(page, ".attention li > span")];
    assert.ok(icons.length > 0 && icons.length === texts.length);
    icons.forEach((icon, n) => assert.ok(texts[n].left - icon.right < icon.width, "a text begins beside its icon"));
  });
  await visit(`tasks/${ids.running}`, {}, async (page) => {
    await settled(page);
    const dots = await boxes(page, ".timeline-dot");
    assert.ok(dots.length > 2, "there is an end ahead");
    dots.forEach((dot) => assert.equal(dot.top, dots[0].top, "the steps are in one line"));
  });
});

test("dialogs and open lists can be used by everybody", async () => {
  for (const theme of ["light", "dark"]) {
    await visit(`tasks/${ids.failed}`, { theme }, async (page) => {
      await settled(page);
      await page.getByRole("button", { name: "Clone…" }).click();
      await check(page, "clone");
      await page.keyboard.press("Escape");
      await page.keyboard.press("?");
      await page.getByRole("dialog").waitFor();
      await check(page, "help");
    });
    await visit("tasks", { theme }, async (page) => {
      await settled(page);
      await page.getByRole("combobox").fill("state:");
      await page.getByRole("option").first().waitFor();
      await check(page, "suggestions");
      await page.keyboard.press("Escape");
      await page.getByRole("checkbox").nth(2).check();
      await page.locator(".selection").getByRole("button", { name: "Delete" }).click();
      await page.locator(".bulk-count").waitFor();
      await check(page, "bulk");
    });
    await visit("", { theme }, async (page) => {
      await settled(page);
      await page.getByRole("button", { name: "Show as table" }).first().click();
      await check(page, "table of a chart");
    });
  }
});

test("nothing is cut off at 360 pixels", async () => {
  for (const language of ["en", "zh-CN"]) {
    for (const [name, path] of Object.entries(pages())) {
      await visit(path, { language, width: 360, height: 740 }, async (page) => {
        await settled(page);
        const [wide, seen] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
        assert.ok(wide <= seen, `${name}, ${language}: ${wide} pixels`);
      });
    }
  }
});

test("what others have written is shown, and does nothing", async () => {
  const evil = '<img src=x onerror="window.owned=1"><script>window.owned=1</script>';
  const turned = "invoice\u202Egpj.exe";
  const queue = `${evil.slice(0, 60)}\u202E`;
  await world.server.submit({ kind: `kind\u2066${evil.slice(0, 30)}`, queue, held: true });
  const made = await world.server.submit({
    kind: "process",
    queue,
    labels: { note: evil, file: turned },
    payload: { argv: ["sh", "-c", `printf '%s\\n' "$EVIL"; printf '\\033[31mred\\033[0m \\033]0;title\\007\\033[2Jclear\\n'; printf '%s\\n' "$TURNED"; printf '%s' "$EVIL" >&2; exit 9`], env: { EVIL: evil, TURNED: turned } },
  });
  await world.server.ended(made.id);
  const calm = async (page) => {
    assert.equal(await page.evaluate(() => window.owned), undefined);
    assert.equal(await page.locator('img, script:not([src]), [onerror], main iframe').count(), 0);
    assert.doesNotMatch(await page.innerText("body"), /[\u202a-\u202e\u2066-\u2069\u001b]/);
  };
  await visit(`tasks/${made.id}`, {}, async (page) => {
    const log = page.getByRole("log");
    await log.getByText(evil).first().waitFor();
    await log.getByText("invoice⟨202E⟩gpj.exe").waitFor();
    assert.equal(await log.locator(".ansi-1").innerText(), "red");
    assert.equal(await log.getByText("clear").count(), 1);
    await page.locator(".why").getByText("<img").waitFor();
    await page.locator(".facts").getByText("invoice⟨202E⟩gpj.exe").waitFor();
    await page.locator(".code").getByText("<script>").waitFor();
    await calm(page);
    // Its queue and its labels lead to where they should.
    await page.locator(".facts a.label").first().click();
    await page.locator(`[data-row="${made.id}"]`).waitFor();
  });
  for (const path of ["", "tasks", "queues", `queues/${encodeURIComponent(queue)}`, "failures", `tasks?q=${encodeURIComponent(evil)}`, `tasks/${encodeURIComponent(evil)}`]) {
    await visit(path, {}, async (page) => {
      await settled(page);
      await link(page, "live");
      await calm(page);
    });
  }
});

test("the console is small: all of it, as a browser gets it", async () => {
  const seen = new Map();
  const fetched = async (url) => {
    if (seen.has(url)) return;
    const answer = await fetch(url);
    assert.equal(answer.status, 200, url);
    const text = await answer.text();
    seen.set(url, Buffer.byteLength(text));
    // What a module needs comes too.
    if (!url.endsWith(".js")) return;
    for (const [, name] of text.matchAll(/\b(?:from|import) ?"([^"]+)"/g)) await fetched(new URL(name, url).href);
  };
  const page = await (await fetch(`${world.server.url}/`)).text();
  for (const [, name] of page.matchAll(/(?:src|href)="([^"]+\.(?:js|css))"/g)) await fetched(new URL(name, `${world.server.url}/`).href);
  const total = [...seen.values()].reduce((sum, size) => sum + size, 0);
  console.log(`# ${total} bytes of JS and CSS in ${seen.size} files`);
  assert.ok(seen.size > 30, "all of it");
  assert.ok(total <= SIZE_MAX, `${total} bytes are more than ${SIZE_MAX}`);
});

test("the policy of the pages is strict", async () => {
  const policy = (await fetch(`${world.server.url}/`)).headers.get("content-security-policy");
  assert.match(policy, /default-src 'none'/);
  assert.doesNotMatch(policy, /unsafe|\*/);
});

test("it works under a path, and says how the installation is called", async () => {
  const server = await Server.start(process.env.LTS, { mode: "server", args: ["--base-path", "/lts", "--name", "Night shift"] });
  try {
    assert.match(server.url, /\/lts$/);
    await visit("queues", { at: server.url }, async (page) => {
      await link(page, "live");
      await page.getByText("Night shift").waitFor();
      for (const [name, path] of [["Overview", "/lts/"], ["Tasks", "/lts/tasks"], ["Workers", "/lts/workers"]]) {
        await page.getByRole("navigation", { name: "Pages" }).getByRole("link", { name }).click();
        await page.waitForURL((url) => url.pathname === path);
        await settled(page);
      }
      await page.goto(`${server.url}/submit`);
      await page.getByLabel("Command", { exact: true }).fill("echo under a path");
      await page.locator("form").getByRole("button", { name: "Submit task" }).click();
      await page.getByRole("log").getByText("under a path").waitFor();
    });
  } finally {
    await server.stop();
  }
});

test("where nothing can be changed, nothing is offered", async () => {
  const server = await Server.start(process.env.LTS, { mode: "server", args: ["--read-only"] });
  try {
    await visit("queues", { at: server.url }, async (page) => {
      await link(page, "live");
      await settled(page);
      assert.equal(await page.getByRole("button", { name: "Create queue…" }).count(), 0);
      assert.equal(await page.getByRole("link", { name: "Submit task" }).count(), 0);
    });
  } finally {
    await server.down();
  }
});
