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
  awaited: boolean;
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
  readonly lastOffer: number;
  readonly lastAnswered: number;
  readonly link: 'new' | 'connected' | 'disconnected' | 'failed';
  readonly hasTracks: boolean;
  readonly channelOpen: boolean;
  /** Heartbeats are not answered any more. */
  readonly dead: boolean;
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
  /** Heartbeats are not answered any more, or are again. */
  | { kind: 'heartbeat'; answered: boolean }
  /** Have a connection ready. */
  | { kind: 'warm' }
  /** Media goes over another connection, or over this one again. */
  | { kind: 'route'; elsewhere: boolean }
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
  | {
    do: 'send';
    byChannel: boolean;
    signal: Signal;
  }
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
  const local = { on: false, epoch: seed, rev: 0, audio: false, video: false, awaited: false, delivered: false };
  const remote = { on: false, epoch: 0, rev: 0, audio: false, video: false, announcedGen: 0, shown: '', notifiedEpoch: 0 };
  return {
    me, peer, creator, gen: creator ? seed : 0, open: false, signaling: 'new', described: false, lastOffer: seed, lastAnswered: 0, link: 'new', hasTracks: false,
    channelOpen: false, dead: false, everConnected: false, restarts: 0, asking: false, repeats: 0, failures: 0, warm: false, routedElsewhere: false,
    used: false, pendingReport: null, early: [], taken: 0, local: { cam: local, screen: local }, remote: { cam: remote, screen: remote },
  };
}

/** One event being worked on: the state that follows, and the effects so far. */
type Draft = { -readonly [K in keyof State]: State[K] } & { out: Effect[] };

export function step(state: State, event: Event): [State, Effect[]] {
  const draft: Draft = { ...state, out: [] };
  take(draft, event);
  finish(draft);
  const { out, ...next } = draft;
  return [next, out];
}

function take(d: Draft, e: Event): void {
  switch (e.kind) {
    case 'publish': return publish(d, e.type, e.audio, e.video);
    case 'kinds': return kinds(d, e.type, e.audio, e.video);
    case 'unpublish': return withdraw(d, e.type, 'removed');
    case 'giveUp': return giveUp(d, e.type);
    case 'refuse': return refuse(d, e.type);
    case 'signal': return signal(d, e.signal, e.byChannel);
    case 'delivered': return delivered(d, e.type, e.epoch, e.rev);
    case 'unreachable': return unreachable(d);
    case 'timer': return timer(d, e.name);
    case 'warm': return warm(d);
    case 'route':
      d.routedElsewhere = e.elsewhere;
      return;
    case 'heartbeat':
      d.dead = !e.answered;
      return;
    case 'regather': return regather(d);
    case 'resumed': return resumed(d);
    default:
      // What a connection reports counts only while it is the present one.
      if (!d.open || e.gen !== d.gen) return;
      if (e.kind === 'link') link(d, e.state);
      else if (e.kind === 'lost') lost(d);
      else if (e.kind === 'channel') channel(d, e.open);
      else if (e.kind === 'tracks') d.hasTracks = true;
      else fail(d, 'broken');
  }
}

/** What follows from the state as it is now. */
function finish(d: Draft): void {
  const { gen, hasTracks, link, routedElsewhere, used, pendingReport } = d;
  const reached = link === 'connected' || routedElsewhere;
  if (!used && wanted(d)) {
    set(d, { used: true, pendingReport: null });
    if (pendingReport) d.out.push({ do: 'report', ...pendingReport });
  }
  for (const type of TYPES) {
    const l = d.local[type];
    if (reached && l.on && l.awaited && l.delivered) {
      setLocal(d, type, { awaited: false });
      d.out.push({ do: 'settle', type, ok: true, reason: '' });
    }
    const { on, audio, video, epoch, rev, shown, notifiedEpoch, announcedGen } = d.remote[type];
    if (!on && shown) {
      setRemote(d, type, { shown: '' });
      d.out.push({ do: 'dropStream', type });
    }
    if (!on || !hasTracks || announcedGen !== gen) continue;
    const now = `${gen} ${epoch} ${rev}`;
    if (shown !== now) {
      setRemote(d, type, { shown: now });
      d.out.push({ do: 'stream', type, audio, video });
    }
    if (reached && notifiedEpoch < epoch) {
      setRemote(d, type, { notifiedEpoch: epoch });
      d.out.push({ do: 'subscribed', type });
    }
  }
}

