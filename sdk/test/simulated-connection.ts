/**
 * A fake RTCPeerConnection whose two ends reach each other over a simulated network: ICE,
 * connectivity checks and SCTP as the SDK sees them.
 */
import { FakeConnection } from './connections';
import type { CallSimulation, User } from './call-simulation';

export type Role = 'primary' | 'backup';
export type Path = 'direct' | 'relay';

/** Milliseconds. */
const ICE = { disconnected: 5_000, failed: 10_000, attempt: 15_000 };
/** After packet loss SCTP waits up to this long before it retransmits. */
const STALL = 3_000;

/** One ICE session (one ufrag), gathered at one address of the device. */
export interface IceSession {
  connection: SimulatedConnection;
  address: number;
}

/** One end of a connection in the running simulation. */
export class SimulatedConnection extends FakeConnection {
  static simulation: CallSimulation;
  private readonly simulation = SimulatedConnection.simulation;
  readonly side: User;
  readonly role: Role;
  /** ICE sessions: ours, and the remote one from its description; 0 for none. */
  localIce = 0;
  remoteIce = 0;
  /** A candidate of the remote ICE session has arrived. */
  hasCandidate = false;
  /** The selected candidate pair: its two ICE sessions and the network path it takes. */
  pair: { localIce: number; remoteIce: number; path: Path } | null = null;
  /** DTLS can fail, and does not restart. */
  readonly sctp = { transport: { state: 'connected' } };
  /** The remote end, when both ends agree on the pair. */
  end: SimulatedConnection | null = null;
  /** A packet sent now arrives. */
  delivers = false;
  /** And the reply arrives as well. */
  answered = false;
  /** SCTP sends nothing until this time. */
  stalled = 0;
  private since = 0;
  private checked = 0;
  private restarting = false;
  private readonly queue: string[] = [];
  private pumping = false;
  /** Numbers the planned state changes: only the latest one happens. */
  private latestChange = 0;
  private connecting = false;
  private opening = false;
  /** The pair has lost connectivity; connectionState may not show it yet. */
  private losing = false;

  constructor(config: RTCConfiguration) {
    super(config);
    const { simulation } = this;
    this.side = simulation.users.find(({ me }) => me === config.iceServers![0]!.username)!;
    this.role = config.iceTransportPolicy === 'relay' ? 'backup' : 'primary';
    if (this.side.open(this.role).length) {
      simulation.addError(`${this.side.me} has a second ${this.role} connection`);
    }
    this.side.connections.push(this);
  }

  get closed(): boolean {
    return this.connectionState === 'closed';
  }

  private get usable(): boolean {
    return !this.closed && this.sctp.transport.state !== 'failed';
  }

  /** DTLS fails on this side; the other side does not notice. */
  endDTLS(): void {
    if (this.connectionState !== 'connected') return;
    this.sctp.transport.state = 'failed';
    this.latestChange++;
    this.become('failed');
    this.simulation.update();
  }

  /** Works out whether packets pass, after any change of the network or of a pair. */
  updatePath(): void {
    const { pair } = this;
    const end = pair && this.simulation.iceSessions.get(pair.remoteIce)!.connection;
    this.end =
      end
      && this.usable
      && end.usable
      && end.pair?.remoteIce === pair!.localIce
      && end.pair.localIce === pair!.remoteIce
        ? end
        : null;
    this.delivers =
      this.end !== null
      && this.simulation.passes(pair!.path, this.side)
      && valid(pair!.localIce)
      && valid(pair!.remoteIce);
  }

