// A call's whole life, again and again: what is left behind must not grow.

import { after, afterEach, before, test } from 'node:test';
import assert from 'node:assert/strict';
import { call, flowing, meet, seen, send, together } from './lib/call.mjs';
import { Stage } from './lib/stage.mjs';
import { until } from './lib/wait.mjs';
import { SOAK } from './lib/work.mjs';

const ROUNDS = SOAK ? 200 : 20;

let stage;
// the same users join far more often than people do
before(async () => (stage = await Stage.up('lifecycle', { args: ['--max-joins=-1'] })));
afterEach((t) => stage.after(t));
after(() => stage?.down());

test('publishing again replaces the tracks, without another subscribed event', async () => {
  const { a, b } = await meet(stage, ['swap-a', 'swap-b']);
  await call(a, b);
  const before = await seen(b, a);
  await b.evaluate((id) => {
    window.stream = k.getStream(id);
    window.video = Object.assign(document.createElement('video'), {
      srcObject: stream,
      muted: true,
      autoplay: true,
    });
    document.body.append(video);
  }, a.id);
  await b.until('showing the camera', () => video.videoWidth === 320);
  for (const [way, width] of [
    ['publishP2P', 200],
    ['changeLocalStream', 160],
  ]) {
    const done = await a.evaluate(
      async (x) => {
        const canvas = Object.assign(document.createElement('canvas'), {
          width: x.width,
          height: 120,
        });
        const pen = canvas.getContext('2d');
        let hue = 0;
        clearInterval(app.paint);
        app.paint = setInterval(
          () => ((pen.fillStyle = `hsl(${(hue += 9)} 90% 50%)`), pen.fillRect(0, 0, x.width, 120)),
          60,
        );
        const stream = canvas.captureStream(15);
        return x.way === 'publishP2P'
          ? k.publishP2P(x.id, 'cam', stream)
          : k.changeLocalStream(stream, x.id);
      },
      { way, width, id: b.id },
    );
    assert.equal(done, true, way);
    // The encoder may scale; the shape of the picture tells whose it is.
    await b.until(
      `showing the picture of ${way}`,
      (w) => Math.abs(video.videoWidth / video.videoHeight - w / 120) < 0.05,
      width,
    );
    await flowing(b, a);
    assert.equal(
      await b.evaluate((id) => k.getStream(id) === stream, a.id),
      true,
      'the stream object stays the same',
    );
  }
  assert.deepEqual(await seen(b, a), before);
  await Promise.all([a.close(), b.close()]);
});

test('both users remove both directions, then publish again', async () => {
  const { a, b } = await meet(stage, ['recipe-a', 'recipe-b']);
  await call(a, b);
  for (let i = 0; i < 3; i++) {
    const removed = await Promise.all(
      [
        [a, b],
        [b, a],
      ].map(([p, q]) =>
        p.evaluate(
          async (id) => [await k.removePeer(id, 'cam'), await k.removeLocalPeer(id, 'cam')],
          q.id,
        ),
      ),
    );
    assert.deepEqual(removed, [
      [true, true],
      [true, true],
    ]);
    await call(a, b);
    assert.equal((await seen(a, b)).open, 1);
    assert.equal((await seen(b, a)).open, 1);
  }
  await Promise.all([a.close(), b.close()]);
});

