import type { Result } from '../types/knowledgetalk';

/** A failure as public methods return it: code for programs, sentence and hint for people. */
export type Failure = Result & { message: string };

/**
 * Codes made by the SDK, as [message, hint]. All others come from the server, with its sentences.
 */
const texts: Record<string, [string, string?]> = {
  '410': ['Not registered.', 'Call init() first and wait for its result.'],
  '429': ['Too many requests.', 'Wait before trying again.'],
  '500': ['The server failed.', 'Try again; see the server log.'],
  '504': ['No answer from the server in time.', 'Check the network and that the server runs.'],
};

/** Builds a failure; message and hint default to those of the code. */
export function failure(code: string, message?: string, hint?: string): Failure {
  const [text, advice] = texts[code] ?? [`Failed with code ${code}.`];
  const result: Failure = { code, message: message || text };
  const help = hint ?? (message ? undefined : advice);
  if (help) result.hint = help;
  return result;
}

export const missing = (name: string, call: string): Failure =>
  failure('421', `Parameter ${name} is missing.`, `Call it as ${call}.`);
export const invalid = (name: string, what: string): Failure =>
  failure('422', `Parameter ${name} is not valid.`, `${name} is ${what}.`);

/** The server was never reached within the limit. */
export function unreachable(origin: string): Failure {
  return failure('504', `No answer from ${origin}.`,
    'Check that the server runs at this address (option `server`). '
    + 'Open it in the browser once: that shows a firewall, '
    + 'or a certificate to accept.');
}

export const insecureHint = 'Browsers allow camera and microphone only on https or localhost.';

/** Why a connection failed or broke: [message, hint], by the reason in `peerState`. */
const reasons = {
  'not-registered': ['init() has not succeeded yet.', 'Call init() first and wait for its result.'],
  'not-in-room': ['The target is not in this room.', 'Both users must join the same room first.'],
  'no-room': ['Not in a room.', 'Call joinRoom(roomId) first.'],
  self: ['The target is this user.', 'Give the id of another member.'],
  'bad-type': [
    "The type is neither 'cam' nor 'screen'.",
    "Call publishP2P(target, 'cam', stream).",
  ],
  'bad-stream': [
    'The stream is no MediaStream with a live track.',
    'Pass what getUserMedia or getDisplayMedia resolved with.',
  ],
  'no-webrtc': [
    'There is no WebRTC here.',
    'Publish from a page whose browser has RTCPeerConnection and does not block it.',
  ],
  'no-answer': [
    'The target does not answer.',
    'Its page may be frozen or offline. Publish again when it is back.',
  ],
  'ice-failed': [
    'No candidate pair works.',
    'No direct and no relayed path was found. '
    + 'Check that both users reach the relay over UDP or TCP.',
  ],
  broken: [
    'The connection could not be set up.',
    'The browser rejected a description; see its console.',
  ],
  replaced: [
    'Another page took this user id over.',
    'Close one of the two pages, or call init() again.',
  ],
  'session-ended': ['The session ended.', 'Call init() again.'],
  left: ['The target left the room.', 'Publish again when it comes back.'],
  removed: ['The publication was removed before it was connected.', ''],
  'path-dead': ['No packets get through; switching to another path.', ''],
  interrupted: ['The connection is interrupted; reconnecting.', ''],
} as const;

export type Reason = keyof typeof reasons;

export function explain(reason: Reason | ''): { message: string; hint: string } {
  const [message, hint] = reason ? reasons[reason] : ['', ''];
  return { message, hint };
}

/** The same as the answer of a call. */
export function failureFor(code: string, reason: Reason): Failure {
  const { message, hint } = explain(reason);
  return failure(code, message, hint);
}
