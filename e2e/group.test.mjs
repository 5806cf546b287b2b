// Group rooms over the mesh: feeds are announced, and sent to those who ask. Each sees each exactly
// once.

import { after, afterEach, before, test } from 'node:test';
import assert from 'node:assert/strict';
import { enter, events, gather, paint, shows } from './lib/media.mjs';
import { Stage } from './lib/stage.mjs';

let stage;
before(async () => (stage = await Stage.up('group')));
afterEach((t) => stage.after(t));
after(() => stage?.down());

const close = (pages) => Promise.all(pages.map((p) => p.close()));

/** The app of a group call: asks for every feed it hears of, and shows what comes. */
function grouped(p) {
  return p.evaluate(() => {
    window.got = [];
    k.addEventListener('presence', ({ detail }) => {
      if (detail.type !== 'publish') return;
      for (const { user, type } of detail.feeds) {
        const note = (stream) =>
          got.push({
            user,
            type,
            stream: Boolean(stream),
            same: stream === k.getStream(user, type),
          });
        k.subscribeVideo(user, type).then(note);
      }
    });
  });
}

const publish = (p) => p.evaluate(async () => k.publishVideo('cam', await app.camera()));
const all = (p, n) => p.until(`having subscribed to ${n}`, (x) => got.length === x, n);

test('three users, one of them late: each receives the others exactly once', async () => {
  const { pages: [a, b], roomId } = await gather(stage, ['a', 'b'], () => k.createVideoRoom());
  assert.equal(await a.evaluate(() => k.isMedia()), true);
  for (const p of [a, b]) await grouped(p);
  assert.equal(await publish(a), true);
  assert.equal(await publish(b), true);
  for (const [p, q] of [[a, b], [b, a]]) {
    await all(p, 1);
    await shows(p, q.id, 'cam');
  }

  const c = await stage.open('app.html', { name: 'c' });
  c.id = await c.evaluate(() => app.init('c'));
  await grouped(c);
  // What is there already is listed after joinRoom has resolved.
  const order = await c.evaluate(async (r) => {
    const seen = [];
    k.addEventListener('presence', (e) => seen.push(e.detail.type));
    const joined = k.joinRoom(r).then(() => seen.push('joined'));
    await joined;
    await new Promise((done) =>
      k.addEventListener('presence', (e) => e.detail.type === 'publish' && done()),
    );
    return seen.filter((t) => ['joined', 'publish'].includes(t));
  }, roomId);
  assert.deepEqual(order, ['joined', 'publish']);
  assert.equal(await publish(c), true);
  const pages = [a, b, c];
  for (const p of pages) {
    await all(p, 2);
    assert.deepEqual(await p.evaluate(() => got.filter((g) => !g.stream || !g.same)), []);
    for (const q of pages) if (q !== p) await shows(p, q.id, 'cam');
    const seen = await p.evaluate(() =>
      app.events
        .filter((e) => e.type === 'subscribed')
        .map((e) => `${e.user} ${e.cam}`)
        .sort(),
    );
    assert.deepEqual(
      seen,
      pages.filter((q) => q !== p).map((q) => `${q.id} true`),
    );
    assert.equal(await p.evaluate(() => e2e.open().length), 2);
    assert.deepEqual(
      (await events(p, 'publish')).flatMap((e) => e.feeds).filter((f) => f.user === p.id),
      [],
      'nobody hears of his own',
    );
  }
  await close(pages);
});

