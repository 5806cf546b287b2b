import type { Presence } from '../types/knowledgetalk';

/** Presence events kept for a first listener. A bound for apps that never listen. */
const KEPT = 256;

/**
 * Keeps presence events until there is a listener, then delivers them in order. Delivery of what
 * was kept happens in a microtask, after the code that added the listener has run on; what arrives
 * in between queues behind it.
 */
export class Backlog {
  private kept: Presence[] | null = [];

  constructor(private readonly dispatch: (event: Presence) => void) {}

  push(event: Presence): void {
    // Plain JSON, and the app's own: what it changes in there changes nothing here.
    const own = JSON.parse(JSON.stringify(event)) as Presence;
    if (!this.kept) return this.dispatch(own);
    this.kept.push(own);
    if (this.kept.length > KEPT) this.kept.shift();
  }

  /** The first listener is there. */
  open(): void {
    if (!this.kept) return;
    queueMicrotask(() => {
      const kept = this.kept ?? [];
      // A handler may publish, and events may arrive while the kept ones go out: they go last.
      for (let event = kept.shift(); event; event = kept.shift()) this.dispatch(event);
      this.kept = null;
    });
  }
}

export type Listener = (...args: any[]) => void;

/** What a listener throws must not keep the others from hearing. */
export function call(listener: Listener, args: unknown[]): void {
  try {
    listener(...args);
  } catch (error) {
    console.error(error);
  }
}

/** Listeners by event name, as Socket.IO has them: who is added twice hears twice. */
export class Emitter {
  private readonly listeners = new Map<string, { listener: Listener; once: boolean }[]>();

  on(event: string, listener: Listener, once = false): this {
    if (typeof listener !== 'function') return this;
    this.listeners.set(event, [...(this.listeners.get(event) ?? []), { listener, once }]);
    return this;
  }

  once(event: string, listener: Listener): this {
    return this.on(event, listener, true);
  }

  /** Removes one listener, all of an event, or all. */
  off(event?: string, listener?: Listener): this {
    if (event === undefined) this.listeners.clear();
    else this.keep(event, (entry) => listener !== undefined && entry.listener !== listener);
    return this;
  }

  fire(event: string, ...args: unknown[]): void {
    for (const entry of this.listeners.get(event) ?? []) {
      if (entry.once) this.keep(event, (each) => each !== entry);
      call(entry.listener, args);
    }
  }

  /** Another list: the one that is being gone through stays. */
  private keep(event: string, stays: (entry: { listener: Listener }) => boolean): void {
    this.listeners.set(event, (this.listeners.get(event) ?? []).filter(stays));
  }
}
