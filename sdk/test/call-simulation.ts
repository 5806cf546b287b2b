/**
 * Two users with both of their connections, a signaling server, a direct network path and one over
 * a relay. Connections reach each other as in browsers: by the descriptions and candidates that
 * arrive, over paths that may be cut in one direction, from addresses that may be gone. Delays are
 * random, on a virtual clock.
 */
import type { MediaType } from '../types/knowledgetalk';
import { TYPES } from '../src/negotiation/layout';
import { PeerSession } from '../src/negotiation/session';
import { encodeSignal, readSignal, type Signal } from '../src/signaling/messages';
import { FakeStream, FakeTrack, track } from './browser';
import { Clock } from './clock';
import { Simulation } from './simulation';
import { SimulatedConnection, type Role, type IceSession, type Path } from './simulated-connection';

/** Timeout of a request, in milliseconds. */
const REQUEST = 10_000;

interface Request {
  message: Record<string, unknown>;
  done(code: string): void;
}

interface Presence {
  presence: 'leave' | 'join';
}

type Packet = Request | Presence;

/** One user: the app, its signaling session and its session with the other user. */
export class User {
  /** Null while the other user is not known to be in the room. */
  session: PeerSession | null = null;
  here = true;
  /** The room is small enough for backup connections, as far as this user knows. */
  backupAllowed = true;
  connections: SimulatedConnection[] = [];
  /** Changes with the network. */
  address = 1;
  online = true;
  /** The socket is dead, and this side has not noticed. */
  socketDead = false;
  /** The server answers 429, and passes nothing on. */
  limited = false;
  /** Published by the app, and not reported as failed. */
  want: Record<MediaType, MediaStream | null> = { cam: null, screen: null };
  /** Refused by the other user at a time unknown here: may be gone. */
  readonly unsure = new Set<MediaType>();
  shown: Record<MediaType, MediaStreamTrack[] | null> = { cam: null, screen: null };
  /** Calls of publish, and `subscribed` events for those of the other user. */
  readonly published: Record<MediaType, number> = { cam: 0, screen: 0 };
  subscribed: Record<MediaType, number> = { cam: 0, screen: 0 };
  /** Calls of publish without an outcome yet. */
  waiting = 0;
  /** The last peerState that the app got. */
  reported = '';
  /** Requests that wait for the socket. */
  private queued: Request[] = [];
  /** Packets on their way to the other user. */
  private inFlight: Packet[] = [];
  private delivering = false;

  constructor(readonly simulation: CallSimulation, readonly me: string, readonly peer: string) {}

  get other(): User {
    return this.simulation.users[this.me === 'a' ? 1 : 0]!;
  }

  open(role: Role): SimulatedConnection[] {
    return this.connections.filter((c) => c.role === role);
  }

  join(): void {
    this.backupAllowed = this.simulation.backupsAllowed;
    this.session = new PeerSession(this.me, this.peer, {
      sendSignal: (signal) => this.send(signal),
      apart: () => this.simulation.apart,
      pass: () => undefined,
      online: () => this.online,
      iceServers: () => new Promise((done) => {
        const servers = [{ urls: ['turn:relay'], username: this.me, credential: 'c' }];
        this.simulation.later(this.simulation.next() * 30, () => done(servers));
      }),
      stream: (type, tracks) => (this.shown[type] = tracks),
      subscribed: (type) => this.subscribed[type]++,
      report: (state) => (this.reported = state),
      standby: () => this.backupAllowed,
      probeServer: () =>
        new Promise((done) =>
          this.simulation.later(this.simulation.next() * this.simulation.maxDelay, () =>
            done(this.online && !this.socketDead),
          ),
        ),
    });
    if (this.simulation.prewarmed) this.session.feed({ kind: 'warm' });
  }

  endSession(): void {
    this.session?.dispose();
    this.session = null;
    this.shown = { cam: null, screen: null };
    this.subscribed = { cam: 0, screen: 0 };
    this.reported = '';
  }

  publish(type: MediaType): void {
    if (!this.session) return;
    const kinds = this.simulation.pick([
      ['audio', 'video'],
      ['audio', 'video'],
      ['video'],
      ['audio'],
    ] as const);
    const stream = new FakeStream(kinds.map((kind) => track(kind))) as unknown as MediaStream;
    this.want[type] = stream;
    this.publishStream(type, stream);
  }

  private publishStream(type: MediaType, stream: MediaStream): void {
    this.waiting++;
    const call = ++this.published[type];
    void this.session!.publish(type, stream).then((ok) => {
      this.waiting--;
      if (!ok && this.published[type] === call) this.want[type] = null;
    });
  }

