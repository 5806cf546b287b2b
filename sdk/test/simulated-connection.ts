/** The fake of RTCPeerConnection where two of them really reach each other, or do not: ICE, its checks and SCTP as the SDK gets to see them. */
import { FakeConnection } from './connections';
import type { CallSimulation, User } from './call-simulation';

export type Role = 'primary' | 'backup';
export type Path = 'direct' | 'relay';

/** Milliseconds. */
const ICE = { disconnected: 5_000, failed: 10_000, attempt: 15_000 };
/** After a loss SCTP waits up to so long before it sends again. */
const STALL = 3_000;

/** What ICE found from one address, under one name. */
export interface IceSession {
  connection: SimulatedConnection;
  address: number;
}

/** A connection with another end, in the world of the schedule that runs. */
export class SimulatedConnection extends FakeConnection {
  static simulation: CallSimulation;
  readonly side: User;
  readonly role: Role;
  /** ICE iceSessions: ours, and the other side's as described to us; 0 for none. */
  localIce = 0;
  remoteIce = 0;
  /** A candidate of the other side's session came. */
  hasCandidate = false;
  /** The two iceSessions between which packets pass, and the path they take. */
  pair: { localIce: number; remoteIce: number; path: Path } | null = null;
  /** DTLS may end, and does not begin again. */
  readonly sctp = { transport: { state: 'connected' } };
  /** The other end, if both agree. */
  end: SimulatedConnection | null = null;
  /** A packet sent now arrives. */
  delivers = false;
  /** It is answered too. */
  answered = false;
  /** SCTP sends nothing until then. */
  stalled = 0;
  private since = 0;
  private checked = 0;
  private restarting = false;
  private readonly queue: string[] = [];
  private pumping = false;
  /** Counts what the state was to be: only the last counts. */
  private latestChange = 0;
  private connecting = false;
  private opening = false;
  /** Nothing passes although something should; the state may not say so yet. */
  private losing = false;

  constructor(config: RTCConfiguration) {
    super(config);
    const { simulation } = SimulatedConnection;
    this.side = simulation.users.find(({ me }) => me === config.iceServers![0]!.username)!;
    this.role = config.iceTransportPolicy === 'relay' ? 'backup' : 'primary';
    if (this.side.open(this.role).length) simulation.addError(`${this.side.me} has a second ${this.role} connection`);
    this.side.connections.push(this);
  }

  get closed(): boolean {
    return this.connectionState === 'closed';
  }

  private get usable(): boolean {
    return !this.closed && this.sctp.transport.state !== 'failed';
  }

  /** DTLS ends here; the other side need not notice. */
  endDTLS(): void {
    if (this.connectionState !== 'connected') return;
    this.sctp.transport.state = 'failed';
    this.latestChange++;
    this.become('failed');
    SimulatedConnection.simulation.update();
  }

  /** What is hasCandidate of the path, anew. */
  updatePath(): void {
    const { pair } = this;
    const end = pair && SimulatedConnection.simulation.iceSessions.get(pair.remoteIce)!.connection;
    this.end = end && this.usable && end.usable && end.pair?.remoteIce === pair!.localIce && end.pair.localIce === pair!.remoteIce ? end : null;
    this.delivers = this.end !== null && SimulatedConnection.simulation.passes(pair!.path, this.side) && valid(pair!.localIce) && valid(pair!.remoteIce);
  }

  override createDataChannel(label: string, options: { id: number }): ReturnType<FakeConnection['createDataChannel']> {
    const channel = super.createDataChannel(label, options);
    channel.send = options.id === 1 ? (text) => this.sendHeartbeat(text) : (text) => {
      this.queue.push(text);
      this.pump();
    };
    return channel;
  }

  override restartIce(): void {
    super.restartIce();
    this.restarting = true;
  }

  override async createAnswer(): Promise<{ type: string; sdp: string }> {
    await this.delay();
    return { type: 'answer', sdp: '' };
  }

  override async setLocalDescription(given?: { type: string; sdp: string }): Promise<void> {
    await this.delay();
    const answers = this.signalingState === 'have-remote-offer';
    await super.setLocalDescription(given);
    if (!this.localIce || this.restarting || answers) {
      this.localIce = SimulatedConnection.simulation.newIceSession(this);
      this.restarting = false;
      this.gather(this.localIce);
    }
    this.describe('');
    this.startChecks();
  }

