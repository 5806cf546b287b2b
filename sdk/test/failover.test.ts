import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { MediaType } from '../types/knowledgetalk';
import { Failover } from '../src/negotiation/failover';
import { changes } from '../src/negotiation/report';
import { PeerSession, type PeerSessionHooks } from '../src/negotiation/session';
import { readSignal, type Signal } from '../src/signaling/messages';
import { FakeStream, settled, track } from './browser';
import { FakeConnection } from './connections';

let sent: Signal[];
let states: string[];
let shown: Record<MediaType, unknown[] | null>;
let subscribed: number;
let backupAllowed: boolean;
let probes: number;
let online: boolean;
/** The socket dies with the next message. */
let socketDies: boolean;
let servers: RTCIceServer[];
let hooks: PeerSessionHooks;
let session: PeerSession;

const RELAY = [{ urls: ['turn:relay:3478?transport=udp'], username: 'u', credential: 'c' }];
const stream = () => new FakeStream([track('audio'), track('video')]) as unknown as MediaStream;
const tracks = (c: FakeConnection) => c.getTransceivers().map((t) => t.sender.track?.kind ?? null);
const keyFrames = (c: FakeConnection) => c.getSenders()[1]!.keyFrames;
const SENDING = ['audio', 'video', null, null];
const SILENT = [null, null, null, null];

/** The other side answers heartbeats. */
function answering(c: FakeConnection): { cut(): void; restore(): void } {
  let through = true;
  c.heartbeats.readyState = 'open';
  c.heartbeats.send = (text) => {
    if (through && text.startsWith('beat')) {
      c.heartbeats.onmessage?.({ data: text.replace('beat', 'echo') });
    }
  };
  c.heartbeats.onopen?.();
  return { cut: () => (through = false), restore: () => (through = true) };
}

/** Answers the newest offer. */
async function answer(link?: 'standby'): Promise<void> {
  await settled();
  const { gen, n } = sent.filter((m) => m.eventOp === 'sdp').at(-1) as Extract<
    Signal,
    { eventOp: 'sdp' }
  >;
  session.signal({
    eventOp: 'sdp',
    gen,
    n,
    sdp: { type: 'answer', sdp: 'theirs' },
    ...(link ? { link } : {}),
  });
  await settled();
}

/** The same, and the connection is up. */
async function connect(c: FakeConnection, link?: 'standby'): Promise<ReturnType<typeof answering>> {
  await answer(link);
  c.become('connected');
  c.openChannel();
  await settled();
  return answering(c);
}

/** A call that sends the camera, with its backup connection. */
async function call() {
  void session.publish('cam', stream());
  await settled();
  const primary = FakeConnection.made[0]!;
  const heartbeats = await connect(primary);
  await settled();
  const backup = FakeConnection.made[1]!;
  const relayed = await connect(backup, 'standby');
  await vi.advanceTimersByTimeAsync(1_000);
  return { primary, backup, ...heartbeats, relayed };
}

/** The other side publishes, over the data channel of one of the connections. */
function receives(c: FakeConnection, more: object): Promise<void> {
  const { gen } = sent.filter((m) => m.eventOp === 'sdp')[
    FakeConnection.made.indexOf(c)
  ] as Extract<Signal, { eventOp: 'sdp' }>;
  c.channel.onmessage?.({
    data: JSON.stringify({
      eventOp: 'publish',
      type: 'cam',
      rev: 0,
      audio: false,
      video: true,
      gen,
      ...more,
    }),
  });
  return settled();
}

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal('MediaStream', FakeStream);
  vi.stubGlobal('RTCPeerConnection', FakeConnection);
  FakeConnection.made = [];
  sent = [];
  states = [];
  shown = { cam: null, screen: null };
  subscribed = 0;
  backupAllowed = true;
  probes = 0;
  online = true;
  socketDies = false;
  servers = RELAY;
  hooks = {
    sendSignal: async (signal) => {
      sent.push(signal);
      online &&= !socketDies;
      return socketDies ? '504' : '200';
    },
    apart: () => false,
    pass: () => undefined,
    online: () => online,
    iceServers: async () => servers,
    stream: (type, list) => (shown[type] = list),
    subscribed: () => subscribed++,
    report: changes((state, reason) => states.push(`${state}${reason && ` ${reason}`}`)),
    standby: () => backupAllowed,
    probeServer: async () => (probes++, online),
  };
  session = new PeerSession('a', 'b', hooks);
});

