/**
 * The only file that names window, document, navigator and sessionStorage. Everything else runs
 * without a browser.
 */

const page = (): (Window & typeof globalThis) | undefined =>
  typeof window === 'undefined' ? undefined : window;

let script = '';

/** Loads the file that polls, for the server with that address. */
let polling: ((base: string) => Promise<unknown>) | undefined;

/**
 * Notes where the SDK's script came from, and how it loads the file that polls. Called while the
 * script runs: `document.currentScript` is null afterwards.
 */
export function noteScript(load?: (base: string) => Promise<unknown>): void {
  const current = typeof document === 'undefined' ? null : document.currentScript;
  script = current && 'src' in current ? current.src : '';
  polling = load;
}

/**
 * The same for the SDK's module. Under another name than our own it is part of a bundle, whose
 * address says nothing.
 */
export function noteModule(url: unknown, load: () => Promise<unknown>): void {
  script = /\/knowledgetalk\.mjs(?:[?#]|$)/.test(`${url}`) ? `${url}` : '';
  polling = load;
}

export const loadPolling = async <T>(base: string): Promise<T> => (await polling?.(base)) as T;

/** The folder of the script, with a slash at its end; '' when it came from nowhere. */
export const scriptFolder = (): string =>
  /^https?:/.test(script) ? script.replace(/[?#].*/, '').replace(/[^/]*$/, '') : '';

/**
 * What ends the address of a script that a server of ours hands out; the server may be under a path
 * of another site.
 */
const SERVED = /\/(?:knowledgetalk|socket\.io\/socket\.io)\.[^/]*$/;
/** Where copies of the npm package are: a development server, or a CDN of packages. */
const PACKED = '/@ieum-rtc/sdk';

/**
 * Address of the server, without a slash at its end: the one given, else where the script came
 * from. A script of another name may be a copy or stand behind a proxy: then it tells the host. ''
 * for a given one that is not http(s); undefined when nothing tells.
 */
export function serverBase(given?: unknown): string | undefined {
  const named = given !== undefined && given !== null && given !== '';
  try {
    const { protocol, origin, pathname } = new URL(named ? `${given}` : script);
    if (!/^https?:$/.test(protocol)) return named ? '' : undefined;
    const base = origin + pathname.replace(SERVED, '').replace(/\/+$/, '');
    if (named) return base;
    if (pathname.includes(PACKED)) return undefined;
    return SERVED.test(pathname) ? base : origin;
  } catch {
    return named ? '' : undefined;
  }
}

/** The page's address without its fragment, which changes without a reload. */
export function pageAddress(): string {
  return (page()?.location.href ?? '').split('#')[0] ?? '';
}

/** False only in a browser that withholds the camera from this page. */
export function isSecure(): boolean {
  return page()?.isSecureContext ?? true;
}

/** Whether timers of this page are being throttled. */
export function isHidden(): boolean {
  return typeof document !== 'undefined' && document.visibilityState === 'hidden';
}

/** Whether the user has clicked or typed: before that, browsers keep sound silent. */
export function hasUserActed(): boolean {
  return typeof navigator === 'undefined' || (navigator.userActivation?.hasBeenActive ?? true);
}

/** For the few things in which WebRTC differs, and that cannot be asked for. */
export function isFirefox(): boolean {
  return typeof navigator !== 'undefined' && /Firefox/.test(navigator.userAgent);
}

/**
 * Storage of this tab. Access may throw (blocked cookies, sandboxed frames): then there is none.
 */
export const tabStorage = {
  put(key: string, value: string): void {
    try {
      page()?.sessionStorage.setItem(key, value);
    } catch {
      // Without storage a reload gets a new user id; nothing else is lost.
    }
  },
  /** Reads and removes. */
  take(key: string): string | null {
    try {
      const storage = page()?.sessionStorage;
      const value = storage?.getItem(key) ?? null;
      if (value !== null) storage?.removeItem(key);
      return value;
    } catch {
      return null;
    }
  },
};

/** Posts text that outlives the page. */
export function beacon(url: string, text: string): void {
  try {
    if (typeof navigator !== 'undefined') navigator.sendBeacon?.(url, text);
  } catch {
    // The closing socket tells the server as well.
  }
}

export interface PageEvents {
  /** The page goes: closed, navigated away, or put into the back-forward cache. */
  gone(): void;
  /** It came back out of that cache. */
  back(): void;
  /** Something suggests that the network or the timers work again. */
  wake(): void;
  /** The device uses another network, or its network is back. */
  network(): void;
}

/** Watches page lifecycle and network. Returns the function that stops it. */
export function watchPage(events: PageEvents): () => void {
  const target = page();
  if (!target) return () => undefined;
  const gone = () => events.gone();
  const back = (event: PageTransitionEvent) => event.persisted && events.back();
  const wake = () => isHidden() || events.wake();
  const network = () => events.network();
  // Not in every browser, nor in the library of TypeScript. Desktops have no type: there a
  // change is mostly a new estimate of the speed.
  const connection = (
    target.navigator as (Navigator & { connection?: EventTarget & { type?: string } }) | undefined
  )?.connection;
  let type = connection?.type;
  const change = () => {
    const before = type;
    type = connection?.type;
    // Where there is none, or was none, 'online' tells.
    if (before === type || before === 'none' || type === 'none') wake();
    else network();
  };
  connection?.addEventListener('change', change);
  target.addEventListener('pagehide', gone);
  target.addEventListener('pageshow', back);
  target.addEventListener('online', network);
  target.document.addEventListener('visibilitychange', wake);
  return () => {
    target.removeEventListener('pagehide', gone);
    target.removeEventListener('pageshow', back);
    target.removeEventListener('online', network);
    connection?.removeEventListener('change', change);
    target.document.removeEventListener('visibilitychange', wake);
  };
}

/** Makes a name known to other scripts, in a page or a worker. */
export function expose(name: string, value: unknown): void {
  Object.assign(globalThis, { [name]: value });
}
