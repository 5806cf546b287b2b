import type { MediaType } from '../../types/knowledgetalk';
import { isFirefox } from '../global';
import { BEATS, CHANNEL, LAYOUT } from './layout';
import type { Checks } from './liveness';

export interface LinkHooks {
  link(state: RTCPeerConnectionState): void;
  candidate(candidate: RTCIceCandidateInit): void;
}

/** What a connection reports. */
export interface PeerHooks extends LinkHooks {
  channel(open: boolean): void;
  message(text: string): void;
  beating(open: boolean): void;
  beat(text: string): void;
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

  constructor(iceServers: RTCIceServer[], hooks: LinkHooks, relayOnly = false) {
    this.pc = new RTCPeerConnection({
      iceServers, bundlePolicy: 'max-bundle', rtcpMuxPolicy: 'require', ...(relayOnly ? { iceTransportPolicy: 'relay' } : {}),
    });
    this.pc.onconnectionstatechange = () => hooks.link(this.pc.connectionState);
    this.pc.onicecandidate = ({ candidate }) => {
      // An empty candidate marks the end of a list; trickling has no use for it.
      if (candidate?.candidate) hooks.candidate(candidate.toJSON());
    };
  }

  answered(sdp: string): Promise<void> {
    return this.pc.setRemoteDescription({ type: 'answer', sdp });
  }

  /** Candidates of an offer that was ignored, or of a description that was replaced, are refused by the browser: nothing is lost. */
  async add(list: RTCIceCandidateInit[]): Promise<void> {
    await Promise.all(list.map((candidate) => this.pc.addIceCandidate(candidate).catch(() => undefined)));
  }

  close(): void {
    this.pc.onconnectionstatechange = this.pc.onicecandidate = null;
    this.pc.close();
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
    this.dtls = this.pc.getSenders()[0]?.transport ?? null;
    if (this.dtls) this.dtls.onstatechange = () => this.dtls?.state === 'closed' && closed();
  }

  override close(): void {
    if (this.dtls) this.dtls.onstatechange = null;
    super.close();
  }

  /** Offers to send a stream. Resolves with the SDP. */
  async offer(stream: MediaStream): Promise<string> {
    for (const track of live(stream)) this.pc.addTransceiver(track, { direction: 'sendonly', streams: [stream] });
    await this.pc.setLocalDescription();
    return this.sdp();
  }

  /** Takes an offer, to receive only, and answers it. Resolves with the SDP. */
  async accept(sdp: string): Promise<string> {
    await this.pc.setRemoteDescription({ type: 'offer', sdp });
    await this.pc.setLocalDescription();
    return this.sdp();
  }

  /** Exchanges the tracks for those of another stream with the same kinds. */
  async replace(stream: MediaStream): Promise<void> {
    const senders = this.pc.getSenders();
    const kinds = this.pc.getTransceivers().map((line) => line.receiver.track.kind);
    await Promise.all(senders.map((sender, i) => sender.replaceTrack(live(stream).find(({ kind }) => kind === kinds[i]) ?? null)));
  }

  /** The tracks that the other side sends. */
  tracks(): MediaStreamTrack[] {
    return this.pc.getTransceivers().flatMap((line) => (line.currentDirection === 'recvonly' ? [line.receiver.track] : []));
  }
}

/** One live track of each kind at most. */
function live(stream: MediaStream): MediaStreamTrack[] {
  const first = (tracks: MediaStreamTrack[]) => tracks.filter(({ readyState }) => readyState === 'live').slice(0, 1);
  return [...first(stream.getAudioTracks()), ...first(stream.getVideoTracks())];
}

/** One generation of a pair's connection. */
export class Peer extends Link {
  private readonly channel: RTCDataChannel;
  private readonly beats: RTCDataChannel;
  private adopted = false;

