// Users on one transport who play scenes, and the transcript of what each of them sends and gets.

import crypto from 'node:crypto';
import { LIMIT, until } from '../../lib/wait.mjs';
import { CLOSE } from '../../lib/ws.mjs';
import { SocketMember, WebSocketMember } from '../member.mjs';

const EVENT = 'knowledgetalk';
const ID = '[0-9A-HJKMNP-TV-Z]{12}';

/** A session is replaced when it has sent so much: its user may join 20 rooms a minute. */
const MANY = 150;

const isMark = (m) => m.message?.mark !== undefined || `${m.reqId}`.startsWith('mark');
const wait = (what, condition) => until(what, condition, LIMIT, 2);

class User {
  log = [];
  reqs = 0;
  sent = 0;
  registered = false;

  constructor(id, member) {
    this.id = id;
    this.member = member;
    this.at = 0;
  }

  /** Writes down what has come. */
  drain() {
    const { messages } = this.member;
    for (; this.at < messages.length; this.at++)
      if (!isMark(messages[this.at])) this.log.push({ gets: messages[this.at] });
  }

  /**
   * On Socket.IO with an acknowledgement, which joins what has come where it came: that is its
   * place in the order.
   */
  send(message, acknowledged) {
    this.sent++;
    const { member } = this;
    if (acknowledged && member.socket)
      member.socket.emit(EVENT, message, (answer) => member.messages.push(answer));
    else member.send(message);
  }

  answer(reqId, from) {
    const found = () =>
      this.member.messages.slice(from).find((m) => m.reqId === reqId && m.code !== undefined);
    return wait(
      () => `answer to ${reqId} among ${JSON.stringify(this.member.messages.slice(from))}`,
      found,
    );
  }
}

export class Stage {
  #marks = 0;

  /** @param {{io?: Function, transports?: string[]}} transport none: the WebSocket transport */
  constructor(server, license, transport) {
    this.server = server;
    this.license = license;
    this.transport = transport;
    this.kept = {};
  }

  /** Plays the scene and resolves with its transcript. */
  async play(scene) {
    const kept = this.kept;
    this.suffix = crypto.randomBytes(5).toString('hex');
    this.users = {};
    try {
      for (const name of scene.users) {
        if (scene.fresh || !(kept[name]?.sent < MANY)) {
          if (!scene.fresh && kept[name]) this.#end(kept[name]);
          const u = await this.open(name);
          await this.before(() =>
            this.ask(name, 'register', { ...this.license, userId: u.id, name }),
          );
          if (!scene.fresh) kept[name] = u;
        } else this.users[name] = kept[name];
        Object.assign(this.users[name], { log: [], reqs: 0 });
      }
      await scene.play(this);
      const transcript = this.#transcript();
      for (const u of Object.values(this.users))
        if (u.registered) await this.#answered(u, { eventOp: 'leaveRoom' });
      return transcript;
    } catch (e) {
      // Nobody knows what they are in the middle of; the next scene has others.
      for (const name of scene.users) if (kept[name] === this.users[name]) delete kept[name];
      throw e;
    } finally {
      for (const u of Object.values(this.users)) if (!Object.values(kept).includes(u)) this.#end(u);
    }
  }

  /** A connection for that user, not registered yet; `as`: with the user id of another one. */
  async open(name, as = name) {
    const { io, transports } = this.transport;
    const member = io
      ? await SocketMember.open(io, this.server.origin, transports)
      : await WebSocketMember.open(this.server.host);
    return (this.users[name] = new User(this.id(as), member));
  }

  /** The user's id, which nobody has on another stage. */
  id(name) {
    return this.users[name]?.id ?? `${name}.${this.suffix}`;
  }

  room(name) {
    return `${name}:${this.suffix}`;
  }

  /** From now on nothing comes to that user any more. */
  gone(name) {
    this.users[name].registered = false;
  }

  /** Plays a part that is not written down. */
  async before(part) {
    const lengths = new Map(Object.values(this.users).map((u) => [u, u.log.length]));
    await part();
    for (const u of Object.values(this.users)) {
      u.drain();
      u.log.length = lengths.get(u) ?? 0;
    }
  }

  /** Sends with a reqId and resolves with the answer, when everything it causes has come. */
  async ask(name, eventOp, fields = {}) {
    const u = this.users[name];
    const message = {
      eventOp,
      reqId: `${++u.reqs}`,
      ...(eventOp === 'register' ? {} : { userId: u.id }),
      ...fields,
    };
    u.drain();
    u.log.push({ sends: message });
    const from = u.at;
    u.send(message, true);
    const answer = await u.answer(message.reqId, from);
    if (eventOp === 'register' && answer.code === '200') {
      u.registered = true;
      u.id = answer.userId;
    }
    await this.#settle(u);
    return answer;
  }

