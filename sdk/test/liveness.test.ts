import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Heartbeat, Liveness, type Checks } from '../src/negotiation/liveness';

let said: string[];
/** Directions in which nothing passes. */
let cut: { ab: boolean; ba: boolean };
let hidden: { a: boolean; b: boolean };
let delay: number;
let idle: boolean;
let heartbeats: number;
let checks: Checks | null;
let a: Liveness;
let b: Liveness;

const make = (name: 'a' | 'b', other: () => Liveness, open: () => boolean) => new Liveness({
  send: (text) => {
    heartbeats++;
    if (open()) setTimeout(() => open() && other().heard(text), delay);
  },
  now: () => performance.now(),
  hidden: () => hidden[name],
  idle: () => idle,
  checks: async () => (name === 'a' ? checks : null),
  dead: () => said.push(`${name} dead`),
  firstResponse: () => said.push(`${name} stirs`),
  alive: () => said.push(`${name} alive`),
});

beforeEach(() => {
  vi.useFakeTimers();
  said = [];
  cut = { ab: false, ba: false };
  hidden = { a: false, b: false };
  delay = 25;
  idle = false;
  heartbeats = 0;
  checks = null;
  a = make('a', () => b, () => !cut.ab);
  b = make('b', () => a, () => !cut.ba);
  a.start();
  b.start();
});

afterEach(async () => {
  a.stop();
  b.stop();
  await vi.advanceTimersByTimeAsync(5_000);
  expect(vi.getTimerCount()).toBe(0);
  vi.useRealTimers();
});

const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms);

describe('a path', () => {
  it('that works is never reported dead', async () => {
    await pass(60_000);
    expect(said).toEqual([]);
  });

  it.each([
    ['both ways', true, true],
    ['one way', true, false],
    ['the other way', false, true],
  ])('cut %s is dead for both at once', async (_, ab, ba) => {
    await pass(2_000);
    cut = { ab, ba };
    await pass(Heartbeat.limit - Heartbeat.every);
    expect(said).toEqual([]);
    await pass(3 * Heartbeat.every);
    expect(said.sort()).toEqual(['a dead', 'b dead']);
    await pass(60_000);
    expect(said).toHaveLength(2);
  });

  it('is alive again when several heartbeats in a row are answered', async () => {
    await pass(2_000);
    cut = { ab: true, ba: true };
    await pass(5_000);
    cut = { ab: false, ba: false };
    await pass(Heartbeat.every);
    expect([a.dead, b.dead]).toEqual([true, true]);
    await pass(10 * Heartbeat.every);
    expect([said.slice(2).sort(), a.dead]).toEqual([['a alive', 'b alive'], false]);
  });

  it('in place of a dead path is alive at once, without history', async () => {
    await pass(2_000);
    cut = { ab: true, ba: true };
    await pass(1_000);
    a.start();
    b.start();
    expect([said.slice(2), a.dead, b.dead]).toEqual([['a alive', 'b alive'], false, false]);
    await pass(10_000);
    expect(said).toHaveLength(4);
  });

  it('is doubtful after half of its time', async () => {
    expect(a.doubtful).toBe(false);
    await pass(2_000);
    expect(a.doubtful).toBe(false);
    cut = { ab: true, ba: true };
    await pass(Heartbeat.limit / 2 + Heartbeat.every);
    expect([a.doubtful, a.dead]).toEqual([true, false]);
    a.stop();
    expect(a.doubtful).toBe(false);
  });

  it('with a long round trip gets three round trips', async () => {
    a.stop();
    b.stop();
    delay = 400;
    a.start();
    b.start();
    await pass(10_000);
    cut = { ab: true, ba: true };
    await pass(2_000);
    expect(said).toEqual([]);
    await pass(1_500);
    expect(said.sort()).toEqual(['a dead', 'b dead']);
  });

  it('to a peer that never answers is not judged', async () => {
    cut = { ab: true, ba: true };
    a.start();
    await pass(60_000);
    expect(said).toEqual([]);
  });
});

