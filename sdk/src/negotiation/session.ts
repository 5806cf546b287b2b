import type { MediaType } from '../../types/knowledgetalk';
import { deferred, type Deferred } from '../deferred';
import { negotiates, NONE, type Signal } from '../signaling/messages';
import { kindsOf } from '../media/streams';
import { Demands } from './budget';
import {
  initialSession, isHeard, isVisible, showsBackup, stepSession, wayOf, WAYS, type Session, type SessionEffect, type SessionEvent, type Wait, type Way,
} from './failover';
import { TYPES } from './layout';
import type { State } from './machine';
import type { Report } from './report';
import { Negotiation, PeerTransport, type TransportHooks, type TransportOwner } from './transport';

/** What a session with one other user needs to know and to reach, whichever software that user has. */
export interface UserHooks {
  /** To the other user over the server. Resolves with the server's code. */
  sendSignal(signal: Signal): Promise<string>;
  iceServers(): Promise<RTCIceServer[]>;
  /** See LinkHooks. */
  pass(track: MediaStreamTrack): void;
  /** Null: nothing is published. */
  stream(type: MediaType, tracks: MediaStreamTrack[] | null): void;
  subscribed(type: MediaType): void;
  report: Report;
}

export interface PeerSessionHooks extends UserHooks, TransportHooks {
  /** The server can be reached. */
  online(): boolean;
  /** A backup may be kept with this user. */
  standby(): boolean;
  /** Asks the server for a sign of life. */
  probeServer(): Promise<boolean>;
}

const hasRelay = (servers: RTCIceServer[]) => servers.some(({ urls }) => [urls].flat().some((url) => /^turns?:/.test(url)));

/** One other user: keeps the state of the session, and performs its effects. Nothing of it runs after dispose(). */
export class PeerSession implements TransportOwner {
  private session: Session;
  private readonly byWay: Partial<Record<Way, PeerTransport>> = {};
  private readonly streams: Record<MediaType, MediaStream | null> = { cam: null, screen: null };
  private readonly tracksByWay: Record<Way, Partial<Record<MediaType, MediaStreamTrack[] | null>>> = { primary: {}, backup: {} };
  private readonly waiters = new Map<MediaType, Deferred<boolean>>();
  private readonly timers = new Map<Wait, ReturnType<typeof setTimeout>>();
  private disposed = false;

  constructor(me: string, other: string, readonly hooks: PeerSessionHooks, private readonly demands = new Demands()) {
    this.session = initialSession(me, other, Date.now());
  }

  /** The one that carries what we send. None while it is only kept ready. */
  get connection(): RTCPeerConnection | undefined {
    const pc = (way: Way) => (isVisible(this.session[way]) ? this.byWay[way]?.pc : undefined);
    return (this.session.onBackup ? pc('backup') : undefined) ?? pc('primary');
  }

  /** A publishP2P is waiting for its outcome. */
  get waiting(): boolean {
    return this.waiters.size > 0;
  }

  /** What is being sent to this user now. */
  sending(type: MediaType): MediaStream | null {
    return this.session.primary.local[type].on ? this.streams[type] : null;
  }

  /** What carries the camera. */
  senders(): RTCRtpSender[] {
    return this.open.flatMap((transport) => transport.senders());
  }

  /** True once media is connected, false on failure or after 30 s. Calls that overlap share their outcome. */
  publish(type: MediaType, stream: MediaStream): Promise<boolean> {
    this.streams[type] = stream;
    let waiter = this.waiters.get(type);
    if (!waiter) {
      waiter = deferred(Negotiation.publish, () => {
        this.feed({ kind: 'giveUp', type });
        this.settle(type, false);
      });
      this.waiters.set(type, waiter);
    }
    this.feed({ kind: 'publish', type, ...kindsOf(stream) });
    return waiter.promise;
  }

  /** A track of what is being sent has ended. */
  ended(type: MediaType): void {
    const stream = this.sending(type);
    if (stream) this.feed({ kind: 'kinds', type, ...kindsOf(stream) });
  }

  signal(signal: Signal): void {
    this.received(signal, null);
  }

  dispose(): void {
    this.disposed = true;
    for (const timer of this.timers.values()) clearTimeout(timer);
    for (const transport of this.open) transport.dispose();
    for (const type of this.waiters.keys()) this.settle(type, false);
  }

  feed(event: SessionEvent): void {
    if (this.disposed) return;
    const facts = { now: performance.now(), seed: Date.now(), standby: this.hooks.standby() };
    const [session, effects] = stepSession(this.session, event, facts);
    if (event.kind === 'received' && !this.affordable(effects, wayOf(event.signal, event.by))) return;
    this.session = session;
    for (const effect of effects) {
      if (!effect.way) continue;
      // Not in turn: whoever publishes again before the queue has come to this waits for another outcome.
      if (effect.do === 'settle' && !effect.ok) this.settle(effect.type, false);
      else (this.byWay[effect.way] ??= new PeerTransport(this, effect.way, this.demands.words)).push(effect);
    }
    for (const effect of effects) if (!effect.way) this.perform(effect);
    for (const transport of this.open) void transport.run();
  }

