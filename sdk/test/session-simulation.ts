/**
 * Two peer sessions with both of their connections, as pure machines: each event is one step of a
 * seeded schedule. Each connection is cut and restored on its own. The server loses messages when a
 * socket dies, and delivers nothing while it is away.
 */
import { expect } from 'vitest';
import type { MediaType } from '../types/knowledgetalk';
import {
  initialSession,
  isHeard,
  isReady,
  stepSession,
  ROLES,
  type Session,
  type SessionEffect,
  type SessionEvent,
  type Wait,
  type Role,
} from '../src/negotiation/failover';
import { TYPES } from '../src/negotiation/layout';
import type { Event, TimerName } from '../src/negotiation/machine';
import { ofBackup } from '../src/negotiation/session';
import { negotiates, type Signal } from '../src/signaling/messages';
import { freeze, Simulation } from './simulation';

type Kinds = { audio: boolean; video: boolean } | null;

interface Connection {
  gen: number;
  offering: boolean;
  /** ICE sessions: ours, and the remote one from its description. */
  localIce: number;
  remoteIce: number;
  last: 'offer' | 'answer' | null;
  hasCandidate: boolean;
  link: RTCPeerConnectionState;
  channel: boolean;
  attached: Record<MediaType, number>;
}

/** Performs the effects of one connection. */
class Transport {
  queue: SessionEffect[] = [];
  busy: (() => void) | null = null;
  connection: Connection | null = null;
  readonly timers = new Set<TimerName>();
  tracks: Record<MediaType, Kinds> = { cam: null, screen: null };

  constructor(readonly side: Side, readonly role: Role) {}

  get other(): Transport | undefined {
    return this.side.other.transports[this.role];
  }

  feed(event: Event): void {
    this.side.feed({ kind: 'transport', role: this.role, event });
  }

  run(): void {
    while (!this.busy && this.queue.length) this.perform(this.queue.shift()!);
  }

  /** The epoch that is sent of a type on this connection; 0 for none. */
  private sent(type: MediaType): number {
    const { session } = this.side;
    const local = session[this.role]!.local[type];
    return local.on && !(this.role === 'primary' && session.primaryPaused) ? local.epoch : 0;
  }

  private attachAll(c: Connection): void {
    for (const type of TYPES) c.attached[type] = this.sent(type);
  }

  private perform(e: SessionEffect): void {
    const c = this.connection;
    switch (e.do) {
      case 'open':
        this.busy = () => {
          this.connection = {
            gen: e.gen,
            offering: false,
            localIce: 0,
            remoteIce: 0,
            last: null,
            hasCandidate: false,
            link: 'new',
            channel: false,
            attached: { cam: 0, screen: 0 },
          };
          this.attachAll(this.connection);
        };
        return;
      case 'close':
        this.connection = null;
        return;
      case 'offer':
        this.busy = () => {
          if (!e.restart) expect(c!.offering, 'an offer while another is open').toBe(false);
          c!.offering = true;
          this.describe(c!, e.n, 'offer', this.side.simulation.newIceSession());
        };
        return;
      case 'accept':
        this.busy = () => {
          expect(c!.offering, 'an offer that crosses another').toBe(false);
          c!.remoteIce = Number(e.sdp.split(' ')[0]);
          c!.hasCandidate = false;
          this.attachAll(c!);
          this.describe(c!, e.n, 'answer', this.side.simulation.newIceSession());
          this.feed({ kind: 'tracks', gen: e.gen });
        };
        return;
      case 'answered':
        this.busy = () => {
          expect([c!.offering, Number(e.sdp.split(' ')[1])], 'an answer to another offer').toEqual([
            true,
            c!.localIce,
          ]);
          c!.offering = false;
          c!.remoteIce = Number(e.sdp.split(' ')[0]);
          c!.hasCandidate = false;
          this.feed({ kind: 'tracks', gen: e.gen });
        };
        return;
      case 'candidates':
        c!.hasCandidate ||= e.list.some(({ candidate }) => Number(candidate) === c!.remoteIce);
        return;
      case 'resend':
        if (c!.last === e.what) this.describe(c!, e.n, e.what, c!.localIce);
        return;
      case 'recandidate':
        return this.trickle(c!);
      case 'attach':
        if (c) c.attached[e.type] = this.sent(e.type);
        return;
      case 'send':
        return this.side.send(this, e.signal, e.byChannel);
      case 'timer':
        if (e.on) this.timers.add(e.name);
        else this.timers.delete(e.name);
        return;
      case 'stream':
        this.tracks[e.type] = { audio: e.audio, video: e.video };
        return;
      case 'dropStream':
        this.tracks[e.type] = null;
        return;
      case 'report':
        if (isHeard(this.side.session, e)) this.side.reported = e.state;
        return;
      case 'subscribed':
        expect(this.tracks[e.type], 'subscribed without a stream').not.toBeNull();
        this.side.subscribed[e.type]++;
    }
  }

