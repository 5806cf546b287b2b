/** The wire (docs/protocol.md) as types, and the guards for what arrives. */
import type { MediaType, Member, Members, Result, Share } from '../../types/knowledgetalk';

/** What this client announces at register. */
export const FEATURES: readonly string[] = ['pair', 'publish', 'candidates', 'roster'];
/** Announced besides, unless the app does without: others may have a connection ready for it. */
export const WARM = 'warm';
/** Announced where a backup connection may be kept. */
export const STANDBY = 'standby';

/** The server closes a socket that sends more. */
export const MAX_MESSAGE = 64 * 1024;

export type Json = Record<string, unknown>;
/** Written as JSON: fields that are undefined are not sent. */
export type Request = Json & { eventOp: string };

export interface Answer extends Json {
  eventOp: string;
  code: string;
  reqId?: string | number;
  message?: string;
  hint?: string;
}

export interface RoomInfo {
  roomId: string;
  title: string;
  capacity: number;
  createdAt: string;
  host: Member;
  members: Members;
  media: boolean;
  isRecording: boolean;
  talkingNoty: boolean;
  fileServerUrl: string;
  share?: Share;
  seq: number;
}

export interface RegisterAnswer {
  userId: string;
  iceServers: RTCIceServer[];
  resume: string;
  resumed: boolean;
  room?: RoomInfo;
}

/**
 * `seq` is missing in private messages, which have no place in the order of the room. `destroy`
 * concerns no user.
 */
export interface Push extends Json {
  eventOp: 'presence';
  type: string;
  roomId?: string;
  sender?: string;
  seq?: number;
  user?: unknown;
}

/**
 * Messages of one user to another. `gen` numbers the generations of a connection, `n` the offers of
 * one side in a generation. Descriptions and candidates of legacy clients belong to a `type`
 * instead.
 */
export type Signal =
  | {
      eventOp: 'sdp';
      gen: number;
      n: number;
      type?: MediaType;
      sdp: { type: 'offer' | 'answer'; sdp: string };
      link?: 'standby';
    }
  | {
      eventOp: 'candidate';
      gen: number;
      type?: MediaType;
      candidates: RTCIceCandidateInit[];
      link?: 'standby';
    }
  | {
      eventOp: 'publish';
      type: MediaType;
      epoch: number;
      rev: number;
      audio: boolean;
      video: boolean;
      gen: number;
    }
  | { eventOp: 'unpublish'; type: MediaType; epoch: number; owner?: string };

export type Incoming =
  | { kind: 'answer'; message: Answer }
  | { kind: 'push'; message: Push }
  | { kind: 'signal'; from: string; signal: Signal; message: Json }
  /** A user asks for a feed of ours. */
  | { kind: 'subscribe'; from: string; type: MediaType; message: Json }
  | { kind: 'other'; message: Json };

const isObject = (x: unknown): x is Json =>
  typeof x === 'object' && x !== null && !Array.isArray(x);
const isId = (x: unknown): x is string => typeof x === 'string' && x !== '' && x !== '__proto__';
const isText = (x: unknown): x is string => typeof x === 'string';
const isCount = (x: unknown): x is number =>
  Number.isSafeInteger(x) && (x as number) >= 0;
export const truth = (x: unknown): boolean => x === true || x === 'true';
const optional = (x: unknown, is: (x: unknown) => boolean): boolean => x === undefined || is(x);
const mediaType = (x: unknown): MediaType | undefined =>
  x === 'cam' || x === 'screen' ? x : undefined;

/** Parses one frame. Null: no JSON object, or one that is none of ours. */
export function parse(text: unknown): Incoming | null {
  if (typeof text !== 'string') return null;
  let message: unknown;
  try {
    message = JSON.parse(text);
  } catch {
    return null;
  }
  return isObject(message) ? classify(message) : null;
}

export function classify(message: Json): Incoming {
  if (typeof message.code === 'string' && typeof message.eventOp === 'string') {
    return { kind: 'answer', message: message as Answer };
  }
  if (message.eventOp === 'presence') {
    return isPush(message) ? { kind: 'push', message } : { kind: 'other', message };
  }
  const from = message.userId;
  if (!isId(from)) return { kind: 'other', message };
  const type = message.eventOp === 'subscribe' ? mediaType(message.type) : undefined;
  if (type) return { kind: 'subscribe', from, type, message };
  const signal = readSignal(message);
  return signal ? { kind: 'signal', from, signal, message } : { kind: 'other', message };
}

/**
 * The messages in a roster batch: joins and leaves of a busy room. All others get them one by one.
 */
export function spread(incoming: Incoming): Incoming[] {
  const { eventOp, type, events } = incoming.message as Json;
  if (eventOp !== 'presence' || type !== 'roster' || !Array.isArray(events)) return [incoming];
  return events.filter(isObject).map(classify);
}

