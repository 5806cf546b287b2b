import { deferred, type Deferred } from '../deferred';
import { failure } from '../errors';
import type { Carrier } from './fallback';
import { parse, MAX_MESSAGE, type Answer, type Incoming, type Json, type Request } from './messages';

/** The part of a WebSocket that is used, so that tests can stand in for it. */
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
  /** The handshake will go on with a session. A full server has a place for it, but must be told before the socket opens. */
  resumes(): boolean;
  /** A call stands still until the server is back. */
  urgent(): boolean;
  /**
   * Registers or resumes on a fresh socket. What it asks at once goes with the request for the socket. Requests of the app wait until it
   * says 'up'.
   */
  handshake(ask: Ask): Promise<Verdict>;
  message(incoming: Incoming): void;
  /** The session goes on: waiting messages have been sent. */
  up(): void;
  /** The socket is gone; it comes back by itself. */
  down(): void;
  /** The server closed with a code that means: do not come back. */
  ended(code: number): void;
}

/** Milliseconds. An enum, so that the build puts the numbers where they are used. */
export enum Timing {
  /** A request of the app. */
  request = 10_000,
  /** Opening a socket, and each answer of a handshake on it. */
  open = 5_000,
  /** Silence after something was asked: the socket is dead. */
  silenceLimit = 5_000,
  /** Silence after which a keepAlive asks. */
  idleLimit = 10_000,
  /** Silence after a question that was asked because the network is in doubt, beside two round trips; and with them at most. */
  probe = 500,
  probeMost = 1_000,
  /**
   * Back-off: first step, and cap: while calls stand still, otherwise, and when it has been away for longer than a server takes to start anew.
   * Oftener would be later: Chromium holds a page's next socket back by 1 to 5 s once it has seen some thirty of them fail within minutes,
   * and halves that for each two fewer.
   */
  step = 250,
  capUrgent = 1_250,
  cap = 2_000,
  capLater = 10_000,
  /** How long a server may take to start anew, and how long calls that stand still hurry. */
  soon = 60_000,
  hurry = 30_000,
  /** After the server closed for policy (1008). */
  policy = 30_000,
  /** How long a WebSocket may still open when the server has answered a plain request. */
  grace = 1_000,
}

/** Requests and messages that may wait for the socket. */
const WAITING = 256;

/** The subprotocol, and what begins the name of another one that is never agreed on: it carries the first message. */
const PROTOCOL = 'ieum';
const HELLO = 'ieum.hello.';
/** Length of such a name: what stands before servers takes headers of 8 KiB. */
const MAX_HELLO = 6 << 10;

