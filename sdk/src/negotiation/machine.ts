/**
 * The negotiation of one connection as a pure function: step(state, event) → [state, effects].
 * No clock, no browser, no randomness.
 *
 * - Only the side with the smaller id ("creator") makes connections, numbers their generations
 *   (`gen`) and offers. The other side answers, and requests an ICE restart by a candidate message
 *   without candidates. So offers never cross, and must not: Chromium shows no more video of a
 *   stream after the rollback of an ICE restart, and Firefox may be left without a selected pair,
 *   unreported, after crossed restarts.
 * - The state runs ahead of the browser: effects are performed in order, one at a time, so
 *   `signaling` is the state of the connection once all effects so far are done.
 * - A dying socket may lose anything, which is sent again then, so everything may arrive twice.
 *   Offers are numbered (`n`), answers name their offer, publications have an `epoch` (and a `rev`
 *   within it).
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
  /** The other side was told, or will be over a reliable transport. */
  delivered: boolean;
}

/** What the other side publishes. */
export interface Remote {
  on: boolean;
  epoch: number;
  rev: number;
  audio: boolean;
  video: boolean;
  /** Generation of its last announcement. Only those of the present generation count. */
  announcedGen: number;
  /** What the stream shows now: gen, epoch and rev; empty without a stream. */
  shown: string;
  /** Epoch of the last `subscribed`. */
  notifiedEpoch: number;
}

export interface State {
  readonly me: string;
  readonly peer: string;
  /** This side creates the connections. */
  readonly creator: boolean;
  /** Generation of the connection, or of the last one. */
  readonly gen: number;
  readonly open: boolean;
  readonly signaling: 'new' | 'offering' | 'stable';
  /** The remote description is (or will be) set: candidates can be added. */
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
  /**
   * Second attempts (a restart, or a new generation in place of one that never connected) since the
   * connection was up or given up.
   */
  readonly restarts: number;
  /** The creator has been asked for a restart. */
  readonly asking: boolean;
  readonly repeats: number;
  /** Connections that failed since the last connected one. */
  readonly failures: number;
  /** The connection is prewarmed. */
  readonly warm: boolean;
  /**
   * This path is dead and media uses the other connection: publications count as if this one were
   * connected.
   */
  readonly routedElsewhere: boolean;
  /** Something was published here: from then on the app gets reports. */
  readonly used: boolean;
  /** The last report that was withheld from the app. */
  readonly pendingReport: {
    readonly state: PeerStateEvent['state'];
    readonly reason: Reason | '';
  } | null;
  readonly early: readonly { gen: number; candidate: RTCIceCandidateInit }[];
  /** Remote candidates since the last description. */
  readonly taken: number;
  readonly local: Readonly<Record<MediaType, Readonly<Local>>>;
  readonly remote: Readonly<Record<MediaType, Readonly<Remote>>>;
}

export type TimerName = 'repeat' | 'restart' | 'connect' | 'again';
const TIMERS: readonly TimerName[] = ['repeat', 'restart', 'connect', 'again'];

export type Event =
  | { kind: 'publish'; type: MediaType; audio: boolean; video: boolean }
  /**
   * A device has gone: the publication has these kinds from now on. Nobody waits for an outcome.
   */
  | { kind: 'kinds'; type: MediaType; audio: boolean; video: boolean }
  | { kind: 'unpublish'; type: MediaType }
  /** The time limit of publishP2P. */
  | { kind: 'giveUp'; type: MediaType }
  /** Stop receiving. */
  | { kind: 'refuse'; type: MediaType }
  | { kind: 'signal'; signal: Signal; byChannel: boolean }
  /** connectionState of a generation. */
  | { kind: 'link'; gen: number; state: RTCPeerConnectionState }
  /** DTLS has failed, or an app has closed the connection: an ICE restart does not help. */
  | { kind: 'lost'; gen: number }
  | { kind: 'channel'; gen: number; open: boolean }
  /** The remote tracks of a generation exist. */
  | { kind: 'tracks'; gen: number }
  /** An effect failed. */
  | { kind: 'broken'; gen: number }
  /** The server accepted a publication, or refused it: there is no such user in the room. */
  | { kind: 'delivered'; type: MediaType; epoch: number; rev: number }
  | { kind: 'unreachable' }
  | { kind: 'timer'; name: TimerName }
  /** Heartbeats are not answered any more, or are again. */
  | { kind: 'heartbeat'; answered: boolean }
  /** Prewarm a connection. */
  | { kind: 'warm' }
  /** Media goes over another connection, or over this one again. */
  | { kind: 'route'; elsewhere: boolean }
  /** Gather again: the present pair stays in use until a better one is found. */
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

