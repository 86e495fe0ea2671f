// The documents page: AsyncAPI and OpenAPI, rendered, with examples that are copied.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Fake } from "./fake.mjs";
import { fitsFingers, isQuiet, isReadable } from "./look.mjs";
import { HOSTILE } from "./states.mjs";

const asyncapi = {
  asyncapi: "3.0.0",
  info: { title: "saver-service", version: "1.4.2", description: "Stores the reports of agents." },
  defaultContentType: "application/json",
  servers: { rocketmq: { host: "rocketmq.example:8081", protocol: "rocketmq" } },
  channels: {
    orders: { address: "orders.paid", messages: { OrderPaid: { $ref: "#/components/messages/OrderPaid" } }, "x-rocketmq": { type: "FIFO", group: "billing" } },
    events: { address: "logger_report_event", messages: { Event: { $ref: "#/components/messages/Event" } } },
    bills: { address: "bills", messages: { Bill: { payload: { type: "string", maxLength: 4 } } } },
    raw: { address: "raw.bytes", messages: { Bytes: { contentType: "application/octet-stream", name: "Bytes" } } },
  },
  operations: {
    "receive-orders": { action: "receive", channel: { $ref: "#/channels/orders" }, messages: [{ $ref: "#/channels/orders/messages/OrderPaid" }], summary: "Bills an order that was paid.", "x-rocketmq": { group: "billing", filter: "*", maxAttempts: 16, deadLetter: "native", retry: { base: "1s", max: "30m" } } },
    "receive-events": { action: "receive", channel: { $ref: "#/channels/events" }, "x-rocketmq": { group: "logger-saver" } },
    "send-bills": { action: "send", channel: { $ref: "#/channels/bills" } },
  },
  components: {
    messages: {
      OrderPaid: { name: "OrderPaid", title: "An order was paid", contentType: "application/json", payload: { $ref: "#/components/schemas/OrderPaid" }, headers: { type: "object", properties: { traceparent: { type: "string", pattern: "^00-" } } } },
      Event: { name: "Event", payload: { schemaFormat: "application/schema+json;version=draft-2020-12", schema: { $ref: "#/components/schemas/Event" } }, examples: [{ payload: { name: "given", n: 7 } }] },
    },
    schemas: {
      OrderPaid: {
        title: "OrderPaid", type: "object", required: ["id", "total", "items", "state"], description: "What the shop says when money has come in.",
        properties: {
          id: { type: "string", format: "uuid", description: "The order's." }, total: { type: "integer", format: "int64", minimum: 0, exclusiveMinimum: 4, description: "In cents." },
          state: { enum: ["paid", "part"] }, paid_at: { type: ["string", "null"], format: "date-time" }, note: { anyOf: [{ type: "string", maxLength: 3 }, { type: "null" }] },
          items: { type: "array", minItems: 2, items: { $ref: "#/components/schemas/Item" } }, labels: { type: "object", additionalProperties: { type: "string" } }, channel: { const: "web" }, rate: { type: "number", default: 0.5 }, urgent: { type: "boolean" },
        },
      },
      Item: { type: "object", required: ["sku"], properties: { sku: { type: "string", minLength: 5 }, parts: { type: "array", items: { $ref: "#/components/schemas/Item" } }, owner: { allOf: [{ $ref: "#/components/schemas/Named" }, { properties: { age: { type: "integer" } } }] } } },
      Named: { type: "object", required: ["name"], properties: { name: { type: "string" } } },
      Event: { oneOf: [{ type: "object", title: "Created", properties: { name: { type: "string" } } }, { $ref: "#/components/schemas/Named" }] },
    },
  },
};
const openapi = {
  openapi: "3.1.0", info: { title: "saver-service", version: "1.4.2" }, servers: [{ url: "http://127.0.0.1:8000" }],
  paths: {
    "/saver/v1/reports": { get: { summary: "The newest reports", parameters: [{ name: "limit", in: "query", required: true, schema: { type: "integer", minimum: 1, maximum: 1000, default: 100 } }], responses: { 200: { description: "Reports, the newest first", content: { "application/json": { schema: { type: "array", items: { $ref: "#/components/schemas/Report" } } } } }, 503: { description: "The database does not answer" } } } },
    "/agents/{agent}/report": { parameters: [{ name: "agent", in: "path", required: true, schema: { type: "string", enum: ["it's"] } }], post: { requestBody: { content: { "application/json": { schema: { $ref: "#/components/schemas/Report" } } } }, responses: { 202: { description: "Taken" } } } },
  },
  components: { schemas: { Report: { type: "object", required: ["id"], properties: { id: { type: "integer" }, text: { type: "string" } } } } },
};

