// The sample pages as a newcomer uses them, and what tabs of one browser share: the same origin,
// the same storage, never the same user.

import { after, afterEach, before, test } from 'node:test';
import assert from 'node:assert/strict';
import { call, meet } from './lib/call.mjs';
import { Stage } from './lib/stage.mjs';
import { until } from './lib/wait.mjs';

let stage;
before(async () => (stage = await Stage.up('sample')));
afterEach((t) => stage.after(t));
after(() => stage?.down());

const site = (path) => stage.server.origin + path;
const value = (name) => document.querySelector(`[data-value="${name}"]`)?.textContent.trim();

/** Starts the call of /sample and resolves when both frames have decoded a while. */
async function running(page) {
  await page.page.click('[data-action="start"]');
  await page.until(
    'running',
    () => document.querySelector('.console').dataset.result === 'running',
  );
  const enough = () => {
    const { framesA, framesB } = document.querySelector('.console').dataset;
    return Number(framesA) > 30 && Number(framesB) > 30;
  };
  await page.until('decoding in both frames', enough);
  return page.evaluate(() => ({ ...document.querySelector('.console').dataset }));
}

const users = (page) => Promise.all(['a', 'b'].map(async (side) => {
  const frame = await (await page.page.$(`iframe[data-side="${side}"]`)).contentFrame();
  return frame.evaluate(value, 'user');
}));

test('/sample: two frames of one page call each other, and say that it is direct', async () => {
  const page = await stage.browser.open(site('/sample?lang=en'), { name: 'sample' });
  const result = await running(page);
  assert.equal(result.path, 'direct');
  assert.match(result.candidates, /^(host|srflx|prflx)–(host|srflx|prflx)$/);
  assert.match(
    await page.evaluate(() => document.querySelector('.console .result').textContent),
    /direct/i,
  );
  // Each sends sound, and neither plays it: they would hear themselves.
  for (const side of ['a', 'b']) {
    const frame = await (await page.page.$(`iframe[data-side="${side}"]`)).contentFrame();
    const sound = await frame.evaluate(() => {
      const video = document.querySelector('[data-member] video');
      return [
        document.querySelector('[data-self]').dataset.microphone,
        video.srcObject.getAudioTracks().length,
        video.muted,
      ];
    });
    assert.deepEqual(sound, ['on', 1, true]);
    await frame.click('[data-action="sound"]');
    assert.equal(
      await frame.evaluate(() => document.querySelector('[data-member] video').muted),
      false,
    );
  }
  const [a, b] = await users(page);
  assert.ok(a && b && a !== b, `users ${a} and ${b}`);
  // Once more: both leave and come back, still two.
  await page.page.click('[data-action="end"]');
  await page.until('ended', () => document.querySelector('.console').dataset.result === 'idle');
  await running(page);
  assert.deepEqual(page.errors, []);
  await page.close();
});

// In Korean; the row before has the English words.
test('/sample says that a relayed call is relayed', async () => {
  const page = await stage.browser.open('about:blank', { name: 'relayed' });
  await page.page.addInitScript(() => {
    const Plain = RTCPeerConnection;
    window.RTCPeerConnection = class extends Plain {
      constructor(config) {
        super({ ...config, iceTransportPolicy: 'relay' });
      }
    };
  });
  await page.goto(site('/sample?lang=ko'));
  const before = JSON.parse(await stage.server.get('/dev/stats')).relay;
  const result = await running(page);
  assert.equal(result.path, 'relayed');
  assert.match(result.candidates, /relay/);
  const text = () => document.querySelector('.console .result').textContent;
  assert.match(await page.evaluate(text), /릴레이/);
  const after = JSON.parse(await stage.server.get('/dev/stats')).relay;
  for (const way of ['ClientToPeer', 'PeerToClient']) {
    assert.ok(after[way].Bytes > before[way].Bytes, `the relay itself has counted ${way}`);
  }
  await page.close();
});

/** What a page's box of another shows and hears. */
const other = () => {
  const box = document.querySelector('[data-member]');
  const video = box?.querySelector('video');
  return box && {
    name: box.querySelector('[data-value="name"]').textContent,
    muted: !box.querySelector('[data-value="muted"]').hidden,
    frames: e2e.frames(video),
    heard: !video.muted && video.srcObject?.getAudioTracks().length === 1,
  };
};
const own = () => ({ ...document.querySelector('[data-self]').dataset });

