import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { noteScript } from '../src/global';
import { io, type Options, type Socket } from '../src/socketio';

/** A WebSocket whose server is the test. */
class Wire {
  static made: Wire[] = [];
  onopen = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: unknown) => void) | null = null;
  onerror = null;
  sent: string[] = [];
  /** Close code; 1005 for none. */
  closed: number | undefined;

  constructor(readonly url: string) {
    Wire.made.push(this);
  }

  static get last(): Wire {
    return Wire.made[Wire.made.length - 1]!;
  }

  send(text: string): void {
    this.sent.push(text);
  }

  close(code?: number): void {
    this.closed = code ?? 1005;
  }

  /** The server sends this. */
  says(...packets: unknown[]): void {
    for (const data of packets) this.onmessage?.({ data });
  }

  /** The server accepts the connection. */
  accept(id = 'one'): void {
    this.says(
      '0{"sid":"x","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":65536}',
      `40{"sid":"${id}"}`,
    );
  }

  cut(): void {
    this.onclose?.({});
  }
}

let socket: Socket;
let heard: unknown[];

function start(options: Options = {}, url = 'https://server:7102'): Wire {
  socket = io(url, options, (u) => new Wire(u));
  for (const event of ['connect', 'disconnect', 'connect_error', 'knowledgetalk']) {
    socket.on(event, (value) =>
      heard.push([event, value instanceof Error ? value.message : value]),
    );
  }
  return Wire.last;
}

function connected(options?: Options): Wire {
  const wire = start(options);
  wire.accept();
  heard = [];
  wire.sent = [];
  return wire;
}

beforeEach(() => {
  vi.useFakeTimers();
  vi.spyOn(Math, 'random').mockReturnValue(0.5); // no jitter
  Wire.made = [];
  heard = [];
});

afterEach(() => {
  socket.disconnect();
  expect(vi.getTimerCount(), 'a timer outlives its owner').toBe(0);
  vi.useRealTimers();
  vi.restoreAllMocks();
});

