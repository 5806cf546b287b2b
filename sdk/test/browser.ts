/** Fakes of what only a browser has. */

export class FakeTrack extends EventTarget {
  readonly id = `${Math.random()}`;
  enabled = true;
  contentHint = '';

  constructor(
    readonly kind: string,
    public readyState: 'live' | 'ended' = 'live',
    readonly of?: FakeTrack,
  ) {
    super();
  }

  /** The track that this one was cloned from. */
  get source(): FakeTrack {
    return this.of?.source ?? this;
  }

  clone(): FakeTrack {
    return Object.assign(new FakeTrack(this.kind, this.readyState, this), {
      enabled: this.enabled,
    });
  }

  /** Stopped by the page, which gets no event. */
  stop(): void {
    this.readyState = 'ended';
  }

  /** The device is gone. */
  end(): void {
    this.stop();
    this.dispatchEvent(new Event('ended'));
  }
}

export const track = (kind: 'audio' | 'video', readyState: 'live' | 'ended' = 'live') =>
  new FakeTrack(kind, readyState) as unknown as MediaStreamTrack;

export class FakeStream extends EventTarget {
  get [Symbol.toStringTag](): string {
    return 'MediaStream';
  }

  /** The smallest number of tracks after the first change. */
  fewest = Infinity;
  private tracks: MediaStreamTrack[];

  constructor(tracks: MediaStreamTrack[] = []) {
    super();
    this.tracks = [...tracks];
  }

  addTrack(t: MediaStreamTrack): void {
    if (!this.tracks.includes(t)) this.tracks.push(t);
  }

  removeTrack(t: MediaStreamTrack): void {
    this.tracks = this.tracks.filter((x) => x !== t);
    this.fewest = Math.min(this.fewest, this.tracks.length);
  }

  getTracks(): MediaStreamTrack[] {
    return [...this.tracks];
  }

  getAudioTracks(): MediaStreamTrack[] {
    return this.tracks.filter((t) => t.kind === 'audio');
  }

  getVideoTracks(): MediaStreamTrack[] {
    return this.tracks.filter((t) => t.kind === 'video');
  }
}

/** A WebSocket whose server is the test. */
export class FakeSocket {
  static made: FakeSocket[] = [];
  onopen: ((event: unknown) => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number }) => void) | null = null;
  onerror: ((event: unknown) => void) | null = null;
  sent: any[] = [];
  closed: number | undefined;

  /** An early message comes with the handshake. */
  constructor(readonly url: string, readonly protocols: string[] = []) {
    FakeSocket.made.push(this);
    const early = protocols
      .find((name) => name.startsWith('ieum.hello.'))
      ?.slice('ieum.hello.'.length);
    if (early) {
      this.sent.push(
        JSON.parse(
          new TextDecoder().decode(
            Uint8Array.from(atob(early.replace(/-/g, '+').replace(/_/g, '/')), (c) =>
              c.charCodeAt(0),
            ),
          ),
        ),
      );
    }
  }

  static get last(): FakeSocket {
    return FakeSocket.made[FakeSocket.made.length - 1]!;
  }

  send(text: string): void {
    this.sent.push(JSON.parse(text));
  }

  close(code?: number): void {
    this.closed = code ?? 1005;
  }

  open(): void {
    this.onopen?.({});
  }

  receive(message: unknown): void {
    this.onmessage?.({ data: typeof message === 'string' ? message : JSON.stringify(message) });
  }

  /** Answers the last request of an operation. */
  answer(eventOp: string, fields: object = {}): void {
    const request = [...this.sent].reverse().find((m) => m.eventOp === eventOp);
    if (!request) throw new Error(`no ${eventOp} was sent`);
    this.receive({ eventOp, reqId: request.reqId, code: '200', message: 'ok', ...fields });
  }

  /** The network or the server closes the socket. */
  die(code = 1006): void {
    this.onclose?.({ code });
  }

  ops(): string[] {
    return this.sent.map((m) => m.eventOp);
  }
}

/** Lets pending promises run. */
export const settled = async (): Promise<void> => {
  for (let i = 0; i < 40; i++) await Promise.resolve();
};