  constructor(iceServers: RTCIceServer[], creator: boolean, hooks: PeerHooks, relayOnly: boolean) {
    super(iceServers, hooks, relayOnly);
    this.channel = this.pc.createDataChannel(CHANNEL.label, { negotiated: true, id: CHANNEL.id });
    this.channel.onopen = () => hooks.channel(true);
    this.channel.onclose = () => hooks.channel(false);
    this.channel.onmessage = ({ data }) => typeof data === 'string' && hooks.message(data);
    this.beats = this.pc.createDataChannel(BEATS.label, { negotiated: true, id: BEATS.id, ordered: false, maxRetransmits: 0 });
    this.beats.onopen = () => hooks.beating(true);
    this.beats.onclose = () => hooks.beating(false);
    this.beats.onmessage = ({ data }) => typeof data === 'string' && hooks.beat(data);
    if (creator) {
      for (const { kind } of LAYOUT) this.pc.addTransceiver(kind, { direction: 'sendrecv' });
      this.adopted = true;
    }
  }

  /** Makes and sets an offer; `servers` given: an ICE restart with these. Resolves with the SDP to send. */
  async offer(servers?: RTCIceServer[]): Promise<string> {
    if (servers) {
      this.pc.setConfiguration({ ...this.pc.getConfiguration(), iceServers: servers });
      this.pc.restartIce();
    }
    await this.pc.setLocalDescription();
    return this.sdp();
  }

  /** Sets a remote offer and answers. `attach` runs once the senders exist. */
  async accept(sdp: string, attach: () => Promise<void>): Promise<string> {
    await this.pc.setRemoteDescription({ type: 'offer', sdp });
    if (!this.adopted) {
      const lines = this.pc.getTransceivers();
      if (LAYOUT.some(({ kind }, i) => lines[i]?.receiver.track.kind !== kind)) throw new Error('the offer has another layout');
      // Transceivers made by a remote offer are recvonly until told otherwise.
      for (const line of lines) line.direction = 'sendrecv';
      this.adopted = true;
      await attach();
    }
    const { sdp: answer = '' } = await this.pc.createAnswer();
    // The side that offers is to begin with DTLS: it knows one round trip earlier that a pair of candidates works, and there is no API for
    // it. Firefox takes no answer but its own.
    await this.pc.setLocalDescription({ type: 'answer', sdp: isFirefox() ? answer : answer.replace(/a=setup:active/g, 'a=setup:passive') });
    return this.sdp();
  }

  /** Gives the senders of a type the tracks of a stream, or none. */
  async attach(type: MediaType, stream: MediaStream | null): Promise<void> {
    if (!this.adopted) return;
    const lines = this.pc.getTransceivers();
    await Promise.all(LAYOUT.map(async (line, i) => {
      if (line.type !== type) return;
      const track = stream?.getTracks().find(({ kind, readyState }) => kind === line.kind && readyState === 'live') ?? null;
      const sender = lines[i]?.sender;
      if (!sender || sender.track === track) return;
      // Where there is too little room a face may lose sharpness, and a screen pictures. An app that knows better has said so.
      if (track?.kind === 'video' && track.contentHint === '') track.contentHint = type === 'screen' ? 'detail' : 'motion';
      await sender.replaceTrack(track);
    }));
  }

  /** The remote tracks of the given kinds. */
  tracks(type: MediaType, kinds: { audio: boolean; video: boolean }): MediaStreamTrack[] {
    const lines = this.pc.getTransceivers();
    return LAYOUT.flatMap((line, i) => {
      const track = line.type === type && kinds[line.kind] ? lines[i]?.receiver.track : undefined;
      return track ? [track] : [];
    });
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

  /** Over the data channel. False when it is not open. */
  send(text: string): boolean {
    if (this.channel.readyState !== 'open') return false;
    this.channel.send(text);
    return true;
  }

  /** Lost when it cannot go out at once. */
  beat(text: string): void {
    if (this.beats.readyState === 'open' && this.beats.bufferedAmount === 0) this.beats.send(text);
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
    this.beats.onopen = this.beats.onclose = this.beats.onmessage = null;
    this.channel.onopen = this.channel.onclose = this.channel.onmessage = null;
    super.close();
  }
}
