/**
 * A legacy peer, without the feature `pair`: one connection per direction and type, each with a
 * plain offer by its sender. The tracks of an offer are the publication, and closing the connection
 * ends it.
 */
import type { MediaType } from '../../types/knowledgetalk';
import { deferred, type Deferred } from '../deferred';
import type { Reason } from '../errors';
import type { Signal } from '../signaling/messages';
import { kindsOf } from '../media/streams';
import { PeerLimits } from './budget';
import type { SessionEvent } from './failover';
import { TYPES } from './layout';
import { LegConnection } from './peer';
import type { UserHooks } from './session';
import { Negotiation } from './transport';
import { Trickle } from './trickle';

/** Candidates kept for a description that has not come, and used for one that has. */
const CANDIDATES = 128;
/** New connections in place of a broken one. */
const TRIES = 3;

/**
 * A unidirectional connection of one type, and its successors: one operation at a time, none after
 * close().
 */
abstract class Leg {
  protected link: LegConnection | null = null;
  private trickle: Trickle | null = null;
  private early: RTCIceCandidateInit[] = [];
  private described = false;
  private taken = 0;
  /** Counts connections: events of an earlier one are void. */
  protected life = 0;
  private chain: Promise<void> = Promise.resolve();

  constructor(protected readonly type: MediaType, protected readonly hooks: UserHooks) {}

  get connection(): RTCPeerConnection | undefined {
    return this.link?.pc;
  }

  get connected(): boolean {
    return this.link?.pc.connectionState === 'connected';
  }

  /**
   * Signals do not say which direction a candidate is for: both get it, and the browser knows by
   * its ufrag.
   */
  candidates(list: RTCIceCandidateInit[]): void {
    if (this.link && this.described) this.add(list);
    else this.early = [...this.early, ...list.slice(-CANDIDATES)].slice(-CANDIDATES);
  }

  private add(list: RTCIceCandidateInit[]): void {
    const some = list.slice(0, CANDIDATES - this.taken);
    this.taken += some.length;
    if (some.length) this.run((link) => link.add(some));
  }

  /** The last messages may have been lost with the socket. */
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
      const trickle = new Trickle(
        (candidates) =>
          void this.hooks.sendSignal({ eventOp: 'candidate', gen: 0, type: this.type, candidates }),
      );
      this.trickle = trickle;
      this.link = new LegConnection(servers, {
        link: (state) => this.changed(state),
        candidate: (candidate) => trickle.add(candidate),
        pass: (track) => this.hooks.pass(track),
      });
    });
  }

  /** Works with the present connection, after all earlier work. */
  protected run(work: (link: LegConnection) => Promise<unknown>): void {
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
    void this.hooks
      .sendSignal({ eventOp: 'sdp', gen: 0, n: 0, type: this.type, sdp: { type, sdp } })
      .then((code) => {
        if (code === '403' && life === this.life) this.fail('not-in-room');
      });
    this.trickle?.release();
  }

  /** The remote description is set: candidates can be added. */
  protected flush(): void {
    this.described = true;
    this.taken = 0;
    const { early } = this;
    this.early = [];
    this.add(early);
    // Early candidates may belong to an earlier description.
    this.taken = 0;
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
      // The app may have left when it saw the stream.
      if (this.link) this.hooks.report('connected', '');
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

  get awaiting(): boolean {
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

  /** A peer that refuses the media is not called again. */
  protected hungUp(): void {
    this.unpublish();
  }

  protected override fail(reason: Reason): void {
    super.fail(reason);
    // The app repeats a failed first attempt. A connection that was up is retried a limited number
    // of times: a legacy peer may have hung up unnoticed, or be gone.
    if (this.waiter || this.failures >= TRIES || reason === 'not-in-room') return this.unpublish();
    if (this.stream) {
      this.again = setTimeout(() => this.offer(), Negotiation.again * 2 ** this.failures++);
    }
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
    return this.waiter.outcome;
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

  constructor(
    type: MediaType,
    hooks: UserHooks,
    private readonly show: (tracks: MediaStreamTrack[] | null, first: boolean) => void,
  ) {
    super(type, hooks);
  }

  /**
   * A second offer of the same connection renegotiates; one of another connection is a new
   * publication.
   */
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

  /** A legacy peer ends a publication by closing its connection: nothing has failed. */
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

/** A legacy peer. The same surface as PeerSession. */
export class LegacyPeer {
  private readonly out: Record<MediaType, Outgoing>;
  private readonly in: Record<MediaType, Incoming>;

  constructor(hooks: UserHooks, private readonly peerLimits = new PeerLimits()) {
    const incoming = (type: MediaType) => new Incoming(type, hooks, (tracks, first) => {
      hooks.stream(type, tracks);
      if (tracks && first) hooks.subscribed(type);
    });
    this.out = { cam: new Outgoing('cam', hooks), screen: new Outgoing('screen', hooks) };
    this.in = { cam: incoming('cam'), screen: incoming('screen') };
  }

  /** Sending legs come first. */
  private get legs(): Leg[] {
    return TYPES.flatMap((type) => [this.out[type], this.in[type]]);
  }

  get connection(): RTCPeerConnection | undefined {
    return this.legs.find((leg) => leg.connection)?.connection;
  }

  get awaiting(): boolean {
    return TYPES.some((type) => this.out[type].awaiting);
  }

  sending(type: MediaType): MediaStream | null {
    return this.out[type].stream;
  }

  publish(type: MediaType, stream: MediaStream): Promise<boolean> {
    return this.out[type].publish(stream);
  }

  /** A legacy peer is not told: another offer would be a new publication. */
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
      else if (this.peerLimits.builds.take()) this.in[type].offered(signal.sdp.sdp);
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
