// The pages on the admin server of an App: quickstart, on a dev broker.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { Broker } from "./broker.mjs";
import { isQuiet, isReadable } from "./look.mjs";

/** Nothing here takes longer: dead letters are all read when none has come for 15 s. */
const PATIENCE_MS = 60_000;

/** For how long the cost of an open page is measured; it asks every two seconds. */
const COST_MS = 4000;

async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function until(what, fn) {
  const end = Date.now() + PATIENCE_MS;
  while (!(await fn().catch(() => false))) {
    if (Date.now() > end) throw new Error(`never: ${what}`);
    await sleep(50);
  }
}

export function real({ browser, shots, program, broker: brokerProgram }) {
  let app, broker, env, folder, admin, http, log = "";
  const ended = () => app.exitCode !== null || app.signalCode !== null;

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), "quickstart-"));
    const [h, g, a] = await Promise.all([freePort(), freePort(), freePort()]);
    broker = await Broker.start(brokerProgram, ["logger-saver-replay:retry=99"]);
    http = `http://127.0.0.1:${h}`;
    admin = `http://127.0.0.1:${a}/`;
    env = {
      ...process.env, KRATOS_ROCKETMQ__ENDPOINTS: broker.address,
      KRATOS_HTTP__ADDR: `127.0.0.1:${h}`, KRATOS_GRPC__ADDR: `127.0.0.1:${g}`, KRATOS_ADMIN__ADDR: `127.0.0.1:${a}`, KRATOS_ADMIN__ACTIONS: "true",
    };
    app = spawn(program, [], { cwd: folder, stdio: ["ignore", "pipe", "pipe"], env });
    for (const stream of [app.stdout, app.stderr]) stream.on("data", (data) => { log = (log + data).slice(-20_000); });
    await until("quickstart is ready", async () => (await fetch(`${admin}readyz`)).ok).catch((error) => { throw new Error(`${error.message}\n${log}`); });
  });
  after(async () => {
    if (app && !ended()) app.kill("SIGKILL");
    broker?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  const report = () => fetch(`${http}/agent/v1/report`, {
    method: "POST", headers: { "content-type": "application/json" },
    body: JSON.stringify({ reportType: "event", appId: "a", appKey: "k", eventName: "login", debug: 0, content: "{}" }),
  });
  const status = async () => (await fetch(`${admin}status`)).json();
  /** Processor time of the App's threads so far, in milliseconds. */
  const cpu = () => readdirSync(`/proc/${app.pid}/task`)
    .map((task) => Number(readFileSync(`/proc/${app.pid}/task/${task}/schedstat`, "utf8").split(" ")[0]) / 1e6).reduce((a, b) => a + b, 0);

  /** Opens the details of the events' subscription; answers what presses a button there. */
  async function events(page) {
    await page.run(() => { for (const row of document.querySelectorAll("#rows tr.row")) if (row.innerText.includes("logger_report_event")) row.querySelector("td.open button").click(); });
    return async (words) => {
      await page.until((words) => [...document.querySelectorAll("tr.more:not([hidden]) button, dialog button")].some((b) => b.textContent === words && b.checkVisibility()), words);
      await page.run((words) => [...document.querySelectorAll("tr.more:not([hidden]) button, dialog button")].find((b) => b.textContent === words && b.checkVisibility()).click(), words);
    };
  }

  test("its documents are rendered", async () => {
    const page = await browser().page();
    await page.goto(`${admin}documents`);
    await page.until(() => document.querySelectorAll(".op").length > 0);
    const ops = await page.run(() => [...document.querySelectorAll(".op h3")].map((e) => e.innerText.replace(/\s+/g, " ")));
    for (const op of ["Receives logger_report_event", "Receives logger_report_user"]) assert.ok(ops.includes(op), `${op} is not among ${ops}`);
    await isReadable(page);
    await page.screenshot(`${shots}/real-documents-desktop-light.png`);
    isQuiet(page, admin, /404/);
    await page.close();
  });

  test("messages are seen, a pause holds them, and the page costs nothing", async () => {
    const page = await browser().page();
    await page.goto(admin);
    await page.until(() => document.querySelector("#headline").innerText === "All is well");
    assert.equal(await page.text("#app"), "quickstart");
    assert.deepEqual(await page.run(() => [...document.querySelectorAll("#rows tr.row td.name .mono")].map((e) => e.innerText).sort()), ["logger_report_event", "logger_report_user"]);
    await isReadable(page);

    // Messages come in and are counted.
    let flowing = true;
    const flow = (async () => {
      while (flowing) {
        assert.ok((await report()).ok);
        await sleep(20);
      }
    })();
    await page.until(() => /^[1-9]/.test(document.querySelector("#sums div:first-child dd").innerText));
    await isReadable(page);
    await page.screenshot(`${shots}/real-load-desktop-light.png`);

    // A pause, by hand.
    const press = await events(page);
    await press("Pause…");
    await press("Pause");
    await page.until(() => document.querySelector("#headline").innerText === "1 thing to look at" && /Paused/.test(document.querySelector(".problem").innerText));
    await until("one waits", async () => (await status()).subscriptions.some((s) => s.state === "paused"));
    flowing = false;
    await flow;
    await page.screenshot(`${shots}/real-paused-desktop-light.png`);
    await press("Resume…");
    await press("Resume");
    await page.until(() => document.querySelector("#headline").innerText === "All is well");
    await until("all is handled", async () => (await status()).subscriptions.every((s) => s.in_flight + s.waiting === 0));

    // What an open page costs the service: two answers, and all that the service does besides.
    const before = cpu();
    await sleep(COST_MS);
    const cost = (cpu() - before) / COST_MS;
    console.log(`an idle service takes ${(cost * 100).toFixed(3)} % of a core with the page open`);
    assert.ok(cost < 0.01, `an idle service takes ${cost} of a core with the page open`);

    isQuiet(page, admin);
    await page.close();
  });

  test("a dead letter is seen, listed, and sent back", async () => {
    const page = await browser().page();
    await page.goto(admin);
    await page.until(() => document.querySelector("#headline").innerText === "All is well");
    await broker.publish("logger_report_event", "010203040506070809000A0B0C0D0E0F10", "this is no JSON");
    await page.until(() => document.querySelector("#sums div:nth-child(6) dd").innerText.startsWith("1"));
    await page.until(() => document.querySelector("#headline").innerText === "1 thing to look at");
    assert.match(await page.text(".problem"), /logger_report_event[\s\S]*1 message became a dead letter/);
    await isReadable(page);
    await page.screenshot(`${shots}/real-dead-letter-desktop-light.png`);

    const press = await events(page);
    await press("Dead letters…");
    await until("they are listed", () => page.run(() => !document.querySelector("dialog").innerText.includes("Reading them")));
    const list = await page.text("dialog");
    assert.match(list, /Dead letters of logger_report_event\s+Group logger-saver\s+010203040506070809000A0B0C0D0E0F10\s+\d+ s old/);
    assert.doesNotMatch(list, /There are more/);
    await isReadable(page);
    await page.screenshot(`${shots}/real-dead-letters-desktop-light.png`, { screen: true });
    await press("Close");

    // A group with two topics: nobody knows from which of them a letter is. The page says what to do.
    await press("Replay dead letters…");
    await press("Replay");
    await page.until(() => document.querySelector("dialog [role=alert]").textContent !== "");
    assert.match(await page.text("dialog [role=alert]"), /do not say which topic .*dead-letters replay --to TOPIC/);
    await isReadable(page);
    await page.screenshot(`${shots}/real-replay-refused-desktop-light.png`, { screen: true });
    await press("Cancel");

    const replay = spawn(program, ["dead-letters", "replay", "logger-saver", "--to", "logger_report_event", "--at-most", "1"], { cwd: folder, stdio: ["ignore", "pipe", "pipe"], env });
    let said = "";
    for (const stream of [replay.stdout, replay.stderr]) stream.on("data", (data) => { said += data; });
    assert.equal(await new Promise((resolve) => replay.once("exit", resolve)), 0, said);
    assert.match(said, /1 sent back/);
    // It is handled again, and is no better than before.
    await until("it has died again", async () => (await status()).subscriptions.some((s) => s.dead_lettered === 2));
    await page.until(() => document.querySelector("#sums div:nth-child(6) dd").innerText.startsWith("2"));
    isQuiet(page, admin, /409/);
    await page.close();
  });

  test("a drain is shown, and nothing looks alive after it", async () => {
    const page = await browser().page();
    await page.goto(admin);
    await page.until(() => /look at|well/.test(document.querySelector("#headline").innerText));
    app.kill("SIGTERM");
    await until("quickstart ends", async () => ended());
    await page.until(() => /^No answer since/.test(document.querySelector("#headline").innerText));
    await isReadable(page);
    isQuiet(page, admin, /Failed to load resource|net::ERR/);
    await page.close();
  });
}
