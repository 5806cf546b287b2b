import { afterEach, describe, expect, it, vi } from 'vitest';
import { isSecure, noteScript, serverOrigin, tabStorage, watchPage } from '../src/global';

afterEach(() => {
  vi.unstubAllGlobals();
  noteScript('about:blank');
});

describe('the server', () => {
  it('is the one given, else the origin of the script, else of the page', () => {
    expect(serverOrigin()).toBe('');
    vi.stubGlobal('window', { location: { href: 'http://page.example/x' } });
    expect(serverOrigin()).toBe('http://page.example');
    noteScript('https://host:7102/knowledgetalk.mjs?v=1');
    expect(serverOrigin()).toBe('https://host:7102');
    expect(serverOrigin('https://other/path')).toBe('https://other');
  });

  it('is read from the script tag while the script runs', () => {
    vi.stubGlobal('document', { currentScript: { src: 'https://tag:7102/knowledgetalk.min.js' } });
    noteScript();
    vi.stubGlobal('document', { currentScript: null });
    noteScript();
    expect(serverOrigin()).toBe('https://tag:7102');
  });

  it.each(['nonsense', 'file:///x', 'blob:https://x/1', ''])('is not %j', (given) => {
    vi.stubGlobal('window', { location: { href: 'https://page.example/' } });
    expect(serverOrigin(given)).toBe('https://page.example');
  });
});

it('does without a browser', () => {
  expect(isSecure()).toBe(true);
  expect(tabStorage.take('x')).toBeNull();
  watchPage({ gone: () => undefined, back: () => undefined, wake: () => undefined, network: () => undefined })();
});

describe('the network', () => {
  /** A page in a browser that tells these types of network, one after the other. */
  const watched = (first?: string) => {
    const connection = Object.assign(new EventTarget(), { type: first });
    const target = Object.assign(new EventTarget(), { navigator: { connection }, document: Object.assign(new EventTarget(), { visibilityState: 'visible' }) });
    vi.stubGlobal('window', target);
    const told: string[] = [];
    const unwatch = watchPage({ gone: () => undefined, back: () => undefined, wake: () => told.push('wake'), network: () => told.push('network') });
    const online = () => target.dispatchEvent(new Event('online'));
    const change = (type?: string) => {
      connection.type = type;
      connection.dispatchEvent(new Event('change'));
    };
    return { told, unwatch, online, change };
  };

  it('is another when it is back, or of another type', () => {
    const { told, online, change } = watched('wifi');
    change('cellular');
    expect(told).toEqual(['network']);
    change('none');
    online();
    change('wifi');
    expect(told).toEqual(['network', 'wake', 'network', 'wake']);
  });

  it.each([undefined, 'wifi'])('is none for another estimate of its speed (type %s)', (type) => {
    const { told, change } = watched(type);
    change(type);
    expect(told).toEqual(['wake']);
  });

  it('is not listened to when that is over', () => {
    const { told, unwatch, online, change } = watched('wifi');
    unwatch();
    online();
    change('cellular');
    expect(told).toEqual([]);
  });
});

it('does without storage where a page may not have it', () => {
  vi.stubGlobal('window', { get sessionStorage(): Storage { throw new Error('SecurityError'); } });
  tabStorage.put('x', 'y');
  expect(tabStorage.take('x')).toBeNull();
});
