import type {
  CreateRoomResult,
  InitResult,
  JoinRoomResult,
  MediaType,
  MemberList,
  Presence,
  Result,
} from '../../types/knowledgetalk';
import { deferred } from '../deferred';
import {
  failure,
  failureFor,
  insecureHint,
  invalid,
  missing,
  unreachable,
  type Failure,
  type Reason,
} from '../errors';
import { beacon, isSecure, watchPage } from '../global';
import {
  firstFailure,
  id,
  isFailure,
  key,
  optionalCapacity,
  optionalId,
  optionalText,
} from './arguments';
import { Connection, Timing, type Ask, type Verdict, type WebSocketLike } from './connection';
import { fallback } from './fallback';
import { leaveHandoff, takeHandoff, type Handoff } from './handoff';
import {
  FEATURES,
  isRoom,
  readRegister,
  result,
  spread,
  truth,
  type Answer,
  type Incoming,
  type Json,
  type Push,
  type RegisterAnswer,
  type Signal,
} from './messages';
import { Room, whole } from './room';

export interface SessionHooks {
  presence(event: Presence): void;
  signal(from: string, signal: Signal): void;
  /** A user asks for this user's feed. */
  subscribe(from: string, type: MediaType): void;
  /** Every message as it came, for getSocket(). */
  wire(message: Json): void;
  /** The socket is up or gone. */
  online(up: boolean): void;
  /** A call stands still until the server is back. */
  urgent(): boolean;
  /** The same session goes on after an interruption. */
  resumed(): void;
  /**
   * The session is gone and a new one is being opened: connections are void, publications are
   * remembered.
   */
  lost(): void;
  /** A room is entered: these are its members. */
  entered(members: Iterable<string>): void;
  /** The new session is in the old room: publish again. */
  restored(): void;
  /** The device's network has changed: connections may be dead. */
  network(): void;
  /** The room is left for good. */
  left(reason: Reason): void;
}

interface Credentials {
  cpCode: string;
  authKey: string;
  wished: string | undefined;
  name: string | undefined;
  device: string | undefined;
  forced: boolean;
}

/** Presence that comes while a joinRoom is unanswered. */
const EARLY = 256;

/** Relay credentials live ten minutes: they are renewed from half of that on. Milliseconds. */
const ICE_AGE = 5 * 60_000;

/** Milliseconds until a failed join is tried again, minus up to half of it at random. */
enum Again {
  limited = 15_000,
  other = 2_000,
}

/** The session of one user with the server: register, resume, the room, and reconnecting. */
export class Session {
  userId = '';
  name = '';
  room: Room | null = null;
  /** The room this user was put out of: what still comes of its end is shown. */
  private last: Room | null = null;
  private connection: Connection | null = null;
  private credentials: Credentials | null = null;
  private handoff: Handoff | null = null;
  /**
   * A register that was given up may reach the server after the next one. By these the server tells
   * that it comes from here, and too late. Nobody else knows the instance.
   */
  private readonly instance = `${crypto.getRandomValues(new Uint32Array(4))}`;
  private attempt = 0;
  private secret = '';
  /**
   * How the next handshake registers: for the first time, as the same page, or as a new session.
   */
  private mode: 'fresh' | 'resume' | 'again' = 'fresh';
  private starting: Promise<InitResult> | null = null;
  /** Ends the init that is under way. */
  private started: (result: InitResult | Failure) => void = () => undefined;
  private rejoining = false;
  /** The last failure of a handshake that is repeated. */
  private refusal: Failure | null = null;
  private again: ReturnType<typeof setTimeout> | undefined;
  /** Why this session ended, for every later call. */
  private over: Failure | null = null;
  private away = false;
  private joins = 0;
  private early: Push[] = [];
  private iceServers: RTCIceServer[] = [];
  private icedAt = 0;
  private unwatch: () => void = () => undefined;

  constructor(
    /** Address of the server; '' and undefined as serverBase says. */
    private readonly base: string | undefined,
    private readonly hooks: SessionHooks,
    private readonly features: readonly string[] = FEATURES,
    private readonly create?: (url: string, protocols?: string[]) => WebSocketLike,
    private readonly other = fallback,
  ) {}

  get connected(): boolean {
    return this.connection?.up ?? false;
  }

  /** A connection to another user has died: that to the server may have, too. */
  async probeServer(): Promise<boolean> {
    return (await this.connection?.probeServer()) ?? false;
  }

