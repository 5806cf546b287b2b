// A proxy that lets no WebSocket through: the SDK polls, and goes back to a WebSocket when it can;
// sessions and calls go on over the change.

import { after, afterEach, before, beforeEach, test } from 'node:test';
import assert from 'node:assert/strict';
import { call, flowing, meet, seen, send } from './lib/call.mjs';
import { Stage } from './lib/stage.mjs';
import { until } from './lib/wait.mjs';

let stage;
before(async () => (stage = await Stage.up('polling', { site: '' })));
beforeEach(() => (stage.proxy.upgrades = 'pass'));
afterEach((t) => stage.after(t));
after(() => stage?.down());

/** A chat from one to the other arrives once. */
async function talk(from, to, text) {
  assert.equal(
    await from.evaluate((x) => k.chat(x, k.getRoomId()).then((r) => r.code), text),
    '200',
  );
  await to.until(
    `hearing ${text}`,
    (x) => app.events.some((e) => e.type === 'chat' && e.message === x),
    text,
  );
  assert.equal(await to.evaluate((x) => app.events.filter((e) => e.message === x).length, text), 1);
}

test('no WebSocket from the start (404): a call works, and a closed page leaves', async () => {
  stage.proxy.block(404);
  const { a, b } = await meet(stage);
  await call(a, b);
  await talk(a, b, 'polled');
  assert.equal(stage.proxy.carried, 0);
  await b.close();
  await a.until('seeing bob leave', () => app.count('leave', 'bob') === 1);
  assert.equal(await a.evaluate(() => k.leaveRoom().then((r) => r.code)), '200');
  assert.deepEqual([a.errors, b.errors], [[], []]);
  await a.close();
});

for (const how of [403, 'hang']) {
  test(`upgrades get ${how}: init falls back to polling in time, under a strict CSP`, async () => {
    stage.proxy.block(how);
    const { cpCode, authKey } = stage.license;
    const { origin } = stage;
    const policy = `default-src 'none'; script-src 'nonce-n' ${origin}; ` +
      `connect-src ${origin} ${origin.replace('http', 'ws')}`;
    stage.pages.write(
      'strict-module.html',
      `<!DOCTYPE html><meta http-equiv="Content-Security-Policy" content="${policy}">
      <script type="module" nonce="n">
        import Knowledgetalk from '${stage.origin}/knowledgetalk.mjs';
        window.result = new Knowledgetalk().init('${cpCode}', '${authKey}');
      </script>
      <script src="${stage.origin}/knowledgetalk.min.js"></script>
      <script nonce="n">
        window.other = new Knowledgetalk().init('${cpCode}', '${authKey}');
      </script>`,
    );
    const page = await stage.open('strict-module.html');
    for (const name of ['result', 'other']) {
      assert.equal(
        await page.until(
          `${name} is there`,
          async (x) => window[x] && (await window[x]).code,
          name,
        ),
        '200',
      );
    }
    assert.equal(stage.proxy.carried, 0);
    await page.close();
  });
}

test('WebSocket blocked and unblocked during a call: the session and video continue', async () => {
  const { a, b } = await meet(stage, ['carol', 'dave']);
  await call(a, b);
  await until('both by WebSocket', () => stage.proxy.carried === 2);
  const before = [await seen(a, b), await seen(b, a)];

  const from = stage.proxy.seen.length;
  stage.proxy.block(404);
  const polls = () =>
    stage.proxy.seen
      .slice(from)
      .filter((request) => /^GET .*transport=polling.*sid=/.test(request));
  await until('both poll', () => new Set(polls()).size === 2);
  await talk(a, b, 'over polls');
  await talk(b, a, 'and back');
  await flowing(a, b);
  await flowing(b, a);
  assert.deepEqual([await seen(a, b), await seen(b, a)], before);

  stage.proxy.upgrades = 'pass';
  await until('both by WebSocket again', () => stage.proxy.carried === 2);
  await talk(a, b, 'by WebSocket');
  await talk(b, a, 'and back again');
  await flowing(a, b);
  assert.deepEqual([await seen(a, b), await seen(b, a)], before);
  // What is signalled goes this way now.
  await send(a, b, 'screen');
  assert.deepEqual([a.errors, b.errors], [[], []]);
  await b.close();
  await a.until('seeing dave leave', () => app.count('leave', 'dave') === 1);
  await a.close();
});
