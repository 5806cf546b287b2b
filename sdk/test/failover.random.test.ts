import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { FakeStream } from './browser';
import { yieldToRunner } from './clock';
import { FakeConnection } from './connections';
import { CallSimulation } from './call-simulation';
import { FIRST_SEED, nameSeed, random, SCHEDULES, TIME_LIMIT } from './simulation';

/** One path that dies is one trouble of many. */
const DEATHS = Math.ceil(SCHEDULES / 10);

beforeEach(() => {
  vi.stubGlobal('MediaStream', FakeStream);
  vi.stubGlobal('RTCPeerConnection', CallSimulation.Connection);
});

afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
});

/** Runs one schedule; a failure names its seed. */
async function schedule(seed: number, body: (simulation: CallSimulation) => Promise<void>): Promise<void> {
  await yieldToRunner();
  FakeConnection.made = [];
  const simulation = new CallSimulation(random(seed));
  vi.spyOn(console, 'warn').mockImplementation((...what: unknown[]) => simulation.addError(what.join(' ')));
  try {
    await body(simulation);
    for (const user of simulation.users) user.endSession();
    expect([FakeConnection.open, simulation.clock.count], 'connections and timers left').toEqual([0, 0]);
  } catch (error) {
    nameSeed(seed, error);
  }
}

describe('two sides with two connections', () => {
  it(`agree in the end whatever goes wrong on the path (${SCHEDULES} schedules)`, async () => {
    for (let seed = FIRST_SEED; seed < FIRST_SEED + SCHEDULES; seed++) {
      await schedule(seed, async (simulation) => {
        await simulation.run(4 + Math.floor(simulation.next() * 20));
        await simulation.heal();
        let left = await simulation.until(() => simulation.violations(), 60, 5);
        if (left.length) {
          // What stands goes on although an offer was never answered: another one is made when there is a reason.
          if (left.every((text) => text.includes('an open offer'))) simulation.network();
          left = await simulation.until(() => simulation.violations(), 60, 5);
        }
        expect(left).toEqual([]);
      });
    }
  }, TIME_LIMIT);

  it(`see each other although the first path dies, with the server and without it (${DEATHS} schedules)`, async () => {
    for (let seed = FIRST_SEED; seed < FIRST_SEED + DEATHS; seed++) {
      await schedule(seed, async (simulation) => {
        simulation.backupsAllowed = true;
        for (const user of simulation.users) user.backupAllowed = true;
        for (const user of simulation.users) for (const type of simulation.pick([['cam'], ['cam', 'screen']] as const)) user.publish(type);
        expect(await simulation.until(() => simulation.unseen(), 10, 1), 'the first path').toEqual([]);
        // What is half made is finished without the server.
        if (simulation.chance(0.5)) for (const user of simulation.users) user.loseSocket();
        expect(await simulation.until(() => simulation.violations(), 20, 1), 'both paths').toEqual([]);
        simulation.cut('direct', simulation.pick([simulation.users, simulation.users.slice(0, 1), simulation.users.slice(1)]));
        if (simulation.chance(0.2)) simulation.network();
        expect(await simulation.until(() => simulation.unseen(), 5, 2), 'the second path').toEqual([]);
        // The first connection takes the relay too, if it may, and has the media back.
        if (simulation.primaryByRelay) expect(await simulation.until(() => simulation.violations(), 30, 1), 'another first path').toEqual([]);
        await simulation.heal();
        expect(await simulation.until(() => simulation.violations(), 60, 5), 'in the end').toEqual([]);
      });
    }
  }, TIME_LIMIT);
});
