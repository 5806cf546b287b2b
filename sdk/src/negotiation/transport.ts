import type { MediaType } from '../../types/knowledgetalk';
import { isHidden } from '../global';
import { readSignal, type Signal } from '../signaling/messages';
import { Budget } from './budget';
import type { SessionEffect, SessionEvent, Role } from './failover';
import { TYPES } from './layout';
import { Liveness } from './liveness';
import { sending, wanted, type Effect, type Event, type State, type TimerName } from './machine';
import { Peer } from './peer';
import { isPrivate, Trickle } from './trickle';

/** Milliseconds. An enum, so that the build puts the numbers where they are used. */
export enum Negotiation {
  /** publishP2P. */
  publish = 30_000,
  /** Until an unanswered offer or request is repeated. */
  repeat = 4_000,
  /** ICE and DTLS of one attempt. Two of them fit into a publish. */
  connect = 14_000,
  /**
   * How long `disconnected` may recover by itself. The creator acts first, so that restarts rarely
   * cross.
   */
  restartCreator = 2_000,
  restartOther = 3_500,
  /** Until a failed connection is tried again: first wait, doubled each time, and the longest. */
  again = 5_000,
  againMost = 40_000,
  /** Delay of private addresses of another network. */
  privateDelay = 300,
  /** ICE may use worse pairs before it settles on the best. */
  settle = 1_000,
}

/** Effects of a session that are performed on one connection. */
export type TransportEffect = Extract<SessionEffect, { role: Role }>;

export interface TransportHooks {
  iceServers(): Promise<RTCIceServer[]>;
  /** See ConnectionHooks. */
  pass(track: MediaStreamTrack): void;
  /** The other user is known to be in another network: its private addresses are useless here. */
  apart(): boolean;
}

/** The session that a connection belongs to. */
export interface TransportOwner {
  state(role: Role): State;
  feed(event: SessionEvent): void;
  /** Resolves when it is known whether the signal will arrive. */
  sendSignal(role: Role, signal: Signal, byChannel?: boolean): Promise<void>;
  /** The stream to send on this connection now. */
  attachable(role: Role, type: MediaType): MediaStream | null;
  /** Whether this connection is about to be needed without a publication on it. */
  needed(role: Role): boolean;
  received(signal: Signal, by: Role): void;
  /** Null: none. */
  tracks(role: Role, type: MediaType, tracks: MediaStreamTrack[] | null): void;
  /** Effects for the app, after all before them. */
  perform(effect: TransportEffect): void;
  readonly hooks: TransportHooks;
}

/**
 * One connection: performs its effects in order, one at a time, and reports events. Nothing runs
 * after dispose().
 */
export class PeerTransport {
  private peer: Peer | null = null;
  private trickle: Trickle | null = null;
  private queue: TransportEffect[] = [];
  private running = false;
  private disposed = false;
  /** The browser gathered mDNS names: camera permission was missing. */
  private hidden = false;
  private regathered = false;
  private readonly liveness: Liveness;
  private readonly late = new Set<ReturnType<typeof setTimeout>>();
  private readonly timers = new Map<TimerName, ReturnType<typeof setTimeout>>();

  /** @param channelMessages limit of messages over the data channel */
  constructor(
    private readonly holder: TransportOwner,
    private readonly role: Role,
    private readonly channelMessages: Budget,
  ) {
    const heartbeat = (answered: boolean) => () => this.feed({ kind: 'heartbeat', answered });
    this.liveness = new Liveness({
      send: (text) => this.peer?.heartbeat(text),
      now: () => performance.now(),
      hidden: isHidden,
      idle: () => !holder.needed(role) && !wanted(this.state),
      checks: async () => this.peer?.checks() ?? null,
      dead: heartbeat(false),
      firstResponse: () => role === 'primary' && holder.feed({ kind: 'firstResponse' }),
      alive: heartbeat(true),
    });
  }

  get pc(): RTCPeerConnection | undefined {
    return this.peer?.pc;
  }

  get doubtful(): boolean {
    return this.liveness.doubtful;
  }

  /** The other side receives nothing here: it negotiates. */
  complained(): void {
    this.liveness.complained();
  }

