// Ten pages, written in the styles that real apps use, on another origin than the server: they load
// the SDK as a customer does and run unmodified. The tests press their buttons and look at what
// their users see; what a page throws or writes to the console fails it.

import { after, afterEach, before, test } from 'node:test';
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { Stage } from './lib/stage.mjs';
import { ROOT } from './lib/work.mjs';

const APPS = path.join(ROOT, 'e2e', 'apps');
const run = promisify(execFile);

let stage;
before(async () => {
  stage = await Stage.up('apps');
  // Browsers ask for it by themselves, and write to the console when it is missing.
  stage.pages.write('favicon.ico', '');
  for (const name of fs.readdirSync(APPS).filter((f) => /\.(html|js)$/.test(f))) {
    const text = fs.readFileSync(path.join(APPS, name), 'utf8');
    const { cpCode, authKey } = stage.license;
    stage.pages.write(
      name,
      text
        .replaceAll('{{HOST}}', stage.origin)
        .replaceAll('{{CPCODE}}', cpCode)
        .replaceAll('{{AUTHKEY}}', authKey),
    );
  }
});
afterEach((t) => stage.after(t));
after(() => stage?.down());

const all = (list, f) => Promise.all(list.map((x) => f(x)));
const open = (url, name = url.replace(/\W+/g, '-')) => stage.open(url, { name });
const click = (p, selector) => p.page.click(selector);
const fill = (p, selector, text) => p.page.fill(selector, text);
const count = (p, selector) => p.evaluate((s) => document.querySelectorAll(s).length, selector);
const texts = (p, selector) =>
  p.evaluate((s) => [...document.querySelectorAll(s)].map((e) => e.textContent), selector);
/** An id as the pages put it behind a prefix. */
const at = (prefix, id) => `#${prefix}${id}`;

/**
 * Resolves with an element's text, or an input's value, as soon as it says anything (that matches).
 */
const says = (p, selector, pattern = '.') =>
  p.until(`${selector} saying ${pattern}`, (x) => {
    const element = document.querySelector(x.selector);
    const text = element && (element.matches('input') ? element.value : element.textContent);
    return text && new RegExp(x.pattern).test(text) && text;
  }, { selector, pattern });

/** Resolves when so many elements match. */
const has = (p, selector, n) =>
  p.until(`${n} of ${selector}`, (x) => document.querySelectorAll(x.selector).length === x.n, {
    selector,
    n,
  });

/** Resolves when a video element has decoded and shown `more` frames from now on. */
async function shows(p, selector, more = 10) {
  const frames = (s) => e2e.frames(document.querySelector(s));
  await p.until(`${selector} on the page`, (s) => document.querySelector(s), selector);
  const now = await p.evaluate(frames, selector);
  await p.until(
    `${selector} playing`,
    (x) => e2e.frames(document.querySelector(x.selector)) >= x.enough,
    { selector, enough: now + more },
  );
}

/**
 * One connection to each of so many others carries pictures, and each decodes. Connections that are
 * only kept ready carry none.
 */
async function connected(p, others) {
  const all = await p.evaluate(() => Promise.all(e2e.open().map(e2e.report)));
  const reports = all.filter((r) => r.video.decoded > 0 || r.video.encoded > 0);
  assert.deepEqual(
    reports.map((r) => [r.state, r.video.decoded > 0]),
    Array(others).fill(['connected', true]),
    p.name,
  );
}

/** What a developer would see in the console: nothing. */
function quiet(...pages) {
  for (const p of pages) {
    assert.deepEqual(p.errors, [], `${p.name} threw`);
    assert.deepEqual(
      p.console.filter((line) => /^(error|warning|assert):/.test(line)),
      [],
      `${p.name}'s console`,
    );
  }
}

async function end(...pages) {
  quiet(...pages);
  await all(pages, (p) => p.close());
}

test('p2p: the page of the guide, one button a step, with msg.user.userId', async () => {
  const [host, guest] = await all(['host', 'guest'], (name) => open('p2p.html', name));
  const [hostId, guestId] = [await says(host, '#userId'), await says(guest, '#userId')];
  await click(host, '#createRoomBtn');
  const roomId = await says(host, '#roomIdInput');
  await fill(guest, '#roomIdInput', roomId);
  for (const p of [host, guest]) {
    await click(p, '#joinRoomBtn');
    await says(p, '#status', '입장 완료');
  }
  for (const [p, other] of [[host, guestId], [guest, hostId]]) {
    await click(p, at('send-', other));
    await says(p, at('send-', other), '전송 중');
  }
  for (const [p, other] of [[host, guestId], [guest, hostId]]) {
    await shows(p, at('multiVideo-', other));
    assert.equal(await count(p, 'video'), 1);
    await connected(p, 1);
  }
  await guest.close();
  await has(host, 'video', 0);
  await end(host);
});

