import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { noteModule, noteScript } from '../src/global';
import { fallback } from '../src/signaling/fallback';
import type { WebSocketLike } from '../src/signaling/connection';
import { FakeSocket, settled } from './browser';

/** A request whose server is the test. */
interface Asked {
  url: string;
  body: string | undefined;
  init: RequestInit;
  answer(text: string, status?: number): Promise<void>;
  fail(): Promise<void>;
}

let asked: Asked[];
let socket: WebSocketLike;
let heard: unknown[];

const polls = () => asked.filter(({ body }) => body === undefined);
const posts = () => asked.filter(({ body }) => body !== undefined);
const bodies = () => posts().map(({ body }) => body);
const OPEN =
  '0{"sid":"a b","upgrades":["websocket"],'
  + '"pingInterval":25000,"pingTimeout":20000,"maxPayload":65536}';
const wrapped = (x: unknown) => `42["knowledgetalk",${JSON.stringify(x)}]`;

async function start(resumes = false): Promise<void> {
  const { open } = await import('../src/knowledgetalk.polling.mjs');
  socket = open('https://site/calls', resumes);
  socket.onopen = () => heard.push('open');
  socket.onmessage = ({ data }) => heard.push(JSON.parse(data));
  socket.onclose = (end) => heard.push(end);
}

async function opened(): Promise<void> {
  await start();
  await asked[0]!.answer(OPEN);
  await posts()[0]!.answer('ok');
}

beforeEach(() => {
  vi.useFakeTimers();
  vi.resetModules();
  asked = [];
  heard = [];
  FakeSocket.made = [];
  vi.stubGlobal('WebSocket', FakeSocket);
  vi.stubGlobal(
    'fetch',
    (url: string, init: RequestInit) =>
      new Promise<Response>((resolve, reject) => {
        const abort = () => reject(new DOMException('aborted', 'AbortError'));
        if (init.signal?.aborted) return abort();
        init.signal?.addEventListener('abort', abort);
        asked.push({
          url,
          init,
          body: init.body as string | undefined,
          answer: (text, status = 200) => (resolve(new Response(text, { status })), settled()),
          fail: () => (reject(new TypeError('failed')), settled()),
        });
      }),
  );
});

afterEach(() => {
  socket?.close(4000);
  expect(vi.getTimerCount(), 'a timer outlives its owner').toBe(0);
  vi.useRealTimers();
  vi.unstubAllGlobals();
  noteScript();
});

