// `node main.mjs CHROMIUM SHOTS [URL]`: the pages in a browser; at URL, the admin server of an App.

import { mkdirSync } from "node:fs";
import { after, before } from "node:test";

import { Browser } from "./chromium.mjs";
import { documents } from "./documents.mjs";
import { operations } from "./operations.mjs";

const [program, shots] = process.argv.slice(2);
mkdirSync(shots, { recursive: true });
let browser;
before(async () => { browser = await Browser.launch(program); });
after(() => browser.close());

const tools = { browser: () => browser, shots };
operations(tools);
documents(tools);
