// Full group rooms: everyone sends to everyone over a mesh, and each sees each exactly once.

import { after, afterEach, before, test } from 'node:test';
import assert from 'node:assert/strict';
import { flowing } from './lib/call.mjs';
import { enter, events, gather } from './lib/media.mjs';
import { Stage } from './lib/stage.mjs';

/** Eight users are 28 pairs, all in one browser on few cores. */
const LIMIT = 90_000;

let stage;
before(async () => (stage = await Stage.up('mesh')));
afterEach((t) => stage.after(t));
after(() => stage?.down());

/**
 * The app of a group call: asks for every feed it hears of, once. Its camera is small and has no
 * sound.
 */
function grouped(p) {
  return p.evaluate(() => {
    window.got = [];
    k.addEventListener('presence', ({ detail }) => {
      if (detail.type !== 'publish') return;
      for (const { user, type } of detail.feeds) {
        k.subscribeVideo(user, type).then((s) =>
          got.push({ user, type, right: Boolean(s) && s === k.getStream(user, type) }),
        );
      }
    });
    return app
      .camera({ video: { width: 160, height: 120, frameRate: 5 }, audio: false })
      .then(() => true);
  });
}

const publish = (p) => p.evaluate(async () => k.publishVideo('cam', await app.camera()));
const ids = (pages) => pages.map((p) => p.id).sort();
const othersOf = (p, pages) => pages.filter((q) => q !== p);

/** Every page has subscribed to every other one and decodes its video. */
async function full(pages) {
  for (const p of pages)
    await p.until(
      `having ${pages.length - 1} feeds`,
      (n) => got.length >= n,
      pages.length - 1,
      LIMIT,
    );
  await Promise.all(pages.flatMap((p) => othersOf(p, pages).map((q) => flowing(p, q, 5))));
}

/** What each must have seen of the others by now, and nothing twice. */
async function once(pages) {
  for (const p of pages) {
    const others = ids(othersOf(p, pages));
    const seen = await p.evaluate(() => {
      const streams = k.getAllStreams();
      return {
        got: got.map((g) => `${g.user} ${g.type} ${g.right}`).sort(),
        streams: Object.keys(streams).sort(),
        different: new Set(Object.values(streams)).size,
        tracks: Object.values(streams).map((s) => s.getTracks().map((t) => t.kind).join()),
        peers: Object.keys(k.getAllPeers()).sort(),
        made: e2e.made.length,
        open: e2e.open().length,
      };
    });
    assert.deepEqual(
      seen,
      {
        got: others.map((id) => `${id} cam true`),
        streams: others,
        different: others.length,
        tracks: others.map(() => 'video'),
        peers: others,
        made: others.length,
        open: others.length,
      },
      p.id,
    );
    assert.deepEqual(
      await p.evaluate(async () => Object.keys(await k.memberList()).sort()),
      ids(pages),
      p.id,
    );
    assert.deepEqual(
      (await events(p, 'subscribed')).map((e) => `${e.user} ${e.cam}`).sort(),
      others.map((id) => `${id} true`),
      p.id,
    );
    const feeds = (await events(p, 'publish'))
      .flatMap((e) => e.feeds)
      .map((f) => `${f.user} ${f.type}`);
    assert.deepEqual(
      feeds.sort(),
      others.map((id) => `${id} cam`),
      p.id,
    );
    assert.deepEqual(await events(p, 'leave'), [], p.id);
    assert.deepEqual(p.errors, [], p.id);
  }
}

async function arrive(name, roomId, others) {
  const p = await stage.open('app.html', { name });
  p.id = await p.evaluate((id) => app.init(id), name);
  await grouped(p);
  await enter(p, roomId, others);
  return p;
}

test('three users publish at the same instant: each receives the others once', async () => {
  const { pages } = await gather(stage, ['one', 'two', 'three'], () => k.createVideoRoom());
  for (const p of pages) await grouped(p);
  assert.deepEqual(await Promise.all(pages.map(publish)), [true, true, true]);
  await full(pages);
  await once(pages);
  await Promise.all(pages.map((p) => p.close()));
});

test('eight users: 28 connections, a ninth is refused, one is replaced', async (t) => {
  const idle = stage.server.process.cpu;
  const began = performance.now();
  const { pages, roomId } = await gather(stage, ['user-1'], () => k.createVideoRoom());
  await grouped(pages[0]);
  assert.equal(await publish(pages[0]), true);
  for (let i = 2; i <= 8; i++) {
    const p = await arrive(`user-${i}`, roomId, pages);
    pages.push(p);
    assert.equal(await publish(p), true);
  }
  await full(pages);
  await once(pages);
  // Those of the first four are too many in a room of eight.
  for (const p of pages)
    await p.until('without second connections', () =>
      e2e.backup.every((pc) => pc.connectionState === 'closed'),
    );
  if (idle !== undefined) {
    // Of the whole server, its relay included, where browsers gather candidates.
    const [used, passed] = [stage.server.process.cpu - idle, (performance.now() - began) / 1000];
    t.diagnostic(
      `while the room formed the server used ${used.toFixed(2)} s of CPU in ${passed.toFixed(1)} s`,
    );
    assert.ok(used < passed / 4, `more than a quarter of a core: ${used} s in ${passed} s`);
  }

  const ninth = await stage.open('app.html', { name: 'ninth' });
  await ninth.evaluate(() => app.init('ninth'));
  assert.equal((await ninth.evaluate((r) => k.joinRoom(r), roomId)).code, '444');
  assert.deepEqual(await ninth.evaluate(() => [k.getRoomId(), e2e.made.length]), ['', 0]);
  // Nobody has noticed: what comes after it in the room's order shows that it would have come.
  const gone = pages[3];
  const rest = othersOf(gone, pages);
  assert.equal((await gone.evaluate(() => k.leaveRoom())).code, '200');
  for (const p of rest) {
    await p.until(`told that ${gone.id} left`, (id) => app.count('leave', id) > 0, gone.id);
    assert.equal(await p.evaluate(() => app.count('join', 'ninth')), 0);
    await p.until('without its connection', (n) => e2e.open().length === n, rest.length - 1);
    assert.equal(
      await p.evaluate(
        (id) => k.getStream(id) === undefined && k.getPeer(id) === undefined,
        gone.id,
      ),
      true,
    );
  }
  await gone.until('without connections', () => e2e.open().length === 0);
  await Promise.all(rest.flatMap((p) => othersOf(p, rest).map((q) => flowing(p, q, 5))));

  // Its place is free: the next one gets it, and the others see that one once.
  const late = await arrive('late', roomId, rest);
  assert.equal(await publish(late), true);
  await full([late, ...rest]);
  for (const p of rest) {
    const seen = await p.evaluate(
      (id) => [app.count('leave', id), app.count('join', 'late'), app.count('subscribed', 'late')],
      gone.id,
    );
    assert.deepEqual(seen, [1, 1, 1]);
    assert.equal(await p.evaluate(() => e2e.open().length), 7);
    assert.deepEqual(p.errors, []);
  }
  await Promise.all([...rest, gone, late, ninth].map((p) => p.close()));
});
