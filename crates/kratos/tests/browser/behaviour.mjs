// The operations page against recorded states: what it does, by itself and with who uses it.

import assert from "node:assert/strict";
import { test } from "node:test";

import { clock } from "./clock.mjs";
import { isReadable } from "./look.mjs";
import * as states from "./states.mjs";
import { START, watching } from "./watching.mjs";

export function behaviour(tools) {
  const { browser, shots } = tools;
  const { fake, watch, pass, shot, finished, verdict } = watching(tools);

  test("a server that is away is never shown as alive", async () => {
    const page = await watch(states.load, 60_000);
    for (const [mode, why] of [["fails", "answered 503"], ["garbage", "not JSON"], ["foreign", "not a status"], ["refuses", "cannot be reached"]]) {
      await page.size(1280, 900);
      fake().mode = mode;
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
      fake().mode = "well";
      await pass(page, 4000);
      assert.equal((await verdict(page))[0], "All is well");
      assert.match(await page.text("#say"), /answers again/);
    }
    await finished(page, /Failed to load resource|net::ERR/);
  });

  test("a server that hangs is away after six seconds, and is asked again after five", async () => {
    const page = await watch(states.load, 20_000);
    fake().mode = "hangs";
    const asked = fake().asked;
    await pass(page, 5000, 30);
    assert.match(await page.text("#fresh-text"), /^Slow: waiting for/);
    await pass(page, 3000, 30);
    assert.match((await verdict(page))[0], /^No answer since/);
    await pass(page, 60_000, 30);
    assert.ok(fake().asked - asked <= 10, `asked ${fake().asked - asked} times in 68 s`);
    assert.ok(fake().asked - asked >= 8, `asked ${fake().asked - asked} times in 68 s`);
    await page.close();
  });

  test("a first answer that does not come is not silence", async () => {
    const page = await browser().page();
    await page.before(`(${clock})(${START})`);
    fake().mode = "fails";
    await page.goto(fake().url);
    await pass(page, 3000);
    assert.match((await verdict(page)).join(" "), /^No answer Since this page was opened .*503/);
    assert.match(await page.text("#say"), /^No answer from the server/);
    await isReadable(page);
    await finished(page, /503/);
  });

  test("asks every two seconds while somebody looks, and not at all while nobody does", async () => {
    const page = await watch(states.load, 0);
    const asked = fake().asked;
    await pass(page, 60_000);
    assert.ok(Math.abs(fake().asked - asked - 30) <= 1, `asked ${fake().asked - asked} times in a minute`);
    const hide = (hidden) => page.run((hidden) => {
      Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
      document.dispatchEvent(new Event("visibilitychange"));
    }, hidden);
    await hide(true);
    const before = fake().asked;
    await pass(page, 600_000);
    assert.equal(fake().asked, before);
    assert.equal(await page.run(() => window.clock.timers()), 0, "no timer is left");
    assert.match(await page.run(() => document.title), /^\(not looking\)/);
    fake().mode = "hangs";
    await hide(false);
    assert.match((await verdict(page))[0], /^No answer since 2026|^No answer since 03/, "what was seen ten minutes ago is old");
    fake().mode = "well";
    await pass(page, 8000, 50);
    await pass(page, 4000);
    assert.equal((await verdict(page))[0], "All is well");
    await finished(page);
  });

  test("a process that began again is no burst and no loss", async () => {
    const page = await watch(states.load, 60_000);
    fake().state = (t) => ({ ...states.load(t - 60_000), uptime_ms: t - 60_000 });
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
      assert.deepEqual(fake().posts.map((p) => p.path), ["/subscriptions/..%2F..%2Fevil%3F%3Cb%3E/pause"]);
      assert.equal(await page.run(() => window.pwned ?? null), null);
      await finished(page);
    }
  });

  test("without permission there is nothing to press; with it, each action is confirmed", async () => {
    let page = await watch(states.load, 4000);
    await page.run(() => document.querySelectorAll("#rows button[aria-expanded=false]").forEach((b) => b.click()));
    assert.deepEqual(await page.run(() => [...document.querySelectorAll("main button")].filter((b) => b.checkVisibility() && /Pause|Resume|Concurrency|Replay|Dead letters/.test(b.textContent)).length), 0);
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
    assert.deepEqual(fake().posts, []);

    // A refusal stays where it is read.
    fake().answer = () => [409, { error: "subscription orders.paid: the app drains" }];
    await press("Pause…");
    await press("Pause");
    await page.until(() => document.querySelector("dialog [role=alert]").textContent !== "");
    assert.equal(await page.text("dialog [role=alert]"), "subscription orders.paid: the app drains");
    fake().answer = () => [200, {}];
    fake().state = (t) => { const s = states.acting(t); Object.assign(s.subscriptions[0], { state: "paused", since_ms: 500 }); return s; };
    await press("Pause");
    await page.until(() => !document.querySelector("dialog"));
    await pass(page, 2000);
    assert.match(await page.text("#rows tr.row td.status"), /^Paused/);
    assert.deepEqual(fake().posts.map((p) => [p.path, p.type, p.body]), [1, 2].map(() => ["/subscriptions/1/pause", "application/json", {}]));

    fake().posts.length = 0;
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
    assert.deepEqual(fake().posts.map((p) => [p.path, p.body]), [["/subscriptions/1/resume", {}], ["/subscriptions/1/concurrency", { concurrency: 32 }]]);

    fake().posts.length = 0;
    fake().letters = () => [200, { dead_letters: [{ message_id: "01A2", age_ms: 90_000, attempts: 16, error_type: "decode", error: "<b>no</b>", trace_id: "4bf92f3577b34da6a3ce929d0e0e4736" }], complete: false }];
    fake().answer = () => [200, { replayed: 2, unconfirmed: 0, died_again: 1, complete: false }];
    await page.click("#rows tr.row:nth-of-type(7) td.open button");
    await press("Dead letters…");
    await page.until(() => document.querySelector("dialog .letters"));
    assert.match(await page.text("dialog"), /01A2[\s\S]*16 attempts[\s\S]*<b>no<\/b>[\s\S]*There are more/);
    await press("Close");
    await press("Replay dead letters…");
    await press("Replay");
    await page.until(() => !document.querySelector("dialog"));
    assert.deepEqual(fake().posts.map((p) => [p.path, p.body]), [["/dead-letters/4/replay", { at_most: 100 }]]);
    assert.equal(await page.text("#say"), "Sent back: 2. Died again: 1. There are more");
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
    fake().state = states.load;
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
    await page.goto(fake().url);
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
