import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import {
  WEBSOCKET_OPENS,
  Connection,
  Timing,
  type Hooks,
  type Verdict,
} from '../src/signaling/connection';
import type { OpenTransport } from '../src/signaling/fallback';
import { FakeSocket, settled } from './browser';

let verdict: Verdict;
let heard: string[];
let connection: Connection;

function make(
  hooks: Partial<Hooks> = {},
  fallback?: () => Promise<OpenTransport | null>,
): Connection {
  return new Connection(
    'ws://server/signal',
    {
      resumes: () => false,
      urgent: () => false,
      handshake: async (ask) => {
        const answer = await ask({ eventOp: 'register' });
        return answer.code === '200' ? verdict : 'retry';
      },
      message: (incoming) => heard.push(incoming.kind),
      up: () => heard.push('up'),
      down: () => heard.push('down'),
      ended: (code) => heard.push(`ended ${code}`),
      ...hooks,
    },
    (url, protocols) => new FakeSocket(url, protocols),
    fallback,
  );
}

/** Opens the newest socket and answers its handshake. */
async function shake(): Promise<FakeSocket> {
  const socket = FakeSocket.last;
  socket.open();
  socket.answer('register');
  await settled();
  return socket;
}

beforeEach(() => {
  vi.useFakeTimers();
  vi.spyOn(Math, 'random').mockReturnValue(1); // jitter at its longest
  FakeSocket.made = [];
  verdict = 'up';
  heard = [];
  connection = make();
});

afterEach(() => {
  connection.stop();
  expect(vi.getTimerCount(), 'a timer outlives its owner').toBe(0);
  vi.useRealTimers();
  vi.restoreAllMocks();
});

describe('requests', () => {
  it('are numbered, and answers are matched by number', async () => {
    connection.start();
    const socket = await shake();
    const [first, second] = [
      connection.request({ eventOp: 'a' }),
      connection.request({ eventOp: 'b' }),
    ];
    socket.answer('b', { value: 2 });
    socket.answer('a', { value: 1 });
    expect(await first).toMatchObject({ eventOp: 'a', value: 1 });
    expect(await second).toMatchObject({ eventOp: 'b', value: 2 });
  });

  it('wait for the handshake, in order', async () => {
    connection.start();
    void connection.request({ eventOp: 'a' });
    connection.send({ eventOp: 'b' });
    FakeSocket.last.open();
    expect(FakeSocket.last.ops()).toEqual(['register']);
    FakeSocket.last.answer('register');
    await settled();
    expect(FakeSocket.last.ops()).toEqual(['register', 'a', 'b']);
  });

  it('end with 504 after their timeout, and are not sent afterwards', async () => {
    connection.start();
    const answer = connection.request({ eventOp: 'a' });
    FakeSocket.last.open();
    await vi.advanceTimersByTimeAsync(Timing.request);
    expect(await answer).toMatchObject({ code: '504', message: expect.any(String) });
    await shake();
    expect(FakeSocket.last.ops()).toEqual(['register']);
  });

  it('are sent again after a reconnect when their answer was lost', async () => {
    connection.start();
    const socket = await shake();
    const answer = connection.request({ eventOp: 'a' });
    connection.send({ eventOp: 'b' });
    socket.die();
    connection.send({ eventOp: 'c' });
    await vi.advanceTimersByTimeAsync(1);
    const next = await shake();
    expect(next.ops()).toEqual(['register', 'a', 'c']);
    next.answer('a');
    expect((await answer).code).toBe('200');
    expect(heard).toEqual(['up', 'down', 'up', 'answer']);
  });

  it('to other users are not sent again: they may have arrived already', async () => {
    connection.start();
    const socket = await shake();
    const answer = connection.request({ eventOp: 'publish', target: 'x' });
    socket.die();
    expect((await answer).code).toBe('504');
    void connection.request({ eventOp: 'sdp', target: 'x' });
    await vi.advanceTimersByTimeAsync(1);
    expect((await shake()).ops()).toEqual(['register', 'sdp']);
  });

  it('are limited in number and size, and refused without a session', async () => {
    expect((await connection.request({ eventOp: 'a' })).code).toBe('410');
    connection.start();
    const all = Array.from({ length: 300 }, () => connection.request({ eventOp: 'a' }));
    expect((await all[299])?.code).toBe('429');
    connection.stop();
    expect((await all[0])?.code).toBe('410');
    connection.start();
    expect((await connection.request({ eventOp: 'a', text: 'x'.repeat(65_536) })).code).toBe('445');
  });

  it('keep a bounded number of messages for a socket that does not open', async () => {
    connection.start();
    for (let i = 0; i < 2_000; i++) connection.send({ eventOp: 'candidate', i });
    await shake();
    expect(FakeSocket.last.sent.length).toBeLessThanOrEqual(513);
    expect(FakeSocket.last.sent.at(-1)).toMatchObject({ i: 1_999 });
  });
});

