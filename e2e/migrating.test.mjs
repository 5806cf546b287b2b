// docs/migrating.md, where it is about what a page of the original meets here: names, answers and
// addresses. What methods do has tests of its own; internal/testdata/migrating.json says which.

import { after, afterEach, before, test } from 'node:test';
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { call } from './lib/call.mjs';
import { gather, paint, shows } from './lib/media.mjs';
import { Stage } from './lib/stage.mjs';
import { ROOT } from './lib/work.mjs';
import { RawSocket } from './lib/ws.mjs';

let stage;
before(async () => (stage = await Stage.up('migrating')));
afterEach((t) => stage.after(t));
after(() => stage?.down());

const { methods } = JSON.parse(
  fs.readFileSync(path.join(ROOT, 'internal/testdata/migrating.json'), 'utf8'),
);
const names = Object.keys(methods).filter((name) => !name.startsWith('new '));
const missing = names.filter((name) => methods[name].claims.includes('missing'));

test('every documented method exists', async () => {
  const p = await stage.open('app.html', { name: 'names' });
  const absent = await p.evaluate(
    (all) => all.filter((name) => typeof new Knowledgetalk()[name] !== 'function'),
    names,
  );
  assert.deepEqual(absent, []);
  await p.close();
});

test('unsupported methods resolve, and throw nothing', async () => {
  const { pages: [a, b] } = await gather(stage, ['draws', 'watches']);
  const answers = await a.evaluate(async (all) => {
    const canvas = document.body.appendChild(document.createElement('canvas'));
    const given = {
      setTool: ['pen', 'black', 1],
      reqCanvasImage: ['watches'],
      documentShare: ['https://x.example/a.png'],
    };
    const got = {};
    for (const name of all) got[name] = await k[name](...(given[name] ?? [canvas]));
    return got;
  }, missing);
  const refused = { documentStart: '405', documentShare: '405', reqCanvasImage: '405' };
  for (const name of missing) {
    const answer = answers[name];
    if (refused[name])
      assert.deepEqual(
        [answer.code, typeof answer.message, typeof answer.hint],
        ['405', 'string', 'string'],
        name,
      );
    else
      assert.ok(
        answer === false || answer === undefined || answer === null,
        `${name}: ${JSON.stringify(answer)}`,
      );
  }
  assert.deepEqual(
    await b.evaluate(() => app.events.filter((e) => ['whiteboard', 'document'].includes(e.type))),
    [],
  );
  await call(a, b);
  for (const p of [a, b]) {
    assert.deepEqual(p.errors, []);
    await p.close();
  }
});

test('raw clients get a code for unsupported operations', async () => {
  const s = await RawSocket.open(`ws://${stage.server.host}/signal`);
  assert.equal((await s.ask({ eventOp: 'register', ...stage.license, userId: 'raw' })).code, '200');
  for (const eventOp of [
    'whiteboard',
    'document',
    'documentShare',
    'drawing',
    'reqCanvasImage',
    'updateImage',
  ]) {
    assert.equal((await s.ask({ eventOp })).code, '404', eventOp);
  }
  assert.equal((await s.ask({ eventOp: 'sdpRoom' })).code, '405');
  s.destroy();
});

test('unsupported addresses of the original product are 404, all others work', async () => {
  for (const [address, status] of [
    ['/uncompressed/privacyMode.js', 404],
    ['/uncompressed/knowledgetalk.js', 404],
    ['/knowledgetalk.min.js', 200],
    ['/knowledgetalk.mjs', 200],
    ['/knowledgetalk.d.ts', 200],
    ['/socket.io/socket.io.min.js', 200],
  ])
    assert.equal((await fetch(stage.server.origin + address)).status, status, address);
});

test('joinRoom resolves with the original fields and the documented capacity', async () => {
  const p = await stage.open('app.html', { name: 'joins' });
  await p.evaluate(() => app.init('joins'));
  for (const [make, capacity] of [['createRoom', 16], ['createVideoRoom', 8]]) {
    const room = await p.evaluate(async (method) => {
      const { roomId } = await k[method]();
      const joined = await k.joinRoom(roomId);
      await k.leaveRoom();
      return { ...joined, members: Object.keys(joined.members) };
    }, make);
    const { code, isRecording, fileServerUrl, members, media, host } = room;
    assert.deepEqual(
      { code, isRecording, fileServerUrl, members, media, capacity: room.capacity, host: host.id },
      {
        code: '200',
        isRecording: false,
        fileServerUrl: '',
        members: ['joins'],
        media: make === 'createVideoRoom',
        capacity,
        host: 'joins',
      },
    );
    assert.match(room.createdAt, /^\d{4}\/\d\d\/\d\d \d\d:\d\d:\d\d$/);
    for (const field of ['group', 'share']) assert.ok(!(field in room), field);
  }
  await p.close();
});

test('both spellings call the same method', async () => {
  const {
    pages: [a, b],
    roomId,
  } = await gather(stage, ['spells', 'reads'], () => k.createVideoRoom());
  await a.evaluate(() => k.leaveRoom());
  assert.deepEqual(
    await a.evaluate(async (r) => Object.keys((await k.joinroom(r)).members), roomId),
    ['reads', 'spells'],
  );
  assert.equal(await a.evaluate(async () => k.publishvideo('cam', await app.camera())), true);
  assert.equal(
    await b.evaluate(async () => Boolean(await k.subscribeVideo('spells', 'cam'))),
    true,
  );
  await shows(b, 'spells', 'cam');
  for (const p of [a, b]) await p.close();
});

test('a canvas given to screenStart is ignored', async () => {
  const { pages: [a, b] } = await gather(stage, ['shares', 'looks']);
  await paint(a);
  const [code, before, now] = await a.evaluate(async () => {
    // In no document: the original's canvasInit would throw.
    const canvas = document.createElement('canvas');
    const blank = canvas.toDataURL();
    return [(await k.screenStart(screenStream, undefined, canvas)).code, blank, canvas.toDataURL()];
  });
  assert.equal(code, '200');
  assert.equal(now, before);
  await shows(b, 'shares', 'screen');
  for (const p of [a, b]) await p.close();
});
