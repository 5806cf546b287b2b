import { describe, expect, it } from 'vitest';
import { initial, step, type Effect, type Event, type State } from '../src/negotiation/machine';
import type { Signal } from '../src/signaling/messages';

const SEED = 1_000;
const GEN = SEED + 1;

/** A machine and its last effects. a creates connections, b answers. */
class Bench {
  state: State;
  did: Effect[] = [];

  constructor(me: 'a' | 'b') {
    this.state = initial(me, me === 'a' ? 'b' : 'a', SEED);
  }

  take(...events: Event[]): this {
    this.did = [];
    for (const event of events) {
      const [state, effects] = step(this.state, event);
      this.state = state;
      this.did.push(...effects);
    }
    return this;
  }

  signal(signal: Signal, byChannel = false): this {
    return this.take({ kind: 'signal', signal, byChannel });
  }

  /** Kinds of the last effects, without timers. */
  get names(): string[] {
    return this.did
      .filter((e) => e.do !== 'timer')
      .map((e) =>
        e.do === 'send'
          ? `${e.signal.eventOp}${e.byChannel ? ' by channel' : ''}`
          : e.do === 'report'
            ? `${e.state}${e.reason && ` ${e.reason}`}`
            : e.do,
      );
  }

  effect<K extends Effect['do']>(kind: K): Extract<Effect, { do: K }> {
    const found = this.did.find((e) => e.do === kind);
    if (!found) throw new Error(`no ${kind} in ${this.names}`);
    return found as Extract<Effect, { do: K }>;
  }
}

const publish = (video = true, audio = true): Event => ({
  kind: 'publish',
  type: 'cam',
  audio,
  video,
});
const sdp = (type: 'offer' | 'answer', n: number, gen = GEN): Signal => ({
  eventOp: 'sdp',
  gen,
  n,
  sdp: { type, sdp: type },
});
const candidate = (gen = GEN): Signal => ({
  eventOp: 'candidate',
  gen,
  candidates: [{ candidate: 'c' }],
});
const published = (
  epoch: number,
  more: Partial<Extract<Signal, { eventOp: 'publish' }>> = {},
): Signal => ({
  eventOp: 'publish',
  type: 'cam',
  epoch,
  rev: 0,
  audio: true,
  video: true,
  gen: GEN,
  ...more,
});
const link = (state: RTCPeerConnectionState, gen = GEN): Event => ({ kind: 'link', gen, state });
const tracks: Event = { kind: 'tracks', gen: GEN };
const channel: Event = { kind: 'channel', gen: GEN, open: true };

/** A creator whose first offer was answered, with the connection up. */
const connectedCreator = () => {
  const a = new Bench('a').take(publish());
  return a.signal(sdp('answer', a.effect('offer').n)).take(tracks, link('connected'), channel);
};
const connectedOther = () =>
  new Bench('b').signal(sdp('offer', 5)).take(tracks, link('connected'), channel);

describe('creating a connection', () => {
  it('the smaller id opens, offers, then announces its publication', () => {
    const a = new Bench('a').take(publish());
    expect(a.names).toEqual(['open', 'offer', 'publish', 'connecting']);
    expect(a.effect('open')).toMatchObject({ creator: true, gen: GEN });
    expect(a.effect('offer')).toMatchObject({ restart: false });
  });

  it('the larger id only announces its publication, and waits', () => {
    const b = new Bench('b').take(publish());
    expect(b.names).toEqual(['publish', 'connecting']);
    expect(b.effect('send').signal).toMatchObject({ gen: 0 });
  });

  it('the smaller id creates the connection for a publication of the other side', () => {
    expect(new Bench('a').signal(published(7, { gen: 0 })).names).toEqual([
      'open',
      'offer',
      'connecting',
    ]);
  });

  it('both publishing at once makes one connection', () => {
    expect(new Bench('a').take(publish()).signal(published(7, { gen: 0 })).names).toEqual([]);
  });

  it('the larger id answers, and announces its publication in this generation', () => {
    const b = new Bench('b').take(publish()).signal(sdp('offer', 5));
    expect(b.names).toEqual(['open', 'connecting', 'accept', 'publish']);
    expect(b.effect('send').signal).toMatchObject({ gen: GEN });
  });
});

