import { beforeEach, describe, expect, it } from 'vitest';
import { Operations } from '../src/signaling/operations';
import type { Answer, Json } from '../src/signaling/messages';
import { missing } from '../src/errors';

let sent: [string, Json][];
let enabled: string[];
let named: string[];
let answer: Partial<Answer>;
let ops: Operations;

beforeEach(() => {
  sent = [];
  enabled = [];
  named = [];
  answer = { code: '200', message: 'ok' };
  ops = new Operations({
    request: async (eventOp, fields) => {
      if (Object.values(fields).includes('circle')) throw new TypeError('circular');
      sent.push([eventOp, fields]);
      return { eventOp, reqId: '7', code: '200', ...answer };
    },
    named: (name) => named.push(name),
    enable: (kind, on) => enabled.push(`${kind} ${on}`),
  });
});

type Call = [what: string, () => Promise<unknown>, expected: object];

describe('requests to the server', () => {
  it.each<Call>([
    [
      'chat to a room',
      () => ops.chat('hi', 'R', undefined),
      ['chat', { message: 'hi', roomId: 'R' }],
    ],
    ['chat to a user', () => ops.chat(7, null, 'b'), ['chat', { message: '7', target: 'b' }]],
    [
      'chat to both',
      () => ops.chat('hi', 'R', 'b'),
      ['chat', { message: 'hi', roomId: 'R', target: 'b' }],
    ],
    [
      'inform',
      () => ops.inform({ a: [1] }, undefined, undefined),
      ['inform', { message: { a: [1] } }],
    ],
    [
      'inform of something false',
      () => ops.inform(false, 'b', 'R'),
      ['inform', { message: false, target: 'b', roomId: 'R' }],
    ],
    ['kickOut', () => ops.kickOut('b'), ['kickOut', { target: 'b' }]],
    [
      'permit',
      () => ops.permit('b', true, undefined, 'false', null, undefined),
      ['permit', { target: 'b', chat: true, screen: false }],
    ],
    [
      'editRoomInfo',
      () => ops.editRoomInfo('R', 'T', '4', 'b'),
      ['editRoomInfo', { roomId: 'R', title: 'T', capacity: 4, host: 'b' }],
    ],
    [
      'editRoomInfo of the host alone',
      () => ops.editRoomInfo('R', undefined, undefined, 'b'),
      ['editRoomInfo', { roomId: 'R', host: 'b' }],
    ],
    [
      'editUserInfo',
      () => ops.editUserInfo('N', false, true, true, undefined),
      ['editUserInfo', { name: 'N', video: false, audio: true, broadcast: true }],
    ],
    [
      'editUserInfo for one', () => ops.editUserInfo(undefined, 'true', undefined, false, 'b'),
      ['editUserInfo', { video: true, broadcast: false, target: 'b' }],
    ],
    ['changeName', () => ops.changeName('N'), ['changeName', { name: 'N' }]],
    [
      'createGroup',
      () => ops.createGroup(['a', 7], 'T'),
      ['createGroup', { list: ['a', '7'], title: 'T' }],
    ],
    [
      'createGroup of nobody',
      () => ops.createGroup(undefined, undefined),
      ['createGroup', { list: [] }],
    ],
    ['endGroup', () => ops.endGroup('G'), ['endGroup', { groupId: 'G' }]],
    ['destroyRoom', () => ops.destroyRoom('R'), ['destroyRoom', { roomId: 'R' }]],
  ])('%s', async (_, call, expected) => {
    answer = { ...answer, groupId: 'G' };
    expect(await call()).toMatchObject({ code: '200' });
    expect(sent).toEqual([expected]);
  });
});

