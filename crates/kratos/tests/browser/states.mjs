// What a service tells of itself, in the states that a person on call meets. Each is a function of
// the page's clock, in milliseconds.

const NOW = Date.parse("2026-11-23T03:12:04.000Z");
const HOUR = 3_600_000;

const status = (t, more) => ({
  app: { id: "saver-service-7c9d5b6f4-x2x9k", name: "saver-service", version: "1.4.2", metadata: { zone: "eu-west-1b" } },
  phase: "ready", phase_since_ms: 76 * HOUR + t, uptime_ms: 76 * HOUR + 1400 + t, now: new Date(NOW + t).toISOString(),
  actions: false, liveness: { alive: true, heartbeat_ms: 120, reason: null },
  servers: [
    { name: "http", kind: "http", state: "serving", health: "serving", reason: null, endpoints: ["http://10.4.7.21:8000"], entries: [
      { what: "route", name: "POST /agent/v1/report" }, { what: "route", name: "GET /saver/v1/reports" }] },
    { name: "grpc", kind: "grpc", state: "serving", health: "serving", reason: null, endpoints: ["grpc://10.4.7.21:9000"], entries: [
      { what: "service", name: "report.v1.ReportService" }] },
    { name: "rocketmq", kind: "messages", state: "serving", health: "serving", reason: null, endpoints: [], entries: [
      { what: "subscription", name: "orders.paid → billing" }, { what: "subscription", name: "logger_report_event → logger-saver" },
      { what: "subscription", name: "logger_report_user → logger-saver" }, { what: "subscription", name: "stock.moves → stock" }] },
    { name: "admin", kind: "admin", state: "serving", health: "serving", reason: null, endpoints: ["http://127.0.0.1:9100"], entries: [] },
  ],
  resources: ["telemetry", "store", "rocketmq"], documents: ["asyncapi", "openapi"],
  subscriptions: [], ...more,
});

const subscription = (id, topic, group, more) => ({
  id, server: "rocketmq", topic, group, filter: "*", kind: "single", ordered: false,
  state: "running", reason: null, since_ms: 76 * HOUR, assigned: true, concurrency: 8, in_flight: 0, waiting: 0, oldest_ms: null, oldest_age_ms: null, dead_lettering: 0,
  received: 0, handled: 0, failed: 0, retried: 0, dead_lettered: 0, handed_back: 0, leases_lost: 0, leases_extended: 0,
  oldest_message: null, lag: 0, last_error: null, ...more,
});

/** A steady flow that breathes: messages handled until `t`. */
const flow = (t, perSecond, phase = 0) =>
  Math.floor((perSecond * t) / 1000 + perSecond * 6 * (Math.sin(t / 21_000 + phase) + 0.5 * Math.sin(t / 5_300 + phase)) + perSecond * 20);

const error = (t, at, more) => ({
  ago_ms: t - at, message: "cannot store the report: cannot commit: database is locked: SQLITE_BUSY (5)",
  type: "saver_service::SaveError", message_id: "01A2F6C0E8B44D0B2A0F1C2D3E000017", attempt: 7,
  trace_id: "4bf92f3577b34da6a3ce929d0e0e4736", ...more,
});

const four = (t, more = {}) => {
  const events = flow(t, 412, 1), users = flow(t, 38.5, 2), orders = flow(t, 96, 3), stock = flow(t, 4.4, 4);
  return [
    subscription("1", "orders.paid", "billing", { ordered: true, concurrency: 16, in_flight: 5, waiting: 11, oldest_ms: 180, received: orders + 16, handled: orders, lag: 16, retried: 3, failed: 3, ...more.orders }),
    subscription("2", "logger_report_event", "logger-saver", { kind: "batch", in_flight: 6, waiting: 64, oldest_ms: 420, received: events + 70, handled: events, lag: 212, leases_extended: 2, ...more.events }),
    subscription("3", "logger_report_user", "logger-saver", { filter: "created || renamed", in_flight: 1, waiting: 0, oldest_ms: 35, received: users + 1, handled: users, lag: 1, ...more.users }),
    subscription("4", "stock.moves", "stock", { concurrency: 4, in_flight: 0, waiting: 0, received: stock, handled: stock, dead_lettered: 2, failed: 34, retried: 32, ...more.stock }),
  ];
};

export const idle = (t) => status(t, {
  subscriptions: four(0, {}).map((s) => ({ ...s, in_flight: 0, waiting: 0, oldest_ms: null, lag: 0 })),
});

export const load = (t) => status(t, { subscriptions: four(t) });

/** Handlers hang on a locked database: since minute one nothing of orders.paid is finished. */
export const stuck = (t) => {
  const at = 60_000, since = Math.max(0, t - at);
  const done = flow(Math.min(t, at), 96, 3);
  const orders = t < at ? {} : {
    in_flight: 16, waiting: Math.min(480, 11 + Math.floor(since / 250)), oldest_ms: since + 180, received: done + 500, handled: done, lag: 1204 + Math.floor(since / 12),
    oldest_message: { message_id: "01A2F6C0E8B44D0B2A0F1C2D3E0004D3", trace_id: "7a1f0c55d2e94b6c8d0f3b2a19e4c701" },
    leases_extended: 16 * Math.floor(since / 20_000), failed: 41, retried: 38,
    last_error: error(t, at, { message: "cannot bill the order: the payment gateway does not answer: operation timed out after 30 s", type: "billing::GatewayError", attempt: 3, trace_id: "b2c8e03f6a7d41f59e1c7d80a6b3f24e", message_id: "01A2F6C0E8B44D0B2A0F1C2D3E0004D2" }),
  };
  return status(t, { subscriptions: four(t, { orders }) });
};

