// The SDK as an npm package: what is packed is installed, and both of its forms make a call with
// each other.

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

const run = (cwd, ...argv) =>
  execFileSync(argv[0], argv.slice(1), {
    cwd,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  });

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
  const tarball = run(sdk, 'npm', 'pack', '--silent', '--pack-destination', stage.dir)
    .trim()
    .split('\n')
    .at(-1);
  const files = run(stage.dir, 'tar', '-tf', tarball).trim().split('\n').sort();
  const mapped = ['min.js', 'mjs', 'polling.mjs'].flatMap((f) => [f, `${f}.map`]);
  const dist = ['cjs', 'd.cts', 'd.ts', ...mapped].map((f) => `dist/knowledgetalk.${f}`);
  assert.deepEqual(
    files,
    ['LICENSE', 'README.md', 'package.json', ...dist].map((f) => `package/${f}`).sort(),
  );

  const app = path.join(stage.dir, 'app');
  fs.mkdirSync(app);
  fs.writeFileSync(path.join(app, 'package.json'), '{"name":"app","private":true,"type":"module"}');
  run(
    app,
    'npm',
    'install',
    '--offline',
    '--ignore-scripts',
    '--no-audit',
    '--no-fund',
    '--silent',
    path.join(stage.dir, tarball),
  );
  const resolve = (name) => {
    const url = run(
      app,
      process.execPath,
      '--input-type=module',
      '-e',
      `console.log(import.meta.resolve('${name}'))`,
    );
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
  `,
  );
  const tsc = (...argv) =>
    run(
      app,
      path.join(sdk, 'node_modules/.bin/tsc'),
      '--noEmit',
      '--strict',
      '--target',
      'es2022',
      ...argv,
    );
  for (const how of [
    ['bundler', 'esnext'],
    ['nodenext', 'nodenext'],
  ])
    tsc('--moduleResolution', how[0], '--module', how[1], 'app.ts');
  fs.writeFileSync(
    path.join(app, 'app.cts'),
    `
    import sdk = require('@ieum-rtc/sdk');
    import { Knowledgetalk, type Presence } from '@ieum-rtc/sdk';
    const k: sdk.Knowledgetalk = new sdk.default({ server: 'https://x' });
    k.addEventListener('presence', ({ detail }) => {
      if (detail.type === 'talking') detail.talking.valueOf();
      if (detail.type === 'publish') detail.feeds.forEach((feed) => feed.name.trim());
    });
    void new Knowledgetalk().whiteBoardStart(document.createElement('canvas'));
    export const type: Presence['type'] = 'shareStop';
  `);
  tsc('--moduleResolution', 'nodenext', '--module', 'nodenext', 'app.cts');
  // With the script tag, and with an import of the server's own module: as sdk/README.md says.
  fs.writeFileSync(path.join(app, 'tag.ts'), `
    const k: Knowledgetalk = new Knowledgetalk();
    if (window.KnowledgeTalk === Knowledgetalk) k.getUserId().trim();
    // @ts-expect-error no such method
    k.nothing();
  `);
  const types = 'node_modules/@ieum-rtc/sdk/dist/knowledgetalk.d.ts';
  tsc('--moduleResolution', 'bundler', '--module', 'esnext', 'tag.ts', types);
  fs.writeFileSync(
    path.join(app, 'url.ts'),
    "import K from 'https://call.example.com:7102/knowledgetalk.mjs'; new K().getUserId().trim();",
  );
  const options = {
    strict: true,
    noEmit: true,
    target: 'es2022',
    module: 'esnext',
    moduleResolution: 'bundler',
  };
  const paths = { 'https://call.example.com:7102/knowledgetalk.mjs': [`./${types}`] };
  fs.writeFileSync(
    path.join(app, 'tsconfig.json'),
    JSON.stringify({ compilerOptions: { ...options, paths }, files: ['url.ts'] }),
  );
  run(app, path.join(sdk, 'node_modules/.bin/tsc'), '-p', '.');

  // Node: nothing of a browser at import; without a WebSocket of Node's own init says so at once.
  const { cpCode, authKey } = stage.license;
  const use = `const codes = [];
    for (const options of [undefined, { server: '${stage.origin}' }]) {
      const k = new Knowledgetalk(options);
      codes.push((await k.init('${cpCode}', '${authKey}')).code);
      codes.push(await k.publishP2P('x', 'cam', {}));
      k.disconnect();
    }
    console.log(JSON.stringify(codes));`;
  const reached = typeof WebSocket === 'undefined' ? '405' : '200';
  const old = ['--no-experimental-require-module'].filter((flag) =>
    process.allowedNodeEnvironmentFlags.has(flag),
  );
  for (const [flags, text] of [
    [['--input-type=module'], `import Knowledgetalk from '@ieum-rtc/sdk'; ${use}`],
    [
      ['--input-type=commonjs', ...old],
      `const { Knowledgetalk } = require('@ieum-rtc/sdk'); (async () => { ${use} })();`,
    ],
    [['--input-type=module'], `import '@ieum-rtc/sdk/knowledgetalk.min.js'; ${use}`],
  ]) {
    assert.deepEqual(
      JSON.parse(run(app, process.execPath, ...flags, '-e', text)),
      ['421', false, reached, false],
      text,
    );
  }

  stage.pages.write('packed-module.js', fs.readFileSync(resolve('@ieum-rtc/sdk'), 'utf8'));
  stage.pages.write(
    'packed-script.js',
    fs.readFileSync(resolve('@ieum-rtc/sdk/knowledgetalk.min.js'), 'utf8'),
  );
  const heads = {
    module:
      '<script type="module">import K, { KnowledgeTalk } from "./packed-module.js"; ' +
      'window.Class = K === KnowledgeTalk && K;</script>',
    script:
      '<script src="packed-script.js"></script>' +
      '<script>window.Class = Knowledgetalk === KnowledgeTalk && Knowledgetalk;</script>',
  };
  for (const [name, head] of Object.entries(heads))
    stage.pages.write(`${name}.html`, page(head, stage.origin));

  const pages = await Promise.all(
    ['module', 'script'].map((name) => stage.open(`${name}.html`, { name })),
  );
  for (const p of pages) {
    await p.until('loaded', () => window.ready);
    const { code } = await p.evaluate((x) => start(Class, x.cpCode, x.authKey, x.id), {
      cpCode,
      authKey,
      id: p.name,
    });
    assert.equal(code, '200');
  }
  const { roomId } = await pages[0].evaluate(() => k.createRoom());
  for (const p of pages)
    assert.equal(await p.evaluate((r) => k.joinRoom(r).then((x) => x.code), roomId), '200');
  await pages[0].until('two', async () => Object.keys(await k.memberList()).length === 2);
  const publish = async (id) =>
    k.publishP2P(id, 'cam', await navigator.mediaDevices.getUserMedia({ video: true }));
  const sent = pages.map((p, i) => p.evaluate(publish, pages[1 - i].name));
  assert.deepEqual(await Promise.all(sent), [true, true]);
  // Both before either goes: a page that has gone sends nothing any more.
  await Promise.all(
    pages.map((p) =>
      p.until('showing the other', () => e2e.frames(document.querySelector('video')) > 10),
    ),
  );
  for (const p of pages) {
    assert.deepEqual(p.errors, []);
    await p.close();
  }

  // A classic worker, which has no page to take an address from.
  stage.pages.write('worker.js', `importScripts('packed-script.js');
    const k = new Knowledgetalk({ server: '${stage.origin}' });
    k.addEventListener('presence', ({ detail }) => postMessage(detail.reason));
    k.init('${cpCode}', '${authKey}').then(({ code }) => {
      postMessage(code);
      k.publishP2P('somebody', 'cam');
    });`,
  );
  stage.pages.write(
    'worker.html',
    `<!DOCTYPE html><script>
      window.told = [];
      new Worker('worker.js').onmessage = ({ data }) => told.push(data);
    </script>`,
  );
  const worker = await stage.open('worker.html');
  await worker.until('both answers', () => told.length === 2);
  assert.deepEqual(await worker.evaluate(() => told), ['200', 'no-webrtc']);
  await worker.close();
});
