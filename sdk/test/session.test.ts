import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { InitResult } from '../types/knowledgetalk';
import { Session, type SessionHooks } from '../src/signaling/session';
import { FakeSocket, settled } from './browser';
import type { Json } from '../src/signaling/messages';
import { info, member } from './members';

const LICENSE = 'eyJhbGciOiJIUzI1NiJ9.e30.c2ln';
let session: Session;
let seen: string[];

const hooks: SessionHooks = {
  presence: (e) => seen.push(`${e.type} ${e.sender}`),
  signal: (from, s) => seen.push(`${s.eventOp} from ${from}`),
  subscribe: (from, type) => seen.push(`${from} wants ${type}`),
  wire: () => undefined,
  online: () => undefined,
  urgent: () => false,
  resumed: () => seen.push('resumed'),
  lost: () => seen.push('lost'),
  entered: () => seen.push('entered'),
  restored: () => seen.push('restored'),
  network: () => seen.push('network'),
  left: (reason) => seen.push(`left: ${reason}`),
};

const registered = (fields: object = {}) => ({
  userId: 'me',
  iceServers: [{ urls: ['stun:x'] }],
  resume: 'secret',
  resumeWindow: 20,
  resumed: false,
  ...fields,
});

/** A fake page: what the SDK uses of the browser, with its listeners. */
function page(href = 'https://app.example/room?x=1') {
  const listeners = new Map<string, (event: object) => void>();
  const storage = new Map<string, string>();
  const window = {
    location: { href }, isSecureContext: true,
    sessionStorage: {
      getItem: (k: string) => storage.get(k) ?? null,
      setItem: (k: string, v: string) => storage.set(k, v),
      removeItem: (k: string) => storage.delete(k),
    },
    addEventListener: (type: string, f: (event: object) => void) => listeners.set(type, f),
    removeEventListener: (type: string) => listeners.delete(type),
    document: {
      visibilityState: 'visible',
      currentScript: null,
      addEventListener: () => undefined,
      removeEventListener: () => undefined,
    },
  };
  const beacons: [string, string][] = [];
  vi.stubGlobal('window', window);
  vi.stubGlobal('document', window.document);
  vi.stubGlobal('navigator', {
    sendBeacon: (url: string, text: string) => beacons.push([url, text]),
  });
  return {
    listeners,
    storage,
    beacons,
    fire: (type: string, event: object = {}) => listeners.get(type)?.(event),
  };
}

const make = () =>
  new Session(
    'https://server:7102',
    hooks,
    undefined,
    (url, protocols) => new FakeSocket(url, protocols),
    async () => null,
  );

async function init(fields: object = {}, id?: string): Promise<InitResult> {
  const result = session.init('KP-1', LICENSE, id, 'Kim', 'pc', false);
  await settled();
  FakeSocket.last.open();
  FakeSocket.last.answer('register', registered(fields));
  await settled();
  return result;
}

async function join(...others: string[]): Promise<void> {
  const joined = session.joinRoom('R');
  await settled();
  FakeSocket.last.answer('joinRoom', info(5, 'me', ...others));
  expect((await joined).code).toBe('200');
  seen = [];
}

/** The socket dies; the next one opens and registers with this answer. */
async function again(answer: object): Promise<FakeSocket> {
  const made = FakeSocket.made.length;
  FakeSocket.last.die();
  while (FakeSocket.made.length === made) await vi.advanceTimersToNextTimerAsync();
  FakeSocket.last.open();
  FakeSocket.last.answer('register', answer);
  await settled();
  return FakeSocket.last;
}

/** The server answers liveness probes within this time. */
async function passes(socket: FakeSocket, seconds: number): Promise<void> {
  for (; seconds > 0; seconds--) {
    await vi.advanceTimersByTimeAsync(1_000);
    if (socket.ops().at(-1) === 'keepAlive') socket.answer('keepAlive');
  }
}

beforeEach(() => {
  vi.useFakeTimers();
  vi.spyOn(console, 'warn').mockImplementation(() => undefined);
  FakeSocket.made = [];
  seen = [];
  session = make();
});