export function documents({ browser, shots }) {
  let fake;
  before(async () => { fake = await Fake.start(); });
  after(() => fake.stop());

  async function open(docs, { width, height, theme = "light", hash = "" } = {}) {
    fake.documents = docs;
    const page = await browser().page({ width, height });
    await page.media({ "prefers-color-scheme": theme });
    await page.before("(() => Object.defineProperty(navigator, 'clipboard', { value: { writeText: async (text) => { window.copied = text; } } }))()");
    await page.goto(`${fake.url}documents${hash}`);
    await page.until(() => document.querySelector("#note").hidden || !document.querySelector("#note").textContent.startsWith("Asking"));
    return page;
  }
  async function finished(page, except) {
    isQuiet(page, fake.url, except);
    await page.close();
  }

  test("channels, operations, messages, schemas and routes are rendered", async () => {
    const page = await open({ asyncapi, openapi });
    assert.deepEqual(await page.run(() => [...document.querySelectorAll(".op h3")].map((e) => e.innerText.replace(/\s+/g, " "))),
      ["Receives orders.paid", "Receives logger_report_event", "Sends bills", "Channel raw.bytes", "GET /saver/v1/reports", "POST /agents/{agent}/report"]);
    const order = await page.text("#op-0");
    for (const part of ["Bills an order that was paid.", "x-rocketmq", "FIFO", "maxAttempts", "{\"base\":\"1s\",\"max\":\"30m\"}", "An order was paid", "In cents.", "at least 0; more than 4", "list of Item", "string or null, date-time", "one of \"paid\", \"part\"", "object of string", "required"]) {
      assert.ok(order.includes(part), `${part} is not in ${order}`);
    }
    assert.match(await page.text("#op-3"), /The payload is not described/);
    await isReadable(page);
    await page.screenshot(`${shots}/documents-desktop-light.png`);
    await page.media({ "prefers-color-scheme": "dark" });
    await isReadable(page);
    await page.screenshot(`${shots}/documents-desktop-dark.png`);
    await page.size(360, 780, true);
    await isReadable(page);
    await fitsFingers(page);
    await page.screenshot(`${shots}/documents-phone-dark.png`);
    await finished(page);
  });

  test("examples follow the schema, and are copied", async () => {
    const page = await open({ asyncapi, openapi });
    const copied = async (selector) => {
      await page.run(() => { window.copied = undefined; });
      await page.click(selector);
      await page.until(() => window.copied !== undefined);
      return page.run(() => window.copied);
    };
    assert.deepEqual(JSON.parse(await copied("#op-0 .example button")), {
      id: "7f3a2b1c-4d5e-4f60-8a9b-0c1d2e3f4a5b", total: 5, state: "paid", paid_at: "2026-01-31T12:00:00Z", note: "not",
      items: [{ sku: "skuxx", parts: [], owner: { age: 1, name: "name" } }, { sku: "skuxx", parts: [], owner: { age: 1, name: "name" } }],
      labels: { key: "text" }, channel: "web", rate: 0.5, urgent: true,
    });
    assert.equal(await page.text("#say"), "Copied: Example payload");
    assert.deepEqual(JSON.parse(await copied("#op-1 .example button")), { name: "given", n: 7 }, "the document's own example goes first");
    assert.equal(await copied("#op-2 .example button"), "text");
    assert.equal(await copied("#op-4 .example button"), "curl 'http://127.0.0.1:8000/saver/v1/reports?limit=100'");
    assert.equal(await page.run(() => [...document.querySelectorAll("#op-5 .example")].find((e) => e.innerText.startsWith("curl")).querySelector("pre").innerText),
      "curl -X POST 'http://127.0.0.1:8000/agents/it'\\''s/report' \\\n  -H 'content-type: application/json' \\\n  -d '{\"id\":1,\"text\":\"text\"}'");
    await finished(page);
  });

  test("what is looked for is found, by keyboard", async () => {
    const page = await open({ asyncapi, openapi });
    await page.run(() => document.querySelector("#find").focus());
    await page.type("orders");
    assert.deepEqual(await page.run(() => [...document.querySelectorAll(".op")].filter((e) => e.checkVisibility()).map((e) => e.id)), ["op-0"]);
    assert.equal(await page.text("#say"), "1 found");
    await page.press("Tab");
    assert.equal(await page.run(() => document.activeElement.getAttribute("href")), "#op-0");
    await page.press("Enter");
    await page.until(() => location.hash === "#op-0" && document.querySelector("#op-0").getBoundingClientRect().top < 200);
    await finished(page);
  });

  test("no document, one of two, a server that fails: each is said", async () => {
    let page = await open({});
    assert.match(await page.text("#note"), /^This app documents nothing/);
    await isReadable(page);
    await finished(page, /404/);
    page = await open({ openapi });
    assert.equal(await page.run(() => document.querySelectorAll(".op").length), 2);
    assert.equal(await page.run(() => document.querySelector("#note").hidden), true);
    await finished(page, /404/);
    fake.mode = "fails";
    page = await open({});
    assert.match(await page.text("#note"), /asyncapi\.json: the server answered 503/);
    fake.mode = "garbage";
    await page.goto(`${fake.url}documents`);
    await page.until(() => /it is not JSON/.test(document.querySelector("#note").textContent));
    fake.mode = "well";
    await finished(page, /503/);
  });

  test("hostile documents stay text, and types without end come to one", async () => {
    const many = Object.fromEntries(Array.from({ length: 12 }, (_, i) => [`T${i}`, { type: "object", properties: Object.fromEntries(Array.from({ length: 12 }, (_, j) => [`f${j}`, { $ref: `#/components/schemas/T${(i + j + 1) % 12}` }])) }]));
    const evil = {
      asyncapi: HOSTILE, info: { title: HOSTILE, version: HOSTILE, description: HOSTILE },
      channels: { [HOSTILE]: { address: HOSTILE, [`x-${HOSTILE}`]: { [HOSTILE]: HOSTILE }, messages: { [HOSTILE]: { name: HOSTILE, payload: { title: HOSTILE, description: HOSTILE, properties: { [HOSTILE]: { description: HOSTILE, enum: [HOSTILE], pattern: HOSTILE } }, required: [HOSTILE] } } } }, loop: { $ref: "#/channels/loop" }, bad: { $ref: "#/%E0%A4%A" }, none: null },
      operations: { a: { action: HOSTILE, channel: { $ref: "#/channels/none" } }, b: null, c: { action: "send", channel: { $ref: "https://example.org/x" }, messages: [{ payload: { $ref: "#/components/schemas/T0" } }, 5] } },
      components: { schemas: many },
    };
    const page = await open({ asyncapi: evil, openapi: { paths: { [HOSTILE]: { get: { summary: HOSTILE, responses: { [HOSTILE]: { description: HOSTILE } }, parameters: [null, { name: HOSTILE, in: "path" }] } } }, servers: [{ url: "javascript:window.pwned=1" }] } });
    assert.equal(await page.run(() => window.pwned ?? null), null);
    assert.equal(await page.run(() => document.querySelectorAll("main img, main script, main svg, [onerror]").length), 0);
    assert.equal(await page.text("#title"), HOSTILE);
    assert.deepEqual(await page.run(() => [...document.querySelectorAll("a")].filter((a) => !a.href.startsWith(location.origin)).length), 0);
    await page.size(360, 780, true);
    await isReadable(page);
    await finished(page);
  });
}
