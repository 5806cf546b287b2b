import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { MediaType } from '../types/knowledgetalk';
import { LegacyPeer } from '../src/negotiation/legacy';
import { changes } from '../src/negotiation/report';
import { Negotiation } from '../src/negotiation/transport';
import { encodeSignal, readSignal, type Signal } from '../src/signaling/messages';
import { FakeStream, settled, track } from './browser';
import { FakeConnection } from './connections';

let sent: Signal[];
let code: string;
let log: string[];
let shown: Map<MediaType, string>;
let peer: LegacyPeer;
/** What the app does when it hears of a publication. */
let seen: () => void;

const stream = (...kinds: ('audio' | 'video')[]) =>
  new FakeStream(
    (kinds.length ? kinds : (['audio', 'video'] as const)).map((k) => track(k)),
  ) as unknown as MediaStream;
const from = (message: object) => peer.signal(readSignal(message as Record<string, unknown>)!);
const offer = (kinds: string, fingerprint: string, type: MediaType = 'cam') =>
  from({
    eventOp: 'sdp',
    type,
    sdp: { type: 'offer', sdp: `kinds:${kinds}\r\na=fingerprint:${fingerprint}\r\n` },
  });
const answer = (type: MediaType = 'cam') =>
  from({ eventOp: 'sdp', type, sdp: { type: 'answer', sdp: 'theirs' } });
const last = () => FakeConnection.last;
const kinds = (s: Signal[]) =>
  s.flatMap((m) => (m.eventOp === 'sdp' ? [`${m.sdp.type} ${m.type}`] : []));

/** We send our camera, and it is connected. */
async function sending(): Promise<FakeConnection> {
  const outcome = peer.publish('cam', stream());
  await settled();
  answer();
  await settled();
  last().become('connected');
  expect(await outcome).toBe(true);
  return last();
}

/** They send something, and it is connected. */
async function receiving(type: MediaType = 'cam'): Promise<FakeConnection> {
  offer('audio,video', 'one', type);
  await settled();
  last().become('connected');
  await settled();
  return last();
}

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal('MediaStream', FakeStream);
  vi.stubGlobal('RTCPeerConnection', FakeConnection);
  vi.spyOn(console, 'warn').mockImplementation(() => undefined);
  FakeConnection.made = [];
  sent = [];
  code = '200';
  log = [];
  seen = () => undefined;
  shown = new Map();
  peer = new LegacyPeer({
    sendSignal: async (signal) => {
      sent.push(signal);
      return code;
    },
    iceServers: async () => [],
    pass: () => undefined,
    stream: (type, tracks) =>
      tracks ? shown.set(type, tracks.map((t) => t.kind).join()) : shown.delete(type),
    subscribed: (type) => {
      log.push(`subscribed ${type} ${shown.get(type)}`);
      seen();
    },
    report: changes((state, reason) => log.push(`${state}${reason && ` ${reason}`}`)),
  });
});

