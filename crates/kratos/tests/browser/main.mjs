// `node main.mjs CHROMIUM SHOTS QUICKSTART REHEARSAL BROKER`: the pages in a browser, against recorded
// answers and against Apps.

import { mkdirSync } from "node:fs";
import { after, before, describe } from "node:test";

import { behaviour } from "./behaviour.mjs";
import { Browser } from "./chromium.mjs";
import { documents } from "./documents.mjs";
import { operations } from "./operations.mjs";
import { real } from "./real.mjs";
import { failing, hanging } from "./rehearsal.mjs";

const [chromium, shots, quickstart, rehearsal, broker] = process.argv.slice(2);
mkdirSync(shots, { recursive: true });
let browser;
before(async () => { browser = await Browser.launch(chromium); });
after(() => browser.close());

const tools = { browser: () => browser, shots };
// Each waits for pages and services most of the time. Those of one have a server in common.
const inTurn = { concurrency: 1 };
describe("the pages", { concurrency: 6 }, () => {
  describe("of an App whose handlers hang", inTurn, () => hanging({ ...tools, program: rehearsal, broker }));
  describe("of an App whose handlers fail", inTurn, () => failing({ ...tools, program: rehearsal, broker }));
  describe("of an App", inTurn, () => real({ ...tools, program: quickstart, broker }));
  describe("operations: what it shows", inTurn, () => operations(tools));
  describe("operations: what it does", inTurn, () => behaviour(tools));
  describe("documents", inTurn, () => documents(tools));
});
