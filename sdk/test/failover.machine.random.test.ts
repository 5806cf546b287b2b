import { describe, expect, it } from 'vitest';
import { TYPES } from '../src/negotiation/layout';
import { SessionSimulation } from './session-simulation';
import { FIRST_SEED, nameSeed, random, SCHEDULES, LIMIT } from './simulation';

/** Runs one schedule; a failure names its seed. */
function schedule(seed: number, body: (simulation: SessionSimulation) => void): void {
  try {
    const simulation = new SessionSimulation(random(seed));
    body(simulation);
    simulation.settle();
    converged(simulation);
  } catch (error) {
    nameSeed(seed, error);
  }
}

/** Media uses the primary connection, and the backup is ready and empty. */
function converged(simulation: SessionSimulation): void {
  const wanted = simulation.sides.some((side) => TYPES.some((type) => side.want[type]));
  for (const side of simulation.sides) {
    for (const type of TYPES) {
      expect(side.subscribed[type], 'a publication was announced twice').toBeLessThanOrEqual(
        side.other.published[type],
      );
      if (!wanted) continue;
      const want = side.want[type];
      expect([side.attached('primary', type) > 0, side.attached('backup', type)]).toEqual([
        want !== null,
        0,
      ]);
      expect(side.other.transports.primary?.tracks[type] ?? null).toEqual(want);
      expect(side.other.transports.backup?.tracks[type] ?? null).toBeNull();
    }
    if (!wanted) continue;
    expect(side.session).toMatchObject({ onBackup: false, primaryPaused: false });
    for (const role of ['primary', 'backup'] as const) {
      expect(side.session[role], role).toMatchObject({
        open: true,
        signaling: 'stable',
        link: 'connected',
        dead: false,
      });
    }
    expect(side.reported).toBe('connected');
  }
}

describe('two peer sessions with two connections each', () => {
  it(`converge after any disruptions (${SCHEDULES} schedules)`, LIMIT, () => {
    for (let seed = FIRST_SEED; seed < FIRST_SEED + SCHEDULES; seed++) {
      schedule(seed, (simulation) => {
        simulation.run(20 + Math.floor(simulation.next() * 200));
        simulation.settle();
        // Apps publish again what failed meanwhile.
        for (const side of simulation.sides) {
          if (simulation.chance(0.8)) side.publish('cam', { audio: true, video: true });
        }
      });
    }
  });

  it(`fail over to the backup, and back (${SCHEDULES / 10} schedules)`, LIMIT, () => {
    for (let seed = 1; seed <= SCHEDULES / 10; seed++) {
      schedule(seed, (simulation) => {
        for (const side of simulation.sides) side.publish('cam', { audio: true, video: true });
        simulation.settle();
        converged(simulation);
        simulation.cut.primary = true;
        if (simulation.chance(0.5)) for (const side of simulation.sides) side.online = false;
        simulation.drain();
        for (const side of simulation.sides) {
          expect(side.session.onBackup).toBe(true);
          expect(simulation.arrives(side, 'cam'), `${side.me} is heard`).toBe(true);
          expect(side.reported).toBe('recovering');
        }
      });
    }
  });
});
