import type { MediaType } from '../../types/knowledgetalk';
import { deferred, type Deferred } from '../deferred';
import { explain, type Reason } from '../errors';
import type { Answer, Json } from '../signaling/messages';
import { isLive, kindsOf } from './streams';

export interface FeedsHooks {
  me(): string;
  isMember(id: string): boolean;
  inRoom(): boolean;
  request(eventOp: string, fields: Json): Promise<Answer>;
  publish(target: string, type: MediaType, stream: MediaStream): void;
  /** Whoever is sent a stream gets another one; null: nothing more. */
  replace(type: MediaType, old: MediaStream, stream: MediaStream | null): void;
  stream(user: string, type: MediaType): MediaStream | undefined;
}

/** Milliseconds. An enum, so that the build puts the numbers where they are used. */
export enum Subscription {
  subscribe = 30_000,
  /** `subscribe` may overtake the refusal of what was received before: it is repeated. */
  repeat = 5_000,
}

/** Users whose `subscribe` is kept until they are known as members. Each has two at most. */
const EARLY_SUBSCRIBERS = 64;

interface Feed {
  stream: MediaStream;
  audio: boolean;
  video: boolean;
}

const isType = (x: unknown): x is MediaType => x === 'cam' || x === 'screen';

/**
 * Group rooms over the mesh: a feed is announced to the room once and sent to its subscribers only,
 * over the connection to each of them.
 */
export class Feeds {
  private readonly own = new Map<MediaType, Feed>();
  /**
   * Subscribers that are not sent a type yet: the feed does not exist, or the user is not known
   * yet.
   */
  private readonly wishes = new Map<string, Set<MediaType>>();
  /** Pending subscriptions, and those that have their stream, by type and user. */
  private readonly waits = new Map<string, Deferred<MediaStream | false>>();
  private readonly received = new Set<string>();
  /** Counts announcements; the server takes up to nine digits. */
  private epoch = 0;

  constructor(private readonly hooks: FeedsHooks) {}

  /**
   * True once the room knows of the feed. Publishing a type again replaces the tracks for all
   * subscribers.
   */
  async publish(type: unknown, stream: unknown): Promise<boolean> {
    if (!this.hooks.me()) return refuse('publishVideo', 'not-registered');
    if (!isType(type)) return refuse('publishVideo', 'bad-type');
    if (!isLive(stream)) return refuse('publishVideo', 'bad-stream');
    if (!this.hooks.inRoom()) return refuse('publishVideo', 'no-room');
    const before = this.own.get(type);
    const feed = { stream, ...kindsOf(stream) };
    this.own.set(type, feed);
    if (before) this.hooks.replace(type, before.stream, stream);
    // Announced once: apps react to every announcement, and replaced tracks reach the subscribers
    // by themselves.
    if (before?.audio !== feed.audio || before?.video !== feed.video) {
      if (!(await this.announce(type, feed))) {
        if (this.own.get(type) === feed) {
          if (before) this.own.set(type, before);
          else this.own.delete(type);
        }
        return false;
      }
    }
    for (const id of this.wishes.keys()) this.serve(id);
    return true;
  }

  /**
   * Replaces the stream of the feed, or keeps what is left of it. The caller sends it to the
   * subscribers. False: there is no such feed.
   */
  change(type: MediaType, stream = this.stream(type)): boolean {
    const before = this.own.get(type);
    if (!before || !stream) return false;
    const feed = { stream, ...kindsOf(stream) };
    this.own.set(type, feed);
    if (before.audio !== feed.audio || before.video !== feed.video) void this.announce(type, feed);
    return true;
  }

  unpublish(type: MediaType): void {
    const feed = this.own.get(type);
    if (!feed) return;
    this.own.delete(type);
    this.hooks.replace(type, feed.stream, null);
    void this.hooks.request('unpublish', { type });
  }

