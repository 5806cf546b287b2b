/**
 * The negotiation of one pair of users as a pure function: step(state, event) → [state, effects]. No clock, no browser, no randomness.
 *
 * - The side with the smaller id ("creator") alone makes connections, numbers their generations (`gen`) and offers; the other one answers,
 *   and asks the creator for an ICE restart (a candidate message without candidates: those there are do not work). So offers never cross.
 *   They must not: Chromium shows no more pictures of a stream after an offer of an ICE restart was rolled back, and Firefox, after
 *   crossed restarts, now and then goes on without any pair of candidates, and without saying so.
 * - The state runs ahead of the browser: effects are performed one at a time in order, so `signaling` tells what the connection will be when all
 *   effects given out so far are done.
 * - Anything may be lost with a dying socket, and is sent again then; so everything may come twice. Offers are numbered (`n`), answers
 *   name the offer they answer, publications have an `epoch` (and a `rev` within it).
 */
import type { MediaType, PeerStateEvent } from '../../types/knowledgetalk';
import type { Reason } from '../errors';
import { NONE, type Signal } from '../signaling/messages';
import { creates, TYPES } from './layout';

/** What we send. */
export interface Local {
  on: boolean;
  epoch: number;
  rev: number;
  audio: boolean;
  video: boolean;
  /** A publishP2P waits for the outcome. */
  waiting: boolean;
  /** The other side has been told, or will be by a reliable way. */
  delivered: boolean;
}

/** What the other side says it sends. */
export interface Remote {
  on: boolean;
  epoch: number;
  rev: number;
  audio: boolean;
  video: boolean;
  /** Generation for which it was said last. Only what was said for the present one counts: the rest may be of an earlier life. */
  announcedGen: number;
  /** What the stream holds now: gen, epoch and rev; '' for no stream. */
  shown: string;
  /** Epoch of the last `subscribed`. */
  notifiedEpoch: number;
}

export interface State {
  readonly me: string;
  readonly peer: string;
  /** This side makes the connections of the pair. */
  readonly creator: boolean;
  /** Generation of the connection, or of the last one. */
  readonly gen: number;
  readonly open: boolean;
  readonly signaling: 'new' | 'offering' | 'stable';
  /** The other side's description is (or will be) set: candidates can go in. */
  readonly described: boolean;
  /** Number of our last offer, and of the last offer we answered. */
  readonly offered: number;
  readonly answered: number;
  readonly link: 'new' | 'connected' | 'disconnected' | 'failed';
  readonly tracks: boolean;
  readonly channel: boolean;
  /** This generation was connected once. */
  readonly everConnected: boolean;
  /** Second attempts (a restart, or a new generation in place of one that never stood) since the connection was last up or given up. */
  readonly restarts: number;
  /** The creator has been asked for a restart. */
  readonly asking: boolean;
  readonly repeats: number;
  /** Connections that failed since the last one that stood. */
  readonly failures: number;
  /** The connection is made and kept without anybody publishing. */
  readonly warm: boolean;
  /** Nothing passes here, and media goes over another connection: what is published counts as if this one were connected. */
  readonly routedElsewhere: boolean;
  /** Somebody has published here: from then on the app hears how the connection does. */
  readonly used: boolean;
  /** What the app would have heard last. */
  readonly pendingReport: { readonly state: PeerStateEvent['state']; readonly reason: Reason | '' } | null;
  readonly early: readonly { gen: number; candidate: RTCIceCandidateInit }[];
  /** Candidates of the other side since its last description. */
  readonly taken: number;
  readonly local: Readonly<Record<MediaType, Readonly<Local>>>;
  readonly remote: Readonly<Record<MediaType, Readonly<Remote>>>;
}

export type TimerName = 'repeat' | 'restart' | 'connect' | 'again';
const TIMERS: readonly TimerName[] = ['repeat', 'restart', 'connect', 'again'];

