import { defineConfig } from 'vitest/config';

// Node 20 (Debian) runs the tests; to show a failure the reporter needs Map.groupBy of Node 21.
const lib = Map as unknown as { groupBy?: unknown };
lib.groupBy ??= <K, V>(items: Iterable<V>, key: (item: V, index: number) => K): Map<K, V[]> => {
  const groups = new Map<K, V[]>();
  let index = 0;
  for (const item of items) {
    const k = key(item, index++);
    groups.set(k, [...(groups.get(k) ?? []), item]);
  }
  return groups;
};

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // No test measures time: the limit is for one that hangs, on a machine that may be busy.
    testTimeout: 60_000,
    maxWorkers: '100%', // the default leaves one of two cores idle
  },
});
