// @ts-check
// One user in one room, using only documented SDK methods: the five steps of the guide with error
// handling.
//
// Events of a Call (CustomEvent):
//   change   something in the call changed; detail: the member's id, or '' for all
//   news     {key, name} for the status line: joined, left, arrived, away, back
//   problem  a Problem
//   ended    the room ended without leave()

import {look} from './path.mjs';
import {beforeInit, ofInit, ofRoom, Problem} from './problems.mjs';
import {say, server} from './page.mjs';

/**
 * @typedef {object} Member
 * @property {string} id
 * @property {string} name
 * @property {boolean} named false if the name is derived from the id
 * @property {'present' | 'connecting' | 'connected' | 'interrupted' | 'failed'} state
 * @property {MediaStream | null} stream what this member sends to us
 * @property {boolean} wanted send our video there once there is one
 * @property {boolean} muted whether this member has muted the microphone
 * @property {'no' | 'starting' | 'yes' | 'failed'} sending
 * @property {number} attempt counter that identifies late results of earlier attempts
 * @property {Problem | null} trouble
 * @property {import('./path.mjs').Way | null} way
 * @property {import('./path.mjs').VideoStats | null} video
 */

/** @typedef {{cpCode: string, authKey: string}} License */

const lookEvery = 1000; // ms

export class Call extends EventTarget {
  /** @type {Map<string, Member>} everyone else in the room, in order of joining */
  members = new Map();
  room = '';
  user = '';
  /** Send to everyone, including later members. */
  everyone = true;
  /** @type {MediaStream | null} */
  stream = null;
  /** Our microphone is open but muted. */
  muted = false;