  /** The device uses another network. */
  renew(): void {
    this.connection?.renew();
  }

  emit(message: unknown): boolean {
    return this.connection?.emit(message) ?? false;
  }

  /** To one user of the room; waits while the socket is away. Resolves with the server's code. */
  async relay({ eventOp, ...fields }: Json & { eventOp: string }): Promise<string> {
    if (eventOp !== 'candidate') return (await this.request(eventOp, fields)).code;
    this.connection?.send({ eventOp, userId: this.userId, ...fields });
    return '200';
  }

  request(eventOp: string, fields: Json = {}, limit?: number): Promise<Answer> {
    if (this.over) return Promise.resolve({ eventOp, ...this.over });
    if (!this.connection || !this.userId) return Promise.resolve({ eventOp, ...failure('410') });
    return this.connection.request({ eventOp, userId: this.userId, ...fields }, limit);
  }

  async init(
    cpCode: unknown,
    authKey: unknown,
    wished: unknown,
    name: unknown,
    device: unknown,
    forced: unknown,
  ): Promise<InitResult> {
    const call = 'init(cpCode, authKey, id?, name?, device?, forced?)';
    if (isToken(cpCode) && !isToken(authKey)) {
      return {
        userId: '',
        ...failure(
          '401',
          'The license was refused.',
          'cpCode and authKey look swapped: init(cpCode, authKey).',
        ),
      };
    }
    const checked = [
      id(cpCode, 'cpCode', call),
      key(authKey, call),
      optionalId(wished, 'id'),
      optionalText(name, 'name'),
      optionalText(device, 'device'),
    ];
    const wrong = firstFailure(...checked) ?? this.offline();
    if (wrong) return { userId: '', ...wrong };
    const [code, secret, user, shown, kind] = checked as (string | undefined)[];
    const login = {
      cpCode: code!,
      authKey: secret!,
      wished: user,
      name: shown,
      device: kind,
      forced: truth(forced),
    };
    if (
      this.credentials
      && !this.over
      && JSON.stringify(login) === JSON.stringify(this.credentials)
    ) {
      return this.starting ?? { code: '200', userId: this.userId };
    }
    this.disconnect();
    return this.start(login);
  }

  disconnect(): void {
    this.unwatch();
    this.started(failure('410', 'Disconnected.'));
    this.end(null);
  }

  createRoom(
    roomId: unknown,
    title: unknown,
    capacity: unknown,
    destroy: unknown,
  ): Promise<CreateRoomResult> {
    return this.make('createRoom', roomId, title, capacity, destroy);
  }

  createVideoRoom(
    roomId: unknown,
    title: unknown,
    capacity: unknown,
    destroy: unknown,
    talkingNoty: unknown,
  ): Promise<CreateRoomResult> {
    return this.make('createVideoRoom', roomId, title, capacity, destroy, {
      talkingNoty: truth(talkingNoty),
    });
  }

  private async make(
    eventOp: string,
    roomId: unknown,
    title: unknown,
    capacity: unknown,
    destroy: unknown,
    more: Json = {},
  ): Promise<CreateRoomResult> {
    const checked = [
      optionalId(roomId, 'roomId'),
      optionalText(title, 'title'),
      optionalCapacity(capacity),
    ];
    const wrong = firstFailure(...checked);
    if (wrong) return { roomId: '', ...wrong };
    const [room, name, size] = checked;
    const fields = {
      roomId: room,
      title: name,
      capacity: size,
      destroy: destroy !== false && destroy !== 'false',
      ...more,
    };
    const answer = await this.request(eventOp, fields);
    return { ...result(answer), roomId: typeof answer.roomId === 'string' ? answer.roomId : '' };
  }

  async joinRoom(roomId: unknown): Promise<JoinRoomResult> {
    const room = id(roomId, 'roomId', 'joinRoom(roomId)');
    if (isFailure(room)) return room as unknown as JoinRoomResult;
    const answer = await this.enter(room, (joined) => {
      this.stay();
      this.room = new Room(joined);
      this.last = null;
      return [];
    });
    // The roster inside is ours: what the app gets, it may change.
    return answer as unknown as JoinRoomResult;
  }

