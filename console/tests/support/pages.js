// What every test with a browser begins with.
import { after, before } from "node:test";
import { Browser } from "./browser.js";
import { Server } from "./server.js";

const program = process.env.LTS;
if (!program) throw new Error("LTS must name the program; see scripts/console-test");

/** A server and a browser for one file of tests; both are there from the first test on, and what `prepare` has made. */
export function given({ prepare, ...options } = {}) {
  const world = {};
  before(async () => {
    world.server = await Server.start(program, options);
    world.browser = await Browser.start();
    await prepare?.(world.server);
  });
  after(async () => {
    await world.browser?.stop();
    await world.server?.stop();
  });
  /** A page, which must have had no fault when the test is through with it. */
  world.visit = async (path, options, test) => {
    const page = await world.browser.open(`${options?.at ?? world.server.url}/${path}`, options);
    try {
      await test(page);
      if (page.faults.length) throw new Error(`faults of ${path}:\n${page.faults.join("\n")}`);
    } catch (error) {
      error.message += `\nat ${page.url()}, where it says:\n${(await page.innerText("body").catch(() => "")).slice(0, 1_500)}`;
      throw error;
    } finally {
      await page.close();
    }
  };
  return world;
}

/** Waits until this holds in the page. */
export const holds = (page, test, argument) => page.waitForFunction(test, argument);

export const link = (page, state) => page.waitForSelector(`.live[data-link="${state}"]`);
export const state = (page, name) => page.waitForSelector(`.task-line .state[data-state="${name}"]`);
