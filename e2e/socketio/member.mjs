// A user on a Socket.IO client of either version, and one on the WebSocket transport, with the same
// few methods.

import { createRequire } from 'node:module';
import { io as io4 } from 'socket.io-client';
import { until, within } from '../lib/wait.mjs';
import { RawSocket } from '../lib/ws.mjs';

const io2 = createRequire(import.meta.url)('socket.io-client-2');

export const CLIENTS = { 'client 4': io4, 'client 2': io2 };
export const TRANSPORTS = {
  polling: ['polling'],
  websocket: ['websocket'],
  'polling and upgrade': ['polling', 'websocket'],
};

const EVENT = 'knowledgetalk';

export class SocketMember {
  messages = [];
  /** Reasons of disconnects, oldest first. */
  ends = [];

  static async open(io, origin, transports, path = '') {
    const m = new SocketMember();
    m.upgrades = transports.length > 1;
    m.socket = io(origin + path, {
      transports,
      forceNew: true,
      reconnectionDelay: 50,
      reconnectionDelayMax: 200,
      autoConnect: false,
    });
    m.socket.on(EVENT, (...args) => m.messages.push(...args));
    m.socket.on('disconnect', (reason) => m.ends.push(reason));
    m.socket.open();
    if (!path) await m.ready();
    return m;
  }

  /** Resolves when it is connected, and has changed over to WebSocket if it is to. */
  async ready() {
    const want = this.upgrades ? 'websocket' : null;
    await until(() => `connected (${this.socket.io.engine?.transport?.name}, ends ${this.ends})`,
      () => this.socket.connected && (!want || this.socket.io.engine.transport.name === want));
  }

  /** Sends with an acknowledgement. */
  ask(message) {
    const answer = new Promise((resolve) => this.socket.emit(EVENT, message, resolve));
    return within(`acknowledged: ${JSON.stringify(message).slice(0, 100)}`, answer);
  }

  send(message) {
    this.socket.emit(EVENT, message);
  }

  close() {
    this.socket.disconnect();
  }
}

export class WebSocketMember {
  static async open(host) {
    const m = new WebSocketMember();
    m.raw = await RawSocket.open(`ws://${host}/signal`);
    return m;
  }

  get messages() {
    return this.raw.messages;
  }

  ask(message) {
    return this.raw.ask(message);
  }

  send(message) {
    this.raw.text(JSON.stringify(message));
  }

  close() {
    this.raw.destroy();
  }
}

/** Resolves with the first message, from the one after `from` on, that has these fields. */
export function got(member, fields, from = 0) {
  const found = () =>
    member.messages.slice(from).find((m) => Object.entries(fields).every(([k, v]) => m[k] === v));
  return until(() => `${JSON.stringify(fields)} among ${JSON.stringify(member.messages)}`, found);
}
