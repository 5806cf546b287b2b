import type { MediaType } from '../../types/knowledgetalk';
import { deferred, type Deferred } from '../deferred';
import type { Reason } from '../errors';
import { isHidden } from '../global';
import { negotiates, readSignal, type Signal } from '../signaling/messages';
import { kindsOf } from '../media/streams';
import type { Demands } from './budget';
import { TYPES } from './layout';
import { Liveness } from './liveness';
import { initial, step, type Effect, type Event, type State, type TimerName } from './machine';
import { Peer } from './peer';
import { changes, type Report } from './report';
import { isPrivate, Trickle } from './trickle';

/** Milliseconds. */
export const LIMIT = {
  /** publishP2P. */
  publish: 30_000,
  /** Waiting for an offer or an answer before asking again. */
  repeat: 4_000,
  /** ICE and DTLS of one attempt. Two of them fit into a publish. */
  connect: 14_000,
  /** How long 'disconnected' may heal by itself. The creator moves first, so that restarts rarely cross. */
  restart: { creator: 2_000, other: 3_500 },
  /** A new attempt after a connection was given up: first wait, doubled each time, and the longest. */
  again: 5_000,
  againMost: 40_000,
  /** So much later private addresses of another network are tried. */
  late: 300,
  /** ICE may pass through worse ways before it uses the best one. */
  settle: 1_000,
};

export interface PairHooks {
  /** To the other user over the server. Resolves with the server's code. */
  send(signal: Signal): Promise<string>;
  iceServers(): Promise<RTCIceServer[]>;
  /** See LinkHooks. */
  pass(track: MediaStreamTrack): void;
  /** The other user is known to be in another network: private addresses there are of no use here. */
  apart(): boolean;
  /** Null: nothing is published. */
  stream(type: MediaType, tracks: MediaStreamTrack[] | null): void;
  subscribed(type: MediaType): void;
  /** No longer published: it was taken back, refused, or failed. */
  withdrawn(type: MediaType): void;
  report: Report;
  /** A description or candidates of the other side, of this connection or another, came over the data channel. */
  overChannel(signal: Signal): void;
  /** Nothing comes through any more, in one direction at least; and again. */
  dead(): void;
  /** Something is heard of a dead path again; it may carry. */
  firstResponse(): void;
  alive(): void;
  /** It takes media from now on. */
  usable(): void;
  /** It came to nothing; there may be another attempt. */
  failed(reason: Reason): void;
  /** What it was carried by has ended at the other side, as a rule because that has closed it. */
  closed(): void;
  /** Whether it is about to be needed although nothing is published on it. */
  needed(): boolean;
}

/** What is done in turn: what the machine wants, and key frames, of which it knows nothing. */
type Step = Effect | { do: 'refresh' };

/** One other user: feeds the machine and performs its effects, one at a time and in order. Nothing of it runs after dispose(). */
export class Pair {
  private state: State;
  private peer: Peer | null = null;
  private trickle: Trickle | null = null;
  private queue: Step[] = [];
  private running = false;
  private disposed = false;
  /** The browser hid this side's addresses when it gathered them: no camera was allowed then. */
  private hidden = false;
  private regathered = false;
  private restartedAt = -Infinity;
  private wasReady = false;
  /** Nothing is sent here although it is published: it goes another way. */
  private paused = false;
  private readonly liveness: Liveness;
  /** Asking for an offer and getting one are the same 'connecting' to the app. */
  private readonly report: Report;
  private readonly outgoing: Record<MediaType, MediaStream | null> = { cam: null, screen: null };
  private readonly waiters = new Map<MediaType, Deferred<boolean>>();
  private readonly late = new Set<ReturnType<typeof setTimeout>>();
  private readonly timers = new Map<TimerName, ReturnType<typeof setTimeout>>();

