/**
 * Two negotiation machines, a link and simulated browsers: each event is one step of a seeded
 * schedule. Messages keep their order on each transport (socket, data channel of one generation),
 * and none between transports.
 */
import { expect } from 'vitest';
import type { MediaType } from '../types/knowledgetalk';
import { TYPES } from '../src/negotiation/layout';
import {
  initial,
  step,
  type Effect,
  type Event,
  type State,
  type TimerName,
} from '../src/negotiation/machine';
import type { Signal } from '../src/signaling/messages';
import { freeze, Simulation } from './simulation';

interface Connection {
  gen: number;
  signaling: 'stable' | 'offering';
  /** ICE sessions: ours, and the remote one from its description. */
  localIce: number;
  remoteIce: number;
  /** The last local description, for sending it again. */
  last: 'offer' | 'answer' | null;
  candidates: Set<number>;
  link: RTCPeerConnectionState;
  channel: boolean;
  /** DTLS has failed: the connection cannot be restored. */
  dtlsEnded: boolean;
  attached: Record<MediaType, number>;
}

/** `accepted`: the server has answered 200. */
type Packet = { signal: Signal; accepted: boolean } | { presence: 'leave' | 'join' };

export class Side {
  state: State;
  queue: Effect[] = [];
  busy: (() => void) | null = null;
  connection: Connection | null = null;
  opened = 0;
  timers = new Set<TimerName>();
  online = true;
  /** In the room. Who is not has disposed of everything. */
  here = true;
  /** The other user is in the room, as this side knows. */
  accompanied = true;
  /** The server answers 429, and passes nothing on. */
  limited = false;
  /** Answers 403 that are under way. */
  refusals = 0;
  subscribed: string[] = [];
  /** Publications that `subscribed` is about to report: the state may have moved on by then. */
  private pendingSubscribed: string[] = [];
  streams: Record<MediaType, { audio: boolean; video: boolean } | null> = {
    cam: null,
    screen: null,
  };
  want: Record<MediaType, { audio: boolean; video: boolean } | null> = { cam: null, screen: null };
  settled = 0;

  constructor(readonly simulation: MachineSimulation, readonly me: string, readonly peer: string) {
    this.state = initial(me, peer, simulation.clock);
  }

  get other(): Side {
    return this.simulation.sides[this.me === 'a' ? 1 : 0]!;
  }

  feed(event: Event): void {
    // A function that is not pure throws here.
    const [state, effects] = step(freeze(this.state), event);
    for (const e of effects) {
      if (e.do === 'subscribed') {
        this.pendingSubscribed.push(`${e.type} ${state.remote[e.type].epoch}`);
      }
    }
    if (effects.some((e) => e.do === 'subscribed')) {
      expect(state, 'subscribed too early').toMatchObject({ link: 'connected', hasTracks: true });
    }
    // What failed, or the receiver refused, is no longer wanted: the app was told.
    for (const type of TYPES) if (!state.local[type].on) this.want[type] = null;
    this.state = state;
    this.queue.push(...effects);
    this.run();
  }

  /** Nothing is left, and nothing more happens. */
  dispose(): void {
    this.state = initial(this.me, this.peer, this.simulation.clock);
    this.queue = [];
    this.pendingSubscribed = [];
    this.busy = null;
    this.connection = null;
    this.timers.clear();
    this.subscribed = [];
    this.streams = { cam: null, screen: null };
    this.want = { cam: null, screen: null };
    this.refusals = 0;
  }

  /** A session with a user who has just come. */
  reset(): void {
    this.dispose();
    if (this.simulation.warm) this.feed({ kind: 'warm' });
  }

  get active(): boolean {
    return this.here && this.accompanied;
  }

  publish(type: MediaType, audio: boolean, video: boolean): void {
    if (!this.active) return;
    this.want[type] = { audio, video };
    this.feed({ kind: 'publish', type, audio, video });
  }

  run(): void {
    while (!this.busy) {
      const effect = this.queue.shift();
      if (!effect) return;
      this.perform(effect);
    }
  }

  private later(done: () => void): void {
    this.busy = done;
  }

  private post(signal: Signal): void {
    this.simulation.post(this, signal);
  }

  private current(gen: number): Connection {
    expect(this.connection?.gen, 'an effect names a generation that is not the present one').toBe(
      gen,
    );
    return this.connection!;
  }

  private attachAll(c: Connection): void {
    for (const type of TYPES) {
      c.attached[type] = this.state.local[type].on ? this.state.local[type].epoch : 0;
    }
  }

