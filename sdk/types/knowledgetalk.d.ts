/**
 * Ieum browser SDK: peer-to-peer calls with the Knowledgetalk surface.
 *
 * Codes are strings: '200' is success. A method that returns `{code}` never rejects for a documented failure; it resolves with the code,
 * a sentence (`message`) and, where there is something to do about it, a `hint`. Every method has a time limit.
 */

/** What a publication shows: the camera (with microphone) or a shared screen. */
export type MediaType = 'cam' | 'screen';

/** What a member may do in a room. */
export interface Permit {
  screen: boolean;
  chat: boolean;
  whiteboard: boolean;
  draw: boolean;
  document: boolean;
}

/** One user of a room. */
export interface Member {
  id: string;
  /** Repeats `id`. */
  userId: string;
  name: string;
  userType: 'host' | 'guest';
  device: string;
  /** Whether the user says that camera and microphone are on. */
  video: boolean;
  audio: boolean;
  publishing: boolean;
  /** Repeats `publishing`, in the original's spelling. */
  pulishing: boolean;
  permit: Permit;
  /** What the user's client can do. None: a client that speaks the raw protocol. */
  features?: string[];
}

/** Members by user id, in order of joining. */
export type Members = { [userId: string]: Member };

/** Result of a request. `code` '200' is success; everything else comes with a sentence and, where it helps, a hint. */
export interface Result {
  /**
   * 200 ok · 400 bad request · 401 not authenticated · 403 no such user, or no common room · 404 unknown operation · 409 user id in use ·
   * 410 not registered · 413 no permission · 421 parameter missing · 422 parameter invalid · 429 too many requests · 441 no such room ·
   * 442 already in a room · 443 room exists · 444 room full · 445 over the limit · 500 internal · 504 no answer in time.
   */
  code: string;
  /** One sentence for people. */
  message?: string;
  /** What to do about it. */
  hint?: string;
}

export interface InitResult extends Result {
  /** The id others know this user by; '' on failure. */
  userId: string;
}

export interface CreateRoomResult extends Result {
  /** The room's id; '' on failure. */
  roomId: string;
}

export interface JoinRoomResult extends Result {
  /** These fields exist when `code` is '200'. */
  roomId: string;
  title: string;
  /** 'YYYY/MM/DD HH:MM:SS', UTC. */
  createdAt: string;
  host: Member;
  /** Contains the caller. */
  members: Members;
  media: boolean;
  isRecording: boolean;
  talkingNoty: boolean;
  fileServerUrl: string;
  share?: { type: string; user: string; img?: string };
}

/** Members by id; `code`, `message`, `hint` and `members` are there too, but a `for … in` does not meet them. */
export type MemberList = Members & { readonly code: string; readonly members: Members };

interface PresenceBase {
  eventOp: 'presence';
  roomId: string;
  /** The user who caused it. */
  sender: string;
  /** Counts up by one in a room. Events made by the SDK itself carry none. */
  seq?: number;
}

/** A user entered the room. The only event whose `user` is a Member. */
export interface JoinEvent extends PresenceBase { type: 'join'; user: Member }
/** A user left the room, or closed the page. */
export interface LeaveEvent extends PresenceBase { type: 'leave'; user: string }
/** Media of `user` is here: `getStream(user)` (or `getStream(user, 'screen')` when `cam` is false) works inside the handler. */
export interface SubscribedEvent extends PresenceBase { type: 'subscribed'; user: string; cam: boolean }
/** How the connection with `user` does (additive). */
export interface PeerStateEvent extends PresenceBase {
  type: 'peerState';
  user: string;
  state: 'connecting' | 'connected' | 'interrupted' | 'failed';
  /** For programs: a short constant such as 'no-answer', 'ice-failed', 'not-in-room'. '' when there is nothing to explain. */
  reason: string;
  /** One sentence for people. */
  message: string;
  /** What to do about it; '' when there is nothing to do. */
  hint: string;
}
export type Presence = JoinEvent | LeaveEvent | SubscribedEvent | PeerStateEvent;
export type PresenceEvent = CustomEvent<Presence>;

/** The wire below, for apps that speak it themselves. Event 'knowledgetalk' carries every message, both ways. */
export interface Socket {
  readonly connected: boolean;
  on(event: string, listener: (message: any) => void): this;
  once(event: string, listener: (message: any) => void): this;
  off(event: string, listener?: (message: any) => void): this;
  /** Sends `message` as it is. False when there is no connection. */
  emit(event: string, message: unknown): boolean;
}

