// Connections made before anybody publishes: ready, and not to be noticed.

import { after, afterEach, before, test } from 'node:test';
import assert from 'node:assert/strict';
import { flowing, meet, send, together } from './lib/call.mjs';
import { Stage } from './lib/stage.mjs';

let stage;
before(async () => (stage = await Stage.up('warm')));
afterEach((t) => stage.after(t));
after(() => stage?.down());

const standing = (p, connections = 1) =>
  p.until(
    'having its connections ready',
    (n) => e2e.open().filter((pc) => pc.connectionState === 'connected').length === n,
    connections,
  );
const close = (...pages) => Promise.all(pages.map((p) => p.close()));

/** Everything about a page's calls that its app can see. */
const visible = (p) => p.evaluate(() => ({
  events: app.events.map((e) => e.type).filter((type) => type !== 'join'),
  peers: Object.keys(k.getAllPeers()),
  streams: Object.keys(k.getAllStreams()),
}));
const media = (p) => p.evaluate(async () => {
  const { video, audio } = await e2e.report(e2e.open()[0]);
  return [video.sent, audio.sent, video.received, audio.received];
});

test('members of a small room are connected before they publish, unseen by the app', async () => {
  const { a, b } = await meet(stage);
  await Promise.all([standing(a), standing(b)]);
  for (const p of [a, b]) {
    assert.deepEqual(await visible(p), { events: [], peers: [], streams: [] });
    assert.deepEqual(await media(p), [0, 0, 0, 0]);
    assert.equal(await p.evaluate(() => app.stream), undefined, 'nobody asks for the camera');
  }

  await send(a, b);
  assert.deepEqual(await visible(a), { events: ['peerState'], peers: ['bob'], streams: [] });
  assert.deepEqual(await visible(b), {
    events: ['peerState', 'subscribed'],
    peers: ['alice'],
    streams: ['alice'],
  });
  assert.equal((await media(b))[0], 0, 'one who does not publish sends nothing');
  await send(b, a);
  for (const p of [a, b])
    assert.equal(await p.evaluate(() => app.stream.getVideoTracks()[0].contentHint), 'motion');

  // The recipe of the original: all is taken back, and published again.
  for (const [p, q] of [
    [a, b],
    [b, a],
  ]) {
    await p.evaluate(
      async (id) => (await k.removeLocalPeer(id, 'cam'), await k.removePeer(id, 'cam')),
      q.id,
    );
  }
  for (const p of [a, b])
    await p.until('without streams', () => Object.keys(k.getAllStreams()).length === 0);
  await Promise.all([standing(a), standing(b)]);
  await Promise.all([send(a, b), send(b, a)]);
  for (const p of [a, b]) {
    assert.equal(await p.evaluate(() => e2e.made.length), 1);
    assert.deepEqual(p.errors, []);
  }
  await close(a, b);
});

test('publishing on a prewarmed connection needs no further offer', async () => {
  const { a, b } = await meet(stage, ['carol', 'dave']);
  await Promise.all([standing(a), standing(b)]);
  const sessions = (p) =>
    p.evaluate(() =>
      e2e
        .open()
        .map((pc) => [
          pc.localDescription.sdp.split('\n')[1],
          pc.remoteDescription.sdp.split('\n')[1],
        ]),
    );
  const before = [await sessions(a), await sessions(b)];
  await Promise.all([send(a, b), send(b, a)]);
  assert.deepEqual([await sessions(a), await sessions(b)], before);
  await close(a, b);
});

test('one side alone can turn prewarming off', async () => {
  const pages = await Promise.all(
    ['erin', 'frank'].map((name) => stage.open('app.html', { name })),
  );
  const [a, b] = pages;
  a.id = await a.evaluate(() => app.init('erin'));
  b.id = await b.evaluate(() => app.init('frank', { warmPeers: 0 }));
  const { roomId } = await a.evaluate(() => k.createRoom());
  await together(a, b, roomId);
  // What the two say to each other afterwards has come when this has: nobody has offered anything.
  await a.evaluate(() => k.inform('there', undefined));
  await b.until('informed', () => app.events.some((e) => e.type === 'inform'));
  for (const p of pages) assert.equal(await p.evaluate(() => e2e.made.length), 0);
  await send(a, b);
  await close(...pages);
});

test('in a room that has grown, new members are connected when somebody publishes', async () => {
  const ids = ['u1', 'u2', 'u3', 'u4', 'u5'];
  const pages = await Promise.all(ids.map((name) => stage.open('app.html', { name })));
  for (const [i, p] of pages.entries()) p.id = await p.evaluate((id) => app.init(id), ids[i]);
  const { roomId } = await pages[0].evaluate(() => k.createRoom());
  for (const p of pages.slice(0, 4)) await p.evaluate((r) => app.join(r), roomId);
  for (const p of pages.slice(0, 4)) await standing(p, 3);
  await pages[4].evaluate((r) => app.join(r), roomId);
  await pages[0].until('seeing the fifth', () => app.count('join', 'u5') === 1);
  await send(pages[4], pages[0]);
  await flowing(pages[0], pages[4]);
  assert.deepEqual(
    await Promise.all(pages.map((p) => p.evaluate(() => e2e.open().length))),
    [4, 3, 3, 3, 1],
  );
  await close(...pages);
});
