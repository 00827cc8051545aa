// A server that asks who one is: signing in, what a role may do, and signing out.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { given, link } from "./support/pages.js";

const directory = mkdtempSync(join(tmpdir(), "lts-console-tokens-"));
process.on("exit", () => rmSync(directory, { recursive: true, force: true }));
const file = join(directory, "tokens.json");
const token = (role) => {
  const said = execFileSync(process.env.LTS, ["token", "create", `a-${role}`, "--role", role, "--tokens", file], { encoding: "utf8" });
  return /lts_\w+/.exec(said)[0];
};
const [admin, viewer] = ["admin", "viewer"].map(token);

const world = given({
  mode: "server",
  args: ["--tokens", file],
  token: admin,
  prepare: (server) => server.submit({ kind: "process", held: true, payload: { argv: ["echo", "secret"] } }),
});

async function signIn(page, text) {
  await page.getByLabel("Token").fill(text);
  await page.getByRole("button", { name: "Sign in" }).click();
}

test("nothing is shown before one has signed in", () =>
  world.visit("tasks", {}, async (page) => {
    await page.getByRole("heading", { name: "Sign in" }).waitFor();
    await signIn(page, "lts_wrong");
    await page.locator(".problem").waitFor();
    assert.equal(await page.getByText("echo secret").count(), 0);
  }));

test("a viewer sees, and is offered nothing to change", () =>
  world.visit("tasks", {}, async (page) => {
    await signIn(page, viewer);
    await page.getByText("echo secret").click();
    await page.locator(".timeline").waitFor();
    await link(page, "live");
    for (const name of ["Start", "Cancel", "Clone…", "Delete"]) assert.equal(await page.getByRole("button", { name, exact: true }).count(), 0, name);
    assert.equal(await page.getByRole("link", { name: "Submit task" }).count(), 0);
    assert.equal(await page.evaluate(() => document.cookie), "", "scripts cannot read the session");
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByRole("heading", { name: "Sign in" }).waitFor();
  }));

test("an admin may do everything", () =>
  world.visit("", {}, async (page) => {
    await signIn(page, admin);
    await page.getByRole("link", { name: "Submit task" }).first().click();
    await page.getByLabel("Command", { exact: true }).fill("echo signed in");
    await page.locator("form").getByRole("button", { name: "Submit task" }).click();
    await page.getByRole("log").getByText("signed in").waitFor();
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByRole("heading", { name: "Sign in" }).waitFor();
  }));