test('members: boxes from for … in members and msg.user.id', async () => {
  const mina = await open('members.html?name=Mina', 'Mina');
  const room = await says(mina, '#roomName');
  const pages = [
    mina,
    ...(await all(['Jun', 'Sora'], (name) => open(`members.html?name=${name}&room=${room}`, name))),
  ];
  await all(pages, async (p) => {
    await says(p, '#count', '^3$');
    assert.equal(await says(p, '#hostName'), 'Mina');
    await all(pages, (q) => shows(p, at('video_', q.name)));
    assert.deepEqual((await texts(p, '.box p')).sort(), [
      'Jun (guest)',
      'Mina (host)',
      'Sora (guest)',
    ]);
    await connected(p, 2);
  });
  await pages[1].close();
  for (const p of [pages[0], pages[2]]) await says(p, '#count', '^2$');
  await end(pages[0], pages[2]);
});

test('strict: a second join or leave of the same user would throw', async () => {
  const a = await open('strict.html#id=anna', 'anna');
  await says(a, '#state', 'ready');
  await click(a, '#enter');
  await says(a, '#state', 'inside');
  const room = await says(a, '#room');
  const b = await open(`strict.html#id=bela&room=${room}`, 'bela');
  const together = async (p = b) => {
    await says(p, '#state', 'inside');
    await shows(a, '#person-bela video');
    await shows(p, '#person-anna video');
    for (const q of [a, p]) assert.equal(await count(q, 'li'), 1);
  };
  await together();

  // The guest goes and comes, the host does, the guest reloads, closes the tab and comes in
  // another.
  await click(b, '#exit');
  await says(b, '#state', 'ready');
  await has(a, 'li', 0);
  await click(b, '#enter');
  await together();
  await click(a, '#exit');
  await has(b, 'li', 0);
  await says(a, '#state', 'ready');
  await click(a, '#enter');
  await together();
  await b.page.reload();
  await together();
  quiet(b);
  await b.close();
  await has(a, 'li', 0);
  const again = await open(`strict.html#id=bela&room=${room}`, 'bela-again');
  await together(again);
  await end(a, again);
});

test('screen: shareStop before any share, and screenStart once per peer', async () => {
  const a = await open('screen.html?id=sa', 'sa');
  const room = await says(a, '#room');
  const b = await open(`screen.html?id=sb&room=${room}`, 'sb');
  await says(a, '#viewers', '^1$');
  await click(a, '#share');
  await says(a, '#notice', '^공유 중$');
  // Who comes late is sent the screen in the handler of join.
  const c = await open(`screen.html?id=sc&room=${room}`, 'sc');
  for (const p of [b, c]) {
    await shows(p, '#screen');
    await connected(p, 1);
  }
  assert.equal(await says(b, '#notice'), 'sa 님이 화면을 공유합니다');

  // Another one's press of the button neither shares nor stops what is shared.
  await click(b, '#share');
  await says(b, '#notice', '다른 사용자가 공유 중입니다');
  await shows(b, '#screen');
  await shows(c, '#screen');
  await click(a, '#stop');
  for (const p of [b, c])
    await p.until('without a screen', () => !document.querySelector('#screen').srcObject);

  await click(b, '#share');
  await says(b, '#notice', '^공유 중$');
  for (const p of [a, c]) {
    await shows(p, '#screen');
    assert.equal(await says(p, '#notice'), 'sb 님이 화면을 공유합니다', 'told once');
  }
  await b.close();
  for (const p of [a, c]) {
    await says(p, '#viewers', '^1$');
    await p.until('without a screen', () => !document.querySelector('#screen').srcObject);
  }
  await end(a, c);
});

