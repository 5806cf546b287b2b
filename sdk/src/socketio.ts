/**
 * Entry of socket.io.min.js: `io()` for pages with their own protocol. A small Socket.IO client
 * (protocol 5 over Engine.IO 4), by WebSocket alone, without binary data. It works with other
 * Socket.IO servers of version 3 and later too.
 */
import { call, Emitter, type Listener } from './events';
import { expose, noteScript, pageAddress, serverBase } from './global';
import type { WebSocketLike } from './signaling/connection';

export interface Options {
  /** Default /socket.io/, on the server of this script, below its path. */
  path?: string;
  /** Added to the address of the connection. */
  query?: Record<string, string>;
  /** Sent when connecting; a function is asked each time. */
  auth?: Record<string, unknown> | ((give: (auth: Record<string, unknown>) => void) => void);
  /** Connect at once, default true. */
  autoConnect?: boolean;
  /** Come back by itself, default true. */
  reconnection?: boolean;
  /** Tries in a row, default: no end. */
  reconnectionAttempts?: number;
  /** Milliseconds before the first try, default 1000; doubled with each further one. */
  reconnectionDelay?: number;
  /** Milliseconds, the most that this grows to; default 5000. */
  reconnectionDelayMax?: number;
  /** How much of that is left to chance, 0 to 1; default 0.5. */
  randomizationFactor?: number;
  /** Milliseconds that connecting may take, default 20000. */
  timeout?: number;
  /** Options of other clients (`transports`, `forceNew`…) are accepted and change nothing. */
  [other: string]: unknown;
}

type Timer = ReturnType<typeof setTimeout> | undefined;

/** Why a connection ended. After the first two it does not come back by itself. */
export type Reason =
  | 'io server disconnect'
  | 'io client disconnect'
  | 'ping timeout'
  | 'transport close'
  | 'transport error'
  | 'parse error';

/** Events that wait for the connection; beyond that the oldest go. */
const WAITING = 256;

/** Names that only the client itself fires. */
const RESERVED = ['connect', 'connect_error', 'disconnect'];

/** The part of a packet after its two types: `[/namespace,][id][json]`. */
const PACKET = /^(?:(\/[^,]*)(?:,|$))?(\d*)([^]*)$/;

/** Options in figures that have a default. */
type Counted = 'reconnectionDelay' | 'reconnectionDelayMax' | 'randomizationFactor' | 'timeout';

interface Waiting {
  text: string;
  ack?: Listener;
}

/**
 * A connection to one namespace. Fires connect, disconnect (reason), connect_error (Error), and the
 * events of the server.
 */
export class Socket extends Emitter {
  /** Changes with each connection; undefined while there is none. */
  id: string | undefined;
  connected = false;
  private readonly options: Options & Required<Pick<Options, Counted>>;
  private readonly url: string;
  private readonly namespace: string;
  /** Callbacks of what was sent on this connection, by id. */
  private acks = new Map<string, Listener>();
  private waiting: Waiting[] = [];
  private socket: WebSocketLike | null = null;
  /** It is to be connected: it is, or it tries. */
  private wanted = false;
  private lastAck = 0;
  private attempts = 0;
  /** It was connected before: a full server has a place for it, but must be told on opening. */
  private known = false;
  private patience = 0;
  private opening: Timer;
  private silence: Timer;
  private retry: Timer;

  constructor(
    url: URL,
    options: Options = {},
    private readonly create: (url: string) => WebSocketLike = (u) => new WebSocket(u),
  ) {
    super();
    this.options = {
      reconnectionDelay: 1000,
      reconnectionDelayMax: 5000,
      randomizationFactor: 0.5,
      timeout: 20_000,
      ...options,
    };
    this.namespace = url.pathname;
    const query = new URLSearchParams(url.search);
    for (const [name, value] of Object.entries(options.query ?? {})) query.set(name, `${value}`);
    query.set('EIO', '4');
    query.set('transport', 'websocket');
    const path = `/${options.path ?? 'socket.io'}/`.replace(/\/+/g, '/');
    this.url = `${url.protocol.replace('http', 'ws')}//${url.host}${path}?${query}`;
    if (options.autoConnect !== false) this.connect();
  }

