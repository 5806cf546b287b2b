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
let allowed: boolean;
let probes: number;
let online: boolean;
/** The socket goes down with what is sent next. */
let lost: boolean;
let servers: RTCIceServer[];
let hooks: PeerSessionHooks;
let paths: PeerSession;

const RELAY = [{ urls: ['turn:relay:3478?transport=udp'], username: 'u', credential: 'c' }];
const stream = () => new FakeStream([track('audio'), track('video')]) as unknown as MediaStream;
const tracks = (c: FakeConnection) => c.getTransceivers().map((t) => t.sender.track?.kind ?? null);
const keyFrames = (c: FakeConnection) => c.getSenders()[1]!.keyFrames;
const SENDING = ['audio', 'video', null, null];
const SILENT = [null, null, null, null];

/** The other side answers beats. */
function answering(c: FakeConnection): { cut(): void; mend(): void } {
  let through = true;
  c.heartbeats.readyState = 'open';
  c.heartbeats.send = (text) => {
    if (through && text.startsWith('beat')) c.heartbeats.onmessage?.({ data: text.replace('beat', 'echo') });
  };
  c.heartbeats.onopen?.();
  return { cut: () => (through = false), mend: () => (through = true) };
}

/** Answers the newest offer. */
async function answer(link?: 'standby'): Promise<void> {
  await settled();
  const { gen, n } = sent.filter((m) => m.eventOp === 'sdp').at(-1) as Extract<Signal, { eventOp: 'sdp' }>;
  paths.signal({ eventOp: 'sdp', gen, n, sdp: { type: 'answer', sdp: 'theirs' }, ...(link ? { link } : {}) });
  await settled();
}

/** The same; that connection stands then. */
async function stand(c: FakeConnection, link?: 'standby'): Promise<ReturnType<typeof answering>> {
  await answer(link);
  c.become('connected');
  c.openChannel();
  await settled();
  return answering(c);
}

/** A call that sends the camera, with its second connection. */
async function call() {
  void paths.publish('cam', stream());
  await settled();
  const first = FakeConnection.made[0]!;
  const way = await stand(first);
  await settled();
  const second = FakeConnection.made[1]!;
  const relayed = await stand(second, 'standby');
  await vi.advanceTimersByTimeAsync(1_000);
  return { first, second, ...way, relayed };
}

/** What the other side publishes, said on one of the connections. */
function says(c: FakeConnection, more: object): Promise<void> {
  const { gen } = sent.filter((m) => m.eventOp === 'sdp')[FakeConnection.made.indexOf(c)] as Extract<Signal, { eventOp: 'sdp' }>;
  c.channel.onmessage?.({ data: JSON.stringify({ eventOp: 'publish', type: 'cam', rev: 0, audio: false, video: true, gen, ...more }) });
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
  allowed = true;
  probes = 0;
  online = true;
  lost = false;
  servers = RELAY;
  hooks = {
    sendSignal: async (signal) => {
      sent.push(signal);
      online &&= !lost;
      return lost ? '504' : '200';
    },
    apart: () => false,
    pass: () => undefined,
    online: () => online,
    iceServers: async () => servers,
    stream: (type, list) => (shown[type] = list),
    subscribed: () => subscribed++,
    report: changes((state, reason) => states.push(`${state}${reason && ` ${reason}`}`)),
    standby: () => allowed,
    probeServer: async () => (probes++, online),
  };
  paths = new PeerSession('a', 'b', hooks);
});

