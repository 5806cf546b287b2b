/**
 * Ieum browser SDK: peer-to-peer calls with the Knowledgetalk API.
 *
 * Codes are strings: '200' is success. A method that returns `{code}` does not reject on documented
 * failures. It resolves with the code, a sentence (`message`) and, if there is a fix, a `hint`.
 * Every method has a time limit.
 *
 * publishP2P, publishVideo, removePeer, removeLocalPeer and changeLocalStream resolve with a
 * boolean, subscribeVideo with a stream or false. A `peerState` event gives the reason.
 */

/** Kind of a publication: the camera (with microphone) or a shared screen. */
export type MediaType = 'cam' | 'screen';

/** Permissions of a member in a room. */
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
  /** Whether the user reports camera and microphone as on. */
  video: boolean;
  audio: boolean;
  publishing: boolean;
  /** Repeats `publishing`, in the original's spelling. */
  pulishing: boolean;
  permit: Permit;
  /** Features of the user's client. Missing: a client without the SDK. */
  features?: string[];
  /** The `seq` of the user's `join`. If it changes, the user left and joined again. */
  since?: number;
  /** Equal for two joins of a user id exactly if the server has proof of the same party. */
  identity?: string;
  /** Equal for users with the same public address, as far as the server can tell. */
  net?: string;
}

/**
 * Members by user id, in order of joining. JavaScript sorts ids that are whole numbers (`'4'`)
 * first: if the order matters, sort by `since`.
 */
export type Members = { [userId: string]: Member };

/** Result of a request. */
export interface Result {
  /**
   * 200 ok · 400 bad request · 401 not authenticated · 403 no such user, or no common room · 404
   * unknown operation · 405 not offered · 409 user id in use · 410 not registered, or not in the
   * room · 413 no permission · 421 parameter missing · 422 parameter invalid · 429 too many
   * requests · 440 someone else is sharing · 441 no such room · 442 already in a room · 443 room
   * exists · 444 room full · 445 over a limit · 500 internal · 504 timeout.
   */
  code: string;
  /** One sentence to show to people. */
  message?: string;
  /** How to fix it. */
  hint?: string;
}

export interface InitResult extends Result {
  /** Id of this user; '' on failure. */
  userId: string;
}

export interface CreateRoomResult extends Result {
  /** Id of the room; '' on failure. */
  roomId: string;
}

export interface CreateGroupResult extends Result {
  /** Id of the group; '' on failure. */
  groupId: string;
}

/** Converts to its code as a string: `if (await k.chat('hi', room) == '200')`. */
export interface ChatResult extends Result {
  toString(): string;
}

/** What a user shares in a room. */
export interface Share {
  type: 'screen' | 'whiteboard' | 'document';
  /** User id. */
  user: string;
  img?: string;
}

export interface JoinRoomResult extends Result {
  /** These fields exist when `code` is '200'. */
  roomId: string;
  title: string;
  /** Maximum number of members. */
  capacity: number;
  /** 'YYYY/MM/DD HH:MM:SS', UTC. */
  createdAt: string;
  host: Member;
  /** Includes the caller. */
  members: Members;
  /** True for a room created by createVideoRoom. */
  media: boolean;
  /** Always false: the server has no media to record. */
  isRecording: boolean;
  /** Whether members get `talking` events. */
  talkingNoty: boolean;
  /** Always ''. */
  fileServerUrl: string;
  /** Present while someone shares. */
  share?: Share;
}

/**
 * Members by id. `code`, `message`, `hint` and `members` are not enumerable. A user whose id is one
 * of these words replaces it: then `list.code` is that member.
 */
export type MemberList = Members & { readonly code: string; readonly members: Members };

interface PresenceBase {
  eventOp: 'presence';
  /** '' in a message from outside the room. */
  roomId: string;
  /** The user who caused the event. */
  sender: string;
  /**
   * Increases by one in a room. Missing in events of the SDK, and in events for this user alone.
   */
  seq?: number;
}

/** A user joined the room. The only event whose `user` is a Member. */
export interface JoinEvent extends PresenceBase { type: 'join'; user: Member }
/**
 * A user left the room or closed the page. With this user's own id: this user was removed, or the
 * room has ended, as after leaveRoom.
 */
