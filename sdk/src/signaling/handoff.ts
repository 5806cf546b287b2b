import { pageAddress, tabStorage } from '../global';

/** What a page that goes leaves to the next page of the same tab: enough to take its user id over. */
export interface Handoff {
  userId: string;
  resume: string;
}

/**
 * Frames of one origin share the storage and a duplicated tab gets a copy, so the record exists only between `pagehide` and the next
 * `init`, under a key that differs for each page and wished id, and is removed when read: a second claimant finds nothing.
 */
const key = (cpCode: string, wished: string) => `ieum:${JSON.stringify([cpCode, wished, pageAddress()])}`;

export function leaveHandoff(cpCode: string, wished: string, handoff: Handoff): void {
  tabStorage.put(key(cpCode, wished), JSON.stringify(handoff));
}

export function takeHandoff(cpCode: string, wished: string): Handoff | null {
  try {
    const record = JSON.parse(tabStorage.take(key(cpCode, wished)) ?? 'null');
    return typeof record?.userId === 'string' && typeof record.resume === 'string' ? record : null;
  } catch {
    return null;
  }
}
