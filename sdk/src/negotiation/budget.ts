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
  readonly builds = new Budget(12, 5_000);
  readonly repeats = new Budget(2, 1_000);
}

/** Sends in order, so fast that the server does not take it for a flood: it closes sessions that say more than 30 a second after 300. */
export class Pacer {
  private readonly budget = new Budget(150, 50);
  private readonly waiting: (() => void)[] = [];
  private timer: ReturnType<typeof setInterval> | undefined;

  pass(send: () => void): void {
    if (!this.waiting.length && this.budget.take()) return send();
    this.waiting.push(send);
    this.timer ??= setInterval(() => {
      while (this.waiting.length && this.budget.take()) this.waiting.shift()!();
      if (!this.waiting.length) this.stop();
    }, 50);
  }

  /** What waits is not sent any more. */
  stop(): void {
    clearInterval(this.timer);
    this.timer = undefined;
    this.waiting.length = 0;
  }
}
