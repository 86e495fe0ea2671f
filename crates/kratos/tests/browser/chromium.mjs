// A headless Chromium, driven over the DevTools protocol through a pipe: no port, no package.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** No command and no wait takes longer. */
const PATIENCE_MS = 20_000;

export class Browser {
  #process;
  #profile;
  #next = 1;
  #waiting = new Map();
  #listeners = new Map();
  #rest = Buffer.alloc(0);

  static async launch(program) {
    const browser = new Browser();
    browser.#profile = mkdtempSync(join(tmpdir(), "browser-"));
    const flags = [
      "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
      `--user-data-dir=${browser.#profile}`, "--no-first-run", "--no-default-browser-check",
      "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
      "--disable-features=Translate,OptimizationHints,MediaRouter", "--hide-scrollbars", "--force-color-profile=srgb",
      // Whatever a page asks for, nothing leaves the machine.
      "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", "about:blank",
    ];
    browser.#process = spawn(program, flags, { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
    browser.#process.on("exit", () => browser.#fail("the browser has ended"));
    browser.#process.on("error", (error) => browser.#fail(`the browser does not start: ${error.message}`));
    browser.#process.stdio[3].on("error", () => {});
    browser.#process.stdio[4].on("data", (data) => browser.#read(data));
    await browser.send("Browser.getVersion");
    return browser;
  }

  /** A new page of a size, without anything of the pages before. */
  async page({ width = 1280, height = 900, phone = false } = {}) {
    const { browserContextId } = await this.send("Target.createBrowserContext");
    const { targetId } = await this.send("Target.createTarget", { url: "about:blank", browserContextId });
    const { sessionId } = await this.send("Target.attachToTarget", { targetId, flatten: true });
    const page = new Page(this, sessionId, browserContextId);
    this.#listeners.set(sessionId, (method, params) => page.heard(method, params));
    await Promise.all(["Page", "Runtime", "Network", "Log"].map((domain) => page.send(`${domain}.enable`)));
    // Each page of several is as if it were in front.
    await page.send("Emulation.setFocusEmulationEnabled", { enabled: true });
    await page.size(width, height, phone);
    return page;
  }

  send(method, params = {}, sessionId) {
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`${method}: no answer`)), PATIENCE_MS);
      this.#waiting.set(id, {
        method,
        resolve: (value) => { clearTimeout(late); resolve(value); },
        reject: (error) => { clearTimeout(late); reject(error); },
      });
      this.#process.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    });
  }

  async close() {
    const ended = new Promise((resolve) => this.#process.once("exit", resolve));
    await this.send("Browser.close").catch(() => {});
    const late = setTimeout(() => this.#process.kill("SIGKILL"), 3000);
    await ended;
    clearTimeout(late);
    rmSync(this.#profile, { recursive: true, force: true, maxRetries: 5 });
  }

  forget(sessionId) {
    this.#listeners.delete(sessionId);
  }

  #read(data) {
    this.#rest = Buffer.concat([this.#rest, data]);
    for (let end = this.#rest.indexOf(0); end >= 0; end = this.#rest.indexOf(0)) {
      const message = JSON.parse(this.#rest.subarray(0, end).toString());
      this.#rest = this.#rest.subarray(end + 1);
      if (message.id === undefined) {
        this.#listeners.get(message.sessionId)?.(message.method, message.params);
        continue;
      }
      const waiting = this.#waiting.get(message.id);
      this.#waiting.delete(message.id);
      if (message.error) waiting?.reject(new Error(`${waiting.method}: ${message.error.message}`));
      else waiting?.resolve(message.result);
    }
  }

  #fail(words) {
    for (const { method, reject } of this.#waiting.values()) reject(new Error(`${method}: ${words}`));
    this.#waiting.clear();
  }
}

export class Page {
  /** What the page asked for, and what it complained of. */
  requests = [];
  complaints = [];
  #browser;
  #session;
  #context;

  constructor(browser, session, context) {
    this.#browser = browser;
    this.#session = session;
    this.#context = context;
  }

  send(method, params) {
    return this.#browser.send(method, params, this.#session);
  }

  heard(method, params) {
    if (method === "Network.requestWillBeSent") this.requests.push(params.request.url);
    if (method === "Network.webSocketCreated") this.requests.push(params.url);
    if (method === "Runtime.exceptionThrown") {
      this.complaints.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
    }
    if (method === "Runtime.consoleAPICalled" && ["error", "warning", "assert"].includes(params.type)) {
      this.complaints.push(params.args.map((arg) => arg.value ?? arg.description).join(" "));
    }
    if (method === "Log.entryAdded" && ["error", "warning"].includes(params.entry.level)) {
      this.complaints.push(`${params.entry.text} ${params.entry.url ?? ""}`);
    }
  }

  async size(width, height, phone = width < 600) {
    await this.send("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: phone });
  }

  /** Media features, such as `{ "prefers-color-scheme": "dark" }`. */
  async media(features) {
    await this.send("Emulation.setEmulatedMedia", {
      features: Object.entries(features).map(([name, value]) => ({ name, value })),
    });
  }

  /** Runs before the scripts of every page that is opened from now on. */
  async before(source) {
    await this.send("Page.addScriptToEvaluateOnNewDocument", { source });
  }

  async goto(url) {
    await this.send("Page.navigate", { url });
    await this.until(() => document.readyState === "complete" && location.href !== "about:blank");
  }

  /** What a function answers in the page; `args` go there as JSON. */
  async run(fn, ...args) {
    const expression = `(${fn})(...${JSON.stringify(args)})`;
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  async until(fn, ...args) {
    const end = Date.now() + PATIENCE_MS;
    for (;;) {
      if (await this.run(fn, ...args).catch(() => false)) return;
      if (Date.now() > end) throw new Error(`never true: ${fn}`);
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
  }

  async text(selector) {
    return this.run((css) => document.querySelector(css)?.innerText.replaceAll(/[\u00a0\u202f]/g, " ") ?? null, selector);
  }

  /** A key, as a person presses it. */
  async press(key, { shift = false } = {}) {
    const codes = { Tab: 9, Enter: 13, Escape: 27, " ": 32 };
    const typed = { Enter: "\r", " ": " " }[key];
    const event = { key, code: key === " " ? "Space" : key, windowsVirtualKeyCode: codes[key], modifiers: shift ? 8 : 0 };
    await this.send("Input.dispatchKeyEvent", { type: typed ? "keyDown" : "rawKeyDown", text: typed, ...event });
    await this.send("Input.dispatchKeyEvent", { type: "keyUp", ...event });
  }

  async type(text) {
    await this.send("Input.insertText", { text });
  }

  /** A click in the middle of what is there, as a person does: what lies above gets it. */
  async click(selector) {
    const at = await this.run((css) => {
      const e = document.querySelector(css);
      e.scrollIntoView({ block: "center" });
      const box = e.getBoundingClientRect();
      return { x: box.x + box.width / 2, y: box.y + box.height / 2 };
    }, selector);
    for (const type of ["mousePressed", "mouseReleased"]) {
      await this.send("Input.dispatchMouseEvent", { type, ...at, button: "left", clickCount: 1 });
    }
  }

  /** Of the whole page, or of what is on the screen. */
  async screenshot(path, { screen = false } = {}) {
    await this.run(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
    const { data } = await this.send("Page.captureScreenshot", { format: "png", captureBeyondViewport: !screen });
    writeFileSync(path, Buffer.from(data, "base64"));
  }

  async close() {
    this.#browser.forget(this.#session);
    await this.#browser.send("Target.disposeBrowserContext", { browserContextId: this.#context });
  }
}