describe('a connection whose DTLS has ended', () => {
  const lost: Event = { kind: 'lost', gen: GEN };
  const none: Signal = { eventOp: 'candidate', gen: 0, candidates: [] };

  it('is replaced at once by the creator', () => {
    const a = connectedCreator().take(lost);
    expect(a.names).toEqual(['interrupted interrupted', 'open', 'offer', 'publish', 'connecting']);
    expect(a.effect('offer')).toMatchObject({ gen: GEN + 1, restart: false });
  });

  it('is closed by the other side, which asks for another until there is one', () => {
    const b = connectedOther().take(lost);
    expect(b.names).toEqual(['interrupted interrupted', 'close', 'candidate', 'connecting']);
    expect(b.effect('send')).toMatchObject({ byChannel: false, signal: none });
    expect(b.take({ kind: 'timer', name: 'repeat' }).effect('send').signal).toEqual(none);
    expect(b.signal(sdp('offer', 1, GEN + 1)).names).toEqual(['open', 'connecting', 'accept']);
    expect(b.take({ kind: 'timer', name: 'repeat' }).names).toEqual([]);
    const c = connectedOther().take(publish()).take(lost);
    expect(c.effect('send').signal).toMatchObject({ eventOp: 'publish', gen: 0 });
  });

  it('is replaced once when the other side reports it', () => {
    const a = connectedCreator().signal(none);
    expect(a.names).toEqual(['open', 'offer', 'publish', 'connecting']);
    expect(a.signal(none).names).toEqual([]);
    expect(new Bench('a').signal(none).names).toEqual([]); // nobody wants one
  });

  it('is reported as gone when a restart of it is offered', () => {
    const b = connectedOther().signal(published(7)).take(lost);
    expect(b.signal(sdp('offer', 6)).effect('send').signal).toEqual(none);
    expect(connectedOther().take(lost).signal(sdp('offer', 6)).names).toEqual([]);
  });

  it('that was never connected counts as failed', () => {
    expect(new Bench('b').signal(sdp('offer', 5)).take(lost).names).toEqual(['candidate']);
  });
});