export interface LeaveEvent extends PresenceBase { type: 'leave'; user: string }
/**
 * Media of `user` has arrived. In the handler, `getStream(user)` returns it, or `getStream(user,
 * 'screen')` if `cam` is false.
 */
export interface SubscribedEvent extends PresenceBase {
  type: 'subscribed';
  user: string;
  cam: boolean;
}

/** A stream available through subscribeVideo, with the Member fields of its owner. */
export interface Feed extends Member {
  /** Repeats `id`. */
  user: string;
  type: MediaType;
  /** Increases with each publication of this feed. */
  epoch: number;
  /** Whether the feed has sound and video. */
  audio: boolean;
  video: boolean;
}

/** New feeds of other users. After joinRoom: one event with all existing feeds. */
export interface PublishEvent extends PresenceBase { type: 'publish'; user: string; feeds: Feed[] }
/**
 * `user` shares a screen. Its video arrives with `subscribed` (`cam` false); in a group room,
 * subscribe to it after `publish`.
 */
export interface ScreenEvent extends PresenceBase { type: 'screen'; user: string }
export interface WhiteboardEvent extends PresenceBase { type: 'whiteboard'; user: string }
export interface DocumentEvent extends PresenceBase { type: 'document'; user: string }
/** `user` has stopped sharing. */
export interface ShareStopEvent extends PresenceBase { type: 'shareStop'; user: string }
/** A chat message of `user`, to the room or to this user alone. */
export interface ChatEvent extends PresenceBase { type: 'chat'; user: string; message: string }
/** Application data of `user`: any JSON value. */
export interface InformEvent extends PresenceBase { type: 'inform'; user: string; message: any }
/**
 * `user` starts (true) or stops (false) talking, in rooms with talkingNoty. `message` repeats
 * `talking`.
 */
export interface TalkingEvent extends PresenceBase {
  type: 'talking';
  user: string;
  talking: boolean;
  message: boolean;
}
/** `user` changed its name, camera or microphone state. */
export interface EditUserInfoEvent extends PresenceBase {
  type: 'editUserInfo';
  user: string;
  name: string;
  video: boolean;
  audio: boolean;
}
/** The host (`sender`) asks this user (`user`) to leave. The server removes it after 3 s. */
export interface KickOutEvent extends PresenceBase { type: 'kickOut'; user: string }
/** `user` invites this user to a group: leaveRoom(), then joinRoom(groupId). */
export interface CreateGroupEvent extends PresenceBase {
  type: 'createGroup';
  user: string;
  groupId: string;
}
/** New permissions of `user` (extension). */
export interface PermitEvent extends PresenceBase { type: 'permit'; user: string; permit: Permit }
/**
 * The host (`user`) changed the room (extension). `capacity` is in members, `host` is a user id.
 */
export interface EditRoomInfoEvent extends PresenceBase {
  type: 'editRoomInfo';
  user: string;
  title: string;
  capacity: number;
  host: string;
}
/** `user` is the new host (extension). */
export interface HostChangeEvent extends PresenceBase { type: 'hostChange'; user: string }
/** `user` ended the room (extension). The `leave` of every member comes first. */
export interface DestroyEvent extends PresenceBase { type: 'destroy'; user: string }

/** State of the connection to `user` (extension). */
export interface PeerStateEvent extends PresenceBase {
  type: 'peerState';
  user: string;
  state: 'connecting' | 'connected' | 'interrupted' | 'recovering' | 'failed';
  /** A constant such as 'no-answer', 'ice-failed', 'not-in-room'; '' if there is no failure. */
  reason: string;
  /** One sentence to show to people. */
  message: string;
  /** How to fix it; '' if there is nothing to do. */
  hint: string;
}

/** Newer servers may send more types: end a `switch` with an empty `default`. */
export type Presence =
  | JoinEvent | LeaveEvent | SubscribedEvent | PublishEvent | ScreenEvent | WhiteboardEvent
  | DocumentEvent | ShareStopEvent | ChatEvent | InformEvent | TalkingEvent | EditUserInfoEvent
  | KickOutEvent | CreateGroupEvent | PermitEvent | EditRoomInfoEvent | HostChangeEvent
  | DestroyEvent | PeerStateEvent;
