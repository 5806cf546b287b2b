// What a broken or hostile client sends gets the documented code or close code, and nobody else
// notices: all the while two browsers are in a call with each other.

import { after, afterEach, before, test } from 'node:test';
import assert from 'node:assert/strict';
import net from 'node:net';
import { call, flowing, meet, seen } from './lib/call.mjs';
import { Stage } from './lib/stage.mjs';
import { LIMIT, until, within } from './lib/wait.mjs';
import { BINARY, RawSocket, TEXT } from './lib/ws.mjs';

let stage, bystanders, baseline, halfOpen;

before(async () => {
  // A session that was lost is to end soon after its connection.
  stage = await Stage.up('malformed', { args: ['--resume-window', '1s'] });
  const { a, b } = await meet(stage, ['bystander-a', 'bystander-b']);
  await call(a, b);
  bystanders = [a, b];
  baseline = await Promise.all([seen(a, b), seen(b, a)]);
  halfOpen = halfOpenConnections();
  halfOpen.catch(() => {}); // told by its test
});

afterEach(async (t) => {
  await stage.after(t, { close: false }); // the bystanders go on
  const [a, b] = bystanders;
  await flowing(a, b);
  await flowing(b, a);
  assert.deepEqual(
    await Promise.all([seen(a, b), seen(b, a)]),
    baseline,
    'the call in the same server has noticed something',
  );
  assert.equal(await a.evaluate(async () => (await k.memberList()).code), '200');
  assert.deepEqual([a.errors, b.errors], [[], []]);
});

after(() => stage?.down());

const stats = async () => JSON.parse(await stage.server.get('/dev/stats'));
const open = (headers) => RawSocket.open(`ws://${stage.server.host}/signal`, headers);

/** A registered connection. */
async function member(userId) {
  const s = await open();
  const { cpCode, authKey } = stage.license;
  const answer = await s.ask({
    eventOp: 'register',
    cpCode,
    authKey,
    ...(userId ? { userId } : {}),
  });
  assert.equal(answer.code, '200', JSON.stringify(answer));
  s.userId = answer.userId;
  return s;
}

async function inRoom(roomId, userId) {
  const s = await member(userId);
  if ((await s.ask({ eventOp: 'createRoom', roomId })).code !== '200') assert.fail('createRoom');
  assert.equal((await s.ask({ eventOp: 'joinRoom', roomId })).code, '200');
  return s;
}

/**
 * Begun before everything else, since the server takes its time: a minute of silence, by the
 * protocol.
 */
async function halfOpenConnections() {
  const [host, port] = stage.server.host.split(':');
  const ends = [];
  const raw = (text) => {
    const c = net.connect(Number(port), host);
    c.on('error', () => {});
    c.on('connect', () => c.write(text));
    c.resume();
    const closed = new Promise((done) => c.on('close', done));
    ends.push(
      within(`closed after ${JSON.stringify(text)}`, closed, 3 * LIMIT).finally(() => c.destroy()),
    );
  };
  const beginnings = [
    '',
    'GET /signal HT',
    'GET /signal HTTP/1.1\r\nHost: x\r\n',
    'POST /leave HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{',
  ];
  for (let i = 0; i < 12; i++) raw(beginnings[i % 4]);
  // Upgraded, but never registered: 1008 in time.
  for (const s of await Promise.all([1, 2, 3].map(() => open())))
    ends.push(s.end().then((code) => assert.equal(code, 1008)));
  // Registered and in a room, then gone without a word: pings go unanswered, and after the silence
  // the socket ends, after the resume window the session.
  const lost = await inRoom('half-open', 'lost-one');
  lost.socket.pause();
  const watcher = await member();
  assert.equal((await watcher.ask({ eventOp: 'joinRoom', roomId: 'half-open' })).code, '200');
  const told = () => watcher.messages.some((m) => m.type === 'leave' && m.user === 'lost-one');
  await Promise.all([...ends, until('told that the lost one left', told, 5 * LIMIT)]);
  watcher.destroy();
  lost.destroy();
}

