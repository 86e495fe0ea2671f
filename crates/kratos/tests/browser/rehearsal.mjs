// The operations page in the bad nights of an App, as somebody on call sees them: the rehearsal, on a
// dev broker. Its payment gateway is up, down or silent, as one says.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { App, details, sleep, until } from "./app.mjs";
import { isQuiet, isReadable, pictures } from "./look.mjs";

/** An App, what one tells it, and pictures of its page. */
function rehearsal({ browser, shots, program, broker }) {
  let app;
  before(async () => { app = await App.start(program, broker, ["billing-replay:retry=99"]); });
  after(() => app?.stop());
  return {
    app: () => app,
    gateway: async (mood) => assert.ok((await fetch(`${app.http}gateway/${mood}`, { method: "PUT" })).ok),
    /** The ids of a message, and of its trace. */
    async post(what, number) {
      const response = await fetch(`${app.http}${what}/${number}`, { method: "POST" });
      assert.ok(response.ok, `${response.status}`);
      return response.json();
    },
    async open() {
      const page = await browser().page();
      await page.goto(app.admin);
      await page.until(() => document.querySelector("#rows tr.row"));
      return page;
    },
    shots: (page, name) => pictures(page, `${shots}/real-${name}`),
  };
}

const headline = (page, words) => until(words, async () => (await page.text("#headline"))?.startsWith(words));
/** The card of a topic, or of a server. */
const problem = (page, name) => page.run((name) => [...document.querySelectorAll(".problem")].find((e) => e.querySelector("h3").innerText === name)?.innerText.replaceAll(/[\u00a0\u202f]/g, " ") ?? null, name);
const card = (page, name, words) => until(`${name}: ${words}`, async () => (await problem(page, name))?.startsWith(words));
const hourAndMinute = (at) => [at.getHours(), at.getMinutes()].map((n) => String(n).padStart(2, "0")).join(":");
const contains = (text, parts) => { for (const part of parts) assert.ok(text.includes(part), `${part} is not in ${text}`); };

export function hanging(tools) {
  const { app, gateway, post, open, shots } = rehearsal(tools);
  let page, first;

  test("idle: all is well", async () => {
    page = await open();
    await headline(page, "All is well");
    assert.equal(await page.text("#subline"), "2 subscriptions run, 3 servers serve");
    await until("it counts", async () => /^0\s*\/s$/.test(await page.text("#sums div:nth-child(1) dd")));
    await shots(page, "idle");
  });

  test("stuck: which, why, since when, and the trace of the message that hangs", async () => {
    await post("orders", 0);
    await until("it is billed", async () => (await app().subscription("orders")).handled === 1);
    await gateway("silent");
    const at = Date.now();
    first = await post("orders", 1);
    for (let number = 2; number < 8; number++) await post("orders", number);

    await card(page, "orders", "Stuck");
    assert.equal(await page.text("#headline"), "1 subscription needs help");
    assert.match(await page.text("#subline"), /^orders: stuck for 1 min( \d+ s)?$/);
    const told = await problem(page, "orders");
    contains(told, ["group billing", "All 4 handlers are busy and none has finished for at least", first.messageId, first.traceId]);
    const since = /^Stuck\s+for 1 min[ \ds]*, since (\d\d:\d\d)\s/.exec(told)[1];
    // It came a moment later.
    assert.ok([0, 3000].some((ms) => hourAndMinute(new Date(at + ms)) === since), since);
    assert.match(told, /In flight\s+4 of 4\s+Waiting\s+3\s/);
    await shots(page, "stuck");

    // Whoever opens the page only now reads the same time, and the same message.
    const late = await open();
    await card(late, "orders", "Slow");
    contains(await problem(late, "orders"), ["group billing", "The oldest message has been here for 1 min", `since ${since}`, first.messageId, first.traceId]);
    isQuiet(late, app().admin);
    await late.close();
  });

  test("draining: what holds the stop", async () => {
    app().signal("SIGTERM");
    await headline(page, "Draining for");
    await card(page, "orders", "Holds the stop");
    assert.match(await page.text("#subline"), /^4 messages are being handled \(orders 4\), 0 wait, the oldest is here for 1 min/);
    contains(await problem(page, "orders"), ["group billing", "4 handlers run, the oldest message has been here for 1 min", first.messageId, first.traceId]);
    await until("HTTP has ended", async () => /admin\s[^]*Serving[^]*http\s[^]*Ended[^]*rocketmq\s[^]*Draining/.test(await page.text("#servers")));
    await shots(page, "draining");
  });

  test("away: nothing looks alive", async () => {
    app().signal("SIGKILL");
    await headline(page, "No answer since");
    assert.match(await page.text("#subline"), /^For \d+ s: the server cannot be reached\. What stands below is old\.$/);
    await shots(page, "away");
    isQuiet(page, app().admin, /Failed to load resource|net::ERR/);
    await page.close();
  });
}

