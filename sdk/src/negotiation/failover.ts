/**
 * The session with one other user as a pure function: stepSession(session, event, facts) → [session, effects]. It owns both connections,
 * each a machine of its own (machine.ts): the primary one, and a backup over the relay, ready and empty.
 *
 * When nothing passes on the primary connection, what is published is published on the backup, which takes a replaceTrack and one message;
 * the primary is recovered behind it and takes the media back. Each side decides for what it sends; what it receives is shown from the
 * backup as long as something is published there.
 */
import type { PeerStateEvent } from '../../types/knowledgetalk';
import type { Reason } from '../errors';
import { negotiates, type Signal } from '../signaling/messages';
import { TYPES } from './layout';
import { Heartbeat } from './liveness';
import { initial, step, type Effect, type Event, type State } from './machine';

export type Way = 'primary' | 'backup';
export const WAYS: readonly Way[] = ['primary', 'backup'];

/** Milliseconds. An enum, so that the build puts the numbers where they are used. */
export enum Failover {
  /**
   * Between attempts to recover the primary connection: the first wait, doubled each time, and the longest. Chromium tries what it has
   * found in earnest only when the path in use has been silent for 2.5 s.
   */
  retry = 3_500,
  retryMost = 16_000,
  /** The same, after a first response of the primary connection: its heartbeats may come so much later. */
  sign = 4_000,
  /** The same, for a connection that was direct and is relayed now. */
  directRetry = 2_000,
  directRetryMost = 60_000,
  /** Media goes both ways for so long before the backup stops, so that the primary's video is there when it is needed. */
  overlap = 700,
  /** Between replacements of the backup: the least, doubled each time while the primary stays dead, and the longest. */
  replace = 3_000,
  replaceMost = 24_000,
  /** Until a backup that nobody answered for is tried again, doubled each time, and the longest: the other side may not want any. */
  refusedRetry = 60_000,
  refusedRetryMost = 960_000,
  /** From a change of the room, or of the connection in use, until a backup is made or dropped for it: the other side has heard of it by then. */
  settle = 2_000,
}

export interface Session {
  readonly primary: State;
  readonly backup: State | null;
  /** What we send goes over the backup. */
  readonly onBackup: boolean;
  /** Nothing is sent on the primary connection although it is published there. */
  readonly primaryPaused: boolean;
  /** It is being found out whether there is a relay for a backup. */
  readonly preparing: boolean;
  /** The primary connection, dead, has had a response: since it was last recovered, and at all. */
  readonly responding: boolean;
  readonly believed: boolean;
  /** The primary connection was direct when it died. */
  readonly direct: boolean;
  /** What the other side negotiated last came over a data channel: it may not reach the server. */
  readonly peerOffline: boolean;
  /** Attempts in a row: to recover the primary connection, or to have it direct again. */
  readonly attempts: number;
  /** When the primary connection last began to look for paths, from either side. */
  readonly restartedAt: number;
  /** When the backup was last replaced, and how often since the primary connection died. */
  readonly replacedAt: number;
  readonly replacements: number;
  /** Backups in a row that nobody answered for. */
  readonly refusals: number;
  /** When it is next asked whether a backup is to be kept. */
  readonly reviewAt: number;
}

/** What is so at the time of an event. `seed`: see initial(). */
export interface Facts {
  /** Milliseconds of a clock that never jumps. */
  now: number;
  seed: number;
  /** A backup may be kept with this user. */
  standby: boolean;
}

/**
 * Questions: is there a relay, does the server answer, was the primary connection relayed when it
 * died, is it relayed now?
 */
export type Probe = 'relay' | 'server' | 'died' | 'path';

export type Wait = 'retry' | 'failback' | 'review';

export type SessionEvent =
  /** What happens on one connection. */
  | { kind: 'transport'; way: Way; event: Event }
  /** What the app wants, whichever connection it takes. */
  | Extract<Event, { kind: 'publish' | 'kinds' | 'unpublish' | 'giveUp' | 'refuse' | 'warm' }>
  /** Over the data channel of a connection, or the server (null). */
  | { kind: 'received'; signal: Signal; by: Way | null }
  /** ICE has had an answer on the primary connection since its heartbeats are not answered any more. */
  | { kind: 'firstResponse' }
  /** The device uses another network: what was found in the old one may still work, but something better is looked for at once. */
  | { kind: 'network' }
  /** The server is gone: what a data channel can carry does not wait for it. And the session with it goes on. */
  | { kind: 'offline' | 'resumed' }
  /** The room has other members. */
  | { kind: 'room' }
  /** The outcome of a probe; undefined: it is not known. */
  | { kind: 'probed'; what: Probe; yes: boolean | undefined }
  | { kind: 'wait'; name: Wait };

