// A client that speaks the raw protocol, with one one-way connection for each direction and type,
// calls our SDK and is called by it.

import { after, afterEach, before, test } from 'node:test';
import assert from 'node:assert/strict';
import { events, paint, shows } from './lib/media.mjs';
import { Stage } from './lib/stage.mjs';

let stage;
before(async () => (stage = await Stage.up('raw')));
afterEach((t) => stage.after(t));
after(() => stage?.down());

/** One page of each kind in one room; the raw one comes first or last. */
async function meet(ids, rawFirst) {
  const [p, r] = await Promise.all([
    stage.open('app.html', { name: ids[0] }),
    stage.open('raw.html', { name: ids[1] }),
  ]);
  p.id = await p.evaluate((id) => app.init(id), ids[0]);
  r.id = ids[1];
  assert.equal(await r.evaluate((id) => raw.start(id), r.id), '200');
  const { roomId } = await p.evaluate(() => k.createRoom());
  const rawJoins = async () =>
    assert.equal(
      await r.evaluate(
        (x) => raw.ask({ eventOp: 'joinRoom', roomId: x }).then((a) => a.code),
        roomId,
      ),
      '200',
    );
  if (rawFirst) await rawJoins();
  await p.evaluate((x) => app.join(x), roomId);
  if (!rawFirst) await rawJoins();
  await p.until('knowing the other', async (id) => id in (await k.memberList()), r.id);
  if (!rawFirst) await p.until('seeing it join', (id) => app.count('join', id) === 1, r.id);
  return { p, r };
}

const camera = (r) =>
  r.evaluate(async () => {
    window.camera = await navigator.mediaDevices.getUserMedia({
      video: { width: 320, height: 240, frameRate: 15 },
      audio: true,
    });
  });
const rings = (r, p, type = 'cam') =>
  r.evaluate(
    async (x) => {
      const stream = x.type === 'cam' ? window.camera : window.screenStream;
      return (await raw.call(x.id, x.type, stream)).code;
    },
    { id: p.id, type },
  );

/** Resolves when the raw page shows `more` frames of what it gets. */
async function rawShows(r, p, type, shape = null) {
  await r.until('having a stream', (key) => Boolean(raw.remote?.[key]), `${type} ${p.id}`);
  await r.evaluate((key) => {
    window.shown ??= {};
    const element = () =>
      Object.assign(document.createElement('video'), { muted: true, autoplay: true });
    const video = (shown[key] ??= document.body.appendChild(element()));
    if (video.srcObject !== raw.remote[key]) video.srcObject = raw.remote[key];
    video.before = e2e.frames(video);
  }, `${type} ${p.id}`);
  await r.until(
    'showing it',
    (x) => {
      const video = shown[x.key];
      return (
        (!x.shape || Math.abs(video.videoWidth / video.videoHeight - x.shape) < 0.05) &&
        e2e.frames(video) >= video.before + 10
      );
    },
    { key: `${type} ${p.id}`, shape },
  );
}

for (const rawFirst of [true, false]) {
  test(`both publish at once, the raw client joins ${rawFirst ? 'first' : 'last'}`, async () => {
    const { p, r } = await meet([`sdk-${rawFirst}`, `raw-${rawFirst}`], rawFirst);
    await camera(r);
    const [published, code] = await Promise.all([
      p.evaluate((id) => app.publish(id), r.id),
      rings(r, p),
    ]);
    assert.deepEqual([published, code], [true, '200']);
    await rawShows(r, p, 'cam');
    await shows(p, r.id, 'cam');
    assert.deepEqual(
      (await events(p, 'subscribed')).map((e) => [e.user, e.cam]),
      [[r.id, true]],
    );
    assert.deepEqual(
      await p.evaluate(
        (id) =>
          k
            .getStream(id)
            .getTracks()
            .map((t) => t.kind)
            .sort(),
        r.id,
      ),
      ['audio', 'video'],
    );
    const [join] = await events(p, 'join');
    assert.equal(join?.user.features, undefined);
    // One connection a direction, and every message in the raw protocol's own shape.
    assert.equal(await p.evaluate(() => e2e.open().length), 2);
    const got = await r.evaluate(() =>
      raw.messages.filter((m) => !m.code && m.eventOp !== 'presence'),
    );
    const plain = (m) =>
      m.type === 'cam' &&
      (m.eventOp === 'sdp' || (m.eventOp === 'candidate' && m.candidate && m.cam === true));
    assert.ok(got.every(plain), JSON.stringify(got));
    assert.equal(got.filter((m) => m.sdp?.type === 'offer').length, 1);

    // A swap needs no new connection.
    await paint(p, 320, 160);
    const swap = (id) =>
      k.publishP2P(
        id,
        'cam',
        new MediaStream([...screenStream.getTracks(), ...app.stream.getAudioTracks()]),
      );
    assert.equal(await p.evaluate(swap, r.id), true);
    await rawShows(r, p, 'cam', 2);
    assert.equal(
      await r.evaluate(() => raw.messages.filter((m) => m.sdp?.type === 'offer').length),
      1,
    );

    assert.equal(await p.evaluate((id) => k.removeLocalPeer(id, 'cam'), r.id), true);
    assert.equal(await p.evaluate(() => e2e.open().length), 1);
    assert.equal(await p.evaluate((id) => k.removePeer(id, 'cam'), r.id), true);
    assert.deepEqual(
      await p.evaluate((id) => [e2e.open().length, k.getStream(id) === undefined], r.id),
      [0, true],
    );

    // And again, both ways.
    assert.equal(await p.evaluate((id) => app.publish(id), r.id), true);
    assert.equal(await rings(r, p), '200');
    await p.until('subscribed again', (id) => app.count('subscribed', id) === 2, r.id);
    await shows(p, r.id, 'cam');
    await rawShows(r, p, 'cam');

    await r.close();
    await p.until('told that it left', (id) => app.count('leave', id) === 1, r.id);
    assert.equal(await p.evaluate(() => e2e.open().length), 0);
    await p.close();
  });
}