  /** @type {any} the SDK object; null: not connected */
  #sdk = null;
  #connectedWith = '';
  /** The last value passed to the SDK, which keeps it in the next room. */
  #saidMuted = false;
  #away = false;
  /**
   * @type {any[] | null} events that came while a join was under way: they belong after its members
   */
  #early = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /**
   * Step 1. Connects once; later calls with the same license keep the connection.
   * @param {License} license
   * @param {string} name shown to others; may be empty
   */
  async connect(license, name) {
    const key = JSON.stringify([license, name]);
    if (this.#sdk !== null && this.#connectedWith === key) return;
    const problem = beforeInit(license);
    if (problem !== null) throw problem;
    const Knowledgetalk = /** @type {any} */ (globalThis).Knowledgetalk;
    if (typeof Knowledgetalk !== 'function') throw new Problem('sdk', {origin: server});
    this.#disconnect();
    const sdk = new Knowledgetalk();
    const answer = await sdk.init(
      license.cpCode,
      license.authKey,
      undefined,
      name || undefined,
      'browser',
    );
    if (answer.code !== '200') {
      sdk.disconnect();
      throw ofInit(answer, license);
    }
    sdk.addEventListener('presence', (/** @type {CustomEvent} */ event) => {
      if (sdk === this.#sdk) this.#onPresence(event.detail);
    });
    this.#sdk = sdk;
    this.#connectedWith = key;
    this.user = answer.userId;
  }

  /**
   * Step 2.
   * @param {string} [room] requested id; an existing room is fine
   * @returns {Promise<string>} the room's id
   */
  async create(room) {
    const answer = await this.#sdk.createRoom(room);
    if (room !== undefined && answer.code === '443') return room;
    if (answer.code !== '200') throw this.#refused(answer, '');
    return answer.roomId;
  }

  /**
   * Step 3.
   * @param {string} room
   */
  async join(room) {
    this.#early = [];
    const answer = await this.#sdk.joinRoom(room);
    const early = this.#early ?? [];
    this.#early = null;
    if (answer.code !== '200') throw this.#refused(answer, room);
    this.room = answer.roomId ?? room;
    this.members.clear();
    for (const id in answer.members) {
      if (id !== this.user) this.#add(answer.members[id]);
    }
    for (const msg of early) this.#onPresence(msg);
    if (this.muted !== this.#saidMuted) this.#sayMuted();
    this.#changed('');
    this.#watch();
  }

  async leave() {
    const room = this.room;
    this.#forget();
    if (room !== '' && this.#sdk !== null) await this.#sdk.leaveRoom(room);
  }

  /**
   * Step 4, for all receivers: a new stream, or none.
   * @param {MediaStream | null} stream
   */
  useStream(stream) {
    if (stream === this.stream) return;
    this.stream = stream;
    for (const member of this.members.values()) {
      if (!member.wanted) continue;
      if (stream === null) this.#unpublish(member);
      else this.#publish(member);
    }
    this.#changed('');
  }

  /**
   * Tells the others whether our microphone is muted.
   * @param {boolean} muted
   */
  mute(muted) {
    if (muted === this.muted) return;
    this.muted = muted;
    if (this.room !== '') this.#sayMuted();
  }

  #sayMuted() {
    this.#saidMuted = this.muted;
    // The SDK mutes before it asks the server, so there is nothing to wait for.
    this.#sdk.editUserInfo(undefined, undefined, !this.muted);
  }

  /** @param {string} id */
  send(id) {
    const member = this.members.get(id);
    if (member === undefined) return;
    member.wanted = true;
    if (this.stream !== null) this.#publish(member);
    this.#changed(id);
  }

  /** @param {string} id */
  stop(id) {
    const member = this.members.get(id);
    if (member === undefined) return;
    member.wanted = false;
    // No longer everyone: the others keep what they get.
    this.everyone = false;
    this.#unpublish(member);
    this.#changed(id);
  }

  /** @param {boolean} yes */
  sendToEveryone(yes) {
    this.everyone = yes;
    for (const member of this.members.values()) {
      if (yes === member.wanted) continue;
      member.wanted = yes;
      if (!yes) this.#unpublish(member);
      else if (this.stream !== null) this.#publish(member);
    }
    this.#changed('');
  }

  /** @param {Member} member */
  async #publish(member) {
    const attempt = ++member.attempt;
    if (member.sending !== 'yes') member.sending = 'starting';
    member.trouble = null;
    const connected = await this.#sdk.publishP2P(member.id, 'cam', this.stream);
    // Stopped, restarted or left in the meantime.
    if (attempt !== member.attempt || this.members.get(member.id) !== member) return;
    member.sending = connected ? 'yes' : 'failed';
    if (!connected)
      member.trouble ??= new Problem('not-sent', {name: member.name, reason: 'publishP2P'});
    this.#changed(member.id);
  }

  /** @param {Member} member */
  #unpublish(member) {
    member.attempt++;
    if (member.sending !== 'no') this.#sdk.removeLocalPeer(member.id, 'cam');
    member.sending = 'no';
    member.trouble = null;
  }

  /**
   * Step 5.
   * @param {any} msg
   */
  #onPresence(msg) {
    if (this.#early !== null) {
      this.#early.push(msg);
      return;
    }
    if (this.room === '') return;
    switch (msg.type) {
      case 'join':
        if (msg.user.userId !== this.user && !this.members.has(msg.user.userId)) {
          this.#news('joined', this.#add(msg.user));
          this.#changed('');
        }
        break;
      case 'leave': {
        const member = this.members.get(msg.user);
        if (member !== undefined) {
          this.members.delete(msg.user);
          this.#news('left', member);
          this.#changed('');
        }
        break;
      }
      case 'subscribed': {
        const member = this.members.get(msg.user);
        if (member !== undefined && msg.cam !== false) {
          member.stream = this.#sdk.getStream(msg.user);
          member.state = 'connected';
          this.#news('arrived', member);
          this.#changed(msg.user);
        }
        break;
      }
      case 'editUserInfo': {
        const member = this.members.get(msg.user);
        if (member !== undefined) {
          Object.assign(member, callIt({userId: msg.user, name: msg.name}), {
            muted: msg.audio === false,
          });
          this.#changed(msg.user);
        }
        break;
      }
      case 'peerState':
        this.#onPeerState(msg);
        break;
    }
  }

