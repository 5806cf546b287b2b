import type { PeerStateEvent } from '../../types/knowledgetalk';
import type { Reason } from '../errors';

export type Report = (state: PeerStateEvent['state'], reason: Reason | '') => void;

/** Tells each change once, and every failure. */
export function changes(report: Report): Report {
  let last = '';
  return (state, reason) => {
    if (last === state && state !== 'failed') return;
    last = state;
    report(state, reason);
  };
}
