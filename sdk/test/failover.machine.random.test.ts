import { describe, expect, it } from 'vitest';
import { TYPES } from '../src/negotiation/layout';
import { Sessions } from './sessions';
import { random } from './world';

const SCHEDULES = Number((globalThis as { process?: { env: Record<string, string | undefined> } }).process?.env.SCHEDULES ?? 10_000);
/** Milliseconds, for the slowest machine. */
const HANGS = 600_000;

/** Runs one schedule; a failure names its seed. */
function schedule(seed: number, body: (world: Sessions) => void): void {
  try {
    const world = new Sessions(random(seed));
    body(world);
    world.settle();
    converged(world);
  } catch (error) {
    (error as Error).message = `seed ${seed}: ${(error as Error).message}`;
    throw error;
  }
}

/** Media goes over the primary connection, and the backup is ready and empty. */
function converged(world: Sessions): void {
  const wanted = world.sides.some((side) => TYPES.some((type) => side.want[type]));
  for (const side of world.sides) {
    for (const type of TYPES) {
      expect(side.subscribed[type], 'a publication was announced twice').toBeLessThanOrEqual(side.other.published[type]);
      if (!wanted) continue;
      const want = side.want[type];
      expect([side.attached('primary', type) > 0, side.attached('backup', type)]).toEqual([want !== null, 0]);
      expect(side.other.transports.primary?.tracks[type] ?? null).toEqual(want);
      expect(side.other.transports.backup?.tracks[type] ?? null).toBeNull();
    }
    if (!wanted) continue;
    expect(side.session).toMatchObject({ onBackup: false, primaryPaused: false });
    for (const way of ['primary', 'backup'] as const) {
      expect(side.session[way], way).toMatchObject({ open: true, signaling: 'stable', link: 'connected', dead: false });
    }
    expect(side.reported).toBe('connected');
  }
}

describe('two sessions with two connections each', () => {
  it(`agree in the end whatever goes wrong on the way (${SCHEDULES} schedules)`, () => {
    for (let seed = 1; seed <= SCHEDULES; seed++) {
      schedule(seed, (world) => {
        world.run(20 + Math.floor(world.next() * 200));
        world.settle();
        // What failed meanwhile, the apps publish again.
        for (const side of world.sides) if (world.chance(0.8)) side.publish('cam', { audio: true, video: true });
      });
    }
  }, HANGS);

  it(`send over the backup while the primary connection is dead, and over the primary one afterwards (${SCHEDULES / 10} schedules)`, () => {
    for (let seed = 1; seed <= SCHEDULES / 10; seed++) {
      schedule(seed, (world) => {
        for (const side of world.sides) side.publish('cam', { audio: true, video: true });
        world.settle();
        converged(world);
        world.cut.primary = true;
        if (world.chance(0.5)) for (const side of world.sides) side.online = false;
        world.drain();
        for (const side of world.sides) {
          expect(side.session.onBackup).toBe(true);
          expect(world.arrives(side, 'cam'), `${side.me} is heard`).toBe(true);
          expect(side.reported).toBe('recovering');
        }
      });
    }
  }, HANGS);
});