/** The next message after what has been seen so far. */
const next = async (s) => {
  const n = s.messages.length;
  return until(() => `answered (closed: ${JSON.stringify(s.closed)})`, () => s.messages[n]);
};

const deep = `${'['.repeat(40)}${']'.repeat(40)}`;

test('a message that is not one JSON object gets 400, and the connection stays', async () => {
  const s = await inRoom('broken-json');
  for (const [name, text] of Object.entries({
    'not JSON': 'hello',
    empty: '',
    'cut off': '{"eventOp":"keepAlive"',
    'an array': '[{"eventOp":"keepAlive"}]',
    'a number': '7',
    null: 'null',
    'two objects': '{"eventOp":"keepAlive"}{"eventOp":"keepAlive"}',
    'a trailing comma': '{"eventOp":"keepAlive",}',
    'single quotes': "{'eventOp':'keepAlive'}",
    'a bare line break in a string': '{"eventOp":"keep\nAlive"}',
    'a name twice': '{"eventOp":"keepAlive","reqId":"1","eventOp":"leaveRoom"}',
    'userId twice':
      `{"eventOp":"sdp","userId":"${s.userId}","target":"x","sdp":{},` + '"userId":"bystander-a"}',
    'a name with escapes': '{"event\\u004fp":"keepAlive"}',
    'too deep': `{"eventOp":"keepAlive","x":${deep}}`,
    'a number that is none': '{"eventOp":"keepAlive","x":01}',
    'half a surrogate name': '{"eventOp":"keepAlive","\\ud800":1}',
  })) {
    const answer = next(s);
    s.text(text);
    assert.equal((await answer).code, '400', name);
  }
  assert.equal((await s.ask({ eventOp: 'keepAlive' })).code, '200');
  s.destroy();
});

test('wrong types and values get 421 or 422, unknown operations 404', async () => {
  const s = await member();
  for (const [message, code] of [
    [{ eventOp: 'createRoom', roomId: { a: 1 } }, '422'],
    [{ eventOp: 'createRoom', roomId: 'x'.repeat(129) }, '422'],
    [{ eventOp: 'createRoom', roomId: '__proto__' }, '422'],
    [{ eventOp: 'createRoom', roomId: 'a\u0007b' }, '422'],
    [{ eventOp: 'createRoom', capacity: 'many' }, '422'],
    [{ eventOp: 'createRoom', capacity: 0 }, '422'],
    [{ eventOp: 'createRoom', capacity: 1e9 }, '422'],
    [{ eventOp: 'createRoom', title: 'x'.repeat(257) }, '422'],
    [{ eventOp: 'createRoom', destroy: 'perhaps' }, '422'],
    [{ eventOp: 'joinRoom' }, '421'],
    [{ eventOp: 'joinRoom', roomId: 5 }, '422'],
    [{ eventOp: 'joinRoom', roomId: 'nowhere' }, '441'],
    [{ eventOp: 'leaveRoom', roomId: 'nowhere' }, '441'],
    [{ eventOp: 'memberList', roomId: 'nowhere' }, '441'],
    [{ eventOp: 'makeCoffee' }, '404'],
    [{ eventOp: '' }, '404'],
    [{ eventOp: '__proto__' }, '404'],
    [{ eventOp: 'sdpRoom' }, '405'],
    [{ eventOp: 'register', cpCode: 'x', authKey: 'y' }, '400'],
  ]) {
    assert.equal((await s.ask(message)).code, code, JSON.stringify(message));
  }
  // Booleans and numbers as strings are how the original's apps write them.
  assert.equal(
    (await s.ask({ eventOp: 'createRoom', roomId: 'stringly', capacity: '4', destroy: 'true' }))
      .code,
    '200',
  );
  s.destroy();
});

