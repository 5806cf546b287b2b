// What members and hosts may do, through the SDK and a real server: codes, events, and nothing
// changed where it is refused.

import { after, afterEach, before, test } from 'node:test';
import assert from 'node:assert/strict';
import { call } from './lib/call.mjs';
import { events, gather } from './lib/media.mjs';
import { Stage } from './lib/stage.mjs';

let stage;
before(async () => (stage = await Stage.up('room')));
afterEach((t) => stage.after(t));
after(() => stage?.down());

const close = (pages) => Promise.all(pages.map((p) => p.close()));
/** Calls a method and resolves with its code. */
const code = (p, method, ...args) =>
  p.evaluate((x) => k[x.method](...x.args).then((r) => r.code), { method, args });
const seen = (p, what, n = 1) =>
  p.until(`seeing ${what}`, (x) => app.events.filter((e) => e.type === x.what).length === x.n, {
    what,
    n,
  });

test('chat and inform go to the room or to one member; a chat result is its code', async () => {
  const { pages: [a, b, c], roomId } = await gather(stage, ['say-a', 'say-b', 'say-c']);
  assert.deepEqual(await a.evaluate(async (r) => {
    const result = await k.chat('안녕', r);
    return [result.code, `${result}`, result == '200'];
  }, roomId), ['200', '200', true]);
  assert.equal(await code(a, 'chat', 'only you', null, b.id), '200');
  assert.equal(await code(a, 'chat', 'nobody', null, 'nobody'), '200');
  assert.equal(await code(a, 'chat', 'nowhere', 'NOROOM'), '441');
  assert.equal(await code(a, 'chat', 'lost'), '421');
  assert.equal(await code(a, 'inform', { deep: [1, null] }), '200');
  assert.equal(await code(a, 'inform', false, c.id), '200');
  assert.equal(await code(a, 'chat', '가'.repeat(30_000), roomId), '445');
  await seen(b, 'inform');
  await seen(c, 'inform', 2);
  const brief = (p) =>
    p.evaluate(() => {
      const said = app.events.filter((e) => ['chat', 'inform'].includes(e.type));
      return said.map((e) => [e.user, e.message, 'seq' in e]);
    });
  assert.deepEqual(await brief(b), [
    [a.id, '안녕', true],
    [a.id, 'only you', false],
    [a.id, { deep: [1, null] }, true],
  ]);
  assert.deepEqual(await brief(c), [
    [a.id, '안녕', true],
    [a.id, { deep: [1, null] }, true],
    [a.id, false, false],
  ]);
  assert.deepEqual(await brief(a), []);
  await close([a, b, c]);
});

test('host-only operations are refused to guests, and a refusal changes nothing', async () => {
  const {
    pages: [host, guest],
    roomId,
  } = await gather(stage, ['host', 'guest']);
  for (const args of [
    ['kickOut', host.id],
    ['permit', host.id, false],
    ['editRoomInfo', roomId, 'Mine'],
    ['destroyRoom', roomId],
  ]) {
    assert.equal(await code(guest, ...args), '413', args[0]);
  }
  assert.equal(await code(host, 'kickOut', 'nobody'), '410');
  assert.equal(await code(host, 'destroyRoom', 'NOROOM'), '441');
  assert.equal(await code(host, 'editRoomInfo', roomId, 'Title', 1), '422');
  assert.deepEqual(
    await host.evaluate(() => app.events.filter((e) => !['join', 'peerState'].includes(e.type))),
    [],
  );

  assert.equal(await code(host, 'permit', guest.id, false), '200');
  await seen(guest, 'permit');
  assert.equal((await events(guest, 'permit'))[0].permit.chat, false);
  assert.equal(await code(guest, 'chat', 'hi', roomId), '413');

  assert.equal(await code(host, 'editRoomInfo', roomId, 'Title', 5, guest.id), '200');
  await seen(guest, 'hostChange');
  const [edit] = await events(guest, 'editRoomInfo');
  assert.deepEqual([edit.title, edit.capacity, edit.host], ['Title', 5, guest.id]);
  assert.equal(await code(host, 'kickOut', guest.id), '413');

  const { code: made, groupId } = await guest.evaluate((id) => k.createGroup([id], 'G'), host.id);
  assert.equal(made, '200');
  await seen(host, 'createGroup');
  assert.equal((await events(host, 'createGroup'))[0].groupId, groupId);
  assert.equal(await code(host, 'endGroup', groupId), '413');
  assert.equal(await code(guest, 'endGroup', groupId), '200');
  assert.equal(await code(guest, 'endGroup', groupId), '403');

  assert.equal(await code(guest, 'changeName', 'New'), '200');
  await seen(host, 'editUserInfo');
  assert.equal((await host.evaluate(() => k.memberList()))[guest.id].name, 'New');
  assert.equal(await guest.evaluate(() => k.getName()), 'New');
  await close([host, guest]);
});