describe('the address', () => {
  for (const [name, url, options, want] of [
    [
      'of a server',
      'https://server:7102',
      {},
      'wss://server:7102/socket.io/?EIO=4&transport=websocket',
    ],
    ['without TLS', 'http://server', {}, 'ws://server/socket.io/?EIO=4&transport=websocket'],
    ['of a WebSocket', 'wss://server', {}, 'wss://server/socket.io/?EIO=4&transport=websocket'],
    [
      'without a scheme',
      'server:7102',
      {},
      'wss://server:7102/socket.io/?EIO=4&transport=websocket',
    ],
    [
      'with another path',
      'https://server',
      { path: '/io' },
      'wss://server/io/?EIO=4&transport=websocket',
    ],
    [
      'with a query',
      'https://server?a=1',
      { query: { b: '2 3' } },
      'wss://server/socket.io/?a=1&b=2+3&EIO=4&transport=websocket',
    ],
    [
      "with other clients' options",
      'https://server',
      { transports: ['polling'] },
      'wss://server/socket.io/?EIO=4&transport=websocket',
    ],
  ] as [string, string, Options, string][]) {
    it(name, () => expect(start(options, url).url).toBe(want));
  }

  it('may have a namespace, which every packet then names', () => {
    const wire = start({}, 'https://server/room');
    wire.says('0{"pingInterval":25000,"pingTimeout":20000}', '40/other,{"sid":"x"}');
    expect(socket.connected).toBe(false);
    wire.says('40/room,{"sid":"x"}', '42/room,["knowledgetalk",1]', '42["knowledgetalk",2]');
    socket.emit('a');
    expect(wire.sent).toEqual(['40/room,', '42/room,["a"]']);
    expect(heard).toEqual([['connect', undefined], ['knowledgetalk', 1]]);
  });

  it.each([
    [
      'https://site/calls/socket.io/socket.io.min.js',
      undefined,
      {},
      'wss://site/calls/socket.io/',
      '/',
    ],
    [
      'https://site/calls/socket.io/socket.io.min.js',
      '/room',
      {},
      'wss://site/calls/socket.io/',
      '/room',
    ],
    [
      'https://site/calls/socket.io/socket.io.min.js',
      undefined,
      { path: '/io' },
      'wss://site/io/',
      '/',
    ],
    [
      'https://site/calls/socket.io/socket.io.min.js',
      'https://other',
      {},
      'wss://other/socket.io/',
      '/',
    ],
    ['https://site/calls/socket.io/socket.io.min.js', '//other', {}, 'wss://other/socket.io/', '/'],
    ['http://site:1/socket.io/socket.io.min.js', undefined, {}, 'ws://site:1/socket.io/', '/'],
    ['https://site/js/vendor.js', undefined, {}, 'wss://site/socket.io/', '/'],
  ] as [string, string | undefined, Options, string, string][])(
    'with the script %s, io(%j, %j) is %s',
    (src, url, options, want, namespace) => {
      vi.stubGlobal('document', { currentScript: { src } });
      noteScript();
      io(url, options, (u) => new Wire(u)).disconnect();
      expect(Wire.last.url).toBe(`${want}?EIO=4&transport=websocket`);
      io(url, options, (u) => new Wire(u));
      Wire.last.says('0{"pingInterval":25000,"pingTimeout":20000}');
      expect(Wire.last.sent).toEqual([namespace === '/' ? '40' : `40${namespace},`]);
      Wire.last.onclose = null;
      vi.clearAllTimers();
      vi.unstubAllGlobals();
      noteScript();
    },
  );

  it('is that of the page where the script has none', () => {
    vi.stubGlobal('window', { location: { href: 'https://page.example/room?x=1' } });
    io(undefined, {}, (u) => new Wire(u)).disconnect();
    expect(Wire.last.url).toBe('wss://page.example/socket.io/?EIO=4&transport=websocket');
    vi.unstubAllGlobals();
  });

  it('is required where neither script nor page has one', () => {
    connected();
    expect(() => io()).toThrow();
  });
});

describe('connecting', () => {
  it('opens, connects, and gets its id', () => {
    const wire = start();
    expect([socket.connected, socket.disconnected, socket.active, socket.id]).toEqual([
      false,
      true,
      true,
      undefined,
    ]);
    wire.accept('abc');
    expect(wire.sent).toEqual(['40']);
    expect([socket.connected, socket.disconnected, socket.active, socket.id]).toEqual([
      true,
      false,
      true,
      'abc',
    ]);
    expect(heard).toEqual([['connect', undefined]]);
  });

  it('waits for connect() with autoConnect false', () => {
    start({ autoConnect: false });
    expect(Wire.made.length).toBe(0);
    socket.connect().connect();
    expect(Wire.made.length).toBe(1);
  });

  it('sends auth, from an object or from a function', () => {
    let n = 0;
    const asked: Options['auth'] = (give) => give({ n: ++n });
    for (const [auth, want] of [
      [{ token: 'x' }, '40{"token":"x"}'],
      [asked, '40{"n":1}'],
      [asked, '40{"n":2}'],
    ] as const) {
      const wire = start({ auth });
      wire.accept();
      expect(wire.sent).toEqual([want]);
      socket.disconnect();
    }
  });

  it('ends with connect_error for an unknown namespace, without a retry', () => {
    const wire = start();
    wire.says('0{"pingInterval":25000,"pingTimeout":20000}', '44{"message":"Invalid namespace"}');
    expect(heard).toEqual([['connect_error', 'Invalid namespace']]);
    expect([socket.active, wire.closed]).toEqual([false, 1005]);
  });

  it('is limited by a timeout, then tries again', () => {
    const wire = start({ timeout: 3000 });
    vi.advanceTimersByTime(3000);
    expect(heard).toEqual([['connect_error', 'timeout']]);
    expect(wire.closed).toBe(4000);
    vi.advanceTimersByTime(1000);
    expect(Wire.made.length).toBe(2);
  });

  it('goes on when a socket cannot be created', () => {
    socket = io('https://server', {}, () => {
      throw new Error('blocked');
    });
    socket.on('connect_error', (e) => heard.push(e.message));
    vi.advanceTimersByTime(1000);
    expect(heard).toEqual(['blocked']);
  });
});

