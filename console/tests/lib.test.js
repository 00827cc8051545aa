// What needs no browser: the rules of the console as functions of values.
import assert from "node:assert/strict";
import { describe, test } from "node:test";

// A clock of the page is no reason for this process to go on.
const { setInterval } = globalThis;
globalThis.setInterval = (...given) => setInterval(...given).unref();
// What the modules look at when they are loaded.
Object.assign(globalThis, {
  document: { hidden: true, baseURI: "http://host/lts/", documentElement: {}, addEventListener() {} },
  location: new URL("http://host/lts/"),
  history: { state: null },
});

const { area, buckets, line, scale, stacked } = await import("../lib/chart.js");
const { commonPart, fingerprint, isOf, queryOf } = await import("../lib/failures.js");
const { bytes, duration, parseSpan, typedSpan } = await import("../lib/format.js");
const { filled, preferred } = await import("../lib/i18n.js");
const { memberText, pretty, read } = await import("../lib/json.js");
const { LINES_MAX, LogLines, hits } = await import("../lib/logs.js");
const { suggestions, terms, valueOf, withTerm } = await import("../lib/query.js");
const { matched } = await import("../lib/router.js");
const { parser } = await import("../lib/sse.js");
const { FieldMistake, argvOf, bodyOf, curlOf } = await import("../lib/submission.js");
const { classOf, coloured, needsShell, visible, words } = await import("../lib/text.js");

describe("JSON", () => {
  const text = '{"id": 9007199254740993, "deep": [1e400, -0.10, {"a\\"b": null}], "s": "\\u202e", "e": {}, "l": []}';

  test("numbers of any size stay what they are", () => {
    assert.equal(memberText(text, "id"), "9007199254740993");
    assert.match(pretty(text), /\n {2}"id": 9007199254740993,\n/);
    assert.match(pretty(text), /1e400,\n {4}-0\.10,/);
    assert.notEqual(JSON.stringify(JSON.parse(text).id), "9007199254740993", "which is why there is a reader of our own");
  });

  test("pretty text means the same", () => {
    assert.deepEqual(JSON.parse(pretty(text)), JSON.parse(text));
    assert.equal(pretty(pretty(text)), pretty(text));
    assert.match(pretty(text), /"e": \{\},\n {2}"l": \[\]\n\}$/);
  });

  test("what is no JSON is refused with its place", () => {
    for (const bad of ["", "{", "[1,]", '{"a":1,}', "01", "+1", "'a'", '"\n"', "nul", "1 2", '{"a" 1}', "NaN", '"\\x"']) {
      assert.throws(() => read(bad), SyntaxError, bad);
      assert.throws(() => JSON.parse(bad), SyntaxError, bad);
    }
    assert.throws(() => read('{\n "a": tru }'), { line: 2, column: 7 });
    assert.throws(() => read("[".repeat(100_000)), SyntaxError, "not a stack overflow");
  });

  test("a member that is missing has no text", () => {
    assert.equal(memberText(text, "other"), undefined);
    assert.equal(memberText("[1]", "id"), undefined);
  });
});

