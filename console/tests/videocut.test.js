// The page of examples/videocut, which is made of the console's parts: cuts are made, watched, played, stopped and deleted.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { check, settled } from "./support/axe.js";
import { Browser } from "./support/browser.js";
import { holds } from "./support/pages.js";

/** How long the program may take to begin, its sample included, in ms. */
const START_WITHIN_MS = 60_000;
/** How much the length of a piece may be off: two frames, in seconds. */
const TOLERANCE_S = 0.08;

const directory = mkdtempSync(join(tmpdir(), "lts-videocut-"));
process.on("exit", () => rmSync(directory, { recursive: true, force: true }));
let browser, program, url;

before(async () => {
  mkdirSync(join(directory, "media"));
  const video = (name, seconds) =>
    execFileSync("ffmpeg", ["-loglevel", "error", "-f", "lavfi", "-i", `testsrc2=duration=${seconds}:size=320x180:rate=25`, "-g", "25", "-pix_fmt", "yuv420p", join(directory, "media", name)]);
  video("a-short-one.mp4", 12);
  // Takes so long to cut that it can be stopped.
  execFileSync("ffmpeg", ["-loglevel", "error", "-f", "lavfi", "-i", "testsrc2=duration=900:size=320x180:rate=25", "-c:v", "mpeg4", join(directory, "media", "b-long-one.mp4")]);
  program = spawn(process.env.VIDEOCUT, ["--web", "--listen", "127.0.0.1:0", "--dir", directory], { stdio: ["ignore", "ignore", "pipe"] });
  url = await new Promise((resolve, reject) => {
    let said = "";
    const timer = setTimeout(() => reject(new Error(`videocut does not begin: ${said}`)), START_WITHIN_MS);
    program.on("exit", (code) => reject(new Error(`videocut ended with ${code}: ${said}`)));
    program.stderr.on("data", (text) => {
      said += text;
      const found = /the page is at (http:[^\s,]+)/.exec(said);
      if (found) resolve(found[1]);
      if (found) clearTimeout(timer);
    });
  });
  browser = await Browser.start();
});

after(async () => {
  await browser?.stop();
  if (program && program.exitCode === null) {
    const ended = new Promise((resolve) => program.once("exit", resolve));
    program.kill("SIGTERM");
    assert.equal(await ended, 0, "it ends in order");
  }
});

async function visit(options, test) {
  const page = await browser.open(`${url}/`, options);
  try {
    await page.waitForSelector('.live[data-link="live"]');
    await settled(page);
    await test(page);
    assert.deepEqual(page.faults, []);
  } catch (error) {
    error.message += `\nit says:\n${(await page.innerText("body").catch(() => "")).slice(0, 1_500)}`;
    throw error;
  } finally {
    await page.close();
  }
}

async function call(method, path, body) {
  const answer = await fetch(`${url}/${path}`, { method, headers: { "content-type": "application/json" }, body: body && JSON.stringify(body) });
  assert.ok(answer.ok, `${method} ${path}: ${answer.status}`);
  return answer.status === 204 ? null : answer.json();
}

/** Fills the form in and sends it. */
async function make(page, { video, from, to, held = false }) {
  if (video) await page.getByLabel("Video", { exact: true }).selectOption({ label: video });
  await page.getByLabel("From (s)").fill(from);
  await page.getByLabel("To (s)").fill(to);
  await page.getByLabel("Wait until I start it").setChecked(held);
  await page.getByRole("button", { name: "Create cut" }).click();
}

const row = (page, name) => page.locator("tr", { has: page.getByRole("button", { name, exact: true }) });
const becomes = (page, name, state) => row(page, name).locator(`.state[data-state="${state}"]`).waitFor();

/** What a video element has loaded. */
const loaded = async (page, name) => {
  const video = page.locator(`video[aria-label^="${name}"]`);
  await video.waitFor();
  await holds(page, (name) => document.querySelector(`video[aria-label^="${name}"]`).readyState >= HTMLMediaElement.HAVE_METADATA, name);
  return video;
};

