import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { PeerSession, type PeerSessionHooks } from '../src/negotiation/session';
import { Budget, PeerLimits, Pacer } from '../src/negotiation/budget';
import { FakeStream, settled, track } from './browser';
import { FakeConnection } from './connections';

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal('MediaStream', FakeStream);
  vi.stubGlobal('RTCPeerConnection', FakeConnection);
  FakeConnection.made = [];
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

it('a budget allows a burst, then a steady rate', () => {
  const budget = new Budget(3, 1_000);
  expect([1, 2, 3, 4].map(() => budget.take())).toEqual([true, true, true, false]);
  vi.advanceTimersByTime(1_000);
  expect([budget.take(), budget.take()]).toEqual([true, false]);
});

it('members who cause endless answers do not delay messages to others', () => {
  const pacer = new Pacer();
  const waits: number[] = [];
  for (let ms = 0; ms < 60_000; ms += 250) {
    for (let member = 0; member < 14; member++) {
      for (let i = 0; i < 2; i++) pacer.pass(`member ${member}`, () => undefined);
    }
    const asked = performance.now();
    if (ms % 5_000 === 0) pacer.pass('honest', () => waits.push(performance.now() - asked));
    vi.advanceTimersByTime(250);
  }
  expect(waits).toHaveLength(12);
  expect(Math.max(...waits)).toBeLessThanOrEqual(1_000);
  pacer.stop();
});

it('the queue of each user is bounded', () => {
  const pacer = new Pacer();
  const passed = Array.from({ length: 1_000 }, () => pacer.pass('one', () => undefined)).filter(
    Boolean,
  );
  expect(passed).toHaveLength(150 + 256);
  expect(pacer.pass('another', () => undefined)).toBe(true);
  pacer.stop();
});

it('a user who left gets no more messages', () => {
  const pacer = new Pacer();
  const told: string[] = [];
  for (let i = 0; i < 300; i++) {
    for (const user of ['gone', 'here']) pacer.pass(user, () => told.push(user));
  }
  told.length = 0;
  pacer.forget('gone');
  vi.advanceTimersByTime(60_000);
  expect(new Set(told)).toEqual(new Set(['here']));
  expect(vi.getTimerCount()).toBe(0);
});

it('a storm over the data channel makes few publications', async () => {
  let subscribed = 0;
  const hooks = {
    sendSignal: async () => '200',
    iceServers: async () => [],
    apart: () => false,
    subscribed: () => subscribed++,
  };
  const none = new Proxy(hooks, {
    get: (target, name) => (target as never)[name] ?? (() => undefined),
  }) as unknown as PeerSessionHooks;
  const session = new PeerSession('b', 'a', none, new PeerLimits());
  session.signal({ eventOp: 'sdp', gen: 5, n: 1, sdp: { type: 'offer', sdp: 'x' } } as never);
  await settled();
  FakeConnection.last.become('connected');
  FakeConnection.last.openChannel();
  await settled();
  for (let epoch = 1; epoch <= 2_000; epoch++) {
    FakeConnection.last.channel.onmessage?.({
      data: JSON.stringify({
        eventOp: 'publish',
        type: 'cam',
        epoch,
        rev: 0,
        audio: true,
        video: true,
        gen: 5,
      }),
    });
    await settled();
  }
  expect(subscribed).toBeGreaterThan(0);
  expect(subscribed).toBeLessThanOrEqual(200);
  session.dispose();
});

it('a closed connection has no listeners left', async () => {
  const hooks = { sendSignal: async () => '200', iceServers: async () => [], apart: () => false };
  const none = new Proxy(hooks, {
    get: (target, name) => (target as never)[name] ?? (() => undefined),
  }) as unknown as PeerSessionHooks;
  const signals: AbortSignal[] = [];
  const add = vi
    .spyOn(EventTarget.prototype, 'addEventListener')
    .mockImplementation((_, __, options) => {
      signals.push((options as AddEventListenerOptions).signal!);
    });
  const session = new PeerSession('b', 'a', none, new PeerLimits());
  session.signal({ eventOp: 'sdp', gen: 5, n: 1, sdp: { type: 'offer', sdp: 'x' } } as never);
  await settled();
  expect(signals.length).toBeGreaterThan(1);
  expect(signals.some(({ aborted }) => aborted)).toBe(false);
  session.dispose();
  await settled();
  expect(signals.every(({ aborted }) => aborted)).toBe(true);
  add.mockRestore();
});