export type Event =
  | { kind: 'publish'; type: MediaType; audio: boolean; video: boolean }
  /** What is published holds these kinds from now on: a device has gone. Nobody waits for an outcome. */
  | { kind: 'kinds'; type: MediaType; audio: boolean; video: boolean }
  | { kind: 'unpublish'; type: MediaType }
  /** The time limit of publishP2P. */
  | { kind: 'giveUp'; type: MediaType }
  /** Stop receiving. */
  | { kind: 'refuse'; type: MediaType }
  | { kind: 'signal'; signal: Signal; byChannel: boolean }
  /** connectionState of a generation. */
  | { kind: 'link'; gen: number; state: RTCPeerConnectionState }
  /** DTLS of a generation has ended, or an app has closed the connection: no restart of ICE brings it back. */
  | { kind: 'lost'; gen: number }
  | { kind: 'channel'; gen: number; open: boolean }
  /** The remote tracks of a generation exist. */
  | { kind: 'tracks'; gen: number }
  /** An effect failed. */
  | { kind: 'broken'; gen: number }
  /** The server took a publication for the other side, or refused because there is no such user in the room. */
  | { kind: 'delivered'; type: MediaType; epoch: number; rev: number }
  | { kind: 'unreachable' }
  | { kind: 'timer'; name: TimerName }
  /** Have a connection ready. */
  | { kind: 'warm' }
  /** Media goes over another connection, or over this one again. */
  | { kind: 'routedElsewhere'; on: boolean }
  /** The candidates of this side are worth gathering anew: go on as things are until better ones are found. */
  | { kind: 'regather' }
  /** The signaling session goes on after an interruption. */
  | { kind: 'resumed' };

export type Effect =
  /** Replace the connection by a new one; the creator makes the layout in it. */
  | { do: 'open'; gen: number; creator: boolean }
  | { do: 'close' }
  | { do: 'offer'; gen: number; n: number; restart: boolean }
  /** Set the remote offer, adopt the layout, answer. */
  | { do: 'accept'; gen: number; n: number; sdp: string }
  | { do: 'answered'; gen: number; sdp: string }
  | { do: 'candidates'; gen: number; list: RTCIceCandidateInit[] }
  /** Send the last description again, with the candidates found so far. */
  | { do: 'resend'; gen: number; what: 'offer' | 'answer'; n: number }
  /** Send the candidates found so far again. */
  | { do: 'recandidate'; gen: number }
  /** Give the senders of a publication their tracks, or none. */
  | { do: 'attach'; type: MediaType }
  | { do: 'send'; byChannel: boolean; signal: Signal }
  | { do: 'timer'; name: TimerName; on: boolean }
  /** Make the remote stream hold these kinds. */
  | { do: 'stream'; type: MediaType; audio: boolean; video: boolean }
  | { do: 'dropStream'; type: MediaType }
  | { do: 'subscribed'; type: MediaType }
  /** This connection has come to nothing. */
  | { do: 'gone'; reason: Reason }
  /** The outcome of publishP2P. */
  | { do: 'settle'; type: MediaType; ok: boolean; reason: Reason | '' }
  | { do: 'report'; state: PeerStateEvent['state']; reason: Reason | '' };

/** Candidates taken for one description of the other side, and kept for one that has not come. Browsers stand still over thousands. */
const CANDIDATES = 128;
/** Unanswered repetitions (timer 'repeat') before the other side counts as silent. */
const REPEATS = 6;

/**
 * @param seed where generations, offers and epochs count on from: a number greater than any used before with this user, so that late
 * messages of an earlier session are told apart (milliseconds since 1970 do).
 */
export function initial(me: string, peer: string, seed: number): State {
  const creator = creates(me, peer);
  const local = { on: false, epoch: seed, rev: 0, audio: false, video: false, waiting: false, delivered: false };
  const remote = { on: false, epoch: 0, rev: 0, audio: false, video: false, announcedGen: 0, shown: '', notifiedEpoch: 0 };
  return {
    me, peer, creator, gen: creator ? seed : 0, open: false, signaling: 'new', described: false, offered: seed, answered: 0, link: 'new', tracks: false,
    channel: false, everConnected: false, restarts: 0, asking: false, repeats: 0, failures: 0, warm: false, routedElsewhere: false,
    used: false, pendingReport: null, early: [], taken: 0, local: { cam: local, screen: local }, remote: { cam: remote, screen: remote },
  };
}

