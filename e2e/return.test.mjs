// What was shared and published while somebody was away, or before a session was lost: afterwards
// everybody agrees again.

import { after, afterEach, before, test } from 'node:test';
import assert from 'node:assert/strict';
import { enter, events, gather, paint, shows } from './lib/media.mjs';
import { Stage } from './lib/stage.mjs';
import { until } from './lib/wait.mjs';

let stage;
before(
  async () => (stage = await Stage.up('return', { proxy: true, args: ['--resume-window', '1s'] })),
);
afterEach((t) => stage.after(t));
after(() => stage?.down());

/**
 * Every session there is gets lost: the way to the server is cut for longer than the server waits.
 */
async function loseSessions(n) {
  const ended = () =>
    stage.server.log.split('\n').filter((line) => line.includes('session ended')).length;
  const before = ended();
  stage.proxy.cut();
  await until('without sessions', () => ended() >= before + n);
  stage.proxy.pass();
}

const back = (p, ids) =>
  p
    .until('back in the room', async () => {
      const list = await k.memberList();
      return list.code === '200' && Object.keys(list).length;
    })
    .then(() =>
      p.until(
        'with all others',
        async (x) => x.every((id) => id in k.getAllPeers() || id === k.getUserId()),
        ids,
      ),
    );

test('a resumed session receives the room changes that it missed', async () => {
  const slow = await Stage.up('away', { proxy: true });
  try {
    // One goes through the proxy, the other straight to the server.
    const b = await slow.open('app.html', { name: 'away-b' });
    const a = await slow.open('app.html', { name: 'away-a' });
    b.id = await b.evaluate(() => app.init('away-b'));
    a.id = 'away-a';
    assert.equal(await a.evaluate(async (server) => {
      const straight = Knowledgetalk;
      window.Knowledgetalk = class extends straight {
        constructor() {
          super({ server });
        }
      };
      return app.init('away-a');
    }, slow.server.origin), a.id);
    const { roomId } = await a.evaluate(() => k.createVideoRoom());
    for (const type of ['cam', 'screen'])
      await b.evaluate((t) => (window.told = { ...window.told, [t]: [] }), type);
    await b.evaluate(() =>
      k.addEventListener('presence', ({ detail }) => {
        if (detail.type === 'publish')
          for (const { user, type } of detail.feeds) told[type].push(k.subscribeVideo(user, type));
      }),
    );
    await enter(a, roomId, []);
    await enter(b, roomId, [a]);
    await paint(a);
    assert.equal(await a.evaluate(() => k.screenStart(screenStream).then((r) => r.code)), '200');
    await shows(b, a.id, 'screen');

    slow.proxy.cut();
    await b.until('without the server', () => !k.getSocket().connected);
    assert.deepEqual(
      await a.evaluate(
        async ([id, room]) => [
          await k.publishVideo('cam', await app.camera()),
          (await k.changeName('Other')).code,
          (await k.permit(id, false)).code,
          (await k.editRoomInfo(room, undefined, undefined, id)).code,
          (await k.shareStop()).code,
        ],
        [b.id, roomId],
      ),
      [true, '200', '200', '200', '200'],
    );
    // What goes from browser to browser needs no server.
    await b.until('without the screen', () => !k.getStream('screen'));
    assert.equal(await b.evaluate(() => k.getShareType()), 'screen');
    slow.proxy.pass();

    await b.until('told of it', () => app.events.some((e) => e.type === 'shareStop'));
    assert.equal(await b.evaluate(() => k.getShareType()), '');
    await shows(b, a.id, 'cam');
    assert.deepEqual(
      await b.evaluate(() => [told.cam.length, told.screen.length]),
      [1, 1],
      'each feed is told of once',
    );
    assert.deepEqual(
      (await events(b, 'editUserInfo')).map((e) => [e.user, e.name]),
      [[a.id, 'Other']],
    );
    assert.deepEqual(
      (await events(b, 'permit')).map((e) => [e.user, e.permit.chat]),
      [[b.id, false]],
    );
    assert.deepEqual(
      (await events(b, 'hostChange')).map((e) => e.user),
      [b.id],
    );
    assert.deepEqual(
      await b.evaluate(() => app.events.filter((e) => ['join', 'leave'].includes(e.type))),
      [],
    );
  } finally {
    await slow.down();
  }
});

test('a shared screen continues when all sessions were lost', async () => {
  const { pages: [a, b] } = await gather(stage, ['lost-a', 'lost-b']);
  await paint(a, 320, 160);
  assert.equal(await a.evaluate(() => k.screenStart(screenStream).then((r) => r.code)), '200');
  await shows(b, a.id, 'screen', 2);
  await a.evaluate(() => k.editUserInfo('Renamed', false));
  await loseSessions(2);
  await b.until('subscribed again', (id) => app.count('subscribed', id) === 2, a.id);
  await back(b, [a.id]);
  await shows(b, a.id, 'screen', 2);
  await b.until('knowing who shares', () => k.getShareType() === 'screen');
  await b.until(
    'knowing what a says of itself',
    async (id) => {
      const { name, video } = (await k.memberList())[id] ?? {};
      return name === 'Renamed' && video === false;
    },
    a.id,
  );
  assert.equal(
    await b.evaluate(() =>
      k.screenStart(document.createElement('canvas').captureStream()).then((r) => r.code),
    ),
    '440',
  );
  assert.equal(await a.evaluate(() => k.shareStop().then((r) => r.code)), '200');
  await b.until('told that it ended', () => app.events.some((e) => e.type === 'shareStop'));
  await Promise.all([a.close(), b.close()]);
});

test('a group call continues when all sessions were lost', async () => {
  const ids = ['mesh-a', 'mesh-b', 'mesh-c'];
  const { pages, roomId } = await gather(stage, ids, () => k.createVideoRoom());
  for (const p of pages) {
    await p.evaluate(() =>
      k.addEventListener('presence', ({ detail }) => {
        if (detail.type === 'publish')
          for (const { user, type } of detail.feeds) k.subscribeVideo(user, type);
      }),
    );
  }
  for (const p of pages)
    assert.equal(await p.evaluate(async () => k.publishVideo('cam', await app.camera())), true);
  for (const p of pages) for (const q of pages) if (q !== p) await shows(p, q.id, 'cam');
  await loseSessions(3);
  for (const p of pages) {
    for (const q of pages) {
      if (q === p) continue;
      await p.until(`subscribed to ${q.id} again`, (id) => app.count('subscribed', id) >= 2, q.id);
      await shows(p, q.id, 'cam');
    }
    assert.deepEqual(await p.evaluate(() => [k.isMedia(), k.getRoomId(), e2e.open().length]), [
      true,
      roomId,
      2,
    ]);
    assert.deepEqual(p.errors, []);
  }
  await Promise.all(pages.map((p) => p.close()));
});