describe('the early message', () => {
  const carried = () => FakeSocket.made.map(({ protocols }) => protocols.length > 0);

  it('is sent with each WebSocket handshake', async () => {
    connection.start();
    const first = FakeSocket.last;
    expect([first.protocols[0], first.ops()]).toEqual(['ieum', ['register']]);
    await shake();
    first.die();
    await vi.advanceTimersByTimeAsync(0);
    expect([carried(), FakeSocket.last.ops()]).toEqual([[true, true], ['register']]);
  });

  it('without an answer waits for the next socket', async () => {
    connection.start();
    FakeSocket.last.open();
    await vi.advanceTimersByTimeAsync(Timing.open + 1);
    await shake();
    expect([carried(), heard]).toEqual([[true, false], ['up']]);
  });

  it('is sent after the handshake where a proxy refuses the header', async () => {
    connection.start();
    FakeSocket.last.die();
    await vi.advanceTimersByTimeAsync(Timing.step);
    expect(FakeSocket.last.ops()).toEqual([]);
    const socket = await shake();
    expect([heard, socket.ops()]).toEqual([['up'], ['register']]);
    socket.die();
    await vi.advanceTimersByTimeAsync(Timing.cap);
    expect(carried()).toEqual([true, false, false]);
    FakeSocket.last.die();
    await vi.advanceTimersByTimeAsync(Timing.cap);
    expect(carried().at(-1)).toBe(true);
  });

  it('alternates between header and socket while nothing succeeds', async () => {
    connection.start();
    await shake();
    for (let i = 0; i < 4; i++) {
      FakeSocket.last.die();
      await vi.advanceTimersByTimeAsync(Timing.cap);
    }
    expect(carried()).toEqual([true, true, false, true, false]);
  });

  it('is sent after the handshake when it is too long for a header', async () => {
    const long = { eventOp: 'register', authKey: 'x'.repeat(6_000) };
    connection = make({
      handshake: async (ask) => ((await ask(long)).code === '200' ? 'up' : 'retry'),
    });
    connection.start();
    expect(carried()).toEqual([false]);
    const socket = await shake();
    expect(socket.sent).toEqual([{ ...long, reqId: '1' }]);
  });

  it('may be in any language', () => {
    connection = make({
      handshake: async (ask) =>
        (await ask({ eventOp: 'register', name: '이음 ~?>' })).code === '200' ? 'up' : 'retry',
    });
    connection.start();
    expect(FakeSocket.last.sent).toEqual([{ eventOp: 'register', name: '이음 ~?>', reqId: '1' }]);
    expect(FakeSocket.last.protocols[1]).toMatch(/^[\w.-]+$/);
  });
});

