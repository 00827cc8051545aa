// Makes the pictures of docs/console: the main pages in both languages and both themes.
import { execFileSync } from "node:child_process";
import { mkdir, readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { Browser } from "./browser.js";
import { seed, trickle } from "./seed.js";
import { Server } from "./server.js";

/** Largest picture, in bytes. */
const SIZE_MAX = 150_000;
/** How long the charts are filled before the rest is there, and after it, in ms. */
const FILL_MS = 120_000;
const AFTER_MS = 20_000;

const target = process.argv[2];
await mkdir(target, { recursive: true });
for (const name of await readdir(target)) if (name.endsWith(".png")) await rm(join(target, name));

const server = await Server.start(process.env.LTS);
const browser = await Browser.start();
const faults = [];
try {
  await trickle(server, FILL_MS);
  const ids = await seed(server);
  await trickle(server, AFTER_MS);
  const pages = { overview: "", tasks: "tasks", task: `tasks/${ids.running}`, queues: "queues", workers: "workers" };
  for (const [name, path] of Object.entries(pages)) {
    for (const language of ["en", "zh-CN"]) {
      for (const theme of ["light", "dark"]) {
        const page = await browser.open(`${server.url}/${path}`, { language, theme });
        await page.waitForSelector('.live[data-link="live"]');
        await page.waitForFunction(() => !document.querySelector(".loading") && !!document.querySelector(".card"));
        if (name === "task") await page.waitForSelector(".log-line");
        if (name === "overview") await page.waitForSelector(".chart rect");
        const file = join(target, `${name}.${language}.${theme}.png`);
        await page.screenshot({ path: file, animations: "disabled" });
        // Few colours, of which fewer bits tell.
        execFileSync("pngquant", ["--force", "--strip", "--ext", ".png", file]);
        const { size } = await stat(file);
        console.log(`${name}.${language}.${theme}.png  ${size} bytes`);
        if (size > SIZE_MAX) faults.push(`${file} has ${size} bytes, more than ${SIZE_MAX}`);
        faults.push(...page.faults);
        await page.close();
      }
    }
  }
} finally {
  await browser.stop();
  await server.stop();
}
if (faults.length) {
  console.error(faults.join("\n"));
  process.exitCode = 1;
}