export function step(state: State, event: Event): [State, Effect[]] {
  const transition = new Transition(state);
  transition.take(event);
  transition.finish();
  return [transition.s, transition.out];
}

/** One event being worked on: a draft of the next state and the effects so far. Lives only inside step(). */
class Transition {
  s: State;
  readonly out: Effect[] = [];

  constructor(state: State) {
    this.s = state;
  }

  take(e: Event): void {
    switch (e.kind) {
      case 'publish': return this.publish(e.type, e.audio, e.video);
      case 'kinds': return this.kinds(e.type, e.audio, e.video);
      case 'unpublish': return this.withdraw(e.type, 'removed');
      case 'giveUp': return this.giveUp(e.type);
      case 'refuse': return this.refuse(e.type);
      case 'signal': return this.signal(e.signal, e.byChannel);
      case 'delivered': return this.delivered(e.type, e.epoch, e.rev);
      case 'unreachable': return this.unreachable();
      case 'timer': return this.timer(e.name);
      case 'warm': return this.warm();
      case 'routedElsewhere': return this.set({ routedElsewhere: e.on });
      case 'regather': return this.regather();
      case 'resumed': return this.resumed();
      default:
        // What a connection reports counts only while it is the present one.
        if (!this.s.open || e.gen !== this.s.gen) return;
        if (e.kind === 'link') this.link(e.state);
        else if (e.kind === 'lost') this.lost();
        else if (e.kind === 'channel') this.channel(e.open);
        else if (e.kind === 'tracks') this.set({ tracks: true });
        else this.fail('broken');
    }
  }

  /** What follows from the state as it is now. */
  finish(): void {
    const { gen, tracks, link, routedElsewhere, used, pendingReport } = this.s;
    const reached = link === 'connected' || routedElsewhere;
    if (!used && this.wanted()) {
      this.set({ used: true, pendingReport: null });
      if (pendingReport) this.out.push({ do: 'report', ...pendingReport });
    }
    for (const type of TYPES) {
      const l = this.s.local[type];
      if (reached && l.on && l.waiting && l.delivered) {
        this.setLocal(type, { waiting: false });
        this.out.push({ do: 'settle', type, ok: true, reason: '' });
      }
      const { on, audio, video, epoch, rev, shown, notifiedEpoch, announcedGen } = this.s.remote[type];
      if (!on && shown) {
        this.setRemote(type, { shown: '' });
        this.out.push({ do: 'dropStream', type });
      }
      if (!on || !tracks || announcedGen !== gen) continue;
      const now = `${gen} ${epoch} ${rev}`;
      if (shown !== now) {
        this.setRemote(type, { shown: now });
        this.out.push({ do: 'stream', type, audio, video });
      }
      if (reached && notifiedEpoch < epoch) {
        this.setRemote(type, { notifiedEpoch: epoch });
        this.out.push({ do: 'subscribed', type });
      }
    }
  }

  private publish(type: MediaType, audio: boolean, video: boolean): void {
    const l = this.s.local[type];
    const same = l.on && l.audio === audio && l.video === video;
    // Said although nothing has changed: the app there may have stopped the tracks that it was handed.
    const more = l.on ? { rev: l.rev + 1 } : { on: true, epoch: l.epoch + 1, rev: 0 };
    this.setLocal(type, { ...more, audio, video, waiting: true, delivered: same && l.delivered });
    if (this.s.open) {
      this.out.push({ do: 'attach', type });
      this.announce(type);
    } else {
      this.connect();
    }
  }

  private kinds(type: MediaType, audio: boolean, video: boolean): void {
    const { on, rev, audio: heard, video: seen } = this.s.local[type];
    if (!on || (heard === audio && seen === video)) return;
    this.setLocal(type, { rev: rev + 1, audio, video });
    if (this.s.open) this.announce(type);
  }

  private warm(): void {
    if (this.s.warm) return;
    this.set({ warm: true });
    if (!this.s.open && this.s.creator) this.connect();
  }

