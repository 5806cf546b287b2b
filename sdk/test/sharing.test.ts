import { beforeEach, describe, expect, it, vi } from 'vitest';
import { Sharing } from '../src/media/sharing';
import { Room } from '../src/signaling/room';
import { FakeStream, settled, track } from './browser';
import { info } from './members';

let room: Room | null;
let log: string[];
let code: string;
let sharing: Sharing;

/** A screen capture that the test can end. */
function screen(): MediaStream & { end(): void } {
  const listeners = new Set<() => void>();
  const t = Object.assign(track('video'), {
    addEventListener: (_: string, f: () => void) => listeners.add(f),
    removeEventListener: (_: string, f: () => void) => listeners.delete(f),
    listeners,
  });
  return Object.assign(new FakeStream([t]), {
    end: () => {
      Object.assign(t, { readyState: 'ended' });
      for (const f of [...listeners]) f();
    },
  }) as unknown as MediaStream & { end(): void };
}

beforeEach(() => {
  vi.stubGlobal('MediaStream', FakeStream);
  room = new Room(info(1, 'me', 'a', 'b'));
  log = [];
  code = '200';
  sharing = new Sharing({
    me: () => 'me',
    room: () => room,
    request: async (eventOp, fields) => {
      log.push(`${eventOp}${fields?.target ? ` ${fields.target}` : ''}`);
      return { eventOp, code };
    },
    publish: (target) => log.push(`to ${target}`),
    unpublish: () => log.push('unpublish'),
    announce: () => log.push('announce'),
    withdraw: () => log.push('withdraw'),
  });
});

describe('screenStart', () => {
  it('asks the server first, then sends to everyone, also to later members', async () => {
    expect(await sharing.start(screen(), undefined)).toEqual({ code: '200' });
    expect(room?.share).toEqual({ type: 'screen', user: 'me' });
    sharing.handleMembers(['c', 'me']);
    expect(log).toEqual(['screen', 'to a', 'to b', 'to c']);
  });

  it('with targets sends to them only', async () => {
    await sharing.start(screen(), 'a');
    await sharing.start(screen(), 'b');
    sharing.handleMembers(['c']);
    expect(log).toEqual(['screen a', 'to a', 'screen b', 'to b']);
  });

  it('announces a feed in a group room, and sends it to subscribers only', async () => {
    room!.info.media = true;
    await sharing.start(screen(), undefined);
    sharing.handleMembers(['c']);
    expect(log).toEqual(['screen', 'announce']);
  });

  it('refused by the server changes nothing', async () => {
    code = '440';
    expect(await sharing.start(screen(), undefined)).toEqual({ code: '440' });
    sharing.handleMembers(['c']);
    expect([log, room?.share]).toEqual([['screen'], undefined]);
  });

  it.each([
    ['421', undefined],
    ['422', {}],
    ['422', 'x'],
  ])('returns %s for %o', async (expected, stream) => {
    expect(await sharing.start(stream, undefined)).toMatchObject({
      code: expected,
      message: expect.any(String),
      hint: expect.any(String),
    });
    expect(log).toEqual([]);
  });

  it('does nothing when the room was left meanwhile', async () => {
    const started = sharing.start(screen(), undefined);
    room = null;
    expect((await started).code).toBe('410');
    expect(log).toEqual(['screen']);
  });
});

describe('the end', () => {
  it('by the app: sending stops, and the others are told', async () => {
    await sharing.start(screen(), undefined);
    log = [];
    expect(await sharing.stop()).toEqual({ code: '200' });
    sharing.handleMembers(['c']);
    expect([log, room?.share]).toEqual([['unpublish', 'withdraw', 'shareStop'], undefined]);
  });

  it("by the browser's own button", async () => {
    const stream = screen();
    await sharing.start(stream, undefined);
    log = [];
    stream.end();
    await settled();
    expect(log).toEqual(['unpublish', 'withdraw', 'shareStop']);
    stream.end();
    expect(log).toHaveLength(3);
  });

  it('while the server is being asked', async () => {
    const stream = screen();
    const started = sharing.start(stream, undefined);
    stream.end();
    await started;
    await settled();
    expect(log).toEqual(['screen', 'unpublish', 'withdraw', 'shareStop']);
  });

  it('without an own share does not affect the share of others', async () => {
    room!.share = { type: 'screen', user: 'a' };
    expect(await sharing.stop()).toEqual({ code: '200' });
    expect([log, room?.share]).toEqual([['shareStop'], { type: 'screen', user: 'a' }]);
  });

  it('outside a room sends no request', async () => {
    room = null;
    expect(await sharing.stop()).toEqual({ code: '200' });
    expect(log).toEqual([]);
  });

  it('with the room leaves no listener behind', async () => {
    const stream = screen();
    await sharing.start(stream, undefined);
    sharing.left();
    const [t] = stream.getVideoTracks() as unknown as { listeners: Set<unknown> }[];
    expect(t?.listeners.size).toBe(0);
  });
});

describe('a new session in the room', () => {
  it('asks for its share again', async () => {
    await sharing.start(screen(), undefined);
    room!.share = undefined;
    log = [];
    await sharing.restored();
    expect([log, room?.share]).toEqual([['screen'], { type: 'screen', user: 'me' }]);
  });

  it('stops sending when another user shares', async () => {
    await sharing.start(screen(), undefined);
    log = [];
    code = '440';
    await sharing.restored();
    expect(log).toEqual(['screen', 'unpublish', 'withdraw', 'shareStop']);
  });

  it('that shares nothing sends no request', async () => {
    await sharing.restored();
    expect(log).toEqual([]);
  });
});
