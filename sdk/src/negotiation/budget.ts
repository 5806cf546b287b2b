/** A burst, then one every `every` milliseconds. */
export class Budget {
  private left: number;
  private at = performance.now();

  constructor(private readonly burst: number, private readonly every: number) {
    this.left = burst;
  }

  take(): boolean {
    const now = performance.now();
    this.left = Math.min(this.burst, this.left + (now - this.at) / this.every);
    this.at = now;
    if (this.left < 1) return false;
    this.left--;
    return true;
  }
}

/**
 * Limits of what another user may cause by messages alone: connections and descriptions, which are
 * expensive in a browser, and repetitions. A refused signal is repeated by its sender within
 * seconds.
 */
export class PeerLimits {
  readonly builds = new Budget(12, 2_000);
  readonly repeats = new Budget(2, 1_000);
  /** Messages over the data channel. */
  readonly channelMessages = new Budget(200, 50);
}

/** Messages to one user that may wait. */
const WAITING = 256;

/**
 * Sends in order for each user, below the rate limit of the server: it closes sessions that send
 * more than 30 messages a second after a burst of 300. Round robin over the users, so that one does
 * not delay messages to others.
 */
export class Pacer {
  private readonly budget = new Budget(150, 50);
  private readonly unsent = new Map<string, (() => void)[]>();
  private timer: ReturnType<typeof setInterval> | undefined;

  /** False: the queue of this user is full. */
  pass(to: string, send: () => void): boolean {
    if (!this.unsent.size && this.budget.take()) {
      send();
      return true;
    }
    const mine = this.unsent.get(to) ?? [];
    if (mine.length >= WAITING) return false;
    mine.push(send);
    this.unsent.set(to, mine);
    this.timer ??= setInterval(() => {
      for (const [user, queue] of this.unsent) {
        if (!this.budget.take()) return;
        this.unsent.delete(user);
        queue.shift()!();
        if (queue.length) this.unsent.set(user, queue);
      }
      this.stop();
    }, 50);
    return true;
  }

  /** A user who left gets no more messages, nor does a later user with the same id. */
  forget(user: string): void {
    this.unsent.delete(user);
  }

  /** Drops all waiting messages. */
  stop(): void {
    clearInterval(this.timer);
    this.timer = undefined;
    this.unsent.clear();
  }
}