  unpublish(type: MediaType): void {
    this.want[type] = null;
    this.unsure.delete(type);
    this.session?.feed({ kind: 'unpublish', type });
  }

  refuse(type: MediaType): void {
    this.other.unsure.add(type);
    this.session?.feed({ kind: 'refuse', type });
  }

  /** The page is reloaded: its state is lost, and the other user gets `leave` in socket order. */
  leave(): void {
    this.endSession();
    this.here = false;
    this.simulation.lossy = true;
    for (const type of TYPES) this.want[type] = null;
    for (const user of [this, this.other]) user.unsure.clear();
    this.inFlight.push({ presence: 'leave' });
    this.other.receive();
  }

  rejoin(): void {
    const { other } = this;
    this.here = true;
    this.queued = [];
    this.online = true;
    this.socketDead = false;
    // It gets the present state of the room, and nothing from before.
    other.inFlight.splice(
      0,
      other.inFlight.map((packet) => 'presence' in packet).lastIndexOf(true) + 1,
    );
    if (other.here) this.join();
    this.inFlight.push({ presence: 'join' });
    this.other.receive();
    this.receive();
  }

  /**
   * The socket dies with the newest of what was sent and the oldest of what was to be received; the
   * server has accepted the latter.
   */
  loseSocket(): void {
    this.socketDead = false;
    this.online = false;
    const drop = (list: Packet[], from: number, to: number, code: string) => {
      const lost = list.slice(from, to);
      // The state of the room replaces lost presence.
      const stays = (packet: Packet) => 'presence' in packet;
      list.splice(from, to - from, ...lost.filter(stays));
      for (const packet of lost) if (!('presence' in packet)) this.miss(packet, code);
    };
    drop(
      this.inFlight,
      Math.floor(this.simulation.next() * (this.inFlight.length + 1)),
      this.inFlight.length,
      '504',
    );
    drop(
      this.other.inFlight,
      0,
      Math.floor(this.simulation.next() * (this.other.inFlight.length + 1)),
      '200',
    );
    this.session?.feed({ kind: 'offline' });
  }

  private miss({ done }: Request, code: string): void {
    this.simulation.lossy = true;
    done(code);
  }

  /** First the state of the room, then what waited here is sent, then what waited there. */
  resume(): void {
    this.online = true;
    const { other } = this;
    const presence = other.inFlight.filter((packet): packet is Presence => 'presence' in packet);
    other.inFlight = other.inFlight.filter((packet) => !('presence' in packet));
    for (const packet of presence) this.take(packet);
    this.inFlight.push(...this.queued);
    this.queued = [];
    this.receive();
    other.receive();
    this.session?.feed({ kind: 'resumed' });
  }

  private async send(signal: Signal): Promise<string> {
    const [message] = encodeSignal(signal, this.peer, true);
    const code = new Promise<string>((done) => {
      const request: Request = { message: JSON.parse(JSON.stringify(message)), done };
      if (this.online && this.limited) {
        this.simulation.later(this.simulation.next() * 50, () => this.miss(request, '429'));
      } else if (this.online) {
        this.inFlight.push(request);
        this.other.receive();
      } else {
        this.queued.push(request);
        this.simulation.later(REQUEST, () => {
          if (!this.queued.includes(request)) return;
          this.queued.splice(this.queued.indexOf(request), 1);
          this.miss(request, '504');
        });
      }
    });
    return signal.eventOp === 'candidate' ? '200' : code;
  }

  /** Delivers what the other user sent, one by one and in order. */
  receive(): void {
    const { other } = this;
    if (
      other.delivering
      || !other.inFlight.length
      || !this.online
      || this.socketDead
      || other.socketDead
    ) {
      return;
    }
    other.delivering = true;
    this.simulation.later(this.simulation.next() * this.simulation.maxDelay, () => {
      other.delivering = false;
      if (!this.online || this.socketDead || other.socketDead) return;
      const packet = other.inFlight.shift();
      if (packet) this.take(packet);
      this.receive();
    });
  }

  private take(packet: Packet): void {
    if (!('presence' in packet)) {
      const code = this.here ? '200' : '403';
      this.simulation.later(this.simulation.next() * 50, () => packet.done(code));
      this.session?.signal(readSignal(packet.message)!);
    } else if (!this.here) {
      return;
    } else if (packet.presence === 'leave') {
      this.endSession();
    } else {
      this.endSession();
      this.join();
      // The app publishes the same again.
      for (const type of TYPES) {
        const stream = this.want[type];
        if (stream) this.publishStream(type, stream);
      }
    }
  }
}