describe('an ICE restart', () => {
  const restarting = (bench: Bench) => bench.take(link('failed'));
  const repeat: Event = { kind: 'timer', name: 'repeat' };
  const ask: Signal = { eventOp: 'candidate', gen: GEN, candidates: [] };

  it('is offered by the creator alone; the other side asks for it', () => {
    const b = restarting(connectedOther());
    expect(b.names).toEqual(['interrupted interrupted', 'candidate']);
    expect(b.effect('send')).toMatchObject({ byChannel: false, signal: ask });
    const a = connectedCreator().signal(ask);
    expect(a.effect('offer')).toMatchObject({ restart: true });
    expect(a.signal(ask).did).toEqual([]);
    expect(b.signal(sdp('offer', 6)).names).toEqual(['accept']);
    expect(b.take(repeat).did).toEqual([]);
  });

  it('is asked for again, also after a resume, and never offered by the asking side', () => {
    const b = restarting(connectedOther());
    for (let i = 0; i < 6; i++) expect(b.take(repeat).effect('send').signal).toEqual(ask);
    expect(b.take({ kind: 'resumed' }).effect('send').signal).toEqual(ask);
    expect(b.take(repeat).names).toContain('failed no-answer');
  });

  it('is no longer asked for when the connection recovers by itself', () => {
    expect(restarting(connectedOther()).take(link('connected'), repeat).names).toEqual([
      'connected',
    ]);
  });

  it('without an answer leaves the connection up, and is offered again for a reason', () => {
    const b = connectedOther().take({ kind: 'regather' });
    for (let i = 0; i < 6; i++) b.take(repeat);
    expect(b.take(repeat).did).toEqual([]);
    expect(b.take({ kind: 'regather' }).effect('send').signal).toEqual(ask);
    const a = connectedCreator().take({ kind: 'regather' });
    const { n } = a.effect('offer');
    for (let i = 0; i < 6; i++) expect(a.take(repeat).effect('resend')).toMatchObject({ n });
    expect(a.take(repeat).did).toEqual([]);
    expect(a.take({ kind: 'regather' }).effect('offer')).toMatchObject({ n: n + 1, restart: true });
    expect(a.take({ kind: 'regather' }).did).toEqual([]); // that one is new
    expect(a.signal(sdp('answer', n)).names).toEqual([]);
    // The first offer may have been without relay candidates.
    expect(a.take({ kind: 'resumed' }).effect('offer')).toMatchObject({ n: n + 2, restart: true });
    expect(a.take(repeat).effect('resend')).toMatchObject({ n: n + 2 });
    expect(a.signal(sdp('answer', n + 2)).names).toEqual(['answered']);
  });

  it.each(['disconnected', 'failed'] as const)(
    'without an answer is offered again on a %s connection, then given up',
    (state) => {
      const a = connectedCreator().take({ kind: 'regather' });
      for (let i = 0; i < 7; i++) a.take(repeat);
      a.take(link(state));
      for (let i = 0; i < 6; i++) expect(a.take(repeat).names).toEqual(['resend']);
      expect(a.take(repeat).names).toContain('failed no-answer');
    },
  );

  it('offered by the other side is ignored', () => {
    expect(connectedCreator().signal(sdp('offer', 9)).did).toEqual([]);
    expect(restarting(connectedCreator()).signal(sdp('offer', 9)).names).not.toContain('accept');
  });
});

describe('repeated and late signals', () => {
  it('a repeated offer gets the same answer', () => {
    expect(connectedOther().signal(sdp('offer', 5)).names).toEqual(['resend']);
    expect(connectedOther().signal(sdp('offer', 4)).names).toEqual([]);
  });

  it.each<[string, Signal]>([
    ['an answer', sdp('answer', SEED + 1)],
    ['an answer of an older generation', sdp('answer', SEED + 1, GEN - 1)],
    ['an offer of an older generation', sdp('offer', 9, GEN - 1)],
    ['an offer of a generation we never made', sdp('offer', 9, GEN + 5)],
    ['a candidate of an older generation', candidate(GEN - 1)],
  ])('%s to a creator is dropped', (_, signal) => {
    const a = connectedCreator();
    const before = a.state;
    expect(a.signal(signal).did).toEqual([]);
    expect(a.state).toEqual(before);
  });

  it('a new generation replaces the old connection', () => {
    expect(connectedOther().signal(sdp('offer', 1, GEN + 1)).names).toEqual([
      'open',
      'connecting',
      'accept',
    ]);
  });

  it('events of a replaced connection are dropped', () => {
    const b = connectedOther().signal(sdp('offer', 1, GEN + 1));
    for (const event of [link('failed'), channel, tracks, { kind: 'broken', gen: GEN } as const]) {
      expect(b.take(event).did).toEqual([]);
    }
  });

  it('early candidates are kept, those of another generation are not', () => {
    const b = new Bench('b')
      .signal(candidate())
      .signal(candidate(GEN - 1))
      .signal(sdp('offer', 5));
    expect(b.did.filter((e) => e.do === 'candidates')).toEqual([
      { do: 'candidates', gen: GEN, list: [{ candidate: 'c' }] },
    ]);
    expect(b.names.indexOf('candidates')).toBeGreaterThan(b.names.indexOf('accept'));
    expect(b.state.early).toEqual([]);
  });

  it('at most 128 candidates are kept for a description', () => {
    const some = (n: number, gen = GEN): Signal => ({
      eventOp: 'candidate',
      gen,
      candidates: Array.from({ length: n }, (_, i) => ({ candidate: `${i}` })),
    });
    const added = (bench: Bench) =>
      bench.did.reduce((n, e) => n + (e.do === 'candidates' ? e.list.length : 0), 0);
    const b = new Bench('b');
    for (let i = 0; i < 100; i++) b.signal(some(50));
    expect(b.state.early).toHaveLength(128);
    expect(added(b.signal(sdp('offer', 5)))).toBe(128);
    expect(added(b.signal(some(50)))).toBe(0);
    // A restart brings new candidates.
    b.signal(sdp('offer', 6));
    expect([100, 100, 1].map((n) => added(b.signal(some(n))))).toEqual([100, 28, 0]);
    const a = new Bench('a').take(publish());
    a.signal(sdp('answer', a.effect('offer').n));
    expect([100, 100, 1].map((n) => added(a.signal(some(n))))).toEqual([100, 28, 0]);
  });
});

