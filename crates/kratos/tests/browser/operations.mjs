// The operations page against recorded states.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, before, test } from "node:test";

import { clock } from "./clock.mjs";
import { Fake, source } from "./fake.mjs";
import { fitsFingers, isQuiet, isReadable } from "./look.mjs";
import * as states from "./states.mjs";

const START = Date.parse("2026-11-23T03:12:04.000Z");

export function operations({ browser, shots }) {
  let fake;
  before(async () => { fake = await Fake.start(); });
  after(() => fake.stop());

  /** The page in a state, after `ms` of watching. */
  async function watch(state, ms = 4000, { width, height, theme = "light", more = {}, prepare } = {}) {
    Object.assign(fake, { state, mode: "well", posts: [], answer: () => [200, {}], letters: () => [404, { error: "none" }] });
    const page = await browser().page({ width, height });
    await page.send("Emulation.setTimezoneOverride", { timezoneId: "UTC" });
    await page.media({ "prefers-color-scheme": theme, ...more });
    await page.before(`(${clock})(${START})`);
    if (prepare) await page.before(`(${prepare})()`);
    await page.goto(fake.url);
    await pass(page, ms);
    return page;
  }
  const pass = (page, ms, patience = 5000) => page.run((ms, patience) => window.clock.pass(ms, patience), ms, patience);
  const shot = (page, name) => page.screenshot(`${shots}/${name}.png`);
  async function finished(page, except) {
    isQuiet(page, fake.url, except);
    await page.close();
  }
  const verdict = async (page) => [await page.text("#headline"), await page.text("#subline")];

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
    fake.state = states.load;
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

  test("draining: what is left to finish, and the phase is said aloud", async () => {
    const page = await watch(states.load, 200_000);
    fake.state = states.draining;
    await pass(page, 4000);
    assert.deepEqual(await verdict(page), ["Draining for 4 s", "9 messages are being handled (orders.paid 3, logger_report_event 6), 0 wait, the oldest is here for 12 s"]);
    assert.match(await page.text("#say"), /The app is draining/);
    await isReadable(page);
    await shot(page, "draining-desktop-light");
    await page.media({ "prefers-color-scheme": "dark" });
    await page.size(360, 780, true);
    await isReadable(page);
    await shot(page, "draining-phone-dark");
    await finished(page);
  });

  test("a server that is away is never shown as alive", async () => {
    const page = await watch(states.load, 60_000);
    for (const [mode, why] of [["fails", "answered 503"], ["garbage", "not JSON"], ["foreign", "not a status"], ["refuses", "cannot be reached"]]) {
      await page.size(1280, 900);
      fake.mode = mode;
      await pass(page, 14_000);
      const [title, line] = await verdict(page);
      assert.match(title, /^No answer since 03:1\d:\d\d$/);
      assert.match(line, new RegExp(`^For 1\\d s: .*${why}`));
      assert.match(await page.text("#fresh-text"), /^No answer since/);
      assert.match(await page.run(() => document.title), /^✕ No answer since/);
      assert.match(await page.text("#say"), /No answer since/);
      await isReadable(page);
      await page.size(360, 780, true);
      await page.media({ "prefers-color-scheme": "dark" });
      await isReadable(page);
      if (mode === "refuses") await shot(page, "away-phone-dark");
      fake.mode = "well";
      await pass(page, 4000);
      assert.equal((await verdict(page))[0], "All is well");
      assert.match(await page.text("#say"), /answers again/);
    }
    await finished(page, /Failed to load resource|net::ERR/);
  });

  test("a server that hangs is away after six seconds, and is asked again after five", async () => {
    const page = await watch(states.load, 20_000);
    fake.mode = "hangs";
    const asked = fake.asked;
    await pass(page, 5000, 30);
    assert.match(await page.text("#fresh-text"), /^Slow: waiting for/);
    await pass(page, 3000, 30);
    assert.match((await verdict(page))[0], /^No answer since/);
    await pass(page, 60_000, 30);
    assert.ok(fake.asked - asked <= 10, `asked ${fake.asked - asked} times in 68 s`);
    assert.ok(fake.asked - asked >= 8, `asked ${fake.asked - asked} times in 68 s`);
    await page.close();
  });

  test("a first answer that does not come is not silence", async () => {
    const page = await browser().page();
    await page.before(`(${clock})(${START})`);
    fake.mode = "fails";
    await page.goto(fake.url);
    await pass(page, 3000);
    assert.match((await verdict(page)).join(" "), /^No answer Since this page was opened .*503/);
    assert.match(await page.text("#say"), /^No answer from the server/);
    await isReadable(page);
    await finished(page, /503/);
  });

  test("asks every two seconds while somebody looks, and not at all while nobody does", async () => {
    const page = await watch(states.load, 0);
    const asked = fake.asked;
    await pass(page, 60_000);
    assert.ok(Math.abs(fake.asked - asked - 30) <= 1, `asked ${fake.asked - asked} times in a minute`);
    const hide = (hidden) => page.run((hidden) => {
      Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
      document.dispatchEvent(new Event("visibilitychange"));
    }, hidden);
    await hide(true);
    const before = fake.asked;
    await pass(page, 600_000);
    assert.equal(fake.asked, before);
    assert.equal(await page.run(() => window.clock.timers()), 0, "no timer is left");
    assert.match(await page.run(() => document.title), /^\(not looking\)/);
    fake.mode = "hangs";
    await hide(false);
    assert.match((await verdict(page))[0], /^No answer since 2026|^No answer since 03/, "what was seen ten minutes ago is old");
    fake.mode = "well";
    await pass(page, 8000, 50);
    await pass(page, 4000);
    assert.equal((await verdict(page))[0], "All is well");
    await finished(page);
  });

  test("a process that began again is no burst and no loss", async () => {
    const page = await watch(states.load, 60_000);
    fake.state = (t) => ({ ...states.load(t - 60_000), uptime_ms: t - 60_000 });
    await pass(page, 2100);
    assert.match(await page.text("#sums div:nth-child(1) dd"), /^–/);
    await pass(page, 10_000);
    assert.match(await page.text("#sums div:nth-child(1) dd"), /^\d{3}\s*\/s$/);
    await finished(page);
  });

  test("hostile texts stay texts", async () => {
    for (const width of [1280, 360]) {
      const page = await watch(states.hostile, 6000, { width, height: 800 });
      await page.run(() => document.querySelectorAll("#rows button[aria-expanded=false]").forEach((b) => b.click()));
      await pass(page, 4000);
      assert.equal(await page.run(() => window.pwned ?? null), null);
      assert.equal(await page.run(() => document.querySelectorAll("img, script:not(body > script:last-of-type), svg[onload], b > svg, [onerror]").length), 0);
      assert.equal(await page.text("#app"), states.HOSTILE);
      assert.equal(await page.text("#rows tr.row:nth-of-type(5) td.name .mono"), "abc\\u{202e}gnp.exe\\u{0}\\u{200b}");
      assert.equal(await page.run(() => [...document.querySelectorAll("a")].filter((a) => !a.href.startsWith(location.origin)).length), 0);
      await isReadable(page);
      // An id in a path is one segment, whatever it is.
      await page.run(() => [...document.querySelectorAll("tr.more button")].find((b) => b.textContent === "Pause…").click());
      await page.run(() => document.querySelector("dialog button.main").click());
      await page.until(() => !document.querySelector("dialog"));
      assert.deepEqual(fake.posts.map((p) => p.path), ["/subscriptions/..%2F..%2Fevil%3F%3Cb%3E/pause"]);
      assert.equal(await page.run(() => window.pwned ?? null), null);
      await finished(page);
    }
  });

  test("without permission there is nothing to press; with it, each action is confirmed", async () => {
    let page = await watch(states.load, 4000);
    await page.run(() => document.querySelectorAll("#rows button[aria-expanded=false]").forEach((b) => b.click()));
    assert.deepEqual(await page.run(() => [...document.querySelectorAll("main button")].filter((b) => b.checkVisibility() && /Pause|Resume|Concurrency|Replay/.test(b.textContent)).length), 0);
    await finished(page);

    page = await watch(states.acting, 4000);
    await page.click("#rows tr.row:nth-of-type(1) td.open button");
    const press = (words) => page.run((words) => [...document.querySelectorAll("tr.more:not([hidden]) button, dialog button")].filter((b) => b.textContent === words && b.checkVisibility()).forEach((b) => { b.focus(); b.click(); }), words);
    await press("Pause…");
    await page.run(() => document.querySelector("#subscriptions").scrollIntoView());
    assert.match(await page.text("dialog"), /Pause orders\.paid\?[\s\S]*in this process only/);
    await isReadable(page);
    await page.screenshot(`${shots}/pause-desktop-light.png`, { screen: true });
    assert.equal(await page.run(() => document.activeElement.textContent), "Cancel");
    await page.press("Escape");
    await page.until(() => !document.querySelector("dialog"));
    assert.equal(await page.run(() => document.activeElement.textContent), "Pause…");
    assert.deepEqual(fake.posts, []);

    // A refusal stays where it is read.
    fake.answer = () => [409, { error: "subscription orders.paid: the app drains" }];
    await press("Pause…");
    await press("Pause");
    await page.until(() => document.querySelector("dialog [role=alert]").textContent !== "");
    assert.equal(await page.text("dialog [role=alert]"), "subscription orders.paid: the app drains");
    fake.answer = () => [200, {}];
    fake.state = (t) => { const s = states.acting(t); Object.assign(s.subscriptions[0], { state: "paused", since_ms: 500 }); return s; };
    await press("Pause");
    await page.until(() => !document.querySelector("dialog"));
    await pass(page, 2000);
    assert.match(await page.text("#rows tr.row td.status"), /^Paused/);
    assert.deepEqual(fake.posts.map((p) => [p.path, p.type, p.body]), [1, 2].map(() => ["/subscriptions/1/pause", "application/json", {}]));

    fake.posts.length = 0;
    await press("Resume…");
    await press("Resume");
    await page.until(() => !document.querySelector("dialog"));
    await press("Concurrency…");
    assert.equal(await page.run(() => document.activeElement.value), "16");
    await page.run(() => document.activeElement.select());
    await page.type("0");
    await page.press("Enter");
    assert.equal(await page.run(() => document.querySelector("dialog").open), true, "0 handlers are refused here");
    await page.run(() => document.activeElement.select());
    await page.type("32");
    await page.press("Enter");
    await page.until(() => !document.querySelector("dialog"));
    assert.deepEqual(fake.posts.map((p) => [p.path, p.body]), [["/subscriptions/1/resume", {}], ["/subscriptions/1/concurrency", { concurrency: 32 }]]);

    fake.posts.length = 0;
    fake.letters = () => [200, { dead_letters: [{ message_id: "01A2", age_ms: 90_000, attempts: 16, error_type: "decode", error: "<b>no</b>", trace_id: "4bf92f3577b34da6a3ce929d0e0e4736" }], complete: false }];
    fake.answer = () => [200, { replayed: 2, failed: 0 }];
    await page.click("#rows tr.row:nth-of-type(7) td.open button");
    await press("Dead letters…");
    await page.until(() => document.querySelector("dialog .letters"));
    assert.match(await page.text("dialog"), /01A2[\s\S]*16 attempts[\s\S]*<b>no<\/b>[\s\S]*There are more/);
    await press("Close");
    await press("Replay dead letters…");
    await press("Replay");
    await page.until(() => !document.querySelector("dialog"));
    assert.deepEqual(fake.posts.map((p) => [p.path, p.body]), [["/dead-letters/4/replay", { at_most: 100 }]]);
    assert.equal(await page.text("#say"), "Replayed: replayed 2, failed 0");
    await finished(page, /409/);
  });

  test("a keyboard is enough, and the focus is seen and kept", async () => {
    const page = await watch(states.stuck, 120_000);
    const stops = [];
    for (let i = 0; i < 60; i++) {
      await page.press("Tab");
      const stop = await page.run(() => {
        const e = document.activeElement, style = getComputedStyle(e), box = e.getBoundingClientRect();
        return e === document.body ? null : { name: e.getAttribute("aria-label") ?? e.textContent.trim(), seen: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2, inside: box.bottom > 0 && box.top < innerHeight };
      });
      if (!stop) break;
      stops.push(stop);
    }
    const names = stops.map((s) => s.name);
    assert.equal(names[0], "To the subscriptions");
    for (const name of ["Documents", "Colours: auto. Change", "Copy trace id", "Copy message id", "Copy report of this problem", "Show in the table", "Details of orders.paid in billing", "status"]) {
      assert.ok(names.includes(name), `${name} is not among ${names.join(" | ")}`);
    }
    assert.deepEqual(stops.filter((s) => !s.seen || !s.inside), [], "a focus that nobody sees");

    // Details open by keyboard, and stay open and focused while answers come.
    await page.run(() => document.querySelector("#rows tr.row td.open button").focus());
    await page.press("Enter");
    assert.equal(await page.run(() => document.activeElement.getAttribute("aria-expanded")), "true");
    await pass(page, 20_000);
    assert.equal(await page.run(() => document.activeElement.getAttribute("aria-expanded")), "true");
    assert.match(await page.text("#rows tr.more"), /Received[\s\S]*Leases extended/);
    await page.press("Enter");
    assert.equal(await page.run(() => document.querySelector("#rows tr.more").hidden), true);

    // A problem that ends while its button has the focus does not take it away.
    await page.run(() => document.querySelector(".problem button.copy").focus());
    fake.state = states.load;
    await pass(page, 80_000);
    assert.equal(await page.run(() => document.activeElement.getAttribute("aria-label")), "Copy trace id");
    await page.run(() => document.activeElement.blur());
    await pass(page, 4000);
    assert.equal(await page.run(() => document.querySelectorAll(".problem").length), 0);
    await finished(page);
  });

  test("trace and report are copied, also where the browser has no clipboard", async () => {
    for (const secure of [true, false]) {
      const page = await watch(states.stuck, 124_000, {
        prepare: secure
          ? () => { Object.defineProperty(navigator, "clipboard", { value: { writeText: async (text) => { window.copied = text; } } }); }
          : () => {
            Object.defineProperty(navigator, "clipboard", { value: undefined });
            document.execCommand = () => { window.copied = document.activeElement.value; return true; };
          },
      });
      await page.click(".problem .ids button");
      await page.until(() => window.copied === "7a1f0c55d2e94b6c8d0f3b2a19e4c701");
      assert.equal(await page.text(".problem .ids button"), "Copied");
      assert.equal(await page.text("#say"), "Copied: trace id");
      await page.click(".problem .acts button");
      await page.until(() => window.copied.includes("\n"));
      const report = await page.run(() => window.copied);
      for (const part of ["saver-service 1.4.2", "Stuck: orders.paid, group billing", "since 2026-11-2", "operation timed out", "trace 7a1f0c55d2e94b6c8d0f3b2a19e4c701"]) {
        assert.ok(report.includes(part), `${part} is not in ${report}`);
      }
      await finished(page);
    }
  });

  test("dark and light: by the system, by the button, and remembered", async () => {
    const page = await watch(states.load, 4000, { theme: "dark" });
    const paper = () => page.run(() => getComputedStyle(document.body).backgroundColor);
    const dark = await paper();
    await page.media({ "prefers-color-scheme": "light" });
    const light = await paper();
    assert.notEqual(dark, light);
    await page.click("#theme");
    assert.equal(await paper(), dark);
    await page.goto(fake.url);
    await pass(page, 2000);
    assert.equal(await paper(), dark, "remembered");
    await page.click("#theme");
    assert.equal(await paper(), light);
    await page.click("#theme");
    assert.equal(await page.text("#theme-text"), "Auto");
    await finished(page);
  });

  test("nothing moves for who wants no motion, and answers move nothing about", async () => {
    const page = await watch(states.load, 20_000, { more: { "prefers-reduced-motion": "reduce" } });
    assert.equal(await page.run(() => document.getAnimations().length), 0);
    await page.media({ "prefers-color-scheme": "light" });
    await page.run(() => {
      window.jumps = [];
      new PerformanceObserver((list) => window.jumps.push(...list.getEntries().map((e) => e.value))).observe({ type: "layout-shift" });
    });
    await pass(page, 120_000);
    await page.run(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
    assert.ok(await page.run(() => window.jumps.reduce((a, b) => a + b, 0)) < 0.01, "layout jumps");
    await finished(page);
  });

  test("the table is one for a screen reader, on a phone too", async () => {
    for (const width of [1280, 360]) {
      const page = await watch(states.load, 4000, { width, height: 800 });
      const { nodes } = await page.send("Accessibility.getFullAXTree");
      const roles = new Map();
      for (const node of nodes) if (!node.ignored) roles.set(node.role?.value, (roles.get(node.role?.value) ?? 0) + 1);
      assert.equal(roles.get("table"), 1);
      assert.equal(roles.get("columnheader") >= 9, true);
      assert.equal(roles.get("row"), 5);
      const table = nodes.find((node) => node.role?.value === "table");
      assert.equal(table.name.value, "Subscriptions");
      await finished(page);
    }
  });
}
