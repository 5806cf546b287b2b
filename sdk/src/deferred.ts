/** An outcome that others wait for, and that has a time limit. */
export interface Deferred<T> {
  promise: Promise<T>;
  /** Ends the wait. Only the first outcome counts. */
  settle(outcome: T): void;
}

/** `late` runs after `ms` milliseconds without an outcome. */
export function deferred<T>(ms: number, late: () => void): Deferred<T> {
  const timer = setTimeout(late, ms);
  let resolve!: (outcome: T) => void;
  const promise = new Promise<T>((r) => {
    resolve = r;
  });
  return {
    promise,
    settle: (outcome) => {
      clearTimeout(timer);
      resolve(outcome);
    },
  };
}
