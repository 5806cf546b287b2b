/** Arguments of any kind for the methods that take a user or a stream. */
import { afterEach, expect, it, vi } from 'vitest';
import type { Knowledgetalk } from '../src/knowledgetalk';
import { App } from './app';
import { FakeSocket, FakeStream, FakeTrack, track } from './browser';
import { FakeConnection } from './connections';

let app: App;
afterEach(() => app.close());

type Target = never;
type Call = (k: Knowledgetalk, target: Target) => unknown;

/** Every method that takes a user. */
const methods: Record<string, Call> = {
  publishP2P: (k, t) => k.publishP2P(t, 'cam', app.stream()),
  'publishP2P of a screen': (k, t) => k.publishP2P(t, 'screen', app.stream()),
  removeLocalPeer: (k, t) => k.removeLocalPeer(t, 'cam'),
  removePeer: (k, t) => k.removePeer(t, 'cam'),
  changeLocalStream: (k, t) => k.changeLocalStream(app.stream(), t),
  screenStart: (k, t) => k.screenStart(app.stream(), t),
  subscribeVideo: (k, t) => k.subscribeVideo(t, 'cam'),
  chat: (k, t) => k.chat('x', undefined, t).then(({ code }) => code),
  inform: (k, t) => k.inform('x', t),
  kickOut: (k, t) => k.kickOut(t),
  permit: (k, t) => k.permit(t, true),
  editRoomInfo: (k, t) => k.editRoomInfo('R', 'x', 3, t),
  editUserInfo: (k, t) => k.editUserInfo('x', true, true, true, t),
  createGroup: (k, t) => k.createGroup([t], 'x'),
  getPeer: (k, t) => Boolean(k.getPeer(t)),
  getStream: (k, t) => k.getStream(t)?.getTracks().length,
};

/**
 * Calls the method in a new room where the user 4 is sent a camera and sends one. Resolves with the
 * outcome and the requests.
 */
async function run(call: Call, target: unknown) {
  app = await App.open({ warmPeers: 0 }, ['4']);
  vi.setSystemTime(0);
  void app.k.publishP2P('4', 'cam', app.stream());
  await app.pass();
  // The smaller id creates the connection.
  app.from('4', {
    eventOp: 'sdp',
    type: 'cam',
    gen: 5,
    n: 1,
    sdp: { type: 'offer', sdp: 'theirs' },
  });
  await app.pass();
  FakeConnection.last.become('connected');
  FakeConnection.last.openChannel();
  app.from('4', {
    eventOp: 'publish',
    type: 'cam',
    epoch: 1,
    rev: 0,
    audio: true,
    video: true,
    gen: 5,
  });
  await app.pass();
  const before = FakeSocket.last.sent.length;
  const outcome = call(app.k, target as Target);
  await app.pass(31_000);
  const seen = FakeSocket.last.sent
    .slice(before)
    .filter((m) => m.eventOp !== 'keepAlive')
    .map((m) => ({
      eventOp: m.eventOp,
      target: m.target,
      host: m.host,
      list: m.list,
    }));
  const result = {
    outcome: await outcome,
    seen,
    sends: app.cameras().length,
    screens: app.screens().length,
  };
  app.close();
  return result;
}

it.each(Object.entries(methods))('a user id may be a number: %s', async (_, call) => {
  const [number, text] = [await run(call, 4), await run(call, '4')];
  expect(number).toEqual(text);
  // It means that user, not an unknown one.
  expect(text).not.toEqual(await run(call, 'nobody'));
  app = await App.open();
});

const odd: Record<string, () => unknown> = {
  'a Symbol': () => Symbol('b'),
  'an object without prototype': () => Object.create(null),
  'an object that cannot be made text': () => ({ toString: () => { throw new Error('no text'); } }),
  'an object whose text is an id': () => ({ toString: () => 'b' }),
  'a list': () => ['b'],
  'a function': () => () => 'b',
  'a big number': () => 4n,
  'no number': () => NaN,
  'yes': () => true,
};

