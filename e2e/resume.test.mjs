// The server, or the way to it, goes away and comes back. Direct calls go on meanwhile; who comes back in time is never seen as gone.

import { afterEach, beforeEach, test } from 'node:test';
import assert from 'node:assert/strict';
import { call, flowing, meet, seen, together } from './lib/call.mjs';
import { Server } from './lib/server.mjs';
import { Stage } from './lib/stage.mjs';

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
    assert.deepEqual(Object.keys(await p.evaluate(() => k.memberList())).sort(), [a.id, b.id].sort());
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

test('the sockets are reset and refused for a while: the call goes on without the server, then as if nothing had been', async () => {
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

test('the network vanishes without a word: the SDK finds out by itself', async () => {
  const { a, b } = await meet(stage);
  await call(a, b);
  const before = { a: await seen(a, b), b: await seen(b, a) };
  stage.proxy.hold();
  await answered(a, b);
  await unchanged(a, b, before);
  await goesOn(a, b);
});

test('a message sent while the other is away reaches it after its return', async () => {
  const { a, b } = await meet(stage);
  stage.proxy.cut();
  const sent = a.evaluate((id) => app.publish(id), b.id);
  stage.proxy.pass();
  assert.equal(await sent, true);
  await b.until('subscribed', (id) => app.count('subscribed', id) === 1, a.id);
  await flowing(b, a);
});

test('the server is killed and started again: nobody sees leave or join, the call goes on without it and after it', async () => {
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