afterEach(() => {
  session.disconnect();
  expect(vi.getTimerCount()).toBe(0);
  vi.useRealTimers();
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

describe('init', () => {
  it('registers with the features of this client', async () => {
    expect(await init({}, 'me')).toEqual({ code: '200', userId: 'me' });
    expect(FakeSocket.last.url).toBe('wss://server:7102/signal');
    expect(FakeSocket.last.sent[0]).toEqual({
      eventOp: 'register',
      reqId: '1',
      cpCode: 'KP-1',
      authKey: LICENSE,
      userId: 'me',
      name: 'Kim',
      device: 'pc',
      features: ['pair', 'publish', 'candidates', 'roster'],
      instance: expect.any(String),
      attempt: 1,
    });
    expect([session.userId, session.name]).toEqual(['me', 'Kim']);
  });

  it.each([
    ['421', [undefined, LICENSE]],
    ['421', ['KP-1', '']],
    ['422', [7n, LICENSE]],
    ['422', ['KP-1', 7]],
    ['422', ['x'.repeat(129), LICENSE]],
    ['422', ['KP-1', LICENSE, '__proto__']],
    ['422', ['KP-1', LICENSE, 'a\u0000']],
    ['422', ['KP-1', LICENSE, 'a', {}]],
  ])('returns %s for wrong arguments without a request', async (code, args) => {
    const [a, b, c, d] = args as unknown[];
    expect(await session.init(a, b, c, d, undefined, false)).toMatchObject({
      code,
      userId: '',
      message: expect.any(String),
      hint: expect.any(String),
    });
    expect(FakeSocket.made).toHaveLength(0);
  });

  it('detects swapped code and key', async () => {
    expect(
      await session.init(LICENSE, 'KP-1', undefined, undefined, undefined, false),
    ).toMatchObject({ code: '401', hint: expect.stringContaining('swapped') });
  });

  it.each([['401'], ['409'], ['413'], ['429'], ['445']])(
    'passes %s on with its hint, and can be called again',
    async (code) => {
      const result = session.init('KP-1', LICENSE, undefined, undefined, undefined, false);
      FakeSocket.last.open();
      FakeSocket.last.answer('register', { code, message: 'Because.', hint: 'Do this.' });
      expect(await result).toEqual({ code, userId: '', message: 'Because.', hint: 'Do this.' });
      expect(FakeSocket.last.closed).toBe(1000);
      expect((await init()).code).toBe('200');
    },
  );

  it('returns 504 after 10 s without a server, whatever the sockets do', async () => {
    const result = session.init('KP-1', LICENSE, undefined, undefined, undefined, false);
    for (let i = 0; i < 3; i++) {
      FakeSocket.last.die();
      await vi.advanceTimersByTimeAsync(600);
    }
    await vi.advanceTimersByTimeAsync(10_000);
    expect(await result).toMatchObject({
      code: '504',
      message: 'No answer from https://server:7102.',
      hint: expect.any(String),
    });
    await vi.advanceTimersByTimeAsync(60_000);
    const made = FakeSocket.made.length;
    await vi.advanceTimersByTimeAsync(60_000);
    expect(FakeSocket.made).toHaveLength(made);
  });

  it('tries again while the server does not reach its cluster, and reports that', async () => {
    const refused = { code: '543', message: 'No quorum.', hint: 'Try again in a second.' };
    const result = session.init('KP-1', LICENSE, 'me', undefined, undefined, false);
    await again(refused);
    await again(refused);
    await again(registered());
    expect(await result).toEqual({ code: '200', userId: 'me' });
    session.disconnect();
    const second = session.init('KP-1', LICENSE, 'me', undefined, undefined, false);
    await again(refused);
    await vi.advanceTimersByTimeAsync(10_000);
    expect(await second).toEqual({ userId: '', ...refused });
  });

  it.each([
    [undefined, '421', /server is missing/, /server: 'https:/],
    ['', '422', /server is not valid/, /https:/],
  ])('reports at once that the address of the server is %j', async (base, code, message, hint) => {
    session = new Session(
      base,
      hooks,
      undefined,
      (url) => new FakeSocket(url),
      async () => null,
    );
    const told = {
      code,
      userId: '',
      message: expect.stringMatching(message),
      hint: expect.stringMatching(hint),
    };
    expect(await session.init('KP-1', LICENSE, undefined, undefined, undefined, false)).toEqual(
      told,
    );
    expect(FakeSocket.made).toHaveLength(0);
  });

  it('reports at once that there is no WebSocket', async () => {
    vi.stubGlobal('WebSocket', undefined);
    session = new Session('https://server:7102', hooks);
    const told = {
      code: '405',
      userId: '',
      message: expect.stringContaining('WebSocket'),
      hint: expect.any(String),
    };
    expect(await session.init('KP-1', LICENSE, undefined, undefined, undefined, false)).toEqual(
      told,
    );
  });

  it('reaches a server under a path, and says goodbye there', async () => {
    const { fire, beacons } = page();
    session = new Session(
      'https://site/calls',
      hooks,
      undefined,
      (url, protocols) => new FakeSocket(url, protocols),
      async () => null,
    );
    await init();
    expect(FakeSocket.last.url).toBe('wss://site/calls/signal');
    fire('pagehide');
    expect(beacons).toEqual([['https://site/calls/leave', '{"resume":"secret"}']]);
  });

  it('reports too many connections, as far as plain requests show it', async () => {
    const refusing = () => {
      const socket = new FakeSocket('poll');
      queueMicrotask(() => socket.onclose?.({ code: 1006, status: 429 } as { code: number }));
      return socket;
    };
    session = new Session('https://server:7102', hooks, undefined, (url) => {
      const socket = new FakeSocket(url);
      queueMicrotask(() => socket.die());
      return socket;
    }, async () => refusing);
    const result = session.init('KP-1', LICENSE, undefined, undefined, undefined, false);
    await vi.advanceTimersByTimeAsync(10_000);
    expect(await result).toEqual({
      code: '429',
      userId: '',
      message: expect.any(String),
      hint: expect.any(String),
    });
  });

  it('reports that an insecure page has no camera', async () => {
    page();
    vi.stubGlobal('window', { ...window, isSecureContext: false });
    expect(await init()).toMatchObject({ code: '200', hint: expect.stringContaining('https') });
  });

  it('called twice is one init; with other arguments it opens another session', async () => {
    const one = session.init('KP-1', LICENSE, 'me', 'Kim', 'pc', false);
    const two = session.init('KP-1', LICENSE, 'me', 'Kim', 'pc', false);
    FakeSocket.last.open();
    FakeSocket.last.answer('register', registered());
    expect([await one, await two]).toEqual([
      { code: '200', userId: 'me' },
      { code: '200', userId: 'me' },
    ]);
    expect(FakeSocket.made).toHaveLength(1);
    expect(await session.init('KP-1', LICENSE, 'me', 'Kim', 'pc', false)).toEqual({
      code: '200',
      userId: 'me',
    });
    void session.init('KP-1', LICENSE, 'other', 'Kim', 'pc', false);
    await settled();
    expect(FakeSocket.made).toHaveLength(2);
    expect(FakeSocket.made[0]?.closed).toBe(1000);
  });
});

describe('before init', () => {
  it('everything returns 410', async () => {
    expect(await session.createRoom(undefined, undefined, undefined, true)).toMatchObject({
      code: '410',
      roomId: '',
    });
    expect((await session.joinRoom('R')).code).toBe('410');
    expect((await session.leaveRoom(undefined)).code).toBe('410');
    const list = await session.memberList(undefined);
    expect([list.code, Object.keys(list), list.members]).toEqual(['410', [], {}]);
  });
});

describe('rooms', () => {
  it('sends exactly the arguments of createRoom', async () => {
    await init();
    void session.createRoom(undefined, '', undefined, true);
    void session.createRoom(77, 'Weekly', '4', false);
    expect(FakeSocket.last.sent.slice(1)).toEqual([
      { eventOp: 'createRoom', reqId: '2', userId: 'me', destroy: true },
      {
        eventOp: 'createRoom',
        reqId: '3',
        userId: 'me',
        roomId: '77',
        title: 'Weekly',
        capacity: 4,
        destroy: false,
      },
    ]);
    expect(await session.createRoom('R', '', 0, true)).toMatchObject({ code: '422', roomId: '' });
  });

  it('gives the app a copy of the members, and holds early presence back', async () => {
    await init();
    const joined = session.joinRoom('R');
    await settled();
    const socket = FakeSocket.last;
    socket.receive({
      eventOp: 'presence',
      type: 'join',
      roomId: 'R',
      seq: 6,
      sender: 'late',
      user: { id: 'late' },
    });
    socket.receive({
      eventOp: 'presence',
      type: 'join',
      roomId: 'R',
      seq: 5,
      sender: 'me',
      user: { id: 'me' },
    });
    expect(seen.filter((s) => s.startsWith('join'))).toEqual([]);
    socket.answer('joinRoom', info(5, 'me', 'a'));
    const result = await joined;
    expect(Object.keys(result.members)).toEqual(['me', 'a']);
    expect(result).not.toHaveProperty('seq');
    expect(result).not.toHaveProperty('eventOp');
    expect(seen.slice(-2)).toEqual(['entered', 'join late']);
    for (const id of Object.keys(result.members)) delete result.members[id];
    expect([...session.room!.members.keys()]).toEqual(['me', 'a', 'late']);
  });

  it('memberList is a map whose code and members are not enumerable', async () => {
    await init();
    await join('a');
    const list = session.memberList(undefined);
    await settled();
    FakeSocket.last.answer('memberList', { members: info(5, 'me', 'a').members });
    const result = await list;
    const ids = [];
    for (const id in result) ids.push(id);
    expect([ids, result.code, Object.keys(result.members)]).toEqual([
      ['me', 'a'],
      '200',
      ['me', 'a'],
    ]);
  });

  it.each([
    'code',
    'members',
    'message',
    'hint',
    'screen',
    'constructor',
    'toString',
    'hasOwnProperty',
    'length',
    'null',
    'undefined',
    '0',
    '4',
    '김',
    '🙂',
  ])('memberList holds a user called %s', async (odd) => {
    await init();
    await join('a', odd);
    const list = session.memberList(undefined);
    await settled();
    FakeSocket.last.answer('memberList', {
      hint: 'wait',
      members: info(5, 'me', 'a', odd).members,
    });
    const result = (await list) as Record<string, any>;
    const names: Record<string, unknown> = {};
    for (const id in result) names[id] = result[id].name;
    expect(names).toEqual({ me: 'me', a: 'a', [odd]: odd });
    for (const [key, value] of Object.entries({ code: '200', message: 'ok', hint: 'wait' })) {
      if (key !== odd) expect(result[key]).toBe(value);
    }
    if (odd !== 'members') {
      expect(Object.keys(result.members).sort()).toEqual(['me', 'a', odd].sort());
    }
  });

  it('leaves the current room when none is named', async () => {
    await init();
    expect(await session.leaveRoom(undefined)).toMatchObject({
      code: '410',
      hint: expect.any(String),
    });
    await join();
    const left = session.leaveRoom(undefined);
    await settled();
    expect(FakeSocket.last.sent.at(-1)).toMatchObject({ eventOp: 'leaveRoom', roomId: 'R' });
    FakeSocket.last.answer('leaveRoom');
    expect(await left).toMatchObject({ code: '200' });
    expect([session.room, seen]).toEqual([null, ['left: left']]);
  });
});

describe('members who join and leave together', () => {
  it('are seen one by one, in order, while joining and afterwards', async () => {
    await init();
    const move = (seq: number, type: 'join' | 'leave', user: string) => ({
      eventOp: 'presence',
      type,
      roomId: 'R',
      seq,
      user: type === 'join' ? member(user) : user,
      sender: user,
    });
    const roster = (...events: Json[]) => ({
      eventOp: 'presence',
      type: 'roster',
      roomId: 'R',
      seq: events.at(-1)?.seq,
      events,
    });
    const joined = session.joinRoom('R');
    await settled();
    FakeSocket.last.receive(roster(move(6, 'join', 'a'), move(7, 'join', 'b')));
    FakeSocket.last.answer('joinRoom', info(5, 'me'));
    await joined;
    expect(seen.splice(0)).toEqual(['left: left', 'entered', 'join a', 'join b']);
    FakeSocket.last.receive(
      roster(move(8, 'leave', 'a'), move(9, 'join', 'a'), move(10, 'leave', 'b')),
    );
    FakeSocket.last.receive(roster(move(10, 'leave', 'b'), move(11, 'leave', 'a')));
    expect(seen).toEqual(['leave a', 'join a', 'leave b', 'leave a']);
  });
});

describe('a room that is not left by the app', () => {
  const leave = (seq: number, user: string) => ({
    eventOp: 'presence',
    type: 'leave',
    roomId: 'R',
    seq,
    user,
    sender: user,
  });

  it('is left when the server removed this user, and the app is told', async () => {
    await init();
    await join('a');
    FakeSocket.last.receive({
      eventOp: 'presence',
      type: 'kickOut',
      roomId: 'R',
      user: 'me',
      sender: 'a',
    });
    expect(seen).toEqual(['kickOut a']);
    FakeSocket.last.receive(leave(6, 'me'));
    expect([session.room, seen]).toEqual([null, ['kickOut a', 'left: left', 'leave me']]);
    FakeSocket.last.receive(leave(6, 'me'));
    expect(seen).toHaveLength(3);
    expect(await session.leaveRoom(undefined)).toMatchObject({ code: '410' });
  });

  it('passes all events until it was destroyed', async () => {
    await init();
    await join('a');
    for (const [i, user] of ['me', 'a'].entries()) FakeSocket.last.receive(leave(6 + i, user));
    FakeSocket.last.receive({ eventOp: 'presence', type: 'destroy', roomId: 'R', seq: 8 });
    expect(seen).toEqual(['left: left', 'leave me', 'leave a', 'destroy ']);
    await join('b');
    FakeSocket.last.receive({
      eventOp: 'presence',
      type: 'inform',
      roomId: 'R',
      seq: 6,
      user: 'b',
      sender: 'b',
    });
    expect(seen).toEqual(['inform b']);
  });

  it('is created again with its properties', async () => {
    await init();
    const joined = session.joinRoom('R');
    await settled();
    FakeSocket.last.answer('joinRoom', {
      ...info(5, 'me'),
      media: true,
      talkingNoty: true,
      title: 'T',
    });
    await joined;
    const socket = await again({ code: '410' });
    socket.answer('register', registered());
    await settled();
    socket.answer('joinRoom', { code: '441' });
    await settled();
    expect(socket.sent.at(-1)).toMatchObject({
      eventOp: 'createVideoRoom',
      roomId: 'R',
      title: 'T',
      capacity: 16,
      talkingNoty: true,
    });
  });
});

describe('messages to this user alone', () => {
  it('reach the app in a room or not', async () => {
    await init();
    FakeSocket.last.receive({
      eventOp: 'presence',
      type: 'inform',
      user: 'z',
      sender: 'z',
      message: 1,
    });
    await join('a');
    FakeSocket.last.receive({
      eventOp: 'presence',
      type: 'chat',
      roomId: 'S',
      user: 'z',
      sender: 'z',
      message: 'hi',
    });
    FakeSocket.last.receive({
      eventOp: 'subscribe',
      userId: 'a',
      target: 'me',
      type: 'cam',
      audio: true,
      video: true,
    });
    expect(seen).toEqual(['chat z', 'a wants cam']);
  });
});

it('creates a group room with its own operation', async () => {
  await init();
  const made = session.createVideoRoom('V', undefined, undefined, 'false', 'true');
  await settled();
  expect(FakeSocket.last.sent.at(-1)).toMatchObject({
    eventOp: 'createVideoRoom',
    roomId: 'V',
    destroy: false,
    talkingNoty: true,
  });
  FakeSocket.last.answer('createVideoRoom', { roomId: 'V' });
  expect(await made).toMatchObject({ code: '200', roomId: 'V' });
});

it('keeps a changed name through every reconnect', async () => {
  await init();
  session.name = 'Lee';
  const socket = await again(registered({ resumed: true }));
  expect([socket.sent[0].name, session.name]).toEqual(['Lee', 'Lee']);
});

describe('the same page reconnecting', () => {
  it('resumes with the resume token, and gets what it missed', async () => {
    await init();
    await join('a', 'b');
    const socket = await again(
      registered({ resumed: true, resume: 'secret 2', room: info(9, 'me', 'b', 'c') }),
    );
    expect(socket.sent[0]).toMatchObject({ eventOp: 'register', userId: 'me', resume: 'secret' });
    expect(socket.sent[0]).not.toHaveProperty('forced');
    expect(socket.url).toBe('wss://server:7102/signal?resume');
    expect(seen).toEqual(['leave a', 'join c', 'resumed']);
    await again(registered({ resumed: true, room: info(9, 'me', 'b', 'c') }));
    expect(FakeSocket.last.sent[0]).toMatchObject({ resume: 'secret 2' });
  });

  it('waits when the server limits its rate', async () => {
    await init();
    await join('a');
    await again({ code: '429', message: 'Because.' });
    expect(seen).toEqual([]);
    await again(registered({ resumed: true, room: info(5, 'me', 'a') }));
    expect(seen).toEqual(['resumed']);
  });

  it.each([['500'], ['504'], ['543']])('tries again when the server answers %s', async (code) => {
    await init();
    await join('a');
    await again({ code, message: 'Because.' });
    expect([seen, session.userId]).toEqual([[], 'me']);
    await again(registered({ resumed: true, room: info(5, 'me', 'a') }));
    expect(seen).toEqual(['resumed']);
  });

  it('sends the last seq of the room, and gets what was missed', async () => {
    await init();
    await join('a');
    const chat = (seq: number) => ({
      eventOp: 'presence',
      type: 'chat',
      roomId: 'R',
      seq,
      user: 'a',
      sender: 'a',
      message: `${seq}`,
    });
    FakeSocket.last.receive(chat(6));
    const socket = await again(registered({ resumed: true, room: info(9, 'me', 'a') }));
    expect(socket.sent[0]).toMatchObject({ eventOp: 'register', resume: 'secret', seq: 6 });
    for (const seq of [7, 9, 9]) socket.receive(chat(seq));
    expect(seen.filter((s) => s.startsWith('chat'))).toEqual(['chat a', 'chat a', 'chat a']);
    expect(
      (await again(registered({ resumed: true, room: info(9, 'me', 'a') }))).sent[0],
    ).toMatchObject({ seq: 9 });
    await again(registered({ resumed: true }));
    expect((await again(registered({ resumed: true }))).sent[0]).not.toHaveProperty('seq');
  });

  it('gets the answer of a joinRoom that was lost with the socket', async () => {
    await init();
    const joined = session.joinRoom('R');
    await settled();
    const socket = await again(registered({ resumed: true, room: info(5, 'a', 'me') }));
    expect((await joined).members).toHaveProperty('a');
    expect(socket.ops()).not.toContain('joinRoom');
    const left = session.leaveRoom(undefined);
    await settled();
    await again(registered({ resumed: true }));
    expect((await left).code).toBe('200');
    expect(session.room).toBeNull();
  });

  it('leaves a room whose joinRoom had failed for the app', async () => {
    await init();
    const joined = session.joinRoom('R');
    await settled();
    FakeSocket.last.die();
    await vi.advanceTimersByTimeAsync(10_000);
    expect((await joined).code).toBe('504');
    await again(registered({ resumed: true, room: info(5, 'me') }));
    expect(FakeSocket.last.sent.at(-1)).toMatchObject({ eventOp: 'leaveRoom', roomId: 'R' });
  });

  it('notices that it was removed from the room', async () => {
    await init();
    await join('a');
    await again(registered({ resumed: true }));
    expect([session.room, seen]).toEqual([null, ['left: session-ended', 'resumed']]);
  });

  it('registers again under its id when the session is gone, and rejoins', async () => {
    await init();
    await join('a', 'b');
    await session.relay({ eventOp: 'candidate', target: 'a' });
    const socket = await again({ code: '410' });
    expect(socket.sent[1]).toMatchObject({ eventOp: 'register', userId: 'me' });
    expect(socket.sent[1]).not.toHaveProperty('resume');
    socket.answer('register', registered());
    await settled();
    expect(socket.ops()).toEqual(['register', 'register', 'joinRoom']);
    socket.answer('joinRoom', info(3, 'b', 'me', 'c'));
    await settled();
    expect(seen).toEqual(['lost', 'leave a', 'join c', 'entered', 'restored']);
  });

  it('creates the room again when it ended with the server', async () => {
    await init();
    await join('a');
    const socket = await again({ code: '410' });
    socket.answer('register', registered());
    await settled();
    socket.answer('joinRoom', { code: '441' });
    await settled();
    expect(socket.sent.at(-1)).toMatchObject({ eventOp: 'createRoom', roomId: 'R' });
    socket.answer('createRoom', { code: '443' });
    await settled();
    socket.answer('joinRoom', info(1, 'me'));
    await settled();
    expect(seen).toEqual(['lost', 'leave a', 'entered', 'restored']);
  });

  it('waits when the rate of joins is limited, unless the app acts', async () => {
    await init();
    await join('a');
    const socket = await again({ code: '410' });
    // The longest wait: after a shorter one the test would answer a probe too late.
    vi.spyOn(Math, 'random').mockReturnValue(0.99);
    const joins = () => socket.ops().filter((op) => op === 'joinRoom').length;
    socket.answer('register', registered());
    await settled();
    socket.answer('joinRoom', { code: '429' });
    await settled();
    expect([seen, joins()]).toEqual([['lost'], 1]);
    await passes(socket, 16);
    expect(joins()).toBe(2);
    socket.answer('joinRoom', info(1, 'me'));
    await settled();
    expect(seen).toEqual(['lost', 'leave a', 'entered', 'restored']);

    const next = await again({ code: '410' });
    next.answer('register', registered());
    await settled();
    next.answer('joinRoom', { code: '429' });
    await settled();
    const left = session.leaveRoom('R');
    await settled();
    next.answer('leaveRoom', { code: '429' });
    expect((await left).code).toBe('429');
    expect(session.room).toBeNull();
    const other = session.joinRoom('Q');
    await settled();
    next.answer('joinRoom', { ...info(1, 'me'), roomId: 'Q' });
    expect((await other).code).toBe('200');
    await passes(next, 20);
    expect(next.ops().filter((op) => op === 'joinRoom')).toHaveLength(2);
    expect(session.room?.id).toBe('Q');
  });

  it.each(['429', '504', '543'])(
    'asks for its room again when that is answered %s, also for creating it',
    async (code) => {
      await init();
      await join('a');
      const socket = await again({ code: '410' });
      socket.answer('register', registered());
      await settled();
      // As above: the longest wait.
      vi.spyOn(Math, 'random').mockReturnValue(0.99);
      const joins = () => socket.ops().filter((op) => op === 'joinRoom').length;
      for (let asked = 1; asked <= 3; asked++) {
        expect([seen, joins()]).toEqual([['lost'], asked]);
        if (asked === 2) {
          socket.answer('joinRoom', { code: '441' });
          await settled();
          socket.answer('createRoom', { code });
        } else socket.answer('joinRoom', { code });
        await passes(socket, code === '429' ? 16 : 2);
      }
      socket.answer('joinRoom', info(1, 'me', 'a'));
      await settled();
      expect([seen, session.room?.id]).toEqual([['lost', 'entered', 'restored'], 'R']);
      expect(joins()).toBe(4);
    },
  );

  it.each([
    ['and was served', { room: info(1, 'a', 'me') }, 1],
    ['and was not served', {}, 2],
  ])('asks for its room once when that was lost with the socket %s', async (_, state, asked) => {
    await init();
    await join('a');
    const socket = await again({ code: '410' });
    socket.answer('register', registered());
    await settled();
    const next = await again(registered({ resumed: true, ...state }));
    const joins = [socket, next].flatMap((s) => s.ops()).filter((op) => op === 'joinRoom');
    expect(joins).toHaveLength(asked);
    if (asked > 1) next.answer('joinRoom', info(1, 'a', 'me'));
    await settled();
    expect([seen, session.room?.id]).toEqual([['lost', 'entered', 'restored'], 'R']);
  });

  it('reports when the room refuses it', async () => {
    await init();
    await join('a');
    const socket = await again({ code: '410' });
    socket.answer('register', registered());
    await settled();
    socket.answer('joinRoom', { code: '444' });
    await settled();
    expect(seen).toEqual(['lost', 'leave a', 'left: session-ended']);
    expect(session.room).toBeNull();
  });

  it('that lost its id to another client reports it from then on', async () => {
    await init();
    await join('a');
    const socket = await again({ code: '410' });
    socket.answer('register', { code: '409' });
    await settled();
    expect(await session.joinRoom('S')).toMatchObject({ code: '409', hint: expect.any(String) });
    expect(seen).toEqual(['left: replaced']);
    expect((await init()).code).toBe('200');
  });

  it.each([
    [4002, '409', 'replaced'],
    [4003, '401', 'session-ended'],
  ])('does not reconnect after close code %i', async (close, code, reason) => {
    await init();
    await join('a');
    FakeSocket.last.die(close);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(FakeSocket.made).toHaveLength(1);
    expect(seen).toEqual([`left: ${reason}`]);
    expect(await session.createRoom(undefined, undefined, undefined, true)).toMatchObject({
      code,
      message: expect.any(String),
      roomId: '',
    });
    expect(session.userId).toBe('');
  });
});

describe('a page that unloads', () => {
  it('leaves its resume token to the next page of the same server only', async () => {
    const { fire } = page();
    const on = (base: string) =>
      new Session(
        base,
        hooks,
        undefined,
        (url, protocols) => new FakeSocket(url, protocols),
        async () => null,
      );
    session = on('https://site/calls');
    await init({}, 'me');
    fire('pagehide');
    for (const [base, secret] of [
      ['https://site/other', undefined],
      ['https://site/calls', 'secret'],
    ] as const) {
      session.disconnect();
      session = on(base);
      await init({}, 'me');
      expect(FakeSocket.last.sent[0].resume).toBe(secret);
    }
  });

  it('leaves at once, and its successor takes over the id', async () => {
    const { fire, beacons, storage } = page();
    await init();
    await join('a');
    fire('pagehide', { persisted: false });
    expect(beacons).toEqual([['https://server:7102/leave', '{"resume":"secret"}']]);
    expect(FakeSocket.last.closed).toBe(1000);
    expect([...storage.values()]).toEqual(['{"userId":"me","resume":"secret"}']);

    session = make();
    const result = session.init('KP-1', LICENSE, undefined, 'Kim', 'pc', false);
    expect(storage.size).toBe(0);
    FakeSocket.last.open();
    expect(FakeSocket.last.sent[0]).toMatchObject({ userId: 'me', resume: 'secret', forced: true });
    FakeSocket.last.answer('register', registered());
    expect(await result).toEqual({ code: '200', userId: 'me' });
  });

  it('whose successor is refused: that gets another id', async () => {
    const { fire } = page();
    await init();
    fire('pagehide');
    session = make();
    const result = session.init('KP-1', LICENSE, undefined, 'Kim', 'pc', false);
    FakeSocket.last.open();
    FakeSocket.last.answer('register', { code: '409' });
    await settled();
    expect(FakeSocket.last.sent[1]).not.toHaveProperty('userId');
    expect(FakeSocket.last.sent[1]).not.toHaveProperty('resume');
    FakeSocket.last.answer('register', registered({ userId: 'new' }));
    expect(await result).toEqual({ code: '200', userId: 'new' });
  });

  it.each([
    ['another frame', 'https://app.example/other', 'KP-1', undefined],
    ['another license', 'https://app.example/room?x=1', 'KP-2', undefined],
    ['another wished id', 'https://app.example/room?x=1', 'KP-1', 'wish'],
  ])('leaves no resume token to %s', async (_, href, code, wished) => {
    const { fire } = page();
    await init();
    fire('pagehide');
    vi.stubGlobal('window', { ...window, location: { href } });
    session = make();
    void session.init(code, LICENSE, wished, 'Kim', 'pc', false);
    FakeSocket.last.open();
    expect(FakeSocket.last.sent[0]).not.toHaveProperty('resume');
  });

  it('and returns from the back-forward cache rejoins by itself', async () => {
    const { fire, storage } = page();
    await init();
    await join('a');
    fire('pagehide', { persisted: true });
    expect(seen).toEqual(['lost']);
    fire('pageshow', { persisted: true });
    expect(storage.size).toBe(0);
    FakeSocket.last.open();
    expect(FakeSocket.last.sent[0]).toMatchObject({ userId: 'me', resume: 'secret', forced: true });
    FakeSocket.last.answer('register', registered());
    await settled();
    FakeSocket.last.answer('joinRoom', info(8, 'me', 'b'));
    await settled();
    expect(seen).toEqual(['lost', 'leave a', 'join b', 'entered', 'restored']);
  });

  it('while it asks for its old room asks again when it returns', async () => {
    const { fire } = page();
    await init();
    await join('a');
    const socket = await again({ code: '410' });
    socket.answer('register', registered());
    await settled();
    expect(socket.ops().at(-1)).toBe('joinRoom');
    fire('pagehide');
    await vi.advanceTimersByTimeAsync(60_000);
    fire('pageshow', { persisted: true });
    await settled();
    const next = FakeSocket.last;
    next.open();
    next.answer('register', registered());
    await settled();
    next.answer('joinRoom', info(1, 'me', 'a'));
    await settled();
    expect(session.room?.id).toBe('R');
    expect(seen.filter((what) => what.startsWith('left'))).toEqual([]);
    expect(seen.slice(-2)).toEqual(['entered', 'restored']);
  });

  it('without a session sends nothing', () => {
    const { fire, beacons, storage } = page();
    void session.init('KP-1', LICENSE, undefined, undefined, undefined, false);
    fire('pagehide');
    expect([beacons, storage.size]).toEqual([[], 0]);
  });

  it('reports its own disconnect only as leave', async () => {
    await init();
    await join('a');
    session.disconnect();
    expect(seen).toEqual(['left: left']);
  });

  it('stops listening to the page after disconnect', async () => {
    const { listeners } = page();
    await init();
    expect(listeners.size).toBeGreaterThan(0);
    session.disconnect();
    expect(listeners.size).toBe(0);
  });
});

describe('relay credentials', () => {
  const servers = (expiry: number, credential: string) => [
    { urls: ['turn:x'], username: `${Math.floor(expiry / 1000)}:hash.session`, credential },
  ];

  it('are renewed for new connections after half their lifetime', async () => {
    await init({ iceServers: servers(Date.now() + 600_000, 'old') });
    expect((await session.freshIce())[0]?.credential).toBe('old');
    vi.setSystemTime(Date.now() + 301_000);
    const fresh = session.freshIce();
    await settled();
    FakeSocket.last.answer('iceServers', { iceServers: servers(Date.now() + 600_000, 'new') });
    expect((await fresh)[0]?.credential).toBe('new');
    expect((await session.freshIce())[0]?.credential).toBe('new');
  });

  it('are used as they are when the server does not answer, after 3 s', async () => {
    await init({ iceServers: servers(Date.now() + 600_000, 'old') });
    vi.setSystemTime(Date.now() + 301_000);
    const fresh = session.freshIce();
    await vi.advanceTimersByTimeAsync(3_000);
    expect((await fresh)[0]?.credential).toBe('old');
  });

  it('are not requested every time by a client with a wrong clock', async () => {
    await init({ iceServers: servers(Date.now() - 3_600_000, 'old') });
    await session.freshIce();
    expect(FakeSocket.last.ops()).toEqual(['register']);
  });

  it('are not requested where there is only STUN', async () => {
    await init();
    vi.setSystemTime(Date.now() + 3_600_000);
    await session.freshIce();
    expect(FakeSocket.last.ops()).toEqual(['register']);
  });
});
