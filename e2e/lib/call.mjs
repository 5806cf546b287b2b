// Calls between pages of app.html, step by step, and what must be true of them.

import assert from 'node:assert/strict';

/**
 * Opens two pages that know each other by chosen ids and sit in one room; resolves with {a, b,
 * roomId}, pages with an id each.
 */
export async function meet(stage, ids = ['alice', 'bob']) {
  const [a, b] = await Promise.all(ids.map((name) => stage.open('app.html', { name })));
  for (const [p, id] of [[a, ids[0]], [b, ids[1]]]) {
    p.id = await p.evaluate((wish) => app.init(wish), id);
    assert.equal(p.id, id);
  }
  const { roomId } = await a.evaluate(() => k.createRoom());
  await together(a, b, roomId);
  return { a, b, roomId };
}

/** Both join; the first one has seen the second when this resolves. */
export async function together(a, b, roomId) {
  const before = await a.evaluate((id) => app.count('join', id), b.id);
  await a.evaluate((r) => app.join(r), roomId);
  assert.deepEqual(await b.evaluate((r) => app.join(r), roomId), [a.id, b.id]);
  await a.until(`seeing ${b.id} join`, (x) => app.count('join', x.id) > x.before, {
    id: b.id,
    before,
  });
}

/** One publishes to the other; resolves when the other has seen so and decodes. */
export async function send(from, to, type = 'cam') {
  const before = await to.evaluate((id) => app.count('subscribed', id), from.id);
  assert.equal(
    await from.evaluate((x) => app.publish(x.to, x.type), { to: to.id, type }),
    true,
    `${from.id} publishes to ${to.id}`,
  );
  await to.until(
    `seeing subscribed from ${from.id}`,
    (x) => app.count('subscribed', x.id) > x.before,
    { id: from.id, before },
  );
  await flowing(to, from);
}

/** Video both ways, published one after the other. */
export async function call(a, b) {
  await send(a, b);
  await send(b, a);
}

/** Resolves when p has decoded `more` frames of q's video from now on. */
export async function flowing(p, q, more = 10) {
  const now = (await p.evaluate((id) => app.report(id), q.id)).video.decoded;
  const enough = async (x) => (await app.report(x.id))?.video.decoded >= x.now + x.more;
  await p.until(`decoding ${q.id}'s video`, enough, { id: q.id, now, more });
}

/** What one has seen of another: for comparing that nothing has changed. */
export function seen(p, q) {
  return p.evaluate(
    (id) => ({
      join: app.count('join', id),
      leave: app.count('leave', id),
      subscribed: app.count('subscribed', id),
      made: e2e.made.length,
      open: e2e.open().length,
    }),
    q.id,
  );
}