  state(way: Way): State {
    return this.session[way]!;
  }

  received(signal: Signal, by: Way | null): void {
    // A restart that is asked for, or offered, while nothing is answered here.
    if (negotiates(signal)) this.byWay[wayOf(signal, by)]?.complained();
    this.feed({ kind: 'received', signal, by });
  }

  attachable(way: Way, type: MediaType): MediaStream | null {
    const { primaryPaused } = this.session;
    return this.state(way).local[type].on && !(primaryPaused && way === 'primary') ? this.streams[type] : null;
  }

  needed(way: Way): boolean {
    return way === 'backup' && (this.byWay.primary?.doubtful ?? false);
  }

  tracks(way: Way, type: MediaType, tracks: MediaStreamTrack[] | null): void {
    this.tracksByWay[way][type] = tracks;
    this.show(type, way === 'primary');
  }

  /**
   * Over the server, as long as it is there: what it takes arrives, if in no haste. Without it descriptions and candidates go over a data
   * channel on which something gets through. They may overtake others then; the machine tells them apart by their numbers, and repeats.
   */
  async sendSignal(way: Way, signal: Signal, byChannel = false): Promise<void> {
    // On a dead path it waits for the path: it is said over the server as well, which may be away.
    const transport = this.byWay[way];
    if (byChannel && transport?.overChannel(signal) && !this.state(way).dead) return;
    const code = await this.send(way === 'backup' ? ofBackup(signal) : signal);
    if (transport !== this.byWay[way]) return;
    if (code === '403') this.feed({ kind: 'transport', way, event: { kind: 'unreachable' } });
    if (code !== '200' || signal.eventOp !== 'publish') return;
    const { type, epoch, rev } = signal;
    this.feed({ kind: 'transport', way, event: { kind: 'delivered', type, epoch, rev } });
  }

  private async send(signal: Signal | null): Promise<string> {
    if (!signal) return '200';
    const carried = () => negotiates(signal) && !this.disposed && WAYS.some((way) => {
      const state = this.session[way];
      return state?.link === 'connected' && !state.dead && this.byWay[way]?.overChannel(signal);
    });
    const { hooks } = this;
    if ((this.session.peerOffline || !hooks.online()) && carried()) return '200';
    const code = await hooks.sendSignal(signal);
    return code === '504' && !hooks.online() && carried() ? '200' : code;
  }

  private get open(): PeerTransport[] {
    return WAYS.flatMap((way) => this.byWay[way] ?? []);
  }

  /** Whether the other side may cause this now. Otherwise its message has not come: what is meant is repeated. */
  private affordable(effects: SessionEffect[], of: Way): boolean {
    const does = (...kinds: SessionEffect['do'][]) => effects.some((effect) => effect.way === of && kinds.includes(effect.do));
    if (does('open', 'offer', 'accept')) return this.demands.builds.take();
    return !does('resend', 'send') || this.demands.repeats.take();
  }

  perform(effect: SessionEffect): void {
    const { hooks, byWay } = this;
    switch (effect.do) {
      case 'subscribed': return hooks.subscribed(effect.type);
      case 'settle': return this.settle(effect.type, effect.ok);
      case 'report': return isHeard(this.session, effect) ? hooks.report(effect.state, effect.reason) : undefined;
      case 'show':
        for (const type of TYPES) this.show(type);
        return;
      case 'drop':
        byWay.backup?.dispose();
        delete byWay.backup;
        this.tracksByWay.backup = {};
        return;
      case 'probe': {
        const { what } = effect;
        const answer = what === 'relay' ? hooks.iceServers().then(hasRelay) : what === 'server' ? hooks.probeServer() : byWay.primary?.relayed();
        return void answer?.then((yes) => this.feed({ kind: 'probed', what, yes }));
      }
      case 'wait':
        clearTimeout(this.timers.get(effect.name));
        if (effect.ms !== null) this.timers.set(effect.name, setTimeout(() => this.feed({ kind: 'wait', name: effect.name }), effect.ms));
    }
  }

  /** Nothing is shown that is not published on the primary connection. */
  private show(type: MediaType, always = false): void {
    const { primary, backup } = this.tracksByWay;
    if (always || primary[type]) this.hooks.stream(type, (primary[type] && showsBackup(this.session) && backup[type]) || primary[type] || null);
  }

  private settle(type: MediaType, ok: boolean): void {
    this.waiters.get(type)?.settle(ok);
    this.waiters.delete(type);
  }
}

/**
 * Publications of a backup go over its own data channel alone: over the server they would be taken for those of the primary connection. One
 * that is to say that there is no connection says so itself.
 */
export function ofBackup(signal: Signal): Signal | null {
  if (negotiates(signal)) return { ...signal, link: 'standby' };
  return 'gen' in signal && signal.gen === 0 ? { ...NONE, link: 'standby' } : null;
}
