// The network matrix: each browser in a home of its own, behind a NAT of its own, the server on the internet between them. A call is
// direct wherever it can be and relayed, on one side, where it cannot.

import { test } from 'node:test';
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { authority } from './lib/ca.mjs';
import { Chromium } from './lib/chromium.mjs';
import { Firefox } from './lib/firefox.mjs';
import { flowing, seen, send, together } from './lib/call.mjs';
import { Lab, labMissing } from './lib/lab.mjs';
import { PATH } from './lib/process.mjs';
import { Server } from './lib/server.mjs';
import { leaks, servePages } from './lib/stage.mjs';
import { until } from './lib/wait.mjs';
import { ROOT, folder } from './lib/work.mjs';

const missing = labMissing();
if (missing) console.log(`SKIPPED: the network matrix, ${missing}`);

// Pages on port 80, the server with its relay on 443 (plain HTTP here): what a network without UDP leaves open.
const PAGES = 80;
const LISTEN = 443;
// Browsers connect TURN over TLS to a name.
const NAME = 'calls.example';
// The laboratory's addresses are of the documentation ranges, which the relay refuses unless told otherwise.
const ALLOW = ['198.51.100.0/24', '203.0.113.0/24', '2001:db8::/32'].flatMap((net) => ['--relay-allow-peer', net]);

const direct = (...types) => ({ relayed: 0, types });
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
      await measured(server, p, q, row);
      await settled(p, q, row.want);
    }));
}

test("the server's cable is pulled: a direct call goes on, and afterwards nobody has left", { skip: missing ?? false }, () =>
  inCall({ a: 'cone', b: 'cone' }, async ({ lab, p, q }) => {
    await settled(p, q, direct('srflx', 'prflx'));
    const before = [await seen(p, q), await seen(q, p)];
    await lab.set({ link: 'srv', set: { down: 'true' } });
    // Nothing closes these sockets; the SDK has to find out by itself, while the picture goes on.
    for (const x of [p, q]) await x.until('aware that the server is away', () => !k.getSocket().connected);
    await Promise.all([flowing(p, q, 30), flowing(q, p, 30)]);
    await lab.set({ link: 'srv', set: { down: 'false' } });
    for (const x of [p, q]) await x.until('answered again', async () => (await k.memberList()).code === '200');
    assert.deepEqual([await seen(p, q), await seen(q, p)], before);
    await flowing(p, q);
  }));

for (const oneWay of [false, true]) {
  test(`the path between the homes dies${oneWay ? ' in one direction' : ''}: media goes over the relay, then back, in the same streams`,
    { skip: missing ?? false }, (t) => inCall({ a: 'cone', b: 'cone' }, ({ lab, p, q }) => overAndBack(t, lab, p, q, oneWay)));
}

async function overAndBack(t, lab, p, q, oneWay) {
  await settled(p, q, direct('srflx', 'prflx'));
  const both = [[p, q], [q, p]];
  for (const [x, y] of both) {
    await x.until('having a second connection', () => e2e.spare.some((pc) => pc.connectionState === 'connected'));
  }
  const before = await watching(p, q);

  cut(lab.a, lab.b, oneWay);
  for (const [x, y] of both) await x.until('sending over the second', (id) => e2e.spare.includes(k.getPeer(id)), y.id);
  await Promise.all([watched(p), watched(q)]);
  for (const [x, y] of both) t.diagnostic(`${x.name} saw ${y.name} stand still for ${await x.evaluate(() => Math.round(gap))} ms`);

  mend(...(oneWay ? [lab.a] : [lab.a, lab.b]));
  for (const [x, y] of both) {
    await x.until('sending over the first again', (id) => e2e.made[0] === k.getPeer(id), y.id);
    await x.until('the second silent', () => e2e.spare.every((pc) => pc.getSenders().every((s) => !s.track)));
  }
  await Promise.all([watched(p), watched(q)]);
  for (const [x, y] of both) {
    assert.equal(await x.evaluate((id) => k.getStream(id) === shown.srcObject, y.id), true, 'the same stream');
    assert.deepEqual(await x.evaluate((id) => app.events.filter((e) => e.type === 'peerState' && e.user === id).map((e) => e.state).slice(-2), y.id),
      ['recovering', 'connected']);
    assert.ok(await x.evaluate(() => e2e.spare.length === 1));
  }
  assert.deepEqual([await seen(p, q), await seen(q, p)], before);
}

test('a client gets another address: the call comes back by itself, and nobody has left', { skip: missing ?? false }, (t) =>
  inCall({ a: 'cone', b: 'cone' }, async ({ lab, p, q }) => {
    await settled(p, q, direct('srflx', 'prflx'));
    const before = await watching(p, q);
    readdress(lab.a.ns);
    for (const x of [p, q]) await x.until('aware of it', () => app.events.some((e) => e.type === 'peerState' && e.state === 'recovering'));
    await Promise.all([watched(p, 60), watched(q, 60)]);
    for (const x of [p, q]) t.diagnostic(`${x.name} saw the other stand still for ${await x.evaluate(() => Math.round(gap))} ms`);
    assert.deepEqual([await seen(p, q), await seen(q, p)], before);
  }));