describe('a lost socket', () => {
  it('whose end makes the app end the session is followed by none', async () => {
    connection = make({ down: () => connection.stop() });
    connection.start();
    (await shake()).die();
    await vi.advanceTimersByTimeAsync(60_000);
    expect([FakeSocket.made.length, vi.getTimerCount()]).toEqual([1, 0]);
  });

  it.each([
    ['', false, [0, 250, 500, 1_000, ...Array(30).fill(2_000), 10_000, 10_000]],
    [
      ', a shorter one while a call stands still',
      true,
      [0, 250, 500, 1_000, ...Array(23).fill(1_250), ...Array(15).fill(2_000), 10_000, 10_000],
    ],
  ])(
    'is replaced at once, then with growing waits up to the cap%s',
    async (_, urgent, expected) => {
      connection = make({ urgent: () => urgent });
      connection.start();
      const waits: number[] = [];
      while (waits.length < expected.length) {
        const from = Date.now();
        FakeSocket.last.die();
        const made = FakeSocket.made.length;
        while (FakeSocket.made.length === made) await vi.advanceTimersToNextTimerAsync();
        waits.push(Date.now() - from);
      }
      // A server that is away for a minute is not just restarting.
      expect(waits).toEqual(expected);
    },
  );

  it('waits with jitter, so that clients do not reconnect together', async () => {
    vi.mocked(Math.random).mockReturnValue(0);
    connection.start();
    FakeSocket.last.die();
    await vi.advanceTimersByTimeAsync(1);
    FakeSocket.last.die();
    await vi.advanceTimersByTimeAsync(124);
    expect(FakeSocket.made).toHaveLength(2);
    await vi.advanceTimersByTimeAsync(1);
    expect(FakeSocket.made).toHaveLength(3);
  });

  it('that never opens times out', async () => {
    connection.start();
    await vi.advanceTimersByTimeAsync(Timing.open);
    expect(FakeSocket.made[0]?.closed).toBe(4000);
    await vi.advanceTimersByTimeAsync(1);
    expect(FakeSocket.made).toHaveLength(2);
  });

  it('keeps backing off when a server accepts clients and drops them again', async () => {
    connection.start();
    for (let i = 0; i < 6; i++) {
      await shake();
      FakeSocket.last.die(1013);
      await vi.advanceTimersToNextTimerAsync();
    }
    await shake();
    const from = Date.now();
    FakeSocket.last.die(1013);
    await vi.advanceTimersToNextTimerAsync();
    expect(Date.now() - from).toBe(2_000);
    await shake();
    await vi.advanceTimersByTimeAsync(11_000);
    const made = FakeSocket.made.length;
    FakeSocket.last.die();
    await vi.advanceTimersByTimeAsync(1);
    expect(FakeSocket.made).toHaveLength(made + 1); // It stood for a while: at once again.
  });

  it('is retried when the page wakes', async () => {
    connection.start();
    for (let i = 0; i < 8; i++) {
      FakeSocket.last.die();
      if (i < 7) await vi.advanceTimersToNextTimerAsync();
    }
    const made = FakeSocket.made.length;
    connection.wake();
    expect(FakeSocket.made).toHaveLength(made + 1);
  });

  it.each([[4001], [4002], [4003]])('%i ends it for good', async (code) => {
    connection.start();
    await shake();
    const answer = connection.request({ eventOp: 'a' });
    FakeSocket.last.die(code);
    expect((await answer).code).toBe('410');
    await vi.advanceTimersByTimeAsync(60_000);
    expect(FakeSocket.made).toHaveLength(1);
    expect(heard).toEqual(['up', 'down', `ended ${code}`]);
  });

  it('closed for policy is replaced after a long wait', async () => {
    connection.start();
    await shake();
    FakeSocket.last.die(1008);
    await vi.advanceTimersByTimeAsync(29_999);
    expect(FakeSocket.made).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(1);
    expect(FakeSocket.made).toHaveLength(2);
  });
});