  constructor(me: string, other: string, private readonly hooks: PairHooks, private readonly demands: Demands, private readonly relayOnly = false) {
    this.report = changes((state, reason) => hooks.report(state, reason));
    this.liveness = new Liveness({
      send: (text) => this.peer?.heartbeat(text),
      now: () => performance.now(),
      hidden: isHidden,
      idle: () => !this.hooks.needed() && !TYPES.some((type) => this.state.local[type].on || this.state.remote[type].on),
      checks: async () => this.peer?.checks() ?? null,
      dead: () => {
        this.wasReady = false;
        this.hooks.dead();
      },
      firstResponse: () => this.hooks.firstResponse(),
      alive: () => {
        this.hooks.alive();
        this.readied();
      },
    });
    this.state = initial(me, other, Date.now());
  }

  /** None while it is only kept ready. */
  get connection(): RTCPeerConnection | undefined {
    return this.state.warm && !this.state.used ? undefined : this.peer?.pc;
  }

  /** Makes the connection before anybody publishes. */
  warm(): void {
    this.feed({ kind: 'warm' });
  }

  get dead(): boolean {
    return this.liveness.dead;
  }

  get doubtful(): boolean {
    return this.liveness.doubtful;
  }

  get creator(): boolean {
    return this.state.creator;
  }

  /** Takes media at once. */
  get ready(): boolean {
    return this.state.link === 'connected' && this.state.channel && this.state.tracks && !this.dead;
  }

  /** Sends nothing here, or again all that is published. */
  pause(on: boolean): void {
    if (this.paused === on) return;
    this.paused = on;
    for (const type of TYPES) this.queue.push({ do: 'attach', type });
    void this.run();
  }

  /** Undefined: nothing is known of the way in use. */
  async relayed(): Promise<boolean | undefined> {
    const path = await this.peer?.path();
    return path ? path.local === 'relay' || path.remote === 'relay' : undefined;
  }

  /** Looks for another path behind the present one. */
  regather(): void {
    this.feed({ kind: 'regather' });
  }

  /** What is published here goes another way, or does not any more. */
  routedElsewhere(on: boolean): void {
    this.feed({ kind: 'routedElsewhere', on });
  }

  /** One of the two sides has begun to do so in the last `ms` milliseconds. */
  restarted(ms: number): boolean {
    return performance.now() - this.restartedAt <= ms;
  }

  /** Makes another connection in place of one that stood. */
  renew(): void {
    if (this.state.everConnected) this.feed({ kind: 'lost', gen: this.state.gen });
  }

  /** Begins with a key frame once what is to be attached is there: its encoder may go on where it stopped, which the other side need not have. */
  refresh(): void {
    this.queue.push({ do: 'refresh' });
    void this.run();
  }

  /** A publishP2P is waiting for its outcome. */
  get waiting(): boolean {
    return this.waiters.size > 0;
  }

  /** What is being sent to this user now. */
  sending(type: MediaType): MediaStream | null {
    return this.state.local[type].on ? this.outgoing[type] : null;
  }

  /** Over the data channel, to the other side of it. False: nothing would get through. */
  sendOverChannel(signal: Signal): boolean {
    return this.state.link === 'connected' && !this.dead && (this.peer?.send(JSON.stringify(signal)) ?? false);
  }

  /** The part of it that goes over this connection. */
  private attachable(type: MediaType): MediaStream | null {
    return this.paused ? null : this.sending(type);
  }

  /** True once media is connected, false on failure or after 30 s. Calls that overlap share their outcome. */
  publish(type: MediaType, stream: MediaStream): Promise<boolean> {
    this.outgoing[type] = stream;
    let waiter = this.waiters.get(type);
    if (!waiter) {
      waiter = deferred(LIMIT.publish, () => {
        this.feed({ kind: 'giveUp', type });
        this.settle(type, false);
      });
      this.waiters.set(type, waiter);
    }
    this.feed({ kind: 'publish', type, ...kindsOf(stream) });
    this.improve();
    return waiter.promise;
  }

  /** A track of what is being sent has ended. */
  ended(type: MediaType): void {
    const stream = this.sending(type);
    if (stream) this.feed({ kind: 'kinds', type, ...kindsOf(stream) });
  }

  /** What carries the camera. */
  senders(): RTCRtpSender[] {
    return this.peer?.senders() ?? [];
  }

  unpublish(type: MediaType): void {
    this.feed({ kind: 'unpublish', type });
  }

  refuse(type: MediaType): void {
    this.feed({ kind: 'refuse', type });
  }