  private perform(e: Effect): void {
    switch (e.do) {
      case 'open':
        return this.later(() => {
          this.opened++;
          this.connection = {
            gen: e.gen,
            signaling: 'stable',
            localIce: 0,
            remoteIce: 0,
            last: null,
            candidates: new Set(),
            link: 'new',
            channel: false,
            dtlsEnded: false,
            attached: { cam: 0, screen: 0 },
          };
          this.attachAll(this.connection);
        });
      case 'close':
        this.connection = null;
        return;
      case 'offer': {
        const c = this.current(e.gen);
        return this.later(() => {
          if (!e.restart) expect(c.signaling, 'an offer while another is open').toBe('stable');
          c.signaling = 'offering';
          c.localIce = this.simulation.newIceSession();
          c.last = 'offer';
          this.describe(c, e.n, 'offer');
        });
      }
      case 'accept': {
        const c = this.current(e.gen);
        return this.later(() => {
          expect(c.signaling, 'an offer that crosses another').toBe('stable');
          c.remoteIce = Number(e.sdp.split(' ')[0]);
          c.localIce = this.simulation.newIceSession();
          c.last = 'answer';
          this.include(c, e.sdp);
          this.attachAll(c);
          this.describe(c, e.n, 'answer');
          this.feed({ kind: 'tracks', gen: e.gen });
        });
      }
      case 'answered': {
        const c = this.current(e.gen);
        return this.later(() => {
          expect(c.signaling, 'an answer without an offer').toBe('offering');
          expect(Number(e.sdp.split(' ')[1]), 'an answer to another offer').toBe(c.localIce);
          c.signaling = 'stable';
          c.remoteIce = Number(e.sdp.split(' ')[0]);
          this.include(c, e.sdp);
          this.feed({ kind: 'tracks', gen: e.gen });
        });
      }
      case 'candidates':
        for (const { candidate } of e.list) this.current(e.gen).candidates.add(Number(candidate));
        return;
      case 'resend': {
        const c = this.current(e.gen);
        if (c.last === e.what) this.describe(c, e.n, e.what);
        return;
      }
      case 'recandidate':
        return this.trickle(this.current(e.gen));
      case 'attach':
        if (this.connection) {
          this.connection.attached[e.type] = this.state.local[e.type].on
            ? this.state.local[e.type].epoch
            : 0;
        }
        return;
      case 'send':
        if (e.byChannel && this.connection?.channel) this.simulation.channelPost(this, e.signal);
        else this.post(e.signal);
        return;
      case 'timer':
        if (e.on) this.timers.add(e.name);
        else this.timers.delete(e.name);
        return;
      case 'stream':
        this.streams[e.type] = { audio: e.audio, video: e.video };
        return;
      case 'dropStream':
        this.streams[e.type] = null;
        return;
      case 'subscribed':
        expect(this.streams[e.type], 'subscribed without a stream').not.toBeNull();
        this.subscribed.push(this.pendingSubscribed.shift()!);
        return;
      case 'settle':
        this.settled++;
        return;
      case 'report':
        return;
    }
  }

  private describe(c: Connection, n: number, type: 'offer' | 'answer'): void {
    this.post({
      eventOp: 'sdp',
      gen: c.gen,
      n,
      sdp: {
        type,
        sdp: `${c.localIce} ${c.remoteIce} ${this.simulation.chance(0.3) ? 'with' : 'without'}`,
      },
    });
    this.trickle(c);
  }

  private trickle(c: Connection): void {
    this.post({ eventOp: 'candidate', gen: c.gen, candidates: [{ candidate: `${c.localIce}` }] });
  }

  private include(c: Connection, sdp: string): void {
    if (sdp.endsWith(' with')) c.candidates.add(c.remoteIce);
  }
}

export class MachineSimulation extends Simulation {
  clock = 1_000_000;
  readonly sides: [Side, Side];
  private counter = 0;
  private readonly socket: [Packet[], Packet[]] = [[], []];
  private readonly channel: [{ gen: number; signal: Signal }[], { gen: number; signal: Signal }[]] =
    [[], []];

  /** @param warm both prewarm their connection */
  constructor(next: () => number, readonly warm = false) {
    super(next);
    this.sides = [new Side(this, 'a', 'b'), new Side(this, 'b', 'a')];
    if (warm) for (const side of this.sides) side.feed({ kind: 'warm' });
  }

  newIceSession(): number {
    return ++this.counter;
  }

  index(side: Side): 0 | 1 {
    return side === this.sides[0] ? 0 : 1;
  }