test('editUserInfo mutes at once, and is reported to the others', async () => {
  const { pages: [a, b] } = await gather(stage, ['mute-a', 'mute-b']);
  await call(a, b);
  const [before, after, result] = await a.evaluate(async () => {
    const enabled = () => app.stream.getTracks().map((t) => `${t.kind} ${t.enabled}`).sort();
    const asked = k.editUserInfo(undefined, false, false);
    const at = enabled();
    await k.editUserInfo(undefined, undefined, true);
    return [at, enabled(), (await asked).code];
  });
  assert.deepEqual(
    [before, after, result],
    [['audio false', 'video false'], ['audio true', 'video false'], '200'],
  );
  await seen(b, 'editUserInfo', 2);
  assert.deepEqual(
    (await events(b, 'editUserInfo')).map((e) => [e.user, e.video, e.audio]),
    [
      [a.id, false, false],
      [a.id, false, true],
    ],
  );
  await close([a, b]);
});

test('a kicked guest who does not leave is removed, with all connections', async () => {
  const {
    pages: [host, guest, third],
    roomId,
  } = await gather(stage, ['kick-host', 'kick-guest', 'kick-third']);
  await call(host, guest);
  assert.equal(await code(host, 'kickOut', guest.id), '200');
  await seen(guest, 'kickOut');
  assert.deepEqual(
    (await events(guest, 'kickOut')).map((e) => [e.user, e.sender, e.roomId]),
    [[guest.id, host.id, roomId]],
  );
  await guest.until('put out', (id) => app.count('leave', id) === 1, guest.id);
  assert.deepEqual(
    await guest.evaluate(() => [k.getRoomId(), k.getAllStreams(), e2e.open().length]),
    ['', {}, 0],
  );
  for (const p of [host, third])
    await p.until('told', (id) => app.count('leave', id) === 1, guest.id);
  assert.equal(await code(guest, 'leaveRoom'), '410');
  assert.deepEqual(await events(third, 'kickOut'), []);
  // For ten minutes he may not come again.
  assert.equal(await guest.evaluate((r) => k.joinRoom(r).then((x) => x.code), roomId), '413');
  await close([host, guest, third]);
});

test('a destroyed room ends for all members', async () => {
  const { pages: [host, guest], roomId } = await gather(stage, ['end-host', 'end-guest']);
  await call(host, guest);
  assert.equal(await code(host, 'destroyRoom', roomId), '200');
  for (const p of [host, guest]) {
    await seen(p, 'destroy');
    const order = await p.evaluate(() =>
      app.events
        .filter((e) => ['leave', 'destroy'].includes(e.type))
        .map((e) => (e.type === 'leave' ? e.user : e.type)),
    );
    assert.deepEqual([...order.slice(0, 2).sort(), order[2]], ['end-guest', 'end-host', 'destroy']);
    assert.deepEqual(await p.evaluate(() => [k.getRoomId(), e2e.open().length]), ['', 0]);
  }
  assert.equal(await guest.evaluate((r) => k.joinRoom(r).then((x) => x.code), roomId), '441');
  await close([host, guest]);
});