/** Resolves when p shows the other one moving, and under this name. */
async function showsOther(p, name) {
  const before = (await p.evaluate(other))?.frames ?? 0;
  await p.until(
    `showing ${name}`,
    (x) => {
      const video = document.querySelector('[data-member] video');
      const named =
        document.querySelector('[data-member] [data-value="name"]')?.textContent === x.name;
      return named && e2e.frames(video) > (x.before > e2e.frames(video) ? 10 : x.before + 10);
    },
    { name, before },
  );
}

/** Sound energy that p has received so far, of all connections. */
const energy = async () => {
  let sum = 0;
  for (const pc of e2e.open()) {
    (await pc.getStats()).forEach((s) => {
      if (s.type === 'inbound-rtp' && s.kind === 'audio') sum += s.totalAudioEnergy ?? 0;
    });
  }
  return sum;
};

/** Resolves when p has heard something from now on. */
async function hears(p) {
  const before = await p.evaluate(energy);
  await until(
    `${p.name} hearing the other`,
    async () => (await p.evaluate(energy)) > before + 1e-4,
  );
}

/**
 * Resolves when p hears nothing while video goes on. Sound under way, and what the receiver makes
 * up for missing packets, ends after a while; then there must be no more.
 */
async function silence(p, name) {
  const added = async () => {
    const before = await p.evaluate(energy);
    await showsOther(p, name);
    return (await p.evaluate(energy)) - before;
  };
  await until(`${p.name} hearing nothing`, async () => (await added()) < 1e-6);
  for (let i = 0; i < 3; i++) assert.ok((await added()) < 1e-6, 'a muted microphone is heard');
}

/** Opens /p2p twice, in one call, with camera and microphone. */
async function inACall(query = '?lang=en') {
  const host = await stage.browser.open(site(`/p2p${query}`), { name: 'host' });
  await host.page.fill('#name', 'Anna');
  await host.page.click('[data-action="create"]');
  const roomId = await host.until('in a room', value, 'room');
  const guest = await stage.browser.open(site(`/p2p${query}&room=${roomId}`), { name: 'guest' });
  await guest.page.fill('#name', 'Ben');
  await guest.page.click('[data-action="join"]');
  await guest.until('in the room', value, 'room');
  for (const p of [host, guest]) await p.page.click('[data-self] [data-action="camera"]');
  await showsOther(host, 'Ben');
  await showsOther(guest, 'Anna');
  return { host, guest, roomId };
}

test('/p2p: sound is on with the camera, muting is shown, voice needs no camera', async () => {
  const { host, guest } = await inACall();
  for (const p of [host, guest]) {
    assert.deepEqual(await p.evaluate(own), { self: '', camera: 'camera', microphone: 'on' });
    assert.equal((await p.evaluate(other)).heard, true);
    await hears(p);
  }
  await guest.page.click('[data-action="microphone"]');
  await host.until(
    'told that the other is muted',
    () => !document.querySelector('[data-member] [data-value="muted"]').hidden,
  );
  await silence(host, 'Ben');

  await guest.page.click('[data-self] [data-action="camera"]');
  await host.until(
    'voice alone',
    () => document.querySelector('[data-member]').dataset.video === 'no',
  );
  assert.deepEqual(await guest.evaluate(own), { self: '', camera: 'off', microphone: 'muted' });
  await guest.page.click('[data-action="microphone"]');
  await host.until(
    'told that the other speaks',
    () => document.querySelector('[data-member] [data-value="muted"]').hidden,
  );
  await hears(host);
  for (const p of [host, guest]) assert.deepEqual(p.errors, []);
  await Promise.all([host.close(), guest.close()]);
});