  /** Both sides gather anew in an ICE restart. The pair of candidates in use carries on until another one is there. */
  private regather(): void {
    const { open, link, signaling, everConnected, repeats } = this.s;
    if (!open || link !== 'connected') return;
    if (signaling === 'offering' && everConnected && repeats > 0) this.offerRestart(0);
    else this.restart();
  }

  /** Whether this side sees to it that a connection stands: for what it publishes, or may. The other side waits for the creator to warm one. */
  private kept(): boolean {
    return this.sending() || (this.s.warm && this.s.creator);
  }

  private sending(): boolean {
    return TYPES.some((type) => this.s.local[type].on);
  }

  /** Of a connection that nobody has asked for the app hears nothing. */
  private report(state: PeerStateEvent['state'], reason: Reason | ''): void {
    if (!this.s.warm || this.s.used) this.out.push({ do: 'report', state, reason });
    else this.set({ pendingReport: state === 'failed' ? null : { state, reason } });
  }

  /** Gets a connection going where there is none: the creator offers, the other side asks for the offer by saying what it publishes. */
  private connect(): void {
    this.timerOff('again');
    if (this.s.creator) return this.generation(0);
    this.set({ repeats: 0, restarts: 0 });
    this.askAnew();
    this.timerOn('repeat');
    this.report('connecting', '');
  }

  /** Asks for a new generation: by what is published, or by saying that there is no connection. */
  private askAnew(): void {
    for (const type of TYPES) this.announce(type);
    if (!this.sending()) this.out.push({ do: 'send', byChannel: false, signal: NONE });
  }

  /** A new generation, made by the creator. */
  private generation(restarts: number): void {
    const gen = this.s.gen + 1;
    const n = this.s.offered + 1;
    this.reset(gen, { signaling: 'offering', offered: n, restarts });
    this.out.push({ do: 'open', gen, creator: true }, { do: 'offer', gen, n, restart: false });
    for (const type of TYPES) this.announce(type);
    this.timerOn('repeat');
    this.timerOn('connect');
    this.report('connecting', '');
  }

  private reset(gen: number, more: Partial<State>): void {
    this.set({
      gen, open: true, signaling: 'new', described: false, answered: 0, link: 'new', tracks: false, channel: false, everConnected: false, asking: false, repeats: 0, ...more,
    });
    this.timerOff('restart');
  }

  /** Says what is published of a type: on the data channel when it is there, else over the server. */
  private announce(type: MediaType): void {
    const { on, epoch, rev, audio, video } = this.s.local[type];
    if (!on) return;
    const byChannel = this.s.channel;
    if (byChannel) this.setLocal(type, { delivered: true });
    const gen = this.s.open ? this.s.gen : 0;
    this.out.push({ do: 'send', byChannel, signal: { eventOp: 'publish', type, epoch, rev, audio, video, gen } });
  }

  /**
   * Says how it stands with a type, also that there is nothing: one who left and came back may have taken a publication in that was
   * meant for the time before.
   */
  private sync(type: MediaType): void {
    if (this.s.local[type].on) this.announce(type);
    else this.unannounce(type);
  }

  private unannounce(type: MediaType, byChannel = this.s.channel): void {
    this.out.push({ do: 'send', byChannel, signal: { eventOp: 'unpublish', type, epoch: this.s.local[type].epoch } });
  }

  /** Stops publishing. */
  private withdraw(type: MediaType, reason: Reason, tell = true): void {
    const { on, waiting } = this.s.local[type];
    if (!on) return;
    this.setLocal(type, { on: false, waiting: false });
    this.out.push({ do: 'attach', type });
    if (tell) this.unannounce(type);
    if (waiting) this.out.push({ do: 'settle', type, ok: false, reason });
    // Nothing is under way for anybody: a half-made connection need not be kept.
    if (!this.wanted() && !this.s.warm && this.s.link !== 'connected') this.close();
  }

  private giveUp(type: MediaType): void {
    if (!this.s.local[type].waiting) return;
    const reason = this.s.described && this.s.link !== 'connected' ? 'ice-failed' : 'no-answer';
    this.report('failed', reason);
    this.withdraw(type, reason);
  }

