import { describe, expect, it } from 'vitest';
import { TYPES } from '../src/negotiation/layout';
import { MachineSimulation, type Side } from './machine-simulation';
import { FIRST_SEED, LIMIT, nameSeed, random, SCHEDULES } from './simulation';

/** Simultaneous publishing has far fewer variants than arbitrary disruptions. */
const MEETINGS = Math.ceil(SCHEDULES / 4);

/** What must hold once all events have run out. */
function converged(simulation: MachineSimulation): void {
  const [a, b] = simulation.sides;
  const wanted = [a, b].some((side) => TYPES.some((type) => side.want[type]));
  for (const side of [a, b]) {
    expect(side.queue).toEqual([]);
    expect(new Set(side.subscribed).size, 'a publication was announced twice').toBe(
      side.subscribed.length,
    );
    // Without a connection nothing is shown, and a lost `unpublish` is sent again with the next
    // one.
    if (wanted || a.connection || b.connection) {
      for (const type of TYPES) agreed(side, side.other, type);
    }
  }
  if (!wanted && !simulation.warm) return;
  expect(a.connection?.gen).toBe(b.connection?.gen);
  for (const side of [a, b]) {
    expect(side.state).toMatchObject({
      open: true,
      signaling: 'stable',
      link: 'connected',
      channelOpen: true,
    });
    expect(side.connection).toMatchObject({
      signaling: 'stable',
      link: 'connected',
      channel: true,
    });
  }
}

function agreed(from: Side, to: Side, type: 'cam' | 'screen'): void {
  const want = from.want[type];
  const local = from.state.local[type];
  const remote = to.state.remote[type];
  expect(local.on).toBe(want !== null);
  expect(remote.on, `${from.me} ${type}`).toBe(local.on);
  expect(local.awaited).toBe(false);
  if (!want) {
    expect(to.streams[type]).toBeNull();
    if (from.connection) expect(from.connection.attached[type]).toBe(0);
    return;
  }
  expect(remote.epoch).toBe(local.epoch);
  expect(to.streams[type]).toEqual(want);
  expect(to.subscribed.filter((s) => s === `${type} ${local.epoch}`)).toHaveLength(1);
  expect(from.connection?.attached[type]).toBe(local.epoch);
}

/** Runs one schedule; a failure names its seed. */
function schedule(seed: number, body: (simulation: MachineSimulation) => void, warm = false): void {
  try {
    const simulation = new MachineSimulation(random(seed), warm);
    body(simulation);
    simulation.settle();
    converged(simulation);
  } catch (error) {
    nameSeed(seed, error);
  }
}

describe('two negotiation machines over a link', () => {
  it(`connect once when both publish at the same time (${MEETINGS} schedules)`, LIMIT, () => {
    for (let seed = 1; seed <= MEETINGS; seed++) {
      schedule(seed, (simulation) => {
        const [a, b] = simulation.sides;
        a.publish('cam', true, true);
        b.publish('cam', true, true);
        simulation.drain();
        expect([a.opened, b.opened]).toEqual([1, 1]);
        expect([a.subscribed.length, b.subscribed.length]).toEqual([1, 1]);
      });
    }
  });

  it.each(['cold', 'warm'])(
    `converge after any disruptions (${SCHEDULES} schedules, %s)`,
    LIMIT,
    (start) => {
      for (let seed = FIRST_SEED; seed < FIRST_SEED + SCHEDULES; seed++) {
        schedule(
          seed,
          (simulation) => {
            simulation.run(10 + Math.floor(simulation.next() * 120));
            for (const side of simulation.sides) {
              if (!side.online) simulation.disrupt();
            }
            simulation.settle();
            // Apps publish again what failed meanwhile.
            for (const side of simulation.sides) {
              if (simulation.chance(0.8)) side.publish('cam', true, true);
            }
          },
          start === 'warm',
        );
      }
    },
  );

  it('recover when both call removeLocalPeer and removePeer, then publish', () => {
    for (let seed = 1; seed <= 500; seed++) {
      schedule(seed, (simulation) => {
        const [a, b] = simulation.sides;
        a.publish('cam', true, true);
        b.publish('cam', false, true);
        if (simulation.chance(0.5)) simulation.drain();
        else simulation.run(15);
        simulation.settle();
        const before = [...a.subscribed, ...b.subscribed];
        for (const side of simulation.sides) {
          side.want.cam = null;
          side.feed({ kind: 'unpublish', type: 'cam' });
          side.feed({ kind: 'refuse', type: 'cam' });
        }
        if (simulation.chance(0.5)) simulation.drain();
        a.publish('cam', true, true);
        b.publish('cam', true, true);
        simulation.drain();
        expect([...a.subscribed, ...b.subscribed].length).toBeGreaterThanOrEqual(
          Math.min(before.length + 2, 2),
        );
      });
    }
  });
});