test('no media is sent after removeLocalPeer, and never of an unpublished kind', async () => {
  const { a, b } = await meet(stage, ['silent-a', 'silent-b']);
  // a sends a camera without sound, b one with.
  await a.evaluate(() =>
    app.camera({ video: { width: 320, height: 240, frameRate: 15 }, audio: false }),
  );
  await call(a, b);
  const sending = await a.evaluate((id) => app.report(id), b.id);
  assert.equal(sending.audio.sent, 0, 'audio was never published');
  assert.ok(sending.video.encoded > 0);

  assert.equal(await a.evaluate((id) => k.removeLocalPeer(id, 'cam'), b.id), true);
  // Frames on their way arrive; then, while forty more come in the other direction, none does in
  // this one. Of every connection, since a call may change over to another meanwhile; one that is
  // closed tells nothing.
  const still = () => Promise.all([[a, 'encoded'], [b, 'decoded']].map(([p, field]) =>
    p.evaluate(async (of) => (await e2e.reports()).map((r) => r && r.video[of]), field)));
  await flowing(a, b, 5);
  const stopped = await still();
  await flowing(a, b, 40);
  const later = await still();
  for (const [i, what] of ['frames encoded', 'frames decoded at the other side'].entries()) {
    const open = later[i].map((n, j) => n !== null && stopped[i][j] !== null);
    assert.ok(open.includes(true), `${what}: no connection was open all the time`);
    // A new connection begins with none.
    const before = later[i].map((n, j) => (open[j] ? stopped[i][j] : n && 0));
    assert.deepEqual(later[i], before, what);
  }
  const audio = (await a.evaluate((id) => app.report(id), b.id)).audio;
  assert.equal(audio.sent, 0, 'audio packets');

  await a.evaluate(() => (app.stream = null));
  await send(a, b);
  await Promise.all([a.close(), b.close()]);
});

test(`${ROUNDS} rounds of join, call and leave leak nothing in pages or server`, async () => {
  const { a, b } = await meet(stage, ['round-a', 'round-b']);
  const stats = async () => JSON.parse(await stage.server.get('/dev/stats'));
  const quiet = async () => {
    for (const p of [a, b]) await p.until('without a connection', () => e2e.open().length === 0);
    await until('without allocations', async () => (await stats()).relay.Allocations === 0);
  };
  const listeners = async (p) => {
    const cdp = await p.page.context().newCDPSession(p.page);
    await cdp.send('Performance.enable');
    await cdp.send('HeapProfiler.collectGarbage');
    const { metrics } = await cdp.send('Performance.getMetrics');
    await cdp.detach();
    return metrics.find((m) => m.name === 'JSEventListeners').value;
  };
  const round = async () => {
    await call(a, b);
    await Promise.all([a, b].map((p) => p.evaluate(() => k.leaveRoom())));
    await quiet();
    // Closed connections are let go of here, so that only the SDK could hold them.
    for (const p of [a, b])
      await p.evaluate(() => ((e2e.made.length = 0), (app.events.length = 0)));
  };
  const fresh = async () => (await a.evaluate(() => k.createRoom())).roomId;
  await round();
  let first;
  for (let i = 0; i < ROUNDS; i++) {
    await together(a, b, await fresh());
    await round();
    if (i === 2) first = { a: await listeners(a), b: await listeners(b), server: await stats() };
  }
  const last = { a: await listeners(a), b: await listeners(b), server: await stats() };
  assert.ok(
    last.a <= first.a && last.b <= first.b,
    `listeners grew: ${JSON.stringify([first, last])}`,
  );
  assert.equal(last.server.relay.Allocations, 0);
  assert.equal(last.server.connections, first.server.connections);
  // Goroutines that serve a connection may just be ending; a leak of one a round would be many
  // more.
  await until(
    async () => `back at ${first.server.goroutines} goroutines: ${(await stats()).goroutines}`,
    async () => (await stats()).goroutines <= first.server.goroutines + 2,
  );
  await Promise.all([a.close(), b.close()]);
});

test('a closed tab leaves at once, long before the resume window ends', async () => {
  // The stage's own server waits 20 s for lost connections; here the window is an hour, so that
  // only the immediate way can be seen.
  const slow = await Stage.up('closing', { args: ['--resume-window', '1h'] });
  try {
    const { a, b } = await meet(slow, ['close-a', 'close-b']);
    await call(a, b);
    // With its unload handlers, as a user's click on the cross does it.
    await b.page.close({ runBeforeUnload: true });
    await a.until('told that b left', () => app.count('leave', 'close-b') === 1);
    await a.until('without a connection', () => e2e.open().length === 0);
    assert.equal(await a.evaluate(() => app.count('leave', 'close-b')), 1);
  } finally {
    await slow.down();
  }
});