  private refuse(type: MediaType): void {
    const { on, epoch } = this.s.remote[type];
    if (!on) return;
    this.setRemote(type, { on: false });
    this.sendRefusal(type, epoch, this.s.channel);
  }

  private sendRefusal(type: MediaType, epoch: number, byChannel: boolean): void {
    this.out.push({ do: 'send', byChannel, signal: { eventOp: 'unpublish', type, epoch, owner: this.s.peer } });
  }

  private signal(m: Signal, byChannel: boolean): void {
    if (m.eventOp === 'publish') return this.published(m, byChannel);
    if (m.eventOp === 'unpublish') return this.unpublished(m);
    if (m.eventOp === 'candidate') return this.candidates(m.gen, m.candidates);
    if (m.sdp.type === 'answer') this.answer(m.gen, m.n, m.sdp.sdp);
    else this.offer(m.gen, m.n, m.sdp.sdp);
  }

  private published(m: Extract<Signal, { eventOp: 'publish' }>, byChannel: boolean): void {
    const { type, epoch, rev, audio, video } = m;
    const r = this.s.remote[type];
    if (epoch > r.epoch || (epoch === r.epoch && r.on && rev > r.rev)) {
      this.setRemote(type, { on: true, epoch, rev, audio, video });
    } else if (epoch === r.epoch && !r.on) {
      // Refused, and the refusal was lost; or withdrawn, then it changes nothing.
      this.sendRefusal(type, epoch, byChannel);
    }
    if (epoch >= r.epoch) this.setRemote(type, { announcedGen: Math.max(m.gen, r.announcedGen) });
    if (!this.s.creator || byChannel) return;
    // The other side waits for an offer: there is no connection here, or none of our generation there. While the first offer of a
    // generation is unanswered, it may simply not have seen it yet.
    const { open, described, gen } = this.s;
    if (open ? described && m.gen !== gen && this.wanted() : this.s.remote[type].on) this.generation(0);
  }

  /** Whether anybody sends, or says so. */
  private wanted(): boolean {
    return TYPES.some((type) => this.s.local[type].on || this.s.remote[type].on);
  }

  private unpublished({ type, epoch, owner }: Extract<Signal, { eventOp: 'unpublish' }>): void {
    if (owner === this.s.me) {
      // The receiver wants no more of it.
      if (epoch === this.s.local[type].epoch) this.withdraw(type, 'removed', false);
      return;
    }
    const r = this.s.remote[type];
    if (epoch < r.epoch) return;
    this.setRemote(type, { on: false, epoch });
  }

  private offer(gen: number, n: number, sdp: string): void {
    const s = this.s;
    if (s.creator) return; // Only we offer.
    if (gen < s.gen) return;
    if (gen === s.gen && !s.open) return this.wanted() ? this.askAnew() : undefined; // That one is gone.
    if (gen > s.gen) {
      this.reset(gen, { restarts: s.everConnected ? 0 : s.restarts });
      this.out.push({ do: 'open', gen, creator: false });
      this.timerOn('connect');
      this.report('connecting', '');
    } else if (n <= s.answered) {
      if (n === s.answered && s.signaling === 'stable') this.out.push({ do: 'resend', gen, what: 'answer', n });
      return;
    }
    // A later offer is an ICE restart. Where the connection is down here too it is this side's as well.
    if (gen === s.gen && s.link !== 'connected') this.set({ restarts: Math.max(1, s.restarts) });
    this.set({ signaling: 'stable', answered: n, described: true, asking: false, repeats: 0, taken: 0 });
    this.timerOff('repeat');
    this.out.push({ do: 'accept', gen, n, sdp });
    if (gen === s.gen && s.link !== 'connected') this.timerOn('connect');
    this.releaseEarly();
    // In a new generation everybody says again what is published.
    if (gen > s.gen) for (const type of TYPES) this.announce(type);
  }