  /** Over the server, which refuses it if the target is not in the room, or the rate too high. */
  post(from: Side, signal: Signal): void {
    if (!from.other.here) from.refusals++;
    else if (!from.limited) {
      this.socket[this.index(from)].push({
        signal: JSON.parse(JSON.stringify(signal)),
        accepted: false,
      });
    }
  }

  /** The server has taken the first message that it had not. */
  private accept(from: Side): void {
    const packet = this.socket[this.index(from)].find((p) => 'accepted' in p && !p.accepted);
    if (!packet || !('accepted' in packet)) return;
    packet.accepted = true;
    const { signal } = packet;
    if (signal.eventOp !== 'publish') return;
    const { type, epoch, rev } = signal;
    from.feed({ kind: 'delivered', type, epoch, rev });
  }

  channelPost(from: Side, signal: Signal): void {
    this.channel[this.index(from)].push({
      gen: from.connection!.gen,
      signal: JSON.parse(JSON.stringify(signal)),
    });
  }

  /**
   * Every event that can happen next by itself. Timers only when nothing else can, or on request.
   */
  moves(timers: boolean): (() => void)[] {
    const moves: (() => void)[] = [];
    for (const side of this.sides) {
      const i = this.index(side);
      if (side.busy) {
        moves.push(() => {
          const done = side.busy!;
          side.busy = null;
          done();
          side.run();
        });
      }
      // What the server tells of a room goes to whoever is in it, whoever sent it.
      const [packet] = this.socket[i];
      if (packet && side.other.online && (side.online || 'presence' in packet)) {
        moves.push(() => this.deliver(side));
      }
      if (side.online && this.socket[i].some((p) => 'accepted' in p && !p.accepted)) {
        moves.push(() => this.accept(side));
      }
      if (side.online && side.refusals) {
        moves.push(() => {
          side.refusals--;
          side.feed({ kind: 'unreachable' });
        });
      }
      if (this.channel[i].length) moves.push(() => this.deliverChannel(side));
      const c = side.connection;
      if (c && this.isReachable() && c.link !== 'connected') {
        moves.push(() => this.link(side, 'connected'));
      }
      if (
        c?.link === 'connected'
        && side.other.connection?.link === 'connected'
        && this.isReachable()
        && !c.channel
      ) {
        moves.push(() => {
          c.channel = true;
          side.feed({ kind: 'channel', gen: c.gen, open: true });
        });
      }
    }
    if (timers || moves.length === 0) {
      for (const side of this.sides) {
        for (const name of side.timers) moves.push(() => this.fire(side, name));
      }
    }
    return moves;
  }

  link(side: Side, state: RTCPeerConnectionState): void {
    const c = side.connection;
    if (!c || c.link === state) return;
    c.link = state;
    side.feed({ kind: 'link', gen: c.gen, state });
  }

  /** One disruption, or one call of an app. */
  disrupt(): void {
    const side = this.pick(this.sides);
    const type = this.pick(TYPES);
    const dice = this.next();
    if (!side.here) return this.join(side);
    if (dice > 0.98) {
      side.limited = !side.limited;
      return;
    }
    if (!side.accompanied) return;
    if (dice < 0.35) {
      side.publish(type, this.chance(0.5), this.chance(0.8));
    } else if (dice < 0.5) {
      side.feed({ kind: 'unpublish', type });
    } else if (dice < 0.58) {
      side.feed({ kind: 'refuse', type });
    } else if (dice < 0.7) {
      this.loseSocket(side);
    } else if (dice < 0.78) {
      this.link(side, 'disconnected');
    } else if (dice < 0.84) {
      this.link(side, 'disconnected');
      this.link(side, 'failed');
    } else if (dice < 0.9) {
      for (const name of side.timers) return this.fire(side, name);
    } else if (dice < 0.92) {
      side.feed({ kind: 'giveUp', type });
    } else if (dice < 0.93) {
      side.feed({ kind: 'regather' });
    } else if (dice < 0.94) {
      this.endDTLS(side);
    } else if (dice < 0.96) {
      this.rejoin(side);
    } else {
      this.leave(side);
    }
  }

  /** DTLS fails on one side; the other side does not notice. */
  private endDTLS(side: Side): void {
    const c = side.connection;
    if (!c || c.dtlsEnded) return;
    c.dtlsEnded = true;
    c.link = 'failed';
    side.feed({ kind: 'lost', gen: c.gen });
  }

