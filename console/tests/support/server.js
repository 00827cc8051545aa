// A real `lts` for the tests: on a free port, with a store of its own.
import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** How long the program may take to begin, in ms. */
const START_WITHIN_MS = 30_000;

export class Server {
  /** @param {string} program path of `lts` */
  static async start(program, { store, port = 0, mode = "dev", args = [], token } = {}) {
    const directory = store ? null : await mkdtemp(join(tmpdir(), "lts-console-"));
    const server = new Server();
    Object.assign(server, { program, mode, args, token, directory, store: store ?? join(directory, "lts.db"), port });
    await server.up();
    return server;
  }

  async up() {
    const child = spawn(
      this.program,
      [this.mode, "--listen", `127.0.0.1:${this.port}`, "--store", this.store, ...this.args],
      { stdio: ["ignore", "ignore", "pipe"] },
    );
    this.child = child;
    this.said = "";
    const url = await new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`lts ${this.mode} does not begin: ${this.said}`)), START_WITHIN_MS);
      child.on("exit", (code) => reject(new Error(`lts ${this.mode} ended with ${code}: ${this.said}`)));
      child.stderr.on("data", (text) => {
        this.said += text;
        const found = /listens on (http:[^\s,]+)/.exec(this.said);
        if (found) resolve(found[1]);
        clearTimeout(found ? timer : undefined);
      });
    });
    this.url = url;
    // The same one after a restart, so that an open page finds it again.
    this.port = Number(new URL(url).port);
  }

  /** Ends the program, as Ctrl-C does. */
  async down() {
    const { child } = this;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGINT");
    await ended;
  }

  /** Ends it, and whatever it has started: what runs outlives the program otherwise. */
  async stop() {
    if (this.child.exitCode !== null || this.child.signalCode !== null) await this.up();
    await this.call("POST", "task-actions", { action: "cancel", q: "state:waiting,running" });
    await this.until("nothing runs", async () => (await this.call("GET", "stats")).totals.running === 0);
    await this.down();
    if (this.directory) await rm(this.directory, { recursive: true, force: true });
  }

  async call(method, path, body) {
    const answer = await fetch(`${this.url}/api/v1/${path}`, {
      method,
      headers: { "content-type": "application/json", ...(this.token && { authorization: `Bearer ${this.token}` }) },
      body: body === undefined ? undefined : typeof body === "string" ? body : JSON.stringify(body),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
    return text ? JSON.parse(text) : null;
  }

  submit(task) {
    return this.call("POST", "tasks", task);
  }

  command(...argv) {
    return this.submit({ kind: "process", payload: { argv } });
  }

  shell(script, more = {}) {
    return this.submit({ kind: "process", payload: { argv: ["sh", "-c", script] }, ...more });
  }

  task(id) {
    return this.call("GET", `tasks/${encodeURIComponent(id)}`);
  }

  /** Asks again and again until it holds. */
  async until(what, holds, within = 20_000) {
    const end = Date.now() + within;
    for (;;) {
      const found = await holds();
      if (found) return found;
      if (Date.now() > end) throw new Error(`waited ${within} ms in vain: ${what}`);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  ended(id) {
    return this.until(`task ${id} ends`, async () => {
      const task = await this.task(id);
      return ["succeeded", "failed", "cancelled"].includes(task.state) && task;
    });
  }
}
