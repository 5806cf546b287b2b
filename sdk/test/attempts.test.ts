/**
 * Attempts to register that the page has given up. The server may serve them late and in any
 * order: under load, behind a proxy, or from a network that was away.
 */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Timing, WEBSOCKET_OPENS } from '../src/signaling/connection';
import { Session, type SessionHooks } from '../src/signaling/session';
import { FakeSocket, settled } from './browser';

const LICENSE = 'eyJhbGciOiJIUzI1NiJ9.e30.c2ln';
let session: Session;
let server: Server;
let left: string[];
let reachable: boolean;

const nothing = () => undefined;
const hooks: SessionHooks = {
  presence: nothing,
  signal: nothing,
  subscribe: nothing,
  wire: nothing,
  online: nothing,
  urgent: () => false,
  resumed: nothing,
  lost: () => left.push('lost'),
  entered: nothing,
  restored: nothing,
  network: nothing,
  left: (reason) => left.push(reason),
};

interface Register {
  instance?: string;
  attempt?: number;
}

/** One user id of the server, by the rules of docs/protocol.md: "Resume and takeover". */
class Server {
  holder: { socket: FakeSocket; register: Register } | null = null;
  readonly served: FakeSocket[] = [];

  serve(socket: FakeSocket): void {
    this.served.push(socket);
    const register = socket.sent.find(({ eventOp }) => eventOp === 'register') as Register;
    const { holder } = this;
    const same = register.instance && register.instance === holder?.register.instance;
    if (same && register.attempt! < holder!.register.attempt!) {
      return socket.answer('register', { code: '409' });
    }
    this.holder = { socket, register };
    socket.answer('register', {
      userId: 'me', iceServers: [], resume: 'secret', resumeWindow: 20, resumed: holder !== null,
    });
    if (holder) holder.socket.die(4001);
  }

  /** All that was sent and not served yet, in this order. */
  late(order: (sockets: FakeSocket[]) => FakeSocket[]): void {
    const sent = FakeSocket.made.filter((socket) => socket.ops().includes('register'));
    for (const socket of order(sent.filter((each) => !this.served.includes(each)))) {
      this.serve(socket);
    }
  }
}

const make = () => new Session(
  'https://server:7102', hooks, undefined, (url, protocols) => new FakeSocket(url, protocols),
  async () => (reachable ? (resumes) => new FakeSocket(`poll${resumes ? ' resume' : ''}`) : null),
);

/** The newest socket opens, and its register is answered. */
async function up(): Promise<void> {
  FakeSocket.last.open();
  server.serve(FakeSocket.last);
  await settled();
  expect(session.connected).toBe(true);
}

/** The next socket is made. */
async function next(): Promise<void> {
  const { length } = FakeSocket.made;
  while (FakeSocket.made.length === length) await vi.advanceTimersToNextTimerAsync();
}

/** It opens, and no answer comes in time. */
async function unanswered(): Promise<void> {
  FakeSocket.last.open();
  await next();
}

beforeEach(async () => {
  vi.useFakeTimers();
  vi.spyOn(console, 'warn').mockImplementation(nothing);
  FakeSocket.made = [];
  left = [];
  reachable = false;
  server = new Server();
  session = make();
});

afterEach(() => {
  session.disconnect();
  expect(vi.getTimerCount()).toBe(0);
  vi.useRealTimers();
  vi.restoreAllMocks();
});

async function start(): Promise<void> {
  const result = session.init('KP-1', LICENSE, 'me', 'Kim', 'pc', false);
  await up();
  expect((await result).code).toBe('200');
  left = [];
}

/** Each gives attempts up, and ends with a socket that the page waits for. */
const ways: [string, () => Promise<void>][] = [
  ['one', async () => {
    FakeSocket.last.die();
    await next();
    await unanswered();
  }],
  ['several', async () => {
    FakeSocket.last.die();
    await next();
    for (let i = 0; i < 5; i++) await unanswered();
  }],
  ['one in a network that is gone', async () => {
    session.renew();
    await next();
    session.renew();
    await next();
  }],
  ['one that polls', async () => {
    reachable = true;
    FakeSocket.last.die();
    await next();
    for (let polls = 0; polls < 2;) {
      await unanswered();
      if (FakeSocket.last.url.startsWith('poll')) polls++;
    }
  }],
  ['one of the page before it was frozen', async () => {
    FakeSocket.last.die();
    await next();
    FakeSocket.last.open();
    vi.setSystemTime(Date.now() + 3_600_000);
    await next();
  }],
  ['one of a WebSocket that takes over from polling', async () => {
    reachable = true;
    FakeSocket.last.die();
    await next();
    while (!FakeSocket.last.url.startsWith('poll')) await unanswered();
    await up();
    FakeSocket.last.die(WEBSOCKET_OPENS);
    await next();
    await unanswered();
  }],
];

const orders: [string, (sockets: FakeSocket[]) => FakeSocket[]][] = [
  ['in order', (sockets) => sockets], ['in reverse', (sockets) => [...sockets].reverse()],
];

describe.each(ways)('attempts that were given up: %s', (_, giveUp) => {
  it.each(orders)('are no takeover when they are served late, %s', async (__, order) => {
    await start();
    await giveUp();
    await up();
    const holder = FakeSocket.last;
    server.late(order);
    await settled();
    expect(server.holder?.socket).toBe(holder);
    expect([left, session.connected]).toEqual([[], true]);
    const answer = session.request('iceServers');
    holder.answer('iceServers');
    expect((await answer).code).toBe('200');
  });

  it('leave a takeover by another page what it is', async () => {
    await start();
    await giveUp();
    await up();
    const other = new FakeSocket('another page');
    other.send(JSON.stringify({ eventOp: 'register', reqId: '1', instance: 'other', attempt: 1 }));
    server.serve(other);
    await settled();
    expect(left).toEqual(['replaced']);
    expect((await session.request('iceServers')).code).toBe('409');
  });
});

it('attempts are numbered on after disconnect, and others are of another instance', async () => {
  await start();
  session.disconnect();
  await start();
  const registers = () => FakeSocket.made.map(({ sent }) => sent[0] as Required<Register>);
  expect(registers().map(({ attempt }) => attempt)).toEqual([1, 2]);
  expect(new Set(registers().map(({ instance }) => instance)).size).toBe(1);
  const another = make();
  void another.init('KP-1', LICENSE, 'you', 'Lee', 'pc', false);
  expect(registers()[2]!.instance).not.toBe(registers()[0]!.instance);
  another.disconnect();
  await vi.advanceTimersByTimeAsync(Timing.request);
});
