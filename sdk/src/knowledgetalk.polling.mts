/**
 * Entry of knowledgetalk.polling.mjs, which is loaded where no WebSocket comes through: the same
 * messages over HTTP requests, by the polling of Engine.IO 4 that the server has at /socket.io/.
 * One request waits for what the server has to say, another takes there what is said here.
 */
import type { WebSocketLike } from './signaling/connection';

/** What the server takes at once: one message of 64 KiB, and the packet around it. Bytes. */
const BODY = 64 * 1024 + 64;

/** The event that carries a message, both ways; its packet ends with a bracket. */
const EVENT = '42["knowledgetalk",';
const CONNECT = '40';
const PONG = '3';
const CLOSE = '1';
const SEPARATOR = '\x1e';

/** Milliseconds until a WebSocket is tried: at first, and the most that this grows to. */
const TRY = 15_000;
const TRY_MOST = 240_000;
/** In which it has to open. */
const OPEN = 5_000;

/** The close code that tells the SDK that a WebSocket opens again. */
const WEBSOCKET_OPENS = 4010;

/**
 * Grows with each attempt, also a successful one: where WebSockets open and deliver nothing, the
 * next is far away.
 */
let pause = TRY;

const bytes = (text: string): number => new TextEncoder().encode(text).length;

/** Looks like a WebSocket. A close carries the HTTP status that refused it, if one did. */
class Polling implements WebSocketLike {
  onopen: WebSocketLike['onopen'] = null;
  onmessage: WebSocketLike['onmessage'] = null;
  onclose: WebSocketLike['onclose'] = null;
  onerror: WebSocketLike['onerror'] = null;
  private readonly abort = new AbortController();
  private queue: string[] = [CONNECT];
  private posting = false;
  private url: string;
  private state: 'opening' | 'open' | 'leaving' | 'closed' = 'opening';

  private trial: WebSocket | undefined;
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly base: string, resumes: boolean) {
    this.url = `${base}/socket.io/?EIO=4&transport=polling${resumes ? '&resume' : ''}`;
    void this.run();
  }

  send(text: string): void {
    this.queue.push(`${EVENT}${text}]`);
    void this.post();
  }

  /**
   * Like a WebSocket, what was sent before still arrives. The server takes 1000 for a goodbye,
   * anything else for a lost client.
   */
  close(code = 1000): void {
    if (this.state === 'open' && code === 1000) {
      this.state = 'leaving';
      this.endTrial();
      this.queue.push(CLOSE);
      void this.post();
    } else if (this.state !== 'leaving') {
      this.end();
    }
  }

  private async run(): Promise<void> {
    try {
      // The first packet is 0 and {sid, …}.
      const { sid } = JSON.parse((await this.request()).slice(1)) as { sid: string };
      this.url += `&sid=${encodeURIComponent(sid)}`;
      if (this.state !== 'opening') return;
      this.state = 'open';
      this.onopen?.({});
      void this.post();
      this.tryLater();
      // Until a request fails, or is aborted.
      for (;;) for (const packet of (await this.request()).split(SEPARATOR)) this.take(packet);
    } catch (error) {
      this.lost(error);
    }
  }

  private take(packet: string): void {
    if (packet === '2') {
      this.queue.push(PONG);
      void this.post();
    } else if (packet.startsWith(EVENT)) {
      this.onmessage?.({ data: packet.slice(EVENT.length, -1) });
    } else if (packet === CLOSE || packet.startsWith('41') || packet.startsWith('44')) {
      // Why, the answer to the next register tells.
      throw new Error('closed by the server');
    } else if (!/^[0-6]/.test(packet)) {
      // A captive portal answers every request: polling would go on without a pause.
      throw new Error('not from the server');
    }
  }

  /** Sends what waits, one request after the other: two at once would have no order. */
  private async post(): Promise<void> {
    if (this.posting || this.state === 'opening') return;
    this.posting = true;
    try {
      while (this.queue.length && this.state !== 'closed') await this.request(this.batch());
      this.posting = false;
      if (this.state === 'leaving') this.end();
    } catch (error) {
      this.lost(error);
    }
  }

  /** As many packets as fit into one request. */
  private batch(): string {
    let body = this.queue.shift()!;
    let size = bytes(body);
    for (let next = this.queue[0]; next !== undefined; next = this.queue[0]) {
      size += 1 + bytes(next);
      if (size > BODY) break;
      body += SEPARATOR + next;
      this.queue.shift();
    }
    return body;
  }

  private async request(body?: string): Promise<string> {
    // keepalive: the last words of a page that goes.
    const keepalive = this.state === 'leaving';
    const headers = { 'Content-Type': 'text/plain' };
    const options: RequestInit =
      body === undefined ? {} : { method: 'POST', body, headers, keepalive };
    const response = await fetch(this.url, {
      ...options,
      cache: 'no-store',
      signal: this.abort.signal,
    });
    if (!response.ok) {
      throw Object.assign(new Error(`HTTP ${response.status}`), { status: response.status });
    }
    return response.text();
  }

  private tryLater(): void {
    this.timer = setTimeout(() => this.tryWebSocket(), pause);
    pause = Math.min(TRY_MOST, 2 * pause);
  }

  private tryWebSocket(): void {
    const socket = new WebSocket(`${this.base.replace(/^http/, 'ws')}/signal?resume`);
    this.trial = socket;
    const failed = () => {
      this.endTrial();
      this.tryLater();
    };
    socket.onopen = () => this.lost(undefined, WEBSOCKET_OPENS);
    socket.onclose = failed;
    this.timer = setTimeout(failed, OPEN);
  }

  private endTrial(): void {
    clearTimeout(this.timer);
    const { trial } = this;
    this.trial = undefined;
    if (!trial) return;
    trial.onopen = trial.onclose = null;
    trial.close();
  }

  private lost(error: unknown, code = 1006): void {
    if (this.state === 'closed') return;
    this.end();
    this.onclose?.({ code, status: (error as { status?: number } | undefined)?.status });
  }

  private end(): void {
    this.state = 'closed';
    this.queue = [];
    this.endTrial();
    this.abort.abort();
  }
}

/**
 * @param base address of the server
 * @param resumes the session goes on: a full server has a place for it
 */
export const open = (base: string, resumes: boolean): WebSocketLike => new Polling(base, resumes);
