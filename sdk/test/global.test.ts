import { afterEach, describe, expect, it, vi } from 'vitest';
import {
  expose,
  isSecure,
  noteModule,
  noteScript,
  scriptFolder,
  serverBase,
  tabStorage,
  watchPage,
} from '../src/global';

afterEach(() => {
  vi.unstubAllGlobals();
  noteScript();
});

/** Runs a script tag with this address. */
const tag = (src?: string) => {
  vi.stubGlobal('document', { currentScript: src === undefined ? {} : { src } });
  noteScript();
  vi.stubGlobal('document', { currentScript: null });
};

describe('the server', () => {
  it.each([
    ['https://host:7102/knowledgetalk.min.js', 'https://host:7102'],
    ['https://host:7102/knowledgetalk.min.js?v=1#x', 'https://host:7102'],
    ['https://site/calls/knowledgetalk.min.js', 'https://site/calls'],
    ['https://site/a/b/knowledgetalk.min.js', 'https://site/a/b'],
    ['https://site/calls/socket.io/socket.io.min.js', 'https://site/calls'],
    ['https://host/socket.io/socket.io.js', 'https://host'],
    // A copy, or part of a classic bundle of an app: only the host can be meant.
    ['https://site/js/vendor.js', 'https://site'],
    ['https://unpkg.com/@ieum-rtc/sdk@1/dist/knowledgetalk.min.js', undefined],
    ['blob:https://site/1', undefined],
    ['', undefined],
    [undefined, undefined],
  ])('of the script tag %s is %s', (src, base) => {
    vi.stubGlobal('window', { location: { href: 'https://page.example/x' } });
    tag(src);
    expect(serverBase()).toBe(base);
  });

  it.each([
    ['https://host:7102/knowledgetalk.mjs', 'https://host:7102'],
    ['https://site/calls/knowledgetalk.mjs?v=1', 'https://site/calls'],
    // Bundled: the address is that of the app.
    ['http://localhost:5173/node_modules/.vite/deps/@ieum-rtc_sdk.js?v=1', undefined],
    ['http://localhost:5173/node_modules/@ieum-rtc/sdk/dist/knowledgetalk.mjs', undefined],
    ['https://app.example/assets/index-1a2b.js', undefined],
    ['file:///app/node_modules/@ieum-rtc/sdk/dist/knowledgetalk.mjs', undefined],
    ['file:///app/knowledgetalk.mjs', undefined],
    [undefined, undefined],
  ])('of the module %s is %s', (url, base) => {
    tag('https://app.example/bundle.js');
    noteModule(url, async () => null);
    expect(serverBase()).toBe(base);
  });

  it.each([
    ['https://other', 'https://other'],
    ['https://other/', 'https://other'],
    ['https://other/calls', 'https://other/calls'],
    ['https://user:word@other:1/a/b//?q=1#f', 'https://other:1/a/b'],
    ['http://[::1]:7102', 'http://[::1]:7102'],
    [new URL('https://other/calls/'), 'https://other/calls'],
    ['https://other/calls/knowledgetalk.min.js', 'https://other/calls'],
    ['nonsense', ''],
    ['host:7102', ''],
    ['file:///x', ''],
    ['blob:https://x/1', ''],
    ['ws://x', ''],
    [Symbol('x'), ''],
  ])('given as %s is %j, wherever the script came from', (given, base) => {
    tag('https://site/calls/knowledgetalk.min.js');
    expect(serverBase(given)).toBe(base);
  });

  it('is that of the script when none is given', () => {
    tag('https://site/calls/knowledgetalk.min.js');
    expect([undefined, null, ''].map(serverBase)).toEqual(Array(3).fill('https://site/calls'));
  });
});

it.each([
  ['https://site/calls/knowledgetalk.min.js?v=a/b', 'https://site/calls/'],
  ['https://site/x.js#/y', 'https://site/'],
  ['blob:https://x/1', ''],
  ['', ''],
])('the folder of %s is %j', (src, folder) => {
  tag(src);
  expect(scriptFolder()).toBe(folder);
});

it('exposes names without a window, as in a worker', () => {
  expose('ieumTest', 1);
  expect((globalThis as { ieumTest?: number }).ieumTest).toBe(1);
});

it('works without a browser', () => {
  expect(isSecure()).toBe(true);
  expect(tabStorage.take('x')).toBeNull();
  watchPage({
    gone: () => undefined,
    back: () => undefined,
    wake: () => undefined,
    network: () => undefined,
  })();
});

describe('a network', () => {
  /** A page whose browser reports these network types, one after the other. */
  const watched = (first?: string) => {
    const connection = Object.assign(new EventTarget(), { type: first });
    const target = Object.assign(new EventTarget(), {
      navigator: { connection },
      document: Object.assign(new EventTarget(), { visibilityState: 'visible' }),
    });
    vi.stubGlobal('window', target);
    const told: string[] = [];
    const unwatch = watchPage({
      gone: () => undefined,
      back: () => undefined,
      wake: () => told.push('wake'),
      network: () => told.push('network'),
    });
    const online = () => target.dispatchEvent(new Event('online'));
    const change = (type?: string) => {
      connection.type = type;
      connection.dispatchEvent(new Event('change'));
    };
    return { told, unwatch, online, change };
  };

  it('has changed when it is back, or its type is different', () => {
    const { told, online, change } = watched('wifi');
    change('cellular');
    expect(told).toEqual(['network']);
    change('none');
    online();
    change('wifi');
    expect(told).toEqual(['network', 'wake', 'network', 'wake']);
  });

  it.each([undefined, 'wifi'])(
    'has not changed for a new estimate of its speed (type %s)',
    (type) => {
      const { told, change } = watched(type);
      change(type);
      expect(told).toEqual(['wake']);
    },
  );

  it('is not watched after the end', () => {
    const { told, unwatch, online, change } = watched('wifi');
    unwatch();
    online();
    change('cellular');
    expect(told).toEqual([]);
  });
});

it('works without storage', () => {
  vi.stubGlobal('window', { get sessionStorage(): Storage { throw new Error('SecurityError'); } });
  tabStorage.put('x', 'y');
  expect(tabStorage.take('x')).toBeNull();
});
