/** The fake of RTCPeerConnection where two of them really reach each other, or do not: ICE, its checks and SCTP as the SDK gets to see them. */
import { FakeConnection } from './connections';
import type { Lanes, User } from './lanes';

export type Lane = 'main' | 'standby';
export type Way = 'straight' | 'relay';

/** Milliseconds. */
const ICE = { disconnected: 5_000, failed: 10_000, attempt: 15_000 };
/** After a loss SCTP waits up to so long before it sends again. */
const STALL = 3_000;

/** What ICE found from one address, under one name. */
export interface Session {
  connection: Lines;
  address: number;
}

/** A connection with another end, in the world of the schedule that runs. */
export class Lines extends FakeConnection {
  static lanes: Lanes;
  readonly side: User;
  readonly lane: Lane;
  /** ICE sessions: ours, and the other side's as described to us; 0 for none. */
  mine = 0;
  theirs = 0;
  /** A candidate of the other side's session came. */
  known = false;
  /** The two sessions between which packets pass, and the way they take. */
  pair: { mine: number; theirs: number; way: Way } | null = null;
  /** DTLS may end, and does not begin again. */
  readonly sctp = { transport: { state: 'connected' } };
  /** The other end, if both agree. */
  end: Lines | null = null;
  /** A packet sent now arrives. */
  flows = false;
  /** It is answered too. */
  reaching = false;
  /** SCTP sends nothing until then. */
  stalled = 0;
  private since = 0;
  private checked = 0;
  private restarting = false;
  private readonly queue: string[] = [];
  private pumping = false;
  /** Counts what the state was to be: only the last counts. */
  private turn = 0;
  private connecting = false;
  private opening = false;
  /** Nothing passes although something should; the state may not say so yet. */
  private doubting = false;

  constructor(config: RTCConfiguration) {
    super(config);
    const { lanes } = Lines;
    this.side = lanes.users.find(({ me }) => me === config.iceServers![0]!.username)!;
    this.lane = config.iceTransportPolicy === 'relay' ? 'standby' : 'main';
    if (this.side.open(this.lane).length) lanes.fault(`${this.side.me} has a second ${this.lane} connection`);
    this.side.connections.push(this);
  }

  get closed(): boolean {
    return this.connectionState === 'closed';
  }

  private get able(): boolean {
    return !this.closed && this.sctp.transport.state !== 'failed';
  }

  /** DTLS ends here; the other side need not notice. */
  endDTLS(): void {
    if (this.connectionState !== 'connected') return;
    this.sctp.transport.state = 'failed';
    this.turn++;
    this.become('failed');
    Lines.lanes.look();
  }

  /** What is known of the way, anew. */
  trace(): void {
    const { pair } = this;
    const end = pair && Lines.lanes.sessions.get(pair.theirs)!.connection;
    this.end = end && this.able && end.able && end.pair?.theirs === pair!.mine && end.pair.mine === pair!.theirs ? end : null;
    this.flows = this.end !== null && Lines.lanes.passes(pair!.way, this.side) && valid(pair!.mine) && valid(pair!.theirs);
  }

