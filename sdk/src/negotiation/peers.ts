import type { MediaType, Member, PeerStateEvent, Presence } from '../../types/knowledgetalk';
import { explain, type Reason } from '../errors';
import { Camera } from '../media/camera';
import { isLive, type Streams } from '../media/streams';
import { encodeSignal, STANDBY, WARM, type Request, type Signal } from '../signaling/messages';
import { PeerLimits, Pacer } from './budget';
import type { SessionEvent } from './failover';
import { TYPES } from './layout';
import { LegacyPeer } from './legacy';
import { hasWebRTC } from './peer';
import { changes } from './report';
import { PeerSession } from './session';

/** What Peers needs of the signaling session. */
export interface PeersHooks {
  me(): string;
  roomId(): string;
  member(id: string): Member | undefined;
  /** Everybody in the room, this user included. */
  members(): string[];
  /** To one user, over the server. Resolves with the server's code. */
  relay(message: Request): Promise<string>;
  iceServers(): Promise<RTCIceServer[]>;
  /** The user has muted this kind of the camera. */
  muted(kind: string): boolean;
  /** A track of the camera that is or was sent has ended. */
  ended(): void;
  /** The server can be reached. */
  online(): boolean;
  /** A path is dead: does the server still answer? */
  probeServer(): Promise<boolean>;
  presence(event: Presence): void;
}

/** Most users whose `join` has not come, and most signals that are kept for each. */
const EARLY = 64;
/** Milliseconds in which lost users may come back and are sent the same again. */
const RETURN = 60_000;
/** Most users with kept state. */
const KEPT = 64;
/** Default of the option. */
export const WARM_PEERS = 4;

/** All peer sessions of this user, and what is sent to whom. */
export class Peers {
  private readonly peerSessions = new Map<string, PeerSession | LegacyPeer>();
  private readonly early = new Map<string, Signal[]>();
  /**
   * Publications of a lost session of this or the other user, until they are sent again or the time
   * is over.
   */
  private pendingRepublish = new Map<
    string,
    { identity: string; sent: Map<MediaType, MediaStream> }
  >();
  /** Identities of the peers: after a `leave` nothing else tells. */
  private readonly identities = new Map<string, string | undefined>();
  /** The last reported state of each connection. */
  private readonly reported = new Map<string, PeerStateEvent['state']>();
  /**
   * By user, as long as this user is in the room: leaving and joining again must not reset them.
   */
  private readonly peerLimits = new Map<string, PeerLimits>();
  private readonly pacer = new Pacer();
  private readonly camera: Camera;
  private republishTimer: ReturnType<typeof setTimeout> | undefined;

  /** @param warmPeers largest room in which connections are prewarmed */
  constructor(
    private readonly hooks: PeersHooks,
    private readonly remoteStreams: Streams,
    private readonly warmPeers = WARM_PEERS,
  ) {
    this.camera = new Camera({
      muted: (kind) => hooks.muted(kind),
      sends: (track) => this.outgoing().includes(track),
      ended: () => {
        for (const session of this.peerSessions.values()) session.ended('cam');
        hooks.ended();
      },
    });
  }

  async publish(target: unknown, type: unknown, stream: unknown): Promise<boolean> {
    const wrong = this.wrongPublish(target, type, stream);
    if (wrong) {
      this.report(textOf(target), 'failed', wrong);
      return false;
    }
    this.pendingRepublish.get(target as string)?.sent.delete(type as MediaType);
    return this.sessionOf(target as string).publish(type as MediaType, stream as MediaStream);
  }

  unpublish(target: unknown, type: unknown): boolean {
    this.pendingRepublish.get(target as string)?.sent.delete(type as MediaType);
    if (!this.known(target, type)) return false;
    this.peerSessions.get(target)?.feed({ kind: 'unpublish', type: type as MediaType });
    return true;
  }

  refuse(target: unknown, type: unknown): boolean {
    if (!this.known(target, type)) return false;
    this.peerSessions.get(target)?.feed({ kind: 'refuse', type: type as MediaType });
    return true;
  }

  /**
   * Replaces the camera stream for one user, or for all receivers. `nobody` is the result without
   * any.
   */
  async change(stream: unknown, target: unknown, nobody = false): Promise<boolean> {
    const meant = (id: string) => target === undefined || target === null || target === id;
    for (const [id, { sent }] of this.pendingRepublish) {
      if (meant(id) && sent.has('cam') && isLive(stream)) sent.set('cam', stream);
    }
    const targets = this.sent('cam').filter(([id]) => meant(id));
    if (targets.length === 0) return nobody;
    return (await Promise.all(targets.map(([id]) => this.publish(id, 'cam', stream)))).every(
      Boolean,
    );
  }

  /**
   * Whoever is or was sent the stream, or any of this type, gets another one, or nothing more.
   */
  replace(type: MediaType, old?: MediaStream, stream?: MediaStream | null): void {
    for (const [id, now] of this.sent(type)) {
      if (old && now !== old) continue;
      if (stream) void this.publish(id, type, stream);
      else this.unpublish(id, type);
    }
    for (const { sent } of this.pendingRepublish.values()) {
      if (old && sent.get(type) !== old) continue;
      if (stream) sent.set(type, stream);
      else sent.delete(type);
    }
  }