describe('a dead socket', () => {
  it('is detected sooner when the network is in doubt, and a live socket is kept', async () => {
    connection.start();
    const socket = await shake();
    const first = connection.probeServer();
    socket.answer('keepAlive');
    await vi.advanceTimersByTimeAsync(Timing.probe);
    expect([socket.closed, await first]).toEqual([undefined, true]);
    const second = connection.probeServer();
    await vi.advanceTimersByTimeAsync(Timing.probe - 1);
    void connection.probeServer();
    expect(socket.closed).toBeUndefined();
    await vi.advanceTimersByTimeAsync(1);
    expect(socket.closed).toBe(4000);
    expect(await connection.probeServer()).toBe(false);
    await vi.advanceTimersByTimeAsync(Timing.request);
    expect(await second).toBe(false);
  });

  it('after a network change is replaced without waiting', async () => {
    connection.start();
    const socket = await shake();
    connection.renew();
    expect(socket.closed).toBe(4000);
    await vi.advanceTimersByTimeAsync(0);
    expect(FakeSocket.made).toHaveLength(2);
    connection.renew(); // while it opens
    await vi.advanceTimersByTimeAsync(0);
    expect(FakeSocket.made).toHaveLength(3);
    FakeSocket.last.die(1006);
    connection.renew(); // while it waits
    expect(FakeSocket.made).toHaveLength(4);
    connection.stop();
    connection.renew();
    await vi.advanceTimersByTimeAsync(Timing.capLater);
    expect(FakeSocket.made).toHaveLength(4);
  });

  it.each([
    [100, 700],
    [400, 1_000],
  ])('with a round trip of %i ms is detected after %i', async (rtt, limit) => {
    connection.start();
    const socket = await shake();
    void connection.request({ eventOp: 'a' });
    await vi.advanceTimersByTimeAsync(rtt);
    socket.answer('a');
    void connection.probeServer();
    await vi.advanceTimersByTimeAsync(limit - 1);
    expect(socket.closed).toBeUndefined();
    await vi.advanceTimersByTimeAsync(1);
    expect(socket.closed).toBe(4000);
  });

  it('is detected 5 s after a request', async () => {
    connection.start();
    const socket = await shake();
    void connection.request({ eventOp: 'a' });
    await vi.advanceTimersByTimeAsync(4_999);
    expect(socket.closed).toBeUndefined();
    await vi.advanceTimersByTimeAsync(1);
    expect(socket.closed).toBe(4000);
    await vi.advanceTimersByTimeAsync(1);
    expect(FakeSocket.made).toHaveLength(2);
  });

  it('is detected by a keepAlive after 10 s without a message', async () => {
    connection.start();
    const socket = await shake();
    await vi.advanceTimersByTimeAsync(9_999);
    expect(socket.ops()).toEqual(['register']);
    await vi.advanceTimersByTimeAsync(1);
    expect(socket.ops()).toEqual(['register', 'keepAlive']);
    await vi.advanceTimersByTimeAsync(5_000);
    expect(socket.closed).toBe(4000);
  });

  it('is not assumed while anything is answered', async () => {
    connection.start();
    const socket = await shake();
    void connection.request({ eventOp: 'slow' });
    for (let i = 0; i < 2; i++) {
      await vi.advanceTimersByTimeAsync(4_000);
      socket.receive({ eventOp: 'other' });
    }
    await vi.advanceTimersByTimeAsync(1_999);
    expect(socket.closed).toBeUndefined();
  });

  it('is not assumed when all requests are answered and the server is silent', async () => {
    connection.start();
    const socket = await shake();
    const asked = connection.request({ eventOp: 'memberList' });
    socket.answer('memberList');
    await asked;
    for (let i = 0; i < 3; i++) { // a quiet room: nothing comes but what is asked for
      await vi.advanceTimersByTimeAsync(Timing.idleLimit);
      expect(socket.ops().at(-1)).toBe('keepAlive');
      socket.answer('keepAlive');
    }
    expect(FakeSocket.made).toHaveLength(1);
    expect(connection.up).toBe(true);
  });

  it('is not assumed when timers fired late: an answer may be unread after a sleep', async () => {
    connection.start();
    const socket = await shake();
    const answer = connection.request({ eventOp: 'a' }, 600_000);
    vi.setSystemTime(Date.now() + 120_000); // the machine sleeps, timers do not run
    await vi.advanceTimersByTimeAsync(5_000);
    expect(socket.closed).toBeUndefined();
    socket.answer('a');
    expect((await answer).code).toBe('200');
  });

  it('is detected after a sleep as well', async () => {
    connection.start();
    const socket = await shake();
    void connection.request({ eventOp: 'a' }, 600_000);
    vi.setSystemTime(Date.now() + 120_000);
    await vi.advanceTimersByTimeAsync(7_001);
    expect(socket.closed).toBe(4000);
  });
});

