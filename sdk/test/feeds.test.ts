import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { MediaType } from '../types/knowledgetalk';
import { Feeds, Subscription } from '../src/media/feeds';
import { FakeStream, settled, track } from './browser';

let log: string[];
let code: string;
let members: Set<string>;
let inRoom: boolean;
let sent: [string, MediaStream][];
let remote: Map<string, MediaStream>;
let feeds: Feeds;

const stream = (...kinds: ('audio' | 'video')[]) =>
  new FakeStream(
    (kinds.length ? kinds : (['audio', 'video'] as const)).map((k) => track(k)),
  ) as unknown as MediaStream;

/** Media of a user arrives. */
function comes(user: string, type: MediaType = 'cam'): MediaStream {
  const s = stream();
  remote.set(`${type} ${user}`, s);
  feeds.handleSubscribed(user, type);
  return s;
}

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal('MediaStream', FakeStream);
  vi.spyOn(console, 'warn').mockImplementation(() => undefined);
  log = [];
  code = '200';
  members = new Set(['a', 'b']);
  inRoom = true;
  sent = [];
  remote = new Map();
  feeds = new Feeds({
    me: () => 'me',
    isMember: (id) => members.has(id),
    inRoom: () => inRoom,
    request: async (eventOp, fields) => {
      const { type, target, epoch, audio, video } = fields;
      log.push(
        [
          eventOp,
          type,
          ...(target ? [target] : []),
          ...(eventOp === 'publish' ? [epoch, audio, video] : []),
        ].join(' '),
      );
      return { eventOp, code };
    },
    publish: (target, type, s) => {
      log.push(`to ${target} ${type}`);
      sent = [...sent.filter(([id]) => id !== target), [target, s]];
    },
    replace: (type, old, next) => {
      for (const [id, s] of sent) {
        if (s === old) log.push(next ? `to ${id} ${type}` : `no more to ${id} ${type}`);
      }
      sent = next ? sent.map(([id, s]) => [id, s === old ? next : s]) : [];
    },
    stream: (user, type) => remote.get(`${type} ${user}`),
  });
});