describe('subscribed', () => {
  const fired = (b: Bench) => b.names.filter((n) => n === 'subscribed').length;

  it.each<[string, Event[]]>([
    [
      'the publication last',
      [tracks, link('connected'), { kind: 'signal', signal: published(7), byChannel: false }],
    ],
    [
      'the tracks last',
      [{ kind: 'signal', signal: published(7), byChannel: false }, link('connected'), tracks],
    ],
    [
      'the connection last',
      [tracks, { kind: 'signal', signal: published(7), byChannel: false }, link('connected')],
    ],
  ])('fires when publication, tracks and connection are there: %s', (_, events) => {
    const b = new Bench('b').signal(sdp('offer', 5));
    for (const event of events.slice(0, -1)) expect(fired(b.take(event))).toBe(0);
    b.take(events[2]!);
    expect(fired(b)).toBe(1);
  });

  it('fires after the stream has its tracks', () => {
    const b = connectedOther().signal(published(7, { audio: false }));
    expect(b.names).toEqual(['stream', 'subscribed']);
    expect(b.effect('stream')).toEqual({ do: 'stream', type: 'cam', audio: false, video: true });
  });

  it('fires once: over both transports, after a restart, in a new generation', () => {
    const b = connectedOther().signal(published(7));
    expect(fired(b.signal(published(7), true))).toBe(0);
    expect(fired(b.take(link('disconnected'), link('connected')))).toBe(0);
    b.signal(sdp('offer', 1, GEN + 1)).take(
      { kind: 'tracks', gen: GEN + 1 },
      link('connected', GEN + 1),
    );
    expect(b.signal(published(7, { gen: GEN + 1 })).names).toEqual(['stream']);
  });

  it('fires again for a new publication', () => {
    const b = connectedOther()
      .signal(published(7))
      .signal({ eventOp: 'unpublish', type: 'cam', epoch: 7 });
    expect(b.names).toEqual(['dropStream']);
    expect(b.signal(published(8)).names).toEqual(['stream', 'subscribed']);
  });

  it('does not fire for a publication that was withdrawn', () => {
    const b = connectedOther().signal({ eventOp: 'unpublish', type: 'cam', epoch: 7 });
    expect(fired(b.signal(published(7)))).toBe(0);
  });

  it('does not fire for a publication of an earlier generation', () => {
    const b = new Bench('b')
      .signal(published(3, { gen: GEN - 1 }))
      .signal(sdp('offer', 5))
      .take(tracks, link('connected'));
    expect(fired(b)).toBe(0);
    expect(fired(b.signal({ eventOp: 'unpublish', type: 'cam', epoch: 900 }, true))).toBe(0);
  });
});