describe('events', () => {
  it('go out and come in with all their arguments', () => {
    const wire = connected();
    socket.emit('knowledgetalk', { text: '한글 😀' }, 2);
    expect(wire.sent).toEqual(['42["knowledgetalk",{"text":"한글 😀"},2]']);
    const got: unknown[] = [];
    socket.on('many', (...args) => got.push(...args));
    wire.says('42["many",1,"둘\\n",{"three":3}]', '42["unheard"]');
    expect(got).toEqual([1, '둘\n', { three: 3 }]);
  });

  it('get acknowledgements', () => {
    const wire = connected();
    const answers: unknown[] = [];
    socket.emit('a', 1, (...args: unknown[]) => answers.push(['a', ...args]));
    socket.emit('b', (...args: unknown[]) => answers.push(['b', ...args]));
    expect(wire.sent).toEqual(['420["a",1]', '421["b"]']);
    wire.says('431["later",2]', '430[]', '430["twice"]', '437["unasked"]');
    expect(answers).toEqual([['b', 'later', 2], ['a']]);
  });

  it('can be acknowledged', () => {
    const wire = connected();
    socket.on('question', (value, answer) => answer(value * 2));
    wire.says('4212["question",21]');
    expect(wire.sent).toEqual(['4312[42]']);
  });

  it('wait for the connection, and are sent before those of the connect listener', () => {
    const wire = start();
    socket.emit('early', 1);
    socket.on('connect', () => socket.emit('late'));
    expect(wire.sent).toEqual([]);
    wire.accept();
    expect(wire.sent).toEqual(['40', '42["early",1]', '42["late"]']);
  });

  it('wait in a bounded number', () => {
    const wire = start();
    for (let i = 0; i < 300; i++) socket.emit('e', i);
    wire.accept();
    expect([wire.sent.length, wire.sent[1]]).toEqual([257, '42["e",44]']);
  });

  it('have three reserved names', () => {
    connected();
    for (const name of ['connect', 'connect_error', 'disconnect']) {
      expect(() => socket.emit(name)).toThrow('reserved');
    }
  });

  it('reach once-listeners once, removed ones not at all, and all others when one throws', () => {
    vi.spyOn(console, 'error').mockImplementation(() => undefined);
    const wire = connected();
    const got: string[] = [];
    const gone = () => got.push('gone');
    socket.on('e', () => {
      throw new Error('a fault of the app');
    });
    socket
      .once('e', () => got.push('once'))
      .on('e', gone)
      .on('e', () => got.push('on'))
      .off('e', gone);
    wire.says('42["e"]', '42["e"]');
    expect(got).toEqual(['once', 'on', 'on']);
    socket.off('e');
    wire.says('42["e"]');
    socket.off();
    wire.says('42["knowledgetalk",1]');
    expect([got.length, heard]).toEqual([3, []]);
  });
});