describe('polling', () => {
  it('opens, connects, and carries messages both ways', async () => {
    await start(true);
    expect(asked[0]!.url).toBe('https://site/calls/socket.io/?EIO=4&transport=polling&resume');
    await asked[0]!.answer(OPEN);
    expect(heard).toEqual(['open']);
    expect(asked.slice(1).map(({ url }) => url)).toEqual(
      Array(2).fill(`${asked[0]!.url}&sid=a%20b`),
    );
    expect(bodies()).toEqual(['40']);
    socket.send('{"a":1}');
    socket.send('{"b":2}');
    await posts()[0]!.answer('ok');
    expect(bodies()[1]).toBe(`${wrapped({ a: 1 })}\x1e${wrapped({ b: 2 })}`);
    await polls()[1]!.answer(
      ['40{"sid":"x"}', wrapped({ c: '"]\\' }), '6', wrapped({ d: 4 })].join('\x1e'),
    );
    expect(heard).toEqual(['open', { c: '"]\\' }, { d: 4 }]);
    expect(polls()).toHaveLength(3);
  });

  it('sends simple requests, without CORS preflight', async () => {
    await opened();
    for (const { init } of asked) {
      expect([init.credentials, init.mode, init.cache]).toEqual([undefined, undefined, 'no-store']);
    }
    expect(posts()[0]!.init.headers).toEqual({ 'Content-Type': 'text/plain' });
  });

  it('sends one request at a time, of bounded size', async () => {
    await opened();
    const sizes = [60_000, 100, 10_000, 5_000, 65_000, 1, 1, 40_000, 40_000];
    for (const n of sizes) socket.send(JSON.stringify('가'.repeat(n / 3)));
    for (let i = 1; posts()[i]; i++) {
      expect(posts()).toHaveLength(i + 1);
      await posts()[i]!.answer('ok');
    }
    expect(
      bodies()
        .slice(1)
        .flatMap((body) => body!.split('\x1e'))
        .map((p) => JSON.parse(p.slice(2))[1].length),
    ).toEqual(sizes.map((n) => Math.floor(n / 3)));
    for (const body of bodies()) {
      expect(new TextEncoder().encode(body).length).toBeLessThanOrEqual(64 * 1024 + 64);
    }
    expect(posts().length).toBeLessThan(sizes.length);
  });

  it('answers pings', async () => {
    await opened();
    await polls()[1]!.answer('2');
    expect(bodies().at(-1)).toBe('3');
  });

  it.each([
    ['a refused handshake', () => asked[0]!.answer('', 429), { code: 1006, status: 429 }],
    ['an answer that is none', () => asked[0]!.answer('<html>'), { code: 1006 }],
    ['a handshake that fails', () => asked[0]!.fail(), { code: 1006 }],
  ])('closes after %s', async (_, happens, end) => {
    await start();
    await happens();
    expect(heard).toEqual([end]);
  });

  it.each([
    ['a poll that fails', () => polls()[1]!.fail(), { code: 1006 }],
    [
      'a post that fails',
      async () => (socket.send('{}'), await settled(), posts()[1]!.fail()),
      { code: 1006 },
    ],
    [
      'an unknown session',
      () => polls()[1]!.answer('{"code":1}', 400),
      { code: 1006, status: 400 },
    ],
    [
      'a page of the network, which has no session',
      () => polls()[1]!.answer('<html>'),
      { code: 1006 },
    ],
    ['an empty answer', () => polls()[1]!.answer(''), { code: 1006 }],
    ['a close', () => polls()[1]!.answer('1'), { code: 1006 }],
    [
      'a disconnect, after what came with it',
      () => polls()[1]!.answer(`${wrapped({ last: 1 })}\x1e41`),
      { code: 1006 },
    ],
  ])('closes after %s, once, and releases everything', async (name, happens, end) => {
    await opened();
    heard = [];
    await happens();
    await settled();
    expect(heard).toEqual(name.includes('after what') ? [{ last: 1 }, end] : [end]);
    expect(asked.every(({ init }) => init.signal!.aborted)).toBe(true);
    socket.send('{}');
    await settled();
    expect(vi.getTimerCount()).toBe(0);
  });

  it('closes after its last messages, in a request with keepalive', async () => {
    await opened();
    socket.send('{"last":1}');
    socket.close(1000);
    expect(bodies()[1]).toBe(wrapped({ last: 1 }));
    await posts()[1]!.answer('ok');
    expect(bodies()[2]).toBe('1');
    expect(posts()[2]!.init.keepalive).toBe(true);
    await posts()[2]!.answer('ok');
    expect(polls().at(-1)!.init.signal!.aborted).toBe(true);
    expect(heard).toEqual(['open']);
  });

  it('does not say goodbye when the session goes on elsewhere', async () => {
    await opened();
    socket.close(4000);
    await settled();
    expect([bodies(), polls().at(-1)!.init.signal!.aborted]).toEqual([['40'], true]);
  });

  it('may be closed before it is open', async () => {
    await start();
    socket.close(1000);
    await settled();
    expect([heard, asked[0]!.init.signal!.aborted]).toEqual([[], true]);
  });

  it('tries a WebSocket after a while, then with growing waits', async () => {
    await opened();
    const waits: number[] = [];
    for (let from = Date.now(); waits.length < 6;) {
      await vi.advanceTimersToNextTimerAsync();
      if (FakeSocket.made.length === waits.length) continue; // one that does not open in time
      waits.push((Date.now() - from) / 1_000);
      expect(FakeSocket.last.url).toBe('wss://site/calls/signal?resume');
      if (waits.length % 2) FakeSocket.last.die();
      else await vi.advanceTimersByTimeAsync(5_000);
      expect(FakeSocket.last.closed).toBe(1005);
      from = Date.now();
    }
    expect(waits).toEqual([15, 30, 60, 120, 240, 240]);
    FakeSocket.made = [];
    await vi.advanceTimersByTimeAsync(240_000);
    FakeSocket.last.open();
    expect([heard, FakeSocket.last.closed]).toEqual([['open', { code: 4010 }], 1005]);
  });
});

describe('the fallback', () => {
  const module = {
    open: (base: string, resumes: boolean) => ({ base, resumes }) as unknown as WebSocketLike,
  };
  const load = vi.fn(async () => module);

  beforeEach(() => {
    load.mockClear();
    noteModule('https://site/calls/knowledgetalk.mjs', load);
  });
  afterEach(() => {
    load.mockImplementation(async () => module);
    noteModule('', load);
  });

  const found = async (answer: (request: Asked) => Promise<void>) => {
    const open = fallback('https://site/calls');
    await answer(asked[0]!);
    return open;
  };

  it('is found when the server answers plain requests', async () => {
    const open = await found((request) =>
      request.answer('{"code":0,"message":"Transport unknown"}', 400),
    );
    expect(asked[0]!.url).toBe('https://site/calls/socket.io/');
    expect(open?.(true)).toEqual({ base: 'https://site/calls', resumes: true });
  });

  it.each([
    ['a server that is away', (request: Asked) => request.fail()],
    ['a proxy whose server is away', (request: Asked) => request.answer('', 502)],
    ['a server that does not answer', async () => void (await vi.advanceTimersByTimeAsync(5_000))],
  ])('does not exist with %s', async (_, answer) => {
    expect(await found(answer)).toBeNull();
    expect(load).not.toHaveBeenCalled();
  });

  it('does not exist when the file cannot be loaded', async () => {
    load.mockImplementation(() =>
      Promise.reject(new TypeError('blocked by the policy of the page')),
    );
    expect(await found((request) => request.answer('', 400))).toBeNull();
  });
});
