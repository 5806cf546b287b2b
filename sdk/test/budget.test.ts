import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { Pair, type PairHooks } from '../src/negotiation/pair';
import { Budget, Demands, Pacer } from '../src/negotiation/budget';
import { FakeStream, settled } from './browser';
import { FakeConnection } from './connections';

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal('MediaStream', FakeStream);
  vi.stubGlobal('RTCPeerConnection', FakeConnection);
  FakeConnection.made = [];
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

it('a budget allows so many at once, and another one at a time', () => {
  const budget = new Budget(3, 1_000);
  expect([1, 2, 3, 4].map(() => budget.take())).toEqual([true, true, true, false]);
  vi.advanceTimersByTime(1_000);
  expect([budget.take(), budget.take()]).toEqual([true, false]);
});

it('what is sent keeps its order and stays below the flood limit of the server', () => {
  const pacer = new Pacer();
  const sent: number[] = [];
  for (let i = 0; i < 400; i++) pacer.pass(() => sent.push(i));
  expect(sent).toHaveLength(150);
  vi.advanceTimersByTime(1_000);
  expect(sent.length).toBeLessThanOrEqual(171);
  vi.advanceTimersByTime(20_000);
  expect(sent).toEqual(Array.from({ length: 400 }, (_, i) => i));
  expect(vi.getTimerCount()).toBe(0);
});

it.each([
  ['offers of ever newer generations', (i: number) => ({ eventOp: 'sdp', gen: i + 1, n: 1, sdp: { type: 'offer', sdp: 'x' } })],
  ['the same offer again and again', () => ({ eventOp: 'sdp', gen: 1, n: 1, sdp: { type: 'offer', sdp: 'x' } })],
] as const)('a storm of %s makes few connections and few answers', async (_, signal) => {
  let answers = 0;
  const hooks = { send: async () => (answers++, '200'), iceServers: async () => [], apart: () => false };
  const none = new Proxy(hooks, { get: (target, name) => (target as never)[name] ?? (() => undefined) }) as unknown as PairHooks;
  const pair = new Pair('b', 'a', none, new Demands());
  for (let i = 0; i < 300; i++) {
    pair.signal(signal(i) as never);
    await settled();
  }
  expect(FakeConnection.made.length).toBeLessThanOrEqual(12);
  expect(answers).toBeLessThanOrEqual(24);
  pair.dispose();
});