export function failing(tools) {
  const { app, gateway, post, open, shots } = rehearsal(tools);
  const posted = [];
  let page;

  /** What a card says of the last error: its levels, and one of these messages and its trace. */
  async function tellsError(name, levels, messages) {
    const shown = await page.run((name) => [...document.querySelectorAll(".problem")].filter((e) => e.querySelector("h3").innerText === name).flatMap((e) => [...e.querySelectorAll(".chain li")]).map((li) => li.innerText), name);
    assert.deepEqual(shown, levels);
    const told = await problem(page, name);
    const failed = messages.find(({ messageId }) => told.includes(messageId));
    assert.ok(failed, `none of the messages is in ${told}`);
    contains(told, [failed.traceId, "rehearsal::payments::PaymentError"]);
  }

  test("failing: every attempt, since when, the error with its causes, its message and trace", async () => {
    page = await open();
    await gateway("down");
    let flows = true;
    const flow = (async () => {
      for (; flows; await sleep(200)) posted.push(await post("orders", posted.length));
    })();
    try {
      await until("every attempt fails", async () => (await page.text(".problem .why"))?.startsWith("Every attempt fails"));
      assert.match(await problem(page, "orders"), /^Failing\s+for (\d+|< 1) s, since \d\d:\d\d\s+orders\s+group billing/);
      await tellsError("orders", ["cannot bill the order", "the payment gateway cannot be reached", "connection refused"], posted);
      await shots(page, "failing");
    } finally {
      flows = false;
      await flow;
    }
    await until("all are dead letters", async () => (await app().subscription("orders")).dead_lettered === posted.length);
  });

  test("kill switch: why it is open, and when one message is tried", async () => {
    const refunds = await Promise.all([0, 1, 2, 3, 4, 5].map((number) => post("refunds", number)));
    await card(page, "refunds", "Stuck");
    await until("a probe is due", async () => /^Stuck\s+for (\d+|< 1) s, since \d\d:\d\d\s+refunds\s+group refunding\s+Kill switch open: too many failures in a row; one message is tried in \d s/.test(await problem(page, "refunds")));
    await tellsError("refunds", ["cannot pay the refund back", "the payment gateway cannot be reached", "connection refused"], refunds);
    // Said once, and of the server where the servers are.
    assert.equal(await problem(page, "rocketmq"), null);
    assert.match(await page.text("#servers"), /rocketmq[^]*Degraded[^]*kill switch open/);
    await shots(page, "kill-switch");

    await gateway("up");
    await until("all are paid back", async () => (await app().subscription("refunds")).handled === refunds.length);
    await until("that is over", async () => /^Over\s+since \d\d:\d\d, was: stuck/.test(await problem(page, "refunds")));
  });

  test("dead letters are sent back by a button, and handled", async () => {
    assert.equal((await app().subscription("orders")).handled, 0);
    const press = await details(page, "orders");
    await press("Replay dead letters…");
    await page.screenshot(`${tools.shots}/real-replay-desktop-light.png`, { screen: true });
    await press("Replay");
    await until("they are sent back", () => page.run(() => !document.querySelector("dialog")));
    assert.equal(await page.text("#say"), `Sent back: ${posted.length}`);
    assert.equal(await page.text("#note"), `Sent back: ${posted.length}`);
    await isReadable(page);
    await page.screenshot(`${tools.shots}/real-replayed-desktop-light.png`, { screen: true });
    await until("all are billed", async () => (await app().subscription("orders")).handled === posted.length);
    await until("the page says so", async () => (await page.text("#rows tr.more:not([hidden])")).replace(/\s+/g, " ").includes(`Handled ${posted.length} `));
    isQuiet(page, app().admin);
    await page.close();
  });
}
