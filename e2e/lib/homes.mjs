// Calls between two homes of the laboratory: a browser in each, behind a NAT of its own, and the
// server on the internet between them.

import fs from 'node:fs';
import path from 'node:path';
import assert from 'node:assert/strict';
import { authority } from './ca.mjs';
import { Chromium } from './chromium.mjs';
import { Firefox } from './firefox.mjs';
import { send, together } from './call.mjs';
import { ALLOW, Lab } from './lab.mjs';
import { Server } from './server.mjs';
import { leaks, servePages } from './stage.mjs';
import { until } from './wait.mjs';
import { ROOT, folder } from './work.mjs';

// Pages on port 80, the server with its relay on 443 (plain HTTP here): what a network without UDP
// leaves open.
const PAGES = 80;
const LISTEN = 443;
// Browsers connect TURN over TLS to a name.
const NAME = 'calls.example';

/** Calls at a time. Two overloaded two cores: calls failed over to the relay by themselves. */
export const LANES = 1;

/** What settled() is to wait for: a path of these kinds without the relay. */
export const direct = (...types) => ({ relayed: 0, types });

/**
 * Builds the network lab, makes a call through it (video both ways), runs body with it, and ends
 * everything.
 * @param {{a: string, b: string, firefox?: boolean, tls?: boolean, ask?: boolean,
 *   keepData?: boolean}} o
 * a, b: what each browser is behind
 * firefox: b is Firefox
 * tls: the server has a certificate, and its own pages are used
 * ask: the camera is allowed only when both are in the room
 * keepData: the server's state outlasts again(), which starts the server after its end
 */
export async function inCall({ a, b, firefox, tls, ask, keepData }, body) {
  const dir = folder(`homes-${a}-${b}${firefox ? '-firefox' : ''}${ask ? '-ask' : ''}`);
  const ends = [];
  const browsers = [];
  let passed = false;
  try {
    const lab = await Lab.up({ a, b, dir });
    ends.push(() => lab.down());
    const host = tls ? NAME : a === 'v6' ? `[${lab.server.v6}]` : lab.server.v4;
    // With TLS the pages are the server's own, over the one port: nothing else is let through.
    const certs = tls ? authority(dir, ['localhost', NAME]) : {};
    const startServer = () => Server.start({
      dir,
      ns: lab.server.ns,
      listen: `:${LISTEN}`,
      data: keepData ? path.join(dir, 'data') : undefined,
      args: [
        '--relay-ip', lab.server.v4, '--relay-ip', lab.server.v6, ...ALLOW,
        ...(tls ? ['--tls-cert', certs.cert, '--tls-key', certs.key] : []),
      ],
      ca: certs.ca,
    });
    const page = `${tls ? 'https' : 'http'}://${host}`;
    const trust = tls ? { ca: certs.ca, names: [NAME, lab.server.v4] } : {};
    const startBrowser = async (i) => {
      const { ns } = [lab.a, lab.b][i];
      const options = { dir, ns, ask, ...trust };
      const browser = i === 1 && firefox
        ? await Firefox.start({ ...options, secure: tls ? [] : [host] })
        : await Chromium.start({ ...options, secure: tls ? [] : [page] });
      browsers[i] = browser;
    };
    let server;
    const startSite = async () => {
      server = await startServer();
      ends.push(() => server.stop());
      const license = await server.license();
      if (tls) return license;
      const origin = `http://${host}:${LISTEN}`;
      const { ns } = lab.server;
      const pages = await servePages({ dir, origin, license, ns, host: '::', port: PAGES });
      ends.push(() => pages.process.stop());
      return license;
    };
    const again = async () => (server = await startServer());
    // All begin at once; what has begun is ended, also when another one fails.
    const begun = await Promise.allSettled([startSite(), startBrowser(0), startBrowser(1)]);
    ends.push(() => Promise.all(browsers.map((browser) => browser?.close())));
    for (const { reason } of begun) if (reason) throw reason;
    const license = begun[0].value;

    const [p, q] = await Promise.all(
      browsers.map((browser, i) =>
        browser.open(`${page}/${tls ? '' : 'app.html'}`, { name: 'ab'[i] }),
      ),
    );
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

    await body({ lab, server: () => server, again, firefox, p, q, before });
    assert.deepEqual(
      leaks(server.log, [/198\.51\.100\./, /192\.168\./, /2001:db8:[ab]:/]),
      [],
      'secrets or addresses in the log',
    );
    passed = true;
  } catch (e) {
    for (const x of browsers) await x?.keep();
    e.message += ` (see ${dir})`;
    throw e;
  } finally {
    const errors = [];
    for (const end of ends.reverse())
      await Promise.resolve()
        .then(end)
        .catch((e) => errors.push(e));
    if (passed && errors.length)
      throw new AggregateError(
        errors,
        `while ending: ${errors.map((e) => e.message).join('; ')} (see ${dir})`,
      );
    if (passed) fs.rmSync(dir, { recursive: true });
  }
}

/** Names the ICE session of a page's one connection. */
export const session = (p) =>
  p.evaluate(() => /a=ice-ufrag:.*/.exec(e2e.open()[0].localDescription.sdp)[0]);

/** Makes a page of the server's own one like app.html: evaluating is not bound by its policy. */
async function onOwnPage(p, { cpCode, authKey }) {
  await p.evaluate(() =>
    import('/knowledgetalk.mjs').then(
      (m) => void (window.Knowledgetalk = m.Knowledgetalk ?? m.default),
    ),
  );
  const text = fs
    .readFileSync(path.join(ROOT, 'e2e/pages/app.js'), 'utf8')
    .replaceAll('{{CPCODE}}', cpCode)
    .replaceAll('{{AUTHKEY}}', authKey);
  await p.evaluate(new Function(text));
}

/** ICE may pass through worse pairs on its way: waits for the one it ends on. */
export async function settled(p, q, want, limit) {
  let last;
  await until(
    () => `settled: ${JSON.stringify(last)}`,
    async () => {
      const [x, y] = (last = [
        await p.evaluate((id) => app.report(id), q.id),
        await q.evaluate((id) => app.report(id), p.id),
      ]);
      if (!x.local || !x.remote || !y.local || !y.remote) return false;
      const relayed = [x, y].filter((r) => r.local.type === 'relay');
      if (relayed.length !== want.relayed) return false;
      if (want.tcp && relayed[0].local.relayProtocol !== 'tcp') return false;
      if (want.tls && relayed[0].local.relayProtocol !== 'tls') return false;
      return (
        !want.types ||
        [x, y].every(
          (r) =>
            want.types.includes(r.local.type) && [...want.types, 'prflx'].includes(r.remote.type),
        )
      );
    },
    limit,
  );
}
