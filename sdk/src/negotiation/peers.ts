import type { MediaType, Member, PeerStateEvent, Presence } from '../../types/knowledgetalk';
import { explain, type Reason } from '../errors';
import { Camera } from '../media/camera';
import { isLive, type Streams } from '../media/streams';
import { encodeSignal, STANDBY, WARM, type Request, type Signal } from '../signaling/messages';
import { Demands, Pacer } from './budget';
import type { SessionEvent } from './failover';
import { TYPES } from './layout';
import { LegacyPair } from './legacy';
import { hasWebRTC } from './peer';
import { changes } from './report';
import { PeerSession } from './session';

/** What the pairs need to know and to reach, as facts and ways. */
export interface PeersHooks {
  me(): string;
  roomId(): string;
  member(id: string): Member | undefined;
  /** Everybody in the room, this user included. */
  members(): string[];
  /** To one user, over the server. Resolves with the server's code. */
  relay(message: Request): Promise<string>;
  iceServers(): Promise<RTCIceServer[]>;
  /** The user has said that the camera's sound or picture is off. */
  muted(kind: string): boolean;
  /** A track of the camera that is or was sent has ended. */
  ended(): void;
  /** The server can be reached. */
  online(): boolean;
  /** Nothing passes to some user any more: is the server still there? */
  probeServer(): Promise<boolean>;
  presence(event: Presence): void;
}

/** Signals of users whose `join` has not come yet: so many users, so many signals each. */
const EARLY = { users: 64, signals: 64 };
/** Milliseconds in which those who were lost are expected back, to be sent again what they were sent. */
const RETURN = 60_000;
/** Users that something is kept of, at most. */
const KEPT = 64;
/** Default of the option. */
export const WARM_PEERS = 4;

/** All pairs of this user, and who is sent what. */
export class Peers {
  private readonly pairs = new Map<string, PeerSession | LegacyPair>();
  private readonly early = new Map<string, Signal[]>();
  /** What was being sent when this session, or the other user's, was lost: until it is sent again or the time for it is over. */
  private pendingRepublish = new Map<string, { identity: string; sent: Map<MediaType, MediaStream> }>();
  /** Of those there are pairs with: when somebody has left, nothing else tells it any more. */
  private readonly identities = new Map<string, string | undefined>();
  /** The last state of each connection that the app heard of. */
  private readonly reported = new Map<string, PeerStateEvent['state']>();
  /** By user, while this one is in the room: leaving and joining again must not renew them. */
  private readonly demands = new Map<string, Demands>();
  private readonly pacer = new Pacer();
  private readonly camera: Camera;
  private republishTimer: ReturnType<typeof setTimeout> | undefined;

