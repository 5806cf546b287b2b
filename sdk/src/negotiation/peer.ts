import type { MediaType } from '../../types/knowledgetalk';
import { isFirefox } from '../global';
import { liveTracks } from '../media/streams';
import { HEARTBEATS, CHANNEL, LAYOUT } from './layout';
import type { Checks } from './liveness';

export interface LinkHooks {
  /** 'closed' as well when the app has ended what it was handed. */
  link(state: RTCPeerConnectionState): void;
  candidate(candidate: RTCIceCandidateInit): void;
  /** A track of the camera is about to be sent, or has just been put in place of another by the app. */
  pass(track: MediaStreamTrack): void;
}

/** Candidates taken from a description, as from messages: see the machine. */
const CANDIDATES = 128;

/** Has a method of an object that apps are handed do more. */
function wrap<T extends object, K extends keyof T>(object: T, name: K, by: (native: T[K]) => T[K]): void {
  object[name] = by((object[name] as (...args: never[]) => unknown).bind(object) as T[K]);
}

/** What a connection reports. */
export interface PeerHooks extends LinkHooks {
  channel(open: boolean): void;
  message(text: string): void;
  heartbeatOpen(open: boolean): void;
  heartbeat(text: string): void;
}

/** What getStats() tells, by id. */
type Stats = Map<string, Record<string, unknown>>;

/** Its id; empty where the browser names none. */
function selectedPair(stats: Stats): string {
  const all = [...stats];
  const named = all.find(([, { type, selectedCandidatePairId }]) => type === 'transport' && selectedCandidatePairId)?.[1].selectedCandidatePairId;
  // Firefox has no statistics of transports: there the pair says so itself.
  return (named as string | undefined) ?? all.find(([, { type, selected }]) => type === 'candidate-pair' && selected)?.[0] ?? '';
}

/** Node and workers have none, and a user may have it blocked. */
export const hasWebRTC = (): boolean => typeof RTCPeerConnection !== 'undefined';

/** A connection as both kinds of clients have it. This file is the only place that names RTCPeerConnection. */
class Link {
  readonly pc: RTCPeerConnection;
  /** Ends whatever listens: what is closed may live for a while, and is not to be heard. */
  private readonly life = new AbortController();
  /** Received tracks: what the app is handed, and a copy in reserve for the time when it has stopped that. */
  private readonly received = new Map<MediaStreamTrack, { handed: MediaStreamTrack; reserve: MediaStreamTrack }>();

  /** Apps are handed the connection: their handlers, and whatever they call, must do no harm here. */
  constructor(iceServers: RTCIceServer[], protected readonly hooks: LinkHooks, relayOnly = false) {
    this.pc = new RTCPeerConnection({
      iceServers, bundlePolicy: 'max-bundle', rtcpMuxPolicy: 'require', ...(relayOnly ? { iceTransportPolicy: 'relay' } : {}),
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

  /** Candidates of an offer that was ignored, or of a description that was replaced, are refused by the browser: nothing is lost. */
  async add(list: RTCIceCandidateInit[]): Promise<void> {
    await Promise.all(list.map((candidate) => this.pc.addIceCandidate(candidate).catch(() => undefined)));
  }

  close(): void {
    this.life.abort();
    this.pc.close();
    for (const tracks of this.received.values()) for (const track of Object.values(tracks)) track.stop();
  }

  /** No event follows a call of these. */
  protected ends<K extends string>(object: Record<K, () => void>, name: K): void {
    wrap(object, name, (native) => () => {
      native();
      if (!this.life.signal.aborted) this.hooks.link('closed');
    });
  }

  /** A sender of the camera. Once more afterwards: the user may have been muted while the track was on its way. */
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
    return this.pc.setRemoteDescription({ type, sdp: sdp.replace(/^a=candidate:.*\r?\n/gm, (line) => (left-- > 0 ? line : '')) });
  }

  protected sdp(): string {
    return this.pc.localDescription?.sdp ?? '';
  }
}

/** One way of one type to or from a raw client. */
export class OneWay extends Link {
  private dtls: RTCDtlsTransport | null = null;

  /** Once connected: tells when the other side closes its connection. The connection itself takes 15 s to say so, and calls it lost before. */
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
      const { sender } = this.pc.addTransceiver(track, { direction: 'sendonly', streams: [stream] });
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
    await Promise.all(senders.map((sender, i) => sender.replaceTrack(liveTracks(stream).find(({ kind }) => kind === kinds[i]) ?? null)));
  }

  /** The tracks that the other side sends. */
  tracks(): MediaStreamTrack[] {
    return this.pc.getTransceivers().flatMap((line) => (line.currentDirection === 'recvonly' ? [this.take(line.receiver.track)] : []));
  }
}

/** One generation of a pair's connection. */
export class Peer extends Link {
  private readonly channel: RTCDataChannel;
  private readonly heartbeats: RTCDataChannel;
  private adopted = false;

  constructor(iceServers: RTCIceServer[], creator: boolean, hooks: PeerHooks, relayOnly: boolean) {
    super(iceServers, hooks, relayOnly);
    this.channel = this.pc.createDataChannel(CHANNEL.label, { negotiated: true, id: CHANNEL.id });
    this.channel.onopen = () => hooks.channel(true);
    this.channel.onclose = () => hooks.channel(false);
    this.channel.onmessage = ({ data }) => typeof data === 'string' && hooks.message(data);
    this.heartbeats = this.pc.createDataChannel(HEARTBEATS.label, { negotiated: true, id: HEARTBEATS.id, ordered: false, maxRetransmits: 0 });
    this.heartbeats.onopen = () => hooks.heartbeatOpen(true);
    this.heartbeats.onclose = () => hooks.heartbeatOpen(false);
    this.heartbeats.onmessage = ({ data }) => typeof data === 'string' && hooks.heartbeat(data);
    if (creator) {
      for (const { kind } of LAYOUT) this.pc.addTransceiver(kind, { direction: 'sendrecv' });
      this.adopt();
    }
  }

