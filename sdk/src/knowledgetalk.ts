/** The facade: the documented methods, each handed on to the part that does it. No logic here. */
import type * as api from '../types/knowledgetalk';
import { addAbsent, type Absent } from './absent';
import { Backlog, Emitter } from './events';
import { serverBase } from './global';
import { Feeds } from './media/feeds';
import { Sharing } from './media/sharing';
import { isLive, Streams } from './media/streams';
import { Talking } from './media/talking';
import { Peers, WARM_PEERS } from './negotiation/peers';
import { idText, wholeNumber } from './signaling/arguments';
import { FEATURES, STANDBY, WARM } from './signaling/messages';
import { Operations } from './signaling/operations';
import { Session } from './signaling/session';

export interface Knowledgetalk extends Absent {}

export class Knowledgetalk extends EventTarget {
  private readonly remoteStreams = new Streams();
  private readonly wire = new Emitter();
  private readonly backlog = new Backlog((event) =>
    this.dispatchEvent(new CustomEvent('presence', { detail: event })),
  );
  private readonly session: Session;
  private readonly ops: Operations;
  private readonly peers: Peers;
  private readonly feeds: Feeds;
  private readonly sharing: Sharing;
  private readonly talking: Talking;
  private readonly socket: api.Socket;

  constructor(options: api.Options = {}) {
    super();
    const standby = options?.standby !== false;
    const warmPeers = wholeNumber(options?.warmPeers) ?? WARM_PEERS;
    const session = new Session(
      serverBase(options?.server),
      {
        presence: (event) => this.presence(event),
        signal: (from, signal) => peers.handleSignal(from, signal),
        subscribe: (from, type) => feeds.handleWish(from, type),
        wire: (message) => this.wire.fire('knowledgetalk', message),
        online: (up) => (
          up || peers.feed({ kind: 'offline' }),
          this.wire.fire(up ? 'connect' : 'disconnect', undefined)
        ),
        urgent: () => peers.silent,
        resumed: () => peers.feed({ kind: 'resumed' }),
        lost: () => (peers.handleLost(), feeds.handleLost()),
        entered: (members) => this.entered([...members]),
        restored: () => (peers.handleRestored(), feeds.restored(), void sharing.restored()),
        network: () => (session.renew(), peers.feed({ kind: 'network' })),
        left: (reason) => (
          peers.handleLeft(reason),
          operations.left(),
          feeds.left(),
          sharing.left(),
          talking.stop()
        ),
      },
      warmPeers ? [...FEATURES, WARM, ...(standby ? [STANDBY] : [])] : FEATURES,
    );
    const request = (eventOp: string, fields?: Record<string, unknown>) =>
      session.request(eventOp, fields);
    const me = () => session.userId;
    const peers = new Peers({
      me,
      roomId: () => this.getRoomId(),
      member: (id) => session.room?.members.get(id),
      members: () => [...session.room?.members.keys() ?? []],
      relay: (message) => session.relay(message),
      iceServers: () => session.freshIce(),
      muted: (kind) => operations.muted(kind),
      ended: () => void feeds.change('cam'),
      online: () => session.connected,
      probeServer: () => session.probeServer(),
      presence: (event) => this.media(event),
    }, this.remoteStreams, warmPeers);
    const feeds = new Feeds({
      me,
      isMember: (id) => session.room?.members.has(id) ?? false,
      inRoom: () => session.room !== null,
      request,
      publish: (target, type, stream) => void peers.publish(target, type, stream),
      replace: (type, old, stream) => peers.replace(type, old, stream),
      stream: (user, type) => this.remoteStreams.get(user, type),
    });
    const sharing = new Sharing({
      me,
      room: () => session.room,
      request,
      publish: (target, stream) => void peers.publish(target, 'screen', stream),
      unpublish: () => peers.replace('screen'),
      announce: (stream) => void feeds.publish('screen', stream),
      withdraw: () => feeds.unpublish('screen'),
    });
    const operations = new Operations({
      request,
      named: (name) => (session.name = name),
      enable: (kind, on) => peers.enable(kind, on, feeds.stream('cam')),
    });
    const talking = new Talking({
      track: () =>
        peers
          .outgoing(feeds.stream('cam'))
          .find(({ kind, readyState }) => kind === 'audio' && readyState === 'live'),
      say: (message) => void request('talking', { message }),
    });
    this.session = session;
    this.ops = operations;
    this.peers = peers;
    this.feeds = feeds;
    this.sharing = sharing;
    this.talking = talking;
    this.socket = socketOf(this.wire, session);
  }

  init(
    cpCode: string,
    authKey: string,
    id?: string,
    name?: string,
    device?: string,
    forced = false,
  ): Promise<api.InitResult> {
    return this.session.init(cpCode, authKey, id, name, device, forced);
  }

  disconnect(): void {
    this.session.disconnect();
  }

  createRoom(
    roomId?: string,
    title?: string,
    capacity?: number,
    destroy = true,
  ): Promise<api.CreateRoomResult> {
    return this.session.createRoom(roomId, title, capacity, destroy);
  }

  createVideoRoom(
    roomId?: string,
    title?: string,
    capacity?: number,
    destroy = true,
    talkingNoty = false,
  ): Promise<api.CreateRoomResult> {
    return this.session.createVideoRoom(roomId, title, capacity, destroy, talkingNoty);
  }

  joinRoom(roomId: string): Promise<api.JoinRoomResult> {
    return this.session.joinRoom(roomId);
  }

  joinroom(roomId: string): Promise<api.JoinRoomResult> {
    return this.session.joinRoom(roomId);
  }

  leaveRoom(roomId?: string): Promise<api.Result> {
    return this.session.leaveRoom(roomId);
  }

