// Chromium, and pages that remember whatever went wrong in them.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const ARGUMENTS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
/** How long the page may take for anything, in ms: the machine may be busy. */
const PATIENCE_MS = 20_000;

/** Requests that fail while a server is restarted are no fault of the page. */
const harmless = (text) => /Failed to load resource|net::ERR_/.test(text);

export class Browser {
  static async start(executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium") {
    const browser = new Browser();
    browser.profile = await mkdtemp(join(tmpdir(), "lts-chromium-"));
    browser.context = await chromium.launchPersistentContext(browser.profile, {
      executablePath,
      args: ARGUMENTS,
      viewport: { width: 1280, height: 800 },
    });
    return browser;
  }

  /** A page of this server, in a language and a theme. */
  async open(url, { language = "en", theme = "light", width = 1280, height = 800, motion = "reduce" } = {}) {
    const page = await this.context.newPage();
    page.setDefaultTimeout(PATIENCE_MS);
    page.faults = [];
    page.on("pageerror", (error) => page.faults.push(String(error.stack ?? error)));
    page.on("console", (message) => {
      if (message.type() === "error" && !harmless(message.text())) page.faults.push(message.text());
    });
    await page.setViewportSize({ width, height });
    await page.emulateMedia({ colorScheme: theme, reducedMotion: motion });
    const to = new URL(url);
    to.searchParams.set("lang", language);
    await page.goto(to.href);
    await page.waitForSelector("h1");
    return page;
  }

  async stop() {
    await this.context.close();
    await rm(this.profile, { recursive: true, force: true });
  }
}
