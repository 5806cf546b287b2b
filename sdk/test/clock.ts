/**
 * Virtual time: passes only when told to, and is cheap enough for thousands of schedules of a
 * minute each. Counts timers of the page, and not the events that the simulation has planned.
 */
import { vi } from 'vitest';

interface Entry {
  at: number;
  /** Of two entries due at the same time the earlier one comes first. */
  order: number;
  what: (() => void) | null;
  /** So frequent that promises are not awaited after it, unless it started something. */
  quiet: boolean;
}

/** nextTick of Node: runs when all pending promises have run. */
const { process: { nextTick }, setImmediate } = globalThis as unknown as {
  process: { nextTick(what: () => void): void };
  setImmediate(what: () => void): void;
};

/** Lets the test runner work: it gets no event loop turn while virtual time passes. */
export const yieldToRunner = (): Promise<void> => new Promise((done) => setImmediate(done));

const before = (a: Entry, b: Entry) => a.at < b.at || (a.at === b.at && a.order < b.order);

export class Clock {
  now = 1_000_000;
  private order = 0;
  /** Something has started that promises may follow. */
  private promisesExpected = false;
  /** A binary heap: the next entry is first. */
  private readonly heap: Entry[] = [];
  private readonly timers = new Map<number, Entry>();

  /** Number of timers that the page has set. */
  get count(): number {
    return this.timers.size;
  }

  /** Replaces the timers and clocks of the page. */
  install(): void {
    const clear = (id: number | undefined) => {
      this.promisesExpected = true;
      const entry = this.timers.get(id!);
      if (entry) entry.what = null;
      this.timers.delete(id!);
    };
    vi.stubGlobal('setTimeout', (what: () => void, ms: number) => {
      const entry = this.at(ms, () => {
        this.timers.delete(entry.order);
        what();
      });
      this.timers.set(entry.order, entry);
      return entry.order;
    });
    vi.stubGlobal('setInterval', (what: () => void, ms: number) => {
      const again = () => {
        const entry = this.at(ms, () => {
          again();
          what();
        }, true);
        this.timers.set(id, entry);
      };
      const id = ++this.order;
      again();
      return id;
    });
    vi.stubGlobal('clearTimeout', clear);
    vi.stubGlobal('clearInterval', clear);
    vi.stubGlobal('performance', { now: () => this.now });
    vi.spyOn(Date, 'now').mockImplementation(() => Math.floor(this.now));
  }

  /** For a quiet entry that started something: promises are awaited after it. */
  expectPromises(): void {
    this.promisesExpected = true;
  }

  at(ms: number, what: () => void, quiet = false): Entry {
    const entry = { at: this.now + ms, order: ++this.order, what, quiet };
    this.promisesExpected ||= !quiet;
    let i = this.heap.length;
    for (let up = (i - 1) >> 1; i > 0 && before(entry, this.heap[up]!); up = (i - 1) >> 1) {
      this.heap[i] = this.heap[up]!;
      i = up;
    }
    this.heap[i] = entry;
    return entry;
  }

  /** Lets this many milliseconds pass. */
  async pass(ms: number): Promise<void> {
    const until = this.now + ms;
    await this.turn();
    for (let next = this.heap[0]; next && next.at <= until; next = this.heap[0]) {
      this.shift();
      if (!next.what) continue;
      this.now = next.at;
      this.promisesExpected = !next.quiet;
      next.what();
      if (this.promisesExpected) await this.turn();
    }
    this.now = until;
  }

  private turn(): Promise<void> {
    return new Promise((done) => nextTick(done));
  }

  private shift(): void {
    const last = this.heap.pop()!;
    const { length } = this.heap;
    if (length === 0) return;
    let i = 0;
    for (let down = 1; down < length; down = 2 * i + 1) {
      if (down + 1 < length && before(this.heap[down + 1]!, this.heap[down]!)) down++;
      if (before(last, this.heap[down]!)) break;
      this.heap[i] = this.heap[down]!;
      i = down;
    }
    this.heap[i] = last;
  }
}
