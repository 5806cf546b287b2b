import type { MediaType } from '../../types/knowledgetalk';
import { deferred, type Deferred } from '../deferred';
import { negotiates, NONE, type Signal } from '../signaling/messages';
import { kindsOf } from '../media/streams';
import { PeerLimits } from './budget';
import {
  initialSession,
  isHeard,
  isVisible,
  showsBackup,
  stepSession,
  roleOf,
  ROLES,
  type Session,
  type SessionEffect,
  type SessionEvent,
  type Wait,
  type Role,
} from './failover';
import { TYPES } from './layout';
import type { State } from './machine';
import type { Report } from './report';
import { Negotiation, PeerTransport, type TransportHooks, type TransportOwner } from './transport';

/** What a session with one other user needs, whatever client that is. */
export interface UserHooks {
  /** To the other user over the server. Resolves with the server's code. */
  sendSignal(signal: Signal): Promise<string>;
  iceServers(): Promise<RTCIceServer[]>;
  /** See ConnectionHooks. */
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
  /** Asks the server whether it answers. */
  probeServer(): Promise<boolean>;
}

const hasRelay = (servers: RTCIceServer[]) =>
  servers.some(({ urls }) => [urls].flat().some((url) => /^turns?:/.test(url)));

/**
 * One other user: keeps the state of the session and performs its effects. Nothing runs after
 * dispose().
 */
export class PeerSession implements TransportOwner {
  private session: Session;
  private readonly byRole: Partial<Record<Role, PeerTransport>> = {};
  private readonly localStreams: Record<MediaType, MediaStream | null> = {
    cam: null,
    screen: null,
  };
  private readonly tracksByRole: Record<
    Role,
    Partial<Record<MediaType, MediaStreamTrack[] | null>>
  > = { primary: {}, backup: {} };
  private readonly waiters = new Map<MediaType, Deferred<boolean>>();
  private readonly timers = new Map<Wait, ReturnType<typeof setTimeout>>();
  private disposed = false;

  constructor(
    me: string,
    other: string,
    readonly hooks: PeerSessionHooks,
    private readonly peerLimits = new PeerLimits(),
  ) {
    this.session = initialSession(me, other, Date.now());
  }

  /** The connection that we send on. None while it is only prewarmed. */
  get connection(): RTCPeerConnection | undefined {
    const pc = (role: Role) => (isVisible(this.session[role]) ? this.byRole[role]?.pc : undefined);
    return (this.session.onBackup ? pc('backup') : undefined) ?? pc('primary');
  }

  /** A publishP2P is waiting for its outcome. */
  get awaiting(): boolean {
    return this.waiters.size > 0;
  }

  /** What is being sent to this user now. */
  sending(type: MediaType): MediaStream | null {
    return this.session.primary.local[type].on ? this.localStreams[type] : null;
  }

  /** The senders of the camera. */
  senders(): RTCRtpSender[] {
    return this.open.flatMap((transport) => transport.senders());
  }

  /**
   * True once media is connected; false on failure or after 30 s. Overlapping calls share their
   * outcome.
   */
  publish(type: MediaType, stream: MediaStream): Promise<boolean> {
    this.localStreams[type] = stream;
    let waiter = this.waiters.get(type);
    if (!waiter) {
      waiter = deferred(Negotiation.publish, () => {
        this.feed({ kind: 'giveUp', type });
        this.settle(type, false);
      });
      this.waiters.set(type, waiter);
    }
    this.feed({ kind: 'publish', type, ...kindsOf(stream) });
    return waiter.outcome;
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
    if (event.kind === 'received' && !this.affordable(effects, roleOf(event.signal, event.by))) {
      return;
    }
    this.session = session;
    for (const effect of effects) {
      if (!effect.role) continue;
      // Not queued: a later publish must wait for an outcome of its own.
      if (effect.do === 'settle' && !effect.ok) this.settle(effect.type, false);
      else {
        (this.byRole[effect.role] ??= new PeerTransport(
          this,
          effect.role,
          this.peerLimits.channelMessages,
        )).push(effect);
      }
    }
    // The app may end the session when it hears of one of them.
    for (const effect of effects) if (!effect.role && !this.disposed) this.perform(effect);
    for (const transport of this.open) void transport.run();
  }

  state(role: Role): State {
    return this.session[role]!;
  }

  received(signal: Signal, by: Role | null): void {
    // A restart is requested or offered while nothing is answered here.
    if (negotiates(signal)) this.byRole[roleOf(signal, by)]?.complained();
    this.feed({ kind: 'received', signal, by });
  }