/** Every write fails: the switch opens after half a minute and tries one message now and then. */
export const switchedOff = (t) => {
  const at = 90_000, since = Math.max(0, t - at);
  const done = flow(Math.min(t, at), 412, 1), failed = t < at ? Math.max(0, Math.floor((t - 62_000) / 40)) : 700 + Math.floor(since / 10_000);
  const events = t < at ? { failed: Math.max(0, failed), retried: Math.max(0, failed) } : {
    state: "switched_off", reason: "kill switch open: 20 attempts in a row failed; one message is tried in " + (10 - Math.floor(since / 1000) % 10) + " s", since_ms: since,
    in_flight: 0, waiting: 512, oldest_ms: since + 9_000, received: done + 512, handled: done, failed, retried: failed, lag: 3800 + Math.floor(since / 3), last_error: error(t, t - (since % 10_000)),
  };
  return status(t, {
    servers: status(t).servers.map((s) => s.name === "rocketmq" && t >= at ? { ...s, health: "degraded", reason: "logger_report_event in logger-saver: the kill switch is open" } : s),
    subscriptions: four(t, { events }),
  });
};

export const paused = (t) => status(t, { actions: true, subscriptions: four(t, { users: { state: "paused", reason: "paused by hand", since_ms: 95_000 + t, in_flight: 0, waiting: 3, oldest_ms: 95_000 + t, handled: 700, received: 703 } }) });

export const acting = (t) => status(t, { actions: true, subscriptions: four(t) });

export const failing = (t) => {
  const failed = Math.floor(t / 400);
  return status(t, { subscriptions: four(t, {
    orders: { failed, retried: failed, last_error: error(t, t - 300) },
    stock: { handled: 900, received: 990, failed: Math.floor(t / 900), dead_lettered: 2 + Math.floor(t / 30_000), last_error: error(t, t - 500, { message: "cannot decode the body: missing field `sku` at line 1 column 57", type: "decode", attempt: 1, trace_id: null }) },
  }) });
};

/** Messages wait on the broker, and nothing comes. */
export const dry = (t) => status(t, { subscriptions: four(t, { users: { in_flight: 0, waiting: 0, oldest_ms: null, handled: 5000, received: 5000, lag: 900 + Math.floor(t / 100), assigned: false } }) });

/** It runs, and its server says what is in the way. */
export const heldUp = (t) => status(t, { subscriptions: four(t, { stock: { reason: "receiving from stock.moves fails: the broker cannot be reached: connection refused" } }) });

export const draining = (t) => status(t, {
  phase: "draining", phase_since_ms: 4200,
  servers: status(t).servers.map((s) => ["http", "grpc"].includes(s.name) ? { ...s, state: "ended" } : s),
  subscriptions: four(Math.min(t, 100_000), {
    orders: { state: "draining", since_ms: 4200, in_flight: 3, waiting: 0, oldest_ms: 12_400, oldest_message: { message_id: "01A2F6C0E8B44D0B2A0F1C2D3E0004D3", trace_id: null } }, events: { state: "draining", since_ms: 4200, in_flight: 6, waiting: 0, oldest_ms: 4_900 },
    users: { state: "stopped", since_ms: 3900, in_flight: 0, waiting: 0, oldest_ms: null, handed_back: 1 }, stock: { state: "stopped", since_ms: 4100 },
  }),
});

export const starting = (t) => status(t, {
  phase: "starting", phase_since_ms: t, uptime_ms: t, servers: status(t).servers.map((s) => ({ ...s, health: "not_serving" })), subscriptions: [],
});

export const dead = (t) => status(t, { liveness: { alive: false, heartbeat_ms: 31_000, reason: "the dispatcher has not turned for 31 s" }, subscriptions: four(t) });

/** The admin server answers, and nobody behind it. */
export const unseen = (t) => status(t, { liveness: { alive: true, heartbeat_ms: 3000, reason: "the subscriptions do not answer within 2 s: the dispatcher may be stuck" } });

/** Texts that want to be more than text. */
export const HOSTILE = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>"\'><svg onload=window.pwned=1>';
export const hostile = (t) => {
  const long = "x".repeat(9000), turned = "abc\u202Egnp.exe\u0000\u200b";
  const one = subscription("../../evil?<b>", HOSTILE, HOSTILE, { state: HOSTILE, kind: HOSTILE, filter: HOSTILE, reason: HOSTILE, server: HOSTILE, last_error: { ago_ms: 5, message: `${HOSTILE}: ${HOSTILE}`, type: HOSTILE, message_id: HOSTILE, attempt: 1, trace_id: "javascript:window.pwned=1" } });
  return status(t, {
    app: { id: HOSTILE, name: HOSTILE, version: HOSTILE, metadata: { [HOSTILE]: HOSTILE, __proto__x: 1 } }, actions: true,
    servers: [{ name: HOSTILE, kind: HOSTILE, health: HOSTILE, reason: HOSTILE, endpoints: ["javascript:window.pwned=1", HOSTILE], entries: [{ what: HOSTILE, name: HOSTILE }] }, null, 7, "x"],
    resources: [HOSTILE], documents: [HOSTILE],
    subscriptions: [one, subscription("2", long, long, { state: "switched_off", reason: long, since_ms: 1000, last_error: { message: long } }), subscription("3", turned, "g", { state: "paused" }),
      null, [], { id: null, topic: 5, handled: "many", in_flight: {}, last_error: [] }, subscription("__proto__", "constructor", "toString", { in_flight: -1, oldest_ms: 1e300, lag: 1e21 }),
      subscription("4", "held", "g", { in_flight: 1, oldest_ms: 90_000, oldest_message: { message_id: HOSTILE, trace_id: HOSTILE } })],
  });
};