  async leaveRoom(roomId: unknown): Promise<Result> {
    const given = optionalId(roomId, 'roomId');
    if (isFailure(given)) return given;
    const room = given ?? this.room?.id;
    if (this.over || !this.userId) return result(await this.request('leaveRoom'));
    if (!room) return failureFor('410', 'no-room');
    const answer = await this.request('leaveRoom', { roomId: room });
    // 429 is not said of a room that one is in.
    const out =
      ['200', '410', '441'].includes(answer.code) || (answer.code === '429' && this.rejoining);
    if (room === this.room?.id && out) this.leave('left');
    return result(answer);
  }

  async memberList(roomId: unknown): Promise<MemberList> {
    const given = optionalId(roomId, 'roomId');
    const answer = isFailure(given)
      ? { eventOp: 'memberList', ...given }
      : await this.request('memberList', { roomId: given ?? this.room?.id });
    const members = (answer.code === '200' && answer.members) || {};
    const list = { ...members };
    // Users may be called `code` or `message`: apps go through the members.
    for (const [key, value] of Object.entries({ ...result(answer), members })) {
      if (!(key in list)) Object.defineProperty(list, key, { value });
    }
    return list as MemberList;
  }

  /** ICE servers whose credentials still live long enough to begin something with them. */
  async freshIce(): Promise<RTCIceServer[]> {
    const age = Date.now() - this.icedAt;
    const expiry = Math.min(
      ...this.iceServers.map((server) =>
        server.username ? Number(server.username.split(':')[0]) * 1000 || Infinity : Infinity,
      ),
    );
    // The expiry is in the server's time; a wrong clock here must not make us ask every time.
    if (expiry < Infinity && (age > ICE_AGE || (expiry - Date.now() < 60_000 && age > 60_000))) {
      const answer = await this.request('iceServers', {}, 3_000);
      if (answer.code === '200' && Array.isArray(answer.iceServers)) {
        this.setIce(answer.iceServers as RTCIceServer[]);
      }
    }
    return this.iceServers;
  }

  private start(login: Credentials): Promise<InitResult> {
    this.over = this.refusal = null;
    this.mode = 'fresh';
    this.credentials = login;
    this.handoff = takeHandoff(this.whose(login));
    this.connection = new Connection(
      `${this.base!.replace(/^http/, 'ws')}/signal`,
      {
        resumes: () => this.mode === 'resume',
        urgent: () => this.hooks.urgent(),
        handshake: (ask) => this.handshake(ask),
        message: (message) => {
          for (const one of spread(message)) if (this.credentials) this.receive(one);
        },
        up: () => this.up(),
        down: () => this.hooks.online(false),
        ended: (code) =>
          this.end(
            code === 4003 ? failure('401', 'The license ended or was revoked.') : taken(),
            code === 4003 ? 'session-ended' : 'replaced',
          ),
      },
      this.create,
      () => this.other(this.base!),
    );
    const { outcome, settle } = deferred<InitResult>(Timing.request, () => {
      this.started(
        this.refusal
        ?? (this.connection?.status === 429 ? failure('429') : unreachable(this.base!)),
      );
    });
    this.starting = outcome;
    this.started = (outcome) => {
      this.starting = null;
      this.started = () => undefined;
      if (outcome.code !== '200') this.end(null);
      const hint = outcome.hint ?? (isSecure() ? undefined : insecureHint);
      settle({ userId: '', ...outcome, ...(hint ? { hint } : {}) });
    };
    this.unwatch = watchPage({
      gone: () => this.pageGone(),
      back: () => this.pageBack(),
      wake: () => this.connection?.wake(),
      network: () => this.hooks.network(),
    });
    this.connection.start();
    return outcome;
  }

