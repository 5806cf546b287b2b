/**
 * The peer session as a pure function: stepSession(session, event, facts) → [session, effects]. It
 * owns both connections, each a machine of its own (machine.ts): the primary one, and a backup over
 * the relay, ready and empty.
 *
 * When the primary path is dead, publications are sent on the backup, which takes a replaceTrack
 * and one message. The primary connection is recovered meanwhile and takes the media back. Each
 * side decides for what it sends. Received media is shown from the backup while something is
 * published there.
 */
import type { PeerStateEvent } from '../../types/knowledgetalk';
import type { Reason } from '../errors';
import { negotiates, type Signal } from '../signaling/messages';
import { TYPES } from './layout';
import { Heartbeat } from './liveness';
import { initial, step, type Effect, type Event, type State } from './machine';

export type Role = 'primary' | 'backup';
export const ROLES: readonly Role[] = ['primary', 'backup'];

/** Milliseconds. An enum, so that the build puts the numbers where they are used. */
export enum Failover {
  /**
   * Between attempts to recover the primary connection: first wait, doubled each time, and the
   * longest. Chromium checks new candidates in earnest only when the selected pair has been silent
   * for 2.5 s.
   */
  retry = 3_500,
  retryMost = 16_000,
  /**
   * After a first response on the primary connection: its heartbeats may be answered this much
   * later.
   */
  sign = 4_000,
  /** For a connection that was direct and is relayed now. */
  directRetry = 2_000,
  directRetryMost = 60_000,
  /**
   * Both connections send for this long before the backup stops, so that the video of the primary
   * is there in time.
   */
  overlap = 700,
  /**
   * Between replacements of the backup: first wait, doubled each time while the primary stays dead,
   * and the longest.
   */
  replace = 3_000,
  replaceMost = 24_000,
  /**
   * Until a backup without an answer is tried again, doubled each time, and the longest: the other
   * side may not want one.
   */
  refusedRetry = 60_000,
  refusedRetryMost = 960_000,
  /**
   * From a change of the room, or of the connection in use, until a backup is made or closed: the
   * other side knows by then.
   */
  settle = 2_000,
}

export interface Session {
  readonly primary: State;
  readonly backup: State | null;
  /** We send over the backup. */
  readonly onBackup: boolean;
  /** Nothing is sent on the primary connection although it is published there. */
  readonly primaryPaused: boolean;
  /** A probe for a relay is under way. */
  readonly preparing: boolean;
  /** The primary connection, dead, has had a response: since it was last recovered, and at all. */
  readonly responding: boolean;
  readonly believed: boolean;
  /** The primary connection was direct when it died. */
  readonly direct: boolean;
  /** The last negotiation came over a data channel: the other side may not reach the server. */
  readonly peerOffline: boolean;
  /** Attempts in a row: to recover the primary connection, or to have it direct again. */
  readonly attempts: number;
  /** When the primary connection last restarted ICE, from either side. */
  readonly restartedAt: number;
  /** When the backup was last replaced, and how often since the primary connection died. */
  readonly replacedAt: number;
  readonly replacements: number;
  /** Backups in a row without an answer. */
  readonly refusals: number;
  /** When the need for a backup is reviewed next. */
  readonly reviewAt: number;
}

/** Facts at the time of an event. `seed`: see initial(). */
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
  /** An event of one connection. */
  | { kind: 'transport'; role: Role; event: Event }
  /** A call of the app, for either connection. */
  | Extract<Event, { kind: 'publish' | 'kinds' | 'unpublish' | 'giveUp' | 'refuse' | 'warm' }>
  /** Over the data channel of a connection, or the server (null). */
  | { kind: 'received'; signal: Signal; by: Role | null }
  /** ICE got a response on the dead primary connection. */
  | { kind: 'firstResponse' }
  /**
   * The device changed its network: old candidates may still work, but ICE restarts at once for
   * better ones.
   */
  | { kind: 'network' }
  /** The server is gone: negotiation goes over data channels. And: the session is resumed. */
  | { kind: 'offline' | 'resumed' }
  /** The members of the room changed. */
  | { kind: 'room' }
  /** The outcome of a probe; undefined: unknown. */
  | { kind: 'probed'; what: Probe; yes: boolean | undefined }
  | { kind: 'wait'; name: Wait };

