// The promise of the whole product: the guide's five steps in an otherwise empty page make a call.

import { after, afterEach, before, test } from 'node:test';
import assert from 'node:assert/strict';
import { survivesReloads } from './lib/reloads.mjs';
import { Stage } from './lib/stage.mjs';

let stage;
before(async () => {
  stage = await Stage.up('call');
  // Browsers ask for it by themselves, and write to the console when it is missing.
  stage.pages.write('favicon.ico', '');
});
afterEach((t) => stage.after(t));
after(() => stage?.down());

test('the five steps of the guide make a call, with video both ways', async () => {
  assert.notEqual(stage.pages.origin, stage.server.origin);
  const host = await stage.open('guide.html', { name: 'host' });
  const hostTitle = await host.until('in its room', () => document.title);
  const [roomId, hostId] = hostTitle.split(' ');
  assert.match(roomId, /^K[0-9A-HJKMNP-TV-Z]{12}$/);

  const guest = await stage.open(`guide.html#${roomId}`, { name: 'guest' });
  const [, guestId] = (await guest.until('in the room', () => document.title)).split(' ');

  for (const [page, other] of [[host, guestId], [guest, hostId]]) {
    const playing = (id) => e2e.frames(document.getElementById(`multiVideo-${id}`));
    const first = await page.until('showing the other', playing, other);
    await page.until(
      'going on',
      (x) => e2e.frames(document.getElementById(`multiVideo-${x.id}`)) >= x.first + 30,
      { id: other, first },
    );
    const reports = await page.evaluate(async () => Promise.all(e2e.open().map(e2e.report)));
    assert.equal(reports.length, 1, 'one connection between the two');
    assert.equal(reports[0].state, 'connected');
    // On a busy machine the call may have gone over the second connection for a while.
    const all = await page.evaluate(() => e2e.reports());
    const decoded = all.reduce((n, r) => n + (r?.video.decoded ?? 0), 0);
    assert.ok(decoded >= 30, JSON.stringify(all));
    assert.deepEqual(page.errors, []);
  }

  // The guest's tab goes: the host's strict handler takes exactly one box away.
  await guest.close();
  await host.until('alone', () => document.querySelectorAll('video').length === 0);
  assert.deepEqual(host.errors, []);
});

/** The code of /guide in a language, as a page of the app's own site. */
async function guideCode(lang) {
  const page = await stage.browser.open(`${stage.server.origin}/guide?lang=${lang}`);
  const filledIn = (key) => document.querySelector('[data-fill="authKey"]')?.textContent === key;
  await page.until('filled in', filledIn, stage.license.authKey);
  const code = await page.evaluate(() =>
    [...document.querySelectorAll('code[data-step]')].map((c) => c.textContent).join('\n'),
  );
  await page.close();
  assert.ok(code.includes(`${stage.server.origin}/knowledgetalk.min.js`));
  stage.pages.write(`copied-${lang}.html`, code);
  return code;
}

test('the code of /guide in an empty page makes a call and survives reloads', async () => {
  await guideCode('en');
  const host = await stage.open('copied-en.html', { name: 'host-en' });
  const roomId = await host.until('in its room', () => location.hash.slice(1));
  const guest = await stage.open(`copied-en.html#${roomId}`, { name: 'guest-en' });
  for (const page of [host, guest]) {
    const playing = () => e2e.frames(document.querySelector('video')) > 30;
    await page.until('showing the other', playing);
    assert.equal(await page.evaluate(() => document.querySelectorAll('video').length), 1);
    assert.deepEqual(page.errors, []);
  }
  await guest.close();
  await host.until('alone', () => document.querySelectorAll('video').length === 0);
  assert.deepEqual(host.errors, []);
  await host.close();

  const open = (hash, name) => stage.open(`copied-en.html${hash}`, { name: `${name}-again` });
  await survivesReloads(open, 'video');
});

test('the Korean code of /guide differs in its words only, and enters a room', async () => {
  const [en, ko] = [await guideCode('en'), await guideCode('ko')];
  const withoutWords = (code) => code
    .replace(/<!--.*-->|^ *\/\/.*$|<title>.*<\/title>|lang="\w+"/gm, '')
    .replace(/console\.warn\('[^']*'/, 'console.warn(');
  assert.notEqual(ko, en);
  assert.equal(withoutWords(ko), withoutWords(en));
  const page = await stage.open('copied-ko.html', { name: 'host-ko' });
  await page.until('in its room', () => location.hash.slice(1));
  assert.deepEqual(page.errors, []);
  await page.close();
});

test('the five steps in the style of other apps survive reloads', async () => {
  await survivesReloads((hash, name) => stage.open(`guide.html${hash}`, { name }), 'video');
});

test('a room that cannot be created is reported, and not put into the address', async () => {
  const page = await stage.open(`copied-en.html#${'x'.repeat(129)}`, { name: 'refused' });
  await page.until('told', () => /^422 /.test(document.body.textContent.trim()));
  assert.match(page.errors.join(), /roomId/);
  assert.equal(await page.evaluate(() => location.hash.length), 130);
  await page.close();
});