function publish(d: Draft, type: MediaType, audio: boolean, video: boolean): void {
  const l = d.local[type];
  const same = l.on && l.audio === audio && l.video === video;
  // Said although nothing has changed: the app there may have stopped the tracks that it was handed.
  const more = l.on ? { rev: l.rev + 1 } : { on: true, epoch: l.epoch + 1, rev: 0 };
  setLocal(d, type, { ...more, audio, video, awaited: true, delivered: same && l.delivered });
  if (d.open) {
    d.out.push({ do: 'attach', type });
    announce(d, type);
  } else {
    connect(d);
  }
}

function kinds(d: Draft, type: MediaType, audio: boolean, video: boolean): void {
  const { on, rev, audio: heard, video: seen } = d.local[type];
  if (!on || (heard === audio && seen === video)) return;
  setLocal(d, type, { rev: rev + 1, audio, video });
  if (d.open) announce(d, type);
}

function warm(d: Draft): void {
  if (d.warm) return;
  d.warm = true;
  if (!d.open && d.creator) connect(d);
}

/** Both sides gather anew in an ICE restart. The pair of candidates in use carries on until another one is there. */
function regather(d: Draft): void {
  const { open, link, signaling, everConnected, repeats } = d;
  if (!open || link !== 'connected') return;
  if (signaling === 'offering' && everConnected && repeats > 0) offerRestart(d, 0);
  else restart(d);
}

/** Whether this side sees to it that a connection stands: for what it publishes, or may. The other side waits for the creator to warm one. */
function kept(d: Draft): boolean {
  return sending(d) || (d.warm && d.creator);
}

/** Whether this side publishes anything. */
export function sending(d: State): boolean {
  return TYPES.some((type) => d.local[type].on);
}

/** Of a connection that nobody has asked for the app hears nothing. */
function report(d: Draft, state: PeerStateEvent['state'], reason: Reason | ''): void {
  if (!d.warm || d.used) d.out.push({ do: 'report', state, reason });
  else set(d, { pendingReport: state === 'failed' ? null : { state, reason } });
}

/** Gets a connection going where there is none: the creator offers, the other side asks for the offer by saying what it publishes. */
function connect(d: Draft): void {
  timerOff(d, 'again');
  if (d.creator) return generation(d, 0);
  set(d, { repeats: 0, restarts: 0 });
  askAnew(d);
  timerOn(d, 'repeat');
  report(d, 'connecting', '');
}

/** Asks for a new generation: by what is published, or by saying that there is no connection. */
function askAnew(d: Draft): void {
  for (const type of TYPES) announce(d, type);
  if (!sending(d)) d.out.push({ do: 'send', byChannel: false, signal: NONE });
}

/** A new generation, made by the creator. */
function generation(d: Draft, restarts: number): void {
  const gen = d.gen + 1;
  const n = d.lastOffer + 1;
  reset(d, gen, { signaling: 'offering', lastOffer: n, restarts });
  d.out.push({ do: 'open', gen, creator: true }, { do: 'offer', gen, n, restart: false });
  for (const type of TYPES) announce(d, type);
  timerOn(d, 'repeat');
  timerOn(d, 'connect');
  report(d, 'connecting', '');
}

function reset(d: Draft, gen: number, more: Partial<State>): void {
  set(d, {
    gen, open: true, signaling: 'new', described: false, lastAnswered: 0, link: 'new', hasTracks: false, channelOpen: false, everConnected: false, asking: false, repeats: 0, ...more,
  });
  timerOff(d, 'restart');
}

/** Says what is published of a type: on the data channel when it is there, else over the server. */
function announce(d: Draft, type: MediaType): void {
  const { on, epoch, rev, audio, video } = d.local[type];
  if (!on) return;
  const byChannel = d.channelOpen;
  if (byChannel) setLocal(d, type, { delivered: true });
  const gen = d.open ? d.gen : 0;
  d.out.push({ do: 'send', byChannel, signal: { eventOp: 'publish', type, epoch, rev, audio, video, gen } });
}

/**
 * Says how it stands with a type, also that there is nothing: one who left and came back may have taken a publication in that was
 * meant for the time before.
 */
function sync(d: Draft, type: MediaType): void {
  if (d.local[type].on) announce(d, type);
  else unannounce(d, type);
}

function unannounce(d: Draft, type: MediaType, byChannel = d.channelOpen): void {
  d.out.push({ do: 'send', byChannel, signal: { eventOp: 'unpublish', type, epoch: d.local[type].epoch } });
}