afterEach(() => {
  session.dispose();
  expect([FakeConnection.open, vi.getTimerCount()]).toEqual([0, 0]);
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe('an app that leaves when it hears of something', () => {
  it.each(['connected', 'recovering path-dead'])('hears no more after %s', async (state) => {
    const told: string[] = [];
    const tell = (what: string) => {
      told.push(what);
      if (what === state) session.dispose();
    };
    hooks.report = changes((now, reason) => tell(`${now}${reason && ` ${reason}`}`));
    hooks.stream = (type) => told.push(`stream ${type}`);
    hooks.probeServer = async () => (told.push('probe'), true);
    const { cut } = await call().catch(() => ({ cut: () => undefined }));
    cut();
    await vi.advanceTimersByTimeAsync(1_500);
    expect([told.at(-1), FakeConnection.open, vi.getTimerCount()]).toEqual([state, 0, 0]);
  });
});

describe('a backup connection', () => {
  it('is made over the relay only once media flows, and sends nothing', async () => {
    const { primary, backup } = await call();
    expect(FakeConnection.made).toHaveLength(2);
    expect(primary.getConfiguration().iceTransportPolicy).toBeUndefined();
    expect(backup.getConfiguration()).toMatchObject({
      iceServers: RELAY,
      iceTransportPolicy: 'relay',
    });
    expect([tracks(primary), tracks(backup)]).toEqual([SENDING, SILENT]);
    expect(sent.filter((m) => 'link' in m).map((m) => m.eventOp)).toEqual(['sdp']);
    expect([states, session.connection]).toEqual([['connecting', 'connected'], primary]);
  });

  it.each<[string, () => void]>([
    ['without a relay', () => (servers = [{ urls: 'stun:x' }])],
    ['where it is not backupAllowed', () => (backupAllowed = false)],
  ])('is not made %s', async (_, change) => {
    change();
    void session.publish('cam', stream());
    await settled();
    await connect(FakeConnection.made[0]!);
    await vi.advanceTimersByTimeAsync(5_000);
    session.signal({
      eventOp: 'sdp',
      gen: 9,
      n: 9,
      sdp: { type: 'answer', sdp: 'x' },
      link: 'standby',
    });
    expect(FakeConnection.made).toHaveLength(1);
  });

  it('closes in a room that is too large, and comes back in one that is small enough', async () => {
    const { primary, backup } = await call();
    backupAllowed = false;
    session.feed({ kind: 'room' });
    await vi.advanceTimersByTimeAsync(Failover.settle);
    expect([primary.connectionState, backup.connectionState]).toEqual(['connected', 'closed']);
    // The other side may not know yet.
    session.signal({
      eventOp: 'sdp',
      gen: 2,
      n: 1,
      sdp: { type: 'offer', sdp: 'theirs' },
      link: 'standby',
    });
    await vi.advanceTimersByTimeAsync(60_000);
    expect([FakeConnection.made.length, tracks(primary), session.connection]).toEqual([
      2,
      SENDING,
      primary,
    ]);
    backupAllowed = true;
    session.feed({ kind: 'room' });
    await vi.advanceTimersByTimeAsync(Failover.settle);
    expect(FakeConnection.made[2]?.getConfiguration()).toMatchObject({
      iceTransportPolicy: 'relay',
    });
    await connect(FakeConnection.made[2]!, 'standby');
  });

  it('closes when nothing is sent, and comes back with the next video', async () => {
    const { primary, backup } = await call();
    session.feed({ kind: 'unpublish', type: 'cam' });
    await vi.advanceTimersByTimeAsync(Failover.settle);
    expect([primary.connectionState, backup.connectionState]).toEqual(['connected', 'closed']);
    // The other side does not know, and asks for another connection.
    session.signal({ eventOp: 'candidate', gen: 0, candidates: [], link: 'standby' });
    await vi.advanceTimersByTimeAsync(60_000);
    expect(FakeConnection.made).toHaveLength(2);
    void session.publish('cam', stream());
    await settled();
    expect(FakeConnection.made).toHaveLength(3);
    await connect(FakeConnection.made[2]!, 'standby');
  });

  it('closed by the other side is made again by its creator only', async () => {
    const { backup } = await call();
    backup.channel.onclose?.();
    await settled();
    expect([backup.connectionState, FakeConnection.made.length]).toEqual(['closed', 3]);
    session.dispose();
    session = new PeerSession('b', 'a', hooks);
    for (const link of [{}, { link: 'standby' as const }]) {
      session.signal({
        eventOp: 'sdp',
        gen: 9,
        n: 1,
        sdp: { type: 'offer', sdp: 'theirs' },
        ...link,
      });
      await settled();
    }
    const adopted = FakeConnection.last;
    adopted.become('connected');
    adopted.openChannel();
    await vi.advanceTimersByTimeAsync(10_000);
    expect(adopted.connectionState).toBe('connected');
    adopted.channel.onclose?.();
    await vi.advanceTimersByTimeAsync(60_000);
    expect([adopted.connectionState, FakeConnection.last]).toEqual(['closed', adopted]);
  });

  it('without an answer is tried again with growing waits, or after a change', async () => {
    void session.publish('cam', stream());
    await settled();
    await connect(FakeConnection.made[0]!);
    await vi.advanceTimersByTimeAsync(Failover.refusedRetry);
    expect([FakeConnection.made.length, FakeConnection.open]).toEqual([2, 1]);
    await vi.advanceTimersByTimeAsync(2 * Failover.refusedRetry);
    expect([FakeConnection.made.length, FakeConnection.open]).toEqual([3, 1]);
    void session.publish('screen', stream());
    await settled();
    expect(FakeConnection.made).toHaveLength(4);
  });

  it('closed for the size of the room is not made again', async () => {
    const { backup } = await call();
    backupAllowed = false;
    backup.channel.onclose?.();
    await vi.advanceTimersByTimeAsync(10_000);
    expect([backup.connectionState, FakeConnection.made.length]).toEqual(['closed', 2]);
  });

  it('that died while it sent is asked for over the server', async () => {
    session.dispose();
    session = new PeerSession('b', 'a', hooks);
    void session.publish('cam', stream());
    const answers = [];
    for (const link of [{}, { link: 'standby' as const }]) {
      session.signal({
        eventOp: 'sdp',
        gen: 9,
        n: 1,
        sdp: { type: 'offer', sdp: 'theirs' },
        ...link,
      });
      await settled();
      const c = FakeConnection.last;
      c.become('connected');
      c.openChannel();
      answers.push(answering(c));
      await vi.advanceTimersByTimeAsync(1_000);
    }
    answers[0]!.cut();
    await vi.advanceTimersByTimeAsync(1_000);
    answers[1]!.cut();
    await vi.advanceTimersByTimeAsync(1_000);
    expect(sent.filter((m) => 'link' in m).at(-1)).toEqual({
      eventOp: 'candidate',
      gen: 0,
      candidates: [],
      link: 'standby',
    });
  });

  it('is not made in a room that became small when nothing is sent', async () => {
    session.feed({ kind: 'warm' });
    await settled();
    await connect(FakeConnection.made[0]!);
    session.feed({ kind: 'room' });
    await vi.advanceTimersByTimeAsync(10_000);
    expect(FakeConnection.made).toHaveLength(1);
  });

  it('stays in a large room while media of either side uses it', async () => {
    const { primary, backup, cut, restore } = await call();
    for (const c of [primary, backup]) await receives(c, { epoch: 7 });
    cut();
    await vi.advanceTimersByTimeAsync(1_000);
    expect(tracks(backup)).toEqual(SENDING);
    backupAllowed = false;
    session.feed({ kind: 'room' });
    await vi.advanceTimersByTimeAsync(20_000);
    restore();
    // Media is back on the primary connection, and no `unpublish` has come from the other side.
    await vi.advanceTimersByTimeAsync(5_000);
    expect([tracks(primary), tracks(backup), backup.connectionState]).toEqual([
      SENDING,
      SILENT,
      'connected',
    ]);
    await receives(backup, { eventOp: 'unpublish', epoch: 7 });
    await vi.advanceTimersByTimeAsync(Failover.settle);
    expect(backup.connectionState).toBe('closed');
  });
});

describe('without the server', () => {
  /** Descriptions of the primary (or backup) connection that were sent over a data channel. */
  const overChannel = (c: FakeConnection, link?: 'standby') =>
    (c.channel.sent as Record<string, unknown>[]).filter(
      (m) => m.eventOp === 'sdp' && m.link === link,
    );

  it('an ICE restart is negotiated over the data channel until the server is back', async () => {
    const { primary } = await call();
    online = false;
    sent = [];
    session.feed({ kind: 'network' });
    await settled();
    const [offer] = overChannel(primary) as [{ gen: number; n: number }];
    expect([sent, offer]).toEqual([
      [],
      expect.objectContaining({ eventOp: 'sdp', sdp: expect.objectContaining({ type: 'offer' }) }),
    ]);
    const { gen, n } = offer;
    primary.channel.onmessage?.({
      data: JSON.stringify({ eventOp: 'sdp', gen, n, sdp: { type: 'answer', sdp: 'theirs' } }),
    });
    await settled();
    expect(primary.log.at(-1)).toBe('remote answer');
    online = true;
    session.feed({ kind: 'network' });
    await settled();
    // The other side may not have it yet.
    expect([sent, overChannel(primary)]).toEqual([[], [expect.anything(), expect.anything()]]);
    session.signal({ eventOp: 'candidate', gen, candidates: [] });
    session.feed({ kind: 'network' });
    await vi.advanceTimersByTimeAsync(4_000);
    expect(sent.map((m) => m.eventOp)).toContain('sdp');
  });

  it('a negotiation in progress is repeated over the data channel', async () => {
    void session.publish('cam', stream());
    await settled();
    const primary = FakeConnection.made[0]!;
    await connect(primary);
    await settled();
    const backup = FakeConnection.made[1]!;
    expect(sent.at(-1)).toMatchObject({ eventOp: 'sdp', link: 'standby' });
    online = false;
    session.feed({ kind: 'offline' });
    await settled();
    expect(overChannel(primary, 'standby')).toHaveLength(1);
    const { gen, n } = sent.at(-1) as Extract<Signal, { eventOp: 'sdp' }>;
    primary.channel.onmessage?.({
      data: JSON.stringify({
        eventOp: 'sdp',
        gen,
        n,
        link: 'standby',
        sdp: { type: 'answer', sdp: 'theirs' },
      }),
    });
    await settled();
    backup.find('1');
    await vi.advanceTimersByTimeAsync(20);
    session.feed({ kind: 'offline' });
    await settled();
    const candidates = (primary.channel.sent as Record<string, unknown>[]).filter(
      (m) => m.eventOp === 'candidate',
    );
    expect(candidates).toEqual(
      Array(2).fill(expect.objectContaining({ link: 'standby', candidates: [{ candidate: '1' }] })),
    );
  });

  it('what was lost with the socket goes over the data channel', async () => {
    const { primary } = await call();
    socketDies = true;
    session.feed({ kind: 'network' });
    await settled();
    expect(overChannel(primary)).toHaveLength(1);
  });

  it('signals use the backup if the primary is dead, and wait if both are', async () => {
    const { primary, backup, cut } = await call();
    online = false;
    sent = [];
    cut();
    await vi.advanceTimersByTimeAsync(700);
    expect([overChannel(primary), overChannel(backup).length, sent]).toEqual([[], 1, []]);
    backup.become('failed');
    await vi.advanceTimersByTimeAsync(4_000);
    expect(sent.map((m) => m.eventOp)).toContain('sdp');
  });
});

describe('a path that dies', () => {
  it('fails over to the backup within a second, and restarts ICE', async () => {
    const { primary, backup, cut } = await call();
    cut();
    await vi.advanceTimersByTimeAsync(700);
    expect([tracks(primary), tracks(backup)]).toEqual([SILENT, SENDING]);
    expect(backup.channel.sent.at(-1)).toMatchObject({ eventOp: 'publish', type: 'cam' });
    expect(primary.log.slice(-3)).toEqual(['configure', 'restart', 'offer']);
    expect([states.at(-1), session.connection, probes]).toEqual([
      'recovering path-dead',
      backup,
      1,
    ]);
  });

  it('fails back when it is alive again, after a moment of both sending', async () => {
    const { primary, backup, cut, restore } = await call();
    cut();
    await vi.advanceTimersByTimeAsync(3_000);
    restore();
    await vi.advanceTimersByTimeAsync(600);
    expect([tracks(primary), tracks(backup)]).toEqual([SENDING, SENDING]);
    await vi.advanceTimersByTimeAsync(Failover.overlap);
    expect([tracks(primary), tracks(backup)]).toEqual([SENDING, SILENT]);
    expect(backup.channel.sent.at(-1)).toMatchObject({ eventOp: 'unpublish', type: 'cam' });
    expect([states.slice(-2), session.connection]).toEqual([
      ['recovering path-dead', 'connected'],
      primary,
    ]);
  });

  it('takes media back at the first ICE response, and waits for heartbeats', async () => {
    const { primary, backup, cut, restore } = await call();
    primary.selected = { local: 'host', remote: 'host' };
    primary.checksAnswered = 7;
    cut();
    await vi.advanceTimersByTimeAsync(1_000);
    const keys = keyFrames(primary);
    primary.checksAnswered++;
    await vi.advanceTimersByTimeAsync(100);
    expect([tracks(primary), tracks(backup), states.at(-1)]).toEqual([
      SENDING,
      SENDING,
      'connected',
    ]);
    expect(keyFrames(primary)).toBe(keys + 1);
    const { length } = primary.log;
    await vi.advanceTimersByTimeAsync(Failover.sign - 500);
    expect(primary.log).toHaveLength(length);
    restore();
    await vi.advanceTimersByTimeAsync(600 + Failover.overlap);
    expect([tracks(primary), tracks(backup), states.at(-1)]).toEqual([
      SENDING,
      SILENT,
      'connected',
    ]);
  });

  it('that is relayed now but was direct retries with growing waits', async () => {
    const { primary, cut, restore } = await call();
    primary.selected = { local: 'host', remote: 'srflx' };
    cut();
    await vi.advanceTimersByTimeAsync(700);
    await answer();
    primary.selected = { local: 'srflx', remote: 'relay' };
    restore();
    await vi.advanceTimersByTimeAsync(600);
    expect(states.at(-1)).toBe('connected');
    const restarts = () => primary.log.filter((entry) => entry === 'restart').length;
    const before = restarts();
    for (const [wait, more] of [
      [Failover.directRetry, 1],
      [2 * Failover.directRetry, 2],
      [4 * Failover.directRetry, 3],
    ] as const) {
      await vi.advanceTimersByTimeAsync(wait - 700);
      expect(restarts()).toBe(before + more - 1);
      await vi.advanceTimersByTimeAsync(700);
      expect(restarts()).toBe(before + more);
      await answer();
    }
    primary.selected = { local: 'srflx', remote: 'srflx' };
    await vi.advanceTimersByTimeAsync(10 * Failover.directRetryMost);
    expect(restarts()).toBe(before + 3);
  });

  it('alive before the answer whether it was direct is not restarted', async () => {
    const { primary, cut, restore } = await call();
    primary.selected = { local: 'relay', remote: 'srflx' };
    const statistics = primary.getStats.bind(primary);
    let answerStatistics = () => {};
    const waits = new Promise<void>((resolve) => (answerStatistics = resolve));
    // The server is asked just before the browser is.
    hooks.probeServer = async () => {
      primary.getStats = () => waits.then(statistics);
      return true;
    };
    cut();
    await vi.advanceTimersByTimeAsync(700);
    await answer();
    restore();
    await vi.advanceTimersByTimeAsync(600);
    expect(states.at(-1)).toBe('connected');
    const before = [...primary.log];
    answerStatistics();
    await vi.advanceTimersByTimeAsync(10 * Failover.directRetryMost);
    expect(primary.log).toEqual(before);
  });

  it('does not report from its queue after a failover', async () => {
    const { primary, backup, cut } = await call();
    backup.become('disconnected');
    let giveServers = () => {};
    const waits = new Promise<void>((resolve) => (giveServers = resolve));
    hooks.iceServers = () => waits.then(() => servers);
    cut();
    await vi.advanceTimersByTimeAsync(700);
    expect(states.at(-1)).toBe('recovering path-dead');
    primary.become('disconnected'); // behind the offer of the restart, which waits
    backup.become('connected');
    await settled();
    const before = [...states];
    giveServers();
    await settled();
    expect([states, tracks(backup)]).toEqual([before, SENDING]);
    await answer();
  });

  it.each<[string, { local: string; remote: string }, { local: string; remote: string }]>([
    [
      'was relayed before',
      { local: 'relay', remote: 'srflx' },
      { local: 'relay', remote: 'srflx' },
    ],
    ['is direct again', { local: 'host', remote: 'srflx' }, { local: 'srflx', remote: 'srflx' }],
  ])('that %s is not restarted', async (_, before, after) => {
    const { primary, cut, restore } = await call();
    primary.selected = before;
    cut();
    await vi.advanceTimersByTimeAsync(700);
    await answer();
    primary.selected = after;
    restore();
    await vi.advanceTimersByTimeAsync(600);
    const { length } = primary.log;
    await vi.advanceTimersByTimeAsync(Failover.directRetryMost);
    expect(primary.log).toHaveLength(length);
  });

  it('with a single response fails over again', async () => {
    const { primary, backup, cut } = await call();
    primary.selected = { local: 'host', remote: 'host' };
    primary.checksAnswered = 7;
    cut();
    await vi.advanceTimersByTimeAsync(1_000);
    primary.checksAnswered++;
    await vi.advanceTimersByTimeAsync(Failover.sign + 200);
    expect([tracks(primary), tracks(backup), states.slice(-3)]).toEqual([
      SILENT,
      SENDING,
      ['recovering path-dead', 'connected', 'recovering path-dead'],
    ]);
    primary.checksAnswered++;
    await vi.advanceTimersByTimeAsync(100);
    expect([tracks(primary), states.at(-1)]).toEqual([SENDING, 'recovering path-dead']);
  });

  it('that dies again during failback stays failed over', async () => {
    const { primary, backup, cut, restore } = await call();
    cut();
    await vi.advanceTimersByTimeAsync(3_000);
    restore();
    await vi.advanceTimersByTimeAsync(600);
    cut();
    await vi.advanceTimersByTimeAsync(5_000);
    expect([tracks(primary), tracks(backup)]).toEqual([SILENT, SENDING]);
  });

  it('publishes and unpublishes on the backup meanwhile', async () => {
    const { primary, backup, cut } = await call();
    cut();
    await vi.advanceTimersByTimeAsync(1_000);
    void session.publish('screen', new FakeStream([track('video')]) as unknown as MediaStream);
    await settled();
    expect([tracks(primary), tracks(backup)]).toEqual([SILENT, ['audio', 'video', null, 'video']]);
    // The data channel of the primary connection would deliver only when its path works again.
    expect(sent.at(-1)).toMatchObject({ eventOp: 'publish', type: 'screen' });
    session.feed({ kind: 'unpublish', type: 'cam' });
    await settled();
    expect(tracks(backup)).toEqual([null, null, null, 'video']);
  });

  it('lets a publication succeed over the backup after the browser noticed', async () => {
    const { primary, cut, relayed } = await call();
    await receives(primary, { epoch: 7 });
    cut();
    await vi.advanceTimersByTimeAsync(1_000);
    primary.become('disconnected');
    expect(
      await session.publish('screen', new FakeStream([track('video')]) as unknown as MediaStream),
    ).toBe(true);
    const { gen } = sent.filter((m) => m.eventOp === 'sdp')[0] as Extract<
      Signal,
      { eventOp: 'sdp' }
    >;
    session.signal({
      eventOp: 'publish',
      type: 'screen',
      epoch: 9,
      rev: 0,
      audio: false,
      video: true,
      gen,
    });
    await settled();
    expect([subscribed, shown.screen?.length]).toEqual([2, 1]);
    relayed.cut();
    online = false;
    await vi.advanceTimersByTimeAsync(1_000);
    session.signal({
      eventOp: 'publish',
      type: 'screen',
      epoch: 10,
      rev: 0,
      audio: false,
      video: true,
      gen,
    });
    await settled();
    expect(subscribed).toBe(2);
  });

  it.each<[string, (c: FakeConnection, relayed: ReturnType<typeof answering>) => Promise<unknown>]>(
    [
      [
        'failed',
        async (c, relayed) => {
          online = false;
          relayed.cut();
          c.become('disconnected');
          await vi.advanceTimersByTimeAsync(1_000);
          const outcome = session.publish('cam', stream());
          await vi.advanceTimersByTimeAsync(30_000);
          expect(await outcome).toBe(false);
        },
      ],
      [
        'was refused',
        async (c) => {
          const { epoch } = (c.channel.sent as Signal[]).find(
            (m) => m.eventOp === 'publish',
          ) as Extract<Signal, { eventOp: 'publish' }>;
          session.signal({ eventOp: 'unpublish', type: 'cam', epoch, owner: 'a' });
          await settled();
        },
      ],
    ],
  )('also stops on the backup what %s', async (_, change) => {
    const { primary, backup, cut, relayed } = await call();
    cut();
    await vi.advanceTimersByTimeAsync(1_000);
    expect(tracks(backup)).toEqual(SENDING);
    await change(primary, relayed);
    expect([session.sending('cam'), tracks(backup)]).toEqual([null, SILENT]);
  });

  it('without a backup restarts ICE as well', async () => {
    backupAllowed = false;
    void session.publish('cam', stream());
    await settled();
    const c = FakeConnection.made[0]!;
    const { cut } = await connect(c);
    await vi.advanceTimersByTimeAsync(1_000);
    cut();
    await vi.advanceTimersByTimeAsync(1_000);
    expect(c.log.slice(-3)).toEqual(['configure', 'restart', 'offer']);
    expect([tracks(c), states.at(-1)]).toEqual([SENDING, 'recovering path-dead']);
  });

  it('together with the backup gets a new backup while the server answers', async () => {
    const { primary, backup, cut, relayed } = await call();
    cut();
    relayed.cut();
    await vi.advanceTimersByTimeAsync(1_000);
    const third = FakeConnection.made[2]!;
    expect([backup.connectionState, third.getConfiguration().iceTransportPolicy]).toEqual([
      'closed',
      'relay',
    ]);
    await vi.advanceTimersByTimeAsync(2_000);
    expect(FakeConnection.made).toHaveLength(3);
    await connect(third, 'standby');
    expect([tracks(third), tracks(primary), states.at(-1), session.connection]).toEqual([
      SENDING,
      SILENT,
      'recovering path-dead',
      third,
    ]);
    expect(third.channel.sent).toContainEqual(
      expect.objectContaining({ eventOp: 'publish', type: 'cam' }),
    );
  });

  it('uses a backup that is alive again', async () => {
    const { primary, backup, cut, relayed } = await call();
    online = false;
    relayed.cut();
    await vi.advanceTimersByTimeAsync(6_000);
    cut();
    await vi.advanceTimersByTimeAsync(1_000);
    expect([tracks(primary), tracks(backup)]).toEqual([SENDING, SILENT]);
    relayed.restore();
    await vi.advanceTimersByTimeAsync(1_000);
    expect([tracks(primary), tracks(backup)]).toEqual([SILENT, SENDING]);
  });

  it('replaces the backup with growing waits while it stays dead', async () => {
    const { cut, relayed } = await call();
    cut();
    relayed.cut();
    const at: number[] = [];
    const from = Date.now();
    while (Date.now() - from < 60_000) {
      const made = FakeConnection.made.length;
      await vi.advanceTimersByTimeAsync(100);
      if (FakeConnection.made.length === made) continue;
      at.push(Date.now() - from);
      const heartbeats = await connect(FakeConnection.last, 'standby');
      await vi.advanceTimersByTimeAsync(300);
      heartbeats.cut();
    }
    const gaps = at.slice(1).map((t, i) => t - at[i]!);
    expect(at.length).toBeGreaterThan(2);
    expect(
      gaps.every((gap, i) => gap >= Math.min(Failover.replaceMost, Failover.replace * 2 ** i)),
    ).toBe(true);
  });

  it('alive again shows what the other side sends there if the backup died', async () => {
    const { primary, backup, cut, restore, relayed } = await call();
    for (const c of [primary, backup]) await receives(c, { epoch: 7 });
    const shows = (c: FakeConnection) =>
      expect(shown.cam).toEqual([c.getTransceivers()[1]?.receiver.track]);
    shows(backup);
    online = false;
    cut();
    await vi.advanceTimersByTimeAsync(1_000);
    relayed.cut();
    await vi.advanceTimersByTimeAsync(2_000);
    shows(backup);
    restore();
    await vi.advanceTimersByTimeAsync(1_500);
    shows(primary);
    relayed.restore();
    await vi.advanceTimersByTimeAsync(8_000);
    shows(backup);
  });

  it('together with everything else replaces nothing until the server answers', async () => {
    const { backup, cut, relayed } = await call();
    online = false;
    cut();
    relayed.cut();
    await vi.advanceTimersByTimeAsync(10_000);
    expect([FakeConnection.made.length, backup.connectionState]).toEqual([2, 'connected']);
    online = true;
    session.feed({ kind: 'resumed' });
    await settled();
    expect([FakeConnection.made.length, backup.connectionState]).toEqual([3, 'closed']);
  });

  it('fails over to a backup that connects only then', async () => {
    void session.publish('cam', stream());
    await settled();
    const [primary] = FakeConnection.made as [FakeConnection];
    const { cut } = await connect(primary);
    await vi.advanceTimersByTimeAsync(500);
    cut();
    await vi.advanceTimersByTimeAsync(800);
    const backup = FakeConnection.made[1]!;
    const { gen, n } = sent.filter((m) => 'link' in m && m.eventOp === 'sdp').at(-1) as Extract<
      Signal,
      { eventOp: 'sdp' }
    >;
    session.signal({
      eventOp: 'sdp',
      gen,
      n,
      sdp: { type: 'answer', sdp: 'theirs' },
      link: 'standby',
    });
    backup.become('connected');
    backup.openChannel();
    await settled();
    expect([tracks(primary), tracks(backup)]).toEqual([SILENT, SENDING]);
  });

  it('is not restarted again when the other side did it', async () => {
    session.dispose();
    session = new PeerSession('b', 'a', hooks);
    void session.publish('cam', stream());
    const offer = async (n: number) => {
      session.signal({ eventOp: 'sdp', gen: 9, n, sdp: { type: 'offer', sdp: 'theirs' } });
      await settled();
    };
    await offer(1);
    const primary = FakeConnection.last;
    primary.become('connected');
    primary.openChannel();
    const { cut } = answering(primary);
    await vi.advanceTimersByTimeAsync(1_000);
    const asked = () =>
      sent.filter((m) => m.eventOp === 'candidate' && m.gen === 9 && m.candidates.length === 0)
        .length;
    cut();
    await vi.advanceTimersByTimeAsync(400);
    await offer(2);
    await vi.advanceTimersByTimeAsync(400);
    expect([states.at(-1), asked()]).toEqual(['recovering path-dead', 0]);
    await vi.advanceTimersByTimeAsync(Failover.retry);
    expect(asked()).toBe(1);
  });

  it('that nobody has used is not reported', async () => {
    session.feed({ kind: 'warm' });
    await settled();
    const { cut } = await connect(FakeConnection.made[0]!);
    await vi.advanceTimersByTimeAsync(1_000);
    cut();
    await vi.advanceTimersByTimeAsync(8_000);
    expect([states, probes]).toEqual([[], 1]);
  });
});

it('media on the backup is shown from there without another subscribed event', async () => {
  const { primary, backup } = await call();
  const from = (c: FakeConnection) => [c.getTransceivers()[1]?.receiver.track];
  await receives(primary, { epoch: 7 });
  expect([shown.cam, subscribed]).toEqual([from(primary), 1]);
  await receives(backup, { epoch: 7 });
  expect([shown.cam, subscribed]).toEqual([from(backup), 1]);
  await receives(backup, { eventOp: 'unpublish', epoch: 7 });
  expect([shown.cam, subscribed]).toEqual([from(primary), 1]);
  await receives(backup, { epoch: 8 });
  await receives(primary, { eventOp: 'unpublish', epoch: 7 });
  expect(shown.cam).toBeNull();
});

it('a network change restarts ICE once on each connection', async () => {
  const { primary, backup } = await call();
  for (let i = 0; i < 3; i++) session.feed({ kind: 'network' });
  await settled();
  for (const c of [primary, backup]) {
    expect(c.log.filter((entry) => entry === 'restart')).toHaveLength(1);
  }
  expect([tracks(primary), tracks(backup)]).toEqual([SENDING, SILENT]);
});

it('signals name their connection', () => {
  const wire = { eventOp: 'candidate', gen: 3, candidates: [{ candidate: 'c' }], type: 'cam' };
  expect(readSignal({ ...wire, link: 'standby' })).toMatchObject({ link: 'standby' });
  expect(readSignal({ ...wire, link: 'main' })).not.toHaveProperty('link');
});