  attachable(role: Role, type: MediaType): MediaStream | null {
    const { primaryPaused } = this.session;
    return this.state(role).local[type].on && !(primaryPaused && role === 'primary')
      ? this.localStreams[type]
      : null;
  }

  needed(role: Role): boolean {
    return role === 'backup' && (this.byRole.primary?.doubtful ?? false);
  }

  tracks(role: Role, type: MediaType, tracks: MediaStreamTrack[] | null): void {
    this.tracksByRole[role][type] = tracks;
    this.show(type, role === 'primary');
  }

  /**
   * Over the server while it is reachable. Without it, negotiation goes over any working data
   * channel and may overtake other messages; the machine orders them by number, and repeats.
   */
  async sendSignal(role: Role, signal: Signal, byChannel = false): Promise<void> {
    // On a dead path the data channel delivers late: the message goes over the server too, which
    // may be away.
    const transport = this.byRole[role];
    if (byChannel && transport?.overChannel(signal) && !this.state(role).dead) return;
    const code = await this.send(role === 'backup' ? ofBackup(signal) : signal);
    if (transport !== this.byRole[role]) return;
    if (code === '403') this.feed({ kind: 'transport', role, event: { kind: 'unreachable' } });
    if (code !== '200' || signal.eventOp !== 'publish') return;
    const { type, epoch, rev } = signal;
    this.feed({ kind: 'transport', role, event: { kind: 'delivered', type, epoch, rev } });
  }

  private async send(signal: Signal | null): Promise<string> {
    if (!signal) return '200';
    const sentOverChannel = () => negotiates(signal) && !this.disposed && ROLES.some((role) => {
      const state = this.session[role];
      return state?.link === 'connected' && !state.dead && this.byRole[role]?.overChannel(signal);
    });
    const { hooks } = this;
    if ((this.session.peerOffline || !hooks.online()) && sentOverChannel()) return '200';
    const code = await hooks.sendSignal(signal);
    return code === '504' && !hooks.online() && sentOverChannel() ? '200' : code;
  }

  private get open(): PeerTransport[] {
    return ROLES.flatMap((role) => this.byRole[role] ?? []);
  }

  /**
   * Whether the limits of the other user allow this. Otherwise the message is ignored; its sender
   * repeats it.
   */
  private affordable(effects: SessionEffect[], of: Role): boolean {
    const does = (...kinds: SessionEffect['do'][]) =>
      effects.some((effect) => effect.role === of && kinds.includes(effect.do));
    if (does('open', 'offer', 'accept')) return this.peerLimits.builds.take();
    return !does('resend', 'send') || this.peerLimits.repeats.take();
  }

  perform(effect: SessionEffect): void {
    const { hooks, byRole } = this;
    switch (effect.do) {
      case 'subscribed':
        return hooks.subscribed(effect.type);
      case 'settle':
        return this.settle(effect.type, effect.ok);
      case 'report':
        return isHeard(this.session, effect)
          ? hooks.report(effect.state, effect.reason)
          : undefined;
      case 'show':
        for (const type of TYPES) this.show(type);
        return;
      case 'drop':
        byRole.backup?.dispose();
        delete byRole.backup;
        this.tracksByRole.backup = {};
        return;
      case 'probe': {
        const { what } = effect;
        const answer =
          what === 'relay'
            ? hooks.iceServers().then(hasRelay)
            : what === 'server'
              ? hooks.probeServer()
              : byRole.primary?.relayed();
        return void answer?.then((yes) => this.feed({ kind: 'probed', what, yes }));
      }
      case 'wait':
        clearTimeout(this.timers.get(effect.name));
        if (effect.ms !== null) {
          this.timers.set(
            effect.name,
            setTimeout(() => this.feed({ kind: 'wait', name: effect.name }), effect.ms),
          );
        }
    }
  }

  /** Only media published on the primary connection is shown. */
  private show(type: MediaType, always = false): void {
    const { primary, backup } = this.tracksByRole;
    if (always || primary[type]) {
      this.hooks.stream(
        type,
        (primary[type] && showsBackup(this.session) && backup[type]) || primary[type] || null,
      );
    }
  }

  private settle(type: MediaType, ok: boolean): void {
    this.waiters.get(type)?.settle(ok);
    this.waiters.delete(type);
  }
}

/**
 * Publications on a backup use its own data channel alone: over the server they would count for the
 * primary connection. A publication of generation 0 asks for a connection.
 */
export function ofBackup(signal: Signal): Signal | null {
  if (negotiates(signal)) return { ...signal, link: 'standby' };
  return 'gen' in signal && signal.gen === 0 ? { ...NONE, link: 'standby' } : null;
}