  override async setRemoteDescription({ type, sdp }: { type: string; sdp: string }): Promise<void> {
    await this.delay();
    const [, from, to, candidates] = sdp.split(' ');
    if (type === 'offer' && this.signalingState !== 'stable') SimulatedConnection.simulation.addError('an offer that crosses another');
    if (type === 'answer' && this.signalingState !== 'have-local-offer') SimulatedConnection.simulation.addError('an answer without an offer');
    if (type === 'answer' && Number(to) !== this.localIce) SimulatedConnection.simulation.addError('an answer to another offer');
    await super.setRemoteDescription({ type, sdp: '' });
    if (this.remoteIce !== Number(from)) this.hasCandidate = false;
    this.remoteIce = Number(from);
    this.hasCandidate ||= candidates === 'found';
    this.startChecks();
  }

  override async addIceCandidate(candidate: RTCIceCandidateInit): Promise<void> {
    if (Number(/^candidate:(\d+)/.exec(candidate.candidate!)![1]) !== this.remoteIce) throw new Error('unknown ufrag');
    this.hasCandidate = true;
    SimulatedConnection.simulation.update();
  }

  override async getStats(): Promise<Map<string, object>> {
    SimulatedConnection.simulation.clock.expectPromises();
    this.selected = this.pair && (this.role === 'primary' && this.pair.path === 'direct' ? { local: 'host', remote: 'host' } : { local: 'relay', remote: 'relay' });
    if (SimulatedConnection.simulation.counts) this.checksAnswered = Math.floor((this.checked + (this.answered ? SimulatedConnection.simulation.clock.now - this.since : 0)) / 500);
    return super.getStats();
  }

  override close(): void {
    const { end, delivers } = this;
    super.close();
    this.updatePath();
    this.side.connections = this.side.connections.filter((c) => c !== this);
    if (end && delivers) {
      SimulatedConnection.simulation.later(SimulatedConnection.simulation.latency, () => {
        for (const channel of end.closed ? [] : [end.channel, end.heartbeats]) {
          if (channel.readyState === 'closed') continue;
          channel.readyState = 'closed';
          channel.onclose?.();
        }
      });
    }
    SimulatedConnection.simulation.update();
  }

  /** What follows from it. */
  update(): void {
    if (this.closed) return;
    const { simulation } = SimulatedConnection;
    const answered = this.delivers && this.end!.delivers;
    if (this.answered !== answered) {
      this.answered = answered;
      const took = simulation.clock.now - this.since;
      if (!answered) this.checked += took;
      else if (this.since) this.stalled = simulation.clock.now + simulation.next() * Math.min(STALL, took);
      this.since = simulation.clock.now;
    }
    if (this.delivers) this.pump();
    this.checkConsent();
    this.openChannels();
    if (this.side.me === 'a') this.connect();
  }

  /** Once both know of both ends of the session, and one where the other is: that delay a moment. */
  private connect(): void {
    if (this.connecting || !this.path()) return;
    this.connecting = true;
    SimulatedConnection.simulation.later(2 * SimulatedConnection.simulation.latency + SimulatedConnection.simulation.next() * 200, () => {
      this.connecting = false;
      const path = this.path();
      if (!path) return;
      const other = SimulatedConnection.simulation.iceSessions.get(this.remoteIce)!.connection;
      this.pair = { localIce: this.localIce, remoteIce: this.remoteIce, path };
      other.pair = { localIce: this.remoteIce, remoteIce: this.localIce, path };
      for (const end of [this, other]) end.changeLater(SimulatedConnection.simulation.next() * 50, () => end.connected());
      SimulatedConnection.simulation.update();
    });
  }

  /** The path that these two could take and do not take yet. */
  private path(): Path | null {
    const { localIce, remoteIce, pair } = this;
    const other = SimulatedConnection.simulation.iceSessions.get(remoteIce)?.connection;
    if (!this.usable || !other?.usable || !localIce || other.remoteIce !== localIce || other.localIce !== remoteIce) return null;
    if ((pair?.localIce === localIce && pair.remoteIce === remoteIce) || !(this.hasCandidate || other.hasCandidate) || !valid(localIce) || !valid(remoteIce)) return null;
    const paths: Path[] = this.role === 'backup' ? ['relay'] : SimulatedConnection.simulation.primaryByRelay ? ['direct', 'relay'] : ['direct'];
    return paths.find((path) => SimulatedConnection.simulation.users.every((user) => SimulatedConnection.simulation.passes(path, user))) ?? null;
  }