  override createDataChannel(label: string, options: { id: number }): ReturnType<FakeConnection['createDataChannel']> {
    const channel = super.createDataChannel(label, options);
    channel.send = options.id === 1 ? (text) => this.heartbeat(text) : (text) => {
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
    await this.takes();
    return { type: 'answer', sdp: '' };
  }

  override async setLocalDescription(given?: { type: string; sdp: string }): Promise<void> {
    await this.takes();
    const answers = this.signalingState === 'have-remote-offer';
    await super.setLocalDescription(given);
    if (!this.mine || this.restarting || answers) {
      this.mine = Lines.lanes.session(this);
      this.restarting = false;
      this.gather(this.mine);
    }
    this.describe('');
    this.attempt();
  }

  override async setRemoteDescription({ type, sdp }: { type: string; sdp: string }): Promise<void> {
    await this.takes();
    const [, from, to, candidates] = sdp.split(' ');
    if (type === 'offer' && this.signalingState !== 'stable') Lines.lanes.fault('an offer that crosses another');
    if (type === 'answer' && this.signalingState !== 'have-local-offer') Lines.lanes.fault('an answer without an offer');
    if (type === 'answer' && Number(to) !== this.mine) Lines.lanes.fault('an answer to another offer');
    await super.setRemoteDescription({ type, sdp: '' });
    if (this.theirs !== Number(from)) this.known = false;
    this.theirs = Number(from);
    this.known ||= candidates === 'found';
    this.attempt();
  }

  override async addIceCandidate(candidate: RTCIceCandidateInit): Promise<void> {
    if (Number(/^candidate:(\d+)/.exec(candidate.candidate!)![1]) !== this.theirs) throw new Error('unknown ufrag');
    this.known = true;
    Lines.lanes.look();
  }

  override async getStats(): Promise<Map<string, object>> {
    Lines.lanes.clock.stir();
    this.selected = this.pair && (this.lane === 'main' && this.pair.way === 'straight' ? { local: 'host', remote: 'host' } : { local: 'relay', remote: 'relay' });
    if (Lines.lanes.counts) this.checksAnswered = Math.floor((this.checked + (this.reaching ? Lines.lanes.clock.now - this.since : 0)) / 500);
    return super.getStats();
  }

  override close(): void {
    const { end, flows } = this;
    super.close();
    this.trace();
    this.side.connections = this.side.connections.filter((c) => c !== this);
    if (end && flows) {
      Lines.lanes.later(Lines.lanes.latency, () => {
        for (const channel of end.closed ? [] : [end.channel, end.heartbeats]) {
          if (channel.readyState === 'closed') continue;
          channel.readyState = 'closed';
          channel.onclose?.();
        }
      });
    }
    Lines.lanes.look();
  }

  /** What follows from it. */
  look(): void {
    if (this.closed) return;
    const { lanes } = Lines;
    const reaching = this.flows && this.end!.flows;
    if (this.reaching !== reaching) {
      this.reaching = reaching;
      const took = lanes.clock.now - this.since;
      if (!reaching) this.checked += took;
      else if (this.since) this.stalled = lanes.clock.now + lanes.next() * Math.min(STALL, took);
      this.since = lanes.clock.now;
    }
    if (this.flows) this.pump();
    this.consent();
    this.openChannels();
    if (this.side.me === 'a') this.connect();
  }

  /** Once both know of both ends of the session, and one where the other is: that takes a moment. */
  private connect(): void {
    if (this.connecting || !this.way()) return;
    this.connecting = true;
    Lines.lanes.later(2 * Lines.lanes.latency + Lines.lanes.next() * 200, () => {
      this.connecting = false;
      const way = this.way();
      if (!way) return;
      const other = Lines.lanes.sessions.get(this.theirs)!.connection;
      this.pair = { mine: this.mine, theirs: this.theirs, way };
      other.pair = { mine: this.theirs, theirs: this.mine, way };
      for (const end of [this, other]) end.soon(Lines.lanes.next() * 50, () => end.stand());
      Lines.lanes.look();
    });
  }

  /** The way that these two could take and do not take yet. */
  private way(): Way | null {
    const { mine, theirs, pair } = this;
    const other = Lines.lanes.sessions.get(theirs)?.connection;
    if (!this.able || !other?.able || !mine || other.theirs !== mine || other.mine !== theirs) return null;
    if ((pair?.mine === mine && pair.theirs === theirs) || !(this.known || other.known) || !valid(mine) || !valid(theirs)) return null;
    const ways: Way[] = this.lane === 'standby' ? ['relay'] : Lines.lanes.mainByRelay ? ['straight', 'relay'] : ['straight'];
    return ways.find((way) => Lines.lanes.users.every((user) => Lines.lanes.passes(way, user))) ?? null;
  }

  private stand(): void {
    if (this.connectionState !== 'connected') this.become('connected');
    Lines.lanes.look();
  }

  /** A browser notices by itself after some seconds that nothing passes any more, and in less that it does. */
  private consent(): void {
    const { connectionState: state, reaching } = this;
    if (state === 'connected' && !reaching && this.pair && !this.doubting) {
      this.doubting = true;
      this.soon(ICE.disconnected, () => {
        this.become('disconnected');
        this.soon(ICE.failed, () => this.become('failed'));
      });
    } else if (reaching && this.doubting) {
      this.doubting = false;
      this.turn++;
      if (state === 'connected') return;
      if (state !== 'failed') this.soon(100 + Lines.lanes.next() * 400, () => this.stand());
    }
  }

  /** A description is there: a try begins where nothing stands. */
  private attempt(): void {
    if (this.mine && this.theirs && this.signalingState === 'stable' && this.connectionState !== 'connected') {
      if (this.connectionState === 'failed') this.doubting = false;
      this.become('connecting');
      this.soon(ICE.attempt, () => this.become('failed'));
    }
    Lines.lanes.look();
  }

  private openChannels(): void {
    if (this.opening || !this.reaching || this.connectionState !== 'connected' || this.end!.connectionState !== 'connected') return;
    if (this.channel.readyState !== 'connecting') return;
    this.opening = true;
    Lines.lanes.later(2 * Lines.lanes.latency + Lines.lanes.next() * 20, () => {
      this.opening = false;
      if (this.closed || !this.reaching || this.channel.readyState !== 'connecting') return;
      for (const channel of Lines.lanes.chance(0.5) ? [this.channel, this.heartbeats] : [this.heartbeats, this.channel]) {
        channel.readyState = 'open';
        channel.onopen?.();
      }
      this.end?.pump();
    });
  }

  private heartbeat(text: string): void {
    const { end } = this;
    if (!end || !this.flows || Lines.lanes.clock.now < this.stalled) return;
    Lines.lanes.later(Lines.lanes.latency, () => {
      if (end.heartbeats.readyState === 'open' && this.flows) end.heartbeats.onmessage?.({ data: text });
    }, true);
  }

  /** One by one and in order; what does not get through now does later. */
  private pump(): void {
    if (this.pumping || !this.queue.length || !this.flows) return;
    this.pumping = true;
    Lines.lanes.later(Math.max(Lines.lanes.latency, this.stalled - Lines.lanes.clock.now), () => {
      this.pumping = false;
      if (this.closed || !this.flows || this.end!.channel.readyState !== 'open') return;
      this.end!.channel.onmessage?.({ data: this.queue.shift() });
      this.pump();
    });
  }

  private gather(session: number): void {
    for (const kind of ['host', 'relay']) {
      Lines.lanes.later(Lines.lanes.next() * (kind === 'host' ? 30 : 300), () => {
        if (this.closed || this.mine !== session) return;
        this.describe(' found');
        this.gathered(`candidate:${session} 1 udp 1 ${Lines.lanes.hidden ? 'x.local' : '10.0.0.1'} 9 typ ${kind}`);
      });
    }
  }

  private describe(found: string): void {
    const { type } = this.localDescription!;
    this.localDescription = { type, sdp: `${type} ${this.mine} ${this.theirs}${found}` };
  }

  /** Browser operations take a while; those of a closed connection never end. */
  private takes(): Promise<void> {
    return new Promise((done) => Lines.lanes.later(Lines.lanes.next() * 20, () => this.closed || done()));
  }

  private soon(ms: number, what: () => void): void {
    const turn = ++this.turn;
    Lines.lanes.later(ms, () => this.closed || turn !== this.turn || what());
  }
}

/** The address of it is still in use. */
function valid(session: number): boolean {
  const { connection, address } = Lines.lanes.sessions.get(session)!;
  return connection.side.address === address;
}