  signal(signal: Signal): void {
    // A restart that is asked for, or offered, while nothing is answered here.
    if (negotiates(signal)) this.liveness.complained();
    this.feed({ kind: 'signal', signal, byChannel: false });
  }

  resumed(): void {
    this.feed({ kind: 'resumed' });
  }

  /** Closes at once; whatever is being done is not waited for, since operations of a closed connection never end. */
  dispose(): void {
    this.disposed = true;
    this.queue.length = 0;
    for (const timer of this.timers.values()) clearTimeout(timer);
    this.timers.clear();
    this.closePeer();
    for (const type of TYPES) this.settle(type, false);
  }

  private feed(event: Event): void {
    if (this.disposed) return;
    const { local } = this.state;
    const [state, effects] = step(this.state, event);
    if (event.kind === 'signal' && !this.affordable(effects)) return;
    this.state = state;
    for (const type of TYPES) if (local[type].on && !state.local[type].on) this.hooks.withdrawn(type);
    for (const effect of effects) {
      // Not in turn: whoever publishes again before the queue has come to this waits for another outcome.
      if (effect.do === 'settle' && !effect.ok) this.settle(effect.type, false);
      else this.queue.push(effect);
    }
    const opened = effects.find((effect) => effect.do === 'open');
    // What was to be done with an earlier generation is void.
    if (opened) this.queue = this.queue.filter((effect) => !('gen' in effect) || effect.gen >= opened.gen);
    this.readied();
    void this.run();
  }

  /** Whether the other side may cause this now. Otherwise its message has not come: what is meant is repeated. */
  private affordable(effects: Effect[]): boolean {
    const does = (...kinds: Effect['do'][]) => effects.some((effect) => kinds.includes(effect.do));
    if (does('open', 'offer', 'accept')) return this.demands.builds.take();
    return !does('resend', 'send') || this.demands.repeats.take();
  }

  private readied(): void {
    const was = this.wasReady;
    this.wasReady = this.ready;
    if (this.ready && !was) this.hooks.usable();
  }

  private async run(): Promise<void> {
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

  /** Synchronous where nothing has to be waited for, so that what belongs together happens in one turn. */
  private perform(effect: Step): Promise<void> | void {
    const peer = this.peer;
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
      case 'attach': return peer?.attach(effect.type, this.attachable(effect.type));
      case 'refresh': return peer?.refresh().catch(() => undefined);
      case 'send': return this.send(effect.signal, effect.byChannel);
      case 'timer': return this.setTimer(effect.name, effect.on);
      case 'stream': return this.hooks.stream(effect.type, peer?.tracks(effect.type, effect) ?? []);
      case 'dropStream': return this.hooks.stream(effect.type, null);
      case 'subscribed': return this.hooks.subscribed(effect.type);
      case 'gone': return this.hooks.failed(effect.reason);
      case 'settle': return this.settle(effect.type, effect.ok);
      case 'report': return this.report(effect.state, effect.reason);
    }
  }

  private async open(gen: number, creator: boolean): Promise<void> {
    this.closePeer();
    const servers = await this.hooks.iceServers();
    if (this.disposed) return;
    const trickle = new Trickle((list) => void this.hooks.send({ eventOp: 'candidate', gen, candidates: list }));
    this.trickle = trickle;
    this.hidden = this.regathered = false;
    this.peer = new Peer(servers, creator, {
      link: (state) => {
        this.feed(state === 'closed' || (state === 'failed' && this.peer?.over) ? { kind: 'lost', gen } : { kind: 'link', gen, state });
        this.improve();
      },
      channel: (open) => {
        this.feed({ kind: 'channel', gen, open });
        if (!open) this.hooks.closed();
      },
      message: (text) => this.heard(text),
      candidate: (candidate) => {
        this.hidden ||= /\.local /.test(candidate.candidate ?? '');
        trickle.add(candidate);
      },
      pass: (track) => this.hooks.pass(track),
      heartbeatOpen: (open) => (open ? this.liveness.start() : this.liveness.stop()),
      heartbeat: (text) => this.liveness.heard(text),
    }, this.relayOnly);
    await this.attachAll(this.peer);
  }

