/** What all simulations share: seeded random numbers, so that a schedule can be run again. */

/** mulberry32: small, seeded, good enough to shuffle schedules. */
export function random(seed: number): () => number {
  let a = seed | 0;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Makes a function that is not pure throw when it changes its argument. */
export function freeze<T>(x: T): T {
  if (typeof x === 'object' && x !== null && !Object.isFrozen(x)) {
    Object.values(Object.freeze(x)).forEach(freeze);
  }
  return x;
}

export class Simulation {
  /** @param next the next random number, 0 up to 1 */
  constructor(readonly next: () => number) {}

  chance(p: number): boolean {
    return this.next() < p;
  }

  pick<T>(list: readonly T[]): T {
    return list[Math.floor(this.next() * list.length)]!;
  }
}

/** Schedules of each random test. */
const { env = {} } =
  (globalThis as { process?: { env: Record<string, string | undefined> } }).process ?? {};
export const SCHEDULES = Number(env.SCHEDULES ?? 10_000);
/** A schedule that failed is run alone with SEED=… SCHEDULES=1. */
export const FIRST_SEED = Number(env.SEED ?? 1);
/** Limit of one random test, for the slowest machine. */
export const LIMIT = { timeout: 600_000 };

/** Adds the seed to the message of an error. */
export function nameSeed(seed: number, error: unknown): never {
  (error as Error).message = `seed ${seed}: ${(error as Error).message}`;
  throw error;
}
