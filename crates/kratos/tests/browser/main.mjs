// `node main.mjs CHROMIUM SHOTS QUICKSTART`: the pages in a browser, against recorded answers and
// against an App.

import { mkdirSync } from "node:fs";
import { after, before, describe } from "node:test";

import { Browser } from "./chromium.mjs";
import { documents } from "./documents.mjs";
import { operations } from "./operations.mjs";
import { real } from "./real.mjs";

const [chromium, shots, quickstart] = process.argv.slice(2);
mkdirSync(shots, { recursive: true });
let browser;
before(async () => { browser = await Browser.launch(chromium); });
after(() => browser.close());

const tools = { browser: () => browser, shots };
describe("the operations page", () => operations(tools));
describe("the documents page", () => documents(tools));
describe("an App", () => real({ ...tools, program: quickstart }));