/** Stops publishing. */
function withdraw(d: Draft, type: MediaType, reason: Reason, tell = true): void {
  const { on, awaited } = d.local[type];
  if (!on) return;
  setLocal(d, type, { on: false, awaited: false });
  d.out.push({ do: 'attach', type });
  if (tell) unannounce(d, type);
  if (awaited) d.out.push({ do: 'settle', type, ok: false, reason });
  // Nothing is under way for anybody: a half-made connection need not be kept.
  if (!wanted(d) && !d.warm && d.link !== 'connected') close(d);
}

function giveUp(d: Draft, type: MediaType): void {
  if (!d.local[type].awaited) return;
  const reason = d.described && d.link !== 'connected' ? 'ice-failed' : 'no-answer';
  report(d, 'failed', reason);
  withdraw(d, type, reason);
}

function refuse(d: Draft, type: MediaType): void {
  const { on, epoch } = d.remote[type];
  if (!on) return;
  setRemote(d, type, { on: false });
  sendRefusal(d, type, epoch, d.channelOpen);
}

function sendRefusal(d: Draft, type: MediaType, epoch: number, byChannel: boolean): void {
  d.out.push({ do: 'send', byChannel, signal: { eventOp: 'unpublish', type, epoch, owner: d.peer } });
}

function signal(d: Draft, m: Signal, byChannel: boolean): void {
  if (m.eventOp === 'publish') return published(d, m, byChannel);
  if (m.eventOp === 'unpublish') return unpublished(d, m);
  if (m.eventOp === 'candidate') return candidates(d, m.gen, m.candidates);
  if (m.sdp.type === 'answer') answer(d, m.gen, m.n, m.sdp.sdp);
  else offer(d, m.gen, m.n, m.sdp.sdp);
}

function published(d: Draft, m: Extract<Signal, { eventOp: 'publish' }>, byChannel: boolean): void {
  const { type, epoch, rev, audio, video } = m;
  const r = d.remote[type];
  if (epoch > r.epoch || (epoch === r.epoch && r.on && rev > r.rev)) {
    setRemote(d, type, { on: true, epoch, rev, audio, video });
  } else if (epoch === r.epoch && !r.on) {
    // Refused, and the refusal was lost; or withdrawn, then it changes nothing.
    sendRefusal(d, type, epoch, byChannel);
  }
  if (epoch >= r.epoch) setRemote(d, type, { announcedGen: Math.max(m.gen, r.announcedGen) });
  if (!d.creator || byChannel) return;
  // The other side waits for an offer: there is no connection here, or none of our generation there. While the first offer of a
  // generation is unanswered, it may simply not have seen it yet.
  const { open, described, gen } = d;
  if (open ? described && m.gen !== gen && wanted(d) : d.remote[type].on) generation(d, 0);
}

/** Whether anybody sends, or says so. */
export function wanted(d: State): boolean {
  return TYPES.some((type) => d.local[type].on || d.remote[type].on);
}

function unpublished(d: Draft, { type, epoch, owner }: Extract<Signal, { eventOp: 'unpublish' }>): void {
  if (owner === d.me) {
    // The receiver wants no more of it.
    if (epoch === d.local[type].epoch) withdraw(d, type, 'removed', false);
    return;
  }
  const r = d.remote[type];
  if (epoch < r.epoch) return;
  setRemote(d, type, { on: false, epoch });
}

function offer(d: Draft, gen: number, n: number, sdp: string): void {
  if (d.creator) return; // Only we offer.
  if (gen < d.gen) return;
  if (gen === d.gen && !d.open) return wanted(d) ? askAnew(d) : undefined; // That one is gone.
  const fresh = gen > d.gen;
  if (fresh) {
    reset(d, gen, { restarts: d.everConnected ? 0 : d.restarts });
    d.out.push({ do: 'open', gen, creator: false });
    timerOn(d, 'connect');
    report(d, 'connecting', '');
  } else if (n <= d.lastAnswered) {
    if (n === d.lastAnswered && d.signaling === 'stable') d.out.push({ do: 'resend', gen, what: 'answer', n });
    return;
  }
  // A later offer is an ICE restart. Where the connection is down here too it is this side's as well.
  const again = !fresh && d.link !== 'connected';
  if (again) d.restarts = Math.max(1, d.restarts);
  set(d, { signaling: 'stable', lastAnswered: n, described: true, asking: false, repeats: 0, taken: 0 });
  timerOff(d, 'repeat');
  d.out.push({ do: 'accept', gen, n, sdp });
  if (again) timerOn(d, 'connect');
  releaseEarly(d);
  // In a new generation everybody says again what is published.
  if (fresh) for (const type of TYPES) announce(d, type);
}

