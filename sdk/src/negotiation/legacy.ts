/**
 * The other user's client speaks the raw protocol: one connection for each direction and type, each with a plain offer by who sends. It
 * announces nothing: the tracks of its offer are the publication, and closing the connection ends it.
 */
import type { MediaType } from '../../types/knowledgetalk';
import { deferred, type Deferred } from '../deferred';
import type { Reason } from '../errors';
import type { Signal } from '../signaling/messages';
import { kindsOf } from '../media/streams';
import { Demands } from './budget';
import type { SessionEvent } from './failover';
import { TYPES } from './layout';
import { OneWay } from './peer';
import type { UserHooks } from './session';
import { Negotiation } from './transport';
import { Trickle } from './trickle';

/** Candidates kept for a description that has not come, and taken for one that has. */
const CANDIDATES = 128;
/** New connections in place of one that broke. */
const TRIES = 3;

/** A connection of one type in one direction, and its successors: one operation at a time, none after close(). */
abstract class Leg {
  protected link: OneWay | null = null;
  private trickle: Trickle | null = null;
  private early: RTCIceCandidateInit[] = [];
  private described = false;
  private taken = 0;
  /** Counts connections: what belongs to an earlier one is void. */
  protected life = 0;
  private chain: Promise<void> = Promise.resolve();

  constructor(protected readonly type: MediaType, protected readonly hooks: UserHooks) {}

  get connection(): RTCPeerConnection | undefined {
    return this.link?.pc;
  }

  get connected(): boolean {
    return this.link?.pc.connectionState === 'connected';
  }

  /** The descriptions do not say which way a candidate goes: both ways get it, and the browser knows by its user fragment. */
  candidates(list: RTCIceCandidateInit[]): void {
    if (this.link && this.described) this.add(list);
    else this.early = [...this.early, ...list.slice(-CANDIDATES)].slice(-CANDIDATES);
  }

  private add(list: RTCIceCandidateInit[]): void {
    const some = list.slice(0, CANDIDATES - this.taken);
    this.taken += some.length;
    if (some.length) this.run((link) => link.add(some));
  }

  /** What was sent last may have been lost with the socket. */
  resumed(): void {
    if (!this.connected) this.trickle?.again();
  }

  close(): void {
    this.life++;
    this.trickle?.stop();
    this.link?.close();
    this.trickle = this.link = null;
    this.described = false;
  }

  protected abstract ready(): void;

  /** A new connection in place of the old one. */
  protected open(): void {
    this.close();
    const life = this.life;
    this.hooks.report('connecting', '');
    this.then(async () => {
      const servers = await this.hooks.iceServers();
      if (life !== this.life) return;
      const trickle = new Trickle((candidates) => void this.hooks.sendSignal({ eventOp: 'candidate', gen: 0, type: this.type, candidates }));
      this.trickle = trickle;
      this.link = new OneWay(servers, {
        link: (state) => this.changed(state), candidate: (candidate) => trickle.add(candidate), pass: (track) => this.hooks.pass(track),
      });
    });
  }

  /** Does something with the present connection, after all before it. */
  protected run(work: (link: OneWay) => Promise<unknown>): void {
    const life = this.life;
    this.then(async () => {
      if (life !== this.life || !this.link) return;
      try {
        await work(this.link);
      } catch (error) {
        if (life !== this.life) return;
        console.warn('Ieum: negotiation failed', error);
        this.fail('broken');
      }
    });
  }

  protected describe(type: 'offer' | 'answer', sdp: string): void {
    const life = this.life;
    void this.hooks.sendSignal({ eventOp: 'sdp', gen: 0, n: 0, type: this.type, sdp: { type, sdp } }).then((code) => {
      if (code === '403' && life === this.life) this.fail('not-in-room');
    });
    this.trickle?.release();
  }

  /** The remote description is set: candidates can go in. */
  protected flush(): void {
    this.described = true;
    this.taken = 0;
    const { early } = this;
    this.early = [];
    this.add(early);
    this.taken = 0; // those may be of a description before
  }

  protected fail(reason: Reason): void {
    this.close();
    this.hooks.report('failed', reason);
  }

  protected ended(): void {
    this.fail('ice-failed');
  }

  /** The other side has closed its connection. */
  protected abstract hungUp(): void;

  private changed(state: RTCPeerConnectionState): void {
    if (state === 'connected') {
      this.link?.watch(() => this.hungUp());
      this.ready();
      this.hooks.report('connected', '');
    } else if (state === 'disconnected') this.hooks.report('interrupted', 'interrupted');
    else if (state === 'closed') this.hungUp();
    else if (state === 'failed') this.ended();
  }

  private then(work: () => Promise<void>): void {
    this.chain = this.chain.then(work);
  }
}

/** To the other user. */
class Outgoing extends Leg {
  stream: MediaStream | null = null;
  private kinds = '';
  private waiter: Deferred<boolean> | null = null;
  private again: ReturnType<typeof setTimeout> | undefined;
  private failures = 0;

  get waiting(): boolean {
    return this.waiter !== null;
  }

  publish(stream: MediaStream): Promise<boolean> {
    this.stream = stream;
    const promise = this.wait();
    const kinds = JSON.stringify(kindsOf(stream));
    if (this.kinds === kinds && this.life > 0 && this.link) {
      this.run((link) => link.replace(stream));
      this.run(async () => this.connected && this.ready());
    } else {
      this.kinds = kinds;
      this.offer();
    }
    return promise;
  }