export type SessionEffect =
  /** On one connection, in order. */
  | (Exclude<Effect, { do: 'gone' }> & { role: Role })
  /** Send a key frame: the other side may not have the frames that an encoder builds on. */
  | { do: 'refresh'; role: Role }
  /** All others are performed at once. Tells the app. */
  | { role?: undefined; do: 'report'; state: PeerStateEvent['state']; reason: Reason | '' }
  /** Show received media from the connection chosen by showsBackup. */
  | { role?: undefined; do: 'show' }
  /** Close the backup. */
  | { role?: undefined; do: 'drop' }
  /** See Probe. */
  | { role?: undefined; do: 'probe'; what: Probe }
  /** Null: cancel. */
  | { role?: undefined; do: 'wait'; name: Wait; ms: number | null };

export function initialSession(me: string, peer: string, seed: number): Session {
  return {
    primary: initial(me, peer, seed),
    backup: null,
    onBackup: false,
    primaryPaused: false,
    preparing: false,
    responding: false,
    believed: false,
    direct: false,
    peerOffline: false,
    attempts: 0,
    restartedAt: -Infinity,
    replacedAt: -Infinity,
    replacements: 0,
    refusals: 0,
    reviewAt: Infinity,
  };
}

/** An event being handled: the next session and the effects so far. */
type Draft = { -readonly [K in keyof Session]: Session[K] } & Facts & { out: SessionEffect[] };

export function stepSession(
  session: Session,
  event: SessionEvent,
  facts: Facts,
): [Session, SessionEffect[]] {
  const draft: Draft = { ...session, ...facts, out: [] };
  take(draft, event);
  for (const role of ROLES) {
    if (isReady(draft[role]) && !isReady(session[role])) usable(draft, role);
  }
  const { out, now, seed, standby, ...next } = draft;
  return [next, out];
}

/** It can send media at once. */
export const isReady = (t: State | null): boolean =>
  t !== null && t.link === 'connected' && t.channelOpen && t.hasTracks && !t.dead;

/**
 * Received media is shown from the backup while that works or neither does: media of a dead
 * connection has ended.
 */
export const showsBackup = (session: Session): boolean =>
  session.primary.dead || isReady(session.backup);

/** The connection that a signal is for. */
export const roleOf = (signal: Signal, by: Role | null): Role =>
  negotiates(signal) ? (signal.link ? 'backup' : 'primary') : by ?? 'primary';

/** The app knows of this connection: it is not only prewarmed. */
export const isVisible = (state: State | null): boolean =>
  state !== null && state.open && (!state.warm || state.used);

/**
 * Whether the app is told this report. Asked when performed, since it may have waited in a queue.
 */
export const isHeard = (session: Session, report: SessionEffect): boolean =>
  !report.role || !session.onBackup;