  /** @param warmPeers members of a room, at most, in which connections are made before anybody publishes */
  constructor(private readonly hooks: PeersHooks, private readonly streams: Streams, private readonly warmPeers = WARM_PEERS) {
    this.camera = new Camera({
      muted: (kind) => hooks.muted(kind),
      ended: () => {
        for (const pair of this.pairs.values()) pair.ended('cam');
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
    return this.pair(target as string).publish(type as MediaType, stream as MediaStream);
  }

  unpublish(target: unknown, type: unknown): boolean {
    this.pendingRepublish.get(target as string)?.sent.delete(type as MediaType);
    if (!this.known(target, type)) return false;
    this.pairs.get(target)?.feed({ kind: 'unpublish', type: type as MediaType });
    return true;
  }

  refuse(target: unknown, type: unknown): boolean {
    if (!this.known(target, type)) return false;
    this.pairs.get(target)?.feed({ kind: 'refuse', type: type as MediaType });
    return true;
  }

  /** Another camera stream for one user, or for everyone who is sent one. `nobody` is the outcome where there is none. */
  async change(stream: unknown, target: unknown, nobody = false): Promise<boolean> {
    const meant = (id: string) => target === undefined || target === null || target === id;
    for (const [id, { sent }] of this.pendingRepublish) if (meant(id) && sent.has('cam') && isLive(stream)) sent.set('cam', stream);
    const targets = this.sent('cam').filter(([id]) => meant(id));
    if (targets.length === 0) return nobody;
    return (await Promise.all(targets.map(([id]) => this.publish(id, 'cam', stream)))).every(Boolean);
  }

  /** Switches a kind of the camera on or off, wherever it is sent, an app's own tracks as well. `more`: sent to nobody at present. */
  enable(kind: string, on: boolean, more: MediaStream | undefined): void {
    for (const track of this.outgoing(more)) if (track.kind === kind) this.camera.enable(track, on);
  }

  /** The camera's tracks: those that were published, and those that senders have. */
  outgoing(more?: MediaStream): MediaStreamTrack[] {
    const published = [more, ...this.sent('cam').map(([, stream]) => stream)].flatMap((stream) => stream?.getTracks() ?? []);
    return [...published, ...[...this.pairs.values()].flatMap((pair) => pair.senders()).flatMap(({ track }) => track ?? [])];
  }

  /** Who is sent what of a type. */
  sent(type: MediaType): [user: string, stream: MediaStream][] {
    return [...this.pairs].flatMap(([id, pair]) => {
      const stream = pair.sending(type);
      return stream ? [[id, stream] as [string, MediaStream]] : [];
    });
  }

  connection(id: string): RTCPeerConnection | undefined {
    return this.pairs.get(id)?.connection;
  }

  connections(): { [id: string]: RTCPeerConnection } {
    return Object.fromEntries([...this.pairs].flatMap(([id, { connection }]) => (connection ? [[id, connection]] : [])));
  }

  /** Nothing comes through to somebody in a call. */
  get silent(): boolean {
    return [...this.pairs.keys()].some((id) => this.isSilent(id));
  }

  private isSilent(id: string): boolean {
    return this.pairs.get(id) instanceof PeerSession && ['interrupted', 'recovering', 'failed'].includes(this.reported.get(id) ?? '');
  }

  handleSignal(from: string, signal: Signal): void {
    if (from === this.hooks.me()) return;
    const member = this.hooks.member(from);
    if (member) return this.pair(from).signal(signal);
    // On the wire a signal may overtake the `join` of its sender: it waits, so that nobody is subscribed before being a member.
    const waiting = this.early.get(from) ?? [];
    if (waiting.length >= EARLY.signals || (waiting.length === 0 && this.early.size >= EARLY.users)) return;
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
      // Whoever holds the id now need not be who held it before.
      if (pendingRepublish?.identity !== this.hooks.member(id)?.identity) continue;
      for (const [type, stream] of pendingRepublish?.sent ?? []) void this.publish(id, type, stream);
    }
  }

  handleLeave(id: string): void {
    const pair = this.pairs.get(id);
    if (pair?.waiting) this.report(id, 'failed', 'left');
    // Nobody who leaves falls silent before: this one was given up, and may be back when its network is.
    if (pair && this.isSilent(id)) {
      this.keepForRepublish(id, pair);
      this.awaitReturn();
    }
    this.close(id);
    this.resize();
  }

  /** What happens to all sessions at once: the server is gone or back, the network is another one, the room has other members. */
  feed(event: SessionEvent): void {
    for (const pair of this.pairs.values()) pair.feed(event);
  }

  /** The session is gone: to the others we left. Remembers what was sent to whom. */
  handleLost(): void {
    for (const [id, pair] of this.pairs) this.keepForRepublish(id, pair);
    // Nobody has left that the app knows of: those who are still there afterwards are seen in the same streams.
    this.closeAll(false);
  }

  /** A new session is in the room: those who are here are sent everything again, the others when they come back soon. */
  handleRestored(): void {
    this.handleMembers([...this.pendingRepublish.keys()].filter((id) => this.hooks.member(id)));
    this.awaitReturn();
  }

  private keepForRepublish(id: string, pair: PeerSession | LegacyPair): void {
    const sent = new Map<MediaType, MediaStream>();
    for (const type of TYPES) {
      const stream = pair.sending(type);
      if (stream) sent.set(type, stream);
    }
    const identity = this.identities.get(id);
    if (sent.size && identity) putLast(this.pendingRepublish, id, { identity, sent });
  }

  private awaitReturn(): void {
    clearTimeout(this.republishTimer);
    if (this.pendingRepublish.size) this.republishTimer = setTimeout(() => this.pendingRepublish.clear(), RETURN);
  }

  /** The room is left for good. */
  handleLeft(reason: Reason): void {
    clearTimeout(this.republishTimer);
    this.pendingRepublish.clear();
    if (reason !== 'left') for (const id of this.pairs.keys()) this.report(id, 'failed', reason);
    this.closeAll();
  }

  /**
   * Who has other software, or does not want it, is not warmed; what is warm stays so when the room grows, second connections do not.
   */
  private resize(): void {
    this.feed({ kind: 'room' });
    const members = this.hooks.members();
    if (members.length > this.warmPeers) return;
    for (const id of members) {
      if (id !== this.hooks.me() && this.has(id, WARM)) this.pair(id).feed({ kind: 'warm' });
    }
  }

  private close(id: string, forGood = true): void {
    this.pacer.forget(id);
    this.early.delete(id);
    this.pairs.get(id)?.dispose();
    this.pairs.delete(id);
    this.identities.delete(id);
    this.reported.delete(id);
    if (forGood) this.streams.forget(id);
    else for (const type of TYPES) this.streams.drop(id, type);
  }

  private closeAll(forGood = true): void {
    for (const id of [...this.pairs.keys()]) this.close(id, forGood);
    this.early.clear();
    this.demands.clear();
    this.pacer.stop();
  }

  private pair(id: string): PeerSession | LegacyPair {
    const known = this.pairs.get(id);
    if (known) return known;
    const hooks = {
      ...this.hooks,
      sendSignal: (signal: Signal) => this.sendSignal(id, signal),
      pass: (track: MediaStreamTrack) => this.camera.pass(track),
      stream: (type: MediaType, tracks: MediaStreamTrack[] | null) => {
        if (tracks) this.streams.set(id, type, tracks);
        else this.streams.drop(id, type);
      },
      subscribed: (type: MediaType) => this.hooks.presence({
        eventOp: 'presence', type: 'subscribed', roomId: this.hooks.roomId(), user: id, sender: id, cam: type === 'cam',
      }),
      report: changes((state, reason) => {
        this.reported.set(id, state);
        this.report(id, state, reason);
      }),
      apart: () => apart(this.hooks.member(this.hooks.me()), this.hooks.member(id)),
      standby: () => this.hooks.members().length <= this.warmPeers && this.has(id, STANDBY),
    };
    const demands = this.demands.get(id) ?? new Demands();
    putLast(this.demands, id, demands);
    const pair = this.has(id, 'pair') ? new PeerSession(this.hooks.me(), id, hooks, demands) : new LegacyPair(hooks, demands);
    this.pairs.set(id, pair);
    this.identities.set(id, this.hooks.member(id)?.identity);
    return pair;
  }

  private async sendSignal(target: string, signal: Signal): Promise<string> {
    const messages = encodeSignal(signal, target, this.has(target, 'candidates'));
    const codes = await Promise.all(messages.map((message) => new Promise<string>((done) => {
      if (!this.pacer.pass(target, () => void this.hooks.relay(message).then(done))) done('429');
    })));
    return codes[0] ?? '200';
  }

  /** Whether a user's software announces this. */
  private has(id: string, feature: string): boolean {
    return this.hooks.member(id)?.features?.includes(feature) ?? false;
  }

  private known(target: unknown, type: unknown): target is string {
    return typeof target === 'string' && TYPES.includes(type as MediaType) && this.hooks.member(target) !== undefined;
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
      eventOp: 'presence', type: 'peerState', roomId: this.hooks.roomId(), user, sender: this.hooks.me(), state, reason, message, hint,
    });
  }
}

/** Where there are too many, the first is let go. */
function putLast<T>(map: Map<string, T>, id: string, value: T): void {
  map.delete(id);
  map.set(id, value);
  if (map.size > KEPT) map.delete([...map.keys()][0]!);
}

/** Whatever an app has given for a user. */
function textOf(x: unknown): string {
  try {
    return String(x);
  } catch {
    return '';
  }
}

/** Both are on the internet, by the same kind of address, and not by the same one. Where anything of that is not known, they may be together. */
const apart = (a?: Member, b?: Member): boolean => Boolean(a?.net && b?.net && a.net[0] === b.net[0] && a.net !== b.net);
