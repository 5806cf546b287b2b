import { deferred, type Deferred } from '../deferred';
import { failure } from '../errors';
import type { OpenTransport } from './fallback';
import {
  parse,
  MAX_MESSAGE,
  type Answer,
  type Incoming,
  type Json,
  type Request,
} from './messages';

/** The part of WebSocket that is used; tests replace it. */
export interface WebSocketLike {
  onopen: ((event: any) => void) | null;
  onmessage: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  send(text: string): void;
  close(code?: number, reason?: string): void;
}

/** Result of a handshake: go on, try again later, or give up for good. */
export type Verdict = 'up' | 'retry' | 'stop';
export type Ask = (message: Request) => Promise<Answer>;

export interface Hooks {
  /**
   * The handshake continues a session. A full server has a place for it, but must be told on
   * opening.
   */
  resumes(): boolean;
  /** A call is interrupted until the server is back. */
  urgent(): boolean;
  /**
   * Registers or resumes on a new socket. A request that it makes at once is sent as the early
   * message. Requests of the app wait until the verdict is `up`.
   */
  handshake(ask: Ask): Promise<Verdict>;
  message(incoming: Incoming): void;
  /** The session goes on: waiting messages have been sent. */
  up(): void;
  /** The socket is gone; the connection reconnects by itself. */
  down(): void;
  /** The server closed with a final code. */
  ended(code: number): void;
}

/** Milliseconds. An enum, so that the build puts the numbers where they are used. */
export enum Timing {
  /** A request of the app. */
  request = 10_000,
  /** Opening a socket, and each answer of a handshake on it. */
  open = 5_000,
  /** Silence after a request: the socket is dead. */
  silenceLimit = 5_000,
  /** Silence after which a keepAlive is sent. */
  idleLimit = 10_000,
  /** Silence after a probe in doubt, in addition to two round trips; and the most in all. */
  probe = 500,
  probeMost = 1_000,
  /**
   * Back-off: first step, and caps: during interrupted calls, otherwise, and when the server is
   * away for longer than a restart. More attempts would be slower: after some thirty failures
   * within minutes Chromium delays the next socket of a page by 1 to 5 s, and halves that for each
   * two failures fewer.
   */
  step = 250,
  capUrgent = 1_250,
  cap = 2_000,
  capLater = 10_000,
  /** How long a restart of the server takes, and how long interrupted calls hurry. */
  soon = 60_000,
  hurry = 30_000,
  /** After the server closed for policy (1008). */
  policy = 30_000,
  /** How long a WebSocket may still take to open when a plain request was answered. */
  grace = 1_000,
}

/** Requests and messages that may wait for the socket. */
const WAITING = 256;

/** The subprotocol, and the prefix of one that is never selected: it contains the early message. */
const PROTOCOL = 'ieum';
const EARLY_PREFIX = 'ieum.hello.';
/** Longest such name: proxies accept headers of 8 KiB. */
const MAX_EARLY = 6 << 10;

