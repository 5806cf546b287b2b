import type { Result } from '../types/knowledgetalk';

/** A failure as public methods return it: code for programs, sentence and hint for people. */
export type Failure = Result & { message: string };

/** Codes that the SDK makes itself, as [message, hint]. All others come from the server, with its sentences. */
const texts: Record<string, [string, string?]> = {
  '410': ['Not registered.', 'Call init() first and wait for its result.'],
  '429': ['Too many requests.', 'Wait a little before trying again.'],
  '500': ['The server failed.', 'Try again; the log of the server says more.'],
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

export const missing = (name: string, call: string): Failure => failure('421', `Parameter ${name} is missing.`, `Call it as ${call}.`);
export const invalid = (name: string, what: string): Failure => failure('422', `Parameter ${name} is not valid.`, `${name} is ${what}.`);

/** The server was never reached within the limit. */
export function unreachable(origin: string): Failure {
  return failure('504', `No answer from ${origin || 'the server'}.`,
    'Check that the server runs and that its address is right (the option `server` sets it). Open it in the browser once: '
    + 'a self-signed certificate must be accepted there, and a firewall shows.');
}

export const insecureHint = 'Browsers give camera and microphone only to pages on https or localhost: open this page that way.';

/** Why a connection to a user did not come about or broke: [message, hint], by the reason that `peerState` carries. */
const reasons = {
  'not-registered': ['init() has not succeeded yet.', 'Call init() first and wait for its result.'],
  'not-in-room': ['The target is not in this room.', 'Both users must have joined the same room before publishP2P.'],
  'no-room': ['Not in a room.', 'Call joinRoom(roomId) first.'],
  self: ['The target is the caller itself.', 'Give the id of another member.'],
  'bad-type': ["The type is neither 'cam' nor 'screen'.", "Call publishP2P(target, 'cam', stream)."],
  'bad-stream': ['The stream is no MediaStream with a live track.', 'Pass what getUserMedia or getDisplayMedia resolved with.'],
  'no-webrtc': [
    'There is no WebRTC here.',
    'Publish from a page in a browser that has RTCPeerConnection: some block it, and Node and workers have none.',
  ],
  'no-answer': ['The target does not answer.', 'Its page may be frozen or its network down; publish again when it is back.'],
  'ice-failed': ['No candidate pair works.', 'Neither a direct nor a relayed path was found: check that the relay is reachable (UDP and TCP) from both.'],
  broken: ['The connection could not be set up.', 'The browser refused a description; its console says more.'],
  replaced: ['Another page took this user id over.', 'Close one of the two pages, or call init() again.'],
  'session-ended': ['The session ended.', 'Call init() again.'],
  left: ['The target left the room.', 'Publish again when it comes back.'],
  removed: ['The publication was taken back before it was connected.', ''],
  'path-dead': ['No packets pass any more; another path is being taken.', ''],
  interrupted: ['The connection is interrupted; it is being restored.', ''],
} as const;

export type Reason = keyof typeof reasons;

export function explain(reason: Reason | ''): { message: string; hint: string } {
  const [message, hint] = reason ? reasons[reason] : ['', ''];
  return { message, hint };
}
