// The operations page against recorded states: what it shows of each.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";

import { source } from "./fake.mjs";
import { fitsFingers, isReadable } from "./look.mjs";
import * as states from "./states.mjs";
import { watching } from "./watching.mjs";

export function operations(tools) {
  const { shots } = tools;
  const { fake, watch, pass, shot, finished, verdict } = watching(tools);

  for (const name of ["page.html", "documents.html"]) {
    test(`${name} names its script in its policy and nothing outside`, () => {
      const html = source(name);
      const script = /<script>([\s\S]*?)<\/script>/.exec(html)[1];
      const hash = createHash("sha256").update(script).digest("base64");
      assert.ok(html.includes(`script-src 'sha256-${hash}'`), `the policy of ${name} must say script-src 'sha256-${hash}'`);
      const addresses = [...html.matchAll(/(?:https?:)?\/\/[\w.-]+\.\w+[^\s"'`]*/g)].map(([url]) => url);
      const harmless = ["http://www.w3.org/2000/svg", "https://example.org/", "http://127.0.0.1:8000"];
      assert.deepEqual(addresses.filter((url) => !harmless.includes(url)), []);
      for (const markup of ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "DOMParser", "srcdoc"]) {
        assert.ok(!html.includes(markup), `${name} uses ${markup}`);
      }
    });
  }

  test("idle: all is well, and says so", async () => {
    const page = await watch(states.idle, 240_000);
    assert.deepEqual(await verdict(page), ["All is well", "4 subscriptions run, 4 servers serve"]);
    assert.equal(await page.run(() => document.querySelectorAll(".problem").length), 0);
    assert.match(await page.text("#fresh-text"), /^Live, answered/);
    assert.equal(await page.run(() => document.querySelector("[aria-current=step]").dataset.phase), "ready");
    assert.equal(await page.run(() => document.title), "✓ All is well · saver-service");
    await isReadable(page);
    await shot(page, "idle-desktop-light");
    await page.media({ "prefers-color-scheme": "dark" });
    await isReadable(page);
    await shot(page, "idle-desktop-dark");
    await finished(page);
  });

  test("under load: rates are those of the counters", async () => {
    // 40 messages a second, 2 of them fail.
    const even = (t) => {
      const state = states.load(t);
      for (const s of state.subscriptions) Object.assign(s, { handled: Math.floor(t / 25), failed: Math.floor(t / 500), retried: Math.floor(t / 500) });
      return state;
    };
    let page = await watch(even, 20_000);
    const row = await page.text("#rows tr.row td.rate");
    assert.match(row, /^40\/s\s+2\.0\/s fail$/);
    assert.match(await page.text("#sums div:nth-child(1) dd"), /^160\s*\/s$/);
    assert.match(await page.text("#sums div:nth-child(2) dd"), /^8\.0\s*\/s$/);
    await finished(page);

    page = await watch(states.load, 240_000);
    assert.deepEqual((await verdict(page))[0], "All is well");
    assert.equal(await page.run(() => document.querySelector("#rows tr.row .n").innerText.replace(/\s+/g, " ").trim()), "5 / 16");
    await isReadable(page);
    await shot(page, "load-desktop-light");
    await page.media({ "prefers-color-scheme": "dark" });
    await isReadable(page);
    await shot(page, "load-desktop-dark");
    await page.size(360, 780, true);
    await isReadable(page);
    await fitsFingers(page);
    await shot(page, "load-phone-dark");
    await finished(page);
  });

  test("stuck handlers: which, why, since when, and the trace", async () => {
    const page = await watch(states.stuck, 239_000, { theme: "dark" });
    assert.deepEqual((await verdict(page))[0], "1 subscription needs help");
    const card = await page.text(".problem");
    assert.match(card, /^Stuck\s+for 2 min 5\d s, since 03:1\d/);
    for (const part of ["orders.paid", "group billing", "All 16 handlers are busy and none has finished for at least", "attempt 3", "7a1f0c55d2e94b6c8d0f3b2a19e4c701", "operation timed out after 30 s"]) {
      assert.ok(card.includes(part), `${part} is not in ${card}`);
    }
    assert.deepEqual(await page.run(() => [...document.querySelectorAll(".problem .chain li")].map((li) => li.innerText)),
      ["cannot bill the order", "the payment gateway does not answer", "operation timed out after 30 s"]);
    assert.match(await page.run(() => document.title), /^✕ 1 subscription needs help/);
    await isReadable(page);
    await shot(page, "stuck-desktop-dark");
    await page.media({ "prefers-color-scheme": "light" });
    await isReadable(page);
    await shot(page, "stuck-desktop-light");
    for (const theme of ["light", "dark"]) {
      await page.media({ "prefers-color-scheme": theme });
      await page.size(360, 780, true);
      await isReadable(page);
      await fitsFingers(page);
      await shot(page, `stuck-phone-${theme}`);
    }
    // Nobody scrolls for it.
    await page.screenshot(`${shots}/stuck-phone-first-screen.png`, { screen: true });
    for (const selector of [".problem h3", ".problem .why", ".problem .for", ".problem .ids div:first-child button"]) {
      const bottom = await page.run((css) => document.querySelector(css).getBoundingClientRect().bottom, selector);
      assert.ok(bottom < 780, `${selector} ends at ${bottom}, under the screen`);
    }
    await finished(page);
  });

  test("stuck, and the page opened late: since when, and the trace, at once", async () => {
    const page = await watch((t) => states.stuck(t + 7_200_000), 4000);
    assert.match(await page.text(".problem"), /^Slow\s+for 1 h 59 min, since 03:13\s+orders\.paid[\s\S]*7a1f0c55d2e94b6c8d0f3b2a19e4c701/);
    await pass(page, 20_000);
    assert.match(await page.text(".problem"), /^Stuck\s+for 1 h 59 min, since 03:13\s+orders\.paid[\s\S]*none has finished for at least 2\d s[\s\S]*7a1f0c55d2e94b6c8d0f3b2a19e4c701/);
    await finished(page);
  });

  test("kill switch: opens, is said aloud, and stays in sight when it is over", async () => {
    const page = await watch(states.switchedOff, 80_000, { theme: "dark" });
    assert.match((await page.text(".problem")) ?? "", /Every attempt fails|of the attempts fail/);
    await pass(page, 60_000);
    assert.match(await page.text(".problem"), /^Stuck\s+for 5\d s, since 03:/);
    assert.ok((await page.text(".problem .why")).startsWith("Kill switch open: 20 attempts in a row failed"));
    assert.match(await page.text("#say"), /logger_report_event stuck/);
    assert.match(await page.text("#servers"), /Degraded/);
    await isReadable(page);
    await shot(page, "kill-switch-desktop-dark");
    await page.size(390, 844, true);
    await shot(page, "kill-switch-phone-dark");
    fake().state = states.load;
    await pass(page, 8000);
    assert.equal((await verdict(page))[0], "All is well");
    assert.match(await page.text(".problem"), /^Over\s+since .*was: stuck/);
    assert.match(await page.text("#say"), /All is well again/);
    await pass(page, 40_000);
    assert.equal(await page.run(() => document.querySelectorAll(".problem").length), 0);
    await finished(page);
  });

  test("failing, dead letters, nothing arrives, paused, not alive: each is named", async () => {
    const cases = [
      [states.failing, 60_000, /2 things to look at/, [/orders\.paid/, /of the attempts fail/, /stock\.moves/, /Every attempt fails|dead letter/]],
      [states.dry, 60_000, /1 subscription needs help/, [/messages wait on the broker and none has arrived/, /nothing to read/]],
      [states.paused, 4000, /1 thing to look at/, [/Paused by hand/]],
      [states.heldUp, 4000, /1 subscription needs help/, [/Held up/, /Receiving from stock\.moves fails/]],
      [states.unseen, 4000, /1 problem/, [/The subscriptions do not answer within 2 s/]],
      [states.dead, 4000, /1 problem/, [/The dispatcher has not turned for 31 s/]],
      [states.starting, 4000, /Starting for/, []],
    ];
    for (const [state, ms, title, parts] of cases) {
      const page = await watch(state, ms, { width: 360, height: 780 });
      const all = (await page.run(() => [...document.querySelectorAll(".problem")].map((e) => e.innerText).join("\n"))).replaceAll(/[\u00a0\u202f]/g, " ");
      if (state !== states.failing) assert.match((await verdict(page))[0], title);
      for (const part of parts) assert.match(all, part);
      await isReadable(page);
      await fitsFingers(page);
      await finished(page);
    }
  });

  test("failures: since when, or that this page has seen no beginning", async () => {
    const fails = (from) => (t) => {
      const state = states.load(t), at = Math.max(0, t - from);
      Object.assign(state.subscriptions[0], { handled: 90, failed: Math.floor(at / 400), retried: Math.floor(at / 400) });
      return state;
    };
    let page = await watch(fails(30_000), 60_000);
    assert.match(await page.text(".problem"), /^Failing\s+for (29|3\d) s, since 03:12\s+orders\.paid/);
    await finished(page);
    page = await watch(fails(-60_000), 60_000);
    assert.match(await page.text(".problem"), /^Failing\s+for at least (59 s|1 min)\s+orders\.paid/);
    await finished(page);
  });

  test("draining: what is left to finish, and the phase is said aloud", async () => {
    const page = await watch(states.load, 200_000);
    fake().state = states.draining;
    await pass(page, 4000);
    assert.deepEqual(await verdict(page), ["Draining for 4 s", "9 messages are being handled (orders.paid 3, logger_report_event 6), 0 wait, the oldest is here for 12 s"]);
    assert.match(await page.text("#say"), /The app is draining/);
    assert.match(await page.text("#servers"), /^http\s[^]*Ended[^]*grpc\s[^]*Ended[^]*rocketmq\s[^]*Draining[^]*admin\s[^]*Serving/);
    await isReadable(page);
    await shot(page, "draining-desktop-light");
    await page.media({ "prefers-color-scheme": "dark" });
    await page.size(360, 780, true);
    await isReadable(page);
    await shot(page, "draining-phone-dark");
    await finished(page);
  });
}