  /**
   * Mutes or unmutes a kind of the camera everywhere, own tracks of the app included. `more`: a
   * stream not sent at present.
   */
  enable(kind: string, on: boolean, more: MediaStream | undefined): void {
    for (const track of this.outgoing(more)) if (track.kind === kind) this.camera.enable(track, on);
  }

  /** The tracks of the camera: those published, and those of the senders. */
  outgoing(more?: MediaStream): MediaStreamTrack[] {
    const published = [more, ...this.sent('cam').map(([, stream]) => stream)].flatMap(
      (stream) => stream?.getTracks() ?? [],
    );
    return [
      ...published,
      ...[...this.peerSessions.values()]
        .flatMap((session) => session.senders())
        .flatMap(({ track }) => track ?? []),
    ];
  }

  /** The receivers of a type, and their streams. */
  sent(type: MediaType): [user: string, stream: MediaStream][] {
    return [...this.peerSessions].flatMap(([id, session]) => {
      const stream = session.sending(type);
      return stream ? [[id, stream] as [string, MediaStream]] : [];
    });
  }

  connection(id: string): RTCPeerConnection | undefined {
    return this.peerSessions.get(id)?.connection;
  }

  connections(): { [id: string]: RTCPeerConnection } {
    return Object.fromEntries(
      [...this.peerSessions].flatMap(([id, { connection }]) =>
        connection ? [[id, connection]] : [],
      ),
    );
  }

  /** Whether media to a peer has stopped. */
  get silent(): boolean {
    return [...this.peerSessions.keys()].some((id) => this.isSilent(id));
  }

  private isSilent(id: string): boolean {
    return (
      this.peerSessions.get(id) instanceof PeerSession
      && ['interrupted', 'recovering', 'failed'].includes(this.reported.get(id) ?? '')
    );
  }

  handleSignal(from: string, signal: Signal): void {
    if (from === this.hooks.me()) return;
    const member = this.hooks.member(from);
    if (member) return this.sessionOf(from).signal(signal);
    // A signal may overtake the `join` of its sender: it waits, since `subscribed` is for members
    // only.
    const waiting = this.early.get(from) ?? [];
    if (
      waiting.length >= EARLY
      || (waiting.length === 0 && this.early.size >= EARLY)
    ) {
      return;
    }
    this.early.set(from, [...waiting, signal]);
  }

  /** These users are members now, and the app knows it. */
  handleMembers(ids: Iterable<string>): void {
    this.resize();
    for (const id of ids) {
      const signals = this.early.get(id) ?? [];
      this.early.delete(id);
      for (const signal of signals) this.handleSignal(id, signal);
      const pendingRepublish = this.pendingRepublish.get(id);
      this.pendingRepublish.delete(id);
      // The id may belong to another user now.
      if (pendingRepublish?.identity !== this.hooks.member(id)?.identity) continue;
      for (const [type, stream] of pendingRepublish?.sent ?? []) {
        void this.publish(id, type, stream);
      }
    }
  }

  handleLeave(id: string): void {
    const session = this.peerSessions.get(id);
    if (session?.awaiting) this.report(id, 'failed', 'left');
    // A user who leaves does not fall silent first: this one was lost, and may come back with its
    // network.
    if (session && this.isSilent(id)) {
      this.keepForRepublish(id, session);
      this.awaitReturn();
    }
    this.close(id);
    this.resize();
  }

  /** An event of all sessions: the server, the network, or the members of the room. */
  feed(event: SessionEvent): void {
    for (const session of this.peerSessions.values()) session.feed(event);
  }

  /** The session is gone: others see a leave. Remembers what was sent to whom. */
  handleLost(): void {
    for (const [id, session] of this.peerSessions) this.keepForRepublish(id, session);
    // The app saw nobody leave: those still present afterwards keep their stream objects.
    this.closeAll(false);
  }

  /**
   * A new session is in the room: present members are sent everything again, others when they come
   * back soon.
   */
  handleRestored(): void {
    this.handleMembers([...this.pendingRepublish.keys()].filter((id) => this.hooks.member(id)));
    this.awaitReturn();
  }

  private keepForRepublish(id: string, session: PeerSession | LegacyPeer): void {
    const sent = new Map<MediaType, MediaStream>();
    for (const type of TYPES) {
      const stream = session.sending(type);
      if (stream) sent.set(type, stream);
    }
    const identity = this.identities.get(id);
    if (sent.size && identity) putLast(this.pendingRepublish, id, { identity, sent });
  }

  private awaitReturn(): void {
    clearTimeout(this.republishTimer);
    if (this.pendingRepublish.size) {
      this.republishTimer = setTimeout(() => this.pendingRepublish.clear(), RETURN);
    }
  }

  /** The room is left for good. */
  handleLeft(reason: Reason): void {
    clearTimeout(this.republishTimer);
    this.pendingRepublish.clear();
    if (reason !== 'left') {
      for (const id of this.peerSessions.keys()) this.report(id, 'failed', reason);
    }
    this.closeAll();
  }