  /** The lines are there. What comes over them is kept from the start: an app may stop every track of a connection at once. */
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

  /** Transceivers made by a remote offer are recvonly until told otherwise, and apps may change them. */
  private aim(): void {
    for (const line of this.lines) if (line.direction !== 'stopped') line.direction = 'sendrecv';
  }

  /** Makes and sets an offer; `servers` given: an ICE restart with these. Resolves with the SDP to send. */
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
      if (LAYOUT.some(({ kind }, i) => this.lines[i]?.receiver.track.kind !== kind)) throw new Error('the offer has another layout');
      this.adopt();
      await attach();
    }
    const { sdp: answer = '' } = await this.pc.createAnswer();
    // The side that offers is to begin with DTLS: it knows one round trip earlier that a pair of candidates works, and there is no API for
    // it. Firefox takes no answer but its own; where another browser does the same, its own must do.
    const passive = isFirefox() ? answer : answer.replace(/a=setup:active/g, 'a=setup:passive');
    await this.pc.setLocalDescription({ type: 'answer', sdp: passive }).catch(() => this.pc.setLocalDescription({ type: 'answer', sdp: answer }));
    return this.sdp();
  }

  /** Gives the senders of a type the tracks of a stream, or none. */
  async attach(type: MediaType, stream: MediaStream | null): Promise<void> {
    if (!this.adopted) return;
    const { lines } = this;
    this.aim();
    await Promise.all(LAYOUT.map(async (line, i) => {
      if (line.type !== type) return;
      const track = (stream && liveTracks(stream).find(({ kind }) => kind === line.kind)) ?? null;
      const sender = lines[i]?.sender;
      if (!sender || sender.track === track) return track && type === 'cam' ? this.hooks.pass(track) : undefined;
      // Where there is too little room a face may lose sharpness, and a screen pictures. An app that knows better has said so.
      if (track?.kind === 'video' && track.contentHint === '') track.contentHint = type === 'screen' ? 'detail' : 'motion';
      await sender.replaceTrack(track);
    }));
  }

  /** The remote tracks of the given kinds. */
  tracks(type: MediaType, kinds: { audio: boolean; video: boolean }): MediaStreamTrack[] {
    return this.lines.flatMap(({ receiver }, i) => (LAYOUT[i]!.type === type && kinds[LAYOUT[i]!.kind] ? [this.take(receiver.track)] : []));
  }

  /** The local description with the candidates found so far; null when its kind is another by now. */
  description(type: 'offer' | 'answer'): string | null {
    return this.pc.localDescription?.type === type ? this.sdp() : null;
  }

  /** DTLS has ended, as Firefox's does when a second restart of ICE follows one that has found nothing. It does not begin again. */
  get over(): boolean {
    return ['failed', 'closed'].includes(this.pc.sctp?.transport.state ?? '');
  }

  /** Types of the two candidates in use. Null: none are, or the browser does not say. */
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
    // Firefox counts none.
    for (const [id, { responsesReceived }] of stats) if (typeof responsesReceived === 'number') answers.set(id, responsesReceived);
    const selected = selectedPair(stats);
    return { selected, answers, received: Number(stats.get(selected)?.bytesReceived ?? 0) };
  }

  private async stats(): Promise<Stats> {
    const stats: Stats = new Map();
    (await this.pc.getStats().catch(() => new Map())).forEach((entry: Record<string, unknown>, id: string) => stats.set(id, entry));
    return stats;
  }

  /** What the camera's senders send. */
  senders(): RTCRtpSender[] {
    return this.lines.flatMap(({ sender }, i) => (LAYOUT[i]!.type === 'cam' ? [sender] : []));
  }

  /** Over the data channel. False when it is not open. */
  send(text: string): boolean {
    if (this.channel.readyState !== 'open') return false;
    this.channel.send(text);
    return true;
  }

  /** Lost when it cannot go out at once. */
  heartbeat(text: string): void {
    if (this.heartbeats.readyState === 'open' && this.heartbeats.bufferedAmount === 0) this.heartbeats.send(text);
  }

  /** Makes every picture being sent start anew with a key frame: the other side's request for one may have been lost with the path. */
  async refresh(): Promise<void> {
    const senders = this.pc.getSenders().filter(({ track }) => track?.kind === 'video');
    await Promise.all(senders.map(async (sender) => {
      const parameters = sender.getParameters();
      if (!parameters.encodings?.length) return;
      if (!isFirefox()) {
        const options = { encodingOptions: parameters.encodings.map(() => ({ keyFrame: true })) };
        return (sender.setParameters as (p: RTCRtpSendParameters, o: object) => Promise<void>).call(sender, parameters, options);
      }
      // Firefox knows no such option, and begins with a key frame after a pause.
      for (const active of [false, true]) {
        const now = sender.getParameters();
        for (const encoding of now.encodings) encoding.active = active;
        await sender.setParameters(now);
      }
    }));
  }

  override close(): void {
    this.heartbeats.onopen = this.heartbeats.onclose = this.heartbeats.onmessage = null;
    this.channel.onopen = this.channel.onclose = this.channel.onmessage = null;
    super.close();
  }
}