test("a cut is made, seen to end, and played before and after", () =>
  visit({}, async (page) => {
    await make(page, { from: "2", to: "5" });
    const name = "a-short-one.mp4, 2–5 s";
    await becomes(page, name, "succeeded");
    const piece = await loaded(page, "After");
    const seconds = await piece.evaluate((video) => video.duration);
    assert.ok(Math.abs(seconds - 3) <= TOLERANCE_S, `${seconds} s`);
    const whole = await loaded(page, "Before");
    assert.ok(Math.abs((await whole.evaluate((video) => video.duration)) - 12) <= TOLERANCE_S);
    // It shows what was cut of it.
    await holds(page, () => document.querySelector('video[aria-label^="Before"]').currentTime >= 2);
    await piece.evaluate((video) => ((video.muted = true), video.play()));
    await holds(page, () => document.querySelector('video[aria-label^="After"]').currentTime > 0.2);
    await piece.evaluate((video) => (video.currentTime = 2.5));
    await holds(page, () => !document.querySelector('video[aria-label^="After"]').seeking);
    for (const theme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme: theme });
      await check(page, theme);
    }
    await page.setViewportSize({ width: 360, height: 740 });
    const [wide, seen] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    assert.ok(wide <= seen, `${wide} pixels where ${seen} are`);
  }));

test("a held cut starts when it is told to, by keyboard", () =>
  visit({}, async (page) => {
    await make(page, { from: "0.5", to: "1.5", held: true });
    const name = "a-short-one.mp4, 0.5–1.5 s";
    await becomes(page, name, "held");
    await page.getByText("Nothing has been cut yet.").waitFor();
    await page.getByRole("button", { name: `Start: ${name}` }).focus();
    await page.keyboard.press("Enter");
    await becomes(page, name, "succeeded");
    await loaded(page, "After");
  }));

test("a cut that runs is stopped, and deleted", () =>
  visit({}, async (page) => {
    await make(page, { video: "b-long-one.mp4", from: "0", to: "900" });
    const name = "b-long-one.mp4, 0–900 s";
    await becomes(page, name, "running");
    await page.getByRole("button", { name: `Stop: ${name}` }).click();
    await becomes(page, name, "cancelled");
    await page.getByRole("button", { name: `Delete: ${name}` }).click();
    await check(page, "the question");
    await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
    await page.getByText("This cut was deleted").waitFor();
    assert.equal(await row(page, name).count(), 0);
  }));

test("a mistake is said at its field, and nothing is sent", () =>
  visit({}, async (page) => {
    const sent = [];
    page.on("request", (request) => request.method() === "POST" && sent.push(request.url()));
    await make(page, { from: "3", to: "3" });
    await page.getByText("It must be behind the beginning").waitFor();
    assert.equal(await page.evaluate(() => document.activeElement.name), "to");
    await make(page, { from: "13", to: "14" });
    await page.getByText("It must be within the video").waitFor();
    await check(page, "mistakes");
    assert.deepEqual(sent, []);
  }));

test("more cuts than a page has are gone through, in Chinese", async () => {
  const { videos } = await call("GET", "videos");
  const video = videos.find(({ name }) => name === "a-short-one.mp4").id;
  for (let n = 0; n < 12; n += 1) await call("POST", "cuts", { video, from: n / 2, to: n / 2 + 0.25, held: true });
  await visit({ language: "zh-CN", theme: "dark" }, async (page) => {
    await page.getByRole("button", { name: "a-short-one.mp4，5.5–5.75 秒", exact: true }).waitFor();
    assert.equal(await page.locator("tbody tr").count(), 10);
    await check(page, "Chinese");
    await page.locator(".pager").getByRole("button").last().click();
    await page.getByRole("button", { name: "a-short-one.mp4，0–0.25 秒", exact: true }).waitFor();
    await page.locator(".pager").getByRole("button").first().click();
    await page.getByRole("button", { name: "a-short-one.mp4，5.5–5.75 秒", exact: true }).waitFor();
    assert.doesNotMatch(await page.innerText("body"), /undefined|NaN|\[object|\{\w+\}|cut\./);
  });
});

test("both languages have the same messages", () => {
  const words = (name) => Object.keys(JSON.parse(readFileSync(new URL(`../../examples/videocut/web/${name}.json`, import.meta.url), "utf8")));
  assert.deepEqual(words("zh-CN"), words("en"));
});
