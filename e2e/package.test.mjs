// The SDK as an npm package: what is packed is installed, and both of its forms make a call with each other.

import { after, afterEach, before, test } from 'node:test';
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { Stage } from './lib/stage.mjs';
import { ROOT } from './lib/work.mjs';

let stage;
before(async () => (stage = await Stage.up('package')));
afterEach((t) => stage.after(t));
after(() => stage?.down());

const run = (cwd, ...argv) => execFileSync(argv[0], argv.slice(1), { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });

const page = (head, server) => `<!DOCTYPE html><title>packed</title>${head}
<script type="module">
  window.start = async (Class, cpCode, authKey, id) => {
    window.k = new Class({ server: '${server}' });
    k.addEventListener('presence', ({ detail }) => {
      if (detail.type !== 'subscribed') return;
      const video = document.body.appendChild(document.createElement('video'));
      Object.assign(video, { srcObject: k.getStream(detail.user), muted: true, autoplay: true });
    });
    return k.init(cpCode, authKey, id);
  };
  window.ready = true;
</script>`;

test('npm pack, npm install, and a call between an import and a script tag', async () => {
  const sdk = path.join(ROOT, 'sdk');
  const tarball = run(sdk, 'npm', 'pack', '--silent', '--pack-destination', stage.dir).trim().split('\n').at(-1);
  const files = run(stage.dir, 'tar', '-tf', tarball).trim().split('\n').sort();
  const dist = ['knowledgetalk.d.ts', 'knowledgetalk.min.js', 'knowledgetalk.min.js.map', 'knowledgetalk.mjs', 'knowledgetalk.mjs.map'];
  assert.deepEqual(files, [...['LICENSE', 'README.md', 'package.json'], ...dist.map((f) => `dist/${f}`)].map((f) => `package/${f}`).sort());

  const app = path.join(stage.dir, 'app');
  fs.mkdirSync(app);
  fs.writeFileSync(path.join(app, 'package.json'), '{"name":"app","private":true,"type":"module"}');
  run(app, 'npm', 'install', '--offline', '--ignore-scripts', '--no-audit', '--no-fund', '--silent', path.join(stage.dir, tarball));
  const resolve = (name) => {
    const url = run(app, process.execPath, '--input-type=module', '-e', `console.log(import.meta.resolve('${name}'))`);
    return new URL(url.trim()).pathname;
  };

  // Types, as an app in TypeScript meets them.
  fs.writeFileSync(path.join(app, 'app.ts'), `
    import Knowledgetalk, { KnowledgeTalk, type Presence } from '@ieum-rtc/sdk';
    const k: KnowledgeTalk = new Knowledgetalk({ server: 'https://x' });
    k.addEventListener('presence', ({ detail }) => {
      if (detail.type === 'chat') detail.message.trim();
      // @ts-expect-error who joins is a member, not an id
      if (detail.type === 'join') detail.user.trim();
    });
    export const type: Presence['type'] = 'shareStop';
  `);
  for (const how of [['bundler', 'esnext'], ['nodenext', 'nodenext']]) {
    const tsc = path.join(sdk, 'node_modules/.bin/tsc');
    run(app, tsc, '--noEmit', '--strict', '--target', 'es2022', '--moduleResolution', how[0], '--module', how[1], 'app.ts');
  }

  stage.pages.write('packed-module.js', fs.readFileSync(resolve('@ieum-rtc/sdk'), 'utf8'));
  stage.pages.write('packed-script.js', fs.readFileSync(resolve('@ieum-rtc/sdk/knowledgetalk.min.js'), 'utf8'));
  const heads = {
    module: '<script type="module">import K, { KnowledgeTalk } from "./packed-module.js"; window.Class = K === KnowledgeTalk && K;</script>',
    script: '<script src="packed-script.js"></script><script>window.Class = Knowledgetalk === KnowledgeTalk && Knowledgetalk;</script>',
  };
  for (const [name, head] of Object.entries(heads)) stage.pages.write(`${name}.html`, page(head, stage.origin));

  const pages = await Promise.all(['module', 'script'].map((name) => stage.open(`${name}.html`, { name })));
  for (const p of pages) {
    await p.until('loaded', () => window.ready);
    const { cpCode, authKey } = stage.license;
    const { code } = await p.evaluate((x) => start(Class, x.cpCode, x.authKey, x.id), { cpCode, authKey, id: p.name });
    assert.equal(code, '200');
  }
  const { roomId } = await pages[0].evaluate(() => k.createRoom());
  for (const p of pages) assert.equal(await p.evaluate((r) => k.joinRoom(r).then((x) => x.code), roomId), '200');
  await pages[0].until('two', async () => Object.keys(await k.memberList()).length === 2);
  const publish = async (id) => k.publishP2P(id, 'cam', await navigator.mediaDevices.getUserMedia({ video: true }));
  const sent = pages.map((p, i) => p.evaluate(publish, pages[1 - i].name));
  assert.deepEqual(await Promise.all(sent), [true, true]);
  // Both before either goes: a page that has gone sends nothing any more.
  await Promise.all(pages.map((p) => p.until('showing the other', () => e2e.frames(document.querySelector('video')) > 10)));
  for (const p of pages) {
    assert.deepEqual(p.errors, []);
    await p.close();
  }
});