/**
 * Any type passes: the server may have types unknown to this SDK. Those that change the roster must
 * be complete.
 */
function isPush(m: Json): m is Push {
  if (
    typeof m.type !== 'string'
    || !optional(m.roomId, isText)
    || !optional(m.sender, isId)
    || !optional(m.seq, isCount)
  ) {
    return false;
  }
  const roster = m.type === 'join' ? isMember(m.user) : m.type !== 'leave' || isId(m.user);
  return roster && (isCount(m.seq) || (m.type !== 'join' && m.type !== 'leave'));
}

/** Asks for a connection where there is none, and nothing to publish that would ask for it. */
export const NONE: Extract<Signal, { eventOp: 'candidate' }> = {
  eventOp: 'candidate',
  gen: 0,
  candidates: [],
};

/** What makes a connection, as against what is said of what it carries. */
export const negotiates = (
  signal: Signal,
): signal is Extract<Signal, { eventOp: 'sdp' | 'candidate' }> =>
  signal.eventOp === 'sdp' || signal.eventOp === 'candidate';

/** Reads a message of a peer, whichever way it came. Undefined when it is not understood. */
export function readSignal(m: Json): Signal | undefined {
  const gen = isCount(m.gen) ? m.gen : 0;
  const link = m.link === 'standby' ? { link: m.link } as const : {};
  switch (m.eventOp) {
    case 'sdp': {
      const sdp = m.sdp;
      if (
        !isObject(sdp)
        || typeof sdp.sdp !== 'string'
        || (sdp.type !== 'offer' && sdp.type !== 'answer')
      ) {
        return undefined;
      }
      return {
        eventOp: 'sdp',
        gen,
        n: isCount(m.n) ? m.n : 0,
        type: mediaType(m.type) ?? 'cam',
        sdp: { type: sdp.type, sdp: sdp.sdp },
        ...link,
      };
    }
    case 'candidate': {
      const list = Array.isArray(m.candidates) ? m.candidates : [m.candidate];
      if (!list.every(isObject)) return undefined;
      const type = mediaType(m.type) ?? (truth(m.cam ?? true) ? 'cam' : 'screen');
      return {
        eventOp: 'candidate',
        gen,
        type,
        candidates: list as RTCIceCandidateInit[],
        ...link,
      };
    }
    case 'publish':
    case 'unpublish': {
      const type = mediaType(m.type);
      if (!type || !isCount(m.epoch)) return undefined;
      if (m.eventOp === 'unpublish') {
        return {
          eventOp: 'unpublish',
          type,
          epoch: m.epoch,
          ...(isId(m.owner) ? { owner: m.owner } : {}),
        };
      }
      const rev = isCount(m.rev) ? m.rev : 0;
      return {
        eventOp: 'publish',
        type,
        epoch: m.epoch,
        rev,
        audio: truth(m.audio),
        video: truth(m.video),
        gen,
      };
    }
    default:
      return undefined;
  }
}

/** A signal as the wire wants it. `several`: the target takes several candidates in one message. */
export function encodeSignal(signal: Signal, target: string, several: boolean): Request[] {
  if (signal.eventOp === 'publish' || signal.eventOp === 'unpublish') {
    return [{ ...signal, target }];
  }
  const type = signal.type ?? 'cam';
  const common = { target, type, gen: signal.gen, link: signal.link ?? 'main' };
  if (signal.eventOp === 'candidate' && !several) {
    return signal.candidates.map((candidate) => ({
      eventOp: 'candidate',
      candidate,
      cam: type === 'cam',
      ...common,
    }));
  }
  return [{ ...signal, ...common }];
}

export function isMember(x: unknown): x is Member {
  return isObject(x) && isId(x.id) && (x.features === undefined || Array.isArray(x.features));
}

export function isRoom(x: unknown): x is RoomInfo {
  return (
    isObject(x)
    && isId(x.roomId)
    && isCount(x.seq)
    && isObject(x.members)
    && Object.values(x.members).every(isMember)
  );
}

/** Reads the answer to register; null when it does not hold what the session needs. */
export function readRegister(a: Answer): RegisterAnswer | null {
  if (a.code !== '200' || !isId(a.userId) || typeof a.resume !== 'string') return null;
  return {
    userId: a.userId,
    iceServers: Array.isArray(a.iceServers)
      ? (a.iceServers.filter(isObject) as unknown as RTCIceServer[])
      : [],
    resume: a.resume,
    resumed: a.resumed === true,
    ...(isRoom(a.room) ? { room: a.room } : {}),
  };
}

/** Code, sentence and hint of an answer, without what belongs to the wire. */
export function result({ code, message, hint }: Answer): Result {
  return { code, ...(message ? { message } : {}), ...(hint ? { hint } : {}) };
}