  private answer(gen: number, n: number, sdp: string): void {
    const s = this.s;
    if (!s.open || gen !== s.gen || s.signaling !== 'offering' || n !== s.offered) return;
    this.set({ signaling: 'stable', described: true, repeats: 0, taken: 0 });
    this.timerOff('repeat');
    if (s.link !== 'connected') this.timerOn('connect');
    this.out.push({ do: 'answered', gen, sdp });
    this.releaseEarly();
  }

  private candidates(gen: number, list: RTCIceCandidateInit[]): void {
    const s = this.s;
    if (list.length === 0) {
      if (!s.creator || (s.open && !s.described)) return;
      if (gen === 0 && (s.open || this.kept() || this.wanted())) this.generation(0);
      else if (s.open && gen === s.gen) this.restart();
    } else if (s.open && gen === s.gen && s.described) {
      this.addCandidates(list);
    } else if (gen > s.gen || (gen === s.gen && s.open)) {
      this.set({ early: [...s.early, ...list.slice(-CANDIDATES).map((candidate) => ({ gen, candidate }))].slice(-CANDIDATES) });
    }
  }

  private addCandidates(list: RTCIceCandidateInit[]): void {
    const { gen, taken } = this.s;
    const some = list.slice(0, CANDIDATES - taken);
    if (!some.length) return;
    this.set({ taken: taken + some.length });
    this.out.push({ do: 'candidates', gen, list: some });
  }

  private releaseEarly(): void {
    const { gen, early } = this.s;
    this.addCandidates(early.filter((e) => e.gen === gen).map((e) => e.candidate));
    this.set({ early: early.filter((e) => e.gen > gen) });
  }

  private link(state: RTCPeerConnectionState): void {
    const { link, restarts } = this.s;
    if (state === 'connected') {
      if (this.s.asking) this.timerOff('repeat');
      this.set({ link: 'connected', everConnected: true, restarts: 0, asking: false, failures: 0 });
      this.timerOff('restart');
      this.timerOff('connect');
      if (link !== 'connected') this.report('connected', '');
    } else if (state === 'disconnected') {
      if (link === 'connected') this.report('interrupted', 'interrupted');
      this.set({ link: 'disconnected' });
      if (this.s.signaling === 'offering') this.again();
      this.timerOn('restart');
    } else if (state === 'failed') {
      if (link === 'connected') this.report('interrupted', 'interrupted');
      if (link !== 'new') this.set({ link: 'disconnected' });
      // What was tried has not even been answered: the timer 'repeat' decides.
      if (this.s.asking) return;
      if (this.s.signaling === 'offering') return this.s.repeats >= REPEATS ? this.again() : undefined;
      if (restarts > 0) this.fail('ice-failed');
      else this.restart();
    }
  }

  /** Another connection in place of one that stood. */
  private lost(): void {
    if (!this.s.everConnected) return this.link('failed');
    if (this.s.link === 'connected') this.report('interrupted', 'interrupted');
    if (this.s.creator) return this.generation(0);
    this.close();
    this.connect();
  }

  /**
   * The second attempt. For a connection that never stood it is a new one: Firefox may send nothing after an ICE restart before the first
   * connection.
   */
  private restart(): void {
    const { creator, link, signaling, restarts, everConnected } = this.s;
    if (signaling !== 'stable' || this.s.asking) return; // One is under way.
    // Where the connection is up, only the other side has lost it: that says nothing about the next time here.
    const count = link === 'connected' ? 0 : restarts + 1;
    if (!creator) {
      this.set({ restarts: count, asking: true });
      this.ask();
      this.again();
    } else if (everConnected) {
      this.offerRestart(count);
    } else {
      if (restarts === 0) this.generation(1);
      return;
    }
    this.timerOn('connect');
  }

  /** An offer that is still unanswered may know of a network, or a relay, that is gone: it is replaced, which needs no rollback. */
  private offerRestart(restarts: number): void {
    const n = this.s.offered + 1;
    this.set({ signaling: 'offering', offered: n, restarts });
    this.out.push({ do: 'offer', gen: this.s.gen, n, restart: true });
    this.again();
  }

  /** Repeating begins anew. */
  private again(): void {
    this.set({ repeats: 0 });
    this.timerOn('repeat');
  }

