/** The only file that names the page: window, document, navigator, sessionStorage. Everything else runs without a browser. */

const page = (): (Window & typeof globalThis) | undefined => (typeof window === 'undefined' ? undefined : window);

let script = '';

/** Notes where the SDK's script came from. Called while the script runs: `document.currentScript` is null afterwards. */
export function noteScript(url?: string): void {
  const current = typeof document === 'undefined' ? null : document.currentScript;
  script = url || (current && 'src' in current ? current.src : '') || script;
}

/** Origin of the server: the one given, else the script's, else the page's. '' when there is none. */
export function serverOrigin(given?: string): string {
  for (const url of [given, script, page()?.location.href]) {
    if (!url) continue;
    try {
      const { protocol, host } = new URL(url);
      if (protocol === 'https:' || protocol === 'http:') return `${protocol}//${host}`;
    } catch {
      // Not an address: try the next source.
    }
  }
  return '';
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

/** Storage of this tab. Access itself may throw (blocked cookies, sandboxed frames): then there is none. */
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

/** Listens to the life of the page. Returns the way out. */
export function watchPage(events: PageEvents): () => void {
  const target = page();
  if (!target) return () => undefined;
  const gone = () => events.gone();
  const back = (event: PageTransitionEvent) => event.persisted && events.back();
  const wake = () => isHidden() || events.wake();
  const network = () => events.network();
  // Not everywhere, and not in TypeScript's own library. Desktops tell no type: there a change is mostly another estimate of the speed.
  const connection = (target.navigator as Navigator & { connection?: EventTarget & { type?: string } } | undefined)?.connection;
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

/** Makes a name known to the page's other scripts. */
export function expose(name: string, value: unknown): void {
  const target = page();
  if (target) Object.assign(target, { [name]: value });
}
