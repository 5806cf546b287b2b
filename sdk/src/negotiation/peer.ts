import type { MediaType } from '../../types/knowledgetalk';
import { isFirefox } from '../global';
import { liveTracks } from '../media/streams';
import { HEARTBEATS, CHANNEL, LAYOUT } from './layout';
import type { Checks } from './liveness';

export interface ConnectionHooks {
  /** `closed` also when the app has closed the connection. */
  link(state: RTCPeerConnectionState): void;
  candidate(candidate: RTCIceCandidateInit): void;
  /** A track of the camera is about to be sent, or was put on a sender by the app. */
  pass(track: MediaStreamTrack): void;
}

/** Most candidates used of a description: see machine.ts. */
const CANDIDATES = 128;

/** Wraps a method of an object that apps have. */
function wrap<T extends object, K extends keyof T>(
  object: T,
  name: K,
  by: (native: T[K]) => T[K],
): void {
  object[name] = by((object[name] as (...args: never[]) => unknown).bind(object) as T[K]);
}

/** What a connection reports. */
export interface PeerHooks extends ConnectionHooks {
  channel(open: boolean): void;
  message(text: string): void;
  heartbeatOpen(open: boolean): void;
  heartbeat(text: string): void;
}

/** The entries of getStats(), by id. */
type Stats = Map<string, Record<string, unknown>>;

/** Id of the selected candidate pair; empty where the browser has none. */
function selectedPair(stats: Stats): string {
  const all = [...stats];
  const named = all.find(
    ([, { type, selectedCandidatePairId }]) => type === 'transport' && selectedCandidatePairId,
  )?.[1].selectedCandidatePairId;
  // Firefox has no transport statistics: the selected pair is marked instead.
  return (
    (named as string | undefined)
    ?? all.find(([, { type, selected }]) => type === 'candidate-pair' && selected)?.[0]
    ?? ''
  );
}

/** Missing in Node and workers, or blocked by the user. */
export const hasWebRTC = (): boolean => typeof RTCPeerConnection !== 'undefined';

/** What connections to all peers share. This is the only file that names RTCPeerConnection. */
class BrowserConnection {
  readonly pc: RTCPeerConnection;
  /** Removes all listeners on close: a closed connection may live for a while. */
  private readonly life = new AbortController();
  /** Received tracks: the copy that the app has, and a reserve for when the app stops it. */
  private readonly received = new Map<
    MediaStreamTrack,
    { handed: MediaStreamTrack; reserve: MediaStreamTrack }
  >();

  /** Apps have the connection: their handlers and calls must do no harm. */
  constructor(
    iceServers: RTCIceServer[],
    protected readonly hooks: ConnectionHooks,
    relayOnly = false,
  ) {
    this.pc = new RTCPeerConnection({
      iceServers,
      bundlePolicy: 'max-bundle',
      rtcpMuxPolicy: 'require',
      ...(relayOnly ? { iceTransportPolicy: 'relay' } : {}),
    });
    this.listen(this.pc, 'connectionstatechange', () => hooks.link(this.pc.connectionState));
    this.listen(this.pc, 'icecandidate', ({ candidate }: RTCPeerConnectionIceEvent) => {
      // An empty candidate marks the end of a list; trickling has no use for it.
      if (candidate?.candidate) hooks.candidate(candidate.toJSON());
    });
    this.ends(this.pc, 'close');
  }

  /** Until close(). */
  protected listen(object: EventTarget, type: string, listener: (event: any) => void): void {
    object.addEventListener(type, listener, { signal: this.life.signal });
  }

  answered(sdp: string): Promise<void> {
    return this.describe('answer', sdp);
  }

  /**
   * The browser refuses candidates of an ignored offer or a replaced description: nothing is lost.
   */
  async add(list: RTCIceCandidateInit[]): Promise<void> {
    await Promise.all(
      list.map((candidate) => this.pc.addIceCandidate(candidate).catch(() => undefined)),
    );
  }

  close(): void {
    this.life.abort();
    this.pc.close();
    for (const tracks of this.received.values()) {
      for (const track of Object.values(tracks)) track.stop();
    }
  }

  /** No event follows a call of these. */
  protected ends<K extends string>(object: Record<K, () => void>, name: K): void {
    wrap(object, name, (native) => () => {
      native();
      if (!this.life.signal.aborted) this.hooks.link('closed');
    });
  }

  /** A sender of the camera. Checked again afterwards: the user may have muted meanwhile. */
  protected guard(sender: RTCRtpSender): void {
    wrap(sender, 'replaceTrack', (native) => async (track) => {
      if (track) this.hooks.pass(track);
      await native(track);
      if (track) this.hooks.pass(track);
    });
  }

  /** What the app has stopped is dead for good; a copy made before is not. */
  protected take(track: MediaStreamTrack): MediaStreamTrack {
    const kept = this.received.get(track) ?? { handed: track, reserve: track.clone() };
    this.received.set(track, kept);
    if (kept.handed.readyState === 'ended') kept.handed = kept.reserve.clone();
    return kept.handed;
  }

