// A server that plays the admin server: pages from the sources, answers from a state that a test
// chooses, and the ways in which a server can be away.

import { createServer } from "node:http";
import { readFileSync } from "node:fs";

const SOURCES = new URL("../../src/admin/", import.meta.url);
export const source = (name) => readFileSync(new URL(name, SOURCES), "utf8");

export class Fake {
  /** Answers `GET status`: a function of the page's clock in milliseconds. */
  state = () => ({});
  documents = {};
  /** `well`, `hangs`, `refuses`, `fails`, `garbage`, `foreign` */
  mode = "well";
  /** What was asked for by POST, and what `GET status` was asked how often. */
  posts = [];
  asked = 0;
  /** What a POST is answered. */
  answer = () => [200, {}];
  letters = () => [404, { error: "there is no dead-letter topic" }];
  #server;

  static async start() {
    const fake = new Fake();
    fake.#server = createServer((request, response) => fake.#serve(request, response));
    await new Promise((resolve) => fake.#server.listen(0, "127.0.0.1", resolve));
    return fake;
  }

  get url() {
    return `http://127.0.0.1:${this.#server.address().port}/`;
  }

  async stop() {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #serve(request, response) {
    const path = new URL(request.url, "http://x").pathname;
    const send = (status, type, body) => {
      response.writeHead(status, { "content-type": type, "cache-control": "no-store" });
      response.end(body);
    };
    const json = (status, value) => send(status, "application/json", JSON.stringify(value));
    if (path === "/") return send(200, "text/html; charset=utf-8", source("page.html"));
    if (path === "/documents") return send(200, "text/html; charset=utf-8", source("documents.html"));
    if (path === "/status") this.asked++;
    if (this.mode === "hangs") return;
    if (this.mode === "refuses") return request.socket.destroy();
    if (this.mode === "fails") return json(503, { error: "not now" });
    if (this.mode === "garbage") return send(200, "text/html", "<h1>It works!</h1>");
    if (this.mode === "foreign") return json(200, { hello: "world" });
    if (path === "/status") return json(200, this.state(Number(request.headers["x-clock"] ?? 0)));
    if (path === "/asyncapi.json" || path === "/openapi.json") {
      const document = this.documents[path.slice(1, -5)];
      return document ? json(200, document) : json(404, { error: "there is no such document" });
    }
    if (request.method === "GET" && path.startsWith("/dead-letters/")) return json(...this.letters(path));
    if (request.method !== "POST") return json(404, { error: "there is no such page" });
    let body = "";
    request.on("data", (data) => (body += data));
    request.on("end", () => {
      const post = { path, type: request.headers["content-type"], body: JSON.parse(body) };
      this.posts.push(post);
      json(...this.answer(post));
    });
  }
}
