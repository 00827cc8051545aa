// What must hold of the files themselves: languages, vendored libraries, and what the policy of the pages forbids.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync, readdirSync } from "node:fs";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "node:test";

const root = fileURLToPath(new URL("..", import.meta.url));

function files(directory = root) {
  return readdirSync(directory, { withFileTypes: true }).flatMap((entry) => {
    const path = join(directory, entry.name);
    if (path === join(root, "tests")) return [];
    return entry.isDirectory() ? files(path) : [path];
  });
}

const named = (path) => relative(root, path);
const text = (path) => readFileSync(path, "utf8");
const ours = files().filter((path) => path.endsWith(".js") && !named(path).startsWith("vendor"));
const dictionary = (name) => JSON.parse(text(join(root, "i18n", `${name}.json`)));
const [en, zh] = [dictionary("en"), dictionary("zh-CN")];
const placeholders = (message) => [...new Set([...message.matchAll(/\{(\w+)/g)].map(([, name]) => name))].sort();

test("the libraries are as they were fetched", () => {
  execFileSync(join(root, "../scripts/vendor-console"), ["--check"]);
  const listed = [...text(join(root, "vendor/VENDOR.md")).matchAll(/^\| `([^`]+)`/gm)].map(([, name]) => name);
  assert.deepEqual([...listed, "VENDOR.md"].sort(), readdirSync(join(root, "vendor")).sort());
});

test("both languages have the same messages with the same values in them", () => {
  assert.deepEqual(Object.keys(en), Object.keys(zh));
  for (const key of Object.keys(en)) {
    assert.ok(en[key].trim() && zh[key].trim(), `${key} is empty`);
    assert.deepEqual(placeholders(zh[key]), placeholders(en[key]), key);
  }
});

test("every message is used, and every one that is used is there", () => {
  const code = ours.map(text).join("\n");
  const begun = [...code.matchAll(/\b(?:t|has)\(`([^`$]+)\$\{/g)].map(([, start]) => start);
  const literals = new Set([...code.matchAll(/["'`]([a-z_]+(?:\.[\w-]+)+)["'`]/g)].map(([, key]) => key));
  literals.add("loading");
  for (const key of Object.keys(en)) {
    assert.ok(literals.has(key) || begun.some((start) => key.startsWith(start)), `${key} is not used`);
  }
  const asked = [...code.matchAll(/\bt\((?:[^()`]*\? )?"([^"]+)"(?: : "([^"]+)")?/g)].flatMap(([, a, b]) => (b ? [a, b] : [a]));
  assert.ok(asked.length > 200, `only ${asked.length} found`);
  for (const key of asked) assert.ok(key in en, `${key} is missing`);
  for (const start of begun) assert.ok(Object.keys(en).some((key) => key.startsWith(start)), `${start}… is missing`);
});

test("every code of the API has its words", () => {
  const source = text(join(root, "../crates/light-task-scheduler-server/src/api/problem.rs"));
  const codes = [...source.matchAll(/Code::\w+ => "(\w+)",/g)].map(([, code]) => code);
  assert.ok(codes.length > 10);
  for (const code of codes) assert.ok(`problem.${code}` in en, `problem.${code} is missing`);
});

test("no text stands in a template beside the dictionaries", () => {
  // Names that are the same in every language.
  const names = /^(lts|POST|URL|×|EN|中文)$/;
  for (const path of ours) {
    for (const [, template] of text(path).matchAll(/html`((?:[^`$\\]|\\.|\$(?!\{))*(?:\$\{(?:[^{}`]|\{[^{}]*\})*\}(?:[^`$\\]|\\.|\$(?!\{))*)*)`/g)) {
      const bare = template
        .replace(/\$\{(?:[^{}]|\{[^{}]*\})*\}/g, "\u0000")
        .replace(/<[^>]*>/g, "\u0000")
        .split("\u0000")
        .map((piece) => piece.trim())
        .filter((piece) => /\p{L}{2,}/u.test(piece) && !/[<>=]/.test(piece) && !names.test(piece));
      assert.deepEqual(bare, [], named(path));
    }
  }
});

test("nothing is written as markup, and nothing needs an inline style or script", () => {
  for (const path of ours) {
    const code = text(path);
    for (const bad of [/innerHTML|outerHTML|insertAdjacentHTML|dangerouslySet|document\.write/, /\beval\(|new Function/, /\sstyle=/, /\son[a-z]+="/]) {
      assert.doesNotMatch(code, bad, named(path));
    }
  }
  assert.doesNotMatch(text(join(root, "index.html")), /<style|style=|<script(?![^>]*src=)|\son\w+=/);
});

test("every import names a file that is there", () => {
  for (const path of files().filter((path) => path.endsWith(".js"))) {
    for (const [, target] of text(path).matchAll(/(?:from|import) ?"([^"]+)"/g)) {
      assert.match(target, /^\.\.?\//, `${named(path)}: ${target}`);
      assert.ok(files().includes(join(path, "..", target)), `${named(path)}: ${target}`);
    }
  }
});

test("the page names every module, so that a browser fetches them all at once", () => {
  const listed = [...text(join(root, "index.html")).matchAll(/modulepreload" href="\{\{assets\}\}([^"]+)"/g)].map(([, name]) => name);
  const modules = files().map(named).filter((name) => name.endsWith(".js") && name !== "main.js");
  assert.deepEqual(listed, modules.sort());
});