export type SessionEffect =
  /** On one connection, in order. */
  | (Exclude<Effect, { do: 'gone' }> & { way: Way })
  /** Begin with a key frame: an encoder may go on where it stopped, which the other side need not have. */
  | { do: 'refresh'; way: Way }
  /** All others at once. Tell the app. */
  | { way?: undefined; do: 'report'; state: PeerStateEvent['state']; reason: Reason | '' }
  /** Show what is received from the connection that it is to be shown from now: see showsBackup. */
  | { way?: undefined; do: 'show' }
  /** Close the backup. */
  | { way?: undefined; do: 'drop' }
  /** See Probe. */
  | { way?: undefined; do: 'probe'; what: Probe }
  /** Null: no more. */
  | { way?: undefined; do: 'wait'; name: Wait; ms: number | null };

export function initialSession(me: string, peer: string, seed: number): Session {
  return {
    primary: initial(me, peer, seed), backup: null,
    onBackup: false, primaryPaused: false, preparing: false, responding: false, believed: false, direct: false, peerOffline: false,
    attempts: 0, restartedAt: -Infinity, replacedAt: -Infinity, replacements: 0, refusals: 0, reviewAt: Infinity,
  };
}

/** One event being worked on: the session that follows, and the effects so far. */
type Draft = { -readonly [K in keyof Session]: Session[K] } & Facts & { out: SessionEffect[] };

export function stepSession(session: Session, event: SessionEvent, facts: Facts): [Session, SessionEffect[]] {
  const draft: Draft = { ...session, ...facts, out: [] };
  take(draft, event);
  for (const way of WAYS) if (isReady(draft[way]) && !isReady(session[way])) usable(draft, way);
  const { out, now, seed, standby, ...next } = draft;
  return [next, out];
}

/** It takes media at once. */
export const isReady = (t: State | null): boolean => t !== null && t.link === 'connected' && t.channelOpen && t.hasTracks && !t.dead;

/** What is received is shown from the backup while it carries, or nothing does: what came over one that is dead has ended. */
export const showsBackup = (session: Session): boolean => session.primary.dead || isReady(session.backup);

/** The connection that a signal is for. */
export const wayOf = (signal: Signal, by: Way | null): Way =>
  negotiates(signal) ? (signal.link ? 'backup' : 'primary') : by ?? 'primary';

/** The app knows of this connection: it is not only kept ready. */
export const isVisible = (state: State | null): boolean => state !== null && state.open && (!state.warm || state.used);

/** The app is told this report: asked when it is performed, since it may have waited in the queue of a connection. */
export const isHeard = (session: Session, report: SessionEffect): boolean => !report.way || !session.onBackup;

function take(d: Draft, e: SessionEvent): void {
  switch (e.kind) {
    case 'transport':
      at(d, e.way, e.event);
      return e.event.kind === 'heartbeat' ? (e.event.answered ? revived : died)(d, e.way) : undefined;
    case 'unpublish': case 'giveUp': case 'warm': return at(d, 'primary', e);
    case 'kinds': case 'refuse': return both(d, e);
    case 'publish':
      at(d, 'primary', e);
      return d.onBackup ? at(d, 'backup', e) : undefined;
    case 'received': return route(d, e.signal, e.by);
    case 'network': return both(d, { kind: 'regather' });
    case 'room': return reviewSoon(d);
    case 'probed':
      if (e.what === 'died') return void (d.direct ||= e.yes === false);
      if (e.what === 'path') return e.yes && !d.primary.dead ? lookForDirect(d) : undefined;
      if (e.what === 'server') return e.yes && replaceable(d) ? replace(d) : undefined;
      d.preparing = false;
      return e.yes && d.standby && !d.backup ? make(d) : undefined;
    case 'firstResponse': return responded(d);
    case 'offline':
      if (isReady(d.primary)) at(d, 'backup', { kind: 'resumed' });
      return isReady(d.primary) || isReady(d.backup) ? at(d, 'primary', { kind: 'resumed' }) : undefined;
    case 'resumed':
      both(d, { kind: 'resumed' });
      // The server may have been all that was missing: back-off begins again.
      if (!d.primary.dead) return;
      d.attempts = 0;
      return recover(d);
    case 'wait':
      if (e.name === 'failback') return failBack(d);
      if (e.name === 'review') return reviewBackup(d);
      if (d.primary.dead) return recover(d);
      d.out.push({ do: 'probe', what: 'path' });
  }
}