  private connected(): void {
    if (this.connectionState !== 'connected') this.become('connected');
    SimulatedConnection.simulation.update();
  }

  /** A browser notices by itself after some seconds that nothing passes any more, and in less that it does. */
  private checkConsent(): void {
    const { connectionState: state, answered } = this;
    if (state === 'connected' && !answered && this.pair && !this.losing) {
      this.losing = true;
      this.changeLater(ICE.disconnected, () => {
        this.become('disconnected');
        this.changeLater(ICE.failed, () => this.become('failed'));
      });
    } else if (answered && this.losing) {
      this.losing = false;
      this.latestChange++;
      if (state === 'connected') return;
      if (state !== 'failed') this.changeLater(100 + SimulatedConnection.simulation.next() * 400, () => this.connected());
    }
  }

  /** A description is there: a try begins where nothing stands. */
  private startChecks(): void {
    if (this.localIce && this.remoteIce && this.signalingState === 'stable' && this.connectionState !== 'connected') {
      if (this.connectionState === 'failed') this.losing = false;
      this.become('connecting');
      this.changeLater(ICE.attempt, () => this.become('failed'));
    }
    SimulatedConnection.simulation.update();
  }

  private openChannels(): void {
    if (this.opening || !this.answered || this.connectionState !== 'connected' || this.end!.connectionState !== 'connected') return;
    if (this.channel.readyState !== 'connecting') return;
    this.opening = true;
    SimulatedConnection.simulation.later(2 * SimulatedConnection.simulation.latency + SimulatedConnection.simulation.next() * 20, () => {
      this.opening = false;
      if (this.closed || !this.answered || this.channel.readyState !== 'connecting') return;
      for (const channel of SimulatedConnection.simulation.chance(0.5) ? [this.channel, this.heartbeats] : [this.heartbeats, this.channel]) {
        channel.readyState = 'open';
        channel.onopen?.();
      }
      this.end?.pump();
    });
  }

  private sendHeartbeat(text: string): void {
    const { end } = this;
    if (!end || !this.delivers || SimulatedConnection.simulation.clock.now < this.stalled) return;
    SimulatedConnection.simulation.later(SimulatedConnection.simulation.latency, () => {
      if (end.heartbeats.readyState === 'open' && this.delivers) end.heartbeats.onmessage?.({ data: text });
    }, true);
  }

  /** One by one and in order; what does not get through now does later. */
  private pump(): void {
    if (this.pumping || !this.queue.length || !this.delivers) return;
    this.pumping = true;
    SimulatedConnection.simulation.later(Math.max(SimulatedConnection.simulation.latency, this.stalled - SimulatedConnection.simulation.clock.now), () => {
      this.pumping = false;
      if (this.closed || !this.delivers || this.end!.channel.readyState !== 'open') return;
      this.end!.channel.onmessage?.({ data: this.queue.shift() });
      this.pump();
    });
  }

  private gather(session: number): void {
    for (const kind of ['host', 'relay']) {
      SimulatedConnection.simulation.later(SimulatedConnection.simulation.next() * (kind === 'host' ? 30 : 300), () => {
        if (this.closed || this.localIce !== session) return;
        this.describe(' found');
        this.gathered(`candidate:${session} 1 udp 1 ${SimulatedConnection.simulation.hidden ? 'x.local' : '10.0.0.1'} 9 typ ${kind}`);
      });
    }
  }

  private describe(found: string): void {
    const { type } = this.localDescription!;
    this.localDescription = { type, sdp: `${type} ${this.localIce} ${this.remoteIce}${found}` };
  }

  /** Browser operations take a while; those of a closed connection never end. */
  private delay(): Promise<void> {
    return new Promise((done) => SimulatedConnection.simulation.later(SimulatedConnection.simulation.next() * 20, () => this.closed || done()));
  }

  private changeLater(ms: number, what: () => void): void {
    const latestChange = ++this.latestChange;
    SimulatedConnection.simulation.later(ms, () => this.closed || latestChange !== this.latestChange || what());
  }
}

/** The address of it is still in use. */
function valid(session: number): boolean {
  const { connection, address } = SimulatedConnection.simulation.iceSessions.get(session)!;
  return connection.side.address === address;
}