afterEach(() => {
  peer.dispose();
  expect(FakeConnection.open, 'a connection outlives the peer').toBe(0);
  expect(vi.getTimerCount(), 'a timer outlives the peer').toBe(0);
  vi.useRealTimers();
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

describe('what we send', () => {
  it('has one unidirectional connection per type, with a plain offer', async () => {
    const c = await sending();
    expect(c.getTransceivers().map((t) => [t.sender.track?.kind, t.direction])).toEqual([
      ['audio', 'sendonly'],
      ['video', 'sendonly'],
    ]);
    void peer.publish('screen', stream('video'));
    await settled();
    expect(kinds(sent)).toEqual(['offer cam', 'offer screen']);
    expect(FakeConnection.open).toBe(2);
    expect(peer.connection).toBe(c);
    expect(log).toEqual(['connecting', 'connected', 'connecting']);
    expect(encodeSignal(sent[1]!, 'x', false)).toMatchObject([
      { eventOp: 'sdp', target: 'x', type: 'screen', sdp: { type: 'offer' } },
    ]);
  });

  it('sends candidates one by one, each with its type', async () => {
    void peer.publish('screen', stream('video'));
    await settled();
    last().find('1', '2');
    await vi.advanceTimersByTimeAsync(20);
    expect(encodeSignal(sent.at(-1)!, 'x', false)).toMatchObject([
      { eventOp: 'candidate', candidate: { candidate: '1' }, type: 'screen', cam: false },
      { eventOp: 'candidate', candidate: { candidate: '2' } },
    ]);
  });

  it('is replaced in place, and makes a new connection for other kinds', async () => {
    const c = await sending();
    const next = stream();
    expect(await peer.publish('cam', next)).toBe(true);
    expect(c.getSenders().map((s) => s.track)).toEqual(next.getTracks());
    void peer.publish('cam', stream('video'));
    await settled();
    expect([c.connectionState, FakeConnection.open, kinds(sent)]).toEqual([
      'closed',
      1,
      ['offer cam', 'offer cam'],
    ]);
  });

  it('ends with removeLocalPeer', async () => {
    await sending();
    peer.feed({ kind: 'unpublish', type: 'cam' });
    expect([FakeConnection.open, peer.sending('cam')]).toEqual([0, null]);
  });

  it.each<[string, () => Promise<void>]>([
    ['no-answer', async () => void (await vi.advanceTimersByTimeAsync(Negotiation.publish))],
    ['ice-failed', async () => {
      answer();
      await settled();
      last().become('failed');
    }],
    ['broken', async () => {
      from({ eventOp: 'sdp', type: 'cam', sdp: { type: 'answer', sdp: 'bad' } });
      await settled();
    }],
  ])('fails with a reason: %s', async (reason, happen) => {
    const outcome = peer.publish('cam', stream());
    await settled();
    await happen();
    expect(await outcome).toBe(false);
    expect([log.at(-1), FakeConnection.open]).toEqual([`failed ${reason}`, 0]);
  });

  it('fails when the server knows no such user', async () => {
    code = '403';
    expect(await peer.publish('cam', stream())).toBe(false);
    expect(log).toEqual(['connecting', 'failed not-in-room']);
  });

  it('is restored when it breaks, for a limited number of attempts', async () => {
    (await sending()).become('failed');
    expect(FakeConnection.open).toBe(0);
    for (let i = 0; i < 3; i++) {
      await vi.advanceTimersByTimeAsync(Negotiation.again * 2 ** i);
      expect(FakeConnection.open).toBe(1);
      last().become('failed');
    }
    await vi.advanceTimersByTimeAsync(600_000);
    expect([FakeConnection.made.length, FakeConnection.open, peer.sending('cam')]).toEqual([
      4,
      0,
      null,
    ]);
  });

  it.each<[string, (c: FakeConnection) => void]>([
    ['says so by DTLS', (c) => c.hangUp()], ['is seen late', (c) => c.become('closed')],
  ])('is not tried again when they close their connection, which %s', async (_, happen) => {
    happen(await sending());
    await vi.advanceTimersByTimeAsync(600_000);
    expect([FakeConnection.made.length, FakeConnection.open, peer.sending('cam'), log]).toEqual([
      1,
      0,
      null,
      ['connecting', 'connected'],
    ]);
    const c = await sending(); // the app may
    peer.feed({ kind: 'unpublish', type: 'cam' });
    c.hangUp();
    expect([FakeConnection.made.length, FakeConnection.open]).toEqual([2, 0]);
  });
});

describe('what they send', () => {
  it('is announced by its tracks, once it is connected', async () => {
    offer('audio,video', 'one');
    await settled();
    expect([kinds(sent), log]).toEqual([['answer cam'], ['connecting']]);
    last().become('connected');
    expect(log).toEqual(['connecting', 'subscribed cam audio,video', 'connected']);
    last().become('disconnected');
    last().become('connected');
    expect(log.filter((x) => x.startsWith('subscribed'))).toHaveLength(1);
  });

  it('is all that an app hears of that leaves when it sees it', async () => {
    offer('audio,video', 'one');
    await settled();
    seen = () => peer.dispose();
    last().become('connected');
    expect([log, FakeConnection.open]).toEqual([['connecting', 'subscribed cam audio,video'], 0]);
  });

  it('is one publication for each connection', async () => {
    const c = await receiving();
    offer('audio,video', 'one');
    await settled();
    expect([
      FakeConnection.made.length,
      log.filter((x) => x.startsWith('subscribed')).length,
    ]).toEqual([1, 1]);
    offer('video', 'two');
    await settled();
    expect([c.connectionState, shown.has('cam')]).toEqual(['closed', false]);
    last().become('connected');
    expect(log.filter((x) => x.startsWith('subscribed'))).toEqual([
      'subscribed cam audio,video',
      'subscribed cam video',
    ]);
  });

  it('ends as soon as they close', async () => {
    (await receiving()).hangUp();
    expect([shown.has('cam'), FakeConnection.open, log.at(-1)]).toEqual([false, 0, 'connected']);
  });

  it('ends without a failure when they close', async () => {
    (await receiving('screen')).become('closed');
    expect([shown.size, FakeConnection.open, log.at(-1)]).toEqual([0, 0, 'connected']);
  });

  it('that never connects is a failure', async () => {
    offer('video', 'one');
    await settled();
    last().become('failed');
    expect(log.at(-1)).toBe('failed ice-failed');
  });

  it('ends with removePeer', async () => {
    await receiving();
    peer.feed({ kind: 'refuse', type: 'cam' });
    expect([shown.size, FakeConnection.open]).toEqual([0, 0]);
  });

  it('does not affect our other direction', async () => {
    const out = await sending();
    const into = await receiving();
    expect(out).not.toBe(into);
    peer.feed({ kind: 'refuse', type: 'cam' });
    expect([out.connectionState, FakeConnection.open]).toEqual(['connected', 1]);
  });
});

describe('their candidates', () => {
  const candidate = (text: string, more: object = { type: 'cam' }) =>
    from({ eventOp: 'candidate', candidate: { candidate: text }, ...more });

  it('wait for the description, and go to both directions', async () => {
    candidate('early');
    offer('video', 'one');
    await settled();
    const into = last();
    expect(into.candidates).toEqual([{ candidate: 'early' }]);
    const out = await sending();
    candidate('late');
    await settled();
    expect([into.candidates, out.candidates].map((c) => c.at(-1))).toEqual([
      { candidate: 'late' },
      { candidate: 'late' },
    ]);
  });

  it('without a type use the field cam', async () => {
    const screen = await receiving('screen');
    candidate('x', { cam: false });
    candidate('y', { cam: 'true' });
    await settled();
    expect(screen.candidates).toEqual([{ candidate: 'x' }]);
  });

  it('refused by the browser are ignored, and waiting ones are bounded', async () => {
    for (let i = 0; i < 500; i++) candidate(i % 2 ? 'bad' : `${i}`);
    offer('video', 'one');
    await settled();
    expect(last().candidates).toHaveLength(64);
    last().become('connected');
    expect(log.at(-1)).toBe('connected');
  });
});

it('sends candidates again after the socket was away, until connected', async () => {
  void peer.publish('cam', stream());
  await settled();
  last().find('1');
  await vi.advanceTimersByTimeAsync(20);
  peer.feed({ kind: 'resumed' });
  expect(sent.filter((m) => m.eventOp === 'candidate')).toHaveLength(2);
});