function take(d: Draft, e: SessionEvent): void {
  switch (e.kind) {
    case 'transport':
      at(d, e.role, e.event);
      return e.event.kind === 'heartbeat'
        ? (e.event.answered ? revived : died)(d, e.role)
        : undefined;
    case 'unpublish':
    case 'giveUp':
    case 'warm':
      return at(d, 'primary', e);
    case 'kinds':
    case 'refuse':
      return both(d, e);
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
      return isReady(d.primary) || isReady(d.backup)
        ? at(d, 'primary', { kind: 'resumed' })
        : undefined;
    case 'resumed':
      both(d, { kind: 'resumed' });
      // Only the server may have been missing: back-off starts again.
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

/** A connection has become ready. */
function usable(d: Draft, role: Role): void {
  d.out.push({ do: 'show' });
  if (role === 'primary') return;
  d.refusals = 0;
  if (d.primary.dead) failOver(d);
}

function both(d: Draft, event: Event): void {
  for (const role of ROLES) at(d, role, event);
}

function at(d: Draft, role: Role, event: Event): void {
  const was = d[role];
  if (!was) return;
  const [now, effects] = step(was, event);
  (d as Record<Role, State | null>)[role] = now;
  const primary = role === 'primary';
  let gone: Reason | undefined;
  for (const effect of effects) {
    if (effect.do === 'gone') gone = effect.reason;
    // The app hears of the primary connection only, while that is in use: see isHeard.
    else if (primary || !['report', 'subscribed', 'settle'].includes(effect.do)) {
      d.out.push({ ...effect, role });
    }
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
    // Without an answer: a change of the room or of what is sent tries again at once.
    drop(d);
    reviewSoon(d, Math.min(Failover.refusedRetryMost, Failover.refusedRetry * 2 ** d.refusals++));
  } else if (gone) {
    if (d.onBackup) failBack(d);
  } else if (event.kind === 'channel' && !event.open && was.open && was.gen === event.gen) {
    // Usually the other side has closed it.
    if (d.primary.creator && used(d) && d.standby) renew(d);
    else drop(d);
  }
}

function route(d: Draft, signal: Signal, by: Role | null): void {
  const role = roleOf(signal, by);
  const negotiation = negotiates(signal);
  if (negotiation || !by) d.peerOffline = by !== null;
  if (role === 'backup' && !d.backup) {
    if (!d.standby || !(used(d) || !d.primary.creator)) return;
    make(d);
  }
  at(d, role, { kind: 'signal', signal, byChannel: !negotiation && by !== null });
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
  // Its reason may be gone already.
  reviewSoon(d);
}

function drop(d: Draft): void {
  d.out.push({ do: 'drop' });
  d.backup = null;
  wait(d, 'failback', null);
  leaveBackup(d);
  d.out.push({ do: 'show' });
}

/** Replaces a backup that was connected. */
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
  // The creator judges whether it is needed: the other side may not know yet.
  if (!d.backup || (d.standby && !d.primary.creator)) return;
  const carries = isReady(d.backup) && TYPES.some((type) => d.backup!.remote[type].shown);
  if ((used(d) && (d.onBackup || d.primary.dead)) || carries) reviewSoon(d);
  else drop(d);
}

function died(d: Draft, role: Role): void {
  if (role === 'backup') {
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

/**
 * Media returns before heartbeats prove the path, which may take three seconds; the backup sends on
 * until then.
 */
function responded(d: Draft): void {
  if (d.responding) return;
  d.responding = true;
  resume(d);
  // Once: after a first response without effect only heartbeats count.
  if (!d.believed) report(d, 'connected', '');
  d.believed = true;
  wait(d, 'retry', Failover.sign);
}

/** Repeated until it is alive. */
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

/** Both connections are dead, and the backup was not replaced just now. */
function replaceable(d: Draft): boolean {
  const { primary, backup, replacedAt, replacements } = d;
  const pause = Math.min(Failover.replaceMost, Failover.replace * 2 ** (replacements - 1));
  return primary.dead && backup !== null && backup.dead && d.now - replacedAt >= pause;
}

/**
 * The server answers, so the network of this side works: it would restore both connections. ICE of
 * a connection that was up takes seconds to check other pairs in earnest; a new connection does so
 * at once.
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
  d.out.push({ do: 'refresh', role: 'backup' });
  pause(d, true);
}

function revived(d: Draft, role: Role): void {
  if (role === 'backup') return;
  d.attempts = 0;
  d.out.push({ do: 'show' });
  probeDirect(d);
  resume(d);
  report(d, 'connected', '');
  if (d.onBackup) wait(d, 'failback', Failover.overlap);
}

/**
 * A connection restored over the relay looks for a direct path again if it had one; one side does.
 */
function probeDirect(d: Draft): void {
  const asks = d.primary.creator && d.direct;
  wait(
    d,
    'retry',
    asks ? Math.min(Failover.directRetryMost, Failover.directRetry * 2 ** d.attempts++) : null,
  );
}

function lookForDirect(d: Draft): void {
  at(d, 'primary', { kind: 'regather' });
  probeDirect(d);
}

/** Sends all publications on the primary connection again. */
function resume(d: Draft): void {
  pause(d, false);
  d.out.push({ do: 'refresh', role: 'primary' });
}

function pause(d: Draft, on: boolean): void {
  if (d.primaryPaused === on) return;
  d.primaryPaused = on;
  for (const type of TYPES) d.out.push({ do: 'attach', type, role: 'primary' });
}

/** At once, unless the app does not see the connection in use. */
function report(d: Draft, state: PeerStateEvent['state'], reason: Reason | ''): void {
  const { primary, backup, onBackup } = d;
  if ((onBackup && isVisible(backup)) || isVisible(primary)) {
    d.out.push({ do: 'report', state, reason });
  }
}

function failBack(d: Draft): void {
  leaveBackup(d);
  for (const type of TYPES) at(d, 'backup', { kind: 'unpublish', type });
  // The other side is told before a connection that is not needed any more is closed.
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