it('messages keep their order and stay below the rate limit of the server', () => {
  const pacer = new Pacer();
  const sent: number[] = [];
  for (let i = 0; i < 400; i++) pacer.pass(`user ${i % 2}`, () => sent.push(i));
  expect(sent).toHaveLength(150);
  vi.advanceTimersByTime(1_000);
  expect(sent.length).toBeLessThanOrEqual(171);
  vi.advanceTimersByTime(20_000);
  expect(sent).toEqual(Array.from({ length: 400 }, (_, i) => i));
  expect(vi.getTimerCount()).toBe(0);
});

/** What 'a' may send to the side that creates the connection, and to the other side. */
it.each([
  [
    'offers of ever newer generations',
    (i: number) => ({ eventOp: 'sdp', gen: i + 1, n: 1, sdp: { type: 'offer', sdp: 'x' } }),
  ],
  [
    'the same offer again and again',
    () => ({ eventOp: 'sdp', gen: 1, n: 1, sdp: { type: 'offer', sdp: 'x' } }),
  ],
] as const)('a storm of %s makes few connections and few answers', async (_, signal) => {
  const { made, messages } = await storm('b', 'a', signal);
  expect(made).toBeLessThanOrEqual(12);
  expect(messages).toBeLessThanOrEqual(24);
});

it.each([
  [
    'no candidates, where there is no connection',
    () => ({ eventOp: 'candidate', gen: 0, candidates: [] }),
  ],
  [
    'no candidates, of ever newer connections',
    (i: number) => ({ eventOp: 'candidate', gen: Date.now() + i, candidates: [] }),
  ],
  [
    'no candidates, for the present connection',
    (_: number, gen: number) => ({ eventOp: 'candidate', gen, candidates: [] }),
  ],
  [
    'publications of no connection',
    (i: number) => ({
      eventOp: 'publish',
      type: 'cam',
      epoch: i + 1,
      rev: 0,
      audio: true,
      video: true,
      gen: 0,
    }),
  ],
  [
    'publications that were refused',
    () => ({ eventOp: 'publish', type: 'cam', epoch: 0, rev: 0, audio: true, video: true, gen: 0 }),
  ],
] as const)(
  'a storm of %s makes the side that offers make few connections and offers',
  async (_, signal) => {
    const { made, messages } = await storm('a', 'b', signal as never, true);
    expect(made).toBeLessThanOrEqual(13);
    // Each with its publications, and repetitions.
    expect(messages).toBeLessThanOrEqual(60);
  },
);

/** 300 signals at once. `calls`: this side has published, and each of its offers is answered. */
async function storm(
  me: string,
  other: string,
  signal: (i: number, gen: number) => object,
  calls = false,
) {
  let messages = 0;
  let offered: { gen: number; n: number } | undefined;
  const sendSignal = async (m: { eventOp: string; gen: number; n: number }) => {
    messages++;
    if (m.eventOp === 'sdp') offered = m;
    return '200';
  };
  const hooks = { sendSignal, iceServers: async () => [], apart: () => false };
  const none = new Proxy(hooks, {
    get: (target, name) => (target as never)[name] ?? (() => undefined),
  }) as unknown as PeerSessionHooks;
  const session = new PeerSession(me, other, none, new PeerLimits());
  if (calls) void session.publish('cam', new FakeStream([track('video')]) as never);
  await settled();
  for (let i = 0; i < 300; i++) {
    session.signal(signal(i, offered?.gen ?? 0) as never);
    await settled();
    if (calls && offered) {
      session.signal({
        eventOp: 'sdp',
        gen: offered.gen,
        n: offered.n,
        sdp: { type: 'answer', sdp: 'x' },
      } as never);
    }
    await settled();
  }
  session.dispose();
  return { made: FakeConnection.made.length, messages };
}

it('at most 128 candidates of a description are used', async () => {
  const lines = (n: number) =>
    Array.from(
      { length: n },
      (_, i) => `a=candidate:${i} 1 udp 1 192.0.2.1 ${i} typ host\r\n`,
    ).join('');
  const hooks = { sendSignal: async () => '200', iceServers: async () => [], apart: () => false };
  const none = new Proxy(hooks, {
    get: (target, name) => (target as never)[name] ?? (() => undefined),
  }) as unknown as PeerSessionHooks;
  for (const [i, [n, taken]] of [
    [1, 1],
    [128, 128],
    [129, 128],
    [5_000, 128],
  ].entries()) {
    const session = new PeerSession('b', 'a', none, new PeerLimits());
    session.signal({
      eventOp: 'sdp',
      gen: 1 + i,
      n: 1,
      sdp: { type: 'offer', sdp: `v=0\r\n${lines(n!)}a=end-of-candidates\r\n` },
    } as never);
    await settled();
    const { sdp } = FakeConnection.last.remoteDescription!;
    expect(sdp).toBe(`v=0\r\n${lines(taken!)}a=end-of-candidates\r\n`);
    session.dispose();
  }
});
