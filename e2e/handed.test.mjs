// Whatever an app does to what it was handed (streams, tracks, connections, the socket): what is
// published next is what others see.

import { after, afterEach, before, test } from 'node:test';
import assert from 'node:assert/strict';
import { call, meet } from './lib/call.mjs';
import { shows } from './lib/media.mjs';
import { Stage } from './lib/stage.mjs';

let stage;
before(async () => (stage = await Stage.up('handed')));
afterEach((t) => stage.after(t));
after(() => stage?.down());

/** Each as a page would do it, with the id of the other one. */
const treatments = {
  'stops its tracks': (id) =>
    k
      .getStream(id)
      .getTracks()
      .forEach((t) => t.stop()),
  'takes its tracks out': (id) => {
    const s = k.getStream(id);
    s.getTracks().forEach((t) => s.removeTrack(t));
  },
  'stops its tracks and takes them out': (id) => {
    const s = k.getStream(id);
    s.getTracks().forEach((t) => (s.removeTrack(t), t.stop()));
  },
  'stops a copy': (id) =>
    k
      .getStream(id)
      .clone()
      .getTracks()
      .forEach((t) => t.stop()),
  'shows it nowhere any more': () =>
    document.querySelectorAll('video').forEach((v) => (v.srcObject = null)),
  'stops every track that is received': (id) =>
    k
      .getPeer(id)
      .getReceivers()
      .forEach((r) => r.track.stop()),
  'closes the connection': (id) => k.getPeer(id).close(),
  'stops the transceivers': (id) =>
    k
      .getPeer(id)
      .getTransceivers()
      .forEach((t) => t.stop()),
  'turns the transceivers round': (id) =>
    k
      .getPeer(id)
      .getTransceivers()
      .forEach((t) => (t.direction = 'inactive')),
  'takes the tracks off the senders': (id) =>
    k
      .getPeer(id)
      .getSenders()
      .forEach((s) => s.replaceTrack(null)),
  'removes the senders': (id) => {
    const pc = k.getPeer(id);
    pc.getSenders().forEach((s) => pc.removeTrack(s));
  },
  'stops what it sends': (id) =>
    k
      .getPeer(id)
      .getSenders()
      .forEach((s) => s.track?.stop()),
  'sets every handler': (id) => {
    const pc = k.getPeer(id);
    for (const name in pc) if (name.startsWith('on')) pc[name] = () => {};
    pc.getSenders().forEach((s) => s.transport && (s.transport.onstatechange = () => {}));
  },
  'overwrites the socket': () => {
    const socket = k.getSocket();
    for (const name of ['on', 'once', 'off', 'emit']) socket[name] = () => {};
  },
};

/** A new stream each time, as an app makes one when it starts a call again. */
const publish = (p, q) => p.evaluate(async (id) => {
  app.stream = null;
  return k.publishP2P(id, 'cam', await app.camera());
}, q.id);

/** For the side that does not make the connections only these are another matter. */
const others = [
  'stops every track that is received',
  'closes the connection',
  'stops the transceivers',
  'turns the transceivers round',
];

for (const [who, order, names] of [
  ['the side that offers', ['a', 'b'], Object.keys(treatments)],
  ['the side that answers', ['b', 'a'], others],
]) {
  test(`${who} breaks its streams and connections: publishing again restores video`, async () => {
    const { a: p, b: q } = await meet(stage, order.map((x) => `${x}-handed`));
    await call(p, q);
    for (const [x, y] of [
      [p, q],
      [q, p],
    ])
      await x.evaluate((id) => (window.first = k.getStream(id)), y.id);
    for (const name of names) {
      await p.evaluate(treatments[name], q.id);
      for (const [x, y] of [
        [p, q],
        [q, p],
      ])
        assert.equal(await publish(x, y), true, `${name}: ${x.id} publishes`);
      for (const [x, y] of [
        [p, q],
        [q, p],
      ]) {
        await shows(x, y.id, 'cam');
        const seen = await x.evaluate((id) => {
          const s = k.getStream(id);
          return [
            s === first,
            s
              .getTracks()
              .map((t) => `${t.kind} ${t.readyState}`)
              .sort()
              .join(),
            e2e.open().length,
          ];
        }, y.id);
        assert.deepEqual(seen, [true, 'audio live,video live', 1], `${x.id} when ${p.id} ${name}`);
      }
    }
    await Promise.all([p.close(), q.close()]);
  });
}