  /**
   * @param {{user: string, state: Member['state'], reason: string, message: string,
   *   hint: string}} msg
   */
  #onPeerState(msg) {
    if (msg.reason === 'replaced') {
      this.#lost(new Problem('id-in-use'));
      return;
    }
    if (msg.reason === 'session-ended') {
      this.#lost(new Problem('room-lost'));
      return;
    }
    const member = this.members.get(msg.user);
    if (member === undefined || msg.reason === 'removed') return;
    member.state = msg.state;
    const values = {name: member.name, reason: msg.message || msg.reason};
    if (msg.state === 'failed') member.trouble = troubleOf(msg.reason, values);
    if (msg.state === 'connected') member.trouble = null;
    this.#changed(msg.user);
  }

  /**
   * @param {any} user a Member of the contract
   * @returns {Member}
   */
  #add(user) {
    /** @type {Member} */
    const member = {
      id: user.userId,
      ...callIt(user),
      muted: user.audio === false,
      state: 'present',
      stream: null,
      wanted: this.everyone,
      sending: 'no',
      attempt: 0,
      trouble: null,
      way: null,
      video: null,
    };
    this.members.set(member.id, member);
    if (member.wanted && this.stream !== null) this.#publish(member);
    return member;
  }

  /** Looks at every connection once a second while in a room. */
  #watch() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(async () => {
      await this.#look();
      if (this.room !== '') this.#watch();
    }, lookEvery);
  }

  async #look() {
    const sdk = this.#sdk;
    if (sdk === null || this.room === '') return;
    const away = !sdk.getSocket()?.connected;
    if (away !== this.#away) {
      this.#away = away;
      this.#news(away ? 'away' : 'back');
    }
    if (!sdk.getRoomId()) {
      this.#lost(new Problem('room-lost'));
      return;
    }
    for (const member of this.members.values()) {
      member.stream = sdk.getStream(member.id) || null;
      const connection = sdk.getPeer(member.id);
      if (!connection || connection.connectionState === 'closed') {
        member.way = member.video = null;
        continue;
      }
      const seen = await look(connection, member.stream?.getVideoTracks()[0]);
      if (connection.connectionState === 'connected') member.way = seen.way ?? member.way;
      member.video = seen.video;
    }
    this.#changed('');
  }

  /** @param {Problem} problem */
  #lost(problem) {
    this.#disconnect();
    this.dispatchEvent(new CustomEvent('problem', {detail: problem}));
    this.dispatchEvent(new CustomEvent('ended'));
  }

  #disconnect() {
    this.#forget();
    this.#sdk?.disconnect();
    this.#sdk = null;
    this.#saidMuted = false;
    this.#connectedWith = '';
  }

  #forget() {
    clearTimeout(this.#timer);
    this.room = '';
    this.#away = false;
    this.#early = null;
    for (const member of this.members.values()) member.attempt++;
    this.members.clear();
  }

  /**
   * @param {import('./problems.mjs').Answer} answer
   * @param {string} room
   */
  #refused(answer, room) {
    // The session has ended or belongs to another page: the next attempt reconnects.
    if (answer.code === '409' || answer.code === '410') this.#disconnect();
    return ofRoom(answer, room);
  }

  /** @param {string} id */
  #changed(id) {
    this.dispatchEvent(new CustomEvent('change', {detail: id}));
  }

  /**
   * @param {string} key
   * @param {Member} [member]
   */
  #news(key, member) {
    this.dispatchEvent(new CustomEvent('news', {detail: {key, name: member?.name ?? ''}}));
  }
}

/**
 * Without a name, the end of the id is shown.
 * @param {{userId: string, name: string}} user
 */
function callIt({userId, name}) {
  const named = name !== '' && name !== userId;
  return {named, name: named ? name : say('member.unnamed', {id: userId.slice(-4)})};
}

/**
 * @param {string} reason of a peerState event
 * @param {{name: string, reason: string}} values
 */
function troubleOf(reason, values) {
  switch (reason) {
    case 'not-in-room':
    case 'left':
      return new Problem('not-in-room', values);
    case 'ice-failed':
      return new Problem('no-path', values);
    case 'no-answer':
      return new Problem('no-answer', values);
    case 'raw-client':
      return new Problem('raw-client', values);
    default:
      return new Problem('not-sent', values);
  }
}
