import type { MediaType } from '../../types/knowledgetalk';
import { isHidden } from '../global';
import { readSignal, type Signal } from '../signaling/messages';
import { Budget } from './budget';
import type { SessionEffect, SessionEvent, Way } from './failover';
import { TYPES } from './layout';
import { Liveness } from './liveness';
import { sending, wanted, type Effect, type Event, type State, type TimerName } from './machine';
import { Peer } from './peer';
import { isPrivate, Trickle } from './trickle';

/** Milliseconds. An enum, so that the build puts the numbers where they are used. */
export enum Negotiation {
  /** publishP2P. */
  publish = 30_000,
  /** Waiting for an offer or an answer before asking again. */
  repeat = 4_000,
  /** ICE and DTLS of one attempt. Two of them fit into a publish. */
  connect = 14_000,
  /** How long 'disconnected' may heal by itself. The creator moves first, so that restarts rarely cross. */
  restartCreator = 2_000,
  restartOther = 3_500,
  /** A new attempt after a connection was given up: first wait, doubled each time, and the longest. */
  again = 5_000,
  againMost = 40_000,
  /** So much later private addresses of another network are tried. */
  privateDelay = 300,
  /** ICE may pass through worse ways before it uses the best one. */
  settle = 1_000,
}

/** Effects of a session that are performed on one connection. */
export type TransportEffect = Extract<SessionEffect, { way: Way }>;

export interface TransportHooks {
  iceServers(): Promise<RTCIceServer[]>;
  /** See LinkHooks. */
  pass(track: MediaStreamTrack): void;
  /** The other user is known to be in another network: private addresses there are of no use here. */
  apart(): boolean;
}

/** The session that a connection belongs to. */
export interface TransportOwner {
  state(way: Way): State;
  feed(event: SessionEvent): void;
  /** Resolves when it is known whether the signal will arrive. */
  sendSignal(way: Way, signal: Signal, byChannel?: boolean): Promise<void>;
  /** What is to be sent on this connection now. */
  attachable(way: Way, type: MediaType): MediaStream | null;
  /** Whether this connection is about to be needed although nothing is published on it. */
  needed(way: Way): boolean;
  received(signal: Signal, by: Way): void;
  /** Null: none. */
  tracks(way: Way, type: MediaType, tracks: MediaStreamTrack[] | null): void;
  /** Effects that the app hears of, after all before them. */
  perform(effect: TransportEffect): void;
  readonly hooks: TransportHooks;
}

/** One connection: performs its effects one at a time and in order, and says what happens. Nothing of it runs after dispose(). */
export class PeerTransport {
  private peer: Peer | null = null;
  private trickle: Trickle | null = null;
  private queue: TransportEffect[] = [];
  private running = false;
  private disposed = false;
  /** The browser hid this side's addresses when it gathered them: no camera was allowed then. */
  private hidden = false;
  private regathered = false;
  private readonly liveness: Liveness;
  private readonly late = new Set<ReturnType<typeof setTimeout>>();
  private readonly timers = new Map<TimerName, ReturnType<typeof setTimeout>>();

  /** @param messages what may come over the data channel */
  constructor(private readonly holder: TransportOwner, private readonly way: Way, private readonly words: Budget) {
    const heartbeat = (answered: boolean) => () => this.feed({ kind: 'heartbeat', answered });
    this.liveness = new Liveness({
      send: (text) => this.peer?.heartbeat(text),
      now: () => performance.now(),
      hidden: isHidden,
      idle: () => !holder.needed(way) && !wanted(this.state),
      checks: async () => this.peer?.checks() ?? null,
      dead: heartbeat(false),
      firstResponse: () => way === 'primary' && holder.feed({ kind: 'firstResponse' }),
      alive: heartbeat(true),
    });
  }

  get pc(): RTCPeerConnection | undefined {
    return this.peer?.pc;
  }

  get doubtful(): boolean {
    return this.liveness.doubtful;
  }

  /** The other side hears nothing here: it negotiates. */
  complained(): void {
    this.liveness.complained();
  }

  /** Undefined: nothing is known of the path in use. */
  async relayed(): Promise<boolean | undefined> {
    const path = await this.peer?.path();
    return path ? path.local === 'relay' || path.remote === 'relay' : undefined;
  }

  /** What carries the camera. */
  senders(): RTCRtpSender[] {
    return this.peer?.senders() ?? [];
  }

  /** Over the data channel. False: it is not open. */
  overChannel(signal: Signal): boolean {
    return this.peer?.send(JSON.stringify(signal)) ?? false;
  }