/** One of them takes media from now on. */
function usable(d: Draft, way: Way): void {
  d.out.push({ do: 'show' });
  if (way === 'primary') return;
  d.refusals = 0;
  if (d.primary.dead) failOver(d);
}

function both(d: Draft, event: Event): void {
  for (const way of WAYS) at(d, way, event);
}

function at(d: Draft, way: Way, event: Event): void {
  const was = d[way];
  if (!was) return;
  const [now, effects] = step(was, event);
  (d as Record<Way, State | null>)[way] = now;
  const primary = way === 'primary';
  let gone: Reason | undefined;
  for (const effect of effects) {
    if (effect.do === 'gone') gone = effect.reason;
    // What the app hears of is the primary connection, while that is the one in use: see isHeard.
    else if (primary || !['report', 'subscribed', 'settle'].includes(effect.do)) d.out.push({ ...effect, way });
    if (!primary) continue;
    if (effect.do === 'offer' || effect.do === 'accept') d.restartedAt = d.now;
    if (effect.do === 'dropStream') reviewSoon(d);
    if (effect.do === 'subscribed' || (effect.do === 'settle' && effect.ok)) prepare(d);
  }
  if (primary) {
    for (const type of TYPES) {
      if (!was.local[type].on || now.local[type].on) continue;
      at(d, 'backup', { kind: 'unpublish', type });
      reviewSoon(d);
    }
  } else if (gone === 'no-answer') {
    // Nobody there takes it. What changes the room, or what is sent, has it tried again at once.
    drop(d);
    reviewSoon(d, Math.min(Failover.refusedRetryMost, Failover.refusedRetry * 2 ** d.refusals++));
  } else if (gone) {
    if (d.onBackup) failBack(d);
  } else if (event.kind === 'channel' && !event.open && was.open && was.gen === event.gen) {
    // As a rule the other side has closed it.
    if (d.primary.creator && used(d) && d.standby) renew(d);
    else drop(d);
  }
}

function route(d: Draft, signal: Signal, by: Way | null): void {
  const way = wayOf(signal, by);
  const negotiation = negotiates(signal);
  if (negotiation || !by) d.peerOffline = by !== null;
  if (way === 'backup' && !d.backup) {
    if (!d.standby || !(used(d) || !d.primary.creator)) return;
    make(d);
  }
  at(d, way, { kind: 'signal', signal, byChannel: !negotiation && by !== null });
}

/** Something is sent, or shown. */
function used(d: Draft): boolean {
  return TYPES.some((type) => d.primary.local[type].on || d.primary.remote[type].shown);
}

/** Makes the backup once media flows on the primary connection. The same side makes both. */
function prepare(d: Draft): void {
  if (d.backup || d.preparing || !d.primary.creator || !d.standby) return;
  d.preparing = true;
  d.out.push({ do: 'probe', what: 'relay' });
}

function make(d: Draft): void {
  const { me, peer } = d.primary;
  d.backup = initial(me, peer, d.seed);
  at(d, 'backup', { kind: 'warm' });
  // What it is made for may be over.
  reviewSoon(d);
}

function drop(d: Draft): void {
  d.out.push({ do: 'drop' });
  d.backup = null;
  wait(d, 'failback', null);
  leaveBackup(d);
  d.out.push({ do: 'show' });
}

/** Another connection in place of a backup that stood. */
function renew(d: Draft): void {
  const { backup } = d;
  if (backup?.everConnected) at(d, 'backup', { kind: 'lost', gen: backup.gen });
}

function reviewSoon(d: Draft, ms: number = Failover.settle): void {
  const at = d.now + ms;
  // Unless it is sooner.
  if (d.reviewAt <= at) return;
  d.reviewAt = at;
  wait(d, 'review', ms);
}

function reviewBackup(d: Draft): void {
  d.reviewAt = Infinity;
  if (used(d) && d.standby) return prepare(d);
  // Whether there is a use for it is for the side to judge that makes it: the other one may not have heard yet.
  if (!d.backup || (d.standby && !d.primary.creator)) return;
  const carries = isReady(d.backup) && TYPES.some((type) => d.backup!.remote[type].shown);
  if ((used(d) && (d.onBackup || d.primary.dead)) || carries) reviewSoon(d);
  else drop(d);
}

