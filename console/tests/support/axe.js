// Whether everybody can use a page: axe-core, with the rules of WCAG 2.2 AA.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { holds } from "./pages.js";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];

/** The page has shown what it shows. */
export async function settled(page) {
  await page.waitForSelector("h1");
  await holds(page, () => !document.querySelector(".loading"));
}

/** Everybody can use what is seen. */
export async function check(page, what) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate((rules) => window.axe.run(document, { runOnly: rules }), RULES);
  const words = violations.map(({ id, help, nodes }) => `${id}: ${help}\n  ${nodes.map((node) => `${node.html.slice(0, 200)}\n    ${node.failureSummary.replace(/\n/g, "\n    ")}`).join("\n  ")}`);
  assert.deepEqual(words, [], what);
}
