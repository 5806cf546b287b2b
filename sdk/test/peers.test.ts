import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Member, PeerStateEvent, Presence } from '../types/knowledgetalk';
import { Streams } from '../src/media/streams';
import { Negotiation } from '../src/negotiation/transport';
import { Failover } from '../src/negotiation/failover';
import { Peers } from '../src/negotiation/peers';
import { readSignal, type Request } from '../src/signaling/messages';
import { FakeStream, settled, track } from './browser';
import { FakeConnection } from './connections';
import { member } from './members';

let me: string;
let members: Map<string, Member>;
let sent: Request[];
let servers: RTCIceServer[];
let events: Presence[];
let code: string;
let streams: Streams;
let peers: Peers;
/** Kinds that the user has muted. */
let off: Set<string>;
/** Number of camera tracks that were seen to end. */
let ended: number;

const stream = (...kinds: ('audio' | 'video')[]) =>
  new FakeStream(
    (kinds.length ? kinds : (['audio', 'video'] as const)).map((k) => track(k)),
  ) as unknown as MediaStream;
const ops = () => sent.map((m) => m.eventOp);
const states = () =>
  events.flatMap((e) =>
    e.type === 'peerState' ? [`${e.state}${e.reason && ` ${e.reason}`}`] : [],
  );
const from = (id: string, message: object) =>
  peers.handleSignal(id, readSignal(message as Record<string, unknown>)!);
const lastSdp = () =>
  sent.filter((m) => m.eventOp === 'sdp').at(-1) as Request & {
    gen: number;
    n: number;
    sdp: { type: string };
  };
const offer = (more: object = {}) => ({
  eventOp: 'sdp',
  gen: 5,
  n: 1,
  sdp: { type: 'offer', sdp: 'theirs' },
  ...more,
});

/** a has published its camera to b; the connection is up. */
async function connected(): Promise<FakeConnection> {
  const outcome = peers.publish('b', 'cam', stream());
  await settled();
  const { gen, n } = lastSdp();
  from('b', { eventOp: 'sdp', gen, n, sdp: { type: 'answer', sdp: 'theirs' } });
  await settled();
  const c = FakeConnection.last;
  c.become('connected');
  c.openChannel();
  await settled();
  expect(await outcome).toBe(true);
  return c;
}

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal('MediaStream', FakeStream);
  vi.stubGlobal('RTCPeerConnection', FakeConnection);
  vi.spyOn(console, 'warn').mockImplementation(() => undefined);
  FakeConnection.made = [];
  me = 'a';
  members = new Map(
    ['a', 'b', 'c'].map((id) => [id, member(id, ['pair', 'publish', 'candidates'])]),
  );
  members.set('legacy', member('legacy'));
  sent = [];
  servers = [{ urls: 'stun:x' }];
  events = [];
  code = '200';
  streams = new Streams();
  off = new Set();
  ended = 0;
  peers = new Peers({
    me: () => me,
    roomId: () => 'R',
    member: (id) => members.get(id),
    members: () => [...members.keys()],
    relay: async (message) => {
      sent.push(message);
      return code;
    },
    iceServers: async () => servers,
    muted: (kind) => off.has(kind),
    ended: () => ended++,
    online: () => true,
    probeServer: async () => true,
    presence: (event) => events.push(event),
  }, streams);
});