export type PresenceEvent = CustomEvent<Presence>;
type PresenceListener =
  | ((event: PresenceEvent) => void)
  | { handleEvent(event: PresenceEvent): void };

/**
 * Direct access to the protocol. The event 'knowledgetalk' carries every message in both
 * directions.
 */
export interface Socket {
  readonly connected: boolean;
  on(event: string, listener: (message: any) => void): this;
  once(event: string, listener: (message: any) => void): this;
  off(event: string, listener?: (message: any) => void): this;
  /** Sends `message` unchanged. False without a connection. */
  emit(event: string, message: unknown): boolean;
}

export interface Options {
  /**
   * Address of the server, such as 'https://host:7102' or, under a path, 'https://site/calls'.
   * Default: the origin of the script (`…/knowledgetalk.min.js` or `….mjs`). Required in a bundle
   * and with the npm package, else init returns 421.
   */
  server?: string;
  /**
   * In rooms of up to this many members (default 4) connections are made on joining, before anyone
   * publishes. Video then appears several round trips earlier. They carry nothing, and the app does
   * not see them, until someone publishes. 0: off.
   *
   * A connection reveals this user's network addresses to the other member. In such rooms all
   * members learn them on joining. In larger rooms, and with 0, these learn them: members with whom
   * the app exchanges media, and every member who sends an offer. There is no relay-only option
   * yet, so addresses cannot be hidden from members of the same room.
   */
  warmPeers?: number;
  /**
   * In such rooms, if the server has a relay, a backup connection over the relay takes over within
   * a second when the connection with the media fails. It carries no media until then. false: off.
   */
  standby?: boolean;
}

export class Knowledgetalk extends EventTarget {
  constructor(options?: Options);

  /**
   * Connects and registers. Resolves within 10 s.
   * @param cpCode tenant code of the license
   * @param authKey license, or user token
   * @param id requested user id; default: made by the server
   * @param name shown to others
   * @param device shown to others
   * @param forced take the id over from another session of the same user
   * @returns '200' with `userId`; 401 license refused, 405 no WebSocket (Node before 22), 409 id in
   * use, 413 page origin not allowed, 421 and 422 wrong arguments or no `server`, 429 too many
   * connections or logins, 445 license full, 504 timeout.
   */
  init(
    cpCode: string, authKey: string, id?: string, name?: string, device?: string, forced?: boolean,
  ): Promise<InitResult>;

  /** Leaves the room and closes all connections and the session. Others get `leave` at once. */
  disconnect(): void;

  /**
   * Creates a room without joining it. Resolves within 10 s.
   * @param roomId requested id; default: made by the server
   * @param capacity maximum number of members, 1 to 1000; default 16
   * @param destroy true (default): the room ends with its last member
   * @returns '200' with `roomId`; 410 init first, 422, 443 exists, 504.
   */
  createRoom(
    roomId?: string, title?: string, capacity?: number, destroy?: boolean,
  ): Promise<CreateRoomResult>;

  /**
   * Creates a room for a group call without joining it. Members publish feeds (publishVideo) and
   * subscribe to those of others (subscribeVideo), from browser to browser. Resolves within 10 s.
   * @param capacity maximum number of members, 1 to 1000; default 8
   * @param talkingNoty members get `talking` events
   * @returns as createRoom
   */
  createVideoRoom(
    roomId?: string, title?: string, capacity?: number, destroy?: boolean, talkingNoty?: boolean,
  ): Promise<CreateRoomResult>;

  /**
   * Joins a room. Resolves within 10 s.
   * @returns '200' with the room; 410 init first, 421, 441 no such room, 442 already in a room, 444
   * full, 504.
   */
  joinRoom(roomId: string): Promise<JoinRoomResult>;
  /** Alias of joinRoom, the spelling of the original's guide. */
  joinroom(roomId: string): Promise<JoinRoomResult>;

  /**
   * Leaves the room (default: the current one) and closes its connections. 410 not in it, 441 no
   * such room, 504.
   */
  leaveRoom(roomId?: string): Promise<Result>;

