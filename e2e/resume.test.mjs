// The server, or the way to it, goes away and comes back. Direct calls go on meanwhile; who comes
// back in time is never seen as gone.

import { afterEach, beforeEach, test } from 'node:test';
import assert from 'node:assert/strict';
import { call, flowing, meet, seen, together } from './lib/call.mjs';
import { Server } from './lib/server.mjs';
import { Stage } from './lib/stage.mjs';
import { RawSocket } from './lib/ws.mjs';

let stage;
beforeEach(async () => (stage = await Stage.up('resume', { proxy: true, keepData: true })));
afterEach(async (t) => {
  await stage?.after(t);
  await stage?.down();
  stage = null;
});

/** Both pages can ask the server again. */
async function answered(...pages) {
  for (const p of pages) {
    await p.until('answered by the server', async () => (await k.memberList()).code === '200');
  }
}

async function unchanged(a, b, before) {
  assert.deepEqual({ a: await seen(a, b), b: await seen(b, a) }, before);
  for (const p of [a, b]) {
    assert.equal(await p.evaluate(() => k.getUserId()), p.id);
    assert.deepEqual(
      Object.keys(await p.evaluate(() => k.memberList())).sort(),
      [a.id, b.id].sort(),
    );
    assert.deepEqual(p.errors, []);
  }
}

/** The room works as before: one leaves, the other is told; it comes back and they call again. */
async function goesOn(a, b) {
  assert.equal((await b.evaluate(() => k.leaveRoom())).code, '200');
  await a.until('told that the other left', (id) => app.count('leave', id) === 1, b.id);
  assert.equal((await a.evaluate(() => k.leaveRoom())).code, '200');
  await together(a, b, (await a.evaluate(() => k.createRoom())).roomId);
  await call(a, b);
}

test('the sockets are reset for a while: call and sessions continue', async () => {
  const { a, b } = await meet(stage);
  await call(a, b);
  const before = { a: await seen(a, b), b: await seen(b, a) };
  stage.proxy.cut();
  for (const [p, q] of [[a, b], [b, a]]) await flowing(p, q, 30);
  stage.proxy.pass();
  await answered(a, b);
  await unchanged(a, b, before);
  await goesOn(a, b);
});

test('the network goes silent: the SDK notices by itself', async () => {
  const { a, b } = await meet(stage);
  await call(a, b);
  const before = { a: await seen(a, b), b: await seen(b, a) };
  stage.proxy.hold();
  await answered(a, b);
  await unchanged(a, b, before);
  await goesOn(a, b);
});

test('a message to a disconnected user arrives when the session resumes', async () => {
  const { a, b } = await meet(stage);
  stage.proxy.cut();
  const sent = a.evaluate((id) => app.publish(id), b.id);
  stage.proxy.pass();
  assert.equal(await sent, true);
  await b.until('subscribed', (id) => app.count('subscribed', id) === 1, a.id);
  await flowing(b, a);
});

test('room messages of an outage arrive once, in order, after the room state', async () => {
  // The writer reaches the server past the proxy: it alone stays.
  const { cpCode, authKey } = await stage.server.license();
  const writer = await RawSocket.open(`ws://${stage.server.host}/signal`);
  const ask = async (message) => assert.equal((await writer.ask(message)).code, '200');
  await ask({ eventOp: 'register', cpCode, authKey, userId: 'writer' });
  await ask({ eventOp: 'createRoom', roomId: 'R', title: 'Weekly' });
  await ask({ eventOp: 'joinRoom', roomId: 'R' });
  const reader = await stage.open('app.html', { name: 'reader' });
  await reader.evaluate(() => app.init('reader'));
  await reader.evaluate(() => app.join('R'));
  const say = (message) => ask({ eventOp: 'chat', roomId: 'R', message });
  const heard = (n) =>
    reader.until(`hearing ${n} messages`, (x) => app.count('chat', 'writer') >= x, n);
  await say('before');
  await heard(1);

  stage.proxy.hold(); // the server sends into a connection that nobody reads any more
  await say('one');
  await ask({ eventOp: 'editRoomInfo', roomId: 'R', title: 'Monthly', capacity: 5 });
  await say('two');
  await heard(3);
  stage.proxy.cut(); // the server knows that the reader is away
  await say('three');
  await ask({ eventOp: 'permit', target: 'reader', chat: false });
  await say('four');
  stage.proxy.pass();
  await heard(5);
  await say('after');
  await heard(6);

  const told = await reader.evaluate(() =>
    app.events.filter((e) => ['chat', 'editRoomInfo', 'permit'].includes(e.type)),
  );
  assert.deepEqual(
    told.filter((e) => e.type === 'chat').map((e) => e.message),
    ['before', 'one', 'two', 'three', 'four', 'after'],
  );
  assert.deepEqual(
    told.filter((e) => e.type === 'editRoomInfo').map((e) => [e.user, e.title, e.capacity]),
    [['writer', 'Monthly', 5]],
  );
  assert.deepEqual(
    told.filter((e) => e.type === 'permit').map((e) => [e.user, e.permit.chat]),
    [['reader', false]],
  );
  assert.equal((await reader.evaluate(() => k.chat('not me', 'R'))).code, '413');
  assert.deepEqual(reader.errors, []);
  writer.destroy();
});

test('the server restarts: the call continues, without leave or join events', async () => {
  const { a, b, roomId } = await meet(stage);
  await call(a, b);
  const before = { a: await seen(a, b), b: await seen(b, a) };
  await stage.server.kill();
  for (const [p, q] of [[a, b], [b, a]]) await flowing(p, q, 30);
  stage.server = await Server.start({ dir: stage.dir, data: stage.data, name: 'ieum-again' });
  stage.proxy.target = stage.server.host;
  await answered(a, b);
  await unchanged(a, b, before);
  for (const p of [a, b]) assert.equal(await p.evaluate(() => k.getRoomId()), roomId);
  await goesOn(a, b);
});