/** base64url, of which names of subprotocols may consist. */
const encoded = (text: string): string =>
  btoa(Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join('')).replace(/\+/g, '-').replace(/\//g, '_').replace(/=+$/, '');

/** With this the file that polls closes: a WebSocket opens again. */
export const BETTER = 4010;

/** Close codes after which this session must not come back: taken over (4001, 4002), license ended (4003). */
const FINAL = [4001, 4002, 4003];

interface Pending extends Deferred<Answer> {
  message: Request;
  /** When it went out on the present socket; 0: it waits for one. */
  sent: number;
}

/** Bytes on the wire; a character has three at most for each unit of its length. */
const size = (text: string): number => (text.length * 3 <= MAX_MESSAGE ? text.length : new TextEncoder().encode(text).length);

type Timer = ReturnType<typeof setTimeout> | undefined;

/**
 * One logical connection to the server over as many sockets as it takes. Owns the socket, the requests by reqId and every timer;
 * after stop() nothing of it runs any more.
 */
export class Connection {
  private socket: WebSocketLike | null = null;
  private isOpen = false;
  /** What the handshake asked before the socket was open. */
  private hello = '';
  /** Whether the first message gets an answer when it goes with the request; undefined: the last attempt has not told. */
  private carries: boolean | undefined;
  /** The last attempt was made that way. */
  private carried = false;
  private state: 'stopped' | 'waiting' | 'opening' | 'up' = 'stopped';
  private readonly pending = new Map<string, Pending>();
  /** What is to be sent once the session is up, in order. */
  private queue: Request[] = [];
  private asked = new Map<string, (answer: Answer) => void>();
  private lastId = 0;
  private attempts = 0;
  /** WebSockets in a row that brought nothing, the present one included; one that let its time run out counts twice. */
  private misses = 0;
  /** Stands in for the next WebSocket. */
  private carrier: Carrier | null = null;
  /** It stands in for the present one. */
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
    private readonly create: (url: string, protocols?: string[]) => WebSocketLike = (u, protocols) => new WebSocket(u, protocols),
    /** Finds another way when no WebSocket opens; null when the server cannot be reached. */
    private readonly fallback: () => Promise<Carrier | null> = async () => null,
  ) {}

  get up(): boolean {
    return this.state === 'up';
  }

  start(): void {
    if (this.state !== 'stopped') return;
    this.attempts = 0;
    this.connect();
  }

  /** Ends it: closes the socket with `code`, answers what waits with `code` 410. */
  stop(closeCode = 1000): void {
    this.state = 'stopped';
    clearTimeout(this.retryTimer);
    this.detach(closeCode);
    this.queue = [];
    for (const id of [...this.pending.keys()]) this.settle(id, { eventOp: '', ...failure('410') });
  }

  /** Asks the server. Resolves with its answer, or with code 504 when none came within `limit` milliseconds. Never rejects. */
  request(message: Request, limit: number = Timing.request): Promise<Answer> {
    const { eventOp } = message;
    if (this.state === 'stopped') return Promise.resolve({ eventOp, ...failure('410') });
    if (this.pending.size >= WAITING) return Promise.resolve({ eventOp, ...failure('429') });
    const reqId = `${++this.lastId}`;
    const full = { ...message, reqId };
    if (size(JSON.stringify(full)) > MAX_MESSAGE) return Promise.resolve({ eventOp, ...failure('445', 'The message is over 64 KiB.') });
    const answer = deferred<Answer>(limit, () => this.settle(reqId, { eventOp, ...failure('504') }));
    this.pending.set(reqId, { message: full, sent: 0, ...answer });
    this.post(full);
    return answer.promise;
  }

  /** Sends without asking for an answer; waits for the socket when it is away. */
  send(message: Request): void {
    if (this.state !== 'stopped') this.post(message);
  }

  /** Sends at once, as it is. False when the socket is away. */
  emit(message: unknown): boolean {
    if (this.state !== 'up') return false;
    this.write(message as Json);
    return true;
  }

  /** Answers waiting requests without the server, as far as `answer` knows what happened to them. */
  answerWaiting(answer: (message: Request) => Answer | undefined): void {
    for (const [id, { message }] of [...this.pending]) {
      const known = answer(message);
      if (known) this.settle(id, known);
    }
  }

  /** Drops what was to be sent to other users: they are not known to the new session. */
  dropRelayed(): void {
    this.queue = this.queue.filter((m) => m.target === undefined);
    this.answerWaiting((m) => (m.target === undefined ? undefined : { eventOp: m.eventOp, ...failure('410') }));
  }

  /** The network or the timers may work again: try at once instead of waiting. */
  wake(): void {
    if (this.state === 'waiting') {
      clearTimeout(this.retryTimer);
      this.connect();
    } else if (this.state === 'up') {
      this.keepAlive();
    }
  }

  /** Something suggests that the network has broken: asks, and waits less long than usual. Resolves with whether this socket has answered. */
  async probeServer(): Promise<boolean> {
    if (this.state !== 'up') {
      this.wake();
      return false;
    }
    const answer = this.request({ eventOp: 'keepAlive' });
    this.expect(Math.min(Timing.probeMost, Timing.probe + 2 * this.rtt));
    return (await answer).code === '200';
  }

  /** The device uses another network: a socket of the old one is dead, or will be, and a new one takes no longer than to find out. */
  renew(): void {
    if (this.state === 'stopped') return;
    this.attempts = this.misses = 0;
    this.carrier = null;
    if (this.state === 'waiting') this.wake();
    else this.abandon();
  }

  private connect(): void {
    this.state = 'opening';
    this.rtt = Infinity;
    this.hello = '';
    const verdict = this.hooks.handshake((message) => this.ask(message));
    const name = this.hello && HELLO + encoded(this.hello);
    // What stands before the server may not let it pass, or the server may be an older one: every other attempt goes without until one succeeds.
    this.polls = this.carrier !== null;
    this.carried = !this.polls && name !== '' && name.length <= MAX_HELLO && (this.carries ?? !this.carried);
    if (!this.polls) this.misses++;
    let socket: WebSocketLike;
    try {
      const resumes = this.hooks.resumes();
      const url = resumes ? `${this.url}?resume` : this.url;
      if (this.carrier) socket = this.carrier(resumes);
      else socket = this.carried ? this.create(url, [PROTOCOL, name]) : this.create(url);
    } catch {
      return this.lost(0);
    }
    this.socket = socket;
    this.openTimer = setTimeout(() => this.expire(), Timing.open);
    socket.onopen = () => {
      clearTimeout(this.openTimer);
      this.openTimer = setTimeout(() => this.expire(), Timing.open);
      this.isOpen = true;
      if (!this.carried && this.hello) socket.send(this.hello);
    };
    void this.shake(socket, verdict);
    socket.onmessage = (event: { data: unknown }) => this.receive(event.data);
    socket.onclose = (event: { code: number; status?: number }) => {
      if (this.polls) this.status = event.status;
      this.lost(event.code);
    };
  }

  /** The time in which the socket had to open, or to bring an answer, is over. */
  private expire(): void {
    this.misses++;
    this.abandon();
  }

  /**
   * No WebSocket gets through, it seems: a company's proxy may let requests through. While the server is away they
   * fail as well.
   */
  private async probe(): Promise<void> {
    if (this.probing) return;
    this.probing = true;
    const carrier = await this.fallback();
    this.probing = false;
    if (!carrier || this.isOpen || this.state === 'stopped' || this.misses < 2) return;
    this.carrier = carrier;
    if (this.state === 'waiting') return this.wake();
    // The server may have come back just now, and the WebSocket be on its way.
    clearTimeout(this.openTimer);
    this.openTimer = setTimeout(() => this.abandon(), Timing.grace);
  }

  private async shake(socket: WebSocketLike, pending: Promise<Verdict>): Promise<void> {
    let verdict: Verdict;
    try {
      verdict = await pending;
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
      this.carries = this.carried;
      this.carrier = null;
    }
    this.upSince = Date.now();
    const queue = this.queue;
    this.queue = [];
    for (const message of queue) this.post(message);
    this.hooks.up();
  }

  /** A request of the handshake itself, past the queue. */
  private ask(message: Request): Promise<Answer> {
    const reqId = `${++this.lastId}`;
    const limit = this.isOpen ? Timing.open : 2 * Timing.open;
    const { promise, settle } = deferred<Answer>(limit, () => done({ eventOp: message.eventOp, ...failure('504') }));
    const done = (answer: Answer) => {
      clearTimeout(this.openTimer);
      this.asked.delete(reqId);
      settle(answer);
    };
    this.asked.set(reqId, done);
    if (this.isOpen) this.write({ ...message, reqId });
    else this.hello = JSON.stringify({ ...message, reqId });
    return promise;
  }

  private post(message: Request): void {
    const pending = this.pending.get(`${message.reqId}`);
    if (this.state === 'up') {
      if (pending) pending.sent = Date.now();
      this.write(message);
      if (pending) this.expect(Timing.silenceLimit);
      return;
    }
    this.queue.push(message);
    // Only messages without an answer can overflow it; the pair's own retries make up for the oldest.
    if (this.queue.length > 2 * WAITING) this.queue.shift();
  }

  private write(message: Json): void {
    try {
      const text = JSON.stringify(message);
      if (size(text) > MAX_MESSAGE) console.warn(`Ieum: a message of ${size(text)} bytes was not sent; the limit is 64 KiB.`);
      else this.socket?.send(text);
    } catch (error) {
      console.warn('Ieum: a message could not be sent.', error);
    }
  }

  private receive(data: unknown): void {
    this.misses = 0;
    const incoming = parse(data);
    const id = incoming?.kind === 'answer' ? `${incoming.message.reqId}` : '';
    const asked = this.asked.get(id);
    // Before the limit for what is still awaited is set: this is not any more.
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
    const pending = this.pending.get(id);
    if (!pending) return;
    this.pending.delete(id);
    // What timed out before the socket came back must not be sent later: the app was told that it failed.
    this.queue = this.queue.filter((m) => m !== pending.message);
    pending.settle(answer);
  }

  /** Something came: the socket lives. What is still awaited gets a new limit. */
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

  /** Arms the limit after which a silent socket counts as dead, unless it does so earlier. */
  private expect(limit: number): void {
    const due = Date.now() + limit;
    if (this.silenceTimer && this.silenceDue <= due) return;
    clearTimeout(this.silenceTimer);
    this.silenceDue = due;
    this.silenceTimer = setTimeout(() => {
      this.silenceTimer = undefined;
      // Far too late: the machine slept or the page was frozen, and the answer may lie unread. Give it one short turn.
      if (Date.now() - due > 1_000) this.expect(limit === Timing.silenceLimit ? 2_000 : Timing.silenceLimit);
      else this.abandon();
    }, limit);
  }

  /** Gives this socket up and takes another. 4xxx tells the server that the session goes on. */
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
    if (!wasUp) this.carries = undefined;
    if (this.polls && (!wasUp || code === BETTER)) this.carrier = null;
    this.detach(1000);
    if (wasUp && Date.now() - this.upSince > Timing.capLater) this.attempts = 0;
    this.state = 'waiting';
    // Unanswered requests go out again after the resume, before anything newer. Not those to other users: they may have arrived, and what
    // was said before must not be heard after what was said since; a pair says again itself what still holds.
    const again: Request[] = [];
    for (const [id, pending] of [...this.pending]) {
      if (!pending.sent) continue;
      pending.sent = 0;
      if (pending.message.target !== undefined) this.settle(id, { eventOp: pending.message.eventOp, ...failure('504') });
      else if (pending.message.eventOp !== 'keepAlive') again.push(pending.message);
    }
    this.queue = [...again, ...this.queue];
    if (wasUp) this.hooks.down();
    if (FINAL.includes(code)) {
      this.stop();
      return this.hooks.ended(code);
    }
    if (wasUp || !this.attempts) this.lostSince = Date.now();
    const away = Date.now() - this.lostSince;
    const cap = away > Timing.soon ? Timing.capLater : away <= Timing.hurry && this.hooks.urgent() ? Timing.capUrgent : Timing.cap;
    const step = this.attempts && (this.polls || !this.carrier) ? Math.min(cap, Timing.step * 2 ** (this.attempts - 1)) : 0;
    const base = code === 1008 ? Timing.policy : step;
    this.attempts++;
    // Half of it at random, so that the clients of a restarted server do not come back as one.
    this.retryTimer = setTimeout(() => this.connect(), base * (0.5 + Math.random() / 2));
    if (!wasUp && !this.polls && !this.carrier && this.misses > 1) void this.probe();
  }
}