  /**
   * A dying socket loses the newest of what was sent and the oldest of what was to be received;
   * later the session is resumed.
   */
  private loseSocket(side: Side): void {
    if (!side.online) {
      side.online = true;
      side.feed({ kind: 'resumed' });
      return;
    }
    side.online = false;
    side.refusals = 0;
    const i = this.index(side);
    // The state of the room replaces lost presence.
    const keep = (p: Packet) => 'presence' in p;
    const taken = this.socket[i].filter((p) => 'presence' in p || p.accepted).length;
    const cut = taken + Math.floor(this.next() * (this.socket[i].length - taken + 1));
    this.socket[i] = [...this.socket[i].slice(0, cut), ...this.socket[i].slice(cut).filter(keep)];
    const from = Math.floor(this.next() * (this.socket[1 - i as 0 | 1].length + 1));
    const coming = this.socket[1 - i as 0 | 1];
    this.socket[1 - i as 0 | 1] = [...coming.slice(0, from).filter(keep), ...coming.slice(from)];
  }

  /** The user leaves and joins again at once; what the other side sent meanwhile still arrives. */
  private rejoin(side: Side): void {
    this.leave(side);
    this.join(side);
  }

  private leave(side: Side): void {
    side.dispose();
    side.here = false;
    this.channel[0] = [];
    this.channel[1] = [];
    this.socket[this.index(side)].push({ presence: 'leave' });
    // Nobody gets what was for the user who has left.
    const i = this.index(side.other);
    this.socket[i] = this.socket[i].filter((p) => 'presence' in p);
  }

  private join(side: Side): void {
    side.here = true;
    side.online = true;
    side.accompanied = side.other.here;
    // It gets the room as it is, and nothing of before.
    this.socket[this.index(side.other)] = [];
    this.socket[this.index(side)].push({ presence: 'join' });
    if (side.accompanied) side.reset();
  }

  private fire(side: Side, name: TimerName): void {
    if (side.timers.delete(name)) side.feed({ kind: 'timer', name });
  }

  private deliver(from: Side): void {
    const packet = this.socket[this.index(from)].shift()!;
    const to = from.other;
    if ('presence' in packet) {
      if (!to.here) return;
      const { want } = to;
      to.accompanied = packet.presence === 'join';
      to.dispose();
      to.want = want;
      if (!to.accompanied) return;
      to.reset();
      // The app publishes the same again.
      for (const type of TYPES) {
        const w = want[type];
        if (w) to.publish(type, w.audio, w.video);
      }
      return;
    }
    if (!packet.accepted && packet.signal.eventOp === 'publish') {
      const { type, epoch, rev } = packet.signal;
      from.feed({ kind: 'delivered', type, epoch, rev });
    }
    if (to.active) to.feed({ kind: 'signal', signal: packet.signal, byChannel: false });
  }

  private deliverChannel(from: Side): void {
    const { gen, signal } = this.channel[this.index(from)].shift()!;
    if (from.other.connection?.gen === gen) {
      from.other.feed({ kind: 'signal', signal, byChannel: true });
    }
  }

  /** Both ends have the same pair of ICE sessions, and one has a candidate of the other. */
  private isReachable(): boolean {
    const [a, b] = [this.sides[0].connection, this.sides[1].connection];
    if (!a || !b || a.gen !== b.gen || a.dtlsEnded || b.dtlsEnded) return false;
    return (
      a.localIce === b.remoteIce
      && b.localIce === a.remoteIce
      && a.localIce !== 0
      && b.localIce !== 0
      && (a.candidates.has(b.localIce) || b.candidates.has(a.localIce))
    );
  }

  /**
   * Ends all disruptions: both are online, apps publish again what they want, all events run out.
   */
  settle(): void {
    for (const side of this.sides) {
      side.limited = false;
      if (!side.here) this.join(side);
      if (!side.online) {
        side.online = true;
        if (side.active) side.feed({ kind: 'resumed' });
      }
    }
    this.drain();
    for (let round = 0; round < 4; round++) {
      for (const side of this.sides) {
        // A broken link that was not noticed is noticed now.
        const c = side.connection;
        if (c && !this.isReachable() && c.link === 'connected') this.link(side, 'failed');
      }
      this.drain();
    }
  }

  drain(): void {
    for (let n = 0; n < 5_000; n++) {
      const moves = this.moves(false);
      if (moves.length === 0) return;
      this.clock += 10;
      this.pick(moves)();
    }
    throw new Error('does not come to rest');
  }

  run(steps: number): void {
    for (let n = 0; n < steps; n++) {
      this.clock += 10;
      const moves = this.moves(false);
      if (moves.length === 0 || this.chance(0.15)) this.disrupt();
      else this.pick(moves)();
    }
  }
}