test('screens both ways, beside the cameras', async () => {
  const { p, r } = await meet(['sdk-screen', 'raw-screen'], true);
  await camera(r);
  assert.equal(await rings(r, p), '200');
  await shows(p, r.id, 'cam');
  await paint(r, 320, 160);
  assert.equal(await rings(r, p, 'screen'), '200');
  await shows(p, r.id, 'screen', 2);
  assert.deepEqual((await events(p, 'subscribed')).map((e) => e.cam), [true, false]);
  await paint(p, 160, 160);
  assert.equal(await p.evaluate(() => k.screenStart(screenStream).then((x) => x.code)), '200');
  await rawShows(r, p, 'screen', 1);
  const candidates = await r.evaluate(() =>
    raw.messages.filter((m) => m.eventOp === 'candidate' && m.type === 'screen'),
  );
  assert.ok(
    candidates.length > 0 && candidates.every((m) => m.cam === false),
    JSON.stringify(candidates),
  );
  assert.equal(await p.evaluate(() => k.shareStop().then((x) => x.code)), '200');
  await shows(p, r.id, 'cam');
  await shows(p, r.id, 'screen', 2);
  await Promise.all([p.close(), r.close()]);
});

test('a raw client subscribes, and is subscribed to, in a group room', async () => {
  const { p, r } = await meet(['sdk-group', 'raw-group'], true);
  await camera(r);
  assert.equal(await p.evaluate(async () => k.publishVideo('cam', await app.camera())), true);
  await r.until('told of the feed', () =>
    raw.messages.some((m) => m.type === 'publish' && m.feeds.length === 1),
  );
  const subscribe = (target) =>
    raw
      .ask({ eventOp: 'subscribe', target, type: 'cam', audio: true, video: true })
      .then((a) => a.code);
  assert.equal(await r.evaluate(subscribe, p.id), '200');
  await rawShows(r, p, 'cam');
  const asked = p.evaluate(
    (id) => k.subscribeVideo(id, 'cam').then((s) => s === k.getStream(id)),
    r.id,
  );
  await r.until('asked', () =>
    raw.messages.some((m) => m.eventOp === 'subscribe' && m.type === 'cam'),
  );
  assert.equal(await rings(r, p), '200');
  assert.equal(await asked, true);
  await shows(p, r.id, 'cam');
  await Promise.all([p.close(), r.close()]);
});

test('a raw client closes one connection: it gets no new offer, the other continues', async () => {
  const { p, r } = await meet(['sdk-hangup', 'raw-hangup'], true);
  await camera(r);
  assert.equal(await p.evaluate((id) => app.publish(id), r.id), true);
  assert.equal(await rings(r, p), '200');
  await shows(p, r.id, 'cam');
  await r.evaluate((key) => raw.in[key].close(), `cam ${p.id}`);
  await p.until('closing what it sent by', () => e2e.open().length === 1);
  await shows(p, r.id, 'cam');
  assert.equal(
    await r.evaluate(() => raw.messages.filter((m) => m.sdp?.type === 'offer').length),
    1,
  );
  // The other way round it has stopped publishing.
  assert.equal(await p.evaluate((id) => app.publish(id), r.id), true);
  await rawShows(r, p, 'cam');
  await r.evaluate((key) => raw.out[key].close(), `cam ${p.id}`);
  await p.until('without its stream', (id) => k.getStream(id) === undefined, r.id);
  assert.equal(await p.evaluate(() => e2e.open().length), 1);
  await rawShows(r, p, 'cam');
  await Promise.all([p.close(), r.close()]);
});

test('publishP2P to a raw client that never answers is false, and leaks nothing', async () => {
  const { p, r } = await meet(['sdk-mute', 'raw-mute'], true);
  await r.evaluate(() => (raw.handle = () => {}));
  // Its page is there but deaf: the app gives up before the limit does.
  const outcome = p.evaluate((id) => app.publish(id), r.id);
  await r.until('offered something', () => raw.messages.some((m) => m.sdp?.type === 'offer'));
  await p.evaluate((id) => k.removeLocalPeer(id, 'cam'), r.id);
  assert.equal(await outcome, false);
  assert.equal(await p.evaluate(() => e2e.open().length), 0);
  await Promise.all([p.close(), r.close()]);
});