describe('replacing what is sent', () => {
  it('changes tracks, and announces it: receivers may have stopped theirs', () => {
    const a = connectedCreator();
    for (const [rev, audio] of [
      [1, true],
      [2, false],
    ] as const) {
      expect(a.take(publish(true, audio)).names).toEqual([
        'attach',
        'publish by channel',
        'settle',
      ]);
      expect(a.effect('send').signal).toMatchObject({ epoch: SEED + 1, rev, audio });
    }
  });

  it('announces a track that ended, and nobody waits for it', () => {
    const a = connectedCreator();
    expect(a.take({ kind: 'kinds', type: 'cam', audio: true, video: false }).names).toEqual([
      'publish by channel',
    ]);
    expect(a.effect('send').signal).toMatchObject({
      epoch: SEED + 1,
      rev: 1,
      audio: true,
      video: false,
    });
    expect(a.take({ kind: 'kinds', type: 'cam', audio: true, video: false }).names).toEqual([]);
    expect(a.take({ kind: 'kinds', type: 'screen', audio: false, video: false }).names).toEqual([]);
    // Without a connection it is announced with the next one.
    const b = new Bench('b').take(publish(), {
      kind: 'kinds',
      type: 'cam',
      audio: true,
      video: false,
    });
    expect(b.signal(sdp('offer', 5)).effect('send').signal).toMatchObject({
      rev: 1,
      audio: true,
      video: false,
    });
  });

  it('shows without another subscribed, and ignores older publications', () => {
    const b = connectedOther().signal(published(7, { audio: false }));
    expect(b.signal(published(7, { rev: 1 })).names).toEqual(['stream']);
    expect(b.signal(published(7, { audio: false })).names).toEqual([]);
  });
});

describe('the outcome of publishing', () => {
  it('is true once connected and announced', () => {
    const a = new Bench('a').take(publish());
    a.signal(sdp('answer', a.effect('offer').n));
    expect(a.take(link('connected')).names).toEqual(['connected']);
    expect(a.take(channel).names).toContain('settle');
  });

  it('is true once the server accepted the announcement', () => {
    const a = new Bench('a').take(publish());
    a.signal(sdp('answer', a.effect('offer').n)).take(link('connected'));
    expect(
      a.take({ kind: 'delivered', type: 'cam', epoch: SEED + 1, rev: 0 }).effect('settle'),
    ).toMatchObject({ ok: true });
  });

  it('is false when the target is not in the room', () => {
    const a = new Bench('a').take(publish(), { kind: 'unreachable' });
    expect(a.names).toContain('failed not-in-room');
    expect(a.effect('settle')).toMatchObject({ ok: false });
    expect(a.state.open).toBe(false);
  });

  it('is false after two ICE attempts', () => {
    const a = new Bench('a').take(publish());
    a.signal(sdp('answer', a.effect('offer').n));
    expect(a.take(link('failed')).names).toEqual(['open', 'offer', 'publish', 'connecting']);
    a.signal(sdp('answer', a.effect('offer').n, GEN + 1));
    expect(a.take(link('failed', GEN + 1)).names).toEqual([
      'failed ice-failed',
      'gone',
      'attach',
      'unpublish',
      'settle',
      'close',
    ]);
  });

  it('is false on the other side after two attempts, the second on request', () => {
    const b = new Bench('b').take(publish()).signal(sdp('offer', 5));
    expect(b.take(link('failed')).names).toEqual(['candidate']);
    b.signal(sdp('offer', 6, GEN + 1));
    expect(b.take(link('failed', GEN + 1)).names).toContain('failed ice-failed');
  });

  it('the creator makes a second attempt on request, and no third', () => {
    const a = new Bench('a').take(publish());
    a.signal(sdp('answer', a.effect('offer').n));
    const ask = (gen: number): Signal => ({ eventOp: 'candidate', gen, candidates: [] });
    expect(a.signal(ask(GEN)).names).toEqual(['open', 'offer', 'publish', 'connecting']);
    a.signal(sdp('answer', a.effect('offer').n, GEN + 1));
    expect(a.signal(ask(GEN + 1)).names).toEqual([]);
  });

  it('is false without an answer, after repeats', () => {
    const a = new Bench('a').take(publish());
    for (let i = 0; i < 6; i++) {
      expect(a.take({ kind: 'timer', name: 'repeat' }).names).toEqual(['resend']);
    }
    expect(a.take({ kind: 'timer', name: 'repeat' }).names).toContain('failed no-answer');
    const b = new Bench('b').take(publish());
    for (let i = 0; i < 6; i++) {
      expect(b.take({ kind: 'timer', name: 'repeat' }).names).toEqual(['publish']);
    }
    expect(b.take({ kind: 'timer', name: 'repeat' }).names).toContain('failed no-answer');
  });

  it('is false after the timeout, and nothing is published then', () => {
    const a = new Bench('a').take(publish(), { kind: 'giveUp', type: 'cam' });
    expect(a.names).toContain('failed no-answer');
    expect(a.state.local.cam.on).toBe(false);
    expect(connectedCreator().take({ kind: 'giveUp', type: 'cam' }).did).toEqual([]);
  });

  it('is false when the receiver refuses it', () => {
    const a = new Bench('a')
      .take(publish())
      .signal({ eventOp: 'unpublish', type: 'cam', epoch: SEED + 1, owner: 'a' });
    expect(a.effect('settle')).toMatchObject({ ok: false, reason: 'removed' });
    expect(
      connectedCreator().signal({ eventOp: 'unpublish', type: 'cam', epoch: SEED, owner: 'a' }).did,
    ).toEqual([]);
  });
});

