// A server under a path of another site: script, module, socket, goodbye and Socket.IO client find
// it there, behind a proxy of ours and nginx.

import { after, afterEach, before, test } from 'node:test';
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { call, meet, together } from './lib/call.mjs';
import { PATH, Process } from './lib/process.mjs';
import { Proxy } from './lib/proxy.mjs';
import { Stage, servePages } from './lib/stage.mjs';
import { until } from './lib/wait.mjs';
import { ROOT } from './lib/work.mjs';

let stage;
before(async () => (stage = await Stage.up('path', { site: '/calls' })));
afterEach((t) => stage.after(t));
after(() => stage?.down());

/** What asked for something outside the path: nothing of the SDK may. */
const astray = () => stage.proxy.seen.filter((request) => !request.includes(' /calls/'));

test('a call with the script of the path; closing the page leaves through the path', async () => {
  const { a, b } = await meet(stage);
  await call(a, b);
  const seen = stage.proxy.seen.length;
  await b.close();
  await a.until('seeing bob leave', () => app.count('leave', 'bob') === 1);
  assert.ok(
    stage.proxy.seen.slice(seen).includes('POST /calls/leave'),
    stage.proxy.seen.slice(seen).join(),
  );
  assert.deepEqual([a.errors, b.errors, astray()], [[], [], []]);
  await a.close();
});

test('the module of the path, a server option with the path, the Socket.IO client', async () => {
  const { cpCode, authKey } = stage.license;
  stage.pages.write('module-path.html', `<!DOCTYPE html><script type="module">
    import Knowledgetalk from '${stage.origin}/knowledgetalk.mjs';
    const given = new Knowledgetalk({ server: '${stage.origin}/' });
    const codes = [new Knowledgetalk(), given].map((k) =>
      k.init('${cpCode}', '${authKey}').then(({ code }) => code));
    window.codes = await Promise.all(codes);
  </script>`);
  const page = await stage.open('module-path.html');
  assert.deepEqual(await page.until('both are in', () => window.codes), ['200', '200']);
  stage.pages.write(
    'socket-path.html',
    `<!DOCTYPE html><script src="${stage.origin}/socket.io/socket.io.min.js"></script><script>
    const socket = io();
    const register = { eventOp: 'register', cpCode: '${cpCode}', authKey: '${authKey}' };
    socket.emit('knowledgetalk', register, ({ code }) => { window.code = code; });
  </script>`);
  const raw = await stage.open('socket-path.html');
  assert.equal(await raw.until('in', () => window.code), '200');
  for (const p of [page, raw]) await p.close();
  assert.deepEqual(astray(), []);
});

test('the sample pages of the path: calls, invite link and guide code stay below it', async () => {
  const sample = await stage.browser.open(`${stage.origin}/sample?lang=en`, { name: 'sample' });
  await sample.page.click('[data-action="start"]');
  await sample.until(
    'running',
    () => Number(document.querySelector('.console').dataset.framesA) > 10,
  );
  const room = await stage.browser.open(`${stage.origin}/p2p?lang=en`, { name: 'p2p' });
  await room.page.click('[data-action="create"]');
  assert.ok(
    (await room.until('an invitation', () => document.querySelector('#invite').value)).startsWith(
      `${stage.origin}/p2p?`,
    ),
  );
  const guide = await stage.browser.open(`${stage.origin}/guide`, { name: 'guide' });
  const filled = (place) => document.querySelector(`[data-fill="${place}"]`).textContent;
  assert.equal(await guide.evaluate(filled, 'origin'), stage.origin);
  await guide.until(
    'the license of the path',
    (key) => document.querySelector('[data-fill="authKey"]').textContent === key,
    stage.license.authKey,
  );
  const lost = await stage.browser.open(`${stage.origin}/a/b/c`, { name: 'lost' });
  await Promise.all([lost.page.waitForURL(`${stage.origin}/`), lost.page.click('main a')]);
  for (const p of [sample, room, guide, lost]) await p.close();
  assert.deepEqual(astray(), []);
});

test('no address to derive: init reports at once which option is missing', async () => {
  stage.pages.write('blob.html', `<!DOCTYPE html><script type="module">
    const text = await (await fetch('${stage.origin}/knowledgetalk.min.js')).text();
    const script = document.createElement('script');
    script.onload = () => { window.ready = true; };
    script.src = URL.createObjectURL(new Blob([text], { type: 'text/javascript' }));
    document.head.append(script);
  </script>`);
  const page = await stage.open('blob.html');
  await page.until('loaded', () => window.ready);
  const { code, hint } = await page.evaluate(() => new Knowledgetalk().init('x', 'y'));
  assert.equal(code, '421');
  assert.match(hint, /server: '/);
  const init = (x) =>
    new Knowledgetalk({ server: x.server }).init(x.cpCode, x.authKey).then((r) => r.code);
  assert.equal(await page.evaluate(init, { ...stage.license, server: stage.origin }), '200');
  await page.close();
});

// The block of docs/operating/install.md, as it stands there.
test('nginx with the documented location', async (t) => {
  const nginx = PATH.split(':')
    .map((dir) => path.join(dir, 'nginx'))
    .find((file) => fs.existsSync(file));
  if (!nginx && process.getuid() !== 0) return t.skip('nginx is not installed');
  assert.ok(nginx, 'nginx is not installed: run e2e/setup.sh');
  const text = fs.readFileSync(path.join(ROOT, 'docs/operating/install.md'), 'utf8');
  const [block] =
    /location \/calls\/ \{[^]*?\n\}/.exec(text) ??
    assert.fail('docs/operating/install.md has no location /calls/');
  const [map] = /map \$http_upgrade[^\n]*?\}/.exec(text);
  // The name of a Unix socket has to be short.
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'ieum-nginx-'));
  t.after(() => fs.rmSync(dir, { recursive: true, force: true }));
  const conf = path.join(dir, 'nginx.conf');
  const folders = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map((n) => `${n}_temp_path ${dir}/${n};`)
    .join(' ');
  fs.writeFileSync(
    conf,
    `daemon off; master_process off; pid ${dir}/pid; error_log stderr; events {}
    http { access_log off; ${folders} ${map}
      server {
        listen unix:${dir}/socket;
        ${block.replaceAll('127.0.0.1:7102', stage.server.host)}
      } }`,
  );
  execFileSync(nginx, ['-t', '-q', '-c', conf], { stdio: 'pipe' });
  const server = new Process([nginx, '-c', conf], { dir: stage.dir, name: 'nginx' });
  t.after(() => server.stop());
  const proxy = await Proxy.listen(`${dir}/socket`);
  t.after(() => proxy.close());
  const origin = `${proxy.origin}/calls`;
  await until('nginx answers', () =>
    fetch(`${origin}/knowledgetalk.min.js`).then(
      (r) => r.ok,
      () => false,
    ),
  );
  const site = path.join(dir, 'site');
  fs.mkdirSync(site);
  const pages = await servePages({ dir: site, origin, license: stage.license });
  t.after(() => pages.process.stop());
  const [a, b] = await Promise.all(
    ['ann', 'ben'].map((name) => stage.browser.open(`${pages.origin}/app.html`, { name })),
  );
  for (const p of [a, b]) p.id = await p.evaluate((id) => app.init(id), p.name);
  const { roomId } = await a.evaluate(() => k.createRoom());
  await together(a, b, roomId);
  await call(a, b);
  await b.close();
  await a.until('seeing ben leave', () => app.count('leave', 'ben') === 1);
  await a.close();
});
