// Who has said that the microphone or the camera is off is not heard or seen, whichever way a
// stream takes: by the sound and the light that arrive.

import { after, afterEach, before, test } from 'node:test';
import assert from 'node:assert/strict';
import { gather, enter } from './lib/media.mjs';
import { darkness, listens } from './lib/mute.mjs';
import { Stage } from './lib/stage.mjs';

let stage;
before(async () => (stage = await Stage.up('silence')));
afterEach((t) => stage.after(t));
after(() => stage?.down());

const said = (p, video, audio) =>
  p.evaluate((x) => k.editUserInfo(undefined, x.video, x.audio).then((r) => r.code), {
    video,
    audio,
  });

/** Whether q hears and sees p. */
const arrives = async (q, p) => ({
  audio: await listens(q, p.id),
  video: !(await darkness(q, p.id)),
});
const ON = { audio: true, video: true };
const OFF = { audio: false, video: false };

/**
 * Each gives what p sends to q another way; in the page, with a stream that the page has just made.
 */
const ways = {
  'publishes another stream': (x) => fresh().then((s) => k.publishP2P(x.id, 'cam', s)),
  'changes the stream for all': () => fresh().then((s) => k.changeLocalStream(s)),
  'changes it for one': (x) => fresh().then((s) => k.changeLocalStream(s, x.id)),
  'replaces the tracks on the senders': async (x) => {
    const tracks = (await fresh()).getTracks();
    const senders = k.getPeer(x.id).getSenders().filter((s) => s.track);
    for (const s of senders) await s.replaceTrack(tracks.find((t) => t.kind === s.track.kind));
    return senders.length === 2;
  },
  'loses the connection': async (x) => {
    k.getPeer(x.id).close();
    return k.publishP2P(x.id, 'cam', await fresh());
  },
  'leaves off and begins again': async (x) =>
    (await k.removeLocalPeer(x.id, 'cam')) && k.publishP2P(x.id, 'cam', await fresh()),
};

const page = (p) =>
  p.evaluate(() => {
    window.fresh = () =>
      navigator.mediaDevices.getUserMedia({
        video: { width: 320, height: 240, frameRate: 15 },
        audio: true,
      });
  });

test('muted stays muted however the stream changes, until it is unmuted', async () => {
  const { pages: [a, b] } = await gather(stage, ['a-mute', 'b-mute']);
  await page(a);
  // Said before anything was sent.
  assert.equal(await said(a, false, false), '200');
  assert.equal(
    await a.evaluate((id) => fresh().then((s) => k.publishP2P(id, 'cam', s)), b.id),
    true,
  );
  assert.deepEqual(await arrives(b, a), OFF);
  for (const [name, way] of Object.entries(ways)) {
    assert.equal(await a.evaluate(way, { id: b.id }), true, name);
    assert.deepEqual(await arrives(b, a), OFF, name);
  }
  assert.equal(await said(a, undefined, true), '200');
  assert.deepEqual(await arrives(b, a), { audio: true, video: false });
  assert.equal(await said(a, true, false), '200');
  assert.deepEqual(await arrives(b, a), { audio: false, video: true });
  assert.equal(await said(a, undefined, true), '200');
  assert.deepEqual(await arrives(b, a), ON);
  // What the app has put on the sender itself is muted as well.
  assert.equal(await a.evaluate(ways['replaces the tracks on the senders'], { id: b.id }), true);
  assert.deepEqual(await arrives(b, a), ON);
  assert.equal(await said(a, false, false), '200');
  assert.deepEqual(await arrives(b, a), OFF);
  await Promise.all([a.close(), b.close()]);
});

test('a group room: muted for late subscribers and other feeds, but not a screen', async () => {
  const {
    pages: [a, b],
    roomId,
  } = await gather(stage, ['a-group', 'b-group'], () => k.createVideoRoom());
  await page(a);
  assert.equal(await a.evaluate(() => fresh().then((s) => k.publishVideo('cam', s))), true);
  const subscribe = (p, type) =>
    p.evaluate((x) => k.subscribeVideo(x.id, x.type).then(Boolean), { id: a.id, type });
  assert.equal(await subscribe(b, 'cam'), true);
  assert.equal(await darkness(b, a.id), false);
  assert.equal(await said(a, false, false), '200');
  const c = await stage.open('app.html', { name: 'c-group' });
  c.id = await c.evaluate(() => app.init('c-group'));
  await enter(c, roomId, [a, b]);
  assert.equal(await subscribe(c, 'cam'), true);
  assert.deepEqual(await arrives(c, a), OFF);
  assert.equal(await a.evaluate(() => fresh().then((s) => k.changeLocalStream(s))), true);
  assert.deepEqual(await arrives(b, a), OFF);
  assert.equal(
    await a.evaluate(() =>
      fresh()
        .then((s) => k.screenStart(s))
        .then((r) => r.code),
    ),
    '200',
  );
  assert.equal(await subscribe(c, 'screen'), true);
  assert.equal(await darkness(c, a.id, 'screen'), false);
  assert.equal(await darkness(c, a.id), true);
  await Promise.all([a.close(), b.close(), c.close()]);
});
