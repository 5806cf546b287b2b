// Two users who publish to each other at the same instant, the normal case: one connection, video
// both ways, one `subscribed` each.

import { after, afterEach, before, test } from 'node:test';
import assert from 'node:assert/strict';
import { Stage } from './lib/stage.mjs';
import { SOAK } from './lib/work.mjs';

const ROUNDS = SOAK ? 2000 : 100;

let stage;
// the same users join, and call each other, far more often than people do
before(
  async () =>
    (stage = await Stage.up('glare', {
      args: ['--max-joins=-1', '--session-rate', '300', '--session-burst', '3000'],
    })),
);
afterEach((t) => stage.after(t));
after(() => stage?.down());

test(`two users publish at the same instant: one connection, ${ROUNDS} times`, async () => {
  const pages = await Promise.all(
    ['first', 'second'].map((name) => stage.open('app.html', { name })),
  );
  const [a, b] = pages;
  const ids = await Promise.all(pages.map((p) => p.evaluate(() => app.init())));
  await Promise.all(pages.map((p) => p.evaluate(async () => void (await app.camera()))));
  // Both pages are in one process group with one clock: an instant they agree on is the same one to
  // a fraction of a millisecond. Every second round one of them is late by up to 15 ms, so that
  // every way in which messages can cross comes up.
  const publish = (p, other, at) =>
    p.evaluate(async (x) => {
      const stream = await app.camera();
      await new Promise((go) => setTimeout(go, Math.max(0, x.at - Date.now() - 5)));
      while (performance.timeOrigin + performance.now() < x.at);
      return k.publishP2P(x.other, 'cam', stream);
    }, { other, at });

  for (let round = 0; round < ROUNDS; round++) {
    const where = `round ${round}`;
    const { roomId } = await a.evaluate(() => k.createRoom());
    await Promise.all(
      pages.map((p) =>
        p.evaluate((r) => ((app.events.length = 0), (e2e.made.length = 0), app.join(r)), roomId),
      ),
    );
    await a.until(
      'two in the room',
      (id) => app.count('join', id) === 1 || k.memberList().then((m) => id in m),
      ids[1],
    );

    const at = Date.now() + 40;
    const late = round % 2 ? ((round * 7) % 31) - 15 : 0;
    const sent = await Promise.all([
      publish(a, ids[1], at + Math.max(0, late)),
      publish(b, ids[0], at + Math.max(0, -late)),
    ]);
    assert.deepEqual(sent, [true, true], where);

    for (const [p, other] of [
      [a, ids[1]],
      [b, ids[0]],
    ]) {
      await p.until(
        `decoding in ${where}`,
        async (id) => (await app.report(id))?.video.decoded >= 3,
        other,
      );
      const seen = await p.evaluate(
        (id) => ({
          subscribed: app.count('subscribed', id),
          open: e2e.open().length,
          made: e2e.made.length,
        }),
        other,
      );
      assert.deepEqual(seen, { subscribed: 1, open: 1, made: 1 }, `${p.name}, ${where}`);
    }
    await Promise.all(pages.map((p) => p.evaluate(() => k.leaveRoom())));
    for (const [p, other] of [
      [a, ids[1]],
      [b, ids[0]],
    ]) {
      assert.equal(
        await p.evaluate((id) => app.count('subscribed', id), other),
        1,
        `${p.name}, after ${where}`,
      );
      await p.until(`without a connection after ${where}`, () => e2e.open().length === 0);
    }
  }
  assert.deepEqual(pages.map((p) => p.errors), [[], []]);
});
