import type { Result } from '../../types/knowledgetalk';
import { failure, invalid, missing } from '../errors';
import { isFailure, optionalId } from '../signaling/arguments';
import { result, type Answer, type Json } from '../signaling/messages';
import type { Room } from '../signaling/room';
import { isLive } from './streams';

export interface SharingHooks {
  me(): string;
  room(): Room | null;
  request(eventOp: string, fields?: Json): Promise<Answer>;
  publish(target: string, stream: MediaStream): void;
  /** Stops sending a screen to anybody. */
  unpublish(): void;
  /** In a group room: a feed, sent to its subscribers. */
  announce(stream: MediaStream): void;
  withdraw(): void;
}

/** The shared screen of this user: the share of the room, and the receivers of the video. */
export class Sharing {
  private stream: MediaStream | null = null;
  /** Shared with the whole room, later members included. */
  private everybody = false;
  private unwatch: () => void = () => undefined;

  constructor(private readonly hooks: SharingHooks) {}

  async start(stream: unknown, target: unknown): Promise<Result> {
    if (stream === undefined || stream === null) {
      return missing('stream', 'screenStart(stream, target?)');
    }
    if (!isLive(stream)) {
      return invalid('stream', 'what getDisplayMedia resolved with, and not ended');
    }
    const to = optionalId(target, 'target');
    if (isFailure(to)) return to;
    const asked = this.hooks.room();
    const answer = await this.hooks.request('screen', { target: to });
    const room = this.hooks.room();
    if (answer.code !== '200') return result(answer);
    if (!room || room !== asked) return failure('410', 'The room was left.');
    room.share = { type: 'screen', user: this.hooks.me() };
    this.watch(stream);
    if (to === undefined) this.everybody = true;
    // Nobody else ends a capture that ended during the request.
    if (!isLive(stream)) void this.stop();
    else if (room.info.media) this.hooks.announce(stream);
    else for (const id of to === undefined ? room.members.keys() : [to]) this.send(id, stream);
    return result(answer);
  }

  async stop(): Promise<Result> {
    const sharing = this.stream !== null;
    this.left();
    if (sharing) {
      this.hooks.unpublish();
      this.hooks.withdraw();
    }
    const room = this.hooks.room();
    if (room?.share?.user === this.hooks.me()) room.share = undefined;
    // Applications also call it without a share, and outside a room.
    return !room && this.hooks.me()
      ? { code: '200' }
      : result(await this.hooks.request('shareStop'));
  }

  /** These users have come, and the app knows it. */
  handleMembers(ids: Iterable<string>): void {
    const { stream } = this;
    if (stream && this.everybody && !this.hooks.room()?.info.media) {
      for (const id of ids) this.send(id, stream);
    }
  }

  /**
   * A new session is in the room and has to ask for its share again. Peer sessions send again by
   * themselves.
   */
  async restored(): Promise<void> {
    const { stream } = this;
    if (!stream) return;
    const { code } = await this.hooks.request('screen');
    const room = this.hooks.room();
    if (this.stream !== stream || !room) return;
    if (code === '200') room.share = { type: 'screen', user: this.hooks.me() };
    else void this.stop();
  }

  /** The room is left. */
  left(): void {
    this.unwatch();
    this.unwatch = () => undefined;
    this.stream = null;
    this.everybody = false;
  }

  private send(id: string, stream: MediaStream): void {
    if (id !== this.hooks.me()) this.hooks.publish(id, stream);
  }

  /** The browser has its own button to end the capture. */
  private watch(stream: MediaStream): void {
    this.unwatch();
    this.stream = stream;
    const video = stream.getVideoTracks();
    const tracks = video.length ? video : stream.getTracks();
    const ended = () => {
      if (tracks.every((track) => track.readyState === 'ended')) void this.stop();
    };
    for (const track of tracks) track.addEventListener('ended', ended);
    this.unwatch = () => {
      for (const track of tracks) track.removeEventListener('ended', ended);
    };
  }
}