  private describe(c: Connection, n: number, type: 'offer' | 'answer', localIce: number): void {
    c.localIce = localIce;
    c.last = type;
    this.side.send(
      this,
      { eventOp: 'sdp', gen: c.gen, n, sdp: { type, sdp: `${localIce} ${c.remoteIce}` } },
      false,
    );
    this.trickle(c);
  }

  private trickle(c: Connection): void {
    this.side.send(
      this,
      { eventOp: 'candidate', gen: c.gen, candidates: [{ candidate: `${c.localIce}` }] },
      false,
    );
  }
}

export class Side {
  session: Session;
  transports: Partial<Record<Role, Transport>> = {};
  readonly waits = new Map<Wait, number>();
  readonly probes: Extract<SessionEffect, { do: 'probe' }>[] = [];
  online = true;
  /** The server answers 429, and passes nothing on. */
  limited = false;
  /** Connections whose last message got 403. */
  readonly refusals: Role[] = [];
  /** The room is small enough for a backup, as this side knows. */
  standby = true;
  want: Record<MediaType, Kinds> = { cam: null, screen: null };
  readonly published: Record<MediaType, number> = { cam: 0, screen: 0 };
  readonly subscribed: Record<MediaType, number> = { cam: 0, screen: 0 };
  /** The last peerState that the app got. */
  reported = '';

  constructor(readonly simulation: SessionSimulation, readonly me: string, peer: string) {
    this.session = initialSession(me, peer, simulation.clock);
  }

  get other(): Side {
    return this.simulation.sides[this.me === 'a' ? 1 : 0]!;
  }

  /** Nothing is left; the session is with a user who has just come. */
  dispose(): void {
    const { me, other, simulation } = this;
    this.session = initialSession(me, other.me, simulation.clock);
    this.transports = {};
    this.waits.clear();
    this.probes.length = this.refusals.length = 0;
    for (const type of TYPES) {
      this.want[type] = null;
      this.published[type] = this.subscribed[type] = 0;
    }
    this.reported = '';
  }

  feed(event: SessionEvent): void {
    const facts = {
      now: this.simulation.clock,
      seed: this.simulation.clock,
      standby: this.standby,
    };
    // A function that is not pure throws here.
    const [session, effects] = stepSession(freeze(this.session), event, facts);
    this.session = session;
    // What failed, or the receiver refused, is no longer wanted: the app was told.
    for (const type of TYPES) if (!session.primary.local[type].on) this.want[type] = null;
    for (const effect of effects) {
      if (effect.do === 'report' && !effect.role) this.reported = effect.state;
      if (effect.role) {
        const transport = (this.transports[effect.role] ??= new Transport(this, effect.role));
        if (effect.do === 'open') {
          transport.queue = transport.queue.filter((earlier) => !('gen' in earlier));
        }
        transport.queue.push(effect);
      } else if (effect.do === 'drop') delete this.transports.backup;
      else if (effect.do === 'probe') this.probes.push(effect);
      else if (effect.do === 'wait' && effect.ms === null) this.waits.delete(effect.name);
      else if (effect.do === 'wait') {
        this.waits.set(effect.name, this.simulation.clock + effect.ms!);
      }
    }
    for (const role of ROLES) this.transports[role]?.run();
  }

  publish(type: MediaType, kinds: NonNullable<Kinds>): void {
    this.want[type] = kinds;
    this.published[type]++;
    this.feed({ kind: 'publish', type, ...kinds });
  }

  /**
   * Like PeerSession: over the data channel of this connection where allowed, else the server, else
   * any usable data channel.
   */
  send({ role }: Transport, signal: Signal, byChannel: boolean): void {
    const channel = (w: Role) => this.transports[w]?.connection?.channel && !this.session[w]!.dead;
    // On a dead path the data channel delivers late: the message goes over the server as well.
    if (byChannel && this.transports[role]?.connection?.channel) {
      this.simulation.put(this, role, signal);
    }
    if (byChannel && channel(role)) return;
    const addressed = role === 'backup' ? ofBackup(signal) : signal;
    if (!addressed) return;
    const channelOf =
      negotiates(addressed) && (this.session.peerOffline || !this.online)
        ? ROLES.find(channel)
        : undefined;
    if (channelOf) return this.simulation.put(this, channelOf, addressed);
    // The other user may have left, and this side does not know yet.
    if (this.simulation.chance(this.simulation.unknown)) this.refusals.push(role);
    else if (!this.limited) this.simulation.put(this, null, addressed);
  }