describe("text of others", () => {
  test("what is hidden or turns text around becomes visible", () => {
    assert.equal(visible("a\u202eb\u2066c\u200b\u0007\u001b"), "a⟨202E⟩b⟨2066⟩c⟨200B⟩⟨0007⟩⟨001B⟩");
    assert.equal(visible("plain\ttext\n中文 עברית"), "plain\ttext\n中文 עברית");
  });

  const shown = (text) => coloured(text).parts.map(({ text, style }) => [text, classOf(style)]);

  test("colours of a terminal are kept, its other commands are dropped", () => {
    assert.deepEqual(shown("a\u001b[1;31mb\u001b[0mc"), [
      ["a", ""],
      ["b", "ansi-bold ansi-1"],
      ["c", ""],
    ]);
    assert.deepEqual(shown("\u001b[2J\u001b[Hx\u001b]0;title\u0007y\u001b]8;;http://evil\u001b\\z"), [["x", ""], ["y", ""], ["z", ""]]);
    assert.deepEqual(shown("\u001b[38;5;9mx\u001b[38;2;1;2;3my"), [["x", ""], ["y", ""]]);
    assert.deepEqual(shown("\u001b[31"), [["⟨001B⟩[31", ""]]);
  });

  test("a carriage return begins a line anew", () => {
    assert.deepEqual(shown("10%\r20%\r30%\r"), [["30%", ""]]);
  });

  test("a colour goes on in the next line", () => {
    const first = coloured("\u001b[32mok");
    assert.equal(classOf(coloured("more", first.style).parts[0].style), "ansi-2");
  });

  test("a command line is cut as a shell cuts it", () => {
    assert.deepEqual(words(`a 'b c' "d \\" e" f\\ g ''`), ["a", "b c", 'd " e', "f g", ""]);
    assert.equal(words("echo 'open"), null);
    assert.deepEqual(words("   "), []);
    assert.equal(needsShell("echo 'a | b'"), false);
    for (const line of ["a | b", "a > b", "echo $HOME", "a && b", "ls *.txt", "a; b"]) assert.equal(needsShell(line), true, line);
  });
});

describe("the query language", () => {
  test("terms are set and taken away", () => {
    assert.deepEqual(terms('state:failed  error:"no space" x'), ["state:failed", 'error:"no space"', "x"]);
    assert.equal(valueOf('queue:"a b" state:failed', "queue"), "a b");
    assert.equal(withTerm('state:failed error:"no space"', "state", "running"), 'state:running error:"no space"');
    assert.equal(withTerm("state:failed", "state", undefined), "");
    assert.equal(withTerm("", "queue", "a b"), 'queue:"a b"');
  });

  test("what is begun is completed", () => {
    const texts = (query, caret = query.length) => suggestions(query, caret, { queues: ["video", "my mail"] }).map(({ text }) => text);
    assert.deepEqual(texts("sta"), ["state:"]);
    assert.deepEqual(texts("state:fa"), ["state:failed"]);
    assert.deepEqual(texts("queue:"), ["queue:video", 'queue:"my mail"']);
    assert.deepEqual(texts("nothing:"), []);
    assert.equal(suggestions("state:fa queue:video", 8)[0].whole, "state:failed queue:video");
  });
});

describe("charts", () => {
  test("a scale is round, and holds the largest", () => {
    for (const largest of [0.3, 1, 7, 42, 99, 100, 101, 12_345, 9e9]) {
      const { max, ticks } = scale(largest);
      assert.ok(max >= largest && max <= largest * 2.5, `${largest}: ${max}`);
      assert.equal(ticks[0], 0);
      assert.equal(ticks.at(-1), max);
      assert.ok(ticks.length <= 5, String(ticks));
    }
    assert.deepEqual(scale(0), { max: 1, ticks: [0, 1] });
    assert.deepEqual(scale(NaN), { max: 1, ticks: [0, 1] });
  });

  test("bars stand on each other", () => {
    assert.deepEqual(stacked([[1, 3]], 4, 100), [[{ y: 75, height: 25 }, { y: 0, height: 75 }]]);
  });

  test("a line goes from edge to edge", () => {
    assert.equal(line([0, 2, 1], 2, 10, 10), "M0 10L5 0L10 5");
    assert.equal(area([0, 2, 1], 2, 10, 10), "M0 10L5 0L10 5L10 10L0 10Z");
    assert.equal(area([], 2, 10, 10), "");
  });

  test("buckets lose nothing that was counted", () => {
    const points = Array.from({ length: 119 }, (_, n) => ({ at: n, seconds: 7.5, succeeded: n, failed: 1, cancelled: 0, waiting: n, running: 2 }));
    const found = buckets(points, 60);
    assert.ok(found.length <= 60);
    const sum = (list, name) => list.reduce((total, point) => total + point[name], 0);
    for (const name of ["succeeded", "failed", "seconds"]) assert.equal(sum(found, name), sum(points, name), name);
    assert.equal(found.at(-1).waiting, 118);
    assert.deepEqual(buckets([], 60), []);
  });
});