/** base64url, which is allowed in names of subprotocols. */
const encoded = (text: string): string =>
  btoa(Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join(''))
    .replace(/\+/g, '-')
    .replace(/\//g, '_')
    .replace(/=+$/, '');

/** Close code of the polling transport when a WebSocket opens again. */
export const WEBSOCKET_OPENS = 4010;

/** Close codes without a reconnect: replaced (4001, 4002), license expired (4003). */
const FINAL = [4001, 4002, 4003];

interface Pending extends Deferred<Answer> {
  message: Request;
  /** When it was sent on the present socket; 0: it waits for one. */
  sent: number;
}

/** Bytes on the wire: at most three for each UTF-16 unit. */
const size = (text: string): number =>
  text.length * 3 <= MAX_MESSAGE ? text.length : new TextEncoder().encode(text).length;

type Timer = ReturnType<typeof setTimeout> | undefined;

/**
 * One logical connection to the server over any number of sockets. Owns the socket, the requests by
 * reqId and every timer; nothing runs after stop().
 */
export class Connection {
  private socket: WebSocketLike | null = null;
  private isOpen = false;
  /** The request that the handshake made before the socket was open. */
  private early = '';
  /** Whether an early message is answered; undefined: not known from the last attempt. */
  private earlyWorks: boolean | undefined;
  /** The last attempt sent an early message. */
  private sentEarly = false;
  private state: 'stopped' | 'waiting' | 'opening' | 'up' = 'stopped';
  private readonly pending = new Map<string, Pending>();
  /** Messages to send once the session is up, in order. */
  private unsent: Request[] = [];
  private asked = new Map<string, (answer: Answer) => void>();
  private lastId = 0;
  private attempts = 0;
  /**
   * WebSockets in a row that brought no message, including the present one; a timeout counts twice.
   */
  private misses = 0;
  /** Opens the next socket in place of a WebSocket. */
  private openFallback: OpenTransport | null = null;
  /** The present socket polls. */
  private polls = false;
  private probing = false;
  /** HTTP status that refused the last attempt to poll. */
  status: number | undefined;
  private upSince = 0;
  private lostSince = 0;
  /** Milliseconds of the shortest round trip on this socket. */
  private rtt = Infinity;
  private retryTimer: Timer;
  /** Until the socket is open, and again until its first answer. */
  private openTimer: Timer;
  private silenceTimer: Timer;
  private silenceDue = 0;
  private idleTimer: Timer;

  constructor(
    private readonly url: string,
    private readonly hooks: Hooks,
    private readonly create: (url: string, protocols?: string[]) => WebSocketLike = (
      u,
      protocols,
    ) => new WebSocket(u, protocols),
    /** Finds another transport when no WebSocket opens; null when the server is unreachable. */
    private readonly fallback: () => Promise<OpenTransport | null> = async () => null,
  ) {}

  get up(): boolean {
    return this.state === 'up';
  }

  start(): void {
    if (this.state !== 'stopped') return;
    this.attempts = 0;
    this.connect();
  }

  /** Closes the socket with `closeCode`, and settles waiting requests with code 410. */
  stop(closeCode = 1000): void {
    this.state = 'stopped';
    clearTimeout(this.retryTimer);
    this.detach(closeCode);
    this.unsent = [];
    for (const id of [...this.pending.keys()]) this.settle(id, { eventOp: '', ...failure('410') });
  }

  /**
   * Sends a request. Resolves with its answer, or code 504 after `limit` milliseconds. Never
   * rejects.
   */
  request(message: Request, limit: number = Timing.request): Promise<Answer> {
    const { eventOp } = message;
    if (this.state === 'stopped') return Promise.resolve({ eventOp, ...failure('410') });
    if (this.pending.size >= WAITING) return Promise.resolve({ eventOp, ...failure('429') });
    const reqId = `${++this.lastId}`;
    const full = { ...message, reqId };
    if (size(JSON.stringify(full)) > MAX_MESSAGE) {
      return Promise.resolve({ eventOp, ...failure('445', 'The message is over 64 KiB.') });
    }
    const answer = deferred<Answer>(limit, () =>
      this.settle(reqId, { eventOp, ...failure('504') }),
    );
    this.pending.set(reqId, { message: full, sent: 0, ...answer });
    this.post(full);
    return answer.outcome;
  }

  /** Sends without an answer; waits for the socket. */
  send(message: Request): void {
    if (this.state !== 'stopped') this.post(message);
  }

  /** Sends at once, unchanged. False when the socket is away. */
  emit(message: unknown): boolean {
    if (this.state !== 'up') return false;
    this.write(message as Json);
    return true;
  }

  /** Settles waiting requests without the server, where `answer` knows their outcome. */
  answerWaiting(answer: (message: Request) => Answer | undefined): void {
    for (const [id, { message }] of [...this.pending]) {
      const known = answer(message);
      if (known) this.settle(id, known);
    }
  }

  /** Drops messages to other users: the new session does not know them. */
  dropRelayed(): void {
    this.unsent = this.unsent.filter((m) => m.target === undefined);
    this.answerWaiting((m) =>
      m.target === undefined ? undefined : { eventOp: m.eventOp, ...failure('410') },
    );
  }

  /** The network or timers may work again: tries at once. */
  wake(): void {
    if (this.state === 'waiting') {
      clearTimeout(this.retryTimer);
      this.connect();
    } else if (this.state === 'up') {
      this.keepAlive();
    }
  }

  /**
   * The network may be broken: sends a probe with a short limit. Resolves with whether this socket
   * has answered.
   */
  async probeServer(): Promise<boolean> {
    if (this.state !== 'up') {
      this.wake();
      return false;
    }
    const answer = this.request({ eventOp: 'keepAlive' });
    this.expect(Math.min(Timing.probeMost, Timing.probe + 2 * this.rtt));
    return (await answer).code === '200';
  }

  /**
   * The device changed its network: the old socket is or will be dead, and a new one is as fast as
   * finding out.
   */
  renew(): void {
    if (this.state === 'stopped') return;
    this.attempts = this.misses = 0;
    this.openFallback = null;
    if (this.state === 'waiting') this.wake();
    else this.abandon();
  }

  private connect(): void {
    this.state = 'opening';
    this.rtt = Infinity;
    this.early = '';
    const verdict = this.hooks.handshake((message) => this.ask(message));
    const name = this.early && EARLY_PREFIX + encoded(this.early);
    // A proxy may refuse the header, or the server may be older: every other attempt goes without
    // it until one succeeds.
    this.polls = this.openFallback !== null;
    this.sentEarly =
      !this.polls
      && name !== ''
      && name.length <= MAX_EARLY
      && (this.earlyWorks ?? !this.sentEarly);
    if (!this.polls) this.misses++;
    let socket: WebSocketLike;
    try {
      const resumes = this.hooks.resumes();
      const url = resumes ? `${this.url}?resume` : this.url;
      if (this.openFallback) socket = this.openFallback(resumes);
      else socket = this.sentEarly ? this.create(url, [PROTOCOL, name]) : this.create(url);
    } catch {
      return this.lost(0);
    }
    this.socket = socket;
    this.openTimer = setTimeout(() => this.expire(), Timing.open);
    socket.onopen = () => {
      clearTimeout(this.openTimer);
      this.openTimer = setTimeout(() => this.expire(), Timing.open);
      this.isOpen = true;
      if (!this.sentEarly && this.early) socket.send(this.early);
    };
    void this.shake(socket, verdict);
    socket.onmessage = (event: { data: unknown }) => this.receive(event.data);
    socket.onclose = (event: { code: number; status?: number }) => {
      if (this.polls) this.status = event.status;
      this.lost(event.code);
    };
  }

  /** The socket did not open, or brought no answer, in time. */
  private expire(): void {
    this.misses++;
    this.abandon();
  }

  /**
   * No WebSocket seems to get through, but a proxy may let plain requests pass. While the server is
   * away they fail as well.
   */
  private async probe(): Promise<void> {
    if (this.probing) return;
    this.probing = true;
    const open = await this.fallback();
    this.probing = false;
    if (!open || this.isOpen || this.state === 'stopped' || this.misses < 2) return;
    this.openFallback = open;
    if (this.state === 'waiting') return this.wake();
    // The server may have come back just now, with the WebSocket about to open.
    clearTimeout(this.openTimer);
    this.openTimer = setTimeout(() => this.abandon(), Timing.grace);
  }

  private async shake(socket: WebSocketLike, handshake: Promise<Verdict>): Promise<void> {
    let verdict: Verdict;
    try {
      verdict = await handshake;
    } catch (error) {
      console.error(error);
      verdict = 'retry';
    }
    if (socket !== this.socket) return;
    clearTimeout(this.openTimer);
    if (verdict === 'stop') return this.stop();
    if (verdict === 'retry') return this.abandon();
    this.state = 'up';
    if (!this.polls) {
      this.earlyWorks = this.sentEarly;
      this.openFallback = null;
    }
    this.upSince = Date.now();
    const unsent = this.unsent;
    this.unsent = [];
    for (const message of unsent) this.post(message);
    this.hooks.up();
  }

  /** A request of the handshake itself, bypassing the queue. */
  private ask(message: Request): Promise<Answer> {
    const reqId = `${++this.lastId}`;
    const limit = this.isOpen ? Timing.open : 2 * Timing.open;
    const { outcome, settle } = deferred<Answer>(limit, () =>
      done({ eventOp: message.eventOp, ...failure('504') }),
    );
    const done = (answer: Answer) => {
      clearTimeout(this.openTimer);
      this.asked.delete(reqId);
      settle(answer);
    };
    this.asked.set(reqId, done);
    if (this.isOpen) this.write({ ...message, reqId });
    else this.early = JSON.stringify({ ...message, reqId });
    return outcome;
  }

  private post(message: Request): void {
    const entry = this.pending.get(`${message.reqId}`);
    if (this.state === 'up') {
      if (entry) entry.sent = Date.now();
      this.write(message);
      if (entry) this.expect(Timing.silenceLimit);
      return;
    }
    this.unsent.push(message);
    // Only messages without an answer can overflow it; peer sessions repeat the oldest.
    if (this.unsent.length > 2 * WAITING) this.unsent.shift();
  }

  private write(message: Json): void {
    try {
      const text = JSON.stringify(message);
      if (size(text) > MAX_MESSAGE) {
        console.warn(`Ieum: a message of ${size(text)} bytes was not sent; the limit is 64 KiB.`);
      } else this.socket?.send(text);
    } catch (error) {
      console.warn('Ieum: a message could not be sent.', error);
    }
  }

  private receive(data: unknown): void {
    this.misses = 0;
    const incoming = parse(data);
    const id = incoming?.kind === 'answer' ? `${incoming.message.reqId}` : '';
    const asked = this.asked.get(id);
    // First, so that the new limit is for the requests still waiting.
    if (incoming?.kind === 'answer' && !asked) {
      const sent = this.pending.get(id)?.sent;
      if (sent) this.rtt = Math.min(this.rtt, Date.now() - sent);
      this.settle(id, incoming.message);
    }
    this.heard();
    if (incoming?.kind === 'answer' && asked) asked(incoming.message);
    else if (incoming) this.hooks.message(incoming);
  }

  private settle(id: string, answer: Answer): void {
    const entry = this.pending.get(id);
    if (!entry) return;
    this.pending.delete(id);
    // A request that timed out must not be sent later: the app was told that it failed.
    this.unsent = this.unsent.filter((m) => m !== entry.message);
    entry.settle(answer);
  }

  /** A message arrived: the socket is alive, and waiting requests get a new limit. */
  private heard(): void {
    clearTimeout(this.silenceTimer);
    this.silenceTimer = undefined;
    for (const { sent } of this.pending.values()) {
      if (!sent) continue;
      this.expect(Timing.silenceLimit);
      break;
    }
    clearTimeout(this.idleTimer);
    this.idleTimer = setTimeout(() => this.keepAlive(), Timing.idleLimit);
  }

  private keepAlive(): void {
    if (this.state === 'up') void this.request({ eventOp: 'keepAlive' });
  }

  /** Sets the limit after which a silent socket counts as dead, unless an earlier one is set. */
  private expect(limit: number): void {
    const due = Date.now() + limit;
    if (this.silenceTimer && this.silenceDue <= due) return;
    clearTimeout(this.silenceTimer);
    this.silenceDue = due;
    this.silenceTimer = setTimeout(() => {
      this.silenceTimer = undefined;
      // Far too late: the device slept or the page was frozen, and the answer may be unread. Waits
      // once more.
      if (Date.now() - due > 1_000) {
        this.expect(limit === Timing.silenceLimit ? 2_000 : Timing.silenceLimit);
      } else this.abandon();
    }, limit);
  }

  /** Replaces this socket. 4xxx tells the server that the session goes on. */
  private abandon(): void {
    this.detach(4000);
    this.lost(4000);
  }

  private detach(code: number): void {
    for (const timer of [this.openTimer, this.silenceTimer, this.idleTimer]) clearTimeout(timer);
    this.silenceTimer = undefined;
    const socket = this.socket;
    this.socket = null;
    this.isOpen = false;
    for (const done of [...this.asked.values()]) done({ eventOp: 'register', ...failure('504') });
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    try {
      socket.close(code);
    } catch {
      // Not open yet, or closed already.
    }
  }

  private lost(code: number): void {
    const wasUp = this.state === 'up';
    if (!wasUp) this.earlyWorks = undefined;
    if (this.polls && (!wasUp || code === WEBSOCKET_OPENS)) this.openFallback = null;
    this.detach(1000);
    if (wasUp && Date.now() - this.upSince > Timing.capLater) this.attempts = 0;
    this.state = 'waiting';
    // Unanswered requests are sent again after the resume, before newer ones. Not those to other
    // users: they may have arrived, and must not arrive after newer ones. A peer session repeats
    // what still holds.
    const again: Request[] = [];
    for (const [id, entry] of [...this.pending]) {
      if (!entry.sent) continue;
      entry.sent = 0;
      const { message } = entry;
      if (message.target !== undefined) {
        this.settle(id, { eventOp: message.eventOp, ...failure('504') });
      } else if (message.eventOp !== 'keepAlive') again.push(message);
    }
    this.unsent = [...again, ...this.unsent];
    if (wasUp) this.hooks.down();
    // The app may have ended the session when it heard of it.
    if (this.state !== 'waiting') return;
    if (FINAL.includes(code)) {
      this.stop();
      return this.hooks.ended(code);
    }
    if (wasUp || !this.attempts) this.lostSince = Date.now();
    const away = Date.now() - this.lostSince;
    const cap =
      away > Timing.soon
        ? Timing.capLater
        : away <= Timing.hurry && this.hooks.urgent()
          ? Timing.capUrgent
          : Timing.cap;
    const step =
      this.attempts && (this.polls || !this.openFallback)
        ? Math.min(cap, Timing.step * 2 ** (this.attempts - 1))
        : 0;
    const base = code === 1008 ? Timing.policy : step;
    this.attempts++;
    // Half of it is random, so that clients of a restarted server do not reconnect together.
    this.retryTimer = setTimeout(() => this.connect(), base * (0.5 + Math.random() / 2));
    if (!wasUp && !this.polls && !this.openFallback && this.misses > 1) void this.probe();
  }
}
