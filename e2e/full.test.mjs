// A server that has all the connections it may have: who is new is told to come again, who was
// there comes back.

import { afterEach, beforeEach, test } from 'node:test';
import assert from 'node:assert/strict';
import { call, flowing, meet, seen } from './lib/call.mjs';
import { Stage } from './lib/stage.mjs';
import { until } from './lib/wait.mjs';
import { RawSocket } from './lib/ws.mjs';

const PLACES = 8; // and two more for those that resume

let stage;
beforeEach(
  async () =>
    (stage = await Stage.up('full', { proxy: true, args: ['--max-connections', `${PLACES}`] })),
);
afterEach(async (t) => {
  await stage?.after(t);
  await stage?.down();
  stage = null;
});

test('a call continues, and its sessions resume, on a server that is full meanwhile', async () => {
  const { a, b } = await meet(stage);
  await call(a, b);
  const before = { a: await seen(a, b), b: await seen(b, a) };
  stage.proxy.cut();
  const { cpCode, authKey } = await stage.server.license();
  const knock = () => RawSocket.open(`ws://${stage.server.host}/signal`);
  // They register, and so would keep their places for ever. The first may find those of the call
  // not free yet.
  const others = [];
  await until(`${PLACES} others are in`, async () => {
    const one = await knock();
    if (one.status !== 101) return false;
    assert.equal((await one.ask({ eventOp: 'register', cpCode, authKey })).code, '200');
    return others.push(one) === PLACES;
  });
  assert.equal((await knock()).status, 503);
  stage.proxy.pass();
  for (const p of [a, b])
    await p.until('answered by the server', async () => (await k.memberList()).code === '200');
  assert.deepEqual({ a: await seen(a, b), b: await seen(b, a) }, before);
  for (const [p, q] of [[a, b], [b, a]]) await flowing(p, q);
  assert.equal((await knock()).status, 503);
  for (const one of others) {
    assert.equal((await one.ask({ eventOp: 'keepAlive' })).code, '200');
    one.destroy();
  }
});
