import { loadPolling } from '../global';
import type { WebSocketLike } from './connection';

/** What knowledgetalk.polling.mjs exports. */
export interface PollingModule {
  open(base: string, resumes: boolean): WebSocketLike;
}

/** Opens a connection over another transport than WebSocket. */
export type OpenTransport = (resumes: boolean) => WebSocketLike;

/** Time limit for the answer to a plain request, in milliseconds. */
const PATIENCE = 5_000;

/**
 * The transport for a server whose WebSocket does not open. Null when plain requests fail too, as
 * during a restart, or when the polling module cannot be loaded.
 */
export async function fallback(base: string): Promise<OpenTransport | null> {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), PATIENCE);
  try {
    // Without parameters it is answered with 400, and no session begins. A proxy answers 502 to 504
    // while its server is away.
    const { status } = await fetch(`${base}/socket.io/`, {
      cache: 'no-store',
      signal: abort.signal,
    });
    if (status > 500) return null;
    const { open } = await loadPolling<PollingModule>(base);
    return (resumes) => open(base, resumes);
  } catch {
    return null;
  } finally {
    clearTimeout(timer);
  }
}