/**
 * Most candidates used for one remote description, or kept for one that has not come. Thousands
 * freeze a browser.
 */
const CANDIDATES = 128;
/** Unanswered repetitions (timer 'repeat') before the other side counts as silent. */
const REPEATS = 6;

/**
 * @param seed first number of generations, offers and epochs: greater than any used before with
 * this user, so that late messages of an earlier session are recognised. Milliseconds since 1970
 * are.
 */
export function initial(me: string, peer: string, seed: number): State {
  const creator = creates(me, peer);
  const local = {
    on: false,
    epoch: seed,
    rev: 0,
    audio: false,
    video: false,
    awaited: false,
    delivered: false,
  };
  const remote = {
    on: false,
    epoch: 0,
    rev: 0,
    audio: false,
    video: false,
    announcedGen: 0,
    shown: '',
    notifiedEpoch: 0,
  };
  return {
    me,
    peer,
    creator,
    gen: creator ? seed : 0,
    open: false,
    signaling: 'new',
    described: false,
    lastOffer: seed,
    lastAnswered: 0,
    link: 'new',
    hasTracks: false,
    channelOpen: false,
    dead: false,
    everConnected: false,
    restarts: 0,
    asking: false,
    repeats: 0,
    failures: 0,
    warm: false,
    routedElsewhere: false,
    used: false,
    pendingReport: null,
    early: [],
    taken: 0,
    local: { cam: local, screen: local },
    remote: { cam: remote, screen: remote },
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
  // Announced without a change: the app there may have stopped its tracks.
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

/** Both sides gather in an ICE restart. The selected pair stays until another is found. */
function regather(d: Draft): void {
  const { open, link, signaling, everConnected, repeats } = d;
  if (!open || link !== 'connected') return;
  if (signaling === 'offering' && everConnected && repeats > 0) offerRestart(d, 0);
  else restart(d);
}

/**
 * Whether this side maintains a connection: for its publications, or prewarmed. Only the creator
 * prewarms.
 */
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

/**
 * Starts a connection: the creator offers; the other side asks for the offer by its announcement.
 */
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
    gen,
    open: true,
    signaling: 'new',
    described: false,
    lastAnswered: 0,
    link: 'new',
    hasTracks: false,
    channelOpen: false,
    everConnected: false,
    asking: false,
    repeats: 0,
    ...more,
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
  d.out.push({
    do: 'send',
    byChannel,
    signal: { eventOp: 'publish', type, epoch, rev, audio, video, gen },
  });
}

/**
 * Announces a type, also when nothing is published: a peer that rejoined may have taken in a
 * publication of before.
 */
function sync(d: Draft, type: MediaType): void {
  if (d.local[type].on) announce(d, type);
  else unannounce(d, type);
}

function unannounce(d: Draft, type: MediaType, byChannel = d.channelOpen): void {
  d.out.push({
    do: 'send',
    byChannel,
    signal: { eventOp: 'unpublish', type, epoch: d.local[type].epoch },
  });
}

/** Stops publishing. */
function withdraw(d: Draft, type: MediaType, reason: Reason, tell = true): void {
  const { on, awaited } = d.local[type];
  if (!on) return;
  setLocal(d, type, { on: false, awaited: false });
  d.out.push({ do: 'attach', type });
  if (tell) unannounce(d, type);
  if (awaited) d.out.push({ do: 'settle', type, ok: false, reason });
  // Nobody waits: a connection that is not up yet is not kept.
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
  d.out.push({
    do: 'send',
    byChannel,
    signal: { eventOp: 'unpublish', type, epoch, owner: d.peer },
  });
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
    // Refused, and the refusal was lost; or unpublished, then it changes nothing.
    sendRefusal(d, type, epoch, byChannel);
  }
  if (epoch >= r.epoch) setRemote(d, type, { announcedGen: Math.max(m.gen, r.announcedGen) });
  if (!d.creator || byChannel) return;
  // The other side waits for an offer: there is no connection here, or not of our generation there.
  // While the first offer of a generation is unanswered, it may not have seen it yet.
  const { open, described, gen } = d;
  if (open ? described && m.gen !== gen && wanted(d) : d.remote[type].on) generation(d, 0);
}