  get disconnected(): boolean {
    return !this.connected;
  }

  /** Connected, or trying to be. */
  get active(): boolean {
    return this.wanted;
  }

  connect(): this {
    if (this.wanted) return this;
    this.wanted = true;
    this.known = false;
    this.attempts = 0;
    this.open();
    return this;
  }

  /** Leaves for good: the server knows at once. */
  disconnect(): this {
    if (this.connected) this.write('1');
    this.wanted = false;
    this.end('io client disconnect');
    return this;
  }

  /**
   * Sends an event; a function as the last argument gets the acknowledgement. Without a connection
   * the event waits for the next.
   */
  emit(event: string, ...args: any[]): this {
    if (RESERVED.includes(event)) throw new Error(`"${event}" is a reserved event name`);
    const ack: unknown = args[args.length - 1];
    const waiting: Waiting =
      typeof ack === 'function' ? { text: '', ack: args.pop() as Listener } : { text: '' };
    waiting.text = JSON.stringify([event, ...args]);
    if (this.connected) this.send(waiting);
    else if (this.waiting.push(waiting) > WAITING) this.waiting.shift();
    return this;
  }

  private send({ text, ack }: Waiting): void {
    let id = '';
    if (ack) {
      id = `${this.lastAck++}`;
      this.acks.set(id, ack);
    }
    this.write('2', id + text);
  }

  /** Sends a Socket.IO packet. */
  private write(type: string, rest = ''): void {
    this.socket?.send(`4${type}${this.namespace === '/' ? '' : `${this.namespace},`}${rest}`);
  }

  private open(): void {
    let socket: WebSocketLike;
    try {
      socket = this.create(this.known ? `${this.url}&resume` : this.url);
    } catch (error) {
      this.failed(error instanceof Error ? error : new Error('websocket error'));
      return;
    }
    this.socket = socket;
    this.opening = setTimeout(() => this.failed(new Error('timeout')), this.options.timeout);
    socket.onmessage = (event: { data: unknown }) => {
      if (socket !== this.socket) return;
      try {
        this.packet(event.data);
      } catch {
        this.lost('parse error');
      }
    };
    socket.onerror = () => undefined; // A close always follows.
    socket.onclose = () => this.lost('transport close');
  }

  /** Takes an Engine.IO packet; throws when it is none. */
  private packet(data: unknown): void {
    if (typeof data !== 'string') throw new Error('binary data');
    const rest = data.slice(1);
    this.hear();
    switch (data[0]) {
      case '0': {
        const { pingInterval, pingTimeout } = JSON.parse(rest) as {
          pingInterval: number;
          pingTimeout: number;
        };
        this.patience = pingInterval + pingTimeout;
        this.hear();
        return this.greet();
      }
      case '1':
        return this.lost('transport close');
      case '2':
        return this.socket?.send(`3${rest}`);
      case '4':
        return this.message(rest);
    }
  }

  /** The server lives; after as long again without a word it does not. */
  private hear(): void {
    clearTimeout(this.silence);
    if (this.patience) this.silence = setTimeout(() => this.lost('ping timeout'), this.patience);
  }

  private greet(): void {
    const { auth } = this.options;
    const socket = this.socket;
    const give = (value?: Record<string, unknown>) => {
      if (socket === this.socket) this.write('0', value && JSON.stringify(value));
    };
    if (typeof auth === 'function') auth(give);
    else give(auth);
  }

