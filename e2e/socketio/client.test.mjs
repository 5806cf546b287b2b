// The client that this server serves, as pages get it: against this server, and against the npm
// server.

import { after, before, test } from 'node:test';
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import vm from 'node:vm';
import { Server as NpmServer } from 'socket.io';
import { WebSocket } from 'ws';
import { Proxy } from '../lib/proxy.mjs';
import { Server } from '../lib/server.mjs';
import { until, within } from '../lib/wait.mjs';
import { folder } from '../lib/work.mjs';

const EVENT = 'knowledgetalk';

let server, proxy, license, script;
const open = new Set();

before(async () => {
  server = await Server.start({ dir: folder('socketio-client'), args: ['--resume-window', '10m'] });
  license = await server.license();
  proxy = await Proxy.listen(server.host);
  script = await server.get('/socket.io/socket.io.min.js');
});

after(async () => {
  for (const s of open) s.disconnect();
  await proxy?.close();
  assert.deepEqual(await server?.stop(), { code: 0, signal: null });
});

/** Runs the script as a page does that loads it from `origin`, and returns its io(). */
function page(origin) {
  class HTMLScript {
    src = `${origin}/socket.io/socket.io.min.js`;
  }
  const location = { href: 'https://page.example/' };
  const document = { currentScript: new HTMLScript() };
  const window = vm.createContext({
    location,
    document,
    URL,
    URLSearchParams,
    WebSocket,
    setTimeout,
    clearTimeout,
    console,
  });
  window.window = window; // a page's global object
  vm.runInContext(script, window);
  return (...args) => {
    const s = window.io(...args);
    open.add(s);
    s.ends = [];
    s.messages = [];
    s.on('disconnect', (reason) => s.ends.push(reason));
    s.on(EVENT, (m) => s.messages.push(m));
    return s;
  };
}

const up = (s) => until('connected', () => s.connected);
const ask = (s, message) =>
  within(`answered: ${message.eventOp}`, new Promise((resolve) => s.emit(EVENT, message, resolve)));
// Objects of another realm are not deeply equal.
const plain = (value) => JSON.parse(JSON.stringify(value));

const quick = { reconnectionDelay: 50, reconnectionDelayMax: 200 };

async function user(s, userId, extra = {}) {
  const answer = await ask(s, { eventOp: 'register', reqId: 'r', ...license, userId, ...extra });
  assert.equal(answer.code, '200', JSON.stringify(answer));
  return answer;
}

test('two pages meet, talk, and one leaves', async () => {
  const io = page(server.origin);
  const [a, b] = [io(), io(server.origin, quick)]; // the first: where the script came from
  a.emit(EVENT, { eventOp: 'register', reqId: 'early', ...license, userId: 'a' });
  await until('registered', () => a.messages.find((m) => m.reqId === 'early')?.code === '200');
  await user(b, 'b');
  const roomId = 'talk';
  assert.equal((await ask(a, { eventOp: 'createRoom', roomId })).code, '200');
  assert.equal((await ask(a, { eventOp: 'joinRoom', roomId })).code, '200');
  assert.deepEqual(Object.keys((await ask(b, { eventOp: 'joinRoom', roomId })).members), [
    'a',
    'b',
  ]);
  const sdp = { type: 'offer', sdp: 'v=0\r\ns=안녕 😀\r\n' };
  assert.equal((await ask(a, { eventOp: 'sdp', target: 'b', sdp, type: 'cam' })).code, '200');
  await until('sdp came', () => b.messages.find((m) => m.eventOp === 'sdp'));
  assert.deepEqual(plain(b.messages.find((m) => m.eventOp === 'sdp').sdp), sdp);
  a.disconnect();
  await until('left', () => b.messages.find((m) => m.type === 'leave'));
  assert.equal(b.messages.find((m) => m.type === 'leave').user, 'a');
  assert.deepEqual(a.ends, ['io client disconnect']);
});

test('a page comes back after its network was cut', async () => {
  const io = page(proxy.origin);
  const a = io(quick);
  await up(a);
  const { resume } = await user(a, 'cut');
  const before = a.id;
  proxy.cut();
  await until('disconnected', () => a.ends.length === 1);
  proxy.pass();
  await up(a);
  assert.notEqual(a.id, before);
  const back = await user(a, 'cut', { resume });
  assert.equal(back.resumed, true);
  assert.deepEqual(a.ends, ['transport close']);
});

test('a page whose user id was taken over does not come back', async () => {
  const io = page(server.origin);
  const [a, b] = [io(quick), io(quick)];
  const { resume } = await user(a, 'taken');
  await user(b, 'taken', { resume, forced: true });
  await until('disconnected', () => a.ends.length === 1);
  assert.deepEqual(a.ends, ['io server disconnect']);
  assert.equal(a.active, false);
});

test('there is no other namespace', async () => {
  const s = page(server.origin)('/other');
  const error = await new Promise((resolve) => s.on('connect_error', resolve));
  assert.equal(error.message, 'Invalid namespace');
  assert.equal(s.active, false);
});

test('the npm server understands it as well', async () => {
  const http = createServer();
  const npm = new NpmServer(http, { pingInterval: 100, pingTimeout: 5000, allowEIO3: false });
  const ends = [];
  let pongs = 0;
  const serve = (namespace) => namespace.on('connection', (s) => {
    s.on('disconnect', (reason) => ends.push(reason));
    s.conn.on('heartbeat', () => pongs++);
    s.on('echo', (value, ack) => ack(value, s.handshake.auth));
    s.on('ask me', () => s.emit('question', 20, (value) => s.emit('answered', value)));
    s.on('drop', () => s.conn.close());
    s.on('go', () => s.disconnect(true));
  });
  serve(npm);
  serve(npm.of('/room'));
  await new Promise((ready) => http.listen(0, '127.0.0.1', ready));
  try {
    for (const namespace of ['/', '/room']) {
      const io = page(`http://127.0.0.1:${http.address().port}`);
      const s = io(namespace, { ...quick, auth: { token: '토큰' } });
      await up(s);
      const echoed = new Promise((resolve) =>
        s.emit('echo', { text: '한글 😀' }, (...answer) => resolve(answer)),
      );
      const [value, auth] = await within('echoed', echoed);
      assert.deepEqual(plain([value, auth]), [{ text: '한글 😀' }, { token: '토큰' }]);
      s.on('question', (n, ack) => ack(n + 1));
      const answered = new Promise((resolve) => s.on('answered', resolve));
      s.emit('ask me');
      assert.equal(await within('answered', answered), 21);
      pongs = 0;
      await until('pinged', () => pongs >= 3);
      s.emit('drop');
      await until('dropped', () => s.ends.length === 1);
      await up(s);
      s.emit('go');
      await until('sent away', () => s.ends.length === 2);
      assert.deepEqual(s.ends, ['transport close', 'io server disconnect']);
      s.connect();
      await up(s);
      s.disconnect();
      await until('the server knows', () => ends.at(-1) === 'client namespace disconnect');
    }
  } finally {
    await npm.close();
  }
});