  protected describe(type: 'offer' | 'answer', sdp: string): Promise<void> {
    let left = CANDIDATES;
    return this.pc.setRemoteDescription({
      type,
      sdp: sdp.replace(/^a=candidate:.*\r?\n/gm, (line) => (left-- > 0 ? line : '')),
    });
  }

  protected sdp(): string {
    return this.pc.localDescription?.sdp ?? '';
  }
}

/** A unidirectional connection of one type, to or from a legacy peer. */
export class LegConnection extends BrowserConnection {
  private dtls: RTCDtlsTransport | null = null;

  /** Once connected: reports that the other side closed. connectionState takes 15 s for that. */
  watch(closed: () => void): void {
    const dtls = this.pc.getSenders()[0]?.transport ?? null;
    if (dtls === this.dtls) return;
    this.dtls = dtls;
    if (dtls) this.listen(dtls, 'statechange', () => dtls.state === 'closed' && closed());
  }

  /** Offers to send a stream. Resolves with the SDP. */
  async offer(stream: MediaStream, camera: boolean): Promise<string> {
    for (const track of liveTracks(stream)) {
      if (camera) this.hooks.pass(track);
      const { sender } = this.pc.addTransceiver(track, {
        direction: 'sendonly',
        streams: [stream],
      });
      if (camera) this.guard(sender);
    }
    await this.pc.setLocalDescription();
    return this.sdp();
  }

  /** Takes an offer, to receive only, and answers it. Resolves with the SDP. */
  async accept(sdp: string): Promise<string> {
    await this.describe('offer', sdp);
    await this.pc.setLocalDescription();
    return this.sdp();
  }

  /** Exchanges the tracks for those of another stream with the same kinds. */
  async replace(stream: MediaStream): Promise<void> {
    const senders = this.pc.getSenders();
    const kinds = this.pc.getTransceivers().map((line) => line.receiver.track.kind);
    await Promise.all(
      senders.map((sender, i) =>
        sender.replaceTrack(liveTracks(stream).find(({ kind }) => kind === kinds[i]) ?? null),
      ),
    );
  }

  /** The tracks that the other side sends. */
  tracks(): MediaStreamTrack[] {
    return this.pc
      .getTransceivers()
      .flatMap((line) =>
        line.currentDirection === 'recvonly' ? [this.take(line.receiver.track)] : [],
      );
  }
}

/** One generation of a connection of a peer session. */
export class Peer extends BrowserConnection {
  private readonly channel: RTCDataChannel;
  private readonly heartbeats: RTCDataChannel;
  private adopted = false;

  constructor(iceServers: RTCIceServer[], creator: boolean, hooks: PeerHooks, relayOnly: boolean) {
    super(iceServers, hooks, relayOnly);
    this.channel = this.pc.createDataChannel(CHANNEL.label, { negotiated: true, id: CHANNEL.id });
    this.channel.onopen = () => hooks.channel(true);
    this.channel.onclose = () => hooks.channel(false);
    this.channel.onmessage = ({ data }) => typeof data === 'string' && hooks.message(data);
    this.heartbeats = this.pc.createDataChannel(HEARTBEATS.label, {
      negotiated: true,
      id: HEARTBEATS.id,
      ordered: false,
      maxRetransmits: 0,
    });
    this.heartbeats.onopen = () => hooks.heartbeatOpen(true);
    this.heartbeats.onclose = () => hooks.heartbeatOpen(false);
    this.heartbeats.onmessage = ({ data }) => typeof data === 'string' && hooks.heartbeat(data);
    if (creator) {
      for (const { kind } of LAYOUT) this.pc.addTransceiver(kind, { direction: 'sendrecv' });
      this.adopt();
    }
  }

  /**
   * The m-lines exist. Their tracks are kept from the start: an app may stop every track at once.
   */
  private adopt(): void {
    this.adopted = true;
    this.lines.forEach((line, i) => {
      if (LAYOUT[i]!.type === 'cam') this.guard(line.sender);
      this.ends(line, 'stop');
      this.take(line.receiver.track);
    });
    this.aim();
  }

  private get lines(): RTCRtpTransceiver[] {
    return this.pc.getTransceivers().slice(0, LAYOUT.length);
  }

  /** Transceivers of a remote offer are recvonly by default, and apps may change them. */
  private aim(): void {
    for (const line of this.lines) if (line.direction !== 'stopped') line.direction = 'sendrecv';
  }

  /** Makes and sets an offer; with `servers` an ICE restart. Resolves with the SDP to send. */
  async offer(servers?: RTCIceServer[]): Promise<string> {
    if (servers) {
      this.pc.setConfiguration({ ...this.pc.getConfiguration(), iceServers: servers });
      this.pc.restartIce();
    }
    this.aim();
    await this.pc.setLocalDescription();
    return this.sdp();
  }

