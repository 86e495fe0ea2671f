// A clock that the test turns. Goes into the page before its scripts: timers fire and time passes
// only in `clock.pass`, so four minutes take no longer than their answers.

export function clock(start) {
  const real = { fetch: fetch.bind(window), now: performance.now.bind(performance) };
  let now = 1000;
  let next = 1;
  let pending = 0;
  const timers = new Map();
  // A turn of the event loop, without the four milliseconds that nested timers are held back.
  const turn = () => new Promise((done) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => { port1.close(); done(); };
    port2.postMessage(null);
  });
  const add = (fn, ms, every) => {
    timers.set(next, { fn, at: now + (Number(ms) || 0), every });
    return next++;
  };
  window.setTimeout = (fn, ms) => add(fn, ms, null);
  window.setInterval = (fn, ms) => add(fn, ms, Math.max(1, Number(ms) || 0));
  window.clearTimeout = window.clearInterval = (id) => timers.delete(id);
  performance.now = () => now;
  const RealDate = Date;
  window.Date = class extends RealDate {
    constructor(...args) { super(...(args.length ? args : [start + now])); }
    static now() { return start + now; }
  };
  // The fake server tells its story by this clock.
  window.fetch = async (url, options = {}) => {
    pending++;
    try {
      const response = await real.fetch(url, { ...options, headers: { ...options.headers, "x-clock": String(now) } });
      // Whole, so that who awaits it needs no further turn.
      const body = await response.text();
      return { ok: response.ok, status: response.status, text: async () => body, json: async () => JSON.parse(body) };
    } finally {
      turn().then(() => pending--);
    }
  };
  const settle = async (patience) => {
    const until = real.now() + patience;
    do await turn();
    while (pending > 0 && real.now() < until);
  };
  window.clock = {
    /** Lets time pass; a question without an answer holds it up for `patience` real milliseconds. */
    async pass(ms, patience) {
      await settle(patience);
      const end = now + ms;
      for (;;) {
        const due = [...timers].filter(([, t]) => t.at <= end).sort(([i, a], [j, b]) => a.at - b.at || i - j)[0];
        if (!due) break;
        const [id, timer] = due;
        now = Math.max(now, timer.at);
        if (timer.every) timer.at += timer.every;
        else timers.delete(id);
        timer.fn();
        await settle(patience);
      }
      now = end;
    },
    timers: () => timers.size,
  };
}
