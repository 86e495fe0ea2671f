// The pages on the admin server of an App: quickstart, on a dev broker.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { App, details, sleep, until } from "./app.mjs";
import { isQuiet, isReadable, pictures } from "./look.mjs";

/** For how long the cost of an open page is measured; it asks every two seconds. */
const COST_MS = 4000;

/** For how long messages come in before there is a picture of it: some answers make a curve. */
const LOAD_MS = 10_000;

export function real({ browser, shots, program, broker }) {
  let app;
  before(async () => { app = await App.start(program, broker, ["logger-saver-replay:retry=99"]); });
  after(() => app?.stop());

  const report = () => fetch(`${app.http}agent/v1/report`, {
    method: "POST", headers: { "content-type": "application/json" },
    body: JSON.stringify({ reportType: "event", appId: "a", appKey: "k", eventName: "login", debug: 0, content: "{}" }),
  });
  const events = (page) => details(page, "logger_report_event");

  test("its documents are rendered", async () => {
    const page = await browser().page();
    await page.goto(`${app.admin}documents`);
    await page.until(() => document.querySelectorAll(".op").length > 0);
    const ops = await page.run(() => [...document.querySelectorAll(".op h3")].map((e) => e.innerText.replace(/\s+/g, " ")));
    for (const op of ["Receives logger_report_event", "Receives logger_report_user"]) assert.ok(ops.includes(op), `${op} is not among ${ops}`);
    await isReadable(page);
    await page.screenshot(`${shots}/real-documents-desktop-light.png`);
    isQuiet(page, app.admin, /404/);
    await page.close();
  });

  test("messages are seen, a pause holds them, and the page costs nothing", async () => {
    const page = await browser().page();
    await page.goto(app.admin);
    await page.until(() => document.querySelector("#headline").innerText === "All is well");
    assert.equal(await page.text("#app"), "quickstart");
    assert.deepEqual(await page.run(() => [...document.querySelectorAll("#rows tr.row td.name .mono")].map((e) => e.innerText).sort()), ["logger_report_event", "logger_report_user"]);
    await isReadable(page);

    // Messages come in and are counted.
    let flowing = true;
    const flow = Promise.all(Array.from({ length: 8 }, async () => {
      for (; flowing; await sleep(50)) assert.ok((await report()).ok);
    }));
    await page.until(() => /^[1-9]/.test(document.querySelector("#sums div:first-child dd").innerText));
    await sleep(LOAD_MS);
    assert.match(await page.text("#headline"), /^All is well/);
    await pictures(page, `${shots}/real-load`);

    // A pause, by hand.
    const press = await events(page);
    await press("Pause…");
    await press("Pause");
    await page.until(() => document.querySelector("#headline").innerText === "1 thing to look at" && /Paused/.test(document.querySelector(".problem").innerText));
    await until("one waits", async () => (await app.status()).subscriptions.some((s) => s.state === "paused"));
    flowing = false;
    await flow;
    await page.screenshot(`${shots}/real-paused-desktop-light.png`);
    await press("Resume…");
    await press("Resume");
    await page.until(() => document.querySelector("#headline").innerText === "All is well");
    await until("all is handled", async () => (await app.status()).subscriptions.every((s) => s.in_flight + s.waiting === 0));

    // What an open page costs the service: two answers, and all that the service does besides.
    const before = app.cpu();
    await sleep(COST_MS);
    const cost = (app.cpu() - before) / COST_MS;
    console.log(`an idle service takes ${(cost * 100).toFixed(3)} % of a core with the page open`);
    assert.ok(cost < 0.01, `an idle service takes ${cost} of a core with the page open`);

    isQuiet(page, app.admin);
    await page.close();
  });

  test("a dead letter is seen, listed, and sent back", async () => {
    const page = await browser().page();
    await page.goto(app.admin);
    await page.until(() => document.querySelector("#headline").innerText === "All is well");
    await app.broker.publish("logger_report_event", "010203040506070809000A0B0C0D0E0F10", "this is no JSON");
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

    const said = await app.command("dead-letters", "replay", "logger-saver", "--to", "logger_report_event", "--at-most", "1");
    assert.match(said, /1 sent back/);
    // It is handled again, and is no better than before.
    await until("it has died again", async () => (await app.status()).subscriptions.some((s) => s.dead_lettered === 2));
    await page.until(() => document.querySelector("#sums div:nth-child(6) dd").innerText.startsWith("2"));
    isQuiet(page, app.admin, /409/);
    await page.close();
  });

  test("a drain is shown, and nothing looks alive after it", async () => {
    const page = await browser().page();
    await page.goto(app.admin);
    await page.until(() => /look at|well/.test(document.querySelector("#headline").innerText));
    app.signal("SIGTERM");
    await until("quickstart ends", async () => app.ended);
    await page.until(() => /^No answer since/.test(document.querySelector("#headline").innerText));
    await isReadable(page);
    isQuiet(page, app.admin, /Failed to load resource|net::ERR/);
    await page.close();
  });
}