export class CallSimulation extends Simulation {
  static readonly Connection = SimulatedConnection;
  readonly clock = new Clock();
  readonly users: [User, User] = [new User(this, 'a', 'b'), new User(this, 'b', 'a')];
  readonly iceSessions = new Map<number, IceSession>();
  readonly errors: string[] = [];
  /** A signal was lost, or reached the page that replaced its target. */
  lossy = false;
  /** Directions that are cut: path and sender. */
  private readonly cuts = new Set<string>();
  /** Properties of this schedule. */
  readonly latency = this.pick([0, 5, 40, 150]);
  readonly maxDelay = this.pick([20, 200, 1_000]);
  readonly prewarmed = this.chance(0.5);
  readonly apart = this.chance(0.2);
  backupsAllowed = this.chance(0.9);
  /** ICE of the primary connection finds the relay too. */
  readonly primaryByRelay = this.chance(0.5);
  /** Host candidates are mDNS names, as before camera permission. */
  readonly hidden = this.chance(0.2);
  /** The browser reports responsesReceived. */
  readonly counts = this.chance(0.7);

  constructor(next: () => number) {
    super(next);
    this.clock.install();
    SimulatedConnection.simulation = this;
    for (const user of this.users) user.join();
  }

  later(ms: number, what: () => void, quiet = false): void {
    this.clock.at(ms, what, quiet);
  }

  addError(text: string): void {
    this.errors.push(text);
  }

  newIceSession(connection: SimulatedConnection): number {
    const id = this.iceSessions.size + 1;
    this.iceSessions.set(id, { connection, address: connection.side.address });
    return id;
  }

  passes(path: Path, from: User): boolean {
    return !this.cuts.has(`${path} ${from.me}`);
  }

  update(): void {
    const connections = this.users.flatMap((user) => user.connections);
    for (const connection of connections) connection.updatePath();
    for (const connection of connections) connection.update();
  }

  cut(path: Path, from: readonly User[]): void {
    for (const { me } of from) this.cuts.add(`${path} ${me}`);
    this.update();
  }

  restore(path: Path): void {
    for (const { me } of this.users) this.cuts.delete(`${path} ${me}`);
    this.update();
  }

  disrupt(): void {
    const user = this.pick(this.users);
    const type = this.pick(['cam', 'cam', 'screen'] as const);
    const dice = this.next();
    if (dice < 0.2) user.publish(type);
    else if (dice < 0.28) user.unpublish(type);
    else if (dice < 0.32) user.refuse(type);
    else if (dice < 0.48) this.cut('direct', this.pick([this.users, this.users, [user]]));
    else if (dice < 0.6) this.restore('direct');
    else if (dice < 0.65) this.cut('relay', this.pick([this.users, [user]]));
    else if (dice < 0.71) this.restore('relay');
    else if (dice < 0.75) user.session?.feed({ kind: 'network' });
    else if (dice < 0.77) this.network();
    else if (dice < 0.82) this.roam(user);
    else if (dice < 0.92) this.socket(user);
    else if (dice < 0.95) for (const each of this.users) this.socket(each);
    else if (dice < 0.96) this.pick(user.connections)?.endDTLS();
    else if (dice < 0.97) this.resize();
    else if (dice < 0.98) user.limited = !user.limited;
    else if (user.here) this.reload(user);
  }

  /** Others join or leave: the room becomes too large for backup connections, or small enough. */
  private resize(): void {
    this.backupsAllowed = !this.backupsAllowed;
    for (const user of this.users) {
      this.later(this.next() * this.maxDelay, () => {
        user.backupAllowed = this.backupsAllowed;
        user.session?.feed({ kind: 'room' });
      });
    }
  }

  /** Both restart ICE for better paths. */
  network(): void {
    for (const { session } of this.users) session?.feed({ kind: 'network' });
  }

  private socket(user: User): void {
    if (!user.here) return;
    if (!user.online) user.resume();
    else if (user.socketDead || this.chance(0.5)) user.loseSocket();
    else user.socketDead = true;
  }

  /**
   * The device changes its address: old candidates and the socket are dead, which may take a while
   * to be noticed.
   */
  private roam(user: User): void {
    if (!user.here) return;
    user.address++;
    this.update();
    user.socketDead = user.online;
    const noticed = () => {
      if (user.socketDead) user.loseSocket();
      user.session?.feed({ kind: 'network' });
    };
    if (this.chance(0.3)) noticed();
    else this.later(this.next() * 3_000, noticed);
  }