export interface Options {
  /** Origin of the server, such as 'https://host:7102'. Default: the origin of the script's own address. */
  server?: string;
}

export class Knowledgetalk extends EventTarget {
  constructor(options?: Options);

  /**
   * Connects and registers. Resolves within 10 s.
   * @param cpCode tenant code of the license
   * @param authKey license key
   * @param id wished user id; without it the server makes one
   * @param name shown to others
   * @param device shown to others
   * @param forced take the id over from another session of the same user
   * @returns '200' with `userId`; 401 license refused, 409 id in use, 413 page origin not allowed, 421 and 422 wrong arguments,
   * 445 license full, 504 no answer.
   */
  init(cpCode: string, authKey: string, id?: string, name?: string, device?: string, forced?: boolean): Promise<InitResult>;

  /** Leaves the room, closes every connection and the session. Others see `leave` at once. */
  disconnect(): void;

  /**
   * Makes a room, without entering it. Resolves within 10 s.
   * @param roomId wished id; without it the server makes one
   * @param capacity most members, 1 to 1000; 16 when not given
   * @param destroy true (default): the room ends with its last member
   * @returns '200' with `roomId`; 410 init first, 422, 443 exists, 504.
   */
  createRoom(roomId?: string, title?: string, capacity?: number, destroy?: boolean): Promise<CreateRoomResult>;

  /** Enters a room. Resolves within 10 s: '200' with the room; 410 init first, 421, 441 no such room, 442 already in a room, 444 full, 504. */
  joinRoom(roomId: string): Promise<JoinRoomResult>;
  /** The same, in the spelling of the guide. */
  joinroom(roomId: string): Promise<JoinRoomResult>;

  /** Leaves the room (default: the current one) and closes its connections. 410 when not in it, 441 no such room, 504. */
  leaveRoom(roomId?: string): Promise<Result>;

  /** Asks the server who is in the current room. */
  memberList(): Promise<MemberList>;

  /**
   * Sends a stream to one member. The same target and type again swaps the tracks on the same connection.
   * @returns true once media is connected to the target; false on failure or after 30 s (a `peerState` event says why).
   */
  publishP2P(target: string, type: MediaType, stream: MediaStream): Promise<boolean>;

  /** Stops sending to a member. True when nothing is sent any more, false for wrong arguments. The connection stays for the next publication. */
  removeLocalPeer(target: string, type: MediaType): Promise<boolean>;
  /** Stops receiving from a member. True when nothing is received any more, false for wrong arguments. */
  removePeer(target: string, type: MediaType): Promise<boolean>;

  /**
   * Replaces the camera stream that is being sent, without renegotiation.
   * @param target one member; without it everyone the camera is sent to
   * @returns false when nobody is sent anything, or when a swap failed.
   */
  changeLocalStream(stream: MediaStream, target?: string): Promise<boolean>;

  /** '' before init. */
  getUserId(): string;
  getName(): string;
  /** '' when in no room. */
  getRoomId(): string;
  /** Whether the current room is served by a media server; rooms of `createRoom` never are. */
  isMedia(): boolean;
  getSocket(): Socket;
  /** The connection that carries media to and from a member now. */
  getPeer(userId: string): RTCPeerConnection | undefined;
  getAllPeers(): { [userId: string]: RTCPeerConnection };
  /** Camera of a member; `getStream('screen')` is the newest remote screen. The object stays the same for the whole call. */
  getStream(userId: string, type?: MediaType): MediaStream | undefined;
  /** Every remote camera by user id, and 'screen' when there is one. */
  getAllStreams(): { [id: string]: MediaStream };

  addEventListener(
    type: 'presence', listener: ((event: PresenceEvent) => void) | { handleEvent(event: PresenceEvent): void } | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | AddEventListenerOptions): void;
  removeEventListener(
    type: 'presence', listener: ((event: PresenceEvent) => void) | { handleEvent(event: PresenceEvent): void } | null,
    options?: boolean | EventListenerOptions,
  ): void;
  removeEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | EventListenerOptions): void;
}

export { Knowledgetalk as KnowledgeTalk };
export default Knowledgetalk;

declare global {
  interface Window {
    Knowledgetalk: typeof Knowledgetalk;
    KnowledgeTalk: typeof Knowledgetalk;
  }
}