test('chat: res.code, and JSON.stringify(e.detail) of every event', async () => {
  const a = await open('chat.html?id=ca', 'ca');
  const room = await says(a, '#room');
  const b = await open(`chat.html?id=cb&room=${room}`, 'cb');
  await says(b, '#room');
  // A page of the guide comes as well, and sends its camera.
  const c = await open('p2p.html', 'caller');
  const caller = await says(c, '#userId');
  await fill(c, '#roomIdInput', room);
  await click(c, '#joinRoomBtn');
  await click(c, '#send-ca');
  await shows(a, '#video');

  for (const text of ['안녕 <b>&amp;', 'How are you?']) {
    await fill(a, '#text', text);
    await click(a, '#send');
    await says(a, '#chat p:last-child', text.slice(0, 3));
  }
  await fill(b, '#text', 'only you');
  await fill(b, '#whisper', 'ca');
  await click(b, '#send');
  await says(a, '#chat p:last-child', 'only you');
  await click(a, '#wave');
  await says(b, '#chat p:last-child', 'ca: waves 3 times');
  // Nothing written is nothing to send.
  await fill(b, '#text', '');
  await fill(b, '#whisper', '');
  await click(b, '#send');
  await says(b, '#error', 'not sent: 421');
  assert.deepEqual(await texts(a, '#chat p'), [
    'me: 안녕 <b>&amp;',
    'me: How are you?',
    'cb: only you',
  ]);
  assert.deepEqual(await texts(b, '#chat p'), [
    'ca: 안녕 <b>&amp;',
    'ca: How are you?',
    'me: only you',
    'ca: waves 3 times',
  ]);

  quiet(c);
  await c.close();
  await says(a, '#log', '"type":"leave"');
  const log = async (p) =>
    (await says(p, '#log'))
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
  const seen = (await log(a)).filter((e) => e.type !== 'peerState');
  assert.deepEqual(seen.map((e) => [e.type, e.user?.id ?? e.user]), [
    ['join', 'cb'], ['join', caller], ['subscribed', caller], ['chat', 'cb'], ['leave', caller],
  ]);
  for (const e of await log(a)) {
    assert.equal(e.eventOp, 'presence');
    assert.equal(e.roomId, room);
    assert.equal(typeof e.sender, 'string');
  }
  await end(a, b);
});

test('group: createVideoRoom, publishVideo and subscribeVideo, with three users', async () => {
  const a = await open('group.html?id=ga', 'ga');
  const room = await says(a, '#roomId');
  const pages = [
    a,
    ...(await all(['gb', 'gc'], (id) => open(`group.html?id=${id}&room=${room}`, id))),
  ];
  await all(pages, async (p) => {
    await all(pages.filter((q) => q !== p), (q) => shows(p, `${at('user-', q.name)} video`));
    assert.equal(await count(p, '#remotes > div'), 2);
    await connected(p, 2);
  });
  // The fake microphones beep.
  await says(a, '#user-gc span', '말하는 중');
  await click(pages[2], '#leave');
  for (const p of pages.slice(0, 2)) await has(p, '#remotes > div', 1);
  await has(pages[2], '#remotes > div', 0);
  assert.equal(await pages[2].evaluate(() => e2e.open().length), 0);
  await shows(a, '#user-gb video');
  await end(...pages);
});

test('tab: users close the tab, navigate away and reload, without disconnect', async () => {
  const a = await open('tab.html', 'stays');
  await says(a, '#info', '^(?!connecting)');
  const hash = new URL(a.page.url()).hash;
  const guests = await all(['closes', 'leaves', 'reloads'], (name) =>
    open(`tab.html${hash}`, name),
  );
  const ids = await all(guests, (p) => says(p, '#info', '^(?!connecting)'));
  const [closes, leaves, reloads] = guests;
  for (const id of ids) await shows(a, at('tile-', id));
  await connected(a, 3);

  quiet(closes);
  await closes.close();
  await has(a, at('tile-', ids[0]), 0);
  await click(leaves, '#elsewhere');
  await has(a, at('tile-', ids[1]), 0);
  assert.equal(await says(leaves, '#info'), 'no call here');
  // Who came in as a stranger comes back as the same one: the tile goes, and comes.
  await a.evaluate((id) => document.getElementById(`tile-${id}`).classList.add('old'), ids[2]);
  await reloads.page.reload();
  await has(a, '.old', 0);
  await says(reloads, '#info', `^${ids[2]}$`);
  await shows(a, at('tile-', ids[2]));
  await shows(reloads, at('tile-', await says(a, '#info')));
  for (const p of [a, reloads]) assert.equal(await count(p, 'video'), 1);
  await end(a, leaves, reloads);
});

test('vue: an app built by Vite, with the SDK by script tag and in its data', async () => {
  const cwd = path.join(APPS, 'vue');
  const outDir = path.join(stage.dir, 'vue');
  await install(cwd);
  const { cpCode, authKey } = stage.license;
  const env = {
    ...process.env,
    VITE_KNOWLEDGETALK: stage.origin,
    VITE_CPCODE: cpCode,
    VITE_AUTHKEY: authKey,
  };
  await run('npm', ['run', 'build', '--', '--outDir', outDir, '--emptyOutDir'], { cwd, env });
  stage.pages.write('vue.html', fs.readFileSync(path.join(outDir, 'index.html'), 'utf8'));
  for (const name of fs.readdirSync(path.join(outDir, 'assets'))) {
    stage.pages.write(name, fs.readFileSync(path.join(outDir, 'assets', name), 'utf8'));
  }

  const [a, b] = await all(['vue-a', 'vue-b'], (name) => open('vue.html', name));
  const [aId, bId] = await all([a, b], (p) => says(p, 'h1'));
  await click(a, '#enter');
  await says(a, '#count', '^1$');
  const room = await says(a, '#room');
  await fill(b, '#room', room);
  const together = async () => {
    await click(b, '#enter');
    for (const [p, other] of [[a, bId], [b, aId]]) {
      await shows(p, at('video-', other));
      assert.equal(await says(p, '#count'), '2');
      assert.equal(await count(p, '#error'), 0);
      await connected(p, 1);
    }
  };
  await together();
  await click(b, '#leave');
  await says(a, '#count', '^1$');
  await together();
  // And with somebody whose page is of another style.
  const c = await open(`members.html?name=Vera&room=${room}`, 'Vera');
  await says(c, '#count', '^3$');
  for (const p of [a, b]) await shows(p, '#video-Vera');
  for (const id of [aId, bId]) await shows(c, at('video_', id));
  await end(a, b, c);
});