describe('a handshake', () => {
  it('without an answer is repeated on another socket', async () => {
    connection.start();
    FakeSocket.last.open();
    await vi.advanceTimersByTimeAsync(Timing.open);
    expect(FakeSocket.made[0]?.closed).toBe(4000);
  });

  it('can end everything', async () => {
    verdict = 'stop';
    connection.start();
    const answer = connection.request({ eventOp: 'a' });
    const socket = await shake();
    expect(socket.closed).toBe(1000);
    expect((await answer).code).toBe('410');
  });

  it('of a socket that died meanwhile is ignored', async () => {
    let finish: (v: Verdict) => void = () => undefined;
    connection = make({ handshake: () => new Promise((resolve) => { finish = resolve; }) });
    connection.start();
    FakeSocket.last.open();
    FakeSocket.last.die();
    finish('up');
    await settled();
    expect(connection.up).toBe(false);
    expect(heard).toEqual([]);
  });

  it('that throws is retried', async () => {
    vi.spyOn(console, 'error').mockImplementation(() => undefined);
    connection = make({ handshake: () => Promise.reject(new Error('fault')) });
    connection.start();
    FakeSocket.last.open();
    await settled();
    await vi.advanceTimersByTimeAsync(1);
    expect(FakeSocket.made).toHaveLength(2);
  });
});