  /** Undefined: the selected pair is unknown. */
  async relayed(): Promise<boolean | undefined> {
    const path = await this.peer?.path();
    return path ? path.local === 'relay' || path.remote === 'relay' : undefined;
  }

  /** The senders of the camera. */
  senders(): RTCRtpSender[] {
    return this.peer?.senders() ?? [];
  }

  /** Over the data channel. False: it is not open. */
  overChannel(signal: Signal): boolean {
    return this.peer?.send(JSON.stringify(signal)) ?? false;
  }

  push(effect: TransportEffect): void {
    // Effects for an earlier generation are void.
    if (effect.do === 'open') this.queue = this.queue.filter((earlier) => !('gen' in earlier));
    this.queue.push(effect);
  }

  async run(): Promise<void> {
    if (this.running) return;
    this.running = true;
    for (let effect = this.queue.shift(); effect; effect = this.queue.shift()) {
      try {
        await this.perform(effect);
      } catch (error) {
        if (this.disposed) return;
        console.warn('Ieum: negotiation failed', error);
        if ('gen' in effect) this.feed({ kind: 'broken', gen: effect.gen });
      }
      if (this.disposed) return;
    }
    this.running = false;
  }

  /** Closes at once, without waiting: operations of a closed connection never finish. */
  dispose(): void {
    this.disposed = true;
    this.queue.length = 0;
    for (const timer of this.timers.values()) clearTimeout(timer);
    this.closePeer();
  }

  private get state(): State {
    return this.holder.state(this.role);
  }

  private feed(event: Event): void {
    if (!this.disposed) this.holder.feed({ kind: 'transport', role: this.role, event });
  }

  /** Synchronous where possible, so that effects of one event happen together. */
  private perform(effect: TransportEffect): Promise<void> | void {
    const { peer, holder, role } = this;
    switch (effect.do) {
      case 'open':
        return this.open(effect.gen, effect.creator);
      case 'close':
        return this.closePeer();
      case 'offer':
        return this.offer(effect);
      case 'accept':
        return this.accept(effect);
      case 'answered':
        return peer
          ?.answered(effect.sdp)
          .then(() => this.feed({ kind: 'tracks', gen: effect.gen }));
      case 'candidates':
        return peer ? this.candidates(peer, effect.list) : undefined;
      case 'resend': {
        const sdp = peer?.description(effect.what);
        if (sdp) this.describe(effect.gen, effect.n, effect.what, sdp);
        return;
      }
      case 'recandidate': return this.trickle?.again();
      case 'attach':
        this.improve();
        return peer?.attach(effect.type, holder.attachable(role, effect.type));
      case 'refresh':
        return peer?.refresh().catch(() => undefined);
      case 'send':
        return void holder.sendSignal(role, effect.signal, effect.byChannel);
      case 'timer':
        return this.setTimer(effect.name, effect.on);
      case 'stream':
        return holder.tracks(role, effect.type, peer?.tracks(effect.type, effect) ?? []);
      case 'dropStream':
        return holder.tracks(role, effect.type, null);
      default:
        return holder.perform(effect);
    }
  }

  private async open(gen: number, creator: boolean): Promise<void> {
    this.closePeer();
    const servers = await this.holder.hooks.iceServers();
    if (this.disposed) return;
    const trickle = new Trickle(
      (candidates) =>
        void this.holder.sendSignal(this.role, { eventOp: 'candidate', gen, candidates }),
    );
    this.trickle = trickle;
    this.hidden = this.regathered = false;
    this.peer = new Peer(
      servers,
      creator,
      {
        link: (state) => {
          this.feed(
            state === 'closed' || (state === 'failed' && this.peer?.over)
              ? { kind: 'lost', gen }
              : { kind: 'link', gen, state },
          );
          this.improve();
        },
        channel: (open) => this.feed({ kind: 'channel', gen, open }),
        message: (text) => this.heard(text),
        candidate: (candidate) => {
          this.hidden ||= /\.local /.test(candidate.candidate ?? '');
          trickle.add(candidate);
        },
        pass: (track) => this.holder.hooks.pass(track),
        heartbeatOpen: (open) => (open ? this.liveness.start() : this.liveness.stop()),
        heartbeat: (text) => this.liveness.heard(text),
      },
      this.role === 'backup',
    );
    await this.attachAll(this.peer);
  }

