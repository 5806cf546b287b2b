// What is measured of a call, one run at a time. Every run opens pages of its own; results are in
// milliseconds, Infinity for what has not come within the limit.

import { setTimeout as pause } from "node:timers/promises";
import { cut as part, readdress, restore } from "../../e2e/lib/lab.mjs";
import { until } from "../../e2e/lib/wait.mjs";

/** Pages are left alone for so long before a call, and calls before something happens to them. */
const IDLE = 700;
const SETTLED = 2_000;

const now = () => performance.timeOrigin + performance.now();
const at = (p, what) => p.evaluate((w) => bench.at[w] ?? Infinity, what);

/** The time of a mark on a page, Infinity if there is none by the limit. */
async function marked(p, what, limit) {
  await until(what, async () => (await at(p, what)) < Infinity, limit, 50).catch(() => {});
  return at(p, what);
}

/** Pages loaded and idle, then one calls: until the other shows its picture. */
export async function start(stage, contestant) {
  const [p, q] = await stage.pair(contestant);
  await pause(IDLE);
  await p.evaluate(() => bench.call());
  return { first: (await marked(q, "frame", 15_000)) - (await at(p, "call")) };
}

/**
 * Both pages begin to load at once: from the earlier one's beginning until the callee shows a
 * picture.
 */
export async function load(stage, contestant) {
  const [p, q] = await stage.pair(contestant, { auto: true });
  const frame = await marked(q, "frame", 15_000);
  const began = Math.min(await at(p, "load"), await at(q, "load"));
  return { first: frame - began, caller: await steps(p, began), callee: await steps(q, began) };
}

/** What a page has taken down, for those who look for where the time goes. */
const steps = async (p, from) =>
  Object.fromEntries(
    Object.entries(await p.evaluate(() => bench.at)).map(([what, t]) => [what, t - from]),
  );

/** A call both ways, settled. */
async function calling(stage, contestant, o) {
  const pages = await stage.pair(contestant, { turn: true, ...o });
  await pause(IDLE);
  await pages[0].evaluate(() => bench.call());
  for (const p of pages) await p.until("showing the other", () => bench.frames > 30);
  for (const p of pages) await p.until("settled", () => bench.settled());
  await pause(SETTLED);
  return pages;
}

/**
 * The longest time without a picture at either side, from the event until both have been smooth
 * again for a while.
 */
async function freeze(pages, event, limit) {
  for (const p of pages) await p.evaluate(() => void bench.watch());
  const began = now();
  await event();
  let seen;
  const smooth = async () => {
    seen = await Promise.all(pages.map((p) => p.evaluate(() => bench.standing())));
    return now() - began > 5_000 && seen.every((s) => s.smooth > 40);
  };
  const over = await until("smooth", smooth, limit, 100).catch(() => false);
  return { freeze: over ? Math.max(...seen.map((s) => s.gap)) : Infinity };
}

/** The direct path dies; what comes from the server, and so from its relay, arrives. */
export async function cut(stage, contestant) {
  const { a, b } = stage.lab;
  const pages = await calling(stage, contestant);
  try {
    return await freeze(pages, () => part(a, b), 20_000);
  } finally {
    restore(a, b);
  }
}

/**
 * A client gets another address of its network, as a new lease would give it: each time the other
 * one of two.
 */
export async function address(stage, contestant) {
  const pages = await calling(stage, contestant);
  return freeze(pages, () => readdress(stage.lab.a.ns), 20_000);
}

const OUTAGE = 20_000;

/**
 * The server is killed and starts again after a while. Of a direct call: the longest time without a
 * picture meanwhile, and how long after the server the session is back at both. Of a relayed one:
 * how long after the server both show pictures again.
 */
export async function away(stage, contestant) {
  const relayed = stage.scene.nat === "sym";
  const pages = await calling(stage, contestant, { relayed });
  for (const p of pages) await p.evaluate(() => (delete bench.at.back, void bench.watch()));
  await stage.kill(contestant);
  let seen;
  try {
    await pause(OUTAGE);
    seen = await Promise.all(pages.map((p) => p.evaluate(() => bench.standing())));
  } finally {
    await stage.restart(contestant); // those who come after need it, whatever happened here
  }
  const again = now();
  const after = async (what) =>
    Math.max(
      0,
      ...(await Promise.all(pages.map((p) => marked(p, what, 15_000)))).map((t) => t - again),
    );
  if (!relayed) return { freeze: Math.max(...seen.map((s) => s.gap)), back: await after("back") };
  if (seen.some((s) => s.smooth))
    throw new Error("a call that is said to be relayed goes on without the relay");
  for (const p of pages) await p.evaluate((t) => bench.expect("picture", t), again);
  return { back: await after("picture") };
}

/** The caller's tab is closed: until the other is told. */
export async function close(stage, contestant) {
  const [p, q] = await calling(stage, contestant);
  const began = now();
  // As a user closes it: the page may say goodbye.
  await p.page.close({ runBeforeUnload: true });
  return { told: (await marked(q, "ended", 30_000)) - began };
}
