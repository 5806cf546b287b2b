// The network matrix: each browser behind a NAT of its own, and the server between them. A call is
// direct wherever it can be, and relayed on one side where it cannot.

import { describe, test } from 'node:test';
import assert from 'node:assert/strict';
import { flowing } from './lib/call.mjs';
import { LANES, direct, inCall, session, settled } from './lib/homes.mjs';
import { labMissing } from './lib/lab.mjs';
import { LIMIT, until } from './lib/wait.mjs';

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

// Rows whose browsers have not shown their addresses when the connection is made. Behind one NAT
// the mDNS names of the addresses are enough.
const ASKED = [
  { b: 'same', want: direct('host', 'prflx'), restarts: false },
  { b: 'cone', want: direct('srflx', 'prflx'), restarts: true },
];

const both = (p, q, more) => Promise.all([flowing(p, q, more), flowing(q, p, more)]);

describe('the network matrix', { concurrency: LANES }, () => {
  for (const row of ROWS) {
    const { a, b, firefox, want } = row;
    const path = ['direct', 'relayed on one side', 'relayed on both sides'][want.relayed];
    const over = `${want.tcp ? ', over TCP' : ''}${want.tls ? ', over TLS' : ''}`;
    const name = `${a} – ${b}${firefox ? ' (Firefox)' : ''} is ${path}${over}`;
    test(name, { skip: missing ?? false }, () => inCall(row, async (call) => {
      const { p, q } = call;
      await settled(p, q, want);
      // Firefox has hidden its addresses: a second after the first frame it gathers candidates
      // again, and the selected pair may count from 0.
      if (firefox) await both(p, q, 60);
      await (want.relayed ? littleElseIsRelayed : mediaIsNotRelayed)(call);
      await settled(p, q, want);
      if (want.relayed) await everythingWasRelayed(call, row);
    }));
  }

  for (const { b, want, restarts } of ASKED) {
    const ice = restarts ? 'after an ICE restart' : 'without an ICE restart';
    test(`cone – ${b}, joined before the camera was allowed, is direct ${ice}`,
      { skip: missing ?? false },
      () => inCall({ a: 'cone', b, ask: true }, async ({ p, q, before }) => {
        await settled(p, q, want);
        const sessions = () => Promise.all([p, q].map(session));
        const restarted = async () => (await sessions()).map((now, i) => now !== before[i]);
        // A second after media is sent, the SDK looks for a better path.
        if (restarts) {
          await until('an ICE restart', async () => (await restarted()).every(Boolean));
        }
        await both(p, q, 60);
        assert.deepEqual(await restarted(), [restarts, restarts], 'an ICE restart');
        await settled(p, q, want);
        for (const x of [p, q]) assert.equal(await x.evaluate(() => e2e.made.length), 1);
      }));
  }
});

/** Payload bytes that the relay has counted: up from a client, down to one. */
async function relayed({ server }) {
  const { ClientToPeer, PeerToClient } = JSON.parse(await server().get('/dev/stats')).relay;
  return { up: ClientToPeer.Bytes, down: PeerToClient.Bytes };
}

/**
 * What the browsers report: bytes sent through the relay, up and down, by candidate pair; and the
 * bytes of media that each received.
 */
async function reported({ lab, p, q }) {
  const ends = await Promise.all([p, q].map((page) => page.evaluate(async (relays) => {
    const end = { pairs: {}, received: 0 };
    for (const [i, report] of (await e2e.reports()).entries()) {
      if (!report) continue;
      end.received += report.video.receivedBytes + report.audio.receivedBytes;
      for (const { id, local, remote, sent } of report.pairs) {
        // Between two relayed addresses a packet goes up one allocation and down the other.
        const up = local?.type === 'relay';
        const down = remote?.type === 'relay' || relays.includes(remote?.address);
        end.pairs[`${i} ${id}`] = { up: up ? sent : 0, down: down ? sent : 0 };
      }
    }
    return end;
  }, [lab.server.v4, lab.server.v6])));
  const pairs = Object.fromEntries(ends.flatMap((end, i) => Object.entries(end.pairs)
    .map(([id, sent]) => [`${i} ${id}`, sent])));
  const sum = (way) => Object.values(pairs).reduce((n, sent) => n + sent[way], 0);
  return { pairs, up: sum('up'), down: sum('down'), received: ends.map((end) => end.received) };
}

/**
 * The relay counts what the browsers send through it, and ICE's checks, which they do not count.
 */
async function littleElseIsRelayed(call) {
  let gone;
  const what = () => `an interval in which no candidate pair was removed: ${gone}`;
  await until(what, async () => {
    // The relay's interval lies within that of the browsers.
    const sent = [await reported(call)];
    const counted = [await relayed(call)];
    await both(call.p, call.q, 40);
    counted.push(await relayed(call));
    sent.push(await reported(call));
    gone = Object.keys(sent[0].pairs).filter((id) => !(id in sent[1].pairs));
    if (gone.length > 0) return false;
    const grown = ([before, after]) => after.up + after.down - before.up - before.down;
    const text = JSON.stringify({ sent, counted });
    assert.ok(grown(counted) < 1.15 * grown(sent), text);
    return true;
  }, 3 * LIMIT);
}

/** Every byte that the browsers sent through the relay since the call began was relayed. */
async function everythingWasRelayed(call, { want, firefox }) {
  // Relay and browsers cannot be read at the same instant: first the media has to stop.
  for (const x of [call.p, call.q]) {
    await x.evaluate(() => Promise.all([...e2e.made, ...e2e.backup]
      .filter((pc) => pc.connectionState !== 'closed')
      .flatMap((pc) => pc.getSenders().map((sender) => sender.replaceTrack(null)))));
  }
  const sent = await reported(call);
  // Firefox reports a tenth more than its pairs sent.
  const share = firefox ? 0.8 : 1;
  let counted;
  await until(() => `everything relayed: ${JSON.stringify({ sent, counted })}`, async () => {
    counted = await relayed(call);
    return counted.up >= share * sent.up && counted.down >= share * sent.down;
  });
  const text = JSON.stringify({ sent, counted });
  const least = 0.9 * Math.min(...sent.received);
  assert.ok(Math.min(counted.up, counted.down) > least, text);
  // What is relayed on both sides goes both up and down.
  if (want.relayed === 2) assert.ok(Math.min(sent.up, sent.down) > least, text);
}

async function mediaIsNotRelayed(call) {
  const before = [await relayed(call), await reported(call)];
  await both(call.p, call.q, 40);
  const after = [await relayed(call), await reported(call)];
  const grown = after[0].up + after[0].down - before[0].up - before[0].down;
  const received = [0, 1].map((i) => after[1].received[i] - before[1].received[i]);
  const text = JSON.stringify({ before, after });
  assert.ok(grown < 0.1 * (received[0] + received[1]), `the relay carried media: ${text}`);
}