describe('a connection that breaks', () => {
  it('may recover by itself, else is restarted', () => {
    const a = connectedCreator().take(link('disconnected'));
    expect(a.names).toEqual(['interrupted interrupted']);
    expect(a.did).toContainEqual({ do: 'timer', name: 'restart', on: true });
    expect(a.take({ kind: 'timer', name: 'restart' }).effect('offer')).toMatchObject({
      restart: true,
    });
    expect(
      connectedCreator().take(link('disconnected'), link('connected'), {
        kind: 'timer',
        name: 'restart',
      }).names,
    ).not.toContain('offer');
  });

  it('for good keeps its publications for a later attempt in a new generation', () => {
    const a = connectedCreator().take(link('failed'));
    a.signal(sdp('answer', a.effect('offer').n)).take(link('failed'));
    expect(a.names).toEqual(['failed ice-failed', 'gone', 'close']);
    expect(a.did).toContainEqual({ do: 'timer', name: 'again', on: true });
    expect(a.take({ kind: 'timer', name: 'again' }).effect('open')).toMatchObject({ gen: GEN + 1 });
  });

  it('on the other side only is made again when that side publishes', () => {
    expect(
      connectedCreator()
        .signal(published(7, { gen: 0 }))
        .effect('open'),
    ).toMatchObject({ gen: GEN + 1 });
  });

  it('sends `unpublish` over the server, as its data channel may have lost it', () => {
    const idle = connectedCreator().take(link('disconnected'), { kind: 'unpublish', type: 'cam' });
    expect(idle.names).toEqual([
      'interrupted interrupted',
      'attach',
      'unpublish by channel',
      'unpublish',
      'close',
    ]);
    const a = connectedCreator().take({ kind: 'unpublish', type: 'cam' }, link('failed'));
    a.signal(sdp('answer', a.effect('offer').n)).take(link('failed'));
    expect(a.names).toEqual(['failed ice-failed', 'gone', 'unpublish', 'close']);
  });

  it('while connecting is closed when nothing is published any more', () => {
    expect(new Bench('a').take(publish(), { kind: 'unpublish', type: 'cam' }).names).toContain(
      'close',
    );
    expect(connectedCreator().take({ kind: 'unpublish', type: 'cam' }).names).toEqual([
      'attach',
      'unpublish by channel',
    ]);
  });
});

describe('after the socket was away', () => {
  it('an unanswered offer goes out again', () => {
    expect(new Bench('a').take(publish()).take({ kind: 'resumed' }).names).toEqual([
      'publish',
      'unpublish',
      'resend',
    ]);
  });

  it('candidates go out again while not connected', () => {
    const a = new Bench('a').take(publish());
    a.signal(sdp('answer', a.effect('offer').n));
    expect(a.take({ kind: 'resumed' }).names).toContain('recandidate');
  });

  it('a connected call is left alone', () =>
    expect(connectedCreator().take({ kind: 'resumed' }).did).toEqual([]));
});