  destroyRoom(roomId: string): Promise<api.Result> {
    return this.ops.destroyRoom(roomId);
  }

  memberList(roomId?: string): Promise<api.MemberList> {
    return this.session.memberList(roomId);
  }

  publishP2P(target: string, type: api.MediaType, stream: MediaStream): Promise<boolean> {
    return this.peers.publish(idText(target), type, stream);
  }

  async removeLocalPeer(target: string, type: api.MediaType): Promise<boolean> {
    return this.peers.unpublish(idText(target), type);
  }

  async removePeer(target: string, type: api.MediaType): Promise<boolean> {
    return this.peers.refuse(idText(target), type);
  }

  changeLocalStream(stream: MediaStream, target?: string): Promise<boolean> {
    const all = target === undefined || target === null;
    return this.peers.change(
      stream,
      idText(target),
      all && isLive(stream) && this.feeds.change('cam', stream),
    );
  }

  // The canvas is for drawing on a shared screen, which is not supported.
  screenStart(
    stream: MediaStream,
    target?: string,
    _canvas?: HTMLCanvasElement,
  ): Promise<api.Result> {
    return this.sharing.start(stream, target);
  }

  shareStop(): Promise<api.Result> {
    return this.sharing.stop();
  }

  publishVideo(type: api.MediaType, stream: MediaStream): Promise<boolean> {
    return this.feeds.publish(type, stream);
  }

  publishvideo(type: api.MediaType, stream: MediaStream): Promise<boolean> {
    return this.feeds.publish(type, stream);
  }

  subscribeVideo(userId: string, type: api.MediaType): Promise<MediaStream | false> {
    return this.feeds.subscribe(idText(userId), type);
  }

  chat(message: string, roomId?: string, target?: string): Promise<api.ChatResult> {
    return this.ops.chat(message, roomId, target);
  }

  inform(message: unknown, target?: string, roomId?: string): Promise<api.Result> {
    return this.ops.inform(message, target, roomId);
  }

  kickOut(target: string): Promise<api.Result> {
    return this.ops.kickOut(target);
  }

  permit(
    target: string,
    chat?: boolean,
    draw?: boolean,
    screen?: boolean,
    whiteboard?: boolean,
    document?: boolean,
  ): Promise<api.Result> {
    return this.ops.permit(target, chat, draw, screen, whiteboard, document);
  }

  editRoomInfo(
    roomId: string,
    title?: string,
    capacity?: number,
    host?: string,
  ): Promise<api.Result> {
    return this.ops.editRoomInfo(roomId, title, capacity, host);
  }

  editUserInfo(
    name?: string,
    video?: boolean,
    audio?: boolean,
    broadcast = true,
    target?: string,
  ): Promise<api.Result> {
    return this.ops.editUserInfo(name, video, audio, broadcast, target);
  }

  changeName(name: string): Promise<api.Result> {
    return this.ops.changeName(name);
  }

  createGroup(list?: string[], title?: string): Promise<api.CreateGroupResult> {
    return this.ops.createGroup(list, title);
  }

  endGroup(groupId: string): Promise<api.Result> {
    return this.ops.endGroup(groupId);
  }

  getUserId(): string {
    return this.session.userId;
  }

  getName(): string {
    return this.session.name;
  }

  getRoomId(): string {
    return this.session.room?.id ?? '';
  }

  isMedia(): boolean {
    return this.session.room?.info.media ?? false;
  }

  getShareType(): string {
    return this.session.room?.share?.type ?? '';
  }

  getSocket(): api.Socket {
    return this.socket;
  }

  getPeer(userId: string): RTCPeerConnection | undefined {
    return this.peers.connection(idText(userId));
  }

  getAllPeers(): { [userId: string]: RTCPeerConnection } {
    return this.peers.connections();
  }

  getStream(userId: string, type?: api.MediaType): MediaStream | undefined {
    return this.remoteStreams.find(idText(userId), type);
  }

  getAllStreams(): { [id: string]: MediaStream } {
    return this.remoteStreams.all();
  }

  override addEventListener(
    type: string,
    listener:
      | ((event: api.PresenceEvent) => void)
      | EventListenerOrEventListenerObject
      | { handleEvent(event: api.PresenceEvent): void }
      | null,
    options?: boolean | AddEventListenerOptions,
  ): void {
    super.addEventListener(type, listener as EventListenerOrEventListenerObject | null, options);
    if (type === 'presence' && listener) this.backlog.open();
  }

  /** The roster first, then the app, then what waited for the member to be known. */
  private presence(event: api.Presence): void {
    if (event.type === 'leave') {
      this.peers.handleLeave(event.user);
      this.feeds.handleLeave(event.user);
    }
    this.backlog.push(event);
    if (event.type === 'join') this.known([event.user.id]);
  }

  private media(event: api.Presence): void {
    if (event.type === 'subscribed') {
      this.feeds.handleSubscribed(event.user, event.cam ? 'cam' : 'screen');
    }
    this.backlog.push(event);
  }

  private entered(members: string[]): void {
    this.ops.entered();
    if (this.session.room?.info.talkingNoty) this.talking.start();
    this.known(members);
  }

  private known(members: string[]): void {
    this.peers.handleMembers(members);
    this.feeds.handleMembers(members);
    this.sharing.handleMembers(members);
  }
}

addAbsent(Knowledgetalk.prototype);

function socketOf(wire: Emitter, session: Session): api.Socket {
  const socket: api.Socket = {
    get connected() {
      return session.connected;
    },
    on: (event, listener) => (wire.on(event, listener), socket),
    once: (event, listener) => (wire.once(event, listener), socket),
    off: (event, listener) => (wire.off(event, listener), socket),
    emit: (event, message) => event === 'knowledgetalk' && session.emit(message),
  };
  return socket;
}