  /**
   * Ends a room for everyone. Host only, others get 413. All members get `leave` of everyone, then
   * `destroy`. 421, 441 no such room, 504.
   */
  destroyRoom(roomId: string): Promise<Result>;

  /** Requests the members of a room (default: the current one). 403 not in it, 441 no such room. */
  memberList(roomId?: string): Promise<MemberList>;

  /**
   * Sends a stream to one member. A second call with the same target and type replaces the tracks
   * on the same connection. A video track without a contentHint gets one: 'motion' for a camera,
   * 'detail' for a screen.
   * @returns true once media is connected to the target; false on failure or after 30 s (a
   * `peerState` event gives the reason).
   */
  publishP2P(target: string, type: MediaType, stream: MediaStream): Promise<boolean>;

  /**
   * Stops sending to a member. The connection stays open for the next publication.
   * @returns false for wrong arguments
   */
  removeLocalPeer(target: string, type: MediaType): Promise<boolean>;
  /**
   * Stops receiving from a member.
   * @returns false for wrong arguments
   */
  removePeer(target: string, type: MediaType): Promise<boolean>;

  /**
   * Replaces the camera stream being sent, without renegotiation.
   * @param target one member; default: everyone who gets the camera
   * @returns false if nothing is being sent, or a replacement failed.
   */
  changeLocalStream(stream: MediaStream, target?: string): Promise<boolean>;

  /**
   * Shares a screen. Only one member can share at a time. Resolves within 10 s, when the server has
   * accepted or refused the share; receivers get `subscribed` when its video arrives. The share
   * ends when the user ends the capture in the browser.
   * @param stream the result of getDisplayMedia
   * @param target one member per call; default: everyone, including later members. In a room of
   * createVideoRoom the screen is published as a feed
   * @param canvas ignored
   * @returns '200'; 410 in no room, 413 no permission, 421 and 422 wrong arguments, 440 someone
   * else is sharing, 504.
   */
  screenStart(stream: MediaStream, target?: string, canvas?: HTMLCanvasElement): Promise<Result>;

  /** Stops sharing. '200' also if nothing is shared. Does not stop the tracks of the stream. */
  shareStop(): Promise<Result>;

  /**
   * Publishes a feed to the room and sends it to all subscribers, including later ones. A second
   * call with the same type replaces the tracks.
   * @returns true once the server has accepted it; false for wrong arguments, in no room, or after
   * 10 s.
   */
  publishVideo(type: MediaType, stream: MediaStream): Promise<boolean>;
  /** Alias of publishVideo. */
  publishvideo(type: MediaType, stream: MediaStream): Promise<boolean>;

  /**
   * Subscribes to a feed of a member. removePeer ends the subscription.
   * @returns the stream once it is connected (the object that getStream returns); false after 30 s,
   * for wrong arguments, or if the member leaves.
   */
  subscribeVideo(userId: string, type: MediaType): Promise<MediaStream | false>;

  /**
   * Sends a chat message to the room (`roomId`), to one user of the license in any room (`target`),
   * or to both. One of them is required.
   * @returns '200' (for a target: even if no such user exists); 410 not in the room, 413 no
   * permission, 421, 422, 441, 504.
   */
  chat(message: string, roomId?: string, target?: string): Promise<ChatResult>;

  /**
   * Sends any JSON value to the current room, or to one user of the license. '200'; 410, 421, 422
   * not JSON, 504.
   */
  inform(message: unknown, target?: string, roomId?: string): Promise<Result>;

  /** Removes a member after 3 s. Host only, others get 413; 410 no such member, 421, 504. */
  kickOut(target: string): Promise<Result>;

  /**
   * Grants (true) or withdraws (false) permissions, at least one. Omitted ones do not change. Host
   * only, others get 413; 410 no such member, 421, 422, 504.
   */
  permit(
    target: string, chat?: boolean, draw?: boolean, screen?: boolean, whiteboard?: boolean,
    document?: boolean,
  ): Promise<Result>;