test("a client's cable is pulled and put back: video again both ways, and nobody has left", { skip: missing ?? false }, (t) =>
  inCall({ a: 'cone', b: 'cone' }, async ({ lab, p, q }) => {
    await settled(p, q, direct('srflx', 'prflx'));
    const before = await watching(p, q);
    await lab.set({ link: 'a', set: { down: 'true' } });
    await p.until('aware that the server is away', () => !k.getSocket().connected);
    const cable = Date.now();
    await q.until('aware of it', () => app.events.some((e) => e.type === 'peerState' && e.state === 'recovering'));
    await lab.set({ link: 'a', set: { down: 'false' } });
    await Promise.all([watched(p, 40), watched(q, 40)]);
    t.diagnostic(`pictures again, forty each, ${Date.now() - cable} ms after the cable`);
    for (const x of [p, q]) await x.until('told so', () => app.events.filter((e) => e.type === 'peerState').at(-1).state === 'connected');
    assert.deepEqual([await seen(p, q), await seen(q, p)], before);
    for (const x of [p, q]) assert.ok(await x.evaluate(() => e2e.spare.filter((pc) => pc.connectionState !== 'closed').length <= 1));
  }));

/** Gives a client another address of its network, as a new lease would. */
function readdress(ns) {
  const ip = (...args) => execFileSync('ip', ['-n', ns, ...args], { env: { ...process.env, PATH }, encoding: 'utf8' });
  const [, dev, address] = /^\d+: (\S+) +inet (\S+) /m.exec(ip('-o', '-4', 'addr', 'show', 'scope', 'global'));
  const [, gateway] = /^default via (\S+)/m.exec(ip('-4', 'route'));
  ip('addr', 'del', address, 'dev', dev);
  ip('addr', 'add', address.replace(/\d+\//, '77/'), 'dev', dev);
  ip('route', 'replace', 'default', 'via', gateway);
}

/** In the page: shows a user's camera and keeps the longest time between two pictures in `gap`. */
function watch(user) {
  window.shown = document.body.appendChild(Object.assign(document.createElement('video'), { muted: true, autoplay: true, srcObject: k.getStream(user) }));
  window.gap = 0;
  let last = performance.now();
  const next = (now) => {
    window.gap = Math.max(window.gap, now - last);
    last = now;
    window.pictures = (window.pictures ?? 0) + 1;
    shown.requestVideoFrameCallback(next);
  };
  shown.requestVideoFrameCallback(next);
}

/** Has each page watch the other's camera; what each has seen of the other by then. */
async function watching(p, q) {
  for (const [x, y] of [[p, q], [q, p]]) await x.evaluate(watch, y.id);
  await Promise.all([watched(p), watched(q)]);
  return [await seen(p, q), await seen(q, p)];
}

/** Resolves when the page has shown some more pictures in that element. */
async function watched(p, more = 20) {
  const now = await p.evaluate(() => window.pictures ?? 0);
  await p.until('showing pictures', (n) => (window.pictures ?? 0) >= n, now + more);
}

const nft = (ns, rules) => execFileSync('ip', ['netns', 'exec', ns, 'nft', '-f', '-'], { input: rules, env: { ...process.env, PATH } });
/** Nothing passes between two homes any more; what comes from the server does. */
const cut = (a, b, oneWay) => (oneWay ? [[a, b]] : [[a, b], [b, a]]).forEach(([x, y]) => nft(x.ns,
  `table ip cut { chain arriving { type filter hook input priority 0; ip saddr ${y.public} drop; }\n}`));
const mend = (...ends) => ends.forEach(({ ns }) => nft(ns, 'delete table ip cut'));

for (const { b, want, restarts } of [
  // Behind one NAT the hidden names are enough to find each other.
  { b: 'same', want: direct('host', 'prflx'), restarts: false },
  { b: 'cone', want: direct('srflx', 'prflx'), restarts: true },
]) {
  test(`cone – ${b}, joined before the camera was allowed, is direct, ${restarts ? 'with a look at the addresses that were hidden' : 'at once'}`,
    { skip: missing ?? false }, () => inCall({ a: 'cone', b, ask: true }, async ({ p, q, before }) => {
      await settled(p, q, want);
      const sessions = [await session(p), await session(q)];
      for (const i of [0, 1]) assert.equal(sessions[i] !== before[i], restarts, 'a restart of ICE');
      for (const x of [p, q]) assert.equal(await x.evaluate(() => e2e.made.length), 1);
      await Promise.all([flowing(p, q), flowing(q, p)]);
    }));
}

/** Names the ICE session of a page's one connection. */
const session = (p) => p.evaluate(() => /a=ice-ufrag:.*/.exec(e2e.open()[0].localDescription.sdp)[0]);

/** Builds the laboratory, makes a call through it (video both ways) and runs body with it; all is taken down afterwards. */
async function inCall({ a, b, firefox, tls, ask }, body) {
  const dir = folder(`matrix-${a}-${b}${firefox ? '-firefox' : ''}${ask ? '-ask' : ''}`);
  const ends = [];
  const browsers = [];
  let passed = false;
  try {
    const lab = await Lab.up({ a, b, dir });
    ends.push(() => lab.down());
    const host = tls ? NAME : a === 'v6' ? `[${lab.server.v6}]` : lab.server.v4;
    // With TLS the pages are the server's own, over the one port: nothing else is let through.
    const certs = tls ? authority(dir, ['localhost', NAME]) : {};
    const server = await Server.start({
      dir, ns: lab.server.ns, listen: `:${LISTEN}`,
      args: ['--relay-ip', lab.server.v4, '--relay-ip', lab.server.v6, ...ALLOW,
        ...(tls ? ['--tls-cert', certs.cert, '--tls-key', certs.key] : [])],
      ca: certs.ca,
    });
    ends.push(() => server.stop());
    const license = await server.license();
    const page = `${tls ? 'https' : 'http'}://${host}`;
    if (!tls) {
      const pages = await servePages({ dir, origin: `http://${host}:${LISTEN}`, license, ns: lab.server.ns, host: '::', port: PAGES });
      ends.push(() => pages.process.stop());
    }
    const trust = tls ? { ca: certs.ca, names: [NAME, lab.server.v4] } : {};
    const plain = (origin) => (tls ? [] : [origin]);
    browsers.push(await Chromium.start({ dir, ns: lab.a.ns, secure: plain(page), ask, ...trust }));
    ends.push(() => browsers[0].close());
    const second = { dir, ns: lab.b.ns, ask, ...trust };
    browsers.push(await (firefox ? Firefox.start({ ...second, secure: plain(host) }) : Chromium.start({ ...second, secure: plain(page) })));
    ends.push(() => browsers[1].close());

    const [p, q] = await Promise.all(browsers.map((browser, i) => browser.open(`${page}/${tls ? '' : 'app.html'}`, { name: 'ab'[i] })));
    if (tls) for (const x of [p, q]) await onOwnPage(x, license);
    for (const x of [p, q]) x.id = await x.evaluate((id) => app.init(id), x.name);
    const { roomId } = await p.evaluate(() => k.createRoom());
    await together(p, q, roomId);
    const before = [];
    if (ask) {
      for (const x of [p, q]) {
        await x.until('ready', () => e2e.open()[0]?.connectionState === 'connected');
        before.push(await session(x));
        await x.allow();
      }
    }
    await Promise.all([send(p, q), send(q, p)]);

    await body({ lab, server, p, q, before });
    assert.deepEqual(leaks(server.log, [/198\.51\.100\./, /192\.168\./, /2001:db8:[ab]:/]), [], 'secrets or addresses in the log');
    passed = true;
  } catch (e) {
    for (const x of browsers) await x.keep();
    e.message += ` (see ${dir})`;
    throw e;
  } finally {
    const faults = [];
    for (const end of ends.reverse()) await Promise.resolve().then(end).catch((e) => faults.push(e));
    if (passed && faults.length) throw new AggregateError(faults, `while ending: ${faults.map((e) => e.message).join('; ')} (see ${dir})`);
    if (passed) fs.rmSync(dir, { recursive: true });
  }
}

/** Makes a page of the server's own one like app.html: evaluating is not bound by its policy. */
async function onOwnPage(p, { cpCode, authKey }) {
  await p.evaluate(() => import('/knowledgetalk.mjs').then((m) => void (window.Knowledgetalk = m.Knowledgetalk ?? m.default)));
  const text = fs.readFileSync(path.join(ROOT, 'e2e/pages/app.js'), 'utf8').replaceAll('{{CPCODE}}', cpCode).replaceAll('{{AUTHKEY}}', authKey);
  await p.evaluate(new Function(text));
}

/** ICE may pass through worse pairs on its way: waits for the one it ends on. */
async function settled(p, q, want) {
  let last;
  await until(() => `settled: ${JSON.stringify(last)}`, async () => {
    const [x, y] = last = [await p.evaluate((id) => app.report(id), q.id), await q.evaluate((id) => app.report(id), p.id)];
    if (!x.local || !x.remote || !y.local || !y.remote) return false;
    const relayed = [x, y].filter((r) => r.local.type === 'relay');
    if (relayed.length !== want.relayed) return false;
    if (want.tcp && relayed[0].local.relayProtocol !== 'tcp') return false;
    if (want.tls && relayed[0].local.relayProtocol !== 'tls') return false;
    return !want.types || [x, y].every((r) => want.types.includes(r.local.type) && [...want.types, 'prflx'].includes(r.remote.type));
  });
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
