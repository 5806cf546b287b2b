import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { Meter, Talking } from '../src/media/talking';
import { track } from './browser';

let level: number;
let microphone: MediaStreamTrack | undefined;
let said: [boolean, number][];
let open: number;
let talking: Talking;

const run = (ms: number, l: number) => {
  level = l;
  return vi.advanceTimersByTime(ms);
};

beforeEach(() => {
  vi.useFakeTimers({ now: 0 });
  level = 0;
  microphone = track('audio');
  said = [];
  open = 0;
  talking = new Talking(
    { track: () => microphone, say: (on) => said.push([on, Date.now()]) },
    (t) => {
      open++;
      return { track: t, level: () => level, close: () => open-- } as unknown as Meter;
    },
  );
});

afterEach(() => {
  talking.stop();
  expect([open, vi.getTimerCount()]).toEqual([0, 0]);
  vi.useRealTimers();
  vi.restoreAllMocks();
});

it('reports begin and end of speech, not every pause', () => {
  talking.start();
  run(1000, 0);
  run(1000, 0.1);
  run(300, 0);
  run(1000, 0.1);
  run(2000, 0);
  expect(said.map(([on]) => on)).toEqual([true, false]);
});

it('does not toggle between its two levels', () => {
  talking.start();
  run(3000, 0.015);
  expect(said).toEqual([]);
  run(1000, 0.03);
  run(3000, 0.015);
  expect(said.map(([on]) => on)).toEqual([true]);
});

it('reports at most once in half a second', () => {
  talking.start();
  for (let i = 0; i < 20; i++) {
    run(100, 0.5);
    run(900, 0);
  }
  expect(said.length).toBeGreaterThan(10);
  said.slice(1).forEach(([, at], i) => expect(at - said[i]![1]).toBeGreaterThanOrEqual(500));
});

it('is silent without a microphone, and follows a replaced one', () => {
  talking.start();
  run(500, 0.5);
  microphone = undefined;
  run(2000, 0.5);
  expect([said.map(([on]) => on), open]).toEqual([[true, false], 0]);
  microphone = track('audio');
  run(500, 0.5);
  expect([said.length, open]).toEqual([3, 1]);
});

it('gives up where the browser has no AudioContext', () => {
  const warn = vi.spyOn(console, 'warn').mockImplementation(() => undefined);
  const mute = new Talking({ track: () => microphone, say: () => undefined }, () => {
    throw new Error('none');
  });
  mute.start();
  run(5000, 0.5);
  expect(warn).toHaveBeenCalledOnce();
  expect(vi.getTimerCount()).toBe(0);
});

it.each([44_100, 48_000, 96_000])(
  'hears a pulse in step with its samples, at %i Hz',
  (sampleRate) => {
    vi.stubGlobal('MediaStream', class {});
    let ago = 0;
    class Analyser {
      fftSize = 2048;
      /** 20 ms of sound that ended some ms ago, the newest sample last. */
      getFloatTimeDomainData(samples: Float32Array) {
        const end = samples.length - (ago * sampleRate) / 1000;
        samples.forEach((_, i) => (samples[i] = i < end && i >= end - sampleRate / 50 ? 0.5 : 0));
      }
    }
    vi.stubGlobal(
      'AudioContext',
      class {
        sampleRate = sampleRate;
        state = 'running';
        createAnalyser = () => new Analyser();
        createMediaStreamSource = () => ({ connect: () => undefined });
      },
    );
    const meter = new Meter(microphone!);
    for (ago = 0; ago <= 80; ago += 5) expect(meter.level(), `${ago} ms ago`).toBeGreaterThan(0.1);
    vi.unstubAllGlobals();
  },
);