test('a feed is sent to subscribers only, until they unsubscribe', async () => {
  const {
    pages: [a, b, c],
  } = await gather(stage, ['ask-a', 'ask-b', 'ask-c'], () => k.createVideoRoom());
  assert.equal(await publish(a), true);
  for (const p of [b, c])
    await p.until('told of the feed', () => app.events.some((e) => e.type === 'publish'));
  assert.equal(
    await b.evaluate((id) => k.subscribeVideo(id, 'cam').then((s) => s === k.getStream(id)), a.id),
    true,
  );
  await shows(b, a.id, 'cam');
  assert.equal(await a.evaluate((id) => Boolean(k.getPeer(id)), c.id), false, 'c did not ask');
  // Asking again is the same.
  assert.equal(
    await b.evaluate((id) => k.subscribeVideo(id, 'cam').then((s) => s === k.getStream(id)), a.id),
    true,
  );
  assert.equal((await events(b, 'subscribed')).length, 1);

  assert.equal(await b.evaluate((id) => k.removePeer(id, 'cam'), a.id), true);
  await a.until(
    'not sending any more',
    (id) =>
      k
        .getPeer(id)
        .getSenders()
        .every((s) => !s.track),
    b.id,
  );
  assert.equal(
    await b.evaluate((id) => k.subscribeVideo(id, 'cam').then((s) => s === k.getStream(id)), a.id),
    true,
  );
  await shows(b, a.id, 'cam');

  // A swap reaches who receives it, without another announcement.
  await paint(a, 320, 160);
  assert.equal(await a.evaluate(() => k.publishVideo('cam', screenStream)), true);
  await shows(b, a.id, 'cam', 2);
  assert.equal((await events(b, 'subscribed')).length, 2);

  const wrong = (id) =>
    Promise.all([
      k.subscribeVideo(id, 'cam'),
      k.subscribeVideo('nobody', 'cam'),
      k.publishVideo('x'),
    ]);
  assert.deepEqual(await b.evaluate(wrong, b.id), [false, false, false]);
  // Who waits for a feed that never comes is told when its owner leaves.
  const waiting = c.evaluate((id) => k.subscribeVideo(id, 'cam'), b.id);
  await b.evaluate(() => k.leaveRoom());
  assert.equal(await waiting, false);
  await close([a, b, c]);
});

test('a screen is announced as a feed, also to late joiners', async () => {
  const {
    pages: [a, b],
    roomId,
  } = await gather(stage, ['screen-a', 'screen-b'], () => k.createVideoRoom());
  await grouped(b);
  await paint(a, 320, 160);
  assert.equal(await a.evaluate(() => k.screenStart(screenStream).then((r) => r.code)), '200');
  await all(b, 1);
  await shows(b, a.id, 'screen', 2);
  const c = await stage.open('app.html', { name: 'screen-c' });
  c.id = await c.evaluate(() => app.init('screen-c'));
  await grouped(c);
  await enter(c, roomId, [a, b]);
  assert.equal(await c.evaluate(() => k.getShareType()), 'screen');
  await all(c, 1);
  await shows(c, a.id, 'screen', 2);
  assert.equal(await a.evaluate(() => k.shareStop().then((r) => r.code)), '200');
  for (const p of [b, c])
    await p.until(
      'without a screen',
      () => !k.getStream('screen') && app.count('shareStop', 'screen-a') === 1,
    );
  await close([a, b, c]);
});

test('talking is reported in rooms that were created with it', async () => {
  for (const noty of [true, false]) {
    const names = [`talk-${noty}`, `hear-${noty}`];
    const make = noty
      ? () => k.createVideoRoom(null, null, null, true, true)
      : () => k.createVideoRoom();
    const {
      pages: [a, b],
    } = await gather(stage, names, make);
    await grouped(b);
    // The fake microphone beeps once a second.
    assert.equal(await publish(a), true);
    await all(b, 1);
    if (noty) {
      await b.until('told that a talks', () =>
        app.events.some((e) => e.type === 'talking' && e.message === true),
      );
      await a.evaluate(() => k.editUserInfo(undefined, undefined, false));
      await b.until(
        'told that a is silent',
        () => app.events.filter((e) => e.type === 'talking').at(-1)?.message === false,
      );
    } else {
      await shows(b, a.id, 'cam', null, 30);
      assert.deepEqual(await events(b, 'talking'), []);
    }
    await close([a, b]);
  }
});

test('a room without a chosen capacity refuses the ninth member', async () => {
  const p = await stage.open('app.html', { name: 'capacity' });
  const codes = await p.evaluate(async ([cpCode, authKey]) => {
    const users = await Promise.all(Array.from({ length: 9 }, async (_, i) => {
      const k = new Knowledgetalk();
      await k.init(cpCode, authKey, `user-${i}`);
      return k;
    }));
    const { roomId } = await users[0].createVideoRoom();
    const joined = [];
    for (const u of users) joined.push((await u.joinRoom(roomId)).code);
    for (const u of users) u.disconnect();
    return joined;
  }, [stage.license.cpCode, stage.license.authKey]);
  assert.deepEqual(codes, [...Array(8).fill('200'), '444']);
  await p.close();
});
