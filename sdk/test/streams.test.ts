import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Streams } from '../src/media/streams';
import { FakeStream, track } from './browser';

beforeEach(() => vi.stubGlobal('MediaStream', FakeStream));
afterEach(() => void vi.unstubAllGlobals());

describe('remote streams', () => {
  it('stay the same object through changes, and are never empty in between', () => {
    const streams = new Streams();
    const [a, v, v2] = [track('audio'), track('video'), track('video')];
    streams.set('u', 'cam', [v]);
    const stream = streams.get('u', 'cam') as unknown as FakeStream;
    streams.set('u', 'cam', [a, v]);
    streams.set('u', 'cam', [v2]);
    expect(streams.get('u', 'cam')).toBe(stream);
    expect(stream.getTracks()).toEqual([v2]);
    expect(stream.fewest).toBe(1);
    streams.drop('u', 'cam');
    expect(streams.get('u', 'cam')).toBeUndefined();
    expect(stream.getTracks()).toEqual([]);
    streams.set('u', 'cam', [v]);
    expect(streams.get('u', 'cam')).toBe(stream);
  });

  it('remove the old track first in Firefox, whose video element would freeze', () => {
    vi.stubGlobal('navigator', {
      userAgent: 'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0',
    });
    const streams = new Streams();
    const [v, v2] = [track('video'), track('video')];
    streams.set('u', 'cam', [v]);
    const stream = streams.get('u', 'cam') as unknown as FakeStream;
    const steps: string[] = [];
    vi.spyOn(stream, 'addTrack').mockImplementation(
      (t) => void steps.push(t === (v2 as unknown) ? 'new in' : '?'),
    );
    vi.spyOn(stream, 'removeTrack').mockImplementation(
      (t) => void steps.push(t === (v as unknown) ? 'old out' : '?'),
    );
    streams.set('u', 'cam', [v2]);
    expect(steps).toEqual(['old out', 'new in']);
  });

  it('fire events for added and removed tracks', () => {
    const streams = new Streams();
    const [a, v, v2] = [track('audio'), track('video'), track('video')];
    streams.set('u', 'cam', [a, v]);
    const said: unknown[] = [];
    for (const what of ['addtrack', 'removetrack']) {
      const stream = streams.get('u', 'cam')!;
      stream.addEventListener(what, (event) => {
        const { track: t } = event as MediaStreamTrackEvent;
        expect(stream.getTracks().includes(t)).toBe(what === 'addtrack');
        said.push([what, t]);
      });
    }
    streams.set('u', 'cam', [a, v2]);
    streams.drop('u', 'cam');
    expect(said).toEqual([
      ['removetrack', v],
      ['addtrack', v2],
      ['removetrack', a],
      ['removetrack', v2],
    ]);
  });

  it('are new in a new call', () => {
    const streams = new Streams();
    streams.set('u', 'cam', [track('video')]);
    const stream = streams.get('u', 'cam');
    streams.forget('u');
    expect(streams.all()).toEqual({});
    streams.set('u', 'cam', [track('video')]);
    expect(streams.get('u', 'cam')).not.toBe(stream);
  });

  it('list every camera, and the newest screen', () => {
    const streams = new Streams();
    for (const user of ['u', 'v']) {
      streams.set(user, 'cam', [track('video')]);
      streams.set(user, 'screen', [track('video')]);
    }
    streams.set('u', 'screen', [track('video')]);
    expect(Object.keys(streams.all())).toEqual(['u', 'v', 'screen']);
    expect(streams.find('screen')).toBe(streams.get('v', 'screen'));
    streams.drop('v', 'screen');
    expect(streams.find('screen')).toBe(streams.get('u', 'screen'));
    streams.set('v', 'screen', [track('video')]);
    expect(streams.find('screen')).toBe(streams.get('v', 'screen'));
    streams.drop('u', 'screen');
    streams.drop('v', 'screen');
    expect(streams.find('screen')).toBeUndefined();
  });
});
