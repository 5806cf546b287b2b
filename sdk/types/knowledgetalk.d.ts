/**
 * Ieum browser SDK: peer-to-peer calls with the Knowledgetalk surface.
 *
 * Codes are strings: '200' is success. A method that returns `{code}` never rejects for a documented failure; it resolves with the code,
 * a sentence (`message`) and, where there is something to do about it, a `hint`. Every method has a time limit.
 *
 * Not all return `{code}`: publishP2P, publishVideo, removePeer, removeLocalPeer and changeLocalStream resolve with
 * a boolean, subscribeVideo with a stream or false. A `peerState` event says why.
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
  /** The `seq` of the user's `join`: another one means that the user went and came again. */
  since?: number;
  /** The same for two stays of a user id exactly when the server has proof that it is the same party. */
  identity?: string;
  /** The same for users whose public address is the same, as far as the server can tell. */
  net?: string;
}

/**
 * Members by user id, in order of joining. JavaScript puts ids that are whole numbers (`'4'`) first and sorts them:
 * where the order matters, sort by `since`.
 */
export type Members = { [userId: string]: Member };

/** Result of a request. `code` '200' is success; everything else comes with a sentence and, where it helps, a hint. */
export interface Result {
  /**
   * 200 ok · 400 bad request · 401 not authenticated · 403 no such user, or no common room · 404 unknown operation · 409 user id in use ·
   * 405 not offered · 410 not registered, or not in the room · 413 no permission · 421 parameter missing · 422
   * parameter invalid · 429 too many requests · 440 someone else is sharing · 441 no such room · 442 already in a
   * room · 443 room exists · 444 room full · 445 over the limit · 500 internal · 504 no answer in time.
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

export interface CreateGroupResult extends Result {
  /** The group's id; '' on failure. */
  groupId: string;
}

/** As text it is its code, since apps compare the result itself: `if (await k.chat('hi', room) == '200')`. */
export interface ChatResult extends Result {
  toString(): string;
}

/** Who shares what in a room. */
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
  /** How many members the room takes. */
  capacity: number;
  /** 'YYYY/MM/DD HH:MM:SS', UTC. */
  createdAt: string;
  host: Member;
  /** Contains the caller. */
  members: Members;
  /** True for a room made by createVideoRoom. */
  media: boolean;
  /** Always false: nothing passes through the server that it could record. */
  isRecording: boolean;
  /** Whether members are told who talks. */
  talkingNoty: boolean;
  /** Always ''. */
  fileServerUrl: string;
  /** There while somebody shares. */
  share?: Share;
}

/**
 * Members by id; `code`, `message`, `hint` and `members` are there too, but a `for … in` does not meet them. A user
 * whose id is one of these words takes its place: then `list.code` is that member.
 */
export type MemberList = Members & { readonly code: string; readonly members: Members };

interface PresenceBase {
  eventOp: 'presence';
  /** '' in a message from outside the room. */
  roomId: string;
  /** The user who caused it. */
  sender: string;
  /** Counts up by one in a room. Events made by the SDK itself, and those that go to this user alone, carry none. */
  seq?: number;
}

/** A user entered the room. The only event whose `user` is a Member. */
export interface JoinEvent extends PresenceBase { type: 'join'; user: Member }
/** A user left the room, or closed the page. With this user's own id: it was put out, or the room has ended; all is as after leaveRoom. */
export interface LeaveEvent extends PresenceBase { type: 'leave'; user: string }
/** Media of `user` is here: `getStream(user)` (or `getStream(user, 'screen')` when `cam` is false) works inside the handler. */
export interface SubscribedEvent extends PresenceBase { type: 'subscribed'; user: string; cam: boolean }

/** A stream that its owner sends to whoever asks for it with subscribeVideo, with the fields of its owner. */
export interface Feed extends Member {
  /** Repeats `id`. */
  user: string;
  type: MediaType;
  /** Counts up with each announcement of this feed. */
  epoch: number;
  /** Whether the feed has sound and pictures. */
  audio: boolean;
  video: boolean;
}