  /**
   * The stream of the feed once connected; false when it does not arrive within 30 s. Overlapping
   * calls share their outcome.
   */
  subscribe(user: unknown, type: unknown): Promise<MediaStream | false> {
    const no = (reason: Reason) => Promise.resolve<false>(refuse('subscribeVideo', reason));
    if (!this.hooks.me()) return no('not-registered');
    if (!isType(type)) return no('bad-type');
    if (user === this.hooks.me()) return no('self');
    if (typeof user !== 'string' || !this.hooks.isMember(user)) return no('not-in-room');
    const key = `${type} ${user}`;
    const stream = this.hooks.stream(user, type);
    const request = () =>
      this.hooks.request('subscribe', { target: user, type, audio: true, video: true });
    if (stream && this.received.has(key)) {
      // The app has stopped the tracks of its stream: new ones come when the publisher sends
      // `publish` again.
      if (!isLive(stream)) void request();
      return Promise.resolve(stream);
    }
    const waiting = this.waits.get(key);
    if (waiting) return waiting.outcome;
    const ask = async () => {
      const { code } = await request();
      if (code === '403' && this.waits.get(key) === wait) {
        this.settle(key, refuse('subscribeVideo', 'not-in-room'));
      }
    };
    const repeat = setInterval(() => void ask(), Subscription.repeat);
    const wait = deferred<MediaStream | false>(Subscription.subscribe, () =>
      this.settle(key, refuse('subscribeVideo', 'no-answer')),
    );
    this.waits.set(key, wait);
    void wait.outcome.then(() => clearInterval(repeat));
    void ask();
    return wait.outcome;
  }

  stream(type: MediaType): MediaStream | undefined {
    return this.own.get(type)?.stream;
  }

  /** Media of a user has arrived. */
  handleSubscribed(user: string, type: MediaType): void {
    const key = `${type} ${user}`;
    const stream = this.hooks.stream(user, type);
    if (!stream) return;
    this.received.add(key);
    this.settle(key, stream);
  }

  /** A user subscribes to a feed. */
  handleWish(user: string, type: MediaType): void {
    if (
      !this.wishes.has(user)
      && !this.hooks.isMember(user)
      && this.wishes.size >= EARLY_SUBSCRIBERS
    ) {
      return;
    }
    this.wishes.set(user, (this.wishes.get(user) ?? new Set<MediaType>()).add(type));
    this.serve(user);
  }

  /** These users are members now, and the app knows it. */
  handleMembers(ids: Iterable<string>): void {
    for (const id of ids) this.serve(id);
  }

  handleLeave(user: string): void {
    this.wishes.delete(user);
    for (const type of ['cam', 'screen']) {
      this.received.delete(`${type} ${user}`);
      this.settle(`${type} ${user}`, false);
    }
  }

  /** The received streams are gone with the session. */
  handleLost(): void {
    this.received.clear();
  }

  /** A new session is in the room: it has no feeds yet. */
  restored(): void {
    for (const [type, feed] of this.own) void this.announce(type, feed);
  }

  /** The room is left. */
  left(): void {
    this.own.clear();
    this.wishes.clear();
    this.received.clear();
    for (const key of this.waits.keys()) this.settle(key, false);
  }

  private settle(key: string, outcome: MediaStream | false): void {
    this.waits.get(key)?.settle(outcome);
    this.waits.delete(key);
  }

  private async announce(type: MediaType, { audio, video }: Feed): Promise<boolean> {
    return (
      (await this.hooks.request('publish', { type, epoch: ++this.epoch, audio, video })).code
      === '200'
    );
  }

  private serve(user: string): void {
    const wishes = this.wishes.get(user);
    if (!wishes || !this.hooks.isMember(user)) return;
    for (const type of [...wishes]) {
      const feed = this.own.get(type);
      if (!feed) continue;
      wishes.delete(type);
      this.hooks.publish(user, type, feed.stream);
    }
    if (wishes.size === 0) this.wishes.delete(user);
  }
}

function refuse(method: string, reason: Reason): false {
  const { message, hint } = explain(reason);
  console.warn(`Ieum: ${method}: ${message} ${hint}`);
  return false;
}