  /**
   * A connection made before the camera was allowed knows only hidden addresses, and gathers nothing new by itself. With the camera on, a
   * way that is not direct within one network may have a better one: ICE is restarted behind it, once, unless a better way is found by itself:
   * names of hidden addresses take a while to be resolved.
   */
  private improve(): void {
    const { peer } = this;
    if (!peer || !this.hidden || this.regathered || this.state.link !== 'connected' || !TYPES.some((type) => this.sending(type))) return;
    this.regathered = true;
    this.later(LIMIT.settle, async () => {
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
    const servers = restart ? await this.hooks.iceServers() : undefined;
    this.restartedAt = performance.now();
    this.trickle?.hold();
    const sdp = await this.peer?.offer(servers);
    if (sdp) this.describe(gen, n, 'offer', sdp);
  }

  private async accept({ gen, n, sdp }: Extract<Effect, { do: 'accept' }>): Promise<void> {
    const peer = this.peer;
    if (!peer) return;
    this.trickle?.hold();
    this.restartedAt = performance.now();
    const answer = await peer.accept(sdp, () => this.attachAll(peer));
    this.describe(gen, n, 'answer', answer);
    this.feed({ kind: 'tracks', gen });
  }

  /**
   * Checks go out one by one, some 50 ms apart, and private addresses would come first. In another network they are tried all the same, in
   * case the server was wrong, but after those that can work.
   */
  private candidates(peer: Peer, list: RTCIceCandidateInit[]): Promise<void> {
    if (!this.hooks.apart() || this.state.everConnected) return peer.add(list);
    const late = list.filter(isPrivate);
    if (late.length) this.later(LIMIT.late, () => peer.add(late));
    return peer.add(list.filter((candidate) => !late.includes(candidate)));
  }

  private async attachAll(peer: Peer): Promise<void> {
    await Promise.all(TYPES.map((type) => peer.attach(type, this.attachable(type))));
  }

  private describe(gen: number, n: number, type: 'offer' | 'answer', sdp: string): void {
    if (this.disposed) return;
    void this.post({ eventOp: 'sdp', gen, n, sdp: { type, sdp } });
    this.trickle?.release();
  }

  private send(signal: Signal, byChannel: boolean): void {
    // On a dead path it waits for the path: it is said over the server as well, which may be away.
    if (byChannel && this.peer?.send(JSON.stringify(signal)) && !this.dead) return;
    void this.post(signal).then((code) => {
      if (code === '200' && signal.eventOp === 'publish') {
        this.feed({ kind: 'delivered', type: signal.type, epoch: signal.epoch, rev: signal.rev });
      }
    });
  }

  private async post(signal: Signal): Promise<string> {
    const code = await this.hooks.send(signal);
    if (code === '403') this.feed({ kind: 'unreachable' });
    return code;
  }

  private heard(text: string): void {
    if (!this.demands.words.take()) return;
    let message: unknown;
    try {
      message = JSON.parse(text);
    } catch {
      return;
    }
    const signal = typeof message === 'object' && message !== null ? readSignal(message as Record<string, unknown>) : undefined;
    if (!signal) return;
    if (negotiates(signal)) this.hooks.overChannel(signal);
    else this.feed({ kind: 'signal', signal, byChannel: true });
  }

  private setTimer(name: TimerName, on: boolean): void {
    clearTimeout(this.timers.get(name));
    this.timers.delete(name);
    if (!on) return;
    const { creator, failures } = this.state;
    const limit = name === 'restart' ? LIMIT.restart[creator ? 'creator' : 'other']
      : name === 'again' ? Math.min(LIMIT.againMost, LIMIT.again * 2 ** (failures - 1)) : LIMIT[name];
    this.timers.set(name, setTimeout(() => {
      // A browser that came back to 'connected' without an event must not be taken for one that did not.
      const { gen, link } = this.state;
      if (link !== 'connected' && this.peer?.pc.connectionState === 'connected') this.feed({ kind: 'link', gen, state: 'connected' });
      this.feed({ kind: 'timer', name });
    }, limit));
  }

  private settle(type: MediaType, ok: boolean): void {
    this.waiters.get(type)?.settle(ok);
    this.waiters.delete(type);
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
