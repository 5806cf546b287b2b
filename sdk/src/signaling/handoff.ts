import { pageAddress, tabStorage } from '../global';

/**
 * What an unloading page leaves to the next page of the same tab: enough to take over its user id.
 */
export interface Handoff {
  userId: string;
  resume: string;
}

/**
 * Frames of one origin share the storage and a duplicated tab gets a copy. So the record exists
 * only between `pagehide` and the next `init`, under a key of page, server, tenant and wanted id.
 * It is removed when read: a second reader finds nothing.
 */
const key = (whose: string[]) => `ieum:${JSON.stringify([...whose, pageAddress()])}`;

/** `whose`: server, tenant and wanted id. */
export function leaveHandoff(whose: string[], handoff: Handoff): void {
  tabStorage.put(key(whose), JSON.stringify(handoff));
}

export function takeHandoff(whose: string[]): Handoff | null {
  try {
    const record = JSON.parse(tabStorage.take(key(whose)) ?? 'null');
    return typeof record?.userId === 'string' && typeof record.resume === 'string' ? record : null;
  } catch {
    return null;
  }
}
