// A program of ours as a process, on a dev broker, and the operations page on its admin server.

import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { Broker } from "./broker.mjs";

/** Nothing takes longer: a handler counts as stuck after a minute, dead letters are read for 15 s. */
const PATIENCE_MS = 100_000;

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export async function until(what, fn) {
  const end = Date.now() + PATIENCE_MS;
  while (!(await fn().catch(() => false))) {
    if (Date.now() > end) throw new Error(`never: ${what}`);
    await sleep(50);
  }
}

async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

export class App {
  broker;
  /** Where its HTTP side is, and its admin server. */
  http;
  admin;
  #program;
  #process;
  #folder;
  #env;
  #log = "";

  /** `groups` of the broker that are not as it makes them. */
  static async start(program, brokerProgram, groups) {
    const app = new App();
    app.#program = program;
    app.#folder = mkdtempSync(join(tmpdir(), "app-"));
    const [http, grpc, admin] = await Promise.all([freePort(), freePort(), freePort()]);
    app.broker = await Broker.start(brokerProgram, groups);
    app.http = `http://127.0.0.1:${http}/`;
    app.admin = `http://127.0.0.1:${admin}/`;
    app.#env = {
      ...process.env, KRATOS_ROCKETMQ__ENDPOINTS: app.broker.address, KRATOS_HTTP__ADDR: `127.0.0.1:${http}`,
      KRATOS_ADMIN__ADDR: `127.0.0.1:${admin}`, KRATOS_ADMIN__ACTIONS: "true",
    };
    if (program.endsWith("quickstart")) app.#env.KRATOS_GRPC__ADDR = `127.0.0.1:${grpc}`;
    app.#process = app.#spawn([]);
    for (const stream of [app.#process.stdout, app.#process.stderr]) stream.on("data", (data) => { app.#log = (app.#log + data).slice(-20_000); });
    await until("it is ready", async () => (await fetch(`${app.admin}readyz`)).ok).catch((error) => { throw new Error(`${error.message}\n${app.#log}`); });
    return app;
  }

  #spawn(args) {
    return spawn(this.#program, args, { cwd: this.#folder, stdio: ["ignore", "pipe", "pipe"], env: this.#env });
  }

  /** Another command of its program: what it says. */
  async command(...args) {
    const child = this.#spawn(args);
    let said = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => { said += data; });
    const code = await new Promise((resolve) => child.once("exit", resolve));
    if (code !== 0) throw new Error(`${args.join(" ")} ends with ${code}: ${said}`);
    return said;
  }

  async status() {
    return (await fetch(`${this.admin}status`)).json();
  }

  /** How the subscription of a topic is. */
  async subscription(topic) {
    return (await this.status()).subscriptions.find((s) => s.topic === topic);
  }

  /** Processor time of its threads so far, in milliseconds. */
  cpu() {
    const tasks = `/proc/${this.#process.pid}/task`;
    return readdirSync(tasks).map((task) => Number(readFileSync(`${tasks}/${task}/schedstat`, "utf8").split(" ")[0]) / 1e6).reduce((a, b) => a + b, 0);
  }

  signal(name) {
    this.#process.kill(name);
  }

  get ended() {
    return this.#process.exitCode !== null || this.#process.signalCode !== null;
  }

  stop() {
    if (!this.ended) this.signal("SIGKILL");
    this.broker.stop();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** Opens the details of a topic's subscription; answers what presses a button there. */
export async function details(page, topic) {
  await page.run((topic) => { for (const row of document.querySelectorAll("#rows tr.row")) if (row.innerText.includes(topic)) row.querySelector("td.open button[aria-expanded=false]")?.click(); }, topic);
  return async (words) => {
    await page.until((words) => [...document.querySelectorAll("tr.more:not([hidden]) button, dialog button")].some((b) => b.textContent === words && b.checkVisibility()), words);
    await page.run((words) => [...document.querySelectorAll("tr.more:not([hidden]) button, dialog button")].find((b) => b.textContent === words && b.checkVisibility()).click(), words);
  };
}