  /** Sets a remote offer and answers. `attach` runs once the senders exist. */
  async accept(sdp: string, attach: () => Promise<void>): Promise<string> {
    await this.describe('offer', sdp);
    if (this.adopted) {
      this.aim();
    } else {
      if (LAYOUT.some(({ kind }, i) => this.lines[i]?.receiver.track.kind !== kind)) {
        throw new Error('the offer has another layout');
      }
      this.adopt();
      await attach();
    }
    const { sdp: answer = '' } = await this.pc.createAnswer();
    // The offerer should start DTLS: it knows one round trip earlier that a pair works, and there
    // is no API for it. Firefox accepts only its own answer, and so may other browsers.
    const passive = isFirefox() ? answer : answer.replace(/a=setup:active/g, 'a=setup:passive');
    await this.pc
      .setLocalDescription({ type: 'answer', sdp: passive })
      .catch(() => this.pc.setLocalDescription({ type: 'answer', sdp: answer }));
    return this.sdp();
  }

  /** Gives the senders of a type the tracks of a stream, or none. */
  async attach(type: MediaType, stream: MediaStream | null): Promise<void> {
    if (!this.adopted) return;
    const { lines } = this;
    this.aim();
    await Promise.all(
      LAYOUT.map(async (line, i) => {
        if (line.type !== type) return;
        const track = (stream && liveTracks(stream).find(({ kind }) => kind === line.kind)) ?? null;
        const sender = lines[i]?.sender;
        if (!sender || sender.track === track) {
          return track && type === 'cam' ? this.hooks.pass(track) : undefined;
        }
        // With little bandwidth a camera loses sharpness and a screen loses frames, unless the app
        // has set contentHint.
        if (track?.kind === 'video' && track.contentHint === '') {
          track.contentHint = type === 'screen' ? 'detail' : 'motion';
        }
        await sender.replaceTrack(track);
      }),
    );
  }

  /** The remote tracks of the given kinds. */
  tracks(type: MediaType, kinds: { audio: boolean; video: boolean }): MediaStreamTrack[] {
    return this.lines.flatMap(({ receiver }, i) =>
      LAYOUT[i]!.type === type && kinds[LAYOUT[i]!.kind] ? [this.take(receiver.track)] : [],
    );
  }

  /** The local description with the candidates so far; null when its type has changed. */
  description(type: 'offer' | 'answer'): string | null {
    return this.pc.localDescription?.type === type ? this.sdp() : null;
  }

  /**
   * DTLS has failed, as in Firefox after a second ICE restart when the first found nothing. It does
   * not restart.
   */
  get over(): boolean {
    return ['failed', 'closed'].includes(this.pc.sctp?.transport.state ?? '');
  }

  /** Candidate types of the selected pair. Null: none, or unknown. */
  async path(): Promise<{ local: string; remote: string } | null> {
    const stats = await this.stats();
    const pair = stats.get(selectedPair(stats));
    const end = (id: unknown) => stats.get(id as string)?.candidateType as string | undefined;
    const local = end(pair?.localCandidateId);
    const remote = end(pair?.remoteCandidateId);
    return local && remote ? { local, remote } : null;
  }

  async checks(): Promise<Checks> {
    const stats = await this.stats();
    const answers = new Map<string, number>();
    // Firefox has no responsesReceived.
    for (const [id, { responsesReceived }] of stats) {
      if (typeof responsesReceived === 'number') answers.set(id, responsesReceived);
    }
    const selected = selectedPair(stats);
    return { selected, answers, received: Number(stats.get(selected)?.bytesReceived ?? 0) };
  }

  private async stats(): Promise<Stats> {
    const stats: Stats = new Map();
    (await this.pc.getStats().catch(() => new Map())).forEach(
      (entry: Record<string, unknown>, id: string) => stats.set(id, entry),
    );
    return stats;
  }

  /** The senders of the camera. */
  senders(): RTCRtpSender[] {
    return this.lines.flatMap(({ sender }, i) => (LAYOUT[i]!.type === 'cam' ? [sender] : []));
  }

  /** Over the data channel. False when it is not open. */
  send(text: string): boolean {
    if (this.channel.readyState !== 'open') return false;
    this.channel.send(text);
    return true;
  }

  /** Dropped when it cannot be sent at once. */
  heartbeat(text: string): void {
    if (this.heartbeats.readyState === 'open' && this.heartbeats.bufferedAmount === 0) {
      this.heartbeats.send(text);
    }
  }

  /** Sends key frames: a request for one may have been lost with the path. */
  async refresh(): Promise<void> {
    const senders = this.pc.getSenders().filter(({ track }) => track?.kind === 'video');
    await Promise.all(
      senders.map(async (sender) => {
        const parameters = sender.getParameters();
        if (!parameters.encodings?.length) return;
        if (!isFirefox()) {
          const options = { encodingOptions: parameters.encodings.map(() => ({ keyFrame: true })) };
          return (
            sender.setParameters as (p: RTCRtpSendParameters, o: object) => Promise<void>
          ).call(sender, parameters, options);
        }
        // Firefox lacks this option, and sends a key frame after a pause.
        for (const active of [false, true]) {
          const now = sender.getParameters();
          for (const encoding of now.encodings) encoding.active = active;
          await sender.setParameters(now);
        }
      }),
    );
  }

  override close(): void {
    this.heartbeats.onopen = this.heartbeats.onclose = this.heartbeats.onmessage = null;
    this.channel.onopen = this.channel.onclose = this.channel.onmessage = null;
    super.close();
  }
}