  private async handshake(ask: Ask): Promise<Verdict> {
    const c = this.credentials;
    if (!c) return 'stop';
    const register = (fields: Json) =>
      ask({
        eventOp: 'register',
        cpCode: c.cpCode,
        authKey: c.authKey,
        name: this.name || c.name,
        device: c.device,
        features: this.features,
        instance: this.instance,
        attempt: ++this.attempt,
        ...fields,
      });
    const anew = { userId: c.wished, forced: c.forced || undefined };
    let answer: Answer;
    let lost = false;
    if (this.mode === 'fresh') {
      const handoff = this.handoff;
      answer = await register(handoff ? { ...handoff, forced: true } : anew);
      if (handoff && refused(answer)) {
        this.handoff = null;
        answer = await register(anew);
      }
    } else {
      const again = this.mode === 'again';
      answer = await register({
        userId: this.userId,
        resume: this.secret,
        ...(again ? { forced: true } : { seq: this.room?.seen }),
      });
      lost = again;
      if (refused(answer)) {
        lost = true;
        answer = await register({ userId: this.userId });
      }
    }
    const registered = readRegister(answer);
    if (registered) {
      this.accept(registered, lost || (this.mode !== 'fresh' && !registered.resumed));
      return 'up';
    }
    const failed =
      answer.code === '200' ? failure('500') : failure(answer.code, answer.message, answer.hint);
    // 429 takes up to a minute: a session waits for that, who calls init() is told.
    if (passing(answer) && !(answer.code === '429' && this.starting)) {
      if (answer.code !== '504') this.refusal = failed;
      return 'retry';
    }
    if (this.starting) this.started(failed);
    else {
      this.end(
        answer.code === '409' ? taken() : failed,
        answer.code === '409' ? 'replaced' : 'session-ended',
      );
    }
    return 'stop';
  }

  private accept(registered: RegisterAnswer, lost: boolean): void {
    const same = this.mode === 'resume' && !lost;
    this.mode = 'resume';
    this.userId = registered.userId;
    this.secret = registered.resume;
    this.handoff = null;
    this.name ||= this.credentials?.name ?? '';
    this.setIce(registered.iceServers);
    if (lost) {
      this.connection?.dropRelayed();
      this.room?.forgetFeeds();
      if (!this.rejoining && !this.away) this.hooks.lost();
      this.rejoining = this.room !== null;
    } else if (same) {
      this.compare(registered);
    }
    this.away = false;
  }

  /**
   * After a resume: compares the room of the server with ours, and answers requests whose answer
   * was lost.
   */
  private compare({ room }: RegisterAnswer): void {
    const ours = this.room;
    if (this.rejoining) {
      // Compared when the room is entered.
    } else if (ours && room?.roomId === ours.id) {
      this.tell(ours.update(room, this.userId));
    } else if (ours) {
      this.leave('session-ended');
    } else if (room && this.joins === 0) {
      // Joined by a request that the app was told had failed.
      void this.request('leaveRoom', { roomId: room.roomId });
    }
    this.connection?.answerWaiting(({ eventOp, roomId }) =>
      (eventOp === 'joinRoom' && roomId === room?.roomId) || (eventOp === 'leaveRoom' && !room)
        ? { eventOp, code: '200', message: 'ok', ...room }
        : undefined,
    );
  }

  private up(): void {
    this.hooks.online(true);
    if (this.starting) return this.started({ code: '200', userId: this.userId });
    if (this.rejoining) void this.rejoin();
    else this.hooks.resumed();
  }

  /**
   * The new session joins the room of the old one. A room that ended with its server is created
   * again by the first member.
   */
  private async rejoin(): Promise<void> {
    clearTimeout(this.again);
    const room = this.room;
    // One at a time: requests without an answer are sent again on the next socket.
    if (!room || room.entering) return;
    room.entering = true;
    const update = (joined: Room['info']) =>
      this.room === room ? room.update(joined, this.userId) : [];
    let answer = await this.enter(room.id, update);
    if (answer.code === '441') {
      const { title, capacity, media, talkingNoty } = room.info;
      answer = await this.request(media ? 'createVideoRoom' : 'createRoom', {
        roomId: room.id,
        title,
        capacity,
        destroy: true,
        talkingNoty: media ? talkingNoty : undefined,
      });
      if (['200', '443'].includes(answer.code)) answer = await this.enter(room.id, update);
    }
    room.entering = false;
    if ((passing(answer) || this.away) && this.room === room) {
      // After a restart all users of one address ask for rooms that are gone, which may exceed a
      // limit. The next handshake may come first, as that of a page that was away.
      this.again = setTimeout(
        () => this.connected && void this.rejoin(),
        (answer.code === '429' ? Again.limited : Again.other) * (0.5 + Math.random() / 2),
      );
      return;
    }
    this.rejoining = false;
    if (this.room !== room) return;
    if (answer.code === '200') {
      this.hooks.restored();
    } else {
      this.tell(update({ ...room.info, members: {} }));
      this.leave('session-ended');
    }
  }

