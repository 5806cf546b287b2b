// Firefox ESR and Chromium in one call, each on its own way to the server, so that one socket can
// be cut and the other left alone.

import { after, afterEach, before, test } from 'node:test';
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { flowing, seen, send } from './lib/call.mjs';
import { Firefox } from './lib/firefox.mjs';
import { enter, events, paint, shows } from './lib/media.mjs';
import { listens } from './lib/mute.mjs';
import { Proxy } from './lib/proxy.mjs';
import { Stage, servePages } from './lib/stage.mjs';

let stage, firefox, proxy, pages;
before(async () => {
  stage = await Stage.up('firefox');
  proxy = await Proxy.listen(stage.server.host);
  stage.onEnd(() => proxy.close());
  pages = await servePages({
    dir: path.join(stage.dir, 'firefox'),
    origin: proxy.origin,
    license: stage.license,
  });
  stage.onEnd(() => pages.process.stop());
  firefox = await Firefox.start({ dir: stage.dir });
  stage.onEnd(() => firefox.close());
});
afterEach(async (t) => {
  if (!t.passed) await firefox?.keep();
  await stage.after(t);
});
after(() => stage?.down());

const APP = () => `${pages.origin}/app.html`;

/** f is Firefox, c Chromium, in one room; who creates the connection is decided by the ids. */
async function meet(fId, cId) {
  const [f, c] = await Promise.all([
    firefox.open(APP(), { name: fId }),
    stage.open('app.html', { name: cId }),
  ]);
  f.id = await f.evaluate((id) => app.init(id), fId);
  c.id = await c.evaluate((id) => app.init(id), cId);
  assert.deepEqual([f.id, c.id], [fId, cId]);
  const { roomId } = await c.evaluate(() => k.createRoom());
  await enter(c, roomId, []);
  await enter(f, roomId, [c]);
  return { f, c, roomId };
}

/**
 * Firefox's exceptions stand in its log. A socket that could not be opened, or a request that asks
 * whether polling would do, is told there like one, and after some 15 s so is the second, relayed
 * connection of a call when it found no path: the call itself does not need it.
 */
async function close(f, c) {
  const errors = fs
    .readFileSync(path.join(stage.dir, 'firefox.log'), 'utf8')
    .match(
      /^page \d+ error: (?!.*(?:ws:\/\/|\/socket\.io\/))(?!.*ICE failed, your TURN server).*$/gm,
    );
  assert.deepEqual([...(errors ?? []), ...c.errors], []);
  await Promise.all([f.close(), c.close()]);
}

const counts = (p, q) =>
  p.evaluate((id) => ['join', 'leave', 'subscribed'].map((t) => app.count(t, id)), q.id);

for (const [fId, cId] of [
  ['a-firefox', 'b-chromium'],
  ['d-firefox', 'c-chromium'],
]) {
  test(`${fId} and ${cId}: cameras and screens both ways, on one connection`, async () => {
    const { f, c } = await meet(fId, cId);
    await Promise.all([send(f, c), send(c, f)]);
    for (const [p, q] of [[c, f], [f, c]]) {
      await paint(p, 320, 160);
      assert.equal(await p.evaluate(() => k.screenStart(screenStream).then((r) => r.code)), '200');
      await shows(q, p.id, 'screen', 2);
      assert.equal(
        (await q.evaluate(() => k.screenStart(document.createElement('canvas').captureStream())))
          .code,
        '440',
      );
      assert.equal(await p.evaluate(() => k.shareStop().then((r) => r.code)), '200');
      await q.until(
        'without a screen',
        (id) => !k.getStream('screen') && app.count('shareStop', id) === 1,
        p.id,
      );
    }
    for (const [p, q] of [
      [c, f],
      [f, c],
    ]) {
      await flowing(p, q);
      assert.deepEqual((await events(p, 'subscribed')).map((e) => e.cam), [true, false]);
      assert.deepEqual(await p.evaluate(() => [e2e.made.length, e2e.open().length]), [1, 1]);
    }
    await close(f, c);
  });
}

test('a muted microphone is silent from and to Firefox, also after it was changed', async () => {
  const { f, c } = await meet('mute-f', 'mute-c');
  await Promise.all([send(f, c), send(c, f)]);
  for (const [p, q] of [
    [f, c],
    [c, f],
  ]) {
    const say = async (on) =>
      assert.equal(
        await p.evaluate((x) => k.editUserInfo(undefined, undefined, x).then((r) => r.code), on),
        '200',
      );
    assert.equal(await listens(q, p.id), true, `${q.id} hears ${p.id}`);
    await say(false);
    assert.equal(await listens(q, p.id), false, `${p.id} is muted`);
    const changed = await p.evaluate(async () =>
      k.changeLocalStream(await navigator.mediaDevices.getUserMedia({ video: true, audio: true })),
    );
    assert.equal(changed, true);
    assert.equal(await listens(q, p.id), false, `${p.id} is muted, and has changed its stream`);
    await say(true);
    assert.equal(await listens(q, p.id), true, `${q.id} hears ${p.id} again`);
  }
  await close(f, c);
});

test('Firefox reloads its page: the same user id, one leave, one join, video again', async () => {
  const { f, c, roomId } = await meet('reload-f', 'reload-c');
  await Promise.all([send(f, c), send(c, f)]);
  await f.goto(APP());
  assert.equal(await f.evaluate((id) => app.init(id), f.id), f.id);
  await c.until('told that it left', (id) => app.count('leave', id) === 1, f.id);
  assert.deepEqual(await f.evaluate((r) => app.join(r), roomId), [c.id, f.id]);
  await c.until('told that it is back', (id) => app.count('join', id) === 2, f.id);
  await Promise.all([send(f, c), send(c, f)]);
  assert.deepEqual(await counts(c, f), [2, 1, 2]);
  assert.deepEqual(await counts(f, c), [0, 0, 1]);
  for (const p of [f, c]) assert.equal(await p.evaluate(() => e2e.open().length), 1);
  await close(f, c);
});

test("Firefox's socket is reset for a while: the call and the session continue", async () => {
  const { f, c } = await meet('socket-f', 'socket-c');
  await Promise.all([send(f, c), send(c, f)]);
  const before = [await seen(f, c), await seen(c, f)];
  proxy.cut();
  await f.until('aware that the server is away', () => !k.getSocket().connected);
  await Promise.all([flowing(f, c, 30), flowing(c, f, 30)]);
  proxy.pass();
  await f.until('answered again', async () => (await k.memberList()).code === '200');
  // What is sent over the new socket arrives, and comes after whatever the others could have been
  // told of the old one.
  assert.equal(await f.evaluate(() => k.inform('back').then((r) => r.code)), '200');
  await c.until('informed', () => app.events.some((e) => e.type === 'inform'));
  assert.deepEqual([await seen(f, c), await seen(c, f)], before);
  assert.deepEqual(
    await f.evaluate(async () => [k.getUserId(), Object.keys(await k.memberList()).sort()]),
    [f.id, [c.id, f.id]],
  );
  // The renewed way carries signaling: both leave off and publish again.
  for (const [p, q] of [
    [f, c],
    [c, f],
  ])
    assert.equal(await p.evaluate((id) => k.removeLocalPeer(id, 'cam'), q.id), true);
  for (const [p, q] of [
    [f, c],
    [c, f],
  ])
    await p.until('without a stream', (id) => !k.getStream(id), q.id);
  await Promise.all([send(f, c), send(c, f)]);
  assert.equal(await c.evaluate((id) => app.count('leave', id), f.id), 0);
  await close(f, c);
});