describe('the end', () => {
  it('is sent when the app disconnects', () => {
    const wire = connected();
    socket.disconnect();
    expect([wire.sent, wire.closed, socket.id]).toEqual([['41'], 1005, undefined]);
    expect(heard).toEqual([['disconnect', 'io client disconnect']]);
    vi.advanceTimersByTime(60_000);
    expect(Wire.made.length).toBe(1);
    socket.connect();
    expect(Wire.made.length).toBe(2);
  });

  it('is final when the server disconnects, unless the app connects again', () => {
    const wire = connected();
    wire.says('41');
    expect(heard).toEqual([['disconnect', 'io server disconnect']]);
    vi.advanceTimersByTime(60_000);
    expect(Wire.made.length).toBe(1);
    socket.on('disconnect', () => socket.connect());
    socket.connect();
    Wire.last.accept();
    Wire.last.says('41');
    expect(Wire.made.length).toBe(3);
  });

  for (const [name, reason, how] of [
    ['a cut', 'transport close', (w: Wire) => w.cut()],
    ['a close packet', 'transport close', (w: Wire) => w.says('1')],
    ['silence', 'ping timeout', () => vi.advanceTimersByTime(45_000)],
    ['binary data', 'parse error', (w: Wire) => w.says(new ArrayBuffer(1))],
    [
      'a binary event',
      'parse error',
      (w: Wire) => w.says('451-["e",{"_placeholder":true,"num":0}]'),
    ],
    ['what is no JSON', 'parse error', (w: Wire) => w.says('42["e"')],
  ] as [string, string, (w: Wire) => void][]) {
    it(`by ${name} is not for good`, () => {
      const wire = connected();
      const answers: unknown[] = [];
      socket.emit('asked', (answer: unknown) => answers.push(answer));
      how(wire);
      expect(heard).toEqual([['disconnect', reason]]);
      expect(wire.closed).toBe(4000); // the server keeps the place
      socket.emit('meanwhile');
      vi.advanceTimersByTime(999);
      expect(Wire.made.length).toBe(1);
      vi.advanceTimersByTime(1);
      Wire.last.accept('two');
      expect([socket.id, Wire.last.sent]).toEqual(['two', ['40', '42["meanwhile"]']]);
      Wire.last.says('430["to an older question"]');
      expect(answers).toEqual([]);
    });
  }

  it('does not come while the server pings', () => {
    const wire = connected();
    for (let i = 0; i < 5; i++) {
      vi.advanceTimersByTime(44_000);
      wire.says('2');
    }
    expect([heard, wire.sent]).toEqual([[], ['3', '3', '3', '3', '3']]);
  });
});

describe('reconnecting', () => {
  /** Milliseconds until the next socket is created. */
  function pause(): number {
    const n = Wire.made.length;
    let ms = 0;
    for (; Wire.made.length === n && ms < 100_000; ms++) vi.advanceTimersByTime(1);
    return ms;
  }

  it('waits longer each time, up to a limit, and resets when connected', () => {
    connected().cut();
    const pauses = [];
    for (let i = 0; i < 5; i++) {
      pauses.push(pause());
      Wire.last.cut();
    }
    expect(pauses).toEqual([1000, 2000, 4000, 5000, 5000]);
    pause();
    Wire.last.accept();
    Wire.last.cut();
    expect(pause()).toBe(1000);
  });

  it('reports that it reconnects, until it has been ended', () => {
    const first = connected();
    expect(first.url).not.toContain('resume');
    first.cut();
    pause();
    expect(Wire.last.url).toBe(`${first.url}&resume`);
    Wire.last.cut();
    pause();
    expect(Wire.last.url).toBe(`${first.url}&resume`);
    Wire.last.accept();
    socket.disconnect().connect();
    expect(Wire.last.url).toBe(first.url);
  });

  it('has jitter', () => {
    for (const [random, want] of [[0, 500], [0.999999, 1500]] as const) {
      vi.spyOn(Math, 'random').mockReturnValue(random);
      connected().cut();
      expect(Math.abs(pause() - want)).toBeLessThanOrEqual(1);
      socket.disconnect();
    }
  });

  it('can be limited or disabled', () => {
    connected({ reconnectionAttempts: 2 }).cut();
    for (let i = 0; i < 2; i++) {
      pause();
      Wire.last.cut();
    }
    expect([pause(), socket.active]).toEqual([100_000, false]);
    connected({ reconnection: false }).cut();
    expect([pause(), socket.active]).toEqual([100_000, false]);
  });

  it('stops when the app disconnects meanwhile, also in a listener', () => {
    connected().cut();
    socket.disconnect();
    expect(pause()).toBe(100_000);
    const wire = connected();
    socket.on('disconnect', () => socket.disconnect());
    wire.cut();
    expect(pause()).toBe(100_000);
  });
});
