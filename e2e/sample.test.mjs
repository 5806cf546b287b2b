// The sample pages as a newcomer uses them, and what tabs of one browser share: the same origin, the same storage, never the same user.

import { after, afterEach, before, test } from 'node:test';
import assert from 'node:assert/strict';
import { call, meet } from './lib/call.mjs';
import { Stage } from './lib/stage.mjs';

let stage;
before(async () => (stage = await Stage.up('sample')));
afterEach((t) => stage.after(t));
after(() => stage?.down());

const site = (path) => stage.server.origin + path;
const value = (name) => document.querySelector(`[data-value="${name}"]`)?.textContent.trim();

/** Starts the call of /sample and resolves when both frames have decoded a while. */
async function running(page) {
  await page.page.click('[data-action="start"]');
  await page.until('running', () => document.querySelector('.console').dataset.result === 'running');
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

test('/sample: two frames of one origin hold two users, call each other and say that it is direct', async () => {
  const page = await stage.browser.open(site('/sample?lang=en'), { name: 'sample' });
  const result = await running(page);
  assert.equal(result.path, 'direct');
  assert.match(result.candidates, /^(host|srflx|prflx)–(host|srflx|prflx)$/);
  assert.match(await page.evaluate(() => document.querySelector('.console .result').textContent), /direct/i);
  const [a, b] = await users(page);
  assert.ok(a && b && a !== b, `users ${a} and ${b}`);
  // Once more: both leave and come back, still two.
  await page.page.click('[data-action="end"]');
  await page.until('ended', () => document.querySelector('.console').dataset.result === 'idle');
  await running(page);
  assert.deepEqual(page.errors, []);
  await page.close();
});

test('/sample says that a call is relayed when it is, in both languages', async () => {
  for (const [lang, word] of [['en', /relayed/i], ['ko', /중계/]]) {
    const page = await stage.browser.open('about:blank', { name: `relayed-${lang}` });
    await page.page.addInitScript(() => {
      const Plain = RTCPeerConnection;
      window.RTCPeerConnection = class extends Plain {
        constructor(config) {
          super({ ...config, iceTransportPolicy: 'relay' });
        }
      };
    });
    await page.goto(site(`/sample?lang=${lang}`));
    const before = JSON.parse(await stage.server.get('/dev/stats')).relay;
    const result = await running(page);
    assert.equal(result.path, 'relayed');
    assert.match(result.candidates, /relay/);
    assert.match(await page.evaluate(() => document.querySelector('.console .result').textContent), word);
    const after = JSON.parse(await stage.server.get('/dev/stats')).relay;
    for (const way of ['ClientToPeer', 'PeerToClient']) assert.ok(after[way].Bytes > before[way].Bytes, `the relay itself has counted ${way}`);
    await page.close();
  }
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
  const [tab] = await Promise.all([guest.page.waitForEvent('popup'), guest.page.evaluate(() => void window.open(location.href))]);
  await tab.waitForLoadState();
  await tab.click('[data-action="join"]');
  await tab.waitForFunction(value, 'room');
  const second = await tab.evaluate(value, 'user');
  assert.ok(second && second !== first, `${second} beside ${first}`);
  assert.equal(await tab.evaluate(value, 'room'), roomId);
  for (const id of [first, second]) await host.until(`showing ${id}`, (x) => document.querySelector(`[data-member="${x}"]`), id);
  assert.equal(await guest.evaluate(value, 'user'), first, 'the first tab is still itself');
  await Promise.all([host.close(), guest.page.context().close()]);
});

test('a reload is a leave and a join for the others, and for itself the same id without 409 or 442', async () => {
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
      assert.deepEqual(await b.evaluate((r) => app.join(r), roomId), [a.id, b.id]); // throws unless 200
      await a.until(`told of return ${i}`, (x) => app.count('join', x.id) === x.i, { id: b.id, i });
      await call(a, b);
    }
    const told = ['leave', 'join', 'subscribed'];
    const types = (x) => app.events.filter((e) => x.told.includes(e.type) && (e.user.userId ?? e.user) === x.id).map((e) => e.type);
    const story = await a.evaluate(types, { id: b.id, told });
    assert.deepEqual(story, [...told, ...told, ...told]);
    assert.equal(await a.evaluate(() => e2e.open().length), 1);
    await Promise.all([a.close(), b.close()]);
  }
});

test('a tab duplicated with the left-behind right to an id does not take it from the one who came back first', async () => {
  const { a, b, roomId } = await meet(stage, ['keeper', 'original']);
  // The user browses on: the page's right to its id now lies in the tab's storage. Then the tab is duplicated, and both go back.
  await b.goto(`${stage.pages.origin}/empty.html`);
  const [copy] = await Promise.all([b.page.waitForEvent('popup'), b.page.evaluate(() => void window.open(location.href))]);
  await copy.waitForLoadState();
  await b.goto(`${stage.pages.origin}/app.html`);
  assert.equal(await b.evaluate(() => app.init('original')), 'original');
  await b.evaluate((r) => app.join(r), roomId);
  await copy.goto(`${stage.pages.origin}/app.html`);
  const outcome = await copy.evaluate(() => app.init().catch((e) => e.message));
  assert.match(outcome, /^U[0-9A-Z]{12}$/, 'without a wish the copy gets an id of its own');
  assert.deepEqual(await copy.evaluate((r) => app.join(r), roomId), ['keeper', 'original', outcome]);
  await copy.goto(`${stage.pages.origin}/empty.html`);
  await copy.goto(`${stage.pages.origin}/app.html`);
  const wished = await copy.evaluate(() => app.init('original').then((id) => `got ${id}`, (e) => e.message));
  assert.match(wished, /409/, 'and with one it is refused');
  // The one who came back was not disturbed.
  await call(a, b);
  assert.equal(await b.evaluate(() => k.getUserId()), 'original');
  await Promise.all([a.close(), b.page.context().close()]);
});