  answered(sdp: string): void {
    this.run(async (link) => {
      if (link.pc.signalingState !== 'have-local-offer') return;
      await link.answered(sdp);
      this.flush();
    });
  }

  unpublish(): void {
    this.stream = null;
    this.close();
    this.settle(false);
  }

  override close(): void {
    clearTimeout(this.again);
    super.close();
  }

  protected ready(): void {
    this.failures = 0;
    this.settle(true);
  }

  /** Who does not want to receive any more is not rung again. */
  protected hungUp(): void {
    this.unpublish();
  }

  protected override fail(reason: Reason): void {
    super.fail(reason);
    // A first attempt that fails is the app's to repeat. What stood once comes back when the network does, but a raw client may as well
    // have hung up in a way that its browser did not tell, or be gone: it is not rung for ever.
    if (this.waiter || this.failures >= TRIES || reason === 'not-in-room') return this.unpublish();
    if (this.stream) this.again = setTimeout(() => this.offer(), Negotiation.again * 2 ** this.failures++);
  }

  private offer(): void {
    this.open();
    this.run(async (link) => {
      if (this.stream) this.describe('offer', await link.offer(this.stream, this.type === 'cam'));
    });
  }

  private wait(): Promise<boolean> {
    const late = () => this.fail(this.link?.pc.remoteDescription ? 'ice-failed' : 'no-answer');
    this.waiter ??= deferred(Negotiation.publish, late);
    return this.waiter.promise;
  }

  private settle(ok: boolean): void {
    this.waiter?.settle(ok);
    this.waiter = null;
  }
}

/** From the other user. */
class Incoming extends Leg {
  private fingerprint = '';
  private told = false;

  constructor(type: MediaType, hooks: UserHooks, private readonly show: (tracks: MediaStreamTrack[] | null, first: boolean) => void) {
    super(type, hooks);
  }

  /** A second offer of the same connection renegotiates it; one of another connection is another publication. */
  offered(sdp: string): void {
    const fingerprint = /^a=fingerprint:.*$/m.exec(sdp)?.[0] ?? '';
    if (this.life === 0 || !fingerprint || fingerprint !== this.fingerprint) {
      this.open();
      this.told = false;
    }
    this.fingerprint = fingerprint;
    this.run(async (link) => {
      this.describe('answer', await link.accept(sdp));
      this.flush();
      if (this.connected) this.ready();
    });
  }

  override close(): void {
    super.close();
    this.fingerprint = '';
    this.show(null, false);
  }

  /** By closing its connection a raw client ends a publication: nothing has failed. */
  protected override ended(): void {
    if (this.told) this.close();
    else super.ended();
  }

  protected hungUp(): void {
    this.ended();
  }

  protected ready(): void {
    const tracks = this.link?.tracks() ?? [];
    if (tracks.length) this.show(tracks, !this.told);
    else this.show(null, false);
    this.told = tracks.length > 0;
  }
}

/** One user with a raw client. The same surface as PeerSession. */
export class LegacyPair {
  private readonly out: Record<MediaType, Outgoing>;
  private readonly in: Record<MediaType, Incoming>;

  constructor(hooks: UserHooks, private readonly demands = new Demands()) {
    const incoming = (type: MediaType) => new Incoming(type, hooks, (tracks, first) => {
      hooks.stream(type, tracks);
      if (tracks && first) hooks.subscribed(type);
    });
    this.out = { cam: new Outgoing('cam', hooks), screen: new Outgoing('screen', hooks) };
    this.in = { cam: incoming('cam'), screen: incoming('screen') };
  }

  /** Those that carry most come first. */
  private get legs(): Leg[] {
    return TYPES.flatMap((type) => [this.out[type], this.in[type]]);
  }

  get connection(): RTCPeerConnection | undefined {
    return this.legs.find((leg) => leg.connection)?.connection;
  }

  get waiting(): boolean {
    return TYPES.some((type) => this.out[type].waiting);
  }

  sending(type: MediaType): MediaStream | null {
    return this.out[type].stream;
  }

  publish(type: MediaType, stream: MediaStream): Promise<boolean> {
    return this.out[type].publish(stream);
  }

  /** Raw clients are not told of kinds: another offer would be another publication to them. */
  ended(): void {}

  senders(): RTCRtpSender[] {
    return this.out.cam.connection?.getSenders() ?? [];
  }

  signal(signal: Signal): void {
    const type = signal.type ?? 'cam';
    if (signal.eventOp === 'candidate') {
      for (const leg of [this.out[type], this.in[type]]) leg.candidates(signal.candidates);
    } else if (signal.eventOp === 'sdp') {
      if (signal.sdp.type === 'answer') this.out[type].answered(signal.sdp.sdp);
      else if (this.demands.builds.take()) this.in[type].offered(signal.sdp.sdp);
    }
  }

  feed(event: SessionEvent): void {
    if (event.kind === 'unpublish') this.out[event.type].unpublish();
    else if (event.kind === 'refuse') this.in[event.type].close();
    else if (event.kind === 'resumed') for (const leg of this.legs) leg.resumed();
  }

  dispose(): void {
    for (const type of TYPES) {
      this.out[type].unpublish();
      this.in[type].close();
    }
  }
}
