/** So many at once, and another one every `every` milliseconds. */
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
 * What another user may cause here by his messages alone: connections and descriptions, which cost the browser much, and repetitions of
 * what was said. What is refused is repeated by who means it, within seconds.
 */
export class Demands {
  readonly builds = new Budget(12, 2_000);
  readonly repeats = new Budget(2, 1_000);
  /** What comes over the data channel. */
  readonly words = new Budget(200, 50);
}

/** Messages to one user that wait. */
const WAITING = 256;

/**
 * Sends in order for each user, so fast that the server does not take it for a flood: it closes sessions that say more than 30 a second
 * after 300. The users take turns: what one of them causes does not hold up what is for another.
 */
export class Pacer {
  private readonly budget = new Budget(150, 50);
  private readonly waiting = new Map<string, (() => void)[]>();
  private timer: ReturnType<typeof setInterval> | undefined;

  /** False: too much waits for this user already. */
  pass(to: string, send: () => void): boolean {
    if (!this.waiting.size && this.budget.take()) {
      send();
      return true;
    }
    const mine = this.waiting.get(to) ?? [];
    if (mine.length >= WAITING) return false;
    mine.push(send);
    this.waiting.set(to, mine);
    this.timer ??= setInterval(() => {
      for (const [user, queue] of this.waiting) {
        if (!this.budget.take()) return;
        this.waiting.delete(user);
        queue.shift()!();
        if (queue.length) this.waiting.set(user, queue);
      }
      this.stop();
    }, 50);
    return true;
  }

  /** Who has left is told nothing more, nor who comes with the same id. */
  forget(user: string): void {
    this.waiting.delete(user);
  }

  /** What waits is not sent any more. */
  stop(): void {
    clearInterval(this.timer);
    this.timer = undefined;
    this.waiting.clear();
  }
}