afterEach(() => {
  peers.handleLeft('left');
  expect(FakeConnection.open, 'a connection outlives the room').toBe(0);
  expect(vi.getTimerCount(), 'a timer outlives the room').toBe(0);
  const said = [events.length, sent.length];
  for (const c of FakeConnection.made) {
    c.become('failed');
    c.find('late');
    expect(c.channel?.onmessage ?? null).toBeNull();
  }
  expect([events.length, sent.length], 'a closed connection is heard').toEqual(said);
  vi.useRealTimers();
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

describe('publishP2P that cannot work', () => {
  it.each<[string, () => unknown[]]>([
    ['not-in-room', () => ['nobody', 'cam', stream()]],
    ['not-in-room', () => [undefined, 'cam', stream()]],
    ['self', () => ['a', 'cam', stream()]],
    ['bad-type', () => ['b', 'file', stream()]],
    ['bad-stream', () => ['b', 'cam', {}]],
    ['bad-stream', () => ['b', 'cam', new FakeStream()]],
    ['bad-stream', () => ['b', 'cam', new FakeStream([track('video', 'ended')])]],
  ])('is false at once, and says why: %s', async (reason, args) => {
    const [target, type, media] = args();
    expect(await peers.publish(target, type, media)).toBe(false);
    expect(events).toHaveLength(1);
    expect(events[0]).toMatchObject({
      type: 'peerState',
      state: 'failed',
      reason,
      user: `${target}`,
      message: expect.stringMatching(/\.$/),
      hint: expect.any(String),
    });
    expect(console.warn).toHaveBeenCalledOnce();
    expect(FakeConnection.made).toHaveLength(0);
  });

  it('before init as well', async () => {
    me = '';
    expect(await peers.publish('b', 'cam', stream())).toBe(false);
    expect((events[0] as PeerStateEvent).reason).toBe('not-registered');
  });

  it('reports that there is no WebRTC', async () => {
    vi.stubGlobal('RTCPeerConnection', undefined);
    expect(await peers.publish('b', 'cam', stream())).toBe(false);
    expect(events).toMatchObject([
      {
        type: 'peerState',
        user: 'b',
        state: 'failed',
        reason: 'no-webrtc',
        hint: expect.stringContaining('RTCPeerConnection'),
      },
    ]);
    expect(sent).toEqual([]);
  });

  it('when the server knows no such user in the room', async () => {
    code = '403';
    expect(await peers.publish('b', 'cam', stream())).toBe(false);
    expect(states()).toEqual(['connecting', 'failed not-in-room']);
  });

  it('when the browser refuses the answer', async () => {
    const outcome = peers.publish('b', 'cam', stream());
    await settled();
    const { gen, n } = lastSdp();
    from('b', { eventOp: 'sdp', gen, n, sdp: { type: 'answer', sdp: 'bad' } });
    expect(await outcome).toBe(false);
    expect(states()).toEqual(['connecting', 'failed broken']);
  });

  it('when the target leaves', async () => {
    const outcome = peers.publish('b', 'cam', stream());
    await settled();
    peers.handleLeave('b');
    expect(await outcome).toBe(false);
    expect(states()).toEqual(['connecting', 'failed left']);
  });

  it('within 30 s, whatever hangs', async () => {
    vi.spyOn(FakeConnection.prototype, 'setLocalDescription').mockReturnValue(
      new Promise(() => undefined),
    );
    const outcome = peers.publish('b', 'cam', stream());
    await vi.advanceTimersByTimeAsync(Negotiation.publish);
    expect(await outcome).toBe(false);
  });
});

describe('a connection', () => {
  it('has the fixed layout, created by the smaller id', async () => {
    void peers.publish('b', 'cam', stream());
    await settled();
    const c = FakeConnection.last;
    expect(c.getTransceivers().map((t) => [t.receiver.track.kind, t.direction])).toEqual([
      ['audio', 'sendrecv'], ['video', 'sendrecv'], ['audio', 'sendrecv'], ['video', 'sendrecv'],
    ]);
    expect(c.channelOptions).toEqual({ negotiated: true, id: 0 });
    expect(c.getConfiguration()).toEqual({
      iceServers: [{ urls: 'stun:x' }],
      bundlePolicy: 'max-bundle',
      rtcpMuxPolicy: 'require',
    });
    expect(c.getTransceivers().map((t) => t.sender.track?.kind)).toEqual([
      'audio',
      'video',
      undefined,
      undefined,
    ]);
  });

  it('is adopted by the larger id, which then sends both ways', async () => {
    me = 'c';
    void peers.publish('b', 'screen', stream('video'));
    await settled();
    expect(FakeConnection.made).toHaveLength(0);
    expect(ops()).toEqual(['publish']);
    from('b', offer());
    await settled();
    const c = FakeConnection.last;
    expect(c.getTransceivers().map((t) => t.direction)).toEqual(Array(4).fill('sendrecv'));
    expect(c.getTransceivers().map((t) => t.sender.track?.kind)).toEqual([
      undefined,
      undefined,
      undefined,
      'video',
    ]);
    // The offering side starts DTLS.
    expect(lastSdp().sdp).toMatchObject({
      type: 'answer',
      sdp: expect.stringContaining('a=setup:passive'),
    });
  });

  it('with another layout is refused', async () => {
    me = 'c';
    from('b', offer({ sdp: { type: 'offer', sdp: 'other layout' } }));
    await settled();
    expect(states()).toEqual(['connecting', 'failed broken']);
  });

  it('is made for a publication during an unpublish', async () => {
    const first = peers.publish('b', 'cam', stream());
    peers.unpublish('b', 'cam');
    const [second] = await Promise.all([connected(), expect(first).resolves.toBe(false)]);
    expect([FakeConnection.open, FakeConnection.last === second]).toEqual([1, true]);
  });

  it('is shared by all publications', async () => {
    const c = await connected();
    const again = peers.publish('b', 'cam', stream('video'));
    const screen = peers.publish('b', 'screen', stream('video'));
    await settled();
    expect(await Promise.all([again, screen])).toEqual([true, true]);
    expect(FakeConnection.made).toHaveLength(1);
    expect(c.log.filter((x) => x === 'offer')).toHaveLength(1);
    expect(c.getTransceivers().map((t) => t.sender.track?.kind)).toEqual([
      undefined,
      'video',
      undefined,
      'video',
    ]);
  });

  it('prefers frame rate for cameras and sharpness for screens, unless told', async () => {
    const [cam, screen, chosen] = ['', '', 'text'].map((contentHint) =>
      Object.assign(track('video'), { contentHint }),
    );
    const of = (...tracks: unknown[]) =>
      new FakeStream(tracks as MediaStreamTrack[]) as unknown as MediaStream;
    await connected();
    await peers.publish('b', 'cam', of(cam));
    await peers.publish('b', 'screen', of(screen));
    await peers.publish('b', 'screen', of(chosen));
    await settled();
    expect([cam, screen, chosen].map((t) => t?.contentHint)).toEqual(['motion', 'detail', 'text']);
  });

  it('sends nothing after removeLocalPeer, and is kept', async () => {
    const c = await connected();
    expect(peers.unpublish('b', 'cam')).toBe(true);
    await settled();
    expect(c.getTransceivers().every((t) => t.sender.track === null)).toBe(true);
    expect(c.channel.sent.at(-1)).toMatchObject({ eventOp: 'unpublish', type: 'cam' });
    expect(peers.connection('b')).toBe(c);
  });

  it('closed by the app is reported and replaced, and publishing is true only then', async () => {
    const first = await connected();
    peers.connection('b')!.close();
    await settled();
    expect(states()).toEqual(['connecting', 'connected', 'interrupted interrupted', 'connecting']);
    const second = FakeConnection.last;
    expect([first.connectionState, FakeConnection.made.length]).toEqual(['closed', 2]);
    let outcome: boolean | undefined;
    void peers.publish('b', 'cam', stream()).then((ok) => (outcome = ok));
    await settled();
    expect(outcome).toBeUndefined();
    const { gen, n } = lastSdp();
    from('b', { eventOp: 'sdp', gen, n, sdp: { type: 'answer', sdp: 'theirs' } });
    await settled();
    second.become('connected');
    second.openChannel();
    await settled();
    expect([outcome, states().at(-1), peers.connection('b')]).toEqual([true, 'connected', second]);
  });

  it('keeps the handlers that an app sets, and works all the same', async () => {
    const called: string[] = [];
    const outcome = peers.publish('b', 'cam', stream());
    await settled();
    const pc = peers.connection('b')!;
    for (const name of ['onconnectionstatechange', 'onicecandidate', 'ontrack'] as const) {
      expect(pc[name] ?? null).toBeNull();
      pc[name] = () => called.push(name);
    }
    const { gen, n } = lastSdp();
    from('b', { eventOp: 'sdp', gen, n, sdp: { type: 'answer', sdp: 'theirs' } });
    await settled();
    FakeConnection.last.become('connected');
    FakeConnection.last.openChannel();
    await settled();
    expect([await outcome, states().at(-1), called]).toEqual([true, 'connected', []]);
    expect(typeof pc.onconnectionstatechange).toBe('function');
  });

  it('answers with what the browser made if it refuses the changed answer', async () => {
    me = 'c';
    const set = vi
      .spyOn(FakeConnection.prototype, 'setLocalDescription')
      .mockImplementationOnce(async () => {
        throw new Error('modified');
      });
    from('b', offer());
    await settled();
    expect(set.mock.calls.map(([given]) => /setup:\w+/.exec(given!.sdp)?.[0])).toEqual([
      'setup:passive',
      'setup:active',
    ]);
    expect(lastSdp().sdp).toMatchObject({
      type: 'answer',
      sdp: expect.stringContaining('setup:active'),
    });
    expect(states()).toEqual(['connecting']);
  });

  it('restarts ICE with fresh servers', async () => {
    const c = await connected();
    c.become('failed');
    await settled();
    expect(c.log.slice(-3)).toEqual(['configure', 'restart', 'offer']);
  });

  it.each([
    ['nobody', 'cam'],
    ['b', 'file'],
    [7, 'cam'],
  ])('is not affected by wrong arguments: %s %s', (target, type) => {
    expect([peers.unpublish(target, type), peers.refuse(target, type)]).toEqual([false, false]);
  });
});

it('tells whether media has stopped', async () => {
  const c = await connected();
  const told = [peers.silent];
  for (const state of ['disconnected', 'connected'] as const) {
    c.become(state);
    await settled();
    told.push(peers.silent);
  }
  expect(told).toEqual([false, true, false]);
});

it('closes backup connections when the room grows beyond warmPeers', async () => {
  servers = [{ urls: 'turn:x', username: 'u', credential: 'c' }];
  members = new Map(
    ['a', 'b'].map((id) => [id, member(id, ['pair', 'publish', 'candidates', 'standby'])]),
  );
  await connected();
  expect(FakeConnection.open).toBe(2);
  const come = ['c', 'd', 'e'];
  for (const id of come) members.set(id, member(id));
  peers.handleMembers(come);
  await vi.advanceTimersByTimeAsync(Failover.settle);
  expect(FakeConnection.open).toBe(1);
  members.delete('e');
  peers.handleLeave('e');
  await vi.advanceTimersByTimeAsync(Failover.settle);
  expect(FakeConnection.open).toBe(2);
});

describe('a prewarmed connection', () => {
  /** a and b alone in a room; their connection is up and nobody has published. */
  async function warmed(): Promise<FakeConnection> {
    members = new Map(
      ['a', 'b'].map((id) => [id, member(id, ['pair', 'publish', 'candidates', 'warm'])]),
    );
    peers.handleMembers(['a', 'b']);
    await settled();
    const { gen, n } = lastSdp();
    from('b', { eventOp: 'sdp', gen, n, sdp: { type: 'answer', sdp: 'theirs' } });
    await settled();
    FakeConnection.last.become('connected');
    FakeConnection.last.openChannel();
    await settled();
    return FakeConnection.last;
  }

  it('is connected on joining, and hidden from the app', async () => {
    const c = await warmed();
    expect(c.getTransceivers().map((t) => t.sender.track)).toEqual([null, null, null, null]);
    expect([events, peers.connections(), peers.connection('b'), streams.all()]).toEqual([
      [],
      {},
      undefined,
      {},
    ]);
  });

  it('publishes without negotiation, and is visible to the app then', async () => {
    const c = await warmed();
    sent = [];
    expect(await peers.publish('b', 'cam', stream())).toBe(true);
    expect([sent, c.log]).toEqual([[], ['offer', 'remote answer']]);
    expect(c.channel.sent.at(-1)).toMatchObject({ eventOp: 'publish', type: 'cam' });
    expect([states(), peers.connection('b')]).toEqual([['connected'], c]);
  });

  it('shows what the other side publishes', async () => {
    const c = await warmed();
    c.channel.onmessage?.({
      data: JSON.stringify({
        eventOp: 'publish',
        type: 'cam',
        epoch: 9,
        rev: 0,
        audio: true,
        video: true,
        gen: lastSdp().gen,
      }),
    });
    await settled();
    expect(events.map((e) => e.type)).toEqual(['peerState', 'subscribed']);
    expect(peers.connection('b')).toBe(c);
  });

  it('fails without a report, and is tried again', async () => {
    const c = await warmed();
    c.become('failed');
    await vi.advanceTimersByTimeAsync(7 * Negotiation.repeat);
    expect([FakeConnection.open, events]).toEqual([0, []]);
    await vi.advanceTimersByTimeAsync(Negotiation.again);
    expect(FakeConnection.open).toBe(1);
  });

  it('restarts ICE once with the camera if it was relayed', async () => {
    const c = await warmed();
    c.find('candidate:1 1 udp 1 0a1b.local 50000 typ host');
    c.selected = { local: 'srflx', remote: 'prflx' };
    await peers.publish('b', 'cam', stream());
    await vi.advanceTimersByTimeAsync(Negotiation.settle);
    expect(c.log.slice(-3)).toEqual(['configure', 'restart', 'offer']);
    const log = [...c.log];
    await peers.publish('b', 'cam', stream());
    await vi.advanceTimersByTimeAsync(Negotiation.settle);
    expect(c.log).toEqual(log);
  });

  it('does not where a direct path is found a little later', async () => {
    const c = await warmed();
    c.find('candidate:1 1 udp 1 0a1b.local 50000 typ host');
    c.selected = { local: 'relay', remote: 'relay' };
    await peers.publish('b', 'cam', stream());
    c.selected = { local: 'host', remote: 'prflx' };
    await vi.advanceTimersByTimeAsync(Negotiation.settle);
    expect(c.log).toEqual(['offer', 'remote answer']);
  });

  it.each([
    ['host', 'host', '0a1b.local'],
    ['srflx', 'srflx', '192.168.0.2'],
  ])('is not restarted for %s–%s found with %s', async (local, remote, address) => {
    const c = await warmed();
    c.find(`candidate:1 1 udp 1 ${address} 50000 typ host`);
    c.selected = { local, remote };
    await peers.publish('b', 'cam', stream());
    await vi.advanceTimersByTimeAsync(Negotiation.settle);
    expect(c.log).toEqual(['offer', 'remote answer']);
  });

  it.each<[string, () => Map<string, Member>, number]>([
    [
      'nobody in a larger room',
      () => new Map('abcde'.split('').map((id) => [id, member(id, ['pair', 'warm'])])),
      0,
    ],
    [
      'nobody with other software',
      () =>
        new Map([
          ['a', member('a')],
          ['b', member('b')],
          ['c', member('c', ['pair'])],
        ]),
      0,
    ],
    [
      'those with larger ids',
      () => new Map('abc'.split('').map((id) => [id, member(id, ['pair', 'warm'])])),
      2,
    ],
  ])('is made with %s', async (_, room, made) => {
    members = room();
    peers.handleMembers([...members.keys()]);
    await settled();
    expect(FakeConnection.made).toHaveLength(made);
  });

  it('is made when the room becomes small enough', async () => {
    members = new Map('abcde'.split('').map((id) => [id, member(id, ['pair', 'warm'])]));
    peers.handleMembers([...members.keys()]);
    members.delete('e');
    peers.handleLeave('e');
    await settled();
    expect(FakeConnection.made).toHaveLength(3);
  });
});

describe('candidates', () => {
  it('follow the description, several in a message', async () => {
    void peers.publish('b', 'cam', stream());
    await settled();
    const c = FakeConnection.last;
    c.find('1', '2', '');
    expect(ops()).toEqual(['sdp', 'publish']);
    await vi.advanceTimersByTimeAsync(20);
    c.find('3');
    await vi.advanceTimersByTimeAsync(20);
    expect(sent.filter((m) => m.eventOp === 'candidate').map((m) => m.candidates)).toEqual([
      [{ candidate: '1' }, { candidate: '2' }],
      [{ candidate: '3' }],
    ]);
  });

  const host = (address: string) => ({
    candidate: `candidate:1 1 udp 2122260223 ${address} 50000 typ host generation 0`,
  });
  const srflx = {
    candidate:
      'candidate:2 1 udp 1677729535 198.51.100.2 50000 typ srflx raddr 192.168.1.10 rport 50000',
  };
  const hidden = host('4f6a.local');
  const global = host('2001:db8::1');
  const locals = [
    '10.0.0.1',
    '172.16.0.1',
    '172.31.0.1',
    '192.168.1.10',
    '100.64.0.1',
    '169.254.0.1',
    'fd00::1',
    'fe80::1',
  ].map(host);

  it.each<[string, string | undefined, string | undefined]>([
    ['another network', '4here', '4there'],
    ['the same', '4here', '4here'],
    ['another family', '4here', '6there'],
    ['one that is not known', '4here', undefined],
    ['any, seen from one that is not known', undefined, '4there'],
  ])(
    'with private addresses of %s wait only where they are surely of no use',
    async (where, mine, theirs) => {
      for (const [id, net] of [
        ['a', mine],
        ['b', theirs],
      ] as const)
        members.set(id, { ...members.get(id)!, ...(net ? { net } : {}) });
      void peers.publish('b', 'cam', stream());
      await settled();
      const c = FakeConnection.last;
      const { gen, n } = lastSdp();
      from('b', { eventOp: 'sdp', gen, n, sdp: { type: 'answer', sdp: 'theirs' } });
      const all = [hidden, ...locals, host('172.32.0.1'), global, srflx];
      from('b', { eventOp: 'candidate', gen, candidates: all });
      await settled();
      const soon = all.slice(-3);
      expect(c.candidates).toEqual(where === 'another network' ? soon : all);
      await vi.advanceTimersByTimeAsync(300);
      expect(c.candidates).toEqual(
        where === 'another network' ? [...soon, hidden, ...locals] : all,
      );
    },
  );

  it('refused by the browser are ignored', async () => {
    const c = await connected();
    from('b', {
      eventOp: 'candidate',
      gen: lastSdp().gen,
      candidates: [{ candidate: 'bad' }, { candidate: 'good' }],
    });
    await settled();
    expect(c.candidates).toEqual([{ candidate: 'good' }]);
    expect(states()).toEqual(['connecting', 'connected']);
  });
});

describe('what others send', () => {
  it('is shown on arrival, in a stream of exactly these kinds', async () => {
    const c = await connected();
    from('b', {
      eventOp: 'publish',
      type: 'cam',
      epoch: 9,
      rev: 0,
      audio: false,
      video: true,
      gen: lastSdp().gen,
    });
    await settled();
    expect(events.at(-1)).toEqual({
      eventOp: 'presence',
      type: 'subscribed',
      roomId: 'R',
      user: 'b',
      sender: 'b',
      cam: true,
    });
    expect(streams.get('b', 'cam')?.getTracks()).toEqual([c.getTransceivers()[1]?.receiver.track]);
    const heard = vi.fn();
    streams.get('b', 'cam')!.addEventListener('removetrack', heard);
    from('b', { eventOp: 'unpublish', type: 'cam', epoch: 9 });
    await settled();
    expect([heard.mock.calls.length, streams.get('b', 'cam')]).toEqual([1, undefined]);
    from('b', {
      eventOp: 'publish',
      type: 'cam',
      epoch: 10,
      rev: 0,
      audio: false,
      video: true,
      gen: lastSdp().gen,
    });
    await settled();
    expect(streams.get('b', 'cam')?.getTracks()).toHaveLength(1);
    expect(peers.refuse('b', 'cam')).toBe(true);
    await settled();
    expect(streams.get('b', 'cam')).toBeUndefined();
  });

  it('waits for the join of its sender', async () => {
    me = 'c';
    members.delete('b');
    from('b', offer());
    await settled();
    expect(FakeConnection.made).toHaveLength(0);
    members.set('b', member('b', ['pair']));
    peers.handleMembers(['b']);
    await settled();
    expect(FakeConnection.made).toHaveLength(1);
  });

  it('is bounded while it waits', () => {
    for (let user = 0; user < 100; user++) {
      for (let i = 0; i < 100; i++) from(`early ${user}`, offer());
    }
    const early = (peers as unknown as { early: Map<string, unknown[]> }).early;
    expect([early.size, early.get('early 0')?.length]).toEqual([64, 64]);
  });

  it('is dropped when it comes from oneself', async () => {
    from('a', offer());
    await settled();
    expect(FakeConnection.made).toHaveLength(0);
  });

  it('over the data channel is limited to publications', async () => {
    const c = await connected();
    const { gen } = lastSdp();
    for (const text of [
      '{',
      'null',
      '[]',
      '{"eventOp":"sdp"}',
      JSON.stringify({ eventOp: 'sdp', gen, n: 99, sdp: { type: 'offer', sdp: 'x' } }),
    ])
      c.channel.onmessage?.({ data: text });
    c.channel.onmessage?.({
      data: JSON.stringify({
        eventOp: 'publish',
        type: 'cam',
        epoch: 9,
        rev: 0,
        audio: true,
        video: true,
        gen,
      }),
    });
    await settled();
    expect(c.log).toEqual(['offer', 'remote answer']);
    expect(events.at(-1)?.type).toBe('subscribed');
  });
});

describe('load caused by one user', () => {
  /** As many connections as one user can cause: leaves and joins again, 300 messages in all. */
  async function storm(id: string): Promise<number> {
    const before = FakeConnection.made.length;
    const someone = members.get(id)!;
    for (let i = 0; i < 300; i++) {
      from(id, offer({ gen: i + 1 }));
      await settled();
      if (i % 15) continue;
      members.delete(id);
      peers.handleLeave(id);
      members.set(id, someone);
      peers.handleMembers([id]);
    }
    return FakeConnection.made.length - before;
  }

  it.each(['b', 'legacy'])('is not reset by leaving and joining again: %s', async (id) => {
    me = 'z';
    members.set('z', member('z'));
    expect(await storm(id)).toBeLessThanOrEqual(12);
    // Other users are not affected.
    from('c', offer());
    await settled();
    const mine = FakeConnection.made.length;
    expect(FakeConnection.last.remoteDescription).not.toBeNull();
    // Allowed again after a while.
    await vi.advanceTimersByTimeAsync(60_000);
    from(id, offer({ gen: 1_000 }));
    await settled();
    expect(FakeConnection.made.length).toBeGreaterThan(mine);
  });

  it('is remembered for a bounded number of users', async () => {
    for (let i = 0; i < 300; i++) {
      members.set(`u${i}`, member(`u${i}`));
      from(`u${i}`, { eventOp: 'candidate', gen: 0, candidates: [] });
      members.delete(`u${i}`);
      peers.handleLeave(`u${i}`);
    }
    expect((peers as unknown as { peerLimits: Map<string, unknown> }).peerLimits.size).toBe(64);
  });
});

describe('changeLocalStream', () => {
  it('reaches all receivers of the camera, or the given one', async () => {
    expect(await peers.change(stream(), undefined)).toBe(false);
    const c = await connected();
    const next = stream();
    expect(await peers.change(next, undefined)).toBe(true);
    expect(c.getTransceivers()[1]?.sender.track).toBe(next.getVideoTracks()[0]);
    expect(await peers.change(stream(), 'b')).toBe(true);
    expect(await peers.change(stream(), 'c')).toBe(false);
    expect(await peers.change({}, 'b')).toBe(false);
  });
});

describe('a session that was lost', () => {
  it('sends everything again to present members and to those who come back', async () => {
    await connected();
    const outcome = peers.publish('c', 'screen', stream('video'));
    await settled();
    peers.handleLost();
    expect(await outcome).toBe(false);
    expect([FakeConnection.open, peers.connections()]).toEqual([0, {}]);
    members.delete('c');
    sent = [];
    peers.handleRestored();
    await settled();
    expect(sent.map((m) => `${m.eventOp} ${m.target}`)).toEqual(['sdp b', 'publish b']);
    members.set('c', member('c', ['pair']));
    peers.handleMembers(['c']);
    await settled();
    expect(sent.slice(2).map((m) => `${m.eventOp} ${m.target} ${m.type}`)).toEqual([
      'sdp c cam',
      'publish c screen',
    ]);
  });

  it('waits for them for a limited time', async () => {
    await connected();
    peers.handleLost();
    members.delete('b');
    peers.handleRestored();
    await vi.advanceTimersByTimeAsync(60_000);
    members.set('b', member('b', ['pair']));
    peers.handleMembers(['b']);
    expect(peers.connections()).toEqual({});
  });

  it('for good reports every connection as failed', async () => {
    await connected();
    peers.handleLeft('replaced');
    expect(states().at(-1)).toBe('failed replaced');
  });
});

describe('a lost user', () => {
  const gone = async (c: FakeConnection, ...lost: RTCPeerConnectionState[]) => {
    for (const state of lost) c.become(state);
    members.delete('b');
    peers.handleLeave('b');
    sent = [];
    members.set('b', member('b', ['pair']));
  };

  it('is sent the same again when back in time', async () => {
    await gone(await connected(), 'disconnected');
    peers.handleMembers(['b']);
    await settled();
    expect(ops()).toEqual(['sdp', 'publish']);
  });

  it.each([
    'left by itself',
    'is back too late',
    'is sent something by the app first',
    'is to get no more',
    'is another',
    'is not told apart',
  ])('is not sent it if it %s', async (how) => {
    const c = await connected();
    await gone(c, ...(how === 'left by itself' ? [] : ['disconnected' as const]));
    if (how === 'is back too late') await vi.advanceTimersByTimeAsync(60_000);
    const other = stream();
    if (how === 'is sent something by the app first') void peers.publish('b', 'cam', other);
    if (how === 'is to get no more') peers.unpublish('b', 'cam');
    if (how === 'is another') members.get('b')!.identity = 'another party';
    if (how === 'is not told apart') delete members.get('b')!.identity;
    peers.handleMembers(['b']);
    await settled();
    expect(peers.sent('cam').map(([, s]) => s)).toEqual(
      how === 'is sent something by the app first' ? [other] : [],
    );
  });
});

it('retries a broken call with growing waits while it is wanted', async () => {
  const c = await connected();
  c.become('failed');
  await vi.advanceTimersByTimeAsync(7 * Negotiation.repeat);
  expect(states().at(-1)).toBe('failed no-answer');
  expect(FakeConnection.open).toBe(0);
  await vi.advanceTimersByTimeAsync(Negotiation.again);
  expect(FakeConnection.open).toBe(1);
  peers.unpublish('b', 'cam');
  await settled();
  expect(FakeConnection.open).toBe(0);
});