  private ask(): void {
    this.out.push({ do: 'send', byChannel: false, signal: { eventOp: 'candidate', gen: this.s.gen, candidates: [] } });
  }

  private channel(open: boolean): void {
    this.set({ channel: open });
    if (!open) return;
    // Whatever was lost on the way here is said again, on a way that loses nothing.
    for (const type of TYPES) this.sync(type);
  }

  private delivered(type: MediaType, epoch: number, rev: number): void {
    const l = this.s.local[type];
    if (l.on && l.epoch === epoch && l.rev === rev) this.setLocal(type, { delivered: true });
  }

  /** The server knows no such user in the room: its `leave` is on the way, if it has not come. */
  private unreachable(): void {
    if (this.s.link === 'connected') return;
    this.fail('not-in-room');
  }

  private timer(name: TimerName): void {
    const { open, signaling, link, creator, gen, offered, repeats, asking } = this.s;
    if (name === 'again') {
      if (!open && this.kept()) this.connect();
    } else if (name === 'restart') {
      if (this.s.everConnected && link === 'disconnected') this.restart();
    } else if (name === 'connect') {
      if (open && link !== 'connected') this.link('failed');
    } else {
      const waiting = open ? asking || signaling === 'offering' : !creator;
      if (!waiting) return;
      if (repeats >= REPEATS) {
        if (link !== 'connected') return this.fail('no-answer');
        // What stands goes on as it is. An offer cannot be taken back: it is sent again when there is a reason.
        return this.set({ asking: false });
      }
      this.set({ repeats: repeats + 1 });
      if (asking) this.ask();
      else if (open) this.out.push({ do: 'resend', gen, what: 'offer', n: offered });
      else this.askAnew();
      this.timerOn('repeat');
    }
  }

  private resumed(): void {
    const { open, signaling, link, gen, offered, channel, asking, everConnected } = this.s;
    // What was said last may have been lost with the socket.
    if (!channel) for (const type of TYPES) this.sync(type);
    if (!open) {
      if (this.wanted() || this.kept()) this.connect();
      return;
    }
    if (signaling === 'offering' && everConnected) this.offerRestart(this.s.restarts);
    else if (signaling === 'offering') this.out.push({ do: 'resend', gen, what: 'offer', n: offered });
    else if (asking) this.ask();
    else if (everConnected && link === 'disconnected') this.restart();
    else if (link === 'new') this.out.push({ do: 'recandidate', gen });
  }

  private fail(reason: Reason): void {
    this.set({ link: 'failed', failures: this.s.failures + 1 });
    this.report('failed', reason);
    this.out.push({ do: 'gone', reason });
    for (const type of TYPES) if (this.s.local[type].waiting) this.withdraw(type, reason);
    this.close();
    // What stood once comes back by itself when the network does.
    if (this.kept()) this.timerOn('again');
  }

  private close(): void {
    // What the channel has not brought over is lost with it. What is still published is said again in the next generation.
    for (const type of this.s.channel ? TYPES : []) {
      const { on, delivered } = this.s.local[type];
      if (!on && delivered) this.unannounce(type, false);
    }
    if (this.s.open) this.out.push({ do: 'close' });
    this.set({ open: false, signaling: 'new', described: false, tracks: false, channel: false, everConnected: false, asking: false, restarts: 0 });
    if (this.s.link !== 'failed') this.set({ link: 'new' });
    for (const name of TIMERS) this.timerOff(name);
  }

  private timerOn(name: TimerName): void {
    this.out.push({ do: 'timer', name, on: true });
  }

  private timerOff(name: TimerName): void {
    this.out.push({ do: 'timer', name, on: false });
  }

  private set(change: Partial<State>): void {
    this.s = { ...this.s, ...change };
  }

  private setLocal(type: MediaType, change: Partial<Local>): void {
    this.set({ local: { ...this.s.local, [type]: { ...this.s.local[type], ...change } } });
  }

  private setRemote(type: MediaType, change: Partial<Remote>): void {
    this.set({ remote: { ...this.s.remote, [type]: { ...this.s.remote[type], ...change } } });
  }
}