test('/p2p: a user who was muted at the end of a call is heard in the next', async () => {
  const { host, guest } = await inACall();
  await guest.page.click('[data-action="microphone"]');
  await host.until(
    'told that the other is muted',
    () => !document.querySelector('[data-member] [data-value="muted"]').hidden,
  );
  await guest.page.click('[data-action="leave"]');
  await host.until('alone', () => !document.querySelector('[data-member]'));
  await guest.page.fill('#roomId', await host.evaluate(value, 'room'));
  await guest.page.click('[data-action="join"]');
  await guest.until('in the room', value, 'room');
  await guest.page.click('[data-self] [data-action="camera"]');
  await showsOther(host, 'Ben');
  assert.deepEqual(await guest.evaluate(own), { self: '', camera: 'camera', microphone: 'on' });
  await hears(host);
  await host.until(
    'told that the other speaks',
    () => document.querySelector('[data-member] [data-value="muted"]').hidden,
  );
  for (const p of [host, guest]) assert.deepEqual(p.errors, []);
  await Promise.all([host.close(), guest.close()]);
});

test('/p2p: a reload during a call restores name, room, camera and microphone', async () => {
  const { host, guest, roomId } = await inACall();
  const id = await guest.evaluate(value, 'user');
  await guest.page.click('[data-action="microphone"]');
  await guest.page.reload();
  await guest.until(
    'back in the room',
    (r) => document.querySelector('[data-value="room"]').textContent === r,
    roomId,
  );
  await showsOther(guest, 'Anna');
  await showsOther(host, 'Ben');
  await guest.until('all as before', () =>
    JSON.stringify(document.querySelector('[data-self]').dataset).includes('"camera":"camera"'),
  );
  assert.deepEqual(await guest.evaluate(own), { self: '', camera: 'camera', microphone: 'muted' });
  assert.equal(await guest.evaluate(value, 'user'), id);
  await host.until(
    'told that the other is still muted',
    () => !document.querySelector('[data-member] [data-value="muted"]').hidden,
  );

  // Alone, the reload has ended the room: it is there again under its id, for those who have the
  // link.
  await guest.page.click('[data-action="leave"]');
  await host.until('alone', () => !document.querySelector('[data-member]'));
  await host.page.reload();
  await host.until(
    'back in the room',
    (r) => document.querySelector('[data-value="room"]').textContent === r,
    roomId,
  );
  await host.until(
    'sending again',
    () => document.querySelector('[data-self]').dataset.microphone === 'on',
  );
  assert.deepEqual(await host.evaluate(own), { self: '', camera: 'camera', microphone: 'on' });

  // In another language it is the same call; who has left, or comes by a link, is asked first.
  await Promise.all([host.page.waitForURL(/lang=ko/), host.page.click('[data-action="language"]')]);
  await host.until(
    'back in the room',
    (r) => document.querySelector('[data-value="room"]').textContent === r,
    roomId,
  );
  await guest.page.reload();
  await guest.page.fill('#roomId', roomId);
  await guest.page.click('[data-action="join"]');
  await showsOther(guest, 'Anna');
  for (const p of [host, guest]) assert.deepEqual(p.errors, []);
  await Promise.all([host.close(), guest.close()]);
});

test('/p2p: host hints are hidden from guests, and stop buttons before a start', async () => {
  const host = await stage.browser.open(site('/p2p?lang=en'), { name: 'host' });
  await host.page.click('[data-action="create"]');
  const roomId = await host.until('in a room', value, 'room');
  const guest = await stage.browser.open(site(`/p2p?lang=en&room=${roomId}`), { name: 'guest' });
  await guest.page.click('[data-action="join"]');
  await guest.until('in the room', value, 'room');
  const shown = (selector) => document.querySelector(selector).checkVisibility();
  assert.deepEqual(
    [
      await host.evaluate(shown, '[data-part="local-only"]'),
      await guest.evaluate(shown, '[data-part="local-only"]'),
    ],
    [true, false],
  );
  for (const p of [host, guest]) {
    await p.until('showing the other', () => document.querySelector('[data-member]'));
    assert.deepEqual(
      [
        await p.evaluate(shown, '[data-action="stop"]'),
        await p.evaluate(shown, '[data-action="send"]'),
      ],
      [false, true],
    );
    // An unnamed user is called by the end of the id, once.
    assert.match(
      await p.evaluate(() => document.querySelector('[data-member] h3').textContent.trim()),
      /^User …[0-9A-Z]{4}$/,
    );
  }
  for (const p of [host, guest]) await p.close();
});