/** Whether anybody sends, or says so. */
export function wanted(d: State): boolean {
  return TYPES.some((type) => d.local[type].on || d.remote[type].on);
}

function unpublished(
  d: Draft,
  { type, epoch, owner }: Extract<Signal, { eventOp: 'unpublish' }>,
): void {
  if (owner === d.me) {
    // The receiver refuses it.
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
    if (n === d.lastAnswered && d.signaling === 'stable') {
      d.out.push({ do: 'resend', gen, what: 'answer', n });
    }
    return;
  }
  // A later offer is an ICE restart. If the connection is down here too, it counts for this side as
  // well.
  const again = !fresh && d.link !== 'connected';
  if (again) d.restarts = Math.max(1, d.restarts);
  set(d, {
    signaling: 'stable',
    lastAnswered: n,
    described: true,
    asking: false,
    repeats: 0,
    taken: 0,
  });
  timerOff(d, 'repeat');
  d.out.push({ do: 'accept', gen, n, sdp });
  if (again) timerOn(d, 'connect');
  releaseEarly(d);
  // In a new generation both sides announce again.
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
    set(d, {
      early: [
        ...d.early,
        ...list.slice(-CANDIDATES).map((candidate) => ({ gen, candidate })),
      ].slice(-CANDIDATES),
    });
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
    // Not even answered: the timer `repeat` decides.
    if (d.asking) return;
    if (d.signaling === 'offering') return d.repeats >= REPEATS ? again(d) : undefined;
    if (restarts > 0) fail(d, 'ice-failed');
    else restart(d);
  }
}

/** Replaces a connection that was up. */
function lost(d: Draft): void {
  if (!d.everConnected) return link(d, 'failed');
  if (d.link === 'connected') report(d, 'interrupted', 'interrupted');
  if (d.creator) return generation(d, 0);
  close(d);
  connect(d);
}

/**
 * The second attempt. A connection that was never up is replaced: Firefox may send nothing after an
 * ICE restart before the first connection.
 */
function restart(d: Draft): void {
  const { creator, link, signaling, restarts, everConnected } = d;
  if (signaling !== 'stable' || d.asking) return; // One is under way.
  // If it is up here, only the other side has lost it: this does not count as an attempt.
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

/**
 * An unanswered offer may contain a network or relay that is gone: it is replaced, without a
 * rollback.
 */
function offerRestart(d: Draft, restarts: number): void {
  const n = d.lastOffer + 1;
  set(d, { signaling: 'offering', lastOffer: n, restarts });
  d.out.push({ do: 'offer', gen: d.gen, n, restart: true });
  again(d);
}

/** Repeats start again. */
function again(d: Draft): void {
  d.repeats = 0;
  timerOn(d, 'repeat');
}

function ask(d: Draft): void {
  d.out.push({
    do: 'send',
    byChannel: false,
    signal: { eventOp: 'candidate', gen: d.gen, candidates: [] },
  });
}

function channel(d: Draft, open: boolean): void {
  d.channelOpen = open;
  if (!open) return;
  // What was lost on the way is sent again over a reliable transport, refusals as well.
  for (const type of TYPES) {
    sync(d, type);
    const { on, epoch } = d.remote[type];
    if (!on && epoch) sendRefusal(d, type, epoch, true);
  }
}

function delivered(d: Draft, type: MediaType, epoch: number, rev: number): void {
  const l = d.local[type];
  if (l.on && l.epoch === epoch && l.rev === rev) setLocal(d, type, { delivered: true });
}

/** There is no such user in the room: `leave` has come or will come. */
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
      // The connection stays up. An offer cannot be withdrawn: it is sent again for a reason.
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
  // The last messages may have been lost with the socket.
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
  // A connection that was up is restored when the network is.
  if (kept(d)) timerOn(d, 'again');
}

function close(d: Draft): void {
  // Undelivered messages are lost with the channel. Publications are announced again in the next
  // generation.
  for (const type of d.channelOpen ? TYPES : []) {
    const { on, delivered } = d.local[type];
    if (!on && delivered) unannounce(d, type, false);
  }
  if (d.open) d.out.push({ do: 'close' });
  set(d, {
    open: false,
    signaling: 'new',
    described: false,
    hasTracks: false,
    channelOpen: false,
    everConnected: false,
    asking: false,
    restarts: 0,
  });
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