  /** joinRoom, holding back the presence that overtakes its answer. */
  private async enter(roomId: string, joined: (room: Room['info']) => Presence[]): Promise<Answer> {
    this.joins++;
    const { eventOp, reqId, seq, ...answer } = await this.request('joinRoom', { roomId });
    this.joins--;
    if (answer.code === '200' && isRoom({ ...answer, seq })) {
      this.tell(joined(JSON.parse(JSON.stringify({ ...answer, seq }))));
      if (this.credentials) this.hooks.entered(Object.keys(answer.members as object));
    }
    const early = this.early;
    if (this.joins === 0) this.early = [];
    for (const push of early) this.push(push);
    return answer as Answer;
  }

  /** A handler may disconnect, and hears nothing more then. */
  private tell(events: Presence[]): void {
    for (const event of events) if (this.credentials) this.hooks.presence(event);
  }

  private receive(incoming: Incoming): void {
    this.hooks.wire(incoming.message);
    if (incoming.kind === 'signal') this.hooks.signal(incoming.from, incoming.signal);
    else if (incoming.kind === 'subscribe') this.hooks.subscribe(incoming.from, incoming.type);
    else if (incoming.kind === 'push') this.push(incoming.message);
  }

  private push(push: Push): void {
    if (this.joins > 0) {
      if (this.early.length < EARLY) this.early.push(push);
      return;
    }
    const room = this.room ?? this.last;
    // What goes to this user alone may come from outside the room.
    const events = room ? room.apply(push) : push.seq === undefined ? [whole(push)] : [];
    for (const event of events) {
      if (event.type === 'leave' && event.user === this.userId && this.room) {
        // Removed by the host: as after leaveRoom, but the app is told, also of the end of the
        // room.
        const last = this.room;
        this.leave('left');
        this.last = last;
      }
      this.tell([event]);
    }
  }

  /** Why no server can be reached from here, whatever is tried. */
  private offline(): Failure | undefined {
    if (this.base === undefined) {
      return missing('server', "new Knowledgetalk({ server: 'https://host:7102' })");
    }
    if (!this.base) return invalid('server', 'an address such as https://host:7102');
    if (!this.create && typeof WebSocket === 'undefined') {
      return failure('405', 'There is no WebSocket here.', 'Use a browser, or Node 22 or later.');
    }
    return undefined;
  }

  private whose({ cpCode, wished = '' }: Credentials): string[] {
    return [this.base!, cpCode, wished];
  }

  private pageGone(): void {
    if (!this.credentials || !this.secret || this.over) return;
    leaveHandoff(this.whose(this.credentials), { userId: this.userId, resume: this.secret });
    beacon(`${this.base}/leave`, JSON.stringify({ resume: this.secret }));
    this.away = true;
    this.connection?.stop(1000);
    this.hooks.lost();
  }

  private pageBack(): void {
    if (!this.away || !this.credentials) return;
    takeHandoff(this.whose(this.credentials));
    this.mode = 'again';
    this.connection?.start();
  }

  /** The room of before is no longer asked for. */
  private stay(): void {
    clearTimeout(this.again);
    this.rejoining = false;
  }

  private leave(reason: Reason): void {
    this.stay();
    this.room = this.last = null;
    this.hooks.left(reason);
  }

  /** Ends the session for good; `over` is what every later call answers. */
  private end(over: Failure | null, reason: Reason = 'session-ended'): void {
    this.over = over;
    this.connection?.stop();
    this.connection = null;
    this.credentials = null;
    this.userId = this.name = this.secret = '';
    this.away = false;
    this.early = [];
    this.unwatch();
    this.leave(over ? reason : 'left'); // Nobody needs to be told why, who asked for it.
    this.hooks.online(false);
    if (over) console.warn(`Ieum: ${over.message} ${over.hint ?? ''}`);
  }

  private setIce(servers: RTCIceServer[]): void {
    this.iceServers = servers;
    this.icedAt = Date.now();
  }
}

const taken = () => failureFor('409', 'replaced');

/** The same request may succeed later. */
const passing = (answer: Answer) => ['429', '500', '504', '543'].includes(answer.code);

/** The server does not (or no longer) know a right to this id. */
const refused = (answer: Answer) => answer.code === '409' || answer.code === '410';

/** License keys are JWTs, tenant codes are not. */
const isToken = (x: unknown) => typeof x === 'string' && /^eyJ[\w-]*\.[\w-]+\.[\w-]+$/.test(x);