test('nothing works before register; refusals do not reveal which tenants exist', async () => {
  const s = await open();
  for (const eventOp of ['createRoom', 'joinRoom', 'sdp', 'memberList', 'iceServers']) {
    assert.equal(
      (await s.ask({ eventOp, roomId: 'x', target: 'bystander-a', sdp: {} })).code,
      '401',
      eventOp,
    );
  }
  const { cpCode, authKey } = stage.license;
  const cut = authKey.slice(0, -6);
  const answers = [];
  for (const [cp, key, code] of [
    [cpCode, cut, '401'],
    ['NOBODY-01', authKey, '401'],
    [cpCode, 'x'.repeat(9000), '401'],
    [`${cpCode} `, authKey, '401'],
    ['', authKey, '421'],
    [cpCode, '', '421'],
    [[cpCode], authKey, '422'],
    [cpCode, '.'.repeat(5000), '401'],
    [
      cpCode,
      `${Buffer.from('{"alg":"none"}').toString('base64url')}.${authKey.split('.')[1]}.`,
      '401',
    ],
  ]) {
    const t = await open();
    const answer = await t.ask({ eventOp: 'register', cpCode: cp, authKey: key });
    assert.equal(answer.code, code, JSON.stringify([cp, String(key).slice(0, 20)]));
    answers.push(answer);
    t.destroy();
  }
  assert.equal(
    answers[0].message,
    answers[1].message,
    'unknown tenant and bad signature look the same',
  );
  const swapped = await s.ask({ eventOp: 'register', cpCode: authKey, authKey: cpCode });
  assert.equal(swapped.code, '401');
  assert.match(swapped.hint, /swapped/);
  s.destroy();
});

test("another user's id, room or connection cannot be used", async () => {
  const s = await inRoom('stranger');
  const [a] = bystanders;
  const events = await a.evaluate(() => app.events.length);
  const spoofed = {
    eventOp: 'sdp',
    userId: 'bystander-b',
    target: 'bystander-a',
    sdp: { type: 'offer', sdp: 'v=0' },
    type: 'cam',
  };
  assert.equal((await s.ask(spoofed)).code, '413');
  const absent = await s.ask({ eventOp: 'sdp', target: 'nobody-at-all', sdp: {}, type: 'cam' });
  for (const eventOp of ['sdp', 'candidate', 'publish', 'unpublish']) {
    const foreign = await s.ask({
      eventOp,
      target: 'bystander-a',
      sdp: {},
      candidate: {},
      type: 'cam',
    });
    assert.equal(foreign.code, '403');
    assert.equal(foreign.message, absent.message, 'no way to ask who is there');
  }
  const taker = await open();
  const { cpCode, authKey } = stage.license;
  for (const proof of [
    {},
    { forced: true },
    { forced: true, resume: 'made up' },
    { resume: 'made up' },
  ]) {
    const answer = await taker.ask({
      eventOp: 'register',
      cpCode,
      authKey,
      userId: 'bystander-a',
      ...proof,
    });
    assert.ok(['409', '410', '401'].includes(answer.code), JSON.stringify([proof, answer]));
  }
  assert.equal(await a.evaluate(() => app.events.length), events);
  taker.destroy();
  s.destroy();
});

test('frames that break the rules close the connection with the documented code', async () => {
  for (const [name, send, code] of [
    [
      'one MiB',
      (s) => s.text(JSON.stringify({ eventOp: 'keepAlive', x: 'x'.repeat(1 << 20) })),
      1009,
    ],
    [
      'one byte too many',
      (s) => s.text(`{"eventOp":"keepAlive","x":"${'x'.repeat(65536 - 29)}"}`),
      1009,
    ],
    [
      'one MiB in parts',
      (s) => {
        s.frame(TEXT, '{"eventOp":"keepAlive","x":"', { fin: false });
        for (let i = 0; i < 32; i++) s.frame(0, 'x'.repeat(32768), { fin: i === 31 });
      },
      1009,
    ],
    [
      'a length of 2^63',
      (s) => s.bytes(Buffer.from([0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6])),
      [1002, 1009],
    ],
    ['binary', (s) => s.frame(BINARY, '{"eventOp":"keepAlive"}'), 1003],
    ['bad UTF-8', (s) => s.frame(TEXT, Buffer.from([0x7b, 0x22, 0xc3, 0x28, 0x22, 0x7d])), 1007],
    ['not masked', (s) => s.frame(TEXT, '{"eventOp":"keepAlive"}', { mask: false }), 1002],
    ['a reserved opcode', (s) => s.frame(3, 'x'), 1002],
    ['a continuation of nothing', (s) => s.frame(0, 'x'), 1002],
    ['a ping of 126 bytes', (s) => s.frame(9, 'x'.repeat(126)), 1002],
  ]) {
    const s = await member();
    send(s);
    const got = await s.end();
    assert.ok([code].flat().includes(got), `${name}: closed with ${got}, want ${code}`);
    s.destroy();
  }
  const s = await member();
  const exact = `{"eventOp":"keepAlive","x":"${'x'.repeat(65536 - 29 - 1)}"}`;
  assert.equal(Buffer.byteLength(exact), 65536);
  const answer = next(s);
  s.text(exact);
  assert.equal((await answer).code, '200', 'exactly 64 KiB is allowed');
  s.destroy();
});