test("module: an app of modules, with the server's own /knowledgetalk.mjs", async () => {
  const a = await open('module.html', 'module-a');
  const [room, aId] = (await says(a, '#status')).split(' ');
  const b = await open(`module.html?room=${room}`, 'module-b');
  const [, bId] = (await says(b, '#status')).split(' ');
  await shows(a, at('video-', bId));
  await shows(b, at('video-', aId));
  // And with the guide's page, which sends when its user presses the button.
  const c = await open('p2p.html', 'module-guest');
  const cId = await says(c, '#userId');
  await fill(c, '#roomIdInput', room);
  await click(c, '#joinRoomBtn');
  await shows(c, at('multiVideo-', aId));
  await click(c, at('send-', aId));
  await shows(a, at('video-', cId));
  for (const p of [a, b, c]) assert.equal(await p.evaluate(() => e2e.open().length), 2);
  quiet(b);
  await b.close();
  for (const p of [a, c]) await has(p, 'video', 1);
  await end(a, c);
});

test('host: a host kicks guests, and takes away their permission to chat', async () => {
  const host = await open('host.html?id=teacher', 'teacher');
  const room = await says(host, '#room');
  const guest = await open(`host.html?id=pupil&room=${room}`, 'pupil');
  const stubborn = await open(`chat.html?id=stubborn&room=${room}`, 'stubborn');
  await shows(host, '#row-pupil video');
  await shows(guest, '#row-teacher video');
  assert.deepEqual([await says(host, '#role'), await says(guest, '#role')], ['host', 'guest']);
  assert.equal(await count(guest, '#class button'), 0);

  const say = async (p, text, answer) => {
    await fill(p, '#text', text);
    await click(p, '#say');
    await says(p, '#notice', answer);
  };
  await say(guest, 'I know!', '^said$');
  await says(host, '#chat p:last-child', '^pupil: I know!$');
  await click(host, '#chat-pupil');
  await says(host, '#notice', '^permit 200$');
  await say(guest, 'I know more!', '413');
  await click(host, '#chat-pupil');
  await host.until('given back', () => document.querySelector('#chat-pupil').checked);
  await say(host, 'Quiet, please', '^said$');
  await says(guest, '#chat p:last-child', '^teacher: Quiet, please$');
  await say(guest, 'Sorry', '^said$');
  assert.deepEqual(await texts(host, '#chat p'), ['pupil: I know!', 'pupil: Sorry']);

  await click(host, '#kick-pupil');
  await says(host, '#notice', '^kickOut 200$');
  await says(guest, '#notice', 'asked to leave');
  await has(host, '#row-pupil', 0);
  assert.equal(await guest.evaluate(() => e2e.open().length), 0);
  // He may not come again for ten minutes, though he went by himself; and who does not go is put
  // out.
  await click(guest, '#back');
  await says(guest, '#notice', '^joinRoom 413$');
  await click(host, '#kick-stubborn');
  await has(host, '#row-stubborn', 0);
  await says(stubborn, '#log', '"type":"kickOut"');
  await says(
    stubborn,
    '#log',
    '"type":"leave".*"user":"stubborn"|"user":"stubborn".*"type":"leave"',
  );
  await fill(stubborn, '#text', 'I am still here');
  await click(stubborn, '#send');
  await says(stubborn, '#error', '^not sent: 410$');
  await end(host, guest, stubborn);
});

/** Installs an app's packages as its lock file says, unless they are there. */
async function install(cwd) {
  const stamp = (name) =>
    fs.existsSync(path.join(cwd, name)) ? fs.statSync(path.join(cwd, name)).mtimeMs : 0;
  if (stamp('node_modules/.package-lock.json') > stamp('package-lock.json')) return;
  await run('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--silent'], { cwd });
}