describe("events", () => {
  test("a stream is cut into events, wherever it is cut into pieces", () => {
    const stream = 'id: a-1\nevent: stats\ndata: {"a":1}\n\n: alive\n\nevent: log\ndata: 1\ndata: 2\n\ndata:x\r\n\r\n';
    const whole = parser()(stream);
    assert.deepEqual(whole, [
      { event: "stats", data: '{"a":1}', id: "a-1" },
      { event: "log", data: "1\n2" },
      { event: "message", data: "x" },
    ]);
    for (let at = 1; at < stream.length - 2; at += 1) {
      const cut = parser();
      assert.deepEqual([...cut(stream.slice(0, at)), ...cut(stream.slice(at))], whole, `cut at ${at}`);
    }
  });
});

describe("logs", () => {
  const textOf = (log) => log.lines.map((line) => `${line.stream[3]} ${line.text}`);

  test("pieces become lines, stream by stream", () => {
    const log = new LogLines();
    log.append("stdout", "on");
    log.append("stderr", "oops\n");
    log.append("stdout", "e\ntwo\n\n");
    assert.deepEqual(textOf(log), ["o one", "e oops", "o two", "o "]);
    const keys = new Set(log.lines.map((line) => line.key));
    assert.equal(keys.size, 4);
    log.prepend("stdout", "zero\n");
    assert.equal(textOf(log)[0], "o zero");
  });

  test("a colour that is left on goes on, also across pieces", () => {
    const log = new LogLines();
    log.append("stdout", "\u001b[31mred\nstill");
    log.append("stdout", " red\n");
    assert.deepEqual(log.lines.map((line) => classOf(line.parts[0].style)), ["ansi-1", "ansi-1"]);
    assert.equal(log.lines[1].text, "still red");
  });

  test("a log without end is bounded, and so is a line without end", () => {
    const log = new LogLines();
    log.append("stdout", "x\n".repeat(LINES_MAX + 10));
    assert.equal(log.lines.length, LINES_MAX);
    const long = new LogLines();
    for (let n = 0; n < 10; n += 1) long.append("stdout", "x".repeat(5_000));
    assert.ok(long.lines.every((line) => line.text.length <= 8_000));
    assert.ok(long.lines.length > 1);
  });

  test("what is searched is marked, and nothing is lost", () => {
    const found = hits("Error: no error", "error");
    assert.deepEqual(found.filter(({ hit }) => hit).map(({ text }) => text), ["Error", "error"]);
    assert.equal(found.map(({ text }) => text).join(""), "Error: no error");
  });
});

describe("languages", () => {
  test("values and plurals are put in", () => {
    assert.equal(filled("{n} {n|task|tasks} of {name}", { n: 1, name: "x" }, "en"), "1 task of x");
    assert.equal(filled("{n} {n|task|tasks}", { n: 12_345 }, "en"), "12,345 tasks");
    assert.equal(filled("{n} 个{name}", { n: 2, name: "<b>" }, "zh-CN"), "2 个<b>");
    assert.equal(filled("{other}", {}, "en"), "{other}");
  });

  test("the language is the one that is asked for, then the kept, then the browser's", () => {
    assert.equal(preferred("?lang=zh-CN", "en", ["en"]), "zh-CN");
    assert.equal(preferred("", "zh-CN", ["en"]), "zh-CN");
    assert.equal(preferred("", null, ["fr", "zh-TW", "en"]), "zh-CN");
    assert.equal(preferred("?lang=xx", null, ["de"]), "en");
  });

  test("sizes and times are for people", () => {
    assert.equal(bytes(1536), "1.5 KiB");
    assert.equal(bytes(12), "12 B");
    assert.equal(parseSpan("P1DT1H1M1.5S"), 90_061_500);
    assert.equal(parseSpan("nonsense"), null);
    assert.equal(typedSpan("PT90S"), "1m30s");
    assert.equal(typedSpan("PT0.25S"), "250ms");
    assert.equal(duration(90_000), "unit.m unit.s", "no dictionary is loaded here");
  });
});