  /** Epoch of what is sent of a type on a connection; 0 for nothing. */
  attached(role: Role, type: MediaType): number {
    return this.transports[role]?.connection?.attached[type] ?? 0;
  }
}

export class SessionSimulation extends Simulation {
  clock = 1_000_000;
  /** How often the server answers 403. */
  unknown = 0;
  readonly sides: [Side, Side];
  /** Connections on which no packet passes. */
  readonly cut: Record<Role, boolean> = { primary: false, backup: false };
  private counter = 0;
  private readonly sent: [
    { by: Role | null; gen: number; signal: Signal }[],
    { by: Role | null; gen: number; signal: Signal }[],
  ] = [[], []];

  constructor(next: () => number) {
    super(next);
    this.sides = [new Side(this, 'a', 'b'), new Side(this, 'b', 'a')];
  }

  newIceSession(): number {
    return ++this.counter;
  }

  put(from: Side, by: Role | null, signal: Signal): void {
    const gen = by ? from.transports[by]!.connection!.gen : 0;
    this.sent[this.sides.indexOf(from) as 0 | 1].push({
      by,
      gen,
      signal: JSON.parse(JSON.stringify(signal)),
    });
  }

  /** Both ends have the same pair of ICE sessions, and one has a candidate of the other. */
  isReachable(role: Role): boolean {
    const [a, b] = this.sides.map((side) => side.transports[role]?.connection);
    return Boolean(
      !this.cut[role]
      && a
      && b
      && a.gen === b.gen
      && a.localIce
      && b.localIce
      && a.localIce === b.remoteIce
      && b.localIce === a.remoteIce
      && (a.hasCandidate || b.hasCandidate),
    );
  }

  /** Every event that can happen next by itself. */
  moves(): (() => void)[] {
    return this.sides.flatMap((side, i) => [
      ...this.deliveries(side, this.sent[i]!),
      ...ROLES.flatMap((role) => this.happenings(side, role)),
      ...this.answers(side),
    ]);
  }

  /** Messages keep their order on each transport, and none between transports. */
  private deliveries(from: Side, list: (typeof this.sent)[0]): (() => void)[] {
    return [null, ...ROLES].flatMap((by) => {
      const i = list.findIndex((packet) => packet.by === by);
      if (i < 0 || (by ? this.cut[by] : !from.online || !from.other.online)) return [];
      return [
        () => {
          const [{ gen, signal }] = list.splice(i, 1) as [(typeof list)[0]];
          if (!by && signal.eventOp === 'publish') {
            const { type, epoch, rev } = signal;
            const event: Event = { kind: 'delivered', type, epoch, rev };
            from.feed({ kind: 'transport', role: 'primary', event });
          }
          if (!by || from.other.transports[by]?.connection?.gen === gen) {
            from.other.feed({ kind: 'received', signal, by });
          }
        },
      ];
    });
  }

  private happenings(side: Side, role: Role): (() => void)[] {
    const transport = side.transports[role];
    const c = transport?.connection;
    const moves: (() => void)[] = [];
    if (transport?.busy) {
      moves.push(() => {
        const done = transport.busy!;
        transport.busy = null;
        done();
        transport.run();
      });
    }
    if (!transport || !c) return moves;
    const isReachable = this.isReachable(role);
    const { dead } = side.session[role]!;
    if (isReachable && c.link !== 'connected') moves.push(() => this.link(side, role, 'connected'));
    if (
      isReachable
      && c.link === 'connected'
      && transport.other?.connection?.link === 'connected'
      && !c.channel
    ) {
      moves.push(() => {
        c.channel = true;
        if (dead) transport.feed({ kind: 'heartbeat', answered: true });
        transport.feed({ kind: 'channel', gen: c.gen, open: true });
      });
    }
    if (!c.channel) return moves;
    if (this.cut[role] && !dead) {
      moves.push(() => transport.feed({ kind: 'heartbeat', answered: false }));
    }
    if (isReachable && dead && transport.other?.connection?.channel) {
      moves.push(() => transport.feed({ kind: 'heartbeat', answered: true }));
      if (role === 'primary' && !side.session.responding) {
        moves.push(() => side.feed({ kind: 'firstResponse' }));
      }
    }
    return moves;
  }

  private answers(side: Side): (() => void)[] {
    const refused = side.refusals.map((role, i) => () => {
      side.refusals.splice(i, 1);
      side.feed({ kind: 'transport', role, event: { kind: 'unreachable' } });
    });
    if (!side.probes.length) return refused;
    return [
      ...refused,
      () => {
        const { what } = side.probes.shift()!;
        side.feed({
          kind: 'probed',
          what,
          yes: what === 'relay' ? true : what === 'server' ? side.online : this.chance(0.3),
        });
      },
    ];
  }