function answer(d: Draft, gen: number, n: number, sdp: string): void {
  if (!d.open || gen !== d.gen || d.signaling !== 'offering' || n !== d.lastOffer) return;
  set(d, { signaling: 'stable', described: true, repeats: 0, taken: 0 });
  timerOff(d, 'repeat');
  if (d.link !== 'connected') timerOn(d, 'connect');
  d.out.push({ do: 'answered', gen, sdp });
  releaseEarly(d);
}

function candidates(d: Draft, gen: number, list: RTCIceCandidateInit[]): void {
  if (list.length === 0) {
    if (!d.creator || (d.open && !d.described)) return;
    if (gen === 0 && (d.open || kept(d) || wanted(d))) generation(d, 0);
    else if (d.open && gen === d.gen) restart(d);
  } else if (d.open && gen === d.gen && d.described) {
    addCandidates(d, list);
  } else if (gen > d.gen || (gen === d.gen && d.open)) {
    set(d, { early: [...d.early, ...list.slice(-CANDIDATES).map((candidate) => ({ gen, candidate }))].slice(-CANDIDATES) });
  }
}

function addCandidates(d: Draft, list: RTCIceCandidateInit[]): void {
  const { gen, taken } = d;
  const some = list.slice(0, CANDIDATES - taken);
  if (!some.length) return;
  d.taken = taken + some.length;
  d.out.push({ do: 'candidates', gen, list: some });
}

function releaseEarly(d: Draft): void {
  const { gen, early } = d;
  addCandidates(d, early.filter((e) => e.gen === gen).map((e) => e.candidate));
  d.early = early.filter((e) => e.gen > gen);
}

function link(d: Draft, state: RTCPeerConnectionState): void {
  const { link, restarts } = d;
  if (state === 'connected') {
    if (d.asking) timerOff(d, 'repeat');
    set(d, { link: 'connected', everConnected: true, restarts: 0, asking: false, failures: 0 });
    timerOff(d, 'restart');
    timerOff(d, 'connect');
    if (link !== 'connected') report(d, 'connected', '');
  } else if (state === 'disconnected') {
    if (link === 'connected') report(d, 'interrupted', 'interrupted');
    d.link = 'disconnected';
    if (d.signaling === 'offering') again(d);
    timerOn(d, 'restart');
  } else if (state === 'failed') {
    if (link === 'connected') report(d, 'interrupted', 'interrupted');
    if (link !== 'new') d.link = 'disconnected';
    // What was tried has not even been answered: the timer 'repeat' decides.
    if (d.asking) return;
    if (d.signaling === 'offering') return d.repeats >= REPEATS ? again(d) : undefined;
    if (restarts > 0) fail(d, 'ice-failed');
    else restart(d);
  }
}

/** Another connection in place of one that stood. */
function lost(d: Draft): void {
  if (!d.everConnected) return link(d, 'failed');
  if (d.link === 'connected') report(d, 'interrupted', 'interrupted');
  if (d.creator) return generation(d, 0);
  close(d);
  connect(d);
}

/**
 * The second attempt. For a connection that never stood it is a new one: Firefox may send nothing after an ICE restart before the first
 * connection.
 */
function restart(d: Draft): void {
  const { creator, link, signaling, restarts, everConnected } = d;
  if (signaling !== 'stable' || d.asking) return; // One is under way.
  // Where the connection is up, only the other side has lost it: that says nothing about the next time here.
  const count = link === 'connected' ? 0 : restarts + 1;
  if (!creator) {
    set(d, { restarts: count, asking: true });
    ask(d);
    again(d);
  } else if (everConnected) {
    offerRestart(d, count);
  } else {
    if (restarts === 0) generation(d, 1);
    return;
  }
  timerOn(d, 'connect');
}

/** An offer that is still unanswered may know of a network, or a relay, that is gone: it is replaced, which needs no rollback. */
function offerRestart(d: Draft, restarts: number): void {
  const n = d.lastOffer + 1;
  set(d, { signaling: 'offering', lastOffer: n, restarts });
  d.out.push({ do: 'offer', gen: d.gen, n, restart: true });
  again(d);
}

