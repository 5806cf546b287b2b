import { loadPolling } from '../global';
import type { WebSocketLike } from './connection';

/** What knowledgetalk.polling.mjs exports. */
export interface PollingModule {
  open(base: string, resumes: boolean): WebSocketLike;
}

export type Carrier = (resumes: boolean) => WebSocketLike;

/** Milliseconds in which the server has to answer a plain request. */
const PATIENCE = 5_000;

/**
 * The way to a server whose WebSocket does not open. Null when it does not answer plain requests either, as while
 * it restarts, and when the file that polls cannot be loaded.
 */
export async function fallback(base: string): Promise<Carrier | null> {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), PATIENCE);
  try {
    // Without parameters: answered with 400, and no session begins. A proxy whose server is away says 502 to 504.
    const { status } = await fetch(`${base}/socket.io/`, { cache: 'no-store', signal: abort.signal });
    if (status > 500) return null;
    const { open } = await loadPolling<PollingModule>(base);
    return (resumes) => open(base, resumes);
  } catch {
    return null;
  } finally {
    clearTimeout(timer);
  }
}
