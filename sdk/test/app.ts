/** The whole SDK as a page has it, in a world of straw: a server that takes everything, and members who answer every offer at once. */
import { vi } from 'vitest';
import type { Member } from '../types/knowledgetalk';
import { Knowledgetalk } from '../src/knowledgetalk';
import { FakeSocket, FakeStream, settled, track } from './browser';
import { FakeConnection, FakeSender } from './connections';
import { info, member } from './members';

const SERVERS = [{ urls: ['turn:relay'], username: 'u', credential: 'c' }];
const PAIR = ['pair', 'publish', 'candidates', 'standby'];

/** Answers at once. */
class ServerSocket extends FakeSocket {
  static app: App;

  constructor(url: string, protocols?: string[]) {
    super(url, protocols);
    queueMicrotask(() => {
      const early = [...this.sent];
      this.open();
      for (const message of early) ServerSocket.app.serve(this, message);
    });
  }

  override send(text: string): void {
    super.send(text);
    const message = this.sent.at(-1);
    queueMicrotask(() => ServerSocket.app.serve(this, message));
  }
}

/** 'a' is this user. 'b' and 'c' have our SDK, 'raw' has none of ours. */
export class App {
  k!: Knowledgetalk;
  members: Member[] = [member('a', PAIR), ...['b', 'c'].map((id) => member(id, PAIR)), member('raw')].map((m) => ({ ...m, identity: `party ${m.id}` }));
  /** What was wrong at the instant at which it happened. */
  readonly faults: string[] = [];
  /** Kinds that the user has switched off. */
  readonly off = new Set<string>();
  /** Streams that the page has made. */
  private session = 0;
  private readonly deaf = new Set<FakeConnection>();

  /** @param more other users with our SDK who are in the room */
  static async open(options = {}, more: string[] = []): Promise<App> {
    const app = new App();
    app.members.push(...more.map((id) => member(id, PAIR)));
    ServerSocket.app = app;
    vi.useFakeTimers();
    vi.stubGlobal('WebSocket', ServerSocket);
    vi.stubGlobal('MediaStream', FakeStream);
    vi.stubGlobal('RTCPeerConnection', FakeConnection);
    vi.spyOn(console, 'warn').mockImplementation(() => undefined);
    // What a sender is given may be sent at once.
    vi.spyOn(FakeSender.prototype, 'replaceTrack').mockImplementation(async function (this: FakeSender, given) {
      app.check(this, given);
      this.track = given;
    });
    FakeSocket.made = [];
    FakeConnection.made = [];
    app.k = new Knowledgetalk({ server: 'https://server:7102', ...options });
    await app.k.init('KP-1', 'key', 'a');
    await app.k.joinRoom('R');
    await app.pass();
    return app;
  }

  close(): void {
    this.k.disconnect();
    vi.useRealTimers();
    vi.unstubAllGlobals();
    vi.restoreAllMocks();
  }

  stream(...kinds: ('audio' | 'video')[]): MediaStream {
    return new FakeStream((kinds.length ? kinds : (['audio', 'video'] as const)).map((kind) => track(kind))) as unknown as MediaStream;
  }

  async pass(ms = 50): Promise<void> {
    await settled();
    await vi.advanceTimersByTimeAsync(ms);
    await settled();
  }

  /** The user switches kinds off, and the others on. */
  async say(off: readonly string[]): Promise<void> {
    this.off.clear();
    for (const kind of off) this.off.add(kind);
    const done = this.k.editUserInfo(undefined, !off.includes('video'), !off.includes('audio'));
    for (const track of this.cameras()) if (track.enabled === off.includes(track.kind)) this.faults.push(`${track.kind} is switched late`);
    await this.pass();
    await done;
  }

  /** Another user's message. */
  from(userId: string, message: object): void {
    FakeSocket.last.receive({ userId, ...message });
  }

  get open(): FakeConnection[] {
    return FakeConnection.made.filter(({ connectionState }) => connectionState !== 'closed');
  }

  /** The tracks of the camera that are being sent. */
  cameras(): MediaStreamTrack[] {
    return this.open.flatMap((c) => c.getSenders().flatMap((sender) => (this.isCamera(sender) && sender.track) || []));
  }

  /** And of the screen. */
  screens(): MediaStreamTrack[] {
    return this.open.flatMap((c) => c.getSenders().flatMap((sender) => (!this.isCamera(sender) && sender.track) || []));
  }

  /** Nothing passes on this connection any more, which nobody tells. */
  cut(c: FakeConnection): void {
    this.deaf.add(c);
  }

  /** The socket goes, and the server knows nothing of the session. */
  async loseSession(): Promise<void> {
    this.session++;
    FakeSocket.last.die(1006);
    await this.pass(30_000);
  }

  serve(socket: FakeSocket, m: any): void {
    const answer = (fields: object = {}) => socket.receive({ eventOp: m.eventOp, reqId: m.reqId, code: '200', message: 'ok', ...fields });
    if (m.eventOp === 'candidate') return;
    if (m.eventOp === 'register') answer({ userId: 'a', iceServers: SERVERS, resume: `secret ${this.session}`, resumeWindow: 20, resumed: false });
    else if (m.eventOp === 'joinRoom') answer({ ...info(1), members: Object.fromEntries(this.members.map((x) => [x.id, x])), host: this.members[0], seq: 1 });
    else answer();
    if (m.eventOp === 'sdp' && m.sdp.type === 'offer') void this.answer(m);
  }

  private async answer({ target, gen, n, type, link }: any): Promise<void> {
    const c = FakeConnection.last;
    this.from(target, { eventOp: 'sdp', type, gen, n, link, sdp: { type: 'answer', sdp: 'theirs' } });
    await settled();
    if (c.connectionState === 'closed') return;
    c.become('connected');
    if (!gen) return;
    c.openChannel();
    c.heartbeats.readyState = 'open';
    c.heartbeats.send = (text) => {
      if (!this.deaf.has(c) && text.startsWith('beat')) c.heartbeats.onmessage?.({ data: text.replace('beat', 'echo') });
    };
    c.heartbeats.onopen?.();
  }

  private isCamera(sender: FakeSender): boolean {
    const c = FakeConnection.made.find((x) => x.getSenders().includes(sender))!;
    // Of the fixed lines of a pair the first two; a raw client's connections of screens are told by their tracks.
    return c.channel ? c.getSenders().indexOf(sender) < 2 : !(sender.track as { screen?: true } | null)?.screen;
  }

  private check(sender: FakeSender, given: MediaStreamTrack | null): void {
    if (given?.enabled && this.off.has(given.kind) && this.isCamera(sender)) this.faults.push(`a sender gets ${given.kind}`);
  }
}