test('/p2p: a duplicated tab is another user in the same room', async () => {
  const host = await stage.browser.open(site('/p2p?lang=en'), { name: 'host' });
  await host.page.click('[data-action="create"]');
  const roomId = await host.until('in a room', value, 'room');
  const guest = await stage.browser.open(await host.page.inputValue('#invite'), { name: 'guest' });
  await guest.page.click('[data-action="join"]');
  await guest.until('in the room', value, 'room');
  const first = await guest.evaluate(value, 'user');

  // window.open copies the tab's session storage, as duplicating a tab does.
  const [tab] = await Promise.all([
    guest.page.waitForEvent('popup'),
    guest.page.evaluate(() => void window.open(location.href)),
  ]);
  await tab.waitForLoadState();
  await tab.click('[data-action="join"]');
  await tab.waitForFunction(value, 'room');
  const second = await tab.evaluate(value, 'user');
  assert.ok(second && second !== first, `${second} beside ${first}`);
  assert.equal(await tab.evaluate(value, 'room'), roomId);
  for (const id of [first, second])
    await host.until(`showing ${id}`, (x) => document.querySelector(`[data-member="${x}"]`), id);
  assert.equal(await guest.evaluate(value, 'user'), first, 'the first tab is still itself');
  await Promise.all([host.close(), guest.page.context().close()]);
});

test('a reload is one leave and one join for the others, and keeps the user id', async () => {
  for (const wish of ['reloading', undefined]) {
    const { a, b, roomId } = await meet(stage, ['watcher', 'reloaded']);
    if (!wish) {
      // The server's choice of id must come back too.
      await b.page.reload();
      b.id = await b.evaluate(() => app.init());
      await b.evaluate((r) => app.join(r), roomId);
    }
    await call(a, b);
    await a.evaluate(() => (app.events.length = 0));
    for (let i = 1; i <= 3; i++) {
      await b.page.reload();
      const id = await b.evaluate((w) => app.init(w), wish && b.id); // throws unless 200
      assert.equal(id, b.id);
      // This, too, throws unless 200.
      assert.deepEqual(await b.evaluate((r) => app.join(r), roomId), [a.id, b.id]);
      await a.until(`told of return ${i}`, (x) => app.count('join', x.id) === x.i, { id: b.id, i });
      await call(a, b);
    }
    const told = ['leave', 'join', 'subscribed'];
    const types = (x) =>
      app.events
        .filter((e) => x.told.includes(e.type) && (e.user.userId ?? e.user) === x.id)
        .map((e) => e.type);
    const story = await a.evaluate(types, { id: b.id, told });
    assert.deepEqual(story, [...told, ...told, ...told]);
    assert.equal(await a.evaluate(() => e2e.open().length), 1);
    await Promise.all([a.close(), b.close()]);
  }
});

test('a duplicated tab does not take the user id from the tab that returned first', async () => {
  const { a, b, roomId } = await meet(stage, ['keeper', 'original']);
  // The user browses on: the page's right to its id now lies in the tab's storage. Then the tab is
  // duplicated, and both go back.
  await b.goto(`${stage.pages.origin}/empty.html`);
  const [copy] = await Promise.all([
    b.page.waitForEvent('popup'),
    b.page.evaluate(() => void window.open(location.href)),
  ]);
  await copy.waitForLoadState();
  await b.goto(`${stage.pages.origin}/app.html`);
  assert.equal(await b.evaluate(() => app.init('original')), 'original');
  await b.evaluate((r) => app.join(r), roomId);
  await copy.goto(`${stage.pages.origin}/app.html`);
  const outcome = await copy.evaluate(() => app.init().catch((e) => e.message));
  assert.match(outcome, /^U[0-9A-Z]{12}$/, 'without a wish the copy gets an id of its own');
  assert.deepEqual(await copy.evaluate((r) => app.join(r), roomId), [
    'keeper',
    'original',
    outcome,
  ]);
  await copy.goto(`${stage.pages.origin}/empty.html`);
  await copy.goto(`${stage.pages.origin}/app.html`);
  const wished = await copy.evaluate(() =>
    app.init('original').then(
      (id) => `got ${id}`,
      (e) => e.message,
    ),
  );
  assert.match(wished, /409/, 'and with one it is refused');
  // The one who came back was not disturbed.
  await call(a, b);
  assert.equal(await b.evaluate(() => k.getUserId()), 'original');
  await Promise.all([a.close(), b.page.context().close()]);
});