  /**
   * A connection from before camera permission has mDNS candidates only, and gathers no others by
   * itself. With the camera on, a path that is not direct within one network may be improvable: ICE
   * restarts once, unless a better pair is found meanwhile, since mDNS names take a while to
   * resolve.
   */
  private improve(): void {
    const { peer, state } = this;
    if (!peer || !this.hidden || this.regathered || state.link !== 'connected' || !sending(state)) {
      return;
    }
    this.regathered = true;
    this.later(Negotiation.settle, async () => {
      const path = await peer.path();
      if (
        this.peer !== peer
        || !path
        || (path.local === 'host' && path.remote !== 'srflx' && path.remote !== 'relay')
      ) {
        return;
      }
      this.feed({ kind: 'regather' });
    });
  }

  /** Runs later, unless the connection is closed until then. */
  private later(ms: number, what: () => Promise<void>): void {
    const timer = setTimeout(() => {
      this.late.delete(timer);
      void what();
    }, ms);
    this.late.add(timer);
  }

  private async offer({ gen, n, restart }: Extract<Effect, { do: 'offer' }>): Promise<void> {
    const servers = restart ? await this.holder.hooks.iceServers() : undefined;
    this.trickle?.hold();
    const sdp = await this.peer?.offer(servers);
    if (sdp) this.describe(gen, n, 'offer', sdp);
  }

  private async accept({ gen, n, sdp }: Extract<Effect, { do: 'accept' }>): Promise<void> {
    const peer = this.peer;
    if (!peer) return;
    this.trickle?.hold();
    const answer = await peer.accept(sdp, () => this.attachAll(peer));
    this.describe(gen, n, 'answer', answer);
    this.feed({ kind: 'tracks', gen });
  }

  /**
   * ICE checks are paced some 50 ms apart, and private addresses would come first. In another
   * network they are added later, in case the server was wrong.
   */
  private candidates(peer: Peer, list: RTCIceCandidateInit[]): Promise<void> {
    if (this.role === 'backup' || !this.holder.hooks.apart() || this.state.everConnected) {
      return peer.add(list);
    }
    const late = list.filter(isPrivate);
    if (late.length) this.later(Negotiation.privateDelay, () => peer.add(late));
    return peer.add(list.filter((candidate) => !late.includes(candidate)));
  }

  private async attachAll(peer: Peer): Promise<void> {
    await Promise.all(
      TYPES.map((type) => peer.attach(type, this.holder.attachable(this.role, type))),
    );
  }

  private describe(gen: number, n: number, type: 'offer' | 'answer', sdp: string): void {
    if (this.disposed) return;
    void this.holder.sendSignal(this.role, { eventOp: 'sdp', gen, n, sdp: { type, sdp } });
    this.trickle?.release();
  }

  private heard(text: string): void {
    if (!this.channelMessages.take()) return;
    let message: unknown;
    try {
      message = JSON.parse(text);
    } catch {
      return;
    }
    const signal =
      typeof message === 'object' && message !== null
        ? readSignal(message as Record<string, unknown>)
        : undefined;
    if (signal) this.holder.received(signal, this.role);
  }

  private setTimer(name: TimerName, on: boolean): void {
    clearTimeout(this.timers.get(name));
    this.timers.delete(name);
    if (!on) return;
    const { creator, failures } = this.state;
    const limit =
      name === 'restart'
        ? creator
          ? Negotiation.restartCreator
          : Negotiation.restartOther
        : name === 'again'
          ? Math.min(Negotiation.againMost, Negotiation.again * 2 ** (failures - 1))
          : name === 'connect'
            ? Negotiation.connect
            : Negotiation.repeat;
    this.timers.set(
      name,
      setTimeout(() => {
        // The browser may be connected without having fired an event.
        const { gen, link } = this.state;
        if (link !== 'connected' && this.peer?.pc.connectionState === 'connected') {
          this.feed({ kind: 'link', gen, state: 'connected' });
        }
        this.feed({ kind: 'timer', name });
      }, limit),
    );
  }

  private closePeer(): void {
    this.liveness.stop();
    for (const timer of this.late) clearTimeout(timer);
    this.late.clear();
    this.trickle?.stop();
    this.peer?.close();
    this.trickle = this.peer = null;
  }
}
