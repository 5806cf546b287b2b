// Every wait in these tests is for a condition and has a limit; nothing sleeps for a guessed time.

/**
 * The usual limit of a wait, in milliseconds: far beyond what anything takes, so that only a fault
 * reaches it.
 */
export const LIMIT = 30_000;

/**
 * Waits until condition() is true (or resolves to something true) and resolves with its value.
 * @param {string | (() => any)} what what did not happen in time; a function is asked when it comes
 *   to that
 * @param {() => any} condition
 */
export async function until(what, condition, limit = LIMIT, pause = 25) {
  const end = Date.now() + limit;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end)
      throw new Error(`not in ${limit} ms: ${typeof what === 'function' ? await what() : what}`);
    await new Promise((next) => setTimeout(next, pause));
  }
}

/** Resolves as promise does, or rejects after limit. */
export function within(what, promise, limit = LIMIT) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not in ${limit} ms: ${what}`)), limit);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
