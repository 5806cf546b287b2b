import type { MediaType } from '../../types/knowledgetalk';
import { CHANNEL, LAYOUT } from './layout';

/** What a connection reports. */
export interface PeerHooks {
  link(state: RTCPeerConnectionState): void;
  channel(open: boolean): void;
  message(text: string): void;
  candidate(candidate: RTCIceCandidateInit): void;
}

/** One generation of a pair's connection: the only place that names RTCPeerConnection. */
export class Peer {
  readonly pc: RTCPeerConnection;
  private readonly channel: RTCDataChannel;
  private adopted = false;

  constructor(iceServers: RTCIceServer[], creator: boolean, hooks: PeerHooks) {
    this.pc = new RTCPeerConnection({ iceServers, bundlePolicy: 'max-bundle', rtcpMuxPolicy: 'require' });
    this.pc.onconnectionstatechange = () => hooks.link(this.pc.connectionState);
    this.pc.onicecandidate = ({ candidate }) => {
      // An empty candidate marks the end of a list; trickling has no use for it.
      if (candidate?.candidate) hooks.candidate(candidate.toJSON());
    };
    this.channel = this.pc.createDataChannel(CHANNEL.label, { negotiated: true, id: CHANNEL.id });
    this.channel.onopen = () => hooks.channel(true);
    this.channel.onclose = () => hooks.channel(false);
    this.channel.onmessage = ({ data }) => typeof data === 'string' && hooks.message(data);
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

  /** Sets a remote offer, an own one being rolled back, and answers. `attach` runs once the senders exist. */
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
    await this.pc.setLocalDescription();
    return this.sdp();
  }

  answered(sdp: string): Promise<void> {
    return this.pc.setRemoteDescription({ type: 'answer', sdp });
  }

  /** Candidates of an offer that was ignored, or of a description that was replaced, are refused by the browser: nothing is lost. */
  async add(list: RTCIceCandidateInit[]): Promise<void> {
    await Promise.all(list.map((candidate) => this.pc.addIceCandidate(candidate).catch(() => undefined)));
  }

  /** Gives the senders of a type the tracks of a stream, or none. */
  async attach(type: MediaType, stream: MediaStream | null): Promise<void> {
    if (!this.adopted) return;
    const lines = this.pc.getTransceivers();
    await Promise.all(LAYOUT.map(async (line, i) => {
      if (line.type !== type) return;
      const track = stream?.getTracks().find(({ kind, readyState }) => kind === line.kind && readyState === 'live') ?? null;
      const sender = lines[i]?.sender;
      if (sender && sender.track !== track) await sender.replaceTrack(track);
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

  /** Over the data channel. False when it is not open. */
  send(text: string): boolean {
    if (this.channel.readyState !== 'open') return false;
    this.channel.send(text);
    return true;
  }

  close(): void {
    this.pc.onconnectionstatechange = this.pc.onicecandidate = null;
    this.channel.onopen = this.channel.onclose = this.channel.onmessage = null;
    this.pc.close();
  }

  private sdp(): string {
    return this.pc.localDescription?.sdp ?? '';
  }
}