  /** Takes a Socket.IO packet. */
  private message(text: string): void {
    const [, namespace = '/', id = '', json = ''] = PACKET.exec(text.slice(1)) ?? [];
    if (namespace !== this.namespace) return;
    const data: unknown = json ? JSON.parse(json) : undefined;
    switch (text[0]) {
      case '0':
        return this.up((data as { sid?: string } | undefined)?.sid);
      case '1':
        this.wanted = false;
        return this.end('io server disconnect');
      case '2': {
        const [event, ...args] = data as [string, ...unknown[]];
        if (id) {
          args.push(
            (...answer: unknown[]) =>
              this.connected && this.write('3', id + JSON.stringify(answer)),
          );
        }
        return this.fire(event, ...args);
      }
      case '3': {
        const ack = this.acks.get(id);
        this.acks.delete(id);
        return ack && call(ack, data as unknown[]);
      }
      case '4': {
        const { message, data: more } = data as { message: string; data?: unknown };
        this.wanted = false;
        this.end('io server disconnect');
        return this.fire('connect_error', Object.assign(new Error(message), { data: more }));
      }
      default:
        throw new Error('packet type');
    }
  }

  private up(id: string | undefined): void {
    clearTimeout(this.opening);
    this.attempts = 0;
    this.id = id;
    this.connected = this.known = true;
    const waiting = this.waiting;
    this.waiting = [];
    // Before the listeners, whose own events are newer.
    for (const event of waiting) this.send(event);
    this.fire('connect');
  }

  private lost(reason: Reason): void {
    if (!this.socket) return;
    if (this.connected) {
      this.end(reason);
      this.again();
    } else {
      this.failed(new Error('websocket error'));
    }
  }

  /** Connecting has failed. */
  private failed(error: Error): void {
    this.end('transport error');
    this.fire('connect_error', error);
    this.again();
  }

  /** Lets go of the socket and of every timer. */
  private end(reason: Reason): void {
    for (const timer of [this.opening, this.silence, this.retry]) clearTimeout(timer);
    this.patience = 0;
    const socket = this.socket;
    this.socket = null;
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = socket.onerror = null;
      try {
        // Only who leaves says so: the server keeps the place of one that comes back.
        if (this.wanted) socket.close(4000);
        else socket.close();
      } catch {
        // Closed already.
      }
    }
    this.acks.clear();
    if (!this.connected) return;
    this.connected = false;
    this.id = undefined;
    this.fire('disconnect', reason);
  }

  private again(): void {
    const { reconnection = true, reconnectionAttempts = Infinity } = this.options;
    const { reconnectionDelay, reconnectionDelayMax, randomizationFactor } = this.options;
    // A listener may have disconnected, or connected again.
    if (!this.wanted || this.socket) return;
    if (!reconnection || this.attempts >= reconnectionAttempts) {
      this.wanted = false;
      return;
    }
    const delay =
      reconnectionDelay
      * 2 ** this.attempts++
      * (1 + randomizationFactor * (2 * Math.random() - 1));
    clearTimeout(this.retry);
    this.retry = setTimeout(() => this.open(), Math.min(delay, reconnectionDelayMax));
  }
}

/**
 * Connects to a server: the one given (`https://host`, `//host`, `host:port`, `/namespace` of the
 * default one), or the one that this script came from, under whatever path. Every call makes a
 * connection of its own.
 */
export function io(
  url?: string | Options,
  options?: Options,
  create?: (url: string) => WebSocketLike,
): Socket {
  if (typeof url === 'object') return io(undefined, url, create);
  const base = serverBase() ?? pageAddress();
  const given = url ?? '/';
  if (base && /^\/(?!\/)/.test(given)) {
    options = { path: `${serverBase() ? new URL(base).pathname : ''}/socket.io`, ...options };
  }
  // Like other clients: 'host:port' is a host. It would be read as a scheme, or as a path.
  const full = /^(https?:|wss?:|\/)/.test(given)
    ? given
    : `${base.startsWith('http:') ? 'http' : 'https'}://${given}`;
  return new Socket(new URL(full.replace(/^ws/, 'http'), base || undefined), options, create);
}

noteScript();
expose('io', Object.assign(io, { connect: io, io, Socket, protocol: 5 }));
