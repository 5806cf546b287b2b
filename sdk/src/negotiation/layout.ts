import type { MediaType } from '../../types/knowledgetalk';

/**
 * The fixed m-lines of a connection, in this order, in every generation: the smaller user id
 * creates them, the other adopts them by their order. A publication uses its two, so that
 * publishing never renegotiates.
 */
export const LAYOUT: readonly { type: MediaType; kind: 'audio' | 'video' }[] = [
  { type: 'cam', kind: 'audio' },
  { type: 'cam', kind: 'video' },
  { type: 'screen', kind: 'audio' },
  { type: 'screen', kind: 'video' },
];

export const TYPES: readonly MediaType[] = ['cam', 'screen'];

/** The data channel, negotiated: both sides create it. */
export const CHANNEL = { label: 'ieum', id: 0 };
/** Unordered and unreliable (maxRetransmits 0), for heartbeats. */
export const HEARTBEATS = { label: 'beats', id: 1 };

/** Whether this side creates the connection: exactly one does. Ids are compared by code units. */
export const creates = (me: string, peer: string): boolean => me < peer;