  /**
   * Changes the room; omitted values do not change. Host only, others get 413; 410, 421, 422 (also
   * for a capacity below the number of members), 504.
   * @param host user id of the next host
   */
  editRoomInfo(roomId: string, title?: string, capacity?: number, host?: string): Promise<Result>;

  /**
   * Sets the user's name and whether camera and microphone are on, and mutes or unmutes the camera
   * stream being sent. A muted kind stays muted in every later stream and room, until it is set to
   * true.
   * @param broadcast false: no event for the others
   * @param target notify this member only
   * @returns '200'; 410, 422, 504.
   */
  editUserInfo(
    name?: string, video?: boolean, audio?: boolean, broadcast?: boolean, target?: string,
  ): Promise<Result>;

  /** '200'; 410, 421, 422, 504. Others get `editUserInfo`. */
  changeName(name: string): Promise<Result>;

  /**
   * Creates a room of the same kind as the current one, for some of its members. Those in `list`
   * get `createGroup`. To go there, leave the current room and call joinRoom(groupId).
   * @returns '200' with `groupId`; 410 in no room, 422, 445 too many rooms, 504.
   */
  createGroup(list?: string[], title?: string): Promise<CreateGroupResult>;
  /** Ends a group. For its creator and the host, others get 413; 403 no such group, 421, 504. */
  endGroup(groupId: string): Promise<Result>;

  /** Not offered: false. */
  whiteBoardStart(canvas: HTMLCanvasElement): Promise<boolean>;
  /** Not offered: 405. */
  documentStart(canvas: HTMLCanvasElement): Promise<Result>;
  /** Not offered: 405. */
  documentShare(imgUrl: string): Promise<Result>;
  /** Not offered: 405. */
  reqCanvasImage(target: string): Promise<Result>;
  /** Not offered: does nothing. */
  canvasInit(canvas: HTMLCanvasElement): void;
  /** Not offered: false. */
  drawingInit(): boolean;
  /** Not offered: false. */
  drawingStop(): boolean;
  /** Not offered: does nothing. */
  setTool(tool: string, color?: string, strokeWidth?: number, type?: string): void;
  /** Not offered: does nothing. */
  canvasClear(): void;
  /** Not offered: false. */
  drawingClassStart(): Promise<boolean>;
  /** Not offered: false. */
  drawingClassStop(): Promise<boolean>;
  /** Not offered: false. */
  drawingShareStart(canvas: HTMLCanvasElement): Promise<boolean>;
  /** Not offered: false. */
  drawingShareStop(): Promise<boolean>;

  /** '' before init. */
  getUserId(): string;
  getName(): string;
  /** '' in no room. */
  getRoomId(): string;
  /** Whether the current room was created by createVideoRoom. */
  isMedia(): boolean;
  /** What is shared in the current room, by any user: 'screen', 'whiteboard', 'document', or ''. */
  getShareType(): string;
  getSocket(): Socket;
  /** The connection that currently carries media to and from a member. */
  getPeer(userId: string): RTCPeerConnection | undefined;
  getAllPeers(): { [userId: string]: RTCPeerConnection };
  /**
   * Camera stream of a member, or with `type` 'screen' its screen; `getStream('screen')` is the
   * newest remote screen. The object stays the same for the whole call.
   */
  getStream(userId: string, type?: MediaType): MediaStream | undefined;
  /** All remote cameras by user id, and 'screen' if there is one. */
  getAllStreams(): { [id: string]: MediaStream };

  addEventListener(
    type: 'presence',
    listener: PresenceListener | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string, listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  removeEventListener(
    type: 'presence', listener: PresenceListener | null, options?: boolean | EventListenerOptions,
  ): void;
  removeEventListener(
    type: string, listener: EventListenerOrEventListenerObject | null,
    options?: boolean | EventListenerOptions,
  ): void;
}

export { Knowledgetalk as KnowledgeTalk };
export default Knowledgetalk;

type Class = typeof Knowledgetalk;
type Instance = Knowledgetalk;

/** Globals of the script tag, in a page or a worker. */
declare global {
  var Knowledgetalk: Class;
  var KnowledgeTalk: Class;
  type Knowledgetalk = Instance;
  type KnowledgeTalk = Instance;
}
