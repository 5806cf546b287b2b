/// <reference types="vite/client" />
import { describe, expect, it } from 'vitest';
import {
  classify,
  encodeSignal,
  isRoom,
  parse,
  readRegister,
  readSignal,
  spread,
  type Answer,
  type Json,
  type Push,
} from '../src/signaling/messages';
import { Operations } from '../src/signaling/operations';
import { Room } from '../src/signaling/room';

const files = import.meta.glob('../../internal/protocol/testdata/*.json', {
  query: '?raw',
  import: 'default',
  eager: true,
}) as Record<string, string>;
const golden = Object.entries(files).map(
  ([path, text]) => [path.split('/').pop()!.replace('.json', ''), text] as const,
);
const text = (name: string): string => golden.find(([n]) => n === name)![1];
const json = (name: string): Json => JSON.parse(text(name));
/** The form in which a message of another client arrives. */
const relayed = (name: string) => parse(text(name));

describe('golden messages', () => {
  it('are there', () => expect(golden.length).toBeGreaterThanOrEqual(69));

  it.each(golden.filter(([n]) => n.endsWith('.answer')))('%s is an answer', (_, frame) => {
    expect(parse(frame)).toMatchObject({
      kind: 'answer',
      message: { code: expect.stringMatching(/^\d{3}$/), reqId: expect.anything() },
    });
  });

  it.each(golden.filter(([n]) => n.startsWith('presence.')))('%s is a push', (_, frame) => {
    expect(parse(frame)).toMatchObject({ kind: 'push', message: { type: expect.any(String) } });
  });

  it('a roster is split into its events', () => {
    const events = spread(parse(text('roster'))!);
    expect(events).toMatchObject(
      [3, 4].map((seq) => ({ kind: 'push', message: { type: 'leave', seq } })),
    );
    expect(spread(parse(text('presence.join'))!)).toHaveLength(1);
    expect(spread(classify({ eventOp: 'presence', type: 'roster', events: 'none' }))).toHaveLength(
      1,
    );
    expect(
      spread(classify({ eventOp: 'presence', type: 'roster', events: [null, 1, []] })),
    ).toEqual([]);
  });

  it.each(golden.filter(([n]) => n.startsWith('presence.') && n !== 'presence.leave'))(
    '%s reaches the app whole',
    (_, frame) => {
      const push = JSON.parse(frame) as Push;
      const event = new Room({ ...(json('joinRoom.answer') as unknown as Room['info']), seq: 1 })
        .apply(push)
        .at(-1);
      expect(event).toEqual({ roomId: '', user: '', sender: '', ...push });
      // What the types declare for every event.
      expect(event).toMatchObject({
        eventOp: 'presence',
        roomId: expect.any(String),
        sender: expect.any(String),
      });
    },
  );

  it.each([
    'sdp.relayed',
    'sdp.request',
    'candidate.request',
    'candidates.request',
    'publish.request',
    'unpublish.request',
  ])('%s is a signal, and keeps all its fields through our types', (name) => {
    const incoming = relayed(name);
    expect(incoming?.kind).toBe('signal');
    if (incoming?.kind !== 'signal') return;
    expect(incoming.from).toBe('guest-2');
    const { userId, reqId, ...sent } = json(name);
    const back = encodeSignal(incoming.signal, 'kpoint123', name !== 'candidate.request');
    expect(back).toHaveLength(1);
    // Our client adds fields (n, rev, gen); the fields of the golden message are unchanged.
    expect(back[0]).toMatchObject(sent);
  });

  it('subscribe is recognised', () => {
    expect(relayed('subscribe.relayed')).toMatchObject({
      kind: 'subscribe',
      from: 'kpoint123',
      type: 'cam',
    });
    expect(classify({ ...json('subscribe.relayed'), type: 'file' }).kind).toBe('other');
  });

  it.each<[string, (k: Operations) => Promise<unknown>]>([
    ['destroyRoom', (k) => k.destroyRoom('K4325403300AB')],
    ['kickOut', (k) => k.kickOut('guest-2')],
    ['permit', (k) => k.permit('guest-2', false, undefined, true, undefined, undefined)],
    ['editRoomInfo', (k) => k.editRoomInfo('K4325403300AB', 'Monthly', 12, 'guest-2')],
    ['editUserInfo', (k) => k.editUserInfo('Lee', false, true, true, undefined)],
    ['changeName', (k) => k.changeName('Lee')],
    ['chat', (k) => k.chat('안녕하세요', 'K4325403300AB', undefined)],
    ['inform', (k) => k.inform({ page: 3, seen: [true, null] }, 'kpoint123', undefined)],
    ['createGroup', (k) => k.createGroup(['guest-2'], 'Team')],
    ['endGroup', (k) => k.endGroup('G4325403300AB')],
  ])('%s is what we send', async (name, call) => {
    const sent: Json[] = [];
    await call(new Operations({
      request: async (eventOp, fields) => {
        sent.push({ eventOp, ...fields });
        return { eventOp, code: '200' };
      },
      named: () => undefined,
      enable: () => undefined,
    }));
    const { reqId, userId, ...asked } = json(`${name}.request`);
    expect(sent).toEqual([asked]);
  });

  it('register and joinRoom hold what the session needs', () => {
    const first = readRegister(json('register.answer') as Answer);
    expect(first).toMatchObject({
      userId: 'kpoint123',
      resumed: false,
      iceServers: [{}, { username: expect.stringMatching(/^\d+:/) }],
    });
    expect(first?.room).toBeUndefined();
    expect(readRegister(json('register.resume.answer') as Answer)).toMatchObject({
      resumed: true,
      room: { roomId: 'K4325403300AB', seq: 2 },
    });
    expect(readRegister(json('register.error.answer') as Answer)).toBeNull();
    expect(isRoom(json('joinRoom.answer'))).toBe(true);
    expect(new Room(json('joinRoom.share.answer') as unknown as Room['info']).share).toEqual({
      type: 'screen',
      user: 'kpoint123',
    });
    expect(isRoom(json('joinRoom.error.answer'))).toBe(false);
  });
});

