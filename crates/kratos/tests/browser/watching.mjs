// The operations page on a server that plays the admin server, by a clock that the test turns.

import { after, before } from "node:test";

import { clock } from "./clock.mjs";
import { Fake } from "./fake.mjs";
import { isQuiet } from "./look.mjs";

export const START = Date.parse("2026-11-23T03:12:04.000Z");

/** For the tests of one suite: they share its server, so they run one after the other. */
export function watching({ browser, shots }) {
  let fake;
  before(async () => { fake = await Fake.start(); });
  after(() => fake.stop());
  const pass = (page, ms, patience = 5000) => page.run((ms, patience) => window.clock.pass(ms, patience), ms, patience);
  return {
    fake: () => fake,
    pass,
    /** The page in a state, after `ms` of watching. */
    async watch(state, ms = 4000, { width, height, theme = "light", more = {}, prepare } = {}) {
      Object.assign(fake, { state, mode: "well", posts: [], answer: () => [200, {}], letters: () => [404, { error: "none" }] });
      const page = await browser().page({ width, height });
      await page.send("Emulation.setTimezoneOverride", { timezoneId: "UTC" });
      await page.media({ "prefers-color-scheme": theme, ...more });
      await page.before(`(${clock})(${START})`);
      if (prepare) await page.before(`(${prepare})()`);
      await page.goto(fake.url);
      await pass(page, ms);
      return page;
    },
    shot: (page, name) => page.screenshot(`${shots}/${name}.png`),
    async finished(page, except) {
      isQuiet(page, fake.url, except);
      await page.close();
    },
    verdict: async (page) => [await page.text("#headline"), await page.text("#subline")],
  };
}