/** Feeds of others can be asked for. After joinRoom: one event with all that are there. Never lists this user's own. */
export interface PublishEvent extends PresenceBase { type: 'publish'; user: string; feeds: Feed[] }
/** `user` shares its screen; the picture comes with `subscribed` (`cam` false), or is asked for after `publish` in a group room. */
export interface ScreenEvent extends PresenceBase { type: 'screen'; user: string }
export interface WhiteboardEvent extends PresenceBase { type: 'whiteboard'; user: string }
export interface DocumentEvent extends PresenceBase { type: 'document'; user: string }
/** `user` has stopped sharing. */
export interface ShareStopEvent extends PresenceBase { type: 'shareStop'; user: string }
/** What `user` wrote, to the room or to this user alone. */
export interface ChatEvent extends PresenceBase { type: 'chat'; user: string; message: string }
/** What the app of `user` has to say to this one: any JSON value. */
export interface InformEvent extends PresenceBase { type: 'inform'; user: string; message: any }
/** `user` begins (true) or ends (false) to talk; in rooms made with talkingNoty. `message` repeats `talking`. */
export interface TalkingEvent extends PresenceBase { type: 'talking'; user: string; talking: boolean; message: boolean }
/** `user` changed its name, or switched camera or microphone. */
export interface EditUserInfoEvent extends PresenceBase { type: 'editUserInfo'; user: string; name: string; video: boolean; audio: boolean }
/** This user (`user`) is asked by the host (`sender`) to go; the server puts it out after 3 s. */
export interface KickOutEvent extends PresenceBase { type: 'kickOut'; user: string }
/** `user` asks this user into a group: leaveRoom(), then joinRoom(groupId). */
export interface CreateGroupEvent extends PresenceBase { type: 'createGroup'; user: string; groupId: string }
/** What `user` may do from now on (additive). */
export interface PermitEvent extends PresenceBase { type: 'permit'; user: string; permit: Permit }
/** The host (`user`) changed the room (additive). `capacity` is in members, `host` is a user id. */
export interface EditRoomInfoEvent extends PresenceBase { type: 'editRoomInfo'; user: string; title: string; capacity: number; host: string }
/** `user` is the host now (additive). */
export interface HostChangeEvent extends PresenceBase { type: 'hostChange'; user: string }
/** The room has ended (additive): `user` has ended it. The `leave` of every member has come before. */
export interface DestroyEvent extends PresenceBase { type: 'destroy'; user: string }

/** How the connection with `user` does (additive). */
export interface PeerStateEvent extends PresenceBase {
  type: 'peerState';
  user: string;
  state: 'connecting' | 'connected' | 'interrupted' | 'recovering' | 'failed';
  /** For programs: a short constant such as 'no-answer', 'ice-failed', 'not-in-room'. '' when there is nothing to explain. */
  reason: string;
  /** One sentence for people. */
  message: string;
  /** What to do about it; '' when there is nothing to do. */
  hint: string;
}