  /** Sends without a reqId; resolves when everything it causes has come. */
  async tell(name, eventOp, fields = {}) {
    const u = this.users[name];
    const message = { eventOp, userId: u.id, ...fields };
    u.drain();
    u.log.push({ sends: message });
    u.send(message, false);
    await this.#settle(u);
  }

  /** Resolves when that has come. */
  async comes(name, fields) {
    const u = this.users[name];
    const found = () =>
      u.member.messages
        .slice(u.at)
        .some((m) => Object.entries(fields).every(([k, v]) => m[k] === v));
    await wait(
      () => `${JSON.stringify(fields)} among ${JSON.stringify(u.member.messages.slice(u.at))}`,
      found,
    );
    await this.#settle(u);
  }

  /**
   * Nothing of what u has sent is still under way: u's later messages have come, to u and to all
   * others.
   */
  async #settle(u) {
    const reqId = `mark${++this.#marks}`;
    const others = u.registered
      ? Object.values(this.users).filter((o) => o !== u && o.registered)
      : [];
    const from = others.map((o) => o.member.messages.length);
    for (const o of others)
      u.send({
        eventOp: 'inform',
        reqId: `${reqId}-${o.id}`,
        target: o.id,
        message: { mark: reqId },
      });
    await this.#answered(u, { eventOp: 'keepAlive', reqId });
    const came = (o, i) => o.member.messages.slice(from[i]).some((m) => m.message?.mark === reqId);
    await wait(() => `${reqId} came to ${others.map((o) => o.id)}`, () => others.every(came));
    for (const o of [u, ...others]) o.drain();
  }

  #answered(u, message) {
    const reqId = message.reqId ?? `mark${++this.#marks}`;
    const from = u.member.messages.length;
    u.send({ ...message, reqId }, true);
    return u.answer(reqId, from);
  }

  /** One message a line, with names for what is another one each time. */
  #transcript() {
    const names = new Map();
    const named = (kind) => (value) => {
      if (!names.has(value))
        names.set(
          value,
          `<${kind} ${[...names.values()].filter((n) => n.startsWith(`<${kind} `)).length + 1}>`,
        );
      return names.get(value);
    };
    const { cpCode, authKey } = this.license;
    const given = Object.entries(this.users).filter(
      ([name, u]) => u.id.endsWith(`.${this.suffix}`) || this.kept[name] === u,
    );
    const line = (entry) => {
      let text = JSON.stringify(entry)
        .replaceAll(JSON.stringify(cpCode), '"<cpCode>"')
        .replaceAll(JSON.stringify(authKey), '"<authKey>"')
        .replace(/(?<="resume":")r1\.[\w-]+\.[\w-]+(?=")/g, named('resume'))
        .replace(/(?<="identity":")[\w-]{11}(?=")/g, named('identity'))
        .replace(/(?<="username":")\d{10}:[0-9a-f]{16}\.[0-9A-Z]+(?=")/g, '<username>')
        .replace(/(?<="credential":")[\w+/]+=*(?=")/g, '<credential>')
        .replace(/(?<="createdAt":")\d{4}\/\d\d\/\d\d \d\d:\d\d:\d\d(?=")/g, '<time>')
        .replace(/(?<="(?:stun|turn):)[\d.]+:\d+(?=[?"])/g, '<relay>')
        .replace(new RegExp(`(?<=")U${ID}(?=")`, 'g'), named('user'))
        .replace(new RegExp(`(?<=")K${ID}(?=")`, 'g'), named('room'))
        .replace(new RegExp(`(?<=")G${ID}(?=")`, 'g'), named('group'));
      for (const [name, u] of given) text = text.replaceAll(u.id, name);
      // JSON may have it bare, but many an editor takes it for a new line.
      return text
        .replaceAll(`.${this.suffix}`, '')
        .replaceAll(`:${this.suffix}`, '')
        .replaceAll('\u2028', '\\u2028');
    };
    const parts = Object.entries(this.users).map(([name, u]) => {
      u.drain();
      const lines = u.log.map((entry) => `\n    ${line(entry)}`).join(',');
      return `  ${JSON.stringify(name)}: [${lines}\n  ]`.replace('[\n  ]', '[]');
    });
    return `{\n${parts.join(',\n')}\n}\n`;
  }

  #end(u) {
    // In good order on either transport: such a session leaves at once and counts no more.
    if (u.member.raw) u.member.raw.frame(CLOSE, Buffer.from([3, 232]));
    u.member.close();
  }

  close() {
    for (const u of Object.values(this.kept)) this.#end(u);
  }
}