describe('malformed messages', () => {
  it.each([
    ['nothing', ''],
    ['no JSON', '{'],
    ['an array', '[]'],
    ['a number', '1'],
    ['null', 'null'],
    ['binary', new ArrayBuffer(2)],
  ])('%s is dropped', (_, frame) => {
    expect(parse(frame)).toBeNull();
  });

  const sdp = json('sdp.relayed');
  const join = json('presence.join');
  it.each<[string, Json]>([
    ['an sdp without a description', { ...sdp, sdp: undefined }],
    ['an sdp of another type', { ...sdp, sdp: { type: 'rollback', sdp: '' } }],
    ['an sdp without a sender', { ...sdp, userId: 7 }],
    ['a candidate that is text', { ...json('candidate.request'), candidate: 'x' }],
    ['candidates with a hole', { ...json('candidates.request'), candidates: [null] }],
    ['a publication of another type', { ...json('publish.request'), type: 'file' }],
    ['a publication with a broken epoch', { ...json('publish.request'), epoch: 1.5 }],
    ['a join without seq', { ...join, seq: undefined }],
    ['presence with a broken seq', { ...json('presence.chat'), seq: '7' }],
    ['a join whose user is an id', { ...join, user: 'guest-2' }],
    ['a leave whose user is a member', { ...json('presence.leave'), user: join.user }],
    ['an unknown operation', { eventOp: 'constructor', userId: 'x' }],
    ['a sender called __proto__', { ...sdp, userId: '__proto__' }],
  ])('%s reaches only listeners of the wire', (_, message) => {
    expect(classify(message).kind).toBe('other');
  });

  it('accepts booleans as text, as the wire allows', () => {
    expect(
      readSignal({ eventOp: 'publish', type: 'cam', epoch: 3, audio: 'true', video: 'false' }),
    ).toMatchObject({ audio: true, video: false });
  });
});

it('sends candidates one by one to a client without the feature', () => {
  const signal = {
    eventOp: 'candidate' as const,
    gen: 4,
    candidates: [{ candidate: 'a' }, { candidate: 'b' }],
  };
  expect(encodeSignal(signal, 'x', false)).toEqual([
    {
      eventOp: 'candidate',
      target: 'x',
      type: 'cam',
      cam: true,
      gen: 4,
      link: 'main',
      candidate: { candidate: 'a' },
    },
    {
      eventOp: 'candidate',
      target: 'x',
      type: 'cam',
      cam: true,
      gen: 4,
      link: 'main',
      candidate: { candidate: 'b' },
    },
  ]);
  expect(encodeSignal(signal, 'x', true)).toHaveLength(1);
});