afterEach(() => {
  paths.dispose();
  expect([FakeConnection.open, vi.getTimerCount()]).toEqual([0, 0]);
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe('a second connection', () => {
  it('is made when the first carries media, over the relay only, and sends nothing', async () => {
    const { first, second } = await call();
    expect(FakeConnection.made).toHaveLength(2);
    expect(first.getConfiguration().iceTransportPolicy).toBeUndefined();
    expect(second.getConfiguration()).toMatchObject({ iceServers: RELAY, iceTransportPolicy: 'relay' });
    expect([tracks(first), tracks(second)]).toEqual([SENDING, SILENT]);
    expect(sent.filter((m) => 'link' in m).map((m) => m.eventOp)).toEqual(['sdp']);
    expect([states, paths.connection]).toEqual([['connecting', 'connected'], first]);
  });

  it.each<[string, () => void]>([
    ['without a relay', () => (servers = [{ urls: 'stun:x' }])],
    ['where it is not allowed', () => (allowed = false)],
  ])('is not made %s', async (_, change) => {
    change();
    void paths.publish('cam', stream());
    await settled();
    await stand(FakeConnection.made[0]!);
    await vi.advanceTimersByTimeAsync(5_000);
    paths.signal({ eventOp: 'sdp', gen: 9, n: 9, sdp: { type: 'answer', sdp: 'x' }, link: 'standby' });
    expect(FakeConnection.made).toHaveLength(1);
  });

  it('goes when the room has become too large for it, and is made again in one that is small enough', async () => {
    const { first, second } = await call();
    allowed = false;
    paths.feed({ kind: 'room' });
    await vi.advanceTimersByTimeAsync(Failover.settle);
    expect([first.connectionState, second.connectionState]).toEqual(['connected', 'closed']);
    // The other side may not know yet.
    paths.signal({ eventOp: 'sdp', gen: 2, n: 1, sdp: { type: 'offer', sdp: 'theirs' }, link: 'standby' });
    await vi.advanceTimersByTimeAsync(60_000);
    expect([FakeConnection.made.length, tracks(first), paths.connection]).toEqual([2, SENDING, first]);
    allowed = true;
    paths.feed({ kind: 'room' });
    await vi.advanceTimersByTimeAsync(Failover.settle);
    expect(FakeConnection.made[2]?.getConfiguration()).toMatchObject({ iceTransportPolicy: 'relay' });
    await stand(FakeConnection.made[2]!, 'standby');
  });

  it('goes when nothing is sent any more, and comes with the next picture', async () => {
    const { first, second } = await call();
    paths.feed({ kind: 'unpublish', type: 'cam' });
    await vi.advanceTimersByTimeAsync(Failover.settle);
    expect([first.connectionState, second.connectionState]).toEqual(['connected', 'closed']);
    // The other side, which has not heard of it, asks for another one.
    paths.signal({ eventOp: 'candidate', gen: 0, candidates: [], link: 'standby' });
    await vi.advanceTimersByTimeAsync(60_000);
    expect(FakeConnection.made).toHaveLength(2);
    void paths.publish('cam', stream());
    await settled();
    expect(FakeConnection.made).toHaveLength(3);
    await stand(FakeConnection.made[2]!, 'standby');
  });

  it('that the other side has closed is made anew by who makes it, and given up by the other one', async () => {
    const { second } = await call();
    second.channel.onclose?.();
    await settled();
    expect([second.connectionState, FakeConnection.made.length]).toEqual(['closed', 3]);
    paths.dispose();
    paths = new PeerSession('b', 'a', hooks);
    for (const link of [{}, { link: 'standby' as const }]) {
      paths.signal({ eventOp: 'sdp', gen: 9, n: 1, sdp: { type: 'offer', sdp: 'theirs' }, ...link });
      await settled();
    }
    const spare = FakeConnection.last;
    spare.become('connected');
    spare.openChannel();
    await vi.advanceTimersByTimeAsync(10_000);
    expect(spare.connectionState).toBe('connected');
    spare.channel.onclose?.();
    await vi.advanceTimersByTimeAsync(60_000);
    expect([spare.connectionState, FakeConnection.last]).toEqual(['closed', spare]);
  });

  it('that nobody answers for is tried again ever more seldom, or when something changes', async () => {
    void paths.publish('cam', stream());
    await settled();
    await stand(FakeConnection.made[0]!);
    await vi.advanceTimersByTimeAsync(Failover.refusedRetry);
    expect([FakeConnection.made.length, FakeConnection.open]).toEqual([2, 1]);
    await vi.advanceTimersByTimeAsync(2 * Failover.refusedRetry);
    expect([FakeConnection.made.length, FakeConnection.open]).toEqual([3, 1]);
    void paths.publish('screen', stream());
    await settled();
    expect(FakeConnection.made).toHaveLength(4);
  });

  it('that the other side has closed for the size of the room is not made anew', async () => {
    const { second } = await call();
    allowed = false;
    second.channel.onclose?.();
    await vi.advanceTimersByTimeAsync(10_000);
    expect([second.connectionState, FakeConnection.made.length]).toEqual(['closed', 2]);
  });

  it('that has died while it carried is asked for in words that go over the server', async () => {
    paths.dispose();
    paths = new PeerSession('b', 'a', hooks);
    void paths.publish('cam', stream());
    const ways = [];
    for (const link of [{}, { link: 'standby' as const }]) {
      paths.signal({ eventOp: 'sdp', gen: 9, n: 1, sdp: { type: 'offer', sdp: 'theirs' }, ...link });
      await settled();
      const c = FakeConnection.last;
      c.become('connected');
      c.openChannel();
      ways.push(answering(c));
      await vi.advanceTimersByTimeAsync(1_000);
    }
    ways[0]!.cut();
    await vi.advanceTimersByTimeAsync(1_000);
    ways[1]!.cut();
    await vi.advanceTimersByTimeAsync(1_000);
    expect(sent.filter((m) => 'link' in m).at(-1)).toEqual({ eventOp: 'candidate', gen: 0, candidates: [], link: 'standby' });
  });

  it('is not made in a room that has become small when nothing is sent', async () => {
    paths.feed({ kind: 'warm' });
    await settled();
    await stand(FakeConnection.made[0]!);
    paths.feed({ kind: 'room' });
    await vi.advanceTimersByTimeAsync(10_000);
    expect(FakeConnection.made).toHaveLength(1);
  });

  it('stays in a large room as long as media of either side passes on it', async () => {
    const { first, second, cut, mend } = await call();
    for (const c of [first, second]) await says(c, { epoch: 7 });
    cut();
    await vi.advanceTimersByTimeAsync(1_000);
    expect(tracks(second)).toEqual(SENDING);
    allowed = false;
    paths.feed({ kind: 'room' });
    await vi.advanceTimersByTimeAsync(20_000);
    mend();
    // Home, and no `unpublish` has come from the other side.
    await vi.advanceTimersByTimeAsync(5_000);
    expect([tracks(first), tracks(second), second.connectionState]).toEqual([SENDING, SILENT, 'connected']);
    await says(second, { eventOp: 'unpublish', epoch: 7 });
    await vi.advanceTimersByTimeAsync(Failover.settle);
    expect(second.connectionState).toBe('closed');
  });
});

describe('without the server', () => {
  /** Descriptions of the first connection, or the second, that went over a connection's channel. */
  const carried = (c: FakeConnection, link?: 'standby') =>
    (c.channel.sent as Record<string, unknown>[]).filter((m) => m.eventOp === 'sdp' && m.link === link);

  it('a restart is offered and answered over the data channel, and over the server when that is back', async () => {
    const { first } = await call();
    online = false;
    sent = [];
    paths.feed({ kind: 'network' });
    await settled();
    const [offer] = carried(first) as [{ gen: number; n: number }];
    expect([sent, offer]).toEqual([[], expect.objectContaining({ eventOp: 'sdp', sdp: expect.objectContaining({ type: 'offer' }) })]);
    const { gen, n } = offer;
    first.channel.onmessage?.({ data: JSON.stringify({ eventOp: 'sdp', gen, n, sdp: { type: 'answer', sdp: 'theirs' } }) });
    await settled();
    expect(first.log.at(-1)).toBe('remote answer');
    online = true;
    paths.feed({ kind: 'network' });
    await settled();
    // The other side may still be without it.
    expect([sent, carried(first)]).toEqual([[], [expect.anything(), expect.anything()]]);
    paths.signal({ eventOp: 'candidate', gen, candidates: [] });
    paths.feed({ kind: 'network' });
    await vi.advanceTimersByTimeAsync(4_000);
    expect(sent.map((m) => m.eventOp)).toContain('sdp');
  });

  it('what is half made is said again over the data channel, once it is known that the server is away', async () => {
    void paths.publish('cam', stream());
    await settled();
    const first = FakeConnection.made[0]!;
    await stand(first);
    await settled();
    const second = FakeConnection.made[1]!;
    expect(sent.at(-1)).toMatchObject({ eventOp: 'sdp', link: 'standby' });
    online = false;
    paths.feed({ kind: 'offline' });
    await settled();
    expect(carried(first, 'standby')).toHaveLength(1);
    const { gen, n } = sent.at(-1) as Extract<Signal, { eventOp: 'sdp' }>;
    first.channel.onmessage?.({ data: JSON.stringify({ eventOp: 'sdp', gen, n, link: 'standby', sdp: { type: 'answer', sdp: 'theirs' } }) });
    await settled();
    second.find('1');
    await vi.advanceTimersByTimeAsync(20);
    paths.feed({ kind: 'offline' });
    await settled();
    const candidates = (first.channel.sent as Record<string, unknown>[]).filter((m) => m.eventOp === 'candidate');
    expect(candidates).toEqual(Array(2).fill(expect.objectContaining({ link: 'standby', candidates: [{ candidate: '1' }] })));
  });

  it('what its socket took with it goes over the data channel', async () => {
    const { first } = await call();
    lost = true;
    paths.feed({ kind: 'network' });
    await settled();
    expect(carried(first)).toHaveLength(1);
  });

  it('it takes the second connection where the first is dead, and waits for the server where both are', async () => {
    const { first, second, cut } = await call();
    online = false;
    sent = [];
    cut();
    await vi.advanceTimersByTimeAsync(700);
    expect([carried(first), carried(second).length, sent]).toEqual([[], 1, []]);
    second.become('failed');
    await vi.advanceTimersByTimeAsync(4_000);
    expect(sent.map((m) => m.eventOp)).toContain('sdp');
  });
});

describe('a path that dies', () => {
  it('loses what is sent to the second one within a second, and is looked for anew', async () => {
    const { first, second, cut } = await call();
    cut();
    await vi.advanceTimersByTimeAsync(700);
    expect([tracks(first), tracks(second)]).toEqual([SILENT, SENDING]);
    expect(second.channel.sent.at(-1)).toMatchObject({ eventOp: 'publish', type: 'cam' });
    expect(first.log.slice(-3)).toEqual(['configure', 'restart', 'offer']);
    expect([states.at(-1), paths.connection, probes]).toEqual(['recovering path-dead', second, 1]);
  });

  it('takes it back when it lives again, both carrying it for a moment', async () => {
    const { first, second, cut, mend } = await call();
    cut();
    await vi.advanceTimersByTimeAsync(3_000);
    mend();
    await vi.advanceTimersByTimeAsync(600);
    expect([tracks(first), tracks(second)]).toEqual([SENDING, SENDING]);
    await vi.advanceTimersByTimeAsync(Failover.overlap);
    expect([tracks(first), tracks(second)]).toEqual([SENDING, SILENT]);
    expect(second.channel.sent.at(-1)).toMatchObject({ eventOp: 'unpublish', type: 'cam' });
    expect([states.slice(-2), paths.connection]).toEqual([['recovering path-dead', 'connected'], first]);
  });

  it('carries media again as soon as ICE has an answer, and is not looked for while its beats are under way', async () => {
    const { first, second, cut, mend } = await call();
    first.selected = { local: 'host', remote: 'host' };
    first.checksAnswered = 7;
    cut();
    await vi.advanceTimersByTimeAsync(1_000);
    const keys = keyFrames(first);
    first.checksAnswered++;
    await vi.advanceTimersByTimeAsync(100);
    expect([tracks(first), tracks(second), states.at(-1)]).toEqual([SENDING, SENDING, 'connected']);
    expect(keyFrames(first)).toBe(keys + 1);
    const { length } = first.log;
    await vi.advanceTimersByTimeAsync(Failover.sign - 500);
    expect(first.log).toHaveLength(length);
    mend();
    await vi.advanceTimersByTimeAsync(600 + Failover.overlap);
    expect([tracks(first), tracks(second), states.at(-1)]).toEqual([SENDING, SILENT, 'connected']);
  });

  it('that lives again over the relay alone looks for a direct way as long as there was one, ever more seldom', async () => {
    const { first, cut, mend } = await call();
    first.selected = { local: 'host', remote: 'srflx' };
    cut();
    await vi.advanceTimersByTimeAsync(700);
    await answer();
    first.selected = { local: 'srflx', remote: 'relay' };
    mend();
    await vi.advanceTimersByTimeAsync(600);
    expect(states.at(-1)).toBe('connected');
    const restarts = () => first.log.filter((entry) => entry === 'restart').length;
    const before = restarts();
    for (const [wait, more] of [[Failover.directRetry, 1], [2 * Failover.directRetry, 2], [4 * Failover.directRetry, 3]] as const) {
      await vi.advanceTimersByTimeAsync(wait - 700);
      expect(restarts()).toBe(before + more - 1);
      await vi.advanceTimersByTimeAsync(700);
      expect(restarts()).toBe(before + more);
      await answer();
    }
    first.selected = { local: 'srflx', remote: 'srflx' };
    await vi.advanceTimersByTimeAsync(10 * Failover.directRetryMost);
    expect(restarts()).toBe(before + 3);
  });

  it('that lives again before it is known whether it was direct is not restarted for the answer', async () => {
    const { first, cut, mend } = await call();
    first.selected = { local: 'relay', remote: 'srflx' };
    const statistics = first.getStats.bind(first);
    let answerStatistics = () => {};
    const waits = new Promise<void>((resolve) => (answerStatistics = resolve));
    // The server is asked just before the browser is.
    hooks.probeServer = async () => {
      first.getStats = () => waits.then(statistics);
      return true;
    };
    cut();
    await vi.advanceTimersByTimeAsync(700);
    await answer();
    mend();
    await vi.advanceTimersByTimeAsync(600);
    expect(states.at(-1)).toBe('connected');
    const before = [...first.log];
    answerStatistics();
    await vi.advanceTimersByTimeAsync(10 * Failover.directRetryMost);
    expect(first.log).toEqual(before);
  });

  it('whose report waited in its queue does not tell it once media goes over the backup', async () => {
    const { first, second, cut } = await call();
    second.become('disconnected');
    let giveServers = () => {};
    const waits = new Promise<void>((resolve) => (giveServers = resolve));
    hooks.iceServers = () => waits.then(() => servers);
    cut();
    await vi.advanceTimersByTimeAsync(700);
    expect(states.at(-1)).toBe('recovering path-dead');
    first.become('disconnected'); // behind the offer of the restart, which waits
    second.become('connected');
    await settled();
    const before = [...states];
    giveServers();
    await settled();
    expect([states, tracks(second)]).toEqual([before, SENDING]);
    await answer();
  });

  it.each<[string, { local: string; remote: string }, { local: string; remote: string }]>([
    ['was relayed before', { local: 'relay', remote: 'srflx' }, { local: 'relay', remote: 'srflx' }],
    ['is direct again', { local: 'host', remote: 'srflx' }, { local: 'srflx', remote: 'srflx' }],
  ])('that %s looks for no other', async (_, before, after) => {
    const { first, cut, mend } = await call();
    first.selected = before;
    cut();
    await vi.advanceTimersByTimeAsync(700);
    await answer();
    first.selected = after;
    mend();
    await vi.advanceTimersByTimeAsync(600);
    const { length } = first.log;
    await vi.advanceTimersByTimeAsync(Failover.directRetryMost);
    expect(first.log).toHaveLength(length);
  });

  it('whose one sign of life was the last is left again', async () => {
    const { first, second, cut } = await call();
    first.selected = { local: 'host', remote: 'host' };
    first.checksAnswered = 7;
    cut();
    await vi.advanceTimersByTimeAsync(1_000);
    first.checksAnswered++;
    await vi.advanceTimersByTimeAsync(Failover.sign + 200);
    expect([tracks(first), tracks(second), states.slice(-3)]).toEqual([SILENT, SENDING, ['recovering path-dead', 'connected', 'recovering path-dead']]);
    first.checksAnswered++;
    await vi.advanceTimersByTimeAsync(100);
    expect([tracks(first), states.at(-1)]).toEqual([SENDING, 'recovering path-dead']);
  });

  it('that dies again meanwhile leaves the media where it is', async () => {
    const { first, second, cut, mend } = await call();
    cut();
    await vi.advanceTimersByTimeAsync(3_000);
    mend();
    await vi.advanceTimersByTimeAsync(600);
    cut();
    await vi.advanceTimersByTimeAsync(5_000);
    expect([tracks(first), tracks(second)]).toEqual([SILENT, SENDING]);
  });

  it('has what is published and withdrawn meanwhile sent, and not sent, over the second one', async () => {
    const { first, second, cut } = await call();
    cut();
    await vi.advanceTimersByTimeAsync(1_000);
    void paths.publish('screen', new FakeStream([track('video')]) as unknown as MediaStream);
    await settled();
    expect([tracks(first), tracks(second)]).toEqual([SILENT, ['audio', 'video', null, 'video']]);
    // The first one's own channel would tell the other side of it only when it lives again.
    expect(sent.at(-1)).toMatchObject({ eventOp: 'publish', type: 'screen' });
    paths.feed({ kind: 'unpublish', type: 'cam' });
    await settled();
    expect(tracks(second)).toEqual([null, null, null, 'video']);
  });

  it('has what is published meanwhile succeed, and told, when the browser has seen that it is dead', async () => {
    const { first, cut, relayed } = await call();
    await says(first, { epoch: 7 });
    cut();
    await vi.advanceTimersByTimeAsync(1_000);
    first.become('disconnected');
    expect(await paths.publish('screen', new FakeStream([track('video')]) as unknown as MediaStream)).toBe(true);
    const { gen } = sent.filter((m) => m.eventOp === 'sdp')[0] as Extract<Signal, { eventOp: 'sdp' }>;
    paths.signal({ eventOp: 'publish', type: 'screen', epoch: 9, rev: 0, audio: false, video: true, gen });
    await settled();
    expect([subscribed, shown.screen?.length]).toEqual([2, 1]);
    relayed.cut();
    online = false;
    await vi.advanceTimersByTimeAsync(1_000);
    paths.signal({ eventOp: 'publish', type: 'screen', epoch: 10, rev: 0, audio: false, video: true, gen });
    await settled();
    expect(subscribed).toBe(2);
  });

  it.each<[string, (c: FakeConnection, relayed: ReturnType<typeof answering>) => Promise<unknown>]>([
    ['failed', async (c, relayed) => {
      online = false;
      relayed.cut();
      c.become('disconnected');
      await vi.advanceTimersByTimeAsync(1_000);
      const outcome = paths.publish('cam', stream());
      await vi.advanceTimersByTimeAsync(30_000);
      expect(await outcome).toBe(false);
    }],
    ['was refused', async (c) => {
      const { epoch } = (c.channel.sent as Signal[]).find((m) => m.eventOp === 'publish') as Extract<Signal, { eventOp: 'publish' }>;
      paths.signal({ eventOp: 'unpublish', type: 'cam', epoch, owner: 'a' });
      await settled();
    }],
  ])('has what %s meanwhile not sent over the second one either', async (_, change) => {
    const { first, second, cut, relayed } = await call();
    cut();
    await vi.advanceTimersByTimeAsync(1_000);
    expect(tracks(second)).toEqual(SENDING);
    await change(first, relayed);
    expect([paths.sending('cam'), tracks(second)]).toEqual([null, SILENT]);
  });

  it('without a second one is looked for anew all the same', async () => {
    allowed = false;
    void paths.publish('cam', stream());
    await settled();
    const c = FakeConnection.made[0]!;
    const { cut } = await stand(c);
    await vi.advanceTimersByTimeAsync(1_000);
    cut();
    await vi.advanceTimersByTimeAsync(1_000);
    expect(c.log.slice(-3)).toEqual(['configure', 'restart', 'offer']);
    expect([tracks(c), states.at(-1)]).toEqual([SENDING, 'recovering path-dead']);
  });

  it('with the other one has that replaced while the server answers, and is seen over it as soon as it stands', async () => {
    const { first, second, cut, relayed } = await call();
    cut();
    relayed.cut();
    await vi.advanceTimersByTimeAsync(1_000);
    const third = FakeConnection.made[2]!;
    expect([second.connectionState, third.getConfiguration().iceTransportPolicy]).toEqual(['closed', 'relay']);
    await vi.advanceTimersByTimeAsync(2_000);
    expect(FakeConnection.made).toHaveLength(3);
    await stand(third, 'standby');
    expect([tracks(third), tracks(first), states.at(-1), paths.connection]).toEqual([SENDING, SILENT, 'recovering path-dead', third]);
    expect(third.channel.sent).toContainEqual(expect.objectContaining({ eventOp: 'publish', type: 'cam' }));
  });

  it('whose other one lives again has its media sent over that', async () => {
    const { first, second, cut, relayed } = await call();
    online = false;
    relayed.cut();
    await vi.advanceTimersByTimeAsync(6_000);
    cut();
    await vi.advanceTimersByTimeAsync(1_000);
    expect([tracks(first), tracks(second)]).toEqual([SENDING, SILENT]);
    relayed.mend();
    await vi.advanceTimersByTimeAsync(1_000);
    expect([tracks(first), tracks(second)]).toEqual([SILENT, SENDING]);
  });

  it('has the other one replaced ever more seldom while it stays dead', async () => {
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
      const way = await stand(FakeConnection.last, 'standby');
      await vi.advanceTimersByTimeAsync(300);
      way.cut();
    }
    const gaps = at.slice(1).map((t, i) => t - at[i]!);
    expect(at.length).toBeGreaterThan(2);
    expect(gaps.every((gap, i) => gap >= Math.min(Failover.replaceMost, Failover.replace * 2 ** i))).toBe(true);
  });

  it('and lives again shows what the other side sends there, when the second one has died meanwhile', async () => {
    const { first, second, cut, mend, relayed } = await call();
    for (const c of [first, second]) await says(c, { epoch: 7 });
    const shows = (c: FakeConnection) => expect(shown.cam).toEqual([c.getTransceivers()[1]?.receiver.track]);
    shows(second);
    online = false;
    cut();
    await vi.advanceTimersByTimeAsync(1_000);
    relayed.cut();
    await vi.advanceTimersByTimeAsync(2_000);
    shows(second);
    mend();
    await vi.advanceTimersByTimeAsync(1_500);
    shows(first);
    relayed.mend();
    await vi.advanceTimersByTimeAsync(8_000);
    shows(second);
  });

  it('with all that there is has nothing replaced until the server answers', async () => {
    const { second, cut, relayed } = await call();
    online = false;
    cut();
    relayed.cut();
    await vi.advanceTimersByTimeAsync(10_000);
    expect([FakeConnection.made.length, second.connectionState]).toEqual([2, 'connected']);
    online = true;
    paths.feed({ kind: 'resumed' });
    await settled();
    expect([FakeConnection.made.length, second.connectionState]).toEqual([3, 'closed']);
  });

  it('is left for a second one that stands only then', async () => {
    void paths.publish('cam', stream());
    await settled();
    const [first] = FakeConnection.made as [FakeConnection];
    const { cut } = await stand(first);
    await vi.advanceTimersByTimeAsync(500);
    cut();
    await vi.advanceTimersByTimeAsync(800);
    const second = FakeConnection.made[1]!;
    const { gen, n } = sent.filter((m) => 'link' in m && m.eventOp === 'sdp').at(-1) as Extract<Signal, { eventOp: 'sdp' }>;
    paths.signal({ eventOp: 'sdp', gen, n, sdp: { type: 'answer', sdp: 'theirs' }, link: 'standby' });
    second.become('connected');
    second.openChannel();
    await settled();
    expect([tracks(first), tracks(second)]).toEqual([SILENT, SENDING]);
  });

  it('is not looked for once more when the other side has been first', async () => {
    paths.dispose();
    paths = new PeerSession('b', 'a', hooks);
    void paths.publish('cam', stream());
    const offer = async (n: number) => {
      paths.signal({ eventOp: 'sdp', gen: 9, n, sdp: { type: 'offer', sdp: 'theirs' } });
      await settled();
    };
    await offer(1);
    const first = FakeConnection.last;
    first.become('connected');
    first.openChannel();
    const { cut } = answering(first);
    await vi.advanceTimersByTimeAsync(1_000);
    const asked = () => sent.filter((m) => m.eventOp === 'candidate' && m.gen === 9 && m.candidates.length === 0).length;
    cut();
    await vi.advanceTimersByTimeAsync(400);
    await offer(2);
    await vi.advanceTimersByTimeAsync(400);
    expect([states.at(-1), asked()]).toEqual(['recovering path-dead', 0]);
    await vi.advanceTimersByTimeAsync(Failover.retry);
    expect(asked()).toBe(1);
  });

  it('and that nobody has used is not spoken of', async () => {
    paths.feed({ kind: 'warm' });
    await settled();
    const { cut } = await stand(FakeConnection.made[0]!);
    await vi.advanceTimersByTimeAsync(1_000);
    cut();
    await vi.advanceTimersByTimeAsync(8_000);
    expect([states, probes]).toEqual([[], 1]);
  });
});

it('what the other side sends is shown from the second one as long as it sends there, without another subscribed', async () => {
  const { first, second } = await call();
  const from = (c: FakeConnection) => [c.getTransceivers()[1]?.receiver.track];
  await says(first, { epoch: 7 });
  expect([shown.cam, subscribed]).toEqual([from(first), 1]);
  await says(second, { epoch: 7 });
  expect([shown.cam, subscribed]).toEqual([from(second), 1]);
  await says(second, { eventOp: 'unpublish', epoch: 7 });
  expect([shown.cam, subscribed]).toEqual([from(first), 1]);
  await says(second, { epoch: 8 });
  await says(first, { eventOp: 'unpublish', epoch: 7 });
  expect(shown.cam).toBeNull();
});

it('another network has both connections look for better paths, once for each', async () => {
  const { first, second } = await call();
  for (let i = 0; i < 3; i++) paths.feed({ kind: 'network' });
  await settled();
  for (const c of [first, second]) expect(c.log.filter((entry) => entry === 'restart')).toHaveLength(1);
  expect([tracks(first), tracks(second)]).toEqual([SENDING, SILENT]);
});

it('signals name the connection that they are for', () => {
  const wire = { eventOp: 'candidate', gen: 3, candidates: [{ candidate: 'c' }], type: 'cam' };
  expect(readSignal({ ...wire, link: 'standby' })).toMatchObject({ link: 'standby' });
  expect(readSignal({ ...wire, link: 'main' })).not.toHaveProperty('link');
});