describe("addresses", () => {
  const patterns = ["", "tasks", "tasks/{id}"];
  test("a page is found by its address, whatever is in a name", () => {
    assert.equal(matched(patterns, "").pattern, "");
    assert.deepEqual(matched(patterns, "tasks/a%2Fb%20%3C").parts, { id: "a/b <" });
    assert.equal(matched(patterns, "tasks/a/b"), null);
    assert.equal(matched(patterns, "tasks/%E0%A4%A"), null);
  });
});

describe("the form", () => {
  const empty = { command: "", cwd: "", env: "", stdin: "" };
  const values = { ...empty, kind: "", payload: "", queue: "default", priority: "0", timeout: "", delay: "", attempts: "1", labels: "", held: false };

  test("a command becomes its words, or a shell's", () => {
    assert.equal(bodyOf("process", { ...values, command: "echo 'a b'" }), '{"kind":"process","payload":{"argv":["echo","a b"]}}');
    assert.deepEqual(argvOf("echo $HOME | wc"), ["sh", "-c", "echo $HOME | wc"]);
  });

  test("everything that was given is sent", () => {
    const body = bodyOf("process", {
      ...values,
      command: "x",
      env: "A=1\nB=c=d\n",
      queue: "mail",
      priority: "-3",
      timeout: "5m",
      attempts: "4",
      labels: "team=a",
      held: true,
    });
    assert.deepEqual(JSON.parse(body), {
      kind: "process",
      payload: { argv: ["x"], env: { A: "1", B: "c=d" } },
      queue: "mail",
      priority: -3,
      timeout: "5m",
      retry: { max_attempts: 4 },
      labels: { team: "a" },
      held: true,
    });
  });

  test("numbers in a payload stay as they were typed", () => {
    const body = bodyOf("other", { ...values, kind: "k", payload: '{"id": 9007199254740993}' });
    assert.match(body, /"payload":\{"id": 9007199254740993\}/);
  });

  test("mistakes name their field", () => {
    const mistakes = [
      ["process", {}, "command"],
      ["process", { command: "echo 'open" }, "command"],
      ["process", { command: "x", env: "NOVALUE" }, "env"],
      ["docker", { payload: "{" }, "payload"],
      ["other", { payload: "{}" }, "kind"],
      ["other", { kind: "k", payload: "{x}" }, "payload"],
    ];
    for (const [type, more, field] of mistakes) {
      assert.throws(() => bodyOf(type, { ...values, ...more }), (error) => error instanceof FieldMistake && error.field === field, `${type} ${field}`);
    }
  });

  test("the command line for it can be pasted", () => {
    assert.equal(curlOf("http://x", `{"a":"it's"}`), `curl http://x -H 'content-type: application/json' -d '{"a":"it'\\''s"}'`);
  });
});

describe("failures", () => {
  test("tasks that failed alike are found by what they have in common", () => {
    assert.equal(commonPart("exit code 28: no space left on device"), "no space left on device");
    assert.equal(commonPart('line 3 of "x" is bad'), "is bad");
    assert.equal(queryOf({ message: "exit code 3", queues: ["a b"] }), 'state:failed queue:"a b" error:"exit code"');
    assert.equal(queryOf({ message: "77", queues: ["a", "b"] }), "state:failed");
  });

  test("a group holds only its own", () => {
    assert.equal(fingerprint("no file /a/17 after 3 tries"), "no file # after # tries");
    const group = { kind: "error", fingerprint: "exit code #" };
    assert.equal(isOf(group, { failure: { kind: "error", message: "exit code 7" } }), true);
    assert.equal(isOf(group, { failure: { kind: "error", message: "exit code 7: more" } }), false);
    assert.equal(isOf(group, { failure: { kind: "timeout", message: "exit code 7" } }), false);
    assert.equal(isOf(group, { failure: null }), false);
  });
});
