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

type Listener = (message: any) => void;

/** Listeners by event name. A listener that throws does not keep the others from hearing. */
export class Emitter {
  private readonly listeners = new Map<string, Map<Listener, boolean>>();

  on(event: string, listener: Listener): this {
    return this.add(event, listener, false);
  }

  once(event: string, listener: Listener): this {
    return this.add(event, listener, true);
  }

  off(event: string, listener?: Listener): this {
    if (listener) this.listeners.get(event)?.delete(listener);
    else this.listeners.delete(event);
    return this;
  }

  fire(event: string, message: unknown): void {
    const listeners = this.listeners.get(event);
    for (const [listener, once] of [...(listeners ?? [])]) {
      if (once) listeners?.delete(listener);
      try {
        listener(message);
      } catch (error) {
        console.error(error);
      }
    }
  }

  private add(event: string, listener: Listener, once: boolean): this {
    if (typeof listener !== 'function') return this;
    const listeners = this.listeners.get(event) ?? new Map<Listener, boolean>();
    listeners.set(listener, once);
    this.listeners.set(event, listeners);
    return this;
  }
}