describe('a prewarmed connection', () => {
  const warm: Event = { kind: 'warm' };
  const standing = () => {
    const a = new Bench('a').take(warm);
    return a.signal(sdp('answer', a.effect('offer').n)).take(tracks, link('connected'), channel);
  };

  it('is made by the creator, once, and the other side waits for it', () => {
    const a = new Bench('a').take(warm);
    expect(a.names).toEqual(['open', 'offer']);
    expect(a.take(warm).did).toEqual([]);
    expect(new Bench('b').take(warm).did).toEqual([]);
    expect(new Bench('b').take(warm).signal(sdp('offer', 5)).names).toEqual(['open', 'accept']);
  });

  it('reports its state from the first publication on', () => {
    expect(standing().take(publish()).names).toEqual([
      'attach',
      'publish by channel',
      'connected',
      'settle',
    ]);
    expect(new Bench('a').take(warm, publish()).names).toEqual([
      'open',
      'offer',
      'attach',
      'publish',
      'connecting',
    ]);
    expect(standing().signal(published(7), true).names).toEqual([
      'connected',
      'stream',
      'subscribed',
    ]);
    expect(standing().take(publish(), link('disconnected')).names).toContain(
      'interrupted interrupted',
    );
  });

  it('outlasts publications, also while connecting', () => {
    expect(
      new Bench('a').take(warm, publish(), { kind: 'unpublish', type: 'cam' }).names,
    ).not.toContain('close');
    expect(standing().take(publish(), { kind: 'unpublish', type: 'cam' }).state.open).toBe(true);
  });

  it('that fails is made again later, without a report', () => {
    const a = standing().take(link('failed'));
    a.signal(sdp('answer', a.effect('offer').n)).take(link('failed'));
    expect(a.names).toEqual(['gone', 'close']);
    expect(a.take({ kind: 'timer', name: 'again' }).names).toEqual(['open', 'offer']);
  });

  it('restarts ICE while connected: the creator offers, the other side asks', () => {
    expect(standing().take({ kind: 'regather' }).effect('offer')).toMatchObject({ restart: true });
    expect(connectedOther().take({ kind: 'regather' }).effect('send').signal).toEqual({
      eventOp: 'candidate',
      gen: GEN,
      candidates: [],
    });
    expect(new Bench('a').take(warm, { kind: 'regather' }).names).toEqual(['open', 'offer']);
  });
});

describe('refusing media', () => {
  it('drops the stream and tells the sender, repeatedly if that was lost', () => {
    const b = connectedOther().signal(published(7)).take({ kind: 'refuse', type: 'cam' });
    expect(b.names).toEqual(['unpublish by channel', 'dropStream']);
    expect(b.effect('send').signal).toMatchObject({ epoch: 7, owner: 'a' });
    expect(b.signal(published(7), true).names).toEqual(['unpublish by channel']);
    expect(b.take({ kind: 'refuse', type: 'cam' }).names).toEqual([]);
    expect(b.signal(published(8), true).names).toEqual(['stream', 'subscribed']);
  });

  it('before the channel is open tells the sender again when it is', () => {
    const b = new Bench('b').signal(sdp('offer', 5)).take(tracks, link('connected'));
    b.signal(published(7)).take({ kind: 'refuse', type: 'cam' });
    expect(b.names).toEqual(['unpublish', 'dropStream']);
    b.take(channel);
    const refusals = b.did.flatMap((e) =>
      e.do === 'send' && e.signal.eventOp === 'unpublish' && e.signal.owner ? [e] : [],
    );
    expect(refusals).toMatchObject([{ byChannel: true, signal: { type: 'cam', epoch: 7 } }]);
  });
});