it.each(Object.entries(odd))(
  'no method throws, rejects or sends anything for %s as a user',
  async (_, make) => {
    app = await App.open({ warmPeers: 0 });
    const before = FakeSocket.last.sent.length;
    for (const [name, call] of Object.entries(methods)) {
      const failed: unknown[] = [];
      try {
        const outcome = Promise.resolve(call(app.k, make() as Target)).catch((error) =>
          failed.push(error),
        );
        await app.pass();
        await outcome;
      } catch (error) {
        failed.push(error);
      }
      expect(failed, name).toEqual([]);
    }
    // NaN becomes text like every number: there is no such user.
    const known = FakeSocket.last.sent
      .slice(before)
      .filter(({ target }) => target !== undefined && target !== 'NaN');
    expect([known, FakeConnection.open]).toEqual([[], 0]);
    expect(await app.k.publishP2P(make() as never, 'cam', app.stream())).toBe(false);
  },
);

/** A stream of another frame of the same origin, or of a canvas in Firefox. */
const foreign = (name: string) => {
  class MediaStream extends FakeStream {
    override get [Symbol.toStringTag](): string {
      return name;
    }
  }
  const stream = new MediaStream([track('audio'), track('video')]);
  vi.stubGlobal('MediaStream', class extends FakeStream {});
  expect(stream instanceof globalThis.MediaStream).toBe(false);
  return stream as unknown as globalThis.MediaStream;
};

it.each<[string, (s: MediaStream) => Promise<unknown>, unknown]>([
  ['publishP2P', (s) => app.k.publishP2P('b', 'cam', s), true],
  ['publishVideo', (s) => app.k.publishVideo('cam', s), true],
  [
    'changeLocalStream',
    async (s) => (await app.k.publishVideo('cam', app.stream())) && app.k.changeLocalStream(s),
    true,
  ],
  ['screenStart', async (s) => (await app.k.screenStart(s)).code, '200'],
])('accepts a stream of another frame or of a canvas: %s', async (_, call, expected) => {
  for (const name of ['MediaStream', 'CanvasCaptureMediaStream']) {
    app = await App.open({ warmPeers: 0 });
    const outcome = call(foreign(name));
    await app.pass();
    expect(await outcome, name).toBe(expected);
    app.close();
  }
  app = await App.open();
});

it.each<[string, () => unknown]>([
  ['nothing', () => undefined],
  ['text', () => 'stream'],
  ['an object', () => ({})],
  ['a track', () => track('video')],
  ['null', () => null],
  ['something with tracks', () => ({ getTracks: () => [track('video')] })],
])('what is no stream is refused, also where there is no MediaStream: %s', async (_, make) => {
  app = await App.open({ warmPeers: 0 });
  for (const there of [true, false]) {
    if (!there) vi.stubGlobal('MediaStream', undefined);
    expect(await app.k.publishP2P('b', 'cam', make() as never)).toBe(false);
    expect(await app.k.publishVideo('cam', make() as never)).toBe(false);
    expect(await app.k.changeLocalStream(make() as never)).toBe(false);
    expect((await app.k.screenStart(make() as never)).code).toMatch(/^42[12]$/);
  }
});

it("a user called 'screen' has a camera and a screen like everybody", async () => {
  app = await App.open({ warmPeers: 0 }, ['screen']);
  const outcome = app.k.publishP2P('screen', 'cam', app.stream());
  await app.pass();
  expect(await outcome).toBe(true);
  expect([...Object.keys(app.k.getAllPeers()), app.k.getPeer('screen')]).toEqual([
    'screen',
    FakeConnection.last,
  ]);
  const { gen } = FakeSocket.last.sent.filter((m) => m.eventOp === 'sdp').at(-1);
  const publish = async (type: string) => {
    app.from('screen', {
      eventOp: 'publish',
      type,
      epoch: 1,
      rev: 0,
      audio: true,
      video: true,
      gen,
    });
    await app.pass();
  };
  await publish('cam');
  const camera = app.k.getStream('screen', 'cam');
  // 'screen' alone means the newest screen, and there is none.
  expect([camera?.getTracks().length, app.k.getStream('screen'), app.k.getAllStreams()]).toEqual([
    2,
    undefined,
    {},
  ]);
  await publish('screen');
  const screen = app.k.getStream('screen', 'screen');
  expect(screen?.getTracks()).toHaveLength(2);
  expect([
    app.k.getStream('screen'),
    app.k.getStream('screen', 'cam'),
    app.k.getAllStreams(),
  ]).toEqual([screen, camera, { screen }]);
});

