// Three nodes behind a load balancer that is not sticky, as make run-cluster starts them: a call of
// users on two nodes continues when one of these is killed.

import { after, before, test } from 'node:test';
import assert from 'node:assert/strict';
import path from 'node:path';
import { Chromium } from './lib/chromium.mjs';
import { Process } from './lib/process.mjs';
import { until } from './lib/wait.mjs';
import { IEUM, ROOT, folder } from './lib/work.mjs';

const dir = folder('cluster');
const PROGRAM = path.join(ROOT, 'bin', 'threenodes');
let cluster;
let browser;
before(async () => {
  cluster = new Process([PROGRAM, '--ieum', IEUM, '--listen', '127.0.0.1:0'], {
    dir,
    name: 'threenodes',
  });
  browser = await Chromium.start({ dir });
});
after(async () => {
  await browser?.close();
  await cluster?.stop();
});

/** How many sessions a node has; none if it is dead. */
async function sessions({ admin }) {
  const text = await fetch(`http://${admin}/metrics`).then((r) => r.text(), () => '');
  return Number(/^ieum_signaling_sessions (\d+)$/m.exec(text)?.[1] ?? 0);
}

/** Frames that both sides of /sample have decoded. */
const frames = (page) =>
  page.evaluate(() => {
    const { framesA, framesB } = document.querySelector('.console').dataset;
    return [Number(framesA), Number(framesB)];
  });

/**
 * Whether each side still shows the other's video element that was marked: /sample removes it when
 * the other leaves.
 */
const videos = async (page, mark) => {
  const seen = [];
  for (const side of ['a', 'b']) {
    const frame = await (await page.page.$(`iframe[data-side="${side}"]`)).contentFrame();
    seen.push(
      await frame.evaluate((set) => {
        const all = document.querySelectorAll('[data-member] video');
        if (set) for (const v of all) v.marked = true;
        return all.length === 1 && all[0].marked === true;
      }, mark),
    );
  }
  return seen;
};

test('/sample: a call over two nodes continues when one of them is killed', async () => {
  const [, address] = await cluster.said(/Open (http:\S+)\/sample/);
  const line = /(n\d): process (\d+) at http:\/\/([\d.:]+)\/, metrics http:\/\/([\d.:]+)\//g;
  const nodes = [...cluster.output.matchAll(line)].map(([, name, pid, host, admin]) => ({
    name,
    pid: Number(pid),
    host,
    admin,
  }));
  assert.equal(nodes.length, 3);
  const page = await browser.open(`${address}/sample?lang=en`, { name: 'sample' });
  await page.page.click('[data-action="start"]');
  await page.until(
    'running',
    () => document.querySelector('.console').dataset.result === 'running',
  );
  const more = async (than) => {
    const now = await frames(page);
    return now.every((n, i) => n > than[i] + 30);
  };
  await until('decoding in both frames', () => more([0, 0]));
  const counts = await Promise.all(nodes.map(sessions));
  assert.deepEqual(counts.toSorted(), [0, 1, 1], 'the users are on two nodes');
  await videos(page, true);

  const victim = nodes[counts.indexOf(1)];
  process.kill(victim.pid, 'SIGKILL');
  const rest = nodes.filter((n) => n !== victim);
  await cluster.said(new RegExp(`${victim.name} has ended`));
  await until('with both sessions on the other nodes', async () => {
    const now = await Promise.all(rest.map(sessions));
    return now[0] + now[1] === 2;
  });
  const then = await frames(page);
  await until('decoding further', () => more(then));
  assert.deepEqual(await videos(page, false), [true, true], 'nobody left');
  assert.equal(
    await page.evaluate(() => document.querySelector('.console').dataset.result),
    'running',
  );
});