  private reload(user: User): void {
    user.leave();
    this.later(this.next() * 1_000, () => user.rejoin());
  }

  /**
   * Disruptions, several at once or with time between them; often both users publish first, while
   * the connection is being made.
   */
  async run(steps: number): Promise<void> {
    if (this.chance(0.4)) await this.clock.pass(this.next() * this.pick([100, 1_000]));
    if (this.chance(0.5)) for (const user of this.users) user.publish('cam');
    for (let step = 0; step < steps; step++) {
      this.disrupt();
      if (this.chance(0.6)) {
        await this.clock.pass(this.next() * this.pick([100, 100, 1_000, 1_000, 5_000, 15_000]));
      }
    }
  }

  /** Ends all disruptions. */
  async heal(): Promise<void> {
    await this.clock.pass(3_000);
    for (const path of ['direct', 'relay'] as const) this.restore(path);
    for (const user of this.users) {
      user.limited = false;
      if (user.socketDead) user.loseSocket();
      if (!user.online) user.resume();
    }
  }

  /**
   * Waits up to `seconds` until there were no violations for `stays` seconds. Returns those that
   * are left.
   */
  async until(violations: () => string[], seconds: number, stays: number): Promise<string[]> {
    let now: string[] = [];
    for (let well = 0; seconds > 0 && well < stays; seconds--) {
      await this.clock.pass(1_000);
      now = violations();
      well = now.length ? 0 : well + 1;
    }
    return now;
  }

  /** What differs from the expected state. */
  violations(): string[] {
    const wanted = this.users.some((user) => TYPES.some((type) => user.session?.sending(type)));
    // Without a connection nothing is shown, and a lost `unpublish` is sent again with the next
    // one.
    const sees = wanted || !this.lossy || this.users.some((user) => user.open('primary').length);
    return [
      ...this.errors,
      ...this.users.flatMap((user) =>
        [
          ...this.sendViolations(user),
          ...(sees ? this.shownViolations(user) : []),
          ...this.pathViolations(user, wanted),
        ].map((text) => `${user.me} ${text}`),
      ),
    ];
  }

  private sendViolations({ session, want, unsure, waiting }: User): string[] {
    if (waiting || !session || session.awaiting) return ['waits'];
    return TYPES.filter((type) => !unsure.has(type) && session.sending(type) !== want[type]).map(
      (type) => `does not send its ${type}`,
    );
  }

  /** Published media that is not shown. */
  unseen(): string[] {
    return this.users.flatMap((user) => this.shownViolations(user));
  }

  private shownViolations({ other, shown, subscribed }: User): string[] {
    const wrong: string[] = [];
    for (const type of TYPES) {
      const sent = other.session?.sending(type)?.getTracks() ?? null;
      const seen = shown[type]?.map((each) => this.source(each)) ?? null;
      if (sent?.length !== seen?.length || sent?.some((each, i) => each !== seen![i])) {
        wrong.push(`is not shown the ${type}`);
      }
      if (subscribed[type] > other.published[type]) wrong.push(`heard of a ${type} too often`);
    }
    return wrong;
  }

  /** The sender track that this received track shows now. */
  private source(received: MediaStreamTrack): MediaStreamTrack | null {
    for (const connection of this.users.flatMap(({ connections }) => connections)) {
      const line = connection
        .getTransceivers()
        .findIndex(({ receiver }) => receiver.track === (received as unknown as FakeTrack).source);
      if (line >= 0) {
        return (connection.answered && connection.end!.getSenders()[line]!.track) || null;
      }
    }
    return null;
  }

  private pathViolations(user: User, wanted: boolean): string[] {
    const wrong: string[] = [];
    const roles: Role[] =
      wanted && this.backupsAllowed
        ? ['primary', 'backup']
        : wanted || this.prewarmed
          ? ['primary']
          : [];
    for (const role of roles) {
      const [connection] = user.open(role);
      if (!connection?.answered || connection.connectionState !== 'connected') {
        wrong.push(`has no ${role} connection`);
      } else if (connection.channel.readyState !== 'open') {
        wrong.push(`has no channel on the ${role} connection`);
      } else if (connection.signalingState !== 'stable') {
        wrong.push(`has an open offer on the ${role} connection`);
      }
    }
    if (!(wanted && this.backupsAllowed) && user.open('backup').length) {
      wrong.push('keeps a backup connection');
    }
    if (user.open('backup').some((c) => c.getSenders().some((sender) => sender.track))) {
      wrong.push('sends on the backup connection');
    }
    if (wanted && user.reported !== 'connected') wrong.push(`says ${user.reported}`);
    return wrong;
  }
}
