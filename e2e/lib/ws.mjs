// A WebSocket client (RFC 6455) for tests that must be able to break the rules. Node 20 has no
// stable one, and a good one would not send what is wanted here.

import net from 'node:net';
import crypto from 'node:crypto';
import { LIMIT, until } from './wait.mjs';

export const TEXT = 1;
export const BINARY = 2;
export const CLOSE = 8;
export const PING = 9;
export const PONG = 10;

export class RawSocket {
  #in = Buffer.alloc(0);
  #parts = [];

  /**
   * @param {string} url ws://host:port/path @param {object} headers added to the request or, when
   * null, taken from it
   */
  static async open(url, headers = {}) {
    const { hostname, port, host, pathname } = new URL(url);
    const s = new RawSocket();
    s.messages = [];
    s.pongs = 0;
    /**
     * {code, reason} of the server's close frame; code 1006 when the connection ended without one.
     */
    s.closed = null;
    s.socket = net.connect({ host: hostname.replace(/^\[|\]$/g, ''), port });
    s.socket.on('error', () => {});
    s.socket.on('close', () => (s.closed ??= { code: 1006, reason: '' }));
    const all = {
      Host: host, Upgrade: 'websocket', Connection: 'Upgrade', 'Sec-WebSocket-Version': '13',
      'Sec-WebSocket-Key': crypto.randomBytes(16).toString('base64'), ...headers,
    };
    const lines = Object.entries(all).filter(([, v]) => v !== null).map(([k, v]) => `${k}: ${v}`);
    s.socket.write(`GET ${pathname} HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n`);
    s.socket.on('data', (d) => s.#data(d));
    await until('answered by the server', () => s.status || s.closed);
    return s;
  }

  #data(chunk) {
    this.#in = Buffer.concat([this.#in, chunk]);
    if (!this.status) {
      const end = this.#in.indexOf('\r\n\r\n');
      if (end < 0) return;
      this.status = Number(/^HTTP\/1.1 (\d+)/.exec(this.#in.toString('latin1', 0, end))?.[1]);
      this.#in = this.#in.subarray(end + 4);
    }
    if (this.status !== 101) return;
    for (;;) {
      if (this.#in.length < 2) return;
      let size = this.#in[1] & 127, at = 2;
      if (size === 126) [size, at] = [this.#in.length < 4 ? Infinity : this.#in.readUInt16BE(2), 4];
      else if (size === 127)
        [size, at] = [this.#in.length < 10 ? Infinity : Number(this.#in.readBigUInt64BE(2)), 10];
      if (this.#in.length < at + size) return;
      this.#frame(this.#in[0] & 15, Boolean(this.#in[0] & 128), this.#in.subarray(at, at + size));
      this.#in = this.#in.subarray(at + size);
    }
  }

  #frame(op, fin, data) {
    if (op === CLOSE) {
      this.closed ??= {
        code: data.length >= 2 ? data.readUInt16BE(0) : 1005,
        reason: data.toString('utf8', 2),
      };
    } else if (op === PING) this.frame(PONG, data);
    else if (op === PONG) this.pongs++;
    else {
      this.#parts.push(Buffer.from(data));
      if (!fin) return;
      this.messages.push(JSON.parse(Buffer.concat(this.#parts).toString()));
      this.#parts = [];
    }
  }

  /**
   * One frame, as it should be: fin false for a part of a message, mask false only to break the
   * rule.
   */
  frame(op, payload = '', { fin = true, mask = true } = {}) {
    const data = Buffer.from(payload);
    const size =
      data.length < 126 ? Buffer.from([data.length]) : Buffer.alloc(data.length < 65536 ? 3 : 9);
    if (data.length >= 65536) {
      size[0] = 127;
      size.writeBigUInt64BE(BigInt(data.length), 1);
    } else if (data.length >= 126) {
      size[0] = 126;
      size.writeUInt16BE(data.length, 1);
    }
    if (mask) size[0] |= 128;
    const key = crypto.randomBytes(4);
    const body = mask ? Buffer.from(data.map((b, i) => b ^ key[i & 3])) : data;
    return this.bytes(
      Buffer.concat([Buffer.from([(fin ? 128 : 0) | op]), size, ...(mask ? [key] : []), body]),
    );
  }

  /** Bytes as they are. */
  bytes(b) {
    return this.socket.write(b);
  }

  text(s) {
    return this.frame(TEXT, s);
  }

  /** Sends a request and resolves with its answer. */
  async ask(message, limit = LIMIT) {
    const reqId = message.reqId ?? `r${crypto.randomBytes(6).toString('hex')}`;
    this.text(JSON.stringify({ reqId, ...message }));
    return this.answer(reqId, limit);
  }

  answer(reqId, limit = LIMIT) {
    const what = () => `answered (${reqId}; closed: ${JSON.stringify(this.closed)})`;
    return until(what, () => this.messages.find((m) => m.reqId === reqId), limit);
  }

  /** Resolves with the close code. */
  async end(limit = LIMIT) {
    await until('closed by the server', () => this.closed, limit);
    return this.closed.code;
  }

  /** Ends without a word, as a dead network does (the peer sees a reset). */
  destroy() {
    // A socket that is closing in good order cannot be reset any more: Node 20 would never let go
    // of it.
    if (this.socket.connecting || this.socket.writableEnded) this.socket.destroy();
    else this.socket.resetAndDestroy();
  }
}