/** A server newer than this SDK may send more types: end a `switch` over them with an empty `default`. */
export type Presence =
  | JoinEvent | LeaveEvent | SubscribedEvent | PublishEvent | ScreenEvent | WhiteboardEvent | DocumentEvent | ShareStopEvent | ChatEvent
  | InformEvent | TalkingEvent | EditUserInfoEvent | KickOutEvent | CreateGroupEvent | PermitEvent | EditRoomInfoEvent | HostChangeEvent
  | DestroyEvent | PeerStateEvent;
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
  /**
   * Address of the server, such as 'https://host:7102' or, under a path, 'https://site/calls'. Default: where the
   * script came from (`…/knowledgetalk.min.js` or `….mjs`). Required in a bundle and with the npm package, whose
   * address says nothing: init answers 421.
   */
  server?: string;
  /**
   * In rooms of at most so many members (4 when not given) connections are made on joining, before anybody publishes: pictures then come
   * several round trips earlier. Nothing is sent on them, and the app does not see them, until somebody publishes. 0: not at all.
   *
   * A connection tells the other member this user's network addresses. In such rooms everybody learns them on joining.
   * In larger rooms, and with 0, those learn them whom the app deals with, and every member who sends an offer: it is
   * answered. There is no option yet to use the relay alone, so addresses cannot be kept from members of the same room.
   */
  warmPeers?: number;
  /**
   * In such rooms, and where the server has a relay, a second connection over the relay stands beside one that carries media, and takes
   * over within a second when nothing passes there any more. It sends nothing until then. false: not at all.
   */
  standby?: boolean;
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
   * @returns '200' with `userId`; 401 license refused, 405 no WebSocket (Node before 22), 409 id in use, 413 page
   * origin not allowed, 421 and 422 wrong arguments or no `server`, 429 too many connections or logins, 445 license
   * full, 504 no answer.
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

  /**
   * Makes a room for a group call, without entering it: who publishes there (publishVideo) sends to those who subscribe (subscribeVideo),
   * from browser to browser. Resolves within 10 s.
   * @param capacity most members, 1 to 1000; 8 when not given
   * @param talkingNoty members are told who talks (`talking`)
   * @returns as createRoom
   */
  createVideoRoom(roomId?: string, title?: string, capacity?: number, destroy?: boolean, talkingNoty?: boolean): Promise<CreateRoomResult>;

  /** Enters a room. Resolves within 10 s: '200' with the room; 410 init first, 421, 441 no such room, 442 already in a room, 444 full, 504. */
  joinRoom(roomId: string): Promise<JoinRoomResult>;
  /** The same, in the spelling of the guide. */
  joinroom(roomId: string): Promise<JoinRoomResult>;

  /** Leaves the room (default: the current one) and closes its connections. 410 when not in it, 441 no such room, 504. */
  leaveRoom(roomId?: string): Promise<Result>;

  /** Ends a room for everyone. For its host, others get 413; 421, 441 no such room, 504. Everybody sees `leave` of all, then `destroy`. */
  destroyRoom(roomId: string): Promise<Result>;

  /** Asks the server who is in a room (default: the current one). 403 when not in it, 441 no such room. */
  memberList(roomId?: string): Promise<MemberList>;

  /**
   * Sends a stream to one member. The same target and type again swaps the tracks on the same connection. A video track without a
   * contentHint gets one: 'motion' for a camera, 'detail' for a screen.
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

  /**
   * Shares a screen. Resolves when the server has given or refused the room's one place for it, within 10 s; that the picture has reached
   * somebody is for `subscribed` to say there. Stops by itself when the user ends the capture in the browser.
   * @param stream what getDisplayMedia resolved with
   * @param target one member, once for each; without it everyone, also who comes later. In a room of createVideoRoom the screen is
   * announced as a feed and sent to who subscribes
   * @param canvas not used yet
   * @returns '200'; 410 in no room, 413 no permission, 421 and 422 wrong arguments, 440 someone else is sharing, 504.
   */
  screenStart(stream: MediaStream, target?: string, canvas?: HTMLCanvasElement): Promise<Result>;

  /** Stops sharing. '200' also when nothing is shared; then nobody is told. The stream's tracks are left as they are. */
  shareStop(): Promise<Result>;

  /**
   * Announces a feed to the room, and sends it to those who subscribe, later ones too. Again for the same type: swaps the tracks for all.
   * @returns true once the server has it; false for wrong arguments, in no room, or without an answer within 10 s.
   */
  publishVideo(type: MediaType, stream: MediaStream): Promise<boolean>;
  /** The same, in another spelling. */
  publishvideo(type: MediaType, stream: MediaStream): Promise<boolean>;

  /**
   * Asks a member for its feed. removePeer ends it.
   * @returns the stream once it is connected (the object that getStream returns); false after 30 s, for wrong arguments, or when the
   * member leaves.
   */
  subscribeVideo(userId: string, type: MediaType): Promise<MediaStream | false>;

  /**
   * Writes to the room (`roomId`), to one user of the license, in the room or not (`target`), or to both. One is
   * required.
   * @returns '200' (for a target: whether or not there is such a user); 410 not in the room, 413 no permission, 421, 422, 441, 504.
   */
  chat(message: string, roomId?: string, target?: string): Promise<ChatResult>;

  /** Sends any JSON value to the apps of the current room, or of one user of the license. '200'; 410, 421, 422 not JSON, 504. */
  inform(message: unknown, target?: string, roomId?: string): Promise<Result>;

  /** Asks a member to go; the server puts it out after 3 s. For the host, others get 413; 410 no such member, 421, 504. */
  kickOut(target: string): Promise<Result>;

  /** Gives and takes permissions; at least one. What is left out stays. For the host, others get 413; 410 no such member, 421, 422, 504. */
  permit(target: string, chat?: boolean, draw?: boolean, screen?: boolean, whiteboard?: boolean, document?: boolean): Promise<Result>;

  /**
   * Changes the room; what is left out stays. For the host, others get 413; 410, 421, 422 also for a capacity below the present number of
   * members, 504.
   * @param host user id of the next host
   */
  editRoomInfo(roomId: string, title?: string, capacity?: number, host?: string): Promise<Result>;

  /**
   * Says what this user is called and whether camera and microphone are on, and switches the camera's tracks that are being sent, at once.
   * What is off stays off in every stream that is sent later, in other rooms too, until it is said to be on.
   * @param broadcast false: nobody is told
   * @param target tell this member only
   * @returns '200'; 410, 422, 504.
   */
  editUserInfo(name?: string, video?: boolean, audio?: boolean, broadcast?: boolean, target?: string): Promise<Result>;

  /** '200'; 410, 421, 422, 504. Others see `editUserInfo`. */
  changeName(name: string): Promise<Result>;

  /**
   * Makes a room of the kind of the present one, for a part of its members: those in `list` are told with
   * `createGroup`. Who goes there leaves the present room and calls joinRoom(groupId). '200' with `groupId`; 410 in
   * no room, 422, 445 too many rooms, 504.
   */
  createGroup(list?: string[], title?: string): Promise<CreateGroupResult>;
  /** Ends the group's room. For who made it, and the host: others get 413. 403 no such group, 421, 504. */
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
  /** '' when in no room. */
  getRoomId(): string;
  /** Whether the current room is one for group calls, made by createVideoRoom. */
  isMedia(): boolean;
  /** What is shared in the current room, by this user or another: 'screen', 'whiteboard', 'document', or '' for nothing. */
  getShareType(): string;
  getSocket(): Socket;
  /** The connection that carries media to and from a member now. */
  getPeer(userId: string): RTCPeerConnection | undefined;
  getAllPeers(): { [userId: string]: RTCPeerConnection };
  /**
   * Camera of a member (with `type` 'screen': what it shares); `getStream('screen')` is the newest remote screen. The object stays the
   * same for the whole call.
   */
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

type Class = typeof Knowledgetalk;
type Instance = Knowledgetalk;

/** What the script tag defines, in a page or a worker. */
declare global {
  var Knowledgetalk: Class;
  var KnowledgeTalk: Class;
  type Knowledgetalk = Instance;
  type KnowledgeTalk = Instance;
}
