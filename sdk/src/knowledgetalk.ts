/** The facade: the documented methods, each handed on to the part that does it. No logic here. */
import type * as api from '../types/knowledgetalk';
import { Backlog, Emitter } from './events';
import { serverOrigin } from './global';
import { Streams } from './media/streams';
import { Peers } from './negotiation/peers';
import { Session } from './signaling/session';

export class Knowledgetalk extends EventTarget {
  private readonly streams = new Streams();
  private readonly wire = new Emitter();
  private readonly backlog = new Backlog((event) => this.dispatchEvent(new CustomEvent('presence', { detail: event })));
  private readonly session: Session;
  private readonly peers: Peers;
  private readonly socket: api.Socket;

  constructor(options: api.Options = {}) {
    super();
    this.session = new Session(serverOrigin(options?.server), {
      presence: (event) => this.presence(event),
      signal: (from, signal) => this.peers.handleSignal(from, signal),
      wire: (message) => this.wire.fire('knowledgetalk', message),
      online: (up) => this.wire.fire(up ? 'connect' : 'disconnect', undefined),
      resumed: () => this.peers.handleResumed(),
      lost: () => this.peers.handleLost(),
      entered: (members) => this.peers.handleMembers(members),
      restored: () => this.peers.handleRestored(),
      left: (reason) => this.peers.handleLeft(reason),
    });
    const { session } = this;
    this.peers = new Peers({
      me: () => session.userId,
      roomId: () => this.getRoomId(),
      member: (id) => session.room?.members.get(id),
      relay: (message) => session.relay(message),
      iceServers: () => session.freshIce(),
      presence: (event) => this.backlog.push(event),
    }, this.streams);
    this.socket = socketOf(this.wire, session);
  }

  init(cpCode: string, authKey: string, id?: string, name?: string, device?: string, forced = false): Promise<api.InitResult> {
    return this.session.init(cpCode, authKey, id, name, device, forced);
  }

  disconnect(): void {
    this.session.disconnect();
  }

  createRoom(roomId?: string, title?: string, capacity?: number, destroy = true): Promise<api.CreateRoomResult> {
    return this.session.createRoom(roomId, title, capacity, destroy);
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

  memberList(): Promise<api.MemberList> {
    return this.session.memberList();
  }

  publishP2P(target: string, type: api.MediaType, stream: MediaStream): Promise<boolean> {
    return this.peers.publish(target, type, stream);
  }

  async removeLocalPeer(target: string, type: api.MediaType): Promise<boolean> {
    return this.peers.unpublish(target, type);
  }

  async removePeer(target: string, type: api.MediaType): Promise<boolean> {
    return this.peers.refuse(target, type);
  }

  changeLocalStream(stream: MediaStream, target?: string): Promise<boolean> {
    return this.peers.change(stream, target);
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

  getSocket(): api.Socket {
    return this.socket;
  }

  getPeer(userId: string): RTCPeerConnection | undefined {
    return this.peers.connection(userId);
  }

  getAllPeers(): { [userId: string]: RTCPeerConnection } {
    return this.peers.connections();
  }

  getStream(userId: string, type: api.MediaType = 'cam'): MediaStream | undefined {
    return this.streams.get(userId, type) ?? (userId === 'screen' ? this.streams.newestScreen() : undefined);
  }

  getAllStreams(): { [id: string]: MediaStream } {
    return this.streams.all();
  }

  override addEventListener(
    type: string, listener: ((event: api.PresenceEvent) => void) | EventListenerOrEventListenerObject | { handleEvent(event: api.PresenceEvent): void } | null,
    options?: boolean | AddEventListenerOptions,
  ): void {
    super.addEventListener(type, listener as EventListenerOrEventListenerObject | null, options);
    if (type === 'presence' && listener) this.backlog.open();
  }

  /** The roster first, then the app, then what waited for the member to be known. */
  private presence(event: api.Presence): void {
    if (event.type === 'leave') this.peers.handleLeave(event.user);
    this.backlog.push(event);
    if (event.type === 'join') this.peers.handleMembers([event.user.id]);
  }
}

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
