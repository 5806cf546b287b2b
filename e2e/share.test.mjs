// Sharing a screen: to one, to everyone, to who comes late; one sharer a room; and its ends.

import { after, afterEach, before, test } from 'node:test';
import assert from 'node:assert/strict';
import { call, flowing } from './lib/call.mjs';
import { enter, events, gather, paint, shows } from './lib/media.mjs';
import { Stage } from './lib/stage.mjs';

let stage;
before(async () => (stage = await Stage.up('share')));
afterEach((t) => stage.after(t));
after(() => stage?.down());

const close = (pages) => Promise.all(pages.map((p) => p.close()));
const start = (p, target) =>
  p.evaluate((t) => k.screenStart(screenStream, t).then((r) => r.code), target);
const stop = (p) => p.evaluate(() => k.shareStop().then((r) => r.code));
const types = (p) =>
  p.evaluate(() => [
    k.getShareType(),
    app.events.map((e) => e.type).filter((t) => /screen|share/.test(t)),
  ]);

test('a screen goes to all members, also late ones, on the camera connection', async () => {
  const { pages: [a, b], roomId } = await gather(stage, ['a', 'b']);
  await call(a, b);
  await paint(a, 320, 160);
  assert.equal(await start(a), '200');
  await shows(b, a.id, 'screen', 2);
  const same = await b.evaluate(
    (id) => [k.getStream(id, 'screen'), k.getStream(id)].map((s) => s === k.getStream('screen')),
    a.id,
  );
  assert.deepEqual(same, [true, false]);
  assert.deepEqual((await events(b, 'subscribed')).map((e) => e.cam), [true, false]);
  assert.deepEqual(await types(b), ['screen', ['screen']]);
  assert.deepEqual(await types(a), ['screen', []]);
  assert.equal((await b.evaluate(() => e2e.open().length)), 1);
  await flowing(b, a);

  const c = await stage.open('app.html', { name: 'late' });
  c.id = await c.evaluate(() => app.init('late'));
  await enter(c, roomId, [a, b]);
  assert.equal(await c.evaluate(() => k.getShareType()), 'screen');
  await shows(c, a.id, 'screen', 2);
  assert.deepEqual(
    (await events(c, 'subscribed')).map((e) => [e.user, e.cam]),
    [[a.id, false]],
  );
  assert.equal(
    await c.evaluate((id) => k.getStream(id) === undefined, a.id),
    true,
    'nobody sent a camera',
  );

  // Another sharer is refused, and has changed nothing.
  await paint(b, 100, 100);
  assert.equal(await start(b), '440');
  assert.deepEqual(await types(c), ['screen', []]);

  assert.equal(await stop(a), '200');
  for (const p of [b, c]) {
    await p.until('told that sharing ended', () => app.events.some((e) => e.type === 'shareStop'));
    await p.until('without a screen', () => !k.getStream('screen') && k.getShareType() === '');
  }
  await flowing(b, a);
  assert.equal(await start(b), '200');
  await shows(a, b.id, 'screen', 1);
  await shows(c, b.id, 'screen', 1);
  await close([a, b, c]);
});

test('screenStart for single peers is one share, and only they receive it', async () => {
  const { pages: [a, b, c] } = await gather(stage, ['once-a', 'once-b', 'once-c']);
  await paint(a);
  assert.equal(await start(a, b.id), '200');
  await shows(b, a.id, 'screen');
  assert.equal(await start(a, 'nobody'), '410');
  assert.equal(await start(a, c.id), '200');
  await shows(c, a.id, 'screen');
  for (const p of [b, c]) assert.equal((await events(p, 'screen')).length, 1);
  await a.evaluate(() => k.leaveRoom());
  for (const p of [b, c]) {
    await p.until('told that the sharer left', (id) => app.count('leave', id) === 1, a.id);
    const ends = await p.evaluate(() =>
      app.events.map((e) => e.type).filter((t) => ['shareStop', 'leave'].includes(t)),
    );
    assert.deepEqual(ends, ['shareStop', 'leave']);
  }
  await close([a, b, c]);
});

test('shareStop without a share, in a room or outside, is 200 and sends no event', async () => {
  const { pages: [a, b] } = await gather(stage, ['quiet-a', 'quiet-b']);
  assert.equal(await stop(a), '200');
  // What comes after it in the room's order shows that it would have come.
  assert.equal(await a.evaluate(() => k.inform('here').then((r) => r.code)), '200');
  await b.until('informed', () => app.events.some((e) => e.type === 'inform'));
  assert.deepEqual(await events(b, 'shareStop'), []);
  await a.evaluate(() => k.leaveRoom());
  assert.equal(await stop(a), '200');
  await paint(a);
  assert.equal(await start(a), '410');
  assert.equal(await a.evaluate(() => k.screenStart().then((r) => r.code)), '421');
  assert.equal(await a.evaluate(() => k.screenStart({}).then((r) => r.code)), '422');
  await close([a, b]);
});

test("the browser's stop button ends the share for all", async () => {
  const { pages: [a, b] } = await gather(stage, ['button-a', 'button-b']);
  await paint(a);
  assert.equal(await start(a), '200');
  await shows(b, a.id, 'screen');
  // The button ends the track from outside, which stop() alone does not report.
  await a.evaluate(() =>
    screenStream.getTracks().forEach((t) => (t.stop(), t.dispatchEvent(new Event('ended')))),
  );
  await b.until('told that sharing ended', (id) => app.count('shareStop', id) === 1, a.id);
  await b.until('without a screen', () => !k.getStream('screen'));
  assert.deepEqual(await types(a), ['', []]);
  await close([a, b]);
});

test('a guest cannot share while another member shares, or without permission', async () => {
  const { pages: [a, b] } = await gather(stage, ['keep-a', 'keep-b']);
  await paint(a);
  assert.equal(await start(a), '200');
  await shows(b, a.id, 'screen');
  assert.equal(
    await b.evaluate(() => k.screenStart(k.getStream('screen')).then((r) => r.code)),
    '440',
  );
  await a.evaluate((id) => k.permit(id, undefined, undefined, false), b.id);
  await b.until('without the permission', () =>
    app.events.some((e) => e.type === 'permit' && e.permit.screen === false),
  );
  assert.equal(await stop(a), '200');
  assert.equal(
    await b.evaluate(() =>
      k.screenStart(document.createElement('canvas').captureStream()).then((r) => r.code),
    ),
    '413',
  );
  await close([a, b]);
});