  push(effect: TransportEffect): void {
    // What was to be done with an earlier generation is void.
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

  /** Closes at once; whatever is being done is not waited for, since operations of a closed connection never end. */
  dispose(): void {
    this.disposed = true;
    this.queue.length = 0;
    for (const timer of this.timers.values()) clearTimeout(timer);
    this.closePeer();
  }

  private get state(): State {
    return this.holder.state(this.way);
  }

  private feed(event: Event): void {
    if (!this.disposed) this.holder.feed({ kind: 'transport', way: this.way, event });
  }

  /** Synchronous where nothing has to be waited for, so that what belongs together happens in one turn. */
  private perform(effect: TransportEffect): Promise<void> | void {
    const { peer, holder, way } = this;
    switch (effect.do) {
      case 'open': return this.open(effect.gen, effect.creator);
      case 'close': return this.closePeer();
      case 'offer': return this.offer(effect);
      case 'accept': return this.accept(effect);
      case 'answered': return peer?.answered(effect.sdp).then(() => this.feed({ kind: 'tracks', gen: effect.gen }));
      case 'candidates': return peer ? this.candidates(peer, effect.list) : undefined;
      case 'resend': {
        const sdp = peer?.description(effect.what);
        if (sdp) this.describe(effect.gen, effect.n, effect.what, sdp);
        return;
      }
      case 'recandidate': return this.trickle?.again();
      case 'attach':
        this.improve();
        return peer?.attach(effect.type, holder.attachable(way, effect.type));
      case 'refresh': return peer?.refresh().catch(() => undefined);
      case 'send': return void holder.sendSignal(way, effect.signal, effect.byChannel);
      case 'timer': return this.setTimer(effect.name, effect.on);
      case 'stream': return holder.tracks(way, effect.type, peer?.tracks(effect.type, effect) ?? []);
      case 'dropStream': return holder.tracks(way, effect.type, null);
      default: return holder.perform(effect);
    }
  }

  private async open(gen: number, creator: boolean): Promise<void> {
    this.closePeer();
    const servers = await this.holder.hooks.iceServers();
    if (this.disposed) return;
    const trickle = new Trickle((candidates) => void this.holder.sendSignal(this.way, { eventOp: 'candidate', gen, candidates }));
    this.trickle = trickle;
    this.hidden = this.regathered = false;
    this.peer = new Peer(servers, creator, {
      link: (state) => {
        this.feed(state === 'closed' || (state === 'failed' && this.peer?.over) ? { kind: 'lost', gen } : { kind: 'link', gen, state });
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
    }, this.way === 'backup');
    await this.attachAll(this.peer);
  }

  /**
   * A connection made before the camera was allowed knows only hidden addresses, and gathers nothing new by itself. With the camera on, a
   * path that is not direct within one network may have a better one: ICE is restarted behind it, once, unless a better path is found by
   * itself: names of hidden addresses take a while to be resolved.
   */
  private improve(): void {
    const { peer, state } = this;
    if (!peer || !this.hidden || this.regathered || state.link !== 'connected' || !sending(state)) return;
    this.regathered = true;
    this.later(Negotiation.settle, async () => {
      const path = await peer.path();
      if (this.peer !== peer || !path || (path.local === 'host' && path.remote !== 'srflx' && path.remote !== 'relay')) return;
      this.feed({ kind: 'regather' });
    });
  }

  /** Unless the connection is closed until then. */
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
   * Checks go out one by one, some 50 ms apart, and private addresses would come first. In another network they are tried all the same, in
   * case the server was wrong, but after those that can work.
   */
  private candidates(peer: Peer, list: RTCIceCandidateInit[]): Promise<void> {
    if (this.way === 'backup' || !this.holder.hooks.apart() || this.state.everConnected) return peer.add(list);
    const late = list.filter(isPrivate);
    if (late.length) this.later(Negotiation.privateDelay, () => peer.add(late));
    return peer.add(list.filter((candidate) => !late.includes(candidate)));
  }

  private async attachAll(peer: Peer): Promise<void> {
    await Promise.all(TYPES.map((type) => peer.attach(type, this.holder.attachable(this.way, type))));
  }

  private describe(gen: number, n: number, type: 'offer' | 'answer', sdp: string): void {
    if (this.disposed) return;
    void this.holder.sendSignal(this.way, { eventOp: 'sdp', gen, n, sdp: { type, sdp } });
    this.trickle?.release();
  }

  private heard(text: string): void {
    if (!this.words.take()) return;
    let message: unknown;
    try {
      message = JSON.parse(text);
    } catch {
      return;
    }
    const signal = typeof message === 'object' && message !== null ? readSignal(message as Record<string, unknown>) : undefined;
    if (signal) this.holder.received(signal, this.way);
  }

  private setTimer(name: TimerName, on: boolean): void {
    clearTimeout(this.timers.get(name));
    this.timers.delete(name);
    if (!on) return;
    const { creator, failures } = this.state;
    const limit = name === 'restart' ? (creator ? Negotiation.restartCreator : Negotiation.restartOther)
      : name === 'again' ? Math.min(Negotiation.againMost, Negotiation.again * 2 ** (failures - 1))
        : name === 'connect' ? Negotiation.connect : Negotiation.repeat;
    this.timers.set(name, setTimeout(() => {
      // A browser that came back to 'connected' without an event must not be taken for one that did not.
      const { gen, link } = this.state;
      if (link !== 'connected' && this.peer?.pc.connectionState === 'connected') this.feed({ kind: 'link', gen, state: 'connected' });
      this.feed({ kind: 'timer', name });
    }, limit));
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