/** Repeating begins anew. */
function again(d: Draft): void {
  d.repeats = 0;
  timerOn(d, 'repeat');
}

function ask(d: Draft): void {
  d.out.push({ do: 'send', byChannel: false, signal: { eventOp: 'candidate', gen: d.gen, candidates: [] } });
}

function channel(d: Draft, open: boolean): void {
  d.channelOpen = open;
  if (!open) return;
  // Whatever was lost on the way here is said again, on a way that loses nothing.
  for (const type of TYPES) sync(d, type);
}

function delivered(d: Draft, type: MediaType, epoch: number, rev: number): void {
  const l = d.local[type];
  if (l.on && l.epoch === epoch && l.rev === rev) setLocal(d, type, { delivered: true });
}

/** The server knows no such user in the room: its `leave` is on the way, if it has not come. */
function unreachable(d: Draft): void {
  if (d.link === 'connected') return;
  fail(d, 'not-in-room');
}

function timer(d: Draft, name: TimerName): void {
  const { open, signaling, creator, gen, lastOffer, repeats, asking } = d;
  if (name === 'again') {
    if (!open && kept(d)) connect(d);
  } else if (name === 'restart') {
    if (d.everConnected && d.link === 'disconnected') restart(d);
  } else if (name === 'connect') {
    if (open && d.link !== 'connected') link(d, 'failed');
  } else {
    const waiting = open ? asking || signaling === 'offering' : !creator;
    if (!waiting) return;
    if (repeats >= REPEATS) {
      if (d.link !== 'connected') return fail(d, 'no-answer');
      // What stands goes on as it is. An offer cannot be taken back: it is sent again when there is a reason.
      d.asking = false;
      return;
    }
    d.repeats = repeats + 1;
    if (asking) ask(d);
    else if (open) d.out.push({ do: 'resend', gen, what: 'offer', n: lastOffer });
    else askAnew(d);
    timerOn(d, 'repeat');
  }
}

function resumed(d: Draft): void {
  const { open, signaling, link, gen, lastOffer, channelOpen, asking, everConnected } = d;
  // What was said last may have been lost with the socket.
  if (!channelOpen) for (const type of TYPES) sync(d, type);
  if (!open) {
    if (wanted(d) || kept(d)) connect(d);
    return;
  }
  if (signaling === 'offering' && everConnected) offerRestart(d, d.restarts);
  else if (signaling === 'offering') d.out.push({ do: 'resend', gen, what: 'offer', n: lastOffer });
  else if (asking) ask(d);
  else if (everConnected && link === 'disconnected') restart(d);
  else if (link === 'new') d.out.push({ do: 'recandidate', gen });
}

function fail(d: Draft, reason: Reason): void {
  set(d, { link: 'failed', failures: d.failures + 1 });
  report(d, 'failed', reason);
  d.out.push({ do: 'gone', reason });
  for (const type of TYPES) if (d.local[type].awaited) withdraw(d, type, reason);
  close(d);
  // What stood once comes back by itself when the network does.
  if (kept(d)) timerOn(d, 'again');
}

function close(d: Draft): void {
  // What the channel has not brought over is lost with it. What is still published is said again in the next generation.
  for (const type of d.channelOpen ? TYPES : []) {
    const { on, delivered } = d.local[type];
    if (!on && delivered) unannounce(d, type, false);
  }
  if (d.open) d.out.push({ do: 'close' });
  set(d, { open: false, signaling: 'new', described: false, hasTracks: false, channelOpen: false, everConnected: false, asking: false, restarts: 0 });
  if (d.link !== 'failed') d.link = 'new';
  for (const name of TIMERS) timerOff(d, name);
}

function timerOn(d: Draft, name: TimerName): void {
  d.out.push({ do: 'timer', name, on: true });
}

function timerOff(d: Draft, name: TimerName): void {
  d.out.push({ do: 'timer', name, on: false });
}

function set(d: Draft, change: Partial<State>): void {
  Object.assign(d, change);
}

function setLocal(d: Draft, type: MediaType, change: Partial<Local>): void {
  set(d, { local: { ...d.local, [type]: { ...d.local[type], ...change } } });
}

function setRemote(d: Draft, type: MediaType, change: Partial<Remote>): void {
  set(d, { remote: { ...d.remote, [type]: { ...d.remote[type], ...change } } });
}