test('10,000 messages in a burst: closed with 1008 after the allowed burst', async () => {
  const s = await inRoom('flood');
  for (let i = 0; i < 10_000; i++) {
    s.text(`{"eventOp":"keepAlive","reqId":"${i}"}`);
    // Two hundred answers are read first: this client must end for what it sends, and not (1013)
    // for what it does not read.
    if (i === 99 || i === 199) assert.equal((await s.ask({ eventOp: 'keepAlive' })).code, '200');
  }
  assert.equal(await s.end(), 1008);
  const answered = s.messages.filter((m) => m.eventOp === 'keepAlive' && m.code === '200').length;
  assert.ok(answered >= 250 && answered < 1000, `${answered} were answered`);
  s.destroy();
});

test('a malformed WebSocket upgrade is refused', async () => {
  const { status } = await fetch(`${stage.server.origin}/signal`);
  assert.ok(status >= 400 && status < 500, `plain GET: ${status}`);
  const old = await open({ 'Sec-WebSocket-Version': '8' });
  assert.notEqual(old.status, 101, 'an old version of the protocol');
  old.destroy();
});

test('half-open and silent connections are closed by the server', () =>
  halfOpen);

test('a client that reads nothing is closed, and does not delay its senders', async (t) => {
  const slow = await inRoom('slow', 'slow-reader');
  const talkers = [];
  t.after(() => [slow, ...talkers].forEach((s) => s.destroy()));
  for (let i = 0; i < 15; i++) {
    talkers.push(await member());
    assert.equal((await talkers[i].ask({ eventOp: 'joinRoom', roomId: 'slow' })).code, '200');
  }
  const { connections } = await stats();
  slow.socket.pause();
  // One sender alone is limited to less than the kernel's buffers hold; with the outbox, all of
  // them fill those in a few seconds.
  const big = {
    eventOp: 'sdp',
    target: 'slow-reader',
    type: 'cam',
    sdp: { type: 'offer', sdp: 'x'.repeat(60_000) },
  };
  const codes = new Set();
  await until(() => `refused for what is not read; answers ${[...codes]}`, async () => {
    for (const { code } of await Promise.all(talkers.map((s) => s.ask(big)))) codes.add(code);
    return codes.has('504');
  }, LIMIT, 300);
  codes.delete('429'); // who has spent its share by then
  assert.deepEqual([...codes].sort(), ['200', '504']);
  await until(
    'the slow one is closed',
    async () => (await stats()).connections === connections - 1,
  );
  slow.socket.resume();
  assert.ok([1013, 1006].includes(await slow.end()));
  for (const s of talkers) assert.equal((await s.ask({ eventOp: 'keepAlive' })).code, '200');
});

test('after all this, the server holds no unused resources', async () => {
  await until(
    async () => `down to two connections: ${JSON.stringify(await stats())}`,
    async () => (await stats()).connections === 2,
  );
  const { signaling } = await stats();
  assert.ok(signaling.Spoofed >= 1 && signaling.Flooded >= 1, JSON.stringify(signaling));
});