/** The last publication of the camera that a user got. */
const told = (id: string) => {
  const { eventOp, audio, video } = (FakeConnection.last.channel.sent as any[])
    .filter((m) => m.type === 'cam')
    .at(-1);
  expect(app.k.getPeer(id)).toBe(FakeConnection.last);
  return [eventOp, audio, video];
};

it('a track that ends is announced, and publishing again announces what is left', async () => {
  app = await App.open({ warmPeers: 0 });
  const stream = app.stream();
  const [camera] = stream.getVideoTracks() as unknown as FakeTrack[];
  void app.k.publishP2P('b', 'cam', stream);
  await app.pass();
  expect(told('b')).toEqual(['publish', true, true]);
  camera!.end();
  await app.pass();
  expect(told('b')).toEqual(['publish', true, false]);
  // A page that stops a track itself gets no event.
  const other = app.stream();
  void app.k.publishP2P('b', 'cam', other);
  await app.pass();
  expect(told('b')).toEqual(['publish', true, true]);
  other.getAudioTracks()[0]!.stop();
  const outcome = app.k.publishP2P('b', 'cam', other);
  await app.pass();
  expect([await outcome, told('b'), app.cameras().map(({ kind }) => kind)]).toEqual([
    true,
    ['publish', false, true],
    ['video'],
  ]);
});

it('a feed announces a track that ends, and stays when none is left', async () => {
  app = await App.open({ warmPeers: 0 });
  const stream = app.stream();
  const outcome = app.k.publishVideo('cam', stream);
  await app.pass();
  app.from('b', { eventOp: 'subscribe', type: 'cam' });
  await app.pass();
  expect(await outcome).toBe(true);
  const said = () =>
    FakeSocket.last.sent
      .filter((m) => m.eventOp === 'publish' && !m.target)
      .map(({ audio, video }) => [audio, video]);
  for (const t of stream.getTracks() as unknown as FakeTrack[]) {
    t.end();
    await app.pass();
  }
  expect(said()).toEqual([[true, true], [false, true], [false, false]]);
  const changed = app.k.changeLocalStream(app.stream());
  await app.pass();
  expect([await changed, said().at(-1)]).toEqual([true, [true, true]]);
});

it('subscribing again restores tracks that the app has stopped', async () => {
  app = await App.open({ warmPeers: 0 });
  const subscribed = app.k.subscribeVideo('b', 'cam');
  await app.pass();
  void app.k.publishP2P('b', 'screen', app.stream());
  await app.pass();
  const { gen } = FakeSocket.last.sent.filter((m) => m.eventOp === 'sdp').at(-1);
  const publish = async (rev: number) => {
    app.from('b', {
      eventOp: 'publish',
      type: 'cam',
      epoch: 1,
      rev,
      audio: true,
      video: true,
      gen,
    });
    await app.pass();
  };
  await publish(0);
  const stream = await subscribed as MediaStream;
  const asked = () => FakeSocket.last.sent.filter((m) => m.eventOp === 'subscribe').length;
  const before = asked();
  expect(await app.k.subscribeVideo('b', 'cam')).toBe(stream);
  expect(asked()).toBe(before);
  for (const t of stream.getTracks()) t.stop();
  expect(await app.k.subscribeVideo('b', 'cam')).toBe(stream);
  await app.pass();
  expect(asked()).toBe(before + 1);
  // The publisher sends it to subscribers.
  await publish(1);
  expect(
    stream
      .getTracks()
      .map(({ kind, readyState }) => `${kind} ${readyState}`)
      .sort(),
  ).toEqual(['audio live', 'video live']);
});
