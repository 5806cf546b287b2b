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

it('tells of another network, and listens no more when it is told so', () => {
  const [online, connection] = [new EventTarget(), new EventTarget()];
  const target = Object.assign(online, { navigator: { connection }, document: Object.assign(new EventTarget(), { visibilityState: 'visible' }) });
  vi.stubGlobal('window', target);
  const told: string[] = [];
  const unwatch = watchPage({ gone: () => undefined, back: () => undefined, wake: () => told.push('wake'), network: () => told.push('network') });
  online.dispatchEvent(new Event('online'));
  connection.dispatchEvent(new Event('change'));
  expect(told).toEqual(['wake', 'network', 'wake', 'network']);
  unwatch();
  online.dispatchEvent(new Event('online'));
  connection.dispatchEvent(new Event('change'));
  expect(told).toHaveLength(4);
});

it('does without storage where a page may not have it', () => {
  vi.stubGlobal('window', { get sessionStorage(): Storage { throw new Error('SecurityError'); } });
  tabStorage.put('x', 'y');
  expect(tabStorage.take('x')).toBeNull();
});
