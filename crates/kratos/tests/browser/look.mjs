// What a page must be, whatever it shows: functions that run in the page, and the checks on them.

import assert from "node:assert/strict";

/** Texts whose contrast is under WCAG AA, with the ratio that they have. */
function tooFaint() {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const paint = canvas.getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    paint.clearRect(0, 0, 1, 1);
    paint.fillStyle = color;
    paint.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = paint.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const light = (color) => {
    const [r, g, b] = color.slice(0, 3).map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  // From the page's ground up, with every background and every opacity on the way.
  const ground = (element) => {
    const line = [];
    for (let e = element; e; e = e.parentElement) line.unshift(e);
    let below = [255, 255, 255, 1], opacity = 1;
    for (const e of line) {
      const style = getComputedStyle(e);
      opacity *= Number(style.opacity);
      const own = rgba(style.backgroundColor);
      below = over([own[0], own[1], own[2], own[3] * opacity], below);
    }
    return [below, opacity];
  };
  const faint = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const e = node.parentElement;
    if (!node.data.trim() || !e.checkVisibility({ visibilityProperty: true }) || e.closest(".said, thead, script, style, dialog:not([open]), .skip")) continue;
    const box = e.getBoundingClientRect();
    if (box.width === 0 || e.closest("button[disabled]")) continue;
    const style = getComputedStyle(e), [below, opacity] = ground(e), own = rgba(style.color);
    const color = over([own[0], own[1], own[2], own[3] * opacity], below);
    const [a, b] = [light(color), light(below)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05), size = parseFloat(style.fontSize);
    const least = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
    if (ratio < least) faint.push(`${ratio.toFixed(2)} "${node.data.trim().slice(0, 40)}"`);
  }
  return faint;
}

/** What reaches over the right edge. */
function tooWide() {
  const room = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= room) return [];
  return [...document.body.querySelectorAll("*")].filter((e) => e.getBoundingClientRect().right > room + 1 && !e.closest(".said"))
    .map((e) => `${e.tagName} ${e.className} ${Math.round(e.getBoundingClientRect().right)} > ${room}`);
}

/** What a finger misses: buttons lower than 44 pixels. */
function tooSmall() {
  return [...document.querySelectorAll("button, .button")].filter((e) => e.checkVisibility() && e.getBoundingClientRect().height < 44 && !e.classList.contains("skip"))
    .map((e) => `${e.textContent.trim()} ${e.getBoundingClientRect().height}`);
}

/** What one operates and a screen reader cannot name. */
function nameless() {
  return [...document.querySelectorAll("button, a[href], input, select")].filter((e) => e.checkVisibility())
    .filter((e) => !(e.getAttribute("aria-label") ?? e.labels?.[0]?.textContent ?? e.textContent).trim()).map((e) => e.outerHTML);
}

const check = async (page, what, fn) => assert.deepEqual(await page.run(fn), [], what);

export async function isReadable(page) {
  await check(page, "contrast is under WCAG AA", tooFaint);
  await check(page, "wider than the screen", tooWide);
  await check(page, "without a name", nameless);
}

export const fitsFingers = (page) => check(page, "too small for a finger", tooSmall);

/** Pictures of the whole page on a desk and on a phone, dark and light: `{path}-desktop-dark.png`. */
export async function pictures(page, path) {
  for (const [screen, width, height] of [["desktop", 1280, 900], ["phone", 360, 780]]) {
    await page.size(width, height);
    for (const theme of ["dark", "light"]) {
      await page.media({ "prefers-color-scheme": theme });
      await isReadable(page);
      await page.screenshot(`${path}-${screen}-${theme}.png`);
    }
  }
  await fitsFingers(page);
  await page.size(1280, 900);
}

/** Nothing was asked of anybody but `origin`, and the browser complained of nothing. */
export function isQuiet(page, origin, except = /^$/) {
  assert.deepEqual(page.requests.filter((url) => !url.startsWith(origin) && !url.startsWith("data:")), [], "asked elsewhere");
  assert.deepEqual(page.complaints.filter((words) => !except.test(words)), [], "the browser complains");
}
