/** An outcome that others wait for, and that has a time limit. */
export interface Deferred<T> {
  outcome: Promise<T>;
  /** Ends the wait. Only the first value counts. */
  settle(value: T): void;
}

/** `late` runs after `ms` milliseconds without an outcome. */
export function deferred<T>(ms: number, late: () => void): Deferred<T> {
  const timer = setTimeout(late, ms);
  let resolve!: (value: T) => void;
  const outcome = new Promise<T>((r) => {
    resolve = r;
  });
  return {
    outcome,
    settle: (value) => {
      clearTimeout(timer);
      resolve(value);
    },
  };
}
