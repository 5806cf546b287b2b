import type { ChatResult, CreateGroupResult, Result } from '../../types/knowledgetalk';
import { failure, invalid, missing, type Failure } from '../errors';
import {
  absent,
  firstFailure,
  id,
  isFailure,
  optionalBoolean,
  optionalCapacity,
  optionalId,
  optionalText,
} from './arguments';
import { result, type Answer, type Json } from './messages';

export interface OperationsHooks {
  request(eventOp: string, fields: Json): Promise<Answer>;
  /** This user is called so from now on. */
  named(name: string): void;
  /** Mutes or unmutes the camera or the microphone that is being sent. */
  enable(kind: 'audio' | 'video', on: boolean): void;
}

/** What members and hosts ask of a room: checked arguments in, codes out. */
export class Operations {
  /** What this user has said of itself: a new session, or another room, does not know. */
  private said: { name?: unknown; video?: unknown; audio?: unknown } = {};

  constructor(private readonly hooks: OperationsHooks) {}

  async chat(message: unknown, roomId: unknown, target: unknown): Promise<ChatResult> {
    const call = 'chat(message, roomId?, target?)';
    const text = typeof message === 'number' ? `${message}` : message;
    const wrong = absent(text) ? missing('message', call)
      : typeof text !== 'string' ? invalid('message', 'text')
        : absent(roomId) && absent(target) ? missing('roomId or target', call) : undefined;
    const outcome = await this.say('chat', text, roomId, target, wrong);
    // Apps compare the result itself with a code.
    return Object.defineProperty(outcome, 'toString', { value: () => outcome.code }) as ChatResult;
  }

  inform(message: unknown, target: unknown, roomId: unknown): Promise<Result> {
    const wrong =
      message === undefined || message === null
        ? missing('message', 'inform(message, target?, roomId?)')
        : undefined;
    return this.say('inform', message, roomId, target, wrong);
  }

  kickOut(target: unknown): Promise<Result> {
    return this.ask('kickOut', { target: id(target, 'target', 'kickOut(target)') });
  }

  async permit(
    target: unknown,
    chat: unknown,
    draw: unknown,
    screen: unknown,
    whiteboard: unknown,
    document: unknown,
  ): Promise<Result> {
    const call = 'permit(target, chat?, draw?, screen?, whiteboard?, document?)';
    const asked = Object.entries({ chat, draw, screen, whiteboard, document });
    const given = asked.map(([name, x]) => [name, optionalBoolean(x, name)] as const);
    const none = given.every(([, x]) => x === undefined)
      ? missing('chat, draw, screen, whiteboard or document', call)
      : undefined;
    return this.ask(
      'permit',
      { target: id(target, 'target', call), ...Object.fromEntries(given) },
      none,
    );
  }

  editRoomInfo(roomId: unknown, title: unknown, capacity: unknown, host: unknown): Promise<Result> {
    const room = id(roomId, 'roomId', 'editRoomInfo(roomId, title?, capacity?, host?)');
    return this.ask('editRoomInfo', {
      roomId: room,
      title: optionalText(title, 'title'),
      capacity: optionalCapacity(capacity),
      host: optionalId(host, 'host'),
    });
  }

  async editUserInfo(
    name: unknown,
    video: unknown,
    audio: unknown,
    broadcast: unknown,
    target: unknown,
  ): Promise<Result> {
    const fields = {
      name: optionalText(name, 'name'),
      video: optionalBoolean(video, 'video'),
      audio: optionalBoolean(audio, 'audio'),
      broadcast: optionalBoolean(broadcast, 'broadcast'),
      target: optionalId(target, 'target'),
    };
    const wrong = firstFailure(...Object.values(fields));
    if (wrong) return wrong;
    // Who mutes is silent from this moment on, whatever the network does.
    for (const kind of ['video', 'audio'] as const) {
      const on = fields[kind];
      if (typeof on !== 'boolean') continue;
      this.said[kind] = on;
      this.hooks.enable(kind, on);
    }
    return this.describe('editUserInfo', fields);
  }

  async changeName(name: unknown): Promise<Result> {
    const text = absent(name) ? missing('name', 'changeName(name)') : optionalText(name, 'name');
    return isFailure(text) ? text : this.describe('changeName', { name: text });
  }

  async createGroup(list: unknown, title: unknown): Promise<CreateGroupResult> {
    const ids = list ?? [];
    const call = 'createGroup(list?, title?)';
    const users = Array.isArray(ids)
      ? ids.map((x) => id(x, 'list', call))
      : invalid('list', 'an array of user ids');
    const text = optionalText(title, 'title');
    const wrong = firstFailure(users, ...(Array.isArray(users) ? users : []), text);
    if (wrong) return { groupId: '', ...wrong };
    const answer = await this.hooks.request('createGroup', { list: users, title: text });
    return { ...result(answer), groupId: typeof answer.groupId === 'string' ? answer.groupId : '' };
  }

  endGroup(groupId: unknown): Promise<Result> {
    return this.ask('endGroup', { groupId: id(groupId, 'groupId', 'endGroup(groupId)') });
  }

  destroyRoom(roomId: unknown): Promise<Result> {
    return this.ask('destroyRoom', { roomId: id(roomId, 'roomId', 'destroyRoom(roomId)') });
  }

  /** Whether this user has said that the kind is off. */
  muted(kind: string): boolean {
    return this.said[kind as 'audio' | 'video'] === false;
  }

  /** A room is entered, or a new session is in the old one. */
  entered(): void {
    if (Object.keys(this.said).length) void this.hooks.request('editUserInfo', this.said);
  }

  /** The room is left. Who is muted stays so, and the next room is told. */
  left(): void {
    const off = (['video', 'audio'] as const).filter((kind) => this.muted(kind));
    this.said = Object.fromEntries(off.map((kind) => [kind, false]));
  }

  private async describe(eventOp: string, fields: Json): Promise<Result> {
    const answer = await this.hooks.request(eventOp, fields);
    if (answer.code !== '200') return result(answer);
    const { name } = fields;
    if (typeof name === 'string') {
      this.hooks.named(name);
      this.said.name = name;
    }
    return result(answer);
  }

  private say(
    eventOp: string,
    message: unknown,
    roomId: unknown,
    target: unknown,
    wrong?: Failure,
  ): Promise<Result> {
    return this.ask(
      eventOp,
      { message, roomId: optionalId(roomId, 'roomId'), target: optionalId(target, 'target') },
      wrong,
    );
  }

  private async ask(eventOp: string, fields: Json, wrong?: Failure): Promise<Result> {
    const first =
      wrong
      ?? firstFailure(
        ...Object.entries(fields).flatMap(([name, x]) => (name === 'message' ? [] : [x])),
      );
    if (first) return { ...first };
    try {
      return result(await this.hooks.request(eventOp, fields));
    } catch {
      // An app's message may hold a circle.
      return failure('422', 'The message cannot be written as JSON.');
    }
  }
}