describe('wrong arguments send no request', () => {
  it.each<[string, string, () => Promise<unknown>]>([
    ['421', 'chat without a message', () => ops.chat('', 'R', undefined)],
    ['421', 'chat to nobody', () => ops.chat('hi', undefined, undefined)],
    ['422', 'chat with an object', () => ops.chat({}, 'R', undefined)],
    ['422', 'chat to an object', () => ops.chat('hi', {}, undefined)],
    ['421', 'inform of nothing', () => ops.inform(undefined, 'b', undefined)],
    ['422', 'inform of a circle', () => ops.inform('circle', undefined, undefined)],
    ['421', 'kickOut of nobody', () => ops.kickOut(undefined)],
    [
      '421',
      'permit without a permission',
      () => ops.permit('b', undefined, undefined, undefined, undefined, undefined),
    ],
    [
      '421',
      'permit for nobody',
      () => ops.permit(undefined, true, undefined, undefined, undefined, undefined),
    ],
    [
      '422',
      'permit with a word',
      () => ops.permit('b', 'perhaps', undefined, undefined, undefined, undefined),
    ],
    [
      '421',
      'editRoomInfo of no room',
      () => ops.editRoomInfo(undefined, 'T', undefined, undefined),
    ],
    ['422', 'editRoomInfo to no capacity', () => ops.editRoomInfo('R', undefined, 0, undefined)],
    [
      '422',
      'editUserInfo with a number for video',
      () => ops.editUserInfo(undefined, 3, undefined, true, undefined),
    ],
    ['421', 'changeName to nothing', () => ops.changeName('')],
    ['422', 'changeName to too much', () => ops.changeName('x'.repeat(257))],
    ['422', 'createGroup of a text', () => ops.createGroup('a', undefined)],
    ['422', 'createGroup of objects', () => ops.createGroup([{}], undefined)],
    ['421', 'endGroup', () => ops.endGroup(undefined)],
    ['421', 'destroyRoom', () => ops.destroyRoom(undefined)],
  ])('%s %s', async (code, _, call) => {
    expect(await call()).toMatchObject({ code, message: expect.stringMatching(/\.$/) });
    expect([sent, enabled]).toEqual([[], []]);
  });
});

it('a chat result is its code, and that does not show in JSON', async () => {
  const result = await ops.chat('hi', 'R', undefined);
  expect([`${result}`, result.code, JSON.stringify(result)]).toEqual([
    '200',
    '200',
    '{"code":"200","message":"ok"}',
  ]);
  expect(`${await ops.chat('', 'R', undefined)}`).toBe('421');
});

it('failures have a message and a hint, groups have no id', async () => {
  answer = { code: '413', message: 'No.', hint: 'Ask.' };
  expect(await ops.kickOut('b')).toEqual({ code: '413', message: 'No.', hint: 'Ask.' });
  expect(await ops.createGroup([], undefined)).toEqual({
    code: '413',
    message: 'No.',
    hint: 'Ask.',
    groupId: '',
  });
});

describe('editUserInfo', () => {
  it('switches the tracks at once, whatever the server answers', async () => {
    answer = { code: '410' };
    const result = ops.editUserInfo(undefined, false, true, true, undefined);
    expect(enabled).toEqual(['video false', 'audio true']);
    expect((await result).code).toBe('410');
    expect([ops.muted('video'), ops.muted('audio')]).toEqual([true, false]);
    sent = [];
    ops.entered();
    expect(sent).toEqual([['editUserInfo', { video: false, audio: true }]]);
  });

  it('is repeated by a new session in the same room; the next room gets what is off', async () => {
    await ops.editUserInfo(undefined, false, undefined, true, undefined);
    await ops.changeName('N');
    sent = [];
    ops.entered();
    expect(sent).toEqual([['editUserInfo', { video: false, name: 'N' }]]);
    expect(named).toEqual(['N']);
    ops.left();
    sent = [];
    ops.entered();
    expect([sent, ops.muted('video')]).toEqual([[['editUserInfo', { video: false }]], true]);
    await ops.editUserInfo(undefined, true, undefined, true, undefined);
    ops.left();
    sent = [];
    ops.entered();
    expect([sent, ops.muted('video')]).toEqual([[], false]);
  });
});

it('a failure made by the SDK is a copy, which the app may change', async () => {
  expect(await ops.kickOut(undefined)).toEqual(missing('target', 'kickOut(target)'));
});