  link(side: Side, role: Role, state: RTCPeerConnectionState): void {
    const c = side.transports[role]?.connection;
    if (!c || c.link === state) return;
    c.link = state;
    side.transports[role]!.feed({ kind: 'link', gen: c.gen, state });
  }

  /** One of the timers fires. False: none is set. */
  tick(): boolean {
    const timers = this.sides.flatMap((side) => [
      ...ROLES.flatMap((role) => [...side.transports[role]?.timers ?? []].map((name) => () => {
        side.transports[role]!.timers.delete(name);
        side.transports[role]!.feed({ kind: 'timer', name });
      })),
      ...[...side.waits].map(([name, due]) => () => {
        this.clock = Math.max(this.clock, due);
        side.waits.delete(name);
        side.feed({ kind: 'wait', name });
      }),
    ]);
    if (timers.length) this.pick(timers)();
    return timers.length > 0;
  }

  disrupt(): void {
    const side = this.pick(this.sides);
    const type = this.pick(TYPES);
    const role = this.pick(['primary', 'primary', 'backup'] as const);
    const dice = this.next();
    if (dice < 0.2) side.publish(type, { audio: this.chance(0.5), video: true });
    else if (dice < 0.26) side.feed({ kind: 'unpublish', type });
    else if (dice < 0.3) side.feed({ kind: 'refuse', type });
    else if (dice < 0.55) this.cut[role] = !this.cut[role];
    else if (dice < 0.65) this.socket(side);
    else if (dice < 0.72) this.link(side, role, 'disconnected');
    else if (dice < 0.76) this.link(side, role, 'failed');
    else if (dice < 0.8) side.feed({ kind: 'network' });
    else if (dice < 0.81) this.resize();
    else if (dice < 0.82) this.rejoin(side);
    else if (dice < 0.84) side.limited = !side.limited;
    else if (dice < 0.86) this.unknown = this.unknown ? 0 : 0.2;
    else this.tick();
  }

  /** Others join or leave: the sides know it one after the other. */
  private resize(): void {
    const standby = this.chance(0.5);
    const sides = this.chance(0.7) ? this.sides : [this.pick(this.sides)];
    for (const side of sides) {
      side.standby = standby;
      side.feed({ kind: 'room' });
    }
  }

  /** The user leaves and joins again; the other side publishes the same again. */
  private rejoin(side: Side): void {
    const want = { ...side.other.want };
    for (const each of this.sides) each.dispose();
    this.sent[0].length = this.sent[1].length = 0;
    side.online = true;
    for (const type of TYPES) {
      const kinds = want[type];
      if (kinds) side.other.publish(type, kinds);
    }
  }

  /** A dying socket loses the newest of what was sent; later the session is resumed. */
  private socket(side: Side): void {
    side.online = !side.online;
    if (side.online) return side.feed({ kind: 'resumed' });
    const i = this.sides.indexOf(side) as 0 | 1;
    const list = this.sent[i];
    const cut = Math.floor(this.next() * (list.length + 1));
    this.sent[i] = list.filter(({ by }, at) => by !== null || at < cut);
    side.feed({ kind: 'offline' });
  }

  run(steps: number): void {
    for (let n = 0; n < steps; n++) {
      this.clock += 10;
      const moves = this.moves();
      if (!moves.length || this.chance(0.1)) this.disrupt();
      else this.pick(moves)();
    }
  }

  /** Runs until nothing happens by itself. */
  drain(): void {
    for (let n = 0; n < 5_000; n++) {
      const moves = this.moves();
      if (!moves.length) return;
      this.clock += 10;
      this.pick(moves)();
    }
    throw new Error('does not come to rest');
  }

  /** Ends all disruptions. */
  settle(): void {
    for (const role of ROLES) this.cut[role] = false;
    this.unknown = 0;
    for (const side of this.sides) {
      side.limited = false;
      if (side.standby) continue;
      side.standby = true;
      side.feed({ kind: 'room' });
    }
    for (const side of this.sides) if (!side.online) this.socket(side);
    for (let round = 0; round < 400; round++) {
      this.drain();
      // A broken link that was not noticed is noticed now.
      for (const side of this.sides) {
        for (const role of ROLES) if (!this.isReachable(role)) this.link(side, role, 'failed');
      }
      if (!this.moves().length && !this.tick()) return;
    }
  }

  /** What is published is sent on a connection that works. */
  arrives(from: Side, type: MediaType): boolean {
    return ROLES.some(
      (role) =>
        from.attached(role, type) > 0 && this.isReachable(role) && isReady(from.session[role]),
    );
  }
}
