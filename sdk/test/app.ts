/**
 * The whole SDK as a page uses it, with a fake server that accepts everything and members who
 * answer every offer at once.
 */
import { vi } from 'vitest';
import type { Member } from '../types/knowledgetalk';
import { Knowledgetalk } from '../src/knowledgetalk';
import { FakeSocket, FakeStream, settled, track } from './browser';
import { FakeConnection, FakeSender } from './connections';
import { info, member } from './members';

const SERVERS = [{ urls: ['turn:relay'], username: 'u', credential: 'c' }];
const FEATURES = ['pair', 'publish', 'candidates', 'standby'];

/** A socket whose server answers at once. */
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

/** 'a' is this user. 'b' and 'c' use the SDK, 'legacy' does not. */
export class App {
  k!: Knowledgetalk;
  members: Member[] = [
    member('a', FEATURES),
    ...['b', 'c'].map((id) => member(id, FEATURES)),
    member('legacy'),
  ].map((m) => ({ ...m, identity: `party ${m.id}` }));
  /** Errors, seen at the moment they happened. */
  readonly errors: string[] = [];
  /** Kinds that the user has muted. */
  readonly off = new Set<string>();
  /** Number of the server session. */
  private session = 0;
  private readonly cutConnections = new Set<FakeConnection>();

  /** @param more other users of the SDK in the room */
  static async open(options = {}, more: string[] = []): Promise<App> {
    const app = new App();
    app.members.push(...more.map((id) => member(id, FEATURES)));
    ServerSocket.app = app;
    vi.useFakeTimers();
    vi.stubGlobal('WebSocket', ServerSocket);
    vi.stubGlobal('MediaStream', FakeStream);
    vi.stubGlobal('RTCPeerConnection', FakeConnection);
    vi.spyOn(console, 'warn').mockImplementation(() => undefined);
    // A track may be sent as soon as a sender has it.
    vi.spyOn(FakeSender.prototype, 'replaceTrack').mockImplementation(async function (
      this: FakeSender,
      given,
    ) {
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
    return new FakeStream(
      (kinds.length ? kinds : (['audio', 'video'] as const)).map((kind) => track(kind)),
    ) as unknown as MediaStream;
  }

  async pass(ms = 50): Promise<void> {
    await settled();
    await vi.advanceTimersByTimeAsync(ms);
    await settled();
  }

  /** The user mutes these kinds, and unmutes the others. */
  async mute(off: readonly string[]): Promise<void> {
    this.off.clear();
    for (const kind of off) this.off.add(kind);
    const done = this.k.editUserInfo(undefined, !off.includes('video'), !off.includes('audio'));
    for (const track of this.cameras()) {
      if (track.enabled === off.includes(track.kind)) {
        this.errors.push(`${track.kind} is switched late`);
      }
    }
    await this.pass();
    await done;
  }

  /** A message of another user arrives. */
  from(userId: string, message: object): void {
    FakeSocket.last.receive({ userId, ...message });
  }

  get open(): FakeConnection[] {
    return FakeConnection.made.filter(({ connectionState }) => connectionState !== 'closed');
  }

  /** The tracks of the camera that are being sent. */
  cameras(): MediaStreamTrack[] {
    return this.open.flatMap((c) =>
      c.getSenders().flatMap((sender) => (this.isCamera(sender) && sender.track) || []),
    );
  }

  /** The tracks of the screen that are being sent. */
  screens(): MediaStreamTrack[] {
    return this.open.flatMap((c) =>
      c.getSenders().flatMap((sender) => (!this.isCamera(sender) && sender.track) || []),
    );
  }

  /** Cuts the path of this connection, without any event. */
  cut(c: FakeConnection): void {
    this.cutConnections.add(c);
  }

  /** The socket dies, and the server has forgotten the session. */
  async loseSession(): Promise<void> {
    this.session++;
    FakeSocket.last.die(1006);
    await this.pass(30_000);
  }

  serve(socket: FakeSocket, m: any): void {
    const answer = (fields: object = {}) =>
      socket.receive({ eventOp: m.eventOp, reqId: m.reqId, code: '200', message: 'ok', ...fields });
    if (m.eventOp === 'candidate') return;
    if (m.eventOp === 'register') {
      answer({
        userId: 'a',
        iceServers: SERVERS,
        resume: `secret ${this.session}`,
        resumeWindow: 20,
        resumed: false,
      });
    } else if (m.eventOp === 'joinRoom') {
      answer({
        ...info(1),
        members: Object.fromEntries(this.members.map((x) => [x.id, x])),
        host: this.members[0],
        seq: 1,
      });
    } else answer();
    if (m.eventOp === 'sdp' && m.sdp.type === 'offer') void this.answer(m);
  }

  private async answer({ target, gen, n, type, link, sdp }: any): Promise<void> {
    const c = FakeConnection.made.find((x) => x.localDescription?.sdp === sdp.sdp)!;
    this.from(target, {
      eventOp: 'sdp',
      type,
      gen,
      n,
      link,
      sdp: { type: 'answer', sdp: 'theirs' },
    });
    await settled();
    if (c.connectionState === 'closed') return;
    c.become('connected');
    if (!gen || c.heartbeats.readyState === 'open') return;
    c.openChannel();
    c.heartbeats.readyState = 'open';
    c.heartbeats.send = (text) => {
      if (!this.cutConnections.has(c) && text.startsWith('beat')) {
        c.heartbeats.onmessage?.({ data: text.replace('beat', 'echo') });
      }
    };
    c.heartbeats.onopen?.();
  }

  private isCamera(sender: FakeSender): boolean {
    const c = FakeConnection.made.find((x) => x.getSenders().includes(sender))!;
    // The first two of the fixed m-lines are the camera; connections to a legacy peer are told
    // apart by their tracks.
    return c.channel
      ? c.getSenders().indexOf(sender) < 2
      : !(sender.track as { screen?: true } | null)?.screen;
  }

  private check(sender: FakeSender, given: MediaStreamTrack | null): void {
    if (given?.enabled && this.off.has(given.kind) && this.isCamera(sender)) {
      this.errors.push(`a sender gets ${given.kind}`);
    }
  }
}