test('an app that stopped the tracks sees video when the other user publishes again', async () => {
  const { a, b } = await meet(stage, ['again-a', 'again-b']);
  await call(a, b);
  await b.evaluate((id) => k.getStream(id).getTracks().forEach((t) => t.stop()), a.id);
  assert.equal(await a.evaluate((id) => app.publish(id), b.id), true);
  await shows(b, a.id, 'cam');
  await Promise.all([a.close(), b.close()]);
});

test('a stream made in another frame of the page can be published', async () => {
  const { a, b } = await meet(stage, ['frame-a', 'frame-b']);
  const outcome = await a.evaluate(async (id) => {
    const frame = document.body.appendChild(document.createElement('iframe'));
    window.foreign = await frame.contentWindow.navigator.mediaDevices.getUserMedia({
      video: true,
      audio: true,
    });
    return [foreign instanceof MediaStream, await k.publishP2P(id, 'cam', foreign)];
  }, b.id);
  assert.deepEqual(outcome, [false, true]);
  await shows(b, a.id, 'cam');
  assert.equal(await a.evaluate(() => k.screenStart(foreign.clone()).then((r) => r.code)), '200');
  await shows(b, a.id, 'screen');
  await Promise.all([a.close(), b.close()]);
});

test("the original product's recipe for reconnecting, word for word", async () => {
  const { a, b } = await meet(stage, ['asks', 'is-asked']);
  for (const p of [a, b]) {
    await p.evaluate(() => {
      app.boxes = {};
      const box = (id) =>
        (app.boxes[id] ??= document.body.appendChild(
          Object.assign(document.createElement('video'), { muted: true, autoplay: true }),
        ));
      const removeStreamInfo = (id) => {
        const stream = app.boxes[id].srcObject;
        for (const track of stream.getTracks()) {
          stream.removeTrack(track);
          track.stop();
        }
        app.boxes[id].srcObject = null;
      };
      app.start = async (id) => {
        app.stream = null;
        return k.publishP2P(id, 'cam', await app.camera());
      };
      app.remove = async (id) => {
        await k.removeLocalPeer(id, 'cam');
        await k.removePeer(id, 'cam');
        removeStreamInfo(id);
      };
      k.addEventListener('presence', async ({ detail }) => {
        if (detail.type === 'subscribed') box(detail.user).srcObject = k.getStream(detail.user);
        if (detail.type === 'inform' && detail.message.type === 'reconnect') {
          await app.remove(detail.user);
          app.outcome = await app.start(detail.user);
        }
      });
    });
  }
  await Promise.all([[a, b], [b, a]].map(([p, q]) => p.evaluate((id) => app.start(id), q.id)));
  const moving = async (p, q) => {
    await p.until(`having ${q.id} in its box`, (id) => Boolean(app.boxes[id]?.srcObject), q.id);
    const before = await p.evaluate((id) => e2e.frames(app.boxes[id]), q.id);
    await p.until(
      `showing ${q.id}`,
      (x) => e2e.frames(app.boxes[x.id]) >= x.before + 15 && app.boxes[x.id].videoWidth > 2,
      { id: q.id, before },
    );
  };
  for (const [p, q] of [
    [a, b],
    [b, a],
  ])
    await moving(p, q);
  for (let round = 0; round < 2; round++) {
    const asked = a.evaluate(async (id) => {
      await app.remove(id);
      const { code } = await k.inform({ type: 'reconnect' }, id);
      return [code, await app.start(id)];
    }, b.id);
    assert.deepEqual(await asked, ['200', true]);
    await b.until('having published again', () => app.outcome === true);
    for (const [p, q] of [[a, b], [b, a]]) await moving(p, q);
    await b.evaluate(() => (app.outcome = null));
  }
  for (const p of [a, b]) assert.equal(await p.evaluate(() => e2e.open().length), 1);
  await Promise.all([a.close(), b.close()]);
});