  /**
   * A client without the feature is not prewarmed. In a growing room prewarmed connections stay,
   * backups do not.
   */
  private resize(): void {
    this.feed({ kind: 'room' });
    const members = this.hooks.members();
    if (members.length > this.warmPeers) return;
    for (const id of members) {
      if (id !== this.hooks.me() && this.has(id, WARM)) this.sessionOf(id).feed({ kind: 'warm' });
    }
  }

  private close(id: string, forGood = true): void {
    this.pacer.forget(id);
    this.early.delete(id);
    this.peerSessions.get(id)?.dispose();
    this.peerSessions.delete(id);
    this.identities.delete(id);
    this.reported.delete(id);
    if (forGood) this.remoteStreams.forget(id);
    else for (const type of TYPES) this.remoteStreams.drop(id, type);
  }

  private closeAll(forGood = true): void {
    for (const id of [...this.peerSessions.keys()]) this.close(id, forGood);
    this.early.clear();
    this.peerLimits.clear();
    this.pacer.stop();
  }

  private sessionOf(id: string): PeerSession | LegacyPeer {
    const known = this.peerSessions.get(id);
    if (known) return known;
    const hooks = {
      ...this.hooks,
      sendSignal: (signal: Signal) => this.sendSignal(id, signal),
      pass: (track: MediaStreamTrack) => this.camera.pass(track),
      stream: (type: MediaType, tracks: MediaStreamTrack[] | null) => {
        if (tracks) this.remoteStreams.set(id, type, tracks);
        else this.remoteStreams.drop(id, type);
      },
      subscribed: (type: MediaType) =>
        this.hooks.presence({
          eventOp: 'presence',
          type: 'subscribed',
          roomId: this.hooks.roomId(),
          user: id,
          sender: id,
          cam: type === 'cam',
        }),
      report: changes((state, reason) => {
        this.reported.set(id, state);
        this.report(id, state, reason);
      }),
      apart: () => apart(this.hooks.member(this.hooks.me()), this.hooks.member(id)),
      standby: () => this.hooks.members().length <= this.warmPeers && this.has(id, STANDBY),
    };
    const peerLimits = this.peerLimits.get(id) ?? new PeerLimits();
    putLast(this.peerLimits, id, peerLimits);
    const session = this.has(id, 'pair')
      ? new PeerSession(this.hooks.me(), id, hooks, peerLimits)
      : new LegacyPeer(hooks, peerLimits);
    this.peerSessions.set(id, session);
    this.identities.set(id, this.hooks.member(id)?.identity);
    return session;
  }

  private async sendSignal(target: string, signal: Signal): Promise<string> {
    const messages = encodeSignal(signal, target, this.has(target, 'candidates'));
    const codes = await Promise.all(messages.map((message) => new Promise<string>((done) => {
      if (!this.pacer.pass(target, () => void this.hooks.relay(message).then(done))) done('429');
    })));
    return codes[0] ?? '200';
  }

  /** Whether the client of a user has this feature. */
  private has(id: string, feature: string): boolean {
    return this.hooks.member(id)?.features?.includes(feature) ?? false;
  }

  private known(target: unknown, type: unknown): target is string {
    return (
      typeof target === 'string'
      && TYPES.includes(type as MediaType)
      && this.hooks.member(target) !== undefined
    );
  }

  private wrongPublish(target: unknown, type: unknown, stream: unknown): Reason | undefined {
    if (!hasWebRTC()) return 'no-webrtc';
    if (!this.hooks.me()) return 'not-registered';
    if (!TYPES.includes(type as MediaType)) return 'bad-type';
    if (target === this.hooks.me()) return 'self';
    const member = typeof target === 'string' ? this.hooks.member(target) : undefined;
    if (!member) return 'not-in-room';
    return isLive(stream) ? undefined : 'bad-stream';
  }

  private report(user: string, state: PeerStateEvent['state'], reason: Reason | ''): void {
    const { message, hint } = explain(reason);
    if (state === 'failed') console.warn(`Ieum: ${user}: ${message} ${hint}`);
    this.hooks.presence({
      eventOp: 'presence',
      type: 'peerState',
      roomId: this.hooks.roomId(),
      user,
      sender: this.hooks.me(),
      state,
      reason,
      message,
      hint,
    });
  }
}

/** Drops the oldest entry when there are too many. */
function putLast<T>(map: Map<string, T>, id: string, value: T): void {
  map.delete(id);
  map.set(id, value);
  if (map.size > KEPT) map.delete([...map.keys()][0]!);
}

/** Text of any value given for a user. */
function textOf(x: unknown): string {
  try {
    return String(x);
  } catch {
    return '';
  }
}

/**
 * Both have public addresses of the same family, and different ones. Unknown counts as the same
 * network.
 */
const apart = (a?: Member, b?: Member): boolean =>
  Boolean(a?.net && b?.net && a.net[0] === b.net[0] && a.net !== b.net);