afterEach(() => {
  feeds.left();
  expect(vi.getTimerCount(), 'a timer outlives the room').toBe(0);
  vi.useRealTimers();
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

describe('a feed', () => {
  it('is announced once, and sent to subscribers before and after', async () => {
    feeds.handleWish('a', 'cam');
    expect(await feeds.publish('cam', stream())).toBe(true);
    feeds.handleWish('b', 'cam');
    feeds.handleWish('b', 'screen');
    expect(log).toEqual(['publish cam 1 true true', 'to a cam', 'to b cam']);
  });

  it('is replaced for its subscribers without an announcement', async () => {
    await feeds.publish('cam', stream());
    feeds.handleWish('a', 'cam');
    sent.push(['b', stream()]); // something else, by publishP2P
    log = [];
    expect(await feeds.publish('cam', stream())).toBe(true);
    expect(log).toEqual(['to a cam']);
    log = [];
    expect(await feeds.publish('cam', stream('video'))).toBe(true);
    expect(log).toEqual(['to a cam', 'publish cam 2 false true']);
  });

  it('ends for its subscribers', async () => {
    await feeds.publish('screen', stream());
    feeds.handleWish('a', 'screen');
    log = [];
    feeds.unpublish('screen');
    feeds.unpublish('screen');
    feeds.handleWish('b', 'screen');
    expect(log).toEqual(['no more to a screen', 'unpublish screen']);
  });

  it('refused by the server does not exist, or stays as it was', async () => {
    code = '410';
    expect(await feeds.publish('cam', stream())).toBe(false);
    feeds.handleWish('a', 'cam');
    expect(log).toEqual(['publish cam 1 true true']);
    code = '200';
    const first = stream();
    await feeds.publish('cam', first);
    code = '504';
    expect(await feeds.publish('cam', stream('audio'))).toBe(false);
    expect(feeds.stream('cam')).toBe(first);
  });

  it.each<[string, () => unknown[]]>([
    ['neither', () => ['file', stream()]],
    ['no MediaStream', () => ['cam', {}]],
    ['no MediaStream', () => ['cam', new FakeStream()]],
  ])('needs right arguments: %s', async (text, args) => {
    const [type, media] = args();
    expect(await feeds.publish(type, media)).toBe(false);
    expect(console.warn).toHaveBeenCalledWith(expect.stringContaining(text));
    expect(log).toEqual([]);
  });

  it('needs a room', async () => {
    inRoom = false;
    expect(await feeds.publish('cam', stream())).toBe(false);
    expect(log).toEqual([]);
  });

  it('is announced again by a new session, and not after the room was left', async () => {
    await feeds.publish('cam', stream());
    log = [];
    feeds.restored();
    expect(log).toEqual(['publish cam 2 true true']);
    feeds.left();
    feeds.restored();
    expect(log).toHaveLength(1);
  });

  it('waits for the join of a subscriber, for a bounded number of users', async () => {
    await feeds.publish('cam', stream());
    log = [];
    for (let i = 0; i < 100; i++) feeds.handleWish(`early ${i}`, 'cam');
    expect(log).toEqual([]);
    for (const id of ['early 0', 'early 99']) {
      members.add(id);
      feeds.handleMembers([id]);
    }
    expect(log).toEqual(['to early 0 cam']);
  });
});

describe('subscribeVideo', () => {
  it('subscribes, and resolves with the stream once connected', async () => {
    const promise = feeds.subscribe('a', 'cam');
    expect(feeds.subscribe('a', 'cam')).toBe(promise);
    remote.set('cam a', stream()); // the tracks exist, nothing is connected
    await settled();
    expect(log).toEqual(['subscribe cam a']);
    const s = comes('a');
    expect(await promise).toBe(s);
    expect(await feeds.subscribe('a', 'cam')).toBe(s);
    expect(log).toHaveLength(1);
  });

  it('subscribes again after removal, and repeats when nothing arrives', async () => {
    void feeds.subscribe('a', 'cam');
    comes('a');
    remote.clear();
    log = [];
    const promise = feeds.subscribe('a', 'cam');
    await vi.advanceTimersByTimeAsync(Subscription.repeat);
    expect(log).toEqual(['subscribe cam a', 'subscribe cam a']);
    const s = comes('a');
    expect(await promise).toBe(s);
  });

  it('is false after 30 s', async () => {
    const promise = feeds.subscribe('a', 'cam');
    await vi.advanceTimersByTimeAsync(Subscription.subscribe);
    expect(await promise).toBe(false);
  });

  it.each(['429', '504', '543'])('asks again when the server answers %s', async (answer) => {
    code = answer;
    const promise = feeds.subscribe('a', 'cam');
    await settled();
    code = '200';
    await vi.advanceTimersByTimeAsync(Subscription.repeat);
    expect(log).toEqual(['subscribe cam a', 'subscribe cam a']);
    const s = comes('a');
    expect(await promise).toBe(s);
  });

  it('is false when the server knows no such member', async () => {
    code = '403';
    expect(await feeds.subscribe('a', 'cam')).toBe(false);
  });

  it.each<[string, () => void]>([
    ['its owner leaves', () => feeds.handleLeave('a')], ['the room is left', () => feeds.left()],
  ])('is false when %s', async (_, end) => {
    const promise = feeds.subscribe('a', 'screen');
    end();
    expect(await promise).toBe(false);
  });

  it.each([
    ['nobody', 'cam'],
    ['me', 'cam'],
    ['a', 'file'],
    [undefined, 'cam'],
  ])('is false at once for %s, %s', async (user, type) => {
    expect(await feeds.subscribe(user, type)).toBe(false);
    expect(log).toEqual([]);
  });
});