describe('where no WebSocket comes through', () => {
  /** Whether the server answers plain HTTP requests, and how often it was asked. */
  let reachable: boolean;
  let asked: number;
  /** Delay of its answer, in milliseconds. */
  let takes: number;

  beforeEach(() => {
    takes = 0;
    reachable = true;
    asked = 0;
    let known = false;
    connection = make(
      { resumes: () => known, up: () => (heard.push('up'), (known = true)) },
      async () => {
        asked++;
        if (takes) await new Promise((done) => setTimeout(done, takes));
        return reachable ? (resumes) => new FakeSocket(`poll${resumes ? ' resume' : ''}`) : null;
      },
    );
  });

  /** The transports of the sockets that were made. */
  const kinds = () => FakeSocket.made.map(({ url }) => (url.startsWith('poll') ? url : 'ws'));
  const refuse = async (ms: number = Timing.cap) => {
    FakeSocket.last.die();
    await vi.advanceTimersByTimeAsync(ms);
  };
  /** Two WebSockets are refused, and the session polls. */
  const polls = async () => {
    connection.start();
    await refuse(0);
    await refuse(0);
    return shake();
  };

  it('the session polls after two refused WebSockets, without waiting', async () => {
    connection.start();
    const answer = connection.request({ eventOp: 'a' });
    await refuse(0);
    expect(asked).toBe(0);
    await refuse(0);
    expect([asked, kinds()]).toEqual([1, ['ws', 'ws', 'poll']]);
    const socket = await shake();
    expect(socket.ops()).toEqual(['register', 'a']);
    socket.answer('a');
    expect([(await answer).code, heard]).toEqual(['200', ['up', 'answer']]);
  });

  it('the session polls after two WebSockets that do not open', async () => {
    takes = 50;
    connection.start();
    await vi.advanceTimersByTimeAsync(Timing.open + takes);
    expect([asked, kinds()]).toEqual([1, ['ws', 'ws']]);
    await vi.advanceTimersByTimeAsync(Timing.grace - 1);
    expect(kinds()).toEqual(['ws', 'ws']);
    await vi.advanceTimersByTimeAsync(2);
    expect([asked, kinds()]).toEqual([1, ['ws', 'ws', 'poll']]);
    await shake();
    expect(heard).toEqual(['up']);
  });

  it('the session polls after a WebSocket that opens and delivers nothing', async () => {
    connection.start();
    FakeSocket.last.open();
    await vi.advanceTimersByTimeAsync(Timing.open);
    expect(kinds()).toEqual(['ws', 'poll']);
  });

  it('a WebSocket that opens after all is kept', async () => {
    takes = 50;
    connection.start();
    await vi.advanceTimersByTimeAsync(Timing.open + takes + Timing.grace - 1);
    await shake();
    await vi.advanceTimersByTimeAsync(1);
    await refuse();
    expect([heard, kinds()]).toEqual([['up', 'down'], ['ws', 'ws', 'ws']]);
  });

  it('the session does not poll while the server is away, nor when it is back', async () => {
    reachable = false;
    connection.start();
    for (let i = 0; i < 10; i++) await refuse();
    expect(asked).toBeGreaterThan(5);
    await shake();
    expect([heard, new Set(kinds())]).toEqual([['up'], new Set(['ws'])]);
  });

  it('the session does not poll when sockets are lost that worked', async () => {
    connection.start();
    for (let i = 0; i < 5; i++) {
      await shake();
      await refuse();
    }
    expect([asked, new Set(kinds())]).toEqual([0, new Set(['ws'])]);
  });

  it('a lost poll is followed by another, then by a WebSocket', async () => {
    const socket = await polls();
    await vi.advanceTimersByTimeAsync(Timing.idleLimit);
    socket.answer('keepAlive');
    await vi.advanceTimersByTimeAsync(1);
    socket.die();
    await vi.advanceTimersByTimeAsync(0);
    await shake();
    FakeSocket.last.die();
    await vi.advanceTimersByTimeAsync(Timing.step);
    FakeSocket.last.die();
    await vi.advanceTimersByTimeAsync(Timing.cap);
    expect(kinds()).toEqual(['ws', 'ws', 'poll', 'poll resume', 'poll resume', 'ws']);
  });

  it('a silent poll is followed by another, not by a WebSocket', async () => {
    const socket = await polls();
    await vi.advanceTimersByTimeAsync(Timing.idleLimit);
    socket.answer('keepAlive');
    await vi.advanceTimersByTimeAsync(Timing.idleLimit + Timing.silenceLimit);
    expect(socket.closed).toBe(4000);
    await vi.advanceTimersByTimeAsync(Timing.step);
    expect(kinds().slice(-1)).toEqual(['poll resume']);
  });

  it('a WebSocket takes over as soon as one opens, and the session goes on', async () => {
    const socket = await polls();
    await vi.advanceTimersByTimeAsync(Timing.idleLimit);
    socket.answer('keepAlive');
    await vi.advanceTimersByTimeAsync(1);
    const answer = connection.request({ eventOp: 'a' });
    socket.die(WEBSOCKET_OPENS);
    await vi.advanceTimersByTimeAsync(0);
    expect(FakeSocket.last.url).toBe('ws://server/signal?resume');
    const next = await shake();
    next.answer('a');
    expect([(await answer).code, heard]).toEqual(['200', ['up', 'answer', 'down', 'up', 'answer']]);
    next.die();
    await vi.advanceTimersByTimeAsync(Timing.cap);
    expect(kinds()).toEqual(['ws', 'ws', 'poll', 'ws', 'ws']);
  });

  it('waits grow when a server accepts polls and drops them again', async () => {
    await polls();
    const waits: number[] = [];
    for (let i = 0; i < 6; i++) {
      const from = Date.now();
      FakeSocket.last.die();
      await vi.advanceTimersToNextTimerAsync();
      waits.push(Date.now() - from);
      await shake();
    }
    expect(waits).toEqual([500, 1_000, 2_000, 2_000, 2_000, 2_000]);
    expect(new Set(kinds().slice(2))).toEqual(new Set(['poll', 'poll resume']));
  });

  it('a new network is tried with a WebSocket first', async () => {
    await polls();
    connection.renew();
    await vi.advanceTimersByTimeAsync(0);
    expect(kinds()).toEqual(['ws', 'ws', 'poll', 'ws']);
  });

  it('WebSockets and polls alternate with growing waits while both are refused', async () => {
    connection.start();
    await refuse(0);
    await refuse(0);
    for (const [i, wait] of [500, Timing.cap, Timing.cap].entries()) {
      FakeSocket.last.onclose?.({ code: 1006, status: 429 } as { code: number });
      await vi.advanceTimersByTimeAsync(wait - 1);
      expect(FakeSocket.made).toHaveLength(3 + 2 * i); // not yet
      await vi.advanceTimersByTimeAsync(1);
      await refuse(0);
    }
    expect([connection.status, kinds().slice(2)]).toEqual([
      429,
      ['poll', 'ws', 'poll', 'ws', 'poll', 'ws', 'poll'],
    ]);
  });

  it('a late result after the end is ignored', async () => {
    connection.start();
    await refuse(0);
    FakeSocket.last.die();
    connection.stop();
    await settled();
    expect(kinds()).toEqual(['ws', 'ws']);
  });
});