  override createDataChannel(
    label: string,
    options: { id: number },
  ): ReturnType<FakeConnection['createDataChannel']> {
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
      this.localIce = this.simulation.newIceSession(this);
      this.restarting = false;
      this.gather(this.localIce);
    }
    this.describe('');
    this.startChecks();
  }

  override async setRemoteDescription({ type, sdp }: { type: string; sdp: string }): Promise<void> {
    await this.delay();
    const [, from, to, candidates] = sdp.split(' ');
    if (type === 'offer' && this.signalingState !== 'stable') {
      this.simulation.addError('an offer that crosses another');
    }
    if (type === 'answer' && this.signalingState !== 'have-local-offer') {
      this.simulation.addError('an answer without an offer');
    }
    if (type === 'answer' && Number(to) !== this.localIce) {
      this.simulation.addError('an answer to another offer');
    }
    await super.setRemoteDescription({ type, sdp: '' });
    if (this.remoteIce !== Number(from)) this.hasCandidate = false;
    this.remoteIce = Number(from);
    this.hasCandidate ||= candidates === 'found';
    this.startChecks();
  }

  override async addIceCandidate(candidate: RTCIceCandidateInit): Promise<void> {
    if (Number(/^candidate:(\d+)/.exec(candidate.candidate!)![1]) !== this.remoteIce) {
      throw new Error('unknown ufrag');
    }
    this.hasCandidate = true;
    this.simulation.update();
  }

  override async getStats(): Promise<Map<string, object>> {
    this.simulation.clock.expectPromises();
    this.selected =
      this.pair
      && (this.role === 'primary' && this.pair.path === 'direct'
        ? { local: 'host', remote: 'host' }
        : { local: 'relay', remote: 'relay' });
    if (this.simulation.counts) {
      this.checksAnswered = Math.floor(
        (this.checked + (this.answered ? this.simulation.clock.now - this.since : 0)) / 500,
      );
    }
    return super.getStats();
  }

  override close(): void {
    const { end, delivers } = this;
    super.close();
    this.updatePath();
    this.side.connections = this.side.connections.filter((c) => c !== this);
    if (end && delivers) {
      this.simulation.later(this.simulation.latency, () => {
        for (const channel of end.closed ? [] : [end.channel, end.heartbeats]) {
          if (channel.readyState === 'closed') continue;
          channel.readyState = 'closed';
          channel.onclose?.();
        }
      });
    }
    this.simulation.update();
  }

  /** Reacts to the new connectivity. */
  update(): void {
    if (this.closed) return;
    const { simulation } = this;
    const answered = this.delivers && this.end!.delivers;
    if (this.answered !== answered) {
      this.answered = answered;
      const took = simulation.clock.now - this.since;
      if (!answered) this.checked += took;
      else if (this.since) {
        this.stalled = simulation.clock.now + simulation.next() * Math.min(STALL, took);
      }
      this.since = simulation.clock.now;
    }
    if (this.delivers) this.pump();
    this.checkConsent();
    this.openChannels();
    if (this.side.me === 'a') this.connect();
  }

  /** Nominates a pair shortly after both ends have descriptions and one has a candidate. */
  private connect(): void {
    if (this.connecting || !this.path()) return;
    this.connecting = true;
    this.simulation.later(2 * this.simulation.latency + this.simulation.next() * 200, () => {
      this.connecting = false;
      const path = this.path();
      if (!path) return;
      const other = this.simulation.iceSessions.get(this.remoteIce)!.connection;
      this.pair = { localIce: this.localIce, remoteIce: this.remoteIce, path };
      other.pair = { localIce: this.remoteIce, remoteIce: this.localIce, path };
      for (const end of [this, other]) {
        end.changeLater(this.simulation.next() * 50, () => end.connected());
      }
      this.simulation.update();
    });
  }

  /** A path that these two ends could use and do not use yet. */
  private path(): Path | null {
    const { localIce, remoteIce, pair } = this;
    const other = this.simulation.iceSessions.get(remoteIce)?.connection;
    if (
      !this.usable
      || !other?.usable
      || !localIce
      || other.remoteIce !== localIce
      || other.localIce !== remoteIce
    ) {
      return null;
    }
    if (
      (pair?.localIce === localIce && pair.remoteIce === remoteIce)
      || !(this.hasCandidate || other.hasCandidate)
      || !valid(localIce)
      || !valid(remoteIce)
    ) {
      return null;
    }
    const paths: Path[] =
      this.role === 'backup'
        ? ['relay']
        : this.simulation.primaryByRelay
          ? ['direct', 'relay']
          : ['direct'];
    return (
      paths.find((path) =>
        this.simulation.users.every((user) => this.simulation.passes(path, user)),
      ) ?? null
    );
  }

  private connected(): void {
    if (this.connectionState !== 'connected') this.become('connected');
    this.simulation.update();
  }

  /**
   * Consent checks: a browser notices after some seconds that packets stopped, and faster that they
   * flow again.
   */
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
      if (state !== 'failed') {
        this.changeLater(100 + this.simulation.next() * 400, () => this.connected());
      }
    }
  }

  /** With both descriptions set, connectivity checks start unless the connection is up. */
  private startChecks(): void {
    if (
      this.localIce
      && this.remoteIce
      && this.signalingState === 'stable'
      && this.connectionState !== 'connected'
    ) {
      if (this.connectionState === 'failed') this.losing = false;
      this.become('connecting');
      this.changeLater(ICE.attempt, () => this.become('failed'));
    }
    this.simulation.update();
  }

  private openChannels(): void {
    if (
      this.opening
      || !this.answered
      || this.connectionState !== 'connected'
      || this.end!.connectionState !== 'connected'
    ) {
      return;
    }
    if (this.channel.readyState !== 'connecting') return;
    this.opening = true;
    this.simulation.later(2 * this.simulation.latency + this.simulation.next() * 20, () => {
      this.opening = false;
      if (this.closed || !this.answered || this.channel.readyState !== 'connecting') return;
      const channels = [this.channel, this.heartbeats];
      if (this.simulation.chance(0.5)) channels.reverse();
      for (const channel of channels) {
        channel.readyState = 'open';
        channel.onopen?.();
      }
      this.end?.pump();
    });
  }

  private sendHeartbeat(text: string): void {
    const { end } = this;
    if (!end || !this.delivers || this.simulation.clock.now < this.stalled) return;
    this.simulation.later(
      this.simulation.latency,
      () => {
        if (end.heartbeats.readyState === 'open' && this.delivers) {
          end.heartbeats.onmessage?.({ data: text });
        }
      },
      true,
    );
  }

  /** Delivers in order, one at a time; what cannot pass now waits. */
  private pump(): void {
    if (this.pumping || !this.queue.length || !this.delivers) return;
    this.pumping = true;
    this.simulation.later(
      Math.max(this.simulation.latency, this.stalled - this.simulation.clock.now),
      () => {
        this.pumping = false;
        if (this.closed || !this.delivers || this.end!.channel.readyState !== 'open') return;
        this.end!.channel.onmessage?.({ data: this.queue.shift() });
        this.pump();
      },
    );
  }

  private gather(session: number): void {
    for (const kind of ['host', 'relay']) {
      this.simulation.later(this.simulation.next() * (kind === 'host' ? 30 : 300), () => {
        if (this.closed || this.localIce !== session) return;
        this.describe(' found');
        const address = this.simulation.hidden ? 'x.local' : '10.0.0.1';
        this.gathered(`candidate:${session} 1 udp 1 ${address} 9 typ ${kind}`);
      });
    }
  }

  private describe(found: string): void {
    const { type } = this.localDescription!;
    this.localDescription = { type, sdp: `${type} ${this.localIce} ${this.remoteIce}${found}` };
  }

  /** Browser operations take time; on a closed connection they never finish. */
  private delay(): Promise<void> {
    return new Promise((done) =>
      this.simulation.later(this.simulation.next() * 20, () => this.closed || done()),
    );
  }

  private changeLater(ms: number, what: () => void): void {
    const latestChange = ++this.latestChange;
    this.simulation.later(ms, () => this.closed || latestChange !== this.latestChange || what());
  }
}

/** Whether the address of this ICE session is still in use. */
function valid(session: number): boolean {
  const { connection, address } = SimulatedConnection.simulation.iceSessions.get(session)!;
  return connection.side.address === address;
}