describe('a page that is busy', () => {
  /** Media of b arrives at a; the page of b answers nothing while it is busy. */
  const sending = async () => {
    let bytes = 0;
    vi.spyOn(a['hooks'], 'checks').mockImplementation(async () => ({
      selected: 'p',
      answers: new Map(),
      received: (bytes += 100),
    }));
    await pass(2_000);
    cut = { ab: true, ba: true };
  };
  const dead = () => said.filter((what) => what === 'a dead');

  it('is waited for, for a limited time', async () => {
    await sending();
    await pass(Heartbeat.busyLimit - 2 * Heartbeat.every);
    expect(dead()).toEqual([]);
    await pass(4 * Heartbeat.every);
    expect(dead()).toHaveLength(1);
  });

  it('that answers again keeps its path', async () => {
    await sending();
    await pass(1_500);
    cut = { ab: false, ba: false };
    await pass(5_000);
    expect(dead()).toEqual([]);
  });

  it.each([0, 1_000])(
    'that reports, after %i ms, to receive nothing has lost its path',
    async (after) => {
      await sending();
      await pass(after);
      a.complained();
      await pass(Math.max(Heartbeat.every, Heartbeat.limit + 2 * Heartbeat.every - after));
      expect(dead()).toHaveLength(1);
    },
  );

  it('is not assumed when its media has stopped', async () => {
    checks = { selected: 'p', answers: new Map(), received: 7 };
    await pass(2_000);
    cut = { ab: true, ba: true };
    await pass(Heartbeat.limit + 2 * Heartbeat.every);
    expect(dead()).toHaveLength(1);
  });
});

describe('a dead path', () => {
  const dies = async () => {
    checks = { selected: 'p', answers: new Map([['p', 3], ['q', 8]]), received: 0 };
    await pass(2_000);
    cut = { ab: true, ba: true };
    await pass(2_000);
    said = [];
  };

  it.each([
    ['the selected pair', 'p', { p: 4, q: 8 }],
    ['another that is in use by now', 'q', { p: 3, q: 9 }],
    ['a new one', 'r', { p: 3, q: 8, r: 1 }],
  ])(
    'responds when ICE has an answer on %s, and is dead until heartbeats are',
    async (_, selected, counts) => {
      await dies();
      checks = { selected, answers: new Map(Object.entries(counts)), received: 0 };
      await pass(Heartbeat.every);
      expect([said, a.dead]).toEqual([['a stirs'], true]);
      await pass(2_000);
      expect(said).toEqual(['a stirs']);
      cut = { ab: false, ba: false };
      await pass(10 * Heartbeat.every);
      expect(said.slice(1).sort()).toEqual(['a alive', 'b alive']);
    },
  );

  it.each([
    ['an answer on a pair that is not selected', 'p', { p: 3, q: 9 }],
    ['the selection of a pair with older answers', 'q', { p: 3, q: 8 }],
    ['a pair without an answer', 'r', { p: 3, q: 8, r: 0 }],
    ['a browser that counts none', 'p', {}],
  ])('does not respond for %s', async (_, selected, counts) => {
    await dies();
    checks = { selected, answers: new Map(Object.entries(counts)), received: 0 };
    await pass(2_000);
    expect(said).toEqual([]);
  });

  it('is not asked about before its death or after its end', async () => {
    checks = { selected: 'p', answers: new Map(), received: 0 };
    const asked = vi.spyOn(a['hooks'], 'checks');
    await pass(5_000);
    expect(asked).not.toHaveBeenCalled();
    await dies();
    a.stop();
    checks = { selected: 'p', answers: new Map([['p', 9]]), received: 0 };
    await pass(2_000);
    expect(said).toEqual([]);
  });
});

describe('a hidden page', () => {
  it('gets three seconds, on both sides', async () => {
    await pass(2_000);
    hidden.a = true;
    await pass(2 * Heartbeat.every);
    cut = { ab: true, ba: true };
    await pass(Heartbeat.hidden - 2 * Heartbeat.every);
    expect(said).toEqual([]);
    await pass(500);
    expect(said.sort()).toEqual(['a dead', 'b dead']);
  });
});

it('an idle path has a tenth of the heartbeats, until it carries media', async () => {
  idle = true;
  await pass(2_000);
  heartbeats = 0;
  await pass(10_000);
  expect(heartbeats).toBeLessThanOrEqual(40);
  idle = false;
  await pass(2_000);
  expect(said).toEqual([]);
  cut = { ab: true, ba: true };
  await pass(Heartbeat.limit + 2 * Heartbeat.every);
  expect(said.sort()).toEqual(['a dead', 'b dead']);
});

it('a page that was suspended does not report its path dead', async () => {
  await pass(2_000);
  const real = performance.now.bind(performance);
  vi.spyOn(performance, 'now').mockImplementation(() => real() + 10_000);
  await pass(Heartbeat.every);
  expect(said).not.toContain('a dead');
  vi.restoreAllMocks();
});

it.each(['', 'beat', 'echo x', 'echo 99999', 'nonsense 1'])('%j changes nothing', async (text) => {
  await pass(1_000);
  a.heard(text);
  await pass(1_000);
  expect(said).toEqual([]);
});
