/** Milliseconds. An enum, so that the build puts the numbers where they are used. */
export enum Heartbeat {
  every = 100,
  /**
   * A path without an answer for this long, or three round trips, is dead. Hidden pages have
   * throttled timers and get more.
   */
  limit = 500,
  hidden = 3_000,
  /**
   * A path on which media arrives gets more: a busy page answers late, and sends its video all the
   * same.
   */
  busyLimit = 2_000,
}
/** Heartbeats that wait for an answer. */
const KEPT = 64;
/** Answers in a row after which a dead path is alive. */
const SURE = 5;
/** Factor by which an idle path is watched less often. */
const SLOWER = 10;

export interface LivenessHooks {
  /** Best effort: a heartbeat that cannot go out now is lost. */
  send(text: string): void;
  now(): number;
  hidden(): boolean;
  /** Nothing depends on the path now. */
  idle(): boolean;
  /** What ICE itself knows; null: there is no connection. */
  checks(): Promise<Checks | null>;
  dead(): void;
  /**
   * An ICE check was answered on a dead path; heartbeats follow later. Called again for later
   * answers.
   */
  firstResponse(): void;
  alive(): void;
}

/** Responses to ICE checks by candidate pair, the selected pair, and the bytes received on it. */
export interface Checks {
  selected: string;
  answers: Map<string, number>;
  received: number;
}

/**
 * Whether packets pass both ways, known long before the browser reports it: heartbeats on an
 * unreliable channel, answered as they arrive. Nothing is concluded before the first answer. They
 * use SCTP, whose retransmission timer may back off up to 3 s after a loss: responses to ICE checks
 * come first.
 */
export class Liveness {
  private timer: ReturnType<typeof setInterval> | undefined;
  private readonly sent = new Map<number, number>();
  private number = 0;
  private tickedAt = 0;
  private heardAt = 0;
  private rtt = 0;
  private known = false;
  private isDead = false;
  private answers = 0;
  private otherHidden = false;
  /** The last statistics since the last answer. */
  private seen: Checks | null = null;
  private arrivedAt = -Infinity;
  private complainedAt = 0;
  private looking = false;

  private idle = false;
  private ticks = 0;

  constructor(private readonly hooks: LivenessHooks) {}

  get dead(): boolean {
    return this.isDead;
  }

  /** Silent for half of the limit. */
  get doubtful(): boolean {
    return (
      this.timer !== undefined && this.known && this.hooks.now() - this.heardAt > this.limit() / 2
    );
  }

  /** The channel is open: the first one, or one of a new connection. */
  start(): void {
    this.stop();
    this.known = false;
    this.otherHidden = false;
    this.tickedAt = this.heardAt = this.hooks.now();
    this.timer = setInterval(() => this.tick(), Heartbeat.every);
    this.heartbeat();
    if (!this.isDead) return;
    this.isDead = false;
    this.hooks.alive();
  }

  stop(): void {
    clearInterval(this.timer);
    this.timer = undefined;
    this.sent.clear();
  }

  heard(text: string): void {
    const [what, number, hidden] = text.split(' ');
    const n = Number(number);
    if (this.timer === undefined || !Number.isSafeInteger(n)) return;
    if (what === 'beat') {
      this.otherHidden = hidden === '1';
      this.hooks.send(`echo ${n}`);
    } else if (what === 'echo') {
      const at = this.sent.get(n);
      if (at !== undefined) this.acked(n, at);
    }
  }

  private acked(n: number, at: number): void {
    const now = this.hooks.now();
    for (const key of this.sent.keys()) if (key <= n) this.sent.delete(key);
    this.heardAt = now;
    this.seen = null;
    this.rtt = this.known ? this.rtt * 0.8 + (now - at) * 0.2 : now - at;
    this.known = true;
    if (!this.isDead || ++this.answers < SURE) return;
    this.isDead = false;
    this.hooks.alive();
  }

  private tick(): void {
    const now = this.hooks.now();
    // A page that was suspended, or whose timers are throttled, could not receive.
    const late = now - this.tickedAt - Heartbeat.every;
    this.tickedAt = now;
    if (late > Heartbeat.limit / 2) this.heardAt = now;
    // From idle to active: the last answer may be older than the new limit.
    if (this.idle && !this.hooks.idle()) this.heardAt = now;
    this.idle = this.hooks.idle();
    if (this.idle && ++this.ticks % SLOWER) return;
    this.heartbeat();
    const limit = this.limit();
    const silent = now - this.heardAt;
    if (!this.known || silent <= limit / 2) return;
    if (silent > limit && (this.isDead || !this.busy(now))) this.die();
    void this.look();
  }

  private limit(): number {
    return Math.max(
      this.hooks.hidden() || this.otherHidden
        ? Heartbeat.hidden
        : Heartbeat.limit * (this.idle ? SLOWER : 1),
      3 * this.rtt,
    );
  }

  private die(): void {
    this.answers = 0;
    if (this.isDead) return;
    this.isDead = true;
    this.seen = null;
    this.hooks.dead();
  }

  /** The other side receives nothing: what arrives here says nothing about that direction. */
  complained(): void {
    this.complainedAt = this.hooks.now();
  }

  /** Heartbeats are not answered, but media arrives, and the other side has not complained. */
  private busy(now: number): boolean {
    return (
      this.complainedAt <= this.heardAt
      && now - this.heardAt <= Heartbeat.busyLimit
      && (this.looking || now - this.arrivedAt <= 3 * Heartbeat.every)
    );
  }

  private async look(): Promise<void> {
    if (this.looking) return;
    this.looking = true;
    const checks = await this.hooks.checks();
    this.looking = false;
    if (!checks || this.timer === undefined) return;
    const { seen } = this;
    this.seen = checks;
    if (!seen) return;
    const { selected, answers, received } = checks;
    if (seen.selected === selected && received > seen.received) this.arrivedAt = this.hooks.now();
    if (this.isDead && (answers.get(selected) ?? 0) > (seen.answers.get(selected) ?? 0)) {
      this.hooks.firstResponse();
    }
  }

  private heartbeat(): void {
    const n = ++this.number;
    this.sent.set(n, this.hooks.now());
    for (const key of this.sent.keys()) if (key <= n - KEPT) this.sent.delete(key);
    this.hooks.send(`beat ${n} ${this.hooks.hidden() ? 1 : 0}`);
  }
}
