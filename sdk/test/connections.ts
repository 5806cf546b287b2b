/** A fake RTCPeerConnection, as far as the SDK uses it. Two of them connect by their SDP. */
import { FakeTrack } from './browser';

class FakeTransport extends EventTarget {
  state = 'connected';
}

export class FakeSender {
  track: MediaStreamTrack | null = null;
  transport: FakeTransport | null = null;
  /** Key frames that were requested. */
  keyFrames = 0;
  getParameters(): { encodings: object[] } {
    return { encodings: [{ active: true }] };
  }
  async setParameters(
    _: object,
    options?: { encodingOptions?: { keyFrame: boolean }[] },
  ): Promise<void> {
    if (options?.encodingOptions?.[0]?.keyFrame) this.keyFrames++;
  }
  async replaceTrack(track: MediaStreamTrack | null): Promise<void> {
    this.track = track;
  }
}

export class FakeTransceiver {
  readonly sender = new FakeSender();
  readonly receiver: { track: FakeTrack };
  currentDirection: string | null = null;
  constructor(kind: string, public direction: string) {
    this.receiver = { track: new FakeTrack(kind) };
  }

  stop(): void {
    this.direction = 'stopped';
    this.sender.track = null;
    this.receiver.track.stop();
  }
}

class FakeChannel {
  readyState = 'connecting';
  onopen: (() => void) | null = null;
  onclose: (() => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  bufferedAmount = 0;
  sent: unknown[] = [];
  send(text: string): void {
    this.sent.push(text.startsWith('{') ? JSON.parse(text) : text);
  }
}

export class FakeConnection extends EventTarget {
  static made: FakeConnection[] = [];
  /** Counts descriptions: no two are the same. */
  private static described = 0;
  static get last(): FakeConnection {
    return FakeConnection.made[FakeConnection.made.length - 1]!;
  }

  static get open(): number {
    return FakeConnection.made.filter((c) => c.connectionState !== 'closed').length;
  }

  connectionState = 'new';
  signalingState = 'stable';
  localDescription: { type: string; sdp: string } | null = null;
  remoteDescription: { type: string; sdp: string } | null = null;
  channel!: FakeChannel;
  channelOptions: unknown;
  readonly heartbeats = new FakeChannel();
  /** Calls, in order. */
  log: string[] = [];
  candidates: unknown[] = [];
  /** Types of the selected candidate pair. */
  selected: { local: string; remote: string } | null = null;
  /** responsesReceived of the selected pair; undefined where the browser does not count. */
  checksAnswered: number | undefined;
  private readonly dtls = new FakeTransport();
  private readonly transceivers: FakeTransceiver[] = [];

  constructor(private config: RTCConfiguration) {
    super();
    FakeConnection.made.push(this);
  }

  createDataChannel(_: string, options: { id: number }): FakeChannel {
    if (options.id === 1) return this.heartbeats;
    this.channelOptions = options;
    this.channel = new FakeChannel();
    return this.channel;
  }

  addTransceiver(
    what: string | MediaStreamTrack,
    { direction }: { direction: string },
  ): FakeTransceiver {
    const transceiver = new FakeTransceiver(typeof what === 'string' ? what : what.kind, direction);
    if (typeof what !== 'string') transceiver.sender.track = what;
    this.transceivers.push(transceiver);
    return transceiver;
  }

  getTransceivers(): FakeTransceiver[] {
    return this.transceivers;
  }

  getSenders(): FakeSender[] {
    return this.transceivers.map((t) => t.sender);
  }

  getConfiguration(): RTCConfiguration {
    return this.config;
  }

  async getStats(): Promise<Map<string, object>> {
    if (!this.selected) return new Map();
    return new Map<string, object>([
      ['T', { type: 'transport', selectedCandidatePairId: 'P' }],
      [
        'P',
        {
          type: 'candidate-pair',
          localCandidateId: 'L',
          remoteCandidateId: 'R',
          responsesReceived: this.checksAnswered,
        },
      ],
      ['L', { candidateType: this.selected.local }],
      ['R', { candidateType: this.selected.remote }],
    ]);
  }

  setConfiguration(config: RTCConfiguration): void {
    this.config = config;
    this.log.push('configure');
  }

  restartIce(): void {
    this.log.push('restart');
  }

  async createAnswer(): Promise<{ type: string; sdp: string }> {
    await Promise.resolve();
    if (this.signalingState !== 'have-remote-offer') throw new Error('nothing to answer');
    return { type: 'answer', sdp: `answer ${++FakeConnection.described}\r\na=setup:active\r\n` };
  }

  async setLocalDescription(given?: { type: string; sdp: string }): Promise<void> {
    await Promise.resolve();
    const type = this.signalingState === 'have-remote-offer' ? 'answer' : 'offer';
    if (given && given.type !== type) throw new Error(`no ${given.type} now`);
    this.signalingState = type === 'offer' ? 'have-local-offer' : 'stable';
    this.localDescription = { type, sdp: given?.sdp ?? `${type} ${++FakeConnection.described}` };
    if (type === 'answer') for (const t of this.transceivers) t.currentDirection = t.direction;
    this.log.push(type);
  }

  async setRemoteDescription({ type, sdp }: { type: string; sdp: string }): Promise<void> {
    await Promise.resolve();
    if (sdp === 'bad') throw new Error('refused');
    this.log.push(`remote ${type}`);
    if (type === 'offer' && this.transceivers.length === 0) {
      const kinds = /^kinds:(\S*)/.exec(sdp)?.[1]?.split(',') ?? [
        'audio',
        'video',
        'audio',
        'video',
      ];
      for (const kind of sdp === 'other layout' ? ['video'] : kinds) {
        this.addTransceiver(kind, { direction: 'recvonly' });
      }
    }
    this.remoteDescription = { type, sdp };
    this.signalingState = type === 'offer' ? 'have-remote-offer' : 'stable';
  }

  async addIceCandidate(candidate: unknown): Promise<void> {
    if ((candidate as { candidate: string }).candidate === 'bad') throw new Error('unknown ufrag');
    this.candidates.push(candidate);
  }

  close(): void {
    this.connectionState = this.signalingState = 'closed';
    for (const { receiver } of this.transceivers) receiver.track.stop();
  }

  become(state: string): void {
    if (state === 'connected') for (const s of this.getSenders()) s.transport ??= this.dtls;
    this.connectionState = state;
    this.dispatchEvent(new Event('connectionstatechange'));
  }

  /** The remote side closes: its DTLS alert arrives long before connectionState changes. */
  hangUp(): void {
    this.dtls.state = 'closed';
    this.dtls.dispatchEvent(new Event('statechange'));
  }

  find(...candidates: string[]): void {
    for (const candidate of candidates) this.gathered(candidate);
  }

  protected gathered(candidate: string): void {
    this.dispatchEvent(
      Object.assign(new Event('icecandidate'), {
        candidate: candidate && { candidate, toJSON: () => ({ candidate }) },
      }),
    );
  }

  openChannel(): void {
    this.channel.readyState = 'open';
    this.channel.onopen?.();
  }
}