function died(d: Draft, way: Way): void {
  if (way === 'backup') {
    at(d, 'primary', { kind: 'route', elsewhere: false });
    d.out.push({ do: 'show' });
    if (replaceable(d)) d.out.push({ do: 'probe', what: 'server' });
    return;
  }
  wait(d, 'failback', null);
  d.believed = false;
  d.replacements = d.attempts = 0;
  d.out.push({ do: 'probe', what: 'server' }, { do: 'probe', what: 'died' });
  recover(d);
}

/** Media does not wait for the proof that all is well, which may take three seconds; what goes over the backup goes on until then. */
function responded(d: Draft): void {
  if (d.responding) return;
  d.responding = true;
  resume(d);
  // Once: a connection whose first response meant nothing is believed when it is alive.
  if (!d.believed) report(d, 'connected', '');
  d.believed = true;
  wait(d, 'retry', Failover.sign);
}

/** Again and again until it is alive. */
function recover(d: Draft): void {
  d.responding = false;
  report(d, 'recovering', 'path-dead');
  if (d.onBackup) pause(d, true);
  else failOver(d);
  // Unless the other side has been first.
  if (d.now - d.restartedAt > Heartbeat.limit) at(d, 'primary', { kind: 'regather' });
  if (replaceable(d)) d.out.push({ do: 'probe', what: 'server' });
  wait(d, 'retry', Math.min(Failover.retryMost, Failover.retry * 2 ** d.attempts++));
}

/** Nothing passes on either connection, and the backup was not replaced just now. */
function replaceable(d: Draft): boolean {
  const { primary, backup, replacedAt, replacements } = d;
  const pause = Math.min(Failover.replaceMost, Failover.replace * 2 ** (replacements - 1));
  return primary.dead && backup !== null && backup.dead && d.now - replacedAt >= pause;
}

/**
 * The server answers: what has broken is not this side's network, which would bring both connections back with it. ICE of a connection
 * that stood takes seconds to try anything else in earnest; that of another one does so at once.
 */
function replace(d: Draft): void {
  d.replacedAt = d.now;
  d.replacements++;
  renew(d);
}

function failOver(d: Draft): void {
  if (!isReady(d.backup)) return;
  d.onBackup = true;
  at(d, 'primary', { kind: 'route', elsewhere: true });
  for (const type of TYPES) {
    const { on, audio, video } = d.primary.local[type];
    if (on) at(d, 'backup', { kind: 'publish', type, audio, video });
  }
  d.out.push({ do: 'refresh', way: 'backup' });
  pause(d, true);
}

function revived(d: Draft, way: Way): void {
  if (way === 'backup') return;
  d.attempts = 0;
  d.out.push({ do: 'show' });
  probeDirect(d);
  resume(d);
  report(d, 'connected', '');
  if (d.onBackup) wait(d, 'failback', Failover.overlap);
}

/** What is alive again over the relay need not stay there: a direct path is looked for behind it, by one side, as long as there was one. */
function probeDirect(d: Draft): void {
  const asks = d.primary.creator && d.direct;
  wait(d, 'retry', asks ? Math.min(Failover.directRetryMost, Failover.directRetry * 2 ** d.attempts++) : null);
}

function lookForDirect(d: Draft): void {
  at(d, 'primary', { kind: 'regather' });
  probeDirect(d);
}

/** Sends on the primary connection again all that is published there. */
function resume(d: Draft): void {
  pause(d, false);
  d.out.push({ do: 'refresh', way: 'primary' });
}

function pause(d: Draft, on: boolean): void {
  if (d.primaryPaused === on) return;
  d.primaryPaused = on;
  for (const type of TYPES) d.out.push({ do: 'attach', type, way: 'primary' });
}

/** At once. Unless the app does not see the connection in use. */
function report(d: Draft, state: PeerStateEvent['state'], reason: Reason | ''): void {
  const { primary, backup, onBackup } = d;
  if ((onBackup && isVisible(backup)) || isVisible(primary)) d.out.push({ do: 'report', state, reason });
}

function failBack(d: Draft): void {
  leaveBackup(d);
  for (const type of TYPES) at(d, 'backup', { kind: 'unpublish', type });
  // The other side is to hear of it before a connection that is not wanted any more is closed.
  d.reviewAt = Infinity;
  reviewSoon(d);
}

function leaveBackup(d: Draft): void {
  d.onBackup = false;
  at(d, 'primary', { kind: 'route', elsewhere: false });
  pause(d, false);
}

function wait(d: Draft, name: Wait, ms: number | null): void {
  d.out.push({ do: 'wait', name, ms });
}

