// The network matrix: each browser in a home of its own, behind a NAT of its own, the server on the internet between them. A call is
// direct wherever it can be and relayed, on one side, where it cannot.

import { test } from 'node:test';
import assert from 'node:assert/strict';
import { flowing } from './lib/call.mjs';
import { direct, inCall, session, settled } from './lib/homes.mjs';
import { labMissing } from './lib/lab.mjs';
import { until } from './lib/wait.mjs';

const missing = labMissing();
if (missing) console.log(`SKIPPED: the network matrix, ${missing}`);

const ROWS = [
  { a: 'cone', b: 'cone', want: direct('srflx', 'prflx') },
  { a: 'full', b: 'sym', want: direct('srflx', 'prflx') },
  { a: 'cone', b: 'same', want: direct('host', 'prflx') },
  { a: 'v6', b: 'v6', want: direct('host', 'prflx') },
  { a: 'cone', b: 'sym', want: { relayed: 1 } },
  { a: 'sym', b: 'sym', want: { relayed: 1 } },
  { a: 'udpblock', b: 'cone', want: { relayed: 1, tcp: true } },
  { a: 'udpblock', b: 'udpblock', want: { relayed: 2, tcp: true } },
  { a: 'only443', b: 'cone', tls: true, want: { relayed: 1, tls: true } },
  { a: 'cone', b: 'only443', tls: true, firefox: true, want: { relayed: 1, tls: true } },
  { a: 'cone', b: 'cone', firefox: true, want: direct('srflx', 'prflx') },
];

for (const row of ROWS) {
  const way = ['direct', 'relayed on one side', 'relayed on both sides'][row.want.relayed];
  const name = `${row.a} – ${row.b}${row.firefox ? ' (Firefox)' : ''} is ${way}${row.want.tcp ? ', over TCP' : ''}${row.want.tls ? ', over TLS' : ''}`;
  test(name, { skip: missing ?? false }, () =>
    inCall(row, async ({ server, p, q }) => {
      await settled(p, q, row.want);
      // Firefox has hidden its addresses: a second after the first picture they are gathered anew, and the way in use may count from 0.
      if (row.firefox) await Promise.all([flowing(p, q, 60), flowing(q, p, 60)]);
      await measured(server(), p, q, row);
      await settled(p, q, row.want);
    }));
}

for (const { b, want, restarts } of [
  // Behind one NAT the hidden names are enough to find each other.
  { b: 'same', want: direct('host', 'prflx'), restarts: false },
  { b: 'cone', want: direct('srflx', 'prflx'), restarts: true },
]) {
  test(`cone – ${b}, joined before the camera was allowed, is direct, ${restarts ? 'with a look at the addresses that were hidden' : 'at once'}`,
    { skip: missing ?? false }, () => inCall({ a: 'cone', b, ask: true }, async ({ p, q, before }) => {
      await settled(p, q, want);
      const restarted = async () => (await Promise.all([p, q].map(session))).map((now, i) => now !== before[i]);
      // A second after media is sent it is looked whether there may be a better way.
      if (restarts) await until('a restart of ICE', async () => (await restarted()).every(Boolean));
      await Promise.all([flowing(p, q, 60), flowing(q, p, 60)]);
      assert.deepEqual(await restarted(), [restarts, restarts], 'a restart of ICE');
      await settled(p, q, want);
      for (const x of [p, q]) assert.equal(await x.evaluate(() => e2e.made.length), 1);
    }));
}

/** What the relay itself has counted, against what the browsers have sent and received meanwhile, over whichever of their connections. */
async function measured(server, p, q, { want, firefox }) {
  const counted = async () => {
    const { ClientToPeer, PeerToClient } = JSON.parse(await server.get('/dev/stats')).relay;
    const ends = await Promise.all([p, q].map((page) => page.evaluate(async () => {
      const reports = (pcs) => Promise.all(pcs.filter((pc) => pc.connectionState !== 'closed').map(e2e.report));
      const sum = (list, of) => list.reduce((n, r) => n + of(r), 0);
      const [first, spare] = [await reports(e2e.made), await reports(e2e.spare)];
      return {
        sent: sum(first, (r) => r.pairBytes?.sent ?? 0),
        spare: sum(spare, (r) => r.pairBytes?.sent ?? 0),
        received: sum([...first, ...spare], (r) => r.video.receivedBytes + r.audio.receivedBytes),
      };
    })));
    const [x, y] = ends.map((end) => end.received);
    const both = (key) => ends[0][key] + ends[1][key];
    return { up: ClientToPeer.Bytes, down: PeerToClient.Bytes, x, y, sent: both('sent'), spare: both('spare') };
  };
  const before = await counted();
  await Promise.all([flowing(p, q, 40), flowing(q, p, 40)]);
  const after = await counted();
  const d = Object.fromEntries(Object.keys(before).map((key) => [key, after[key] - before[key]]));
  const text = JSON.stringify(d);
  if (want.relayed) {
    // Between two relayed ends, as the second connection always has them, a packet goes up by one allocation and down by the other, inside
    // the relay; else one allocation carries both directions. Browsers do not count what ICE itself sends, and something is on its way
    // at either reading.
    const twice = want.relayed === 2;
    const sent = d.sent + (twice ? 1 : 2) * d.spare;
    // Firefox says a tenth too much of what its pairs sent.
    for (const bytes of twice ? [d.up, d.down] : [d.up + d.down]) {
      assert.ok(bytes > (firefox ? 0.8 : 0.95) * sent && bytes < 1.15 * sent, text);
    }
    assert.ok(Math.min(d.up, d.down) > 0.9 * Math.min(d.x, d.y), text);
  } else {
    assert.ok(d.up + d.down < 0.1 * (d.x + d.y), `the relay carried media: ${text}`);
  }
}
