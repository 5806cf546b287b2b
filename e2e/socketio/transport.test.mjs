// The wire protocol over Socket.IO, with the npm clients of both protocol versions and each of
// their transports.

import { after, before, test } from 'node:test';
import assert from 'node:assert/strict';
import { Proxy } from '../lib/proxy.mjs';
import { Server } from '../lib/server.mjs';
import { until } from '../lib/wait.mjs';
import { folder } from '../lib/work.mjs';
import { CLIENTS, SocketMember, TRANSPORTS, WebSocketMember, got } from './member.mjs';

const LIMIT = 64 << 10;

let server, proxy, license;
const open = new Set();

before(async () => {
  // The window is so long that a lost session never leaves within a test: who leaves has said so.
  server = await Server.start({ dir: folder('socketio'), args: ['--resume-window', '10m'] });
  license = await server.license();
  proxy = await Proxy.listen(server.host);
});

after(async () => {
  for (const m of open) m.close();
  await proxy?.close();
  const end = await server?.stop();
  assert.deepEqual(end, { code: 0, signal: null });
  assert.doesNotMatch(server.log, /eyJ[\w-]{10,}|panic|level=ERROR/);
});

const connections = async () => JSON.parse(await server.get('/dev/stats')).connections;

let count = 0;
const unique = (name) => `${name}-${++count}`;

async function member(io, transports, origin = server.origin) {
  const m = io
    ? await SocketMember.open(io, origin, transports)
    : await WebSocketMember.open(server.host);
  open.add(m);
  return m;
}

async function register(m, name, extra = {}) {
  m.userId = unique(name);
  const answer = await m.ask({
    eventOp: 'register',
    reqId: 'r',
    ...license,
    userId: m.userId,
    ...extra,
  });
  assert.equal(answer.code, '200', JSON.stringify(answer));
  assert.equal(answer.reqId, 'r');
  assert.equal(answer.userId, m.userId);
  m.resume = answer.resume;
  return m;
}

async function room(host, guest) {
  const roomId = unique('room');
  assert.equal(
    (await host.ask({ eventOp: 'createRoom', reqId: 'c', userId: host.userId, roomId })).code,
    '200',
  );
  assert.equal((await host.ask({ eventOp: 'joinRoom', reqId: 'j', roomId })).code, '200');
  const joined = await guest.ask({ eventOp: 'joinRoom', reqId: 'j', roomId });
  assert.deepEqual(
    [joined.code, Object.keys(joined.members)],
    ['200', [host.userId, guest.userId]],
  );
  await got(host, { eventOp: 'presence', type: 'join' });
  return roomId;
}

/** A padded message of exactly that many bytes. */
function sized(bytes) {
  const m = { eventOp: 'keepAlive', reqId: 'big', pad: '' };
  m.pad = 'x'.repeat(bytes - JSON.stringify(m).length);
  return m;
}

for (const [version, io] of Object.entries(CLIENTS)) {
  for (const [name, transports] of Object.entries(TRANSPORTS)) {
    const each = (title, f) => test(`${version}, ${name}: ${title}`, f);
    const two = async () => {
      const a = await register(await member(io, transports), 'a');
      const b = await register(await member(null), 'b');
      return { a, b, roomId: await room(a, b) };
    };

    each('a call is negotiated with a user on the WebSocket transport, both ways', async () => {
      const { a, b } = await two();
      const sdp = { type: 'offer', sdp: 'v=0\r\ns=안녕하세요 😀 é \u2028 "quoted" \\ back\r\n' };
      const acknowledged = await a.ask({
        eventOp: 'sdp',
        userId: a.userId,
        target: b.userId,
        sdp,
        type: 'cam',
      });
      assert.equal(acknowledged.code, '200', 'without a reqId');
      assert.deepEqual((await got(b, { eventOp: 'sdp' })).sdp, sdp);
      b.send({ eventOp: 'sdp', target: a.userId, sdp: { ...sdp, type: 'answer' }, type: 'cam' });
      const answer = await got(a, { eventOp: 'sdp' });
      assert.deepEqual([answer.sdp, answer.userId], [{ ...sdp, type: 'answer' }, b.userId]);
      for (let i = 0; i < 50; i++) {
        a.send({
          eventOp: 'candidate',
          target: b.userId,
          candidate: { candidate: `${i}` },
          type: 'cam',
        });
        b.send({
          eventOp: 'candidate',
          target: a.userId,
          candidate: { candidate: `${i}` },
          type: 'cam',
        });
      }
      const candidates = (m) =>
        m.messages.filter((x) => x.eventOp === 'candidate').map((x) => x.candidate.candidate);
      await until(
        'all candidates came',
        () => candidates(a).length === 50 && candidates(b).length === 50,
      );
      const inOrder = Array.from({ length: 50 }, (_, i) => `${i}`);
      assert.deepEqual([candidates(a), candidates(b)], [inOrder, inOrder]);
    });

    each('without an acknowledgement answers come as events', async () => {
      const { a } = await two();
      const from = a.messages.length;
      a.send({ eventOp: 'memberList', reqId: 'list' });
      assert.equal((await got(a, { reqId: 'list' }, from)).code, '200');
      const again = await a.ask({ eventOp: 'memberList', reqId: 'acked' });
      assert.equal(again.code, '200');
      assert.equal(a.messages.find((m) => m.reqId === 'acked'), undefined, 'answered twice');
    });

    each('what is no object is answered with 400', async () => {
      const { a } = await two();
      for (const wrong of ['{"eventOp":"keepAlive"}', 7, null, [{ eventOp: 'keepAlive' }]])
        assert.equal((await a.ask(wrong)).code, '400');
      a.socket.emit('something else', { eventOp: 'leaveRoom' });
      assert.equal((await a.ask({ eventOp: 'memberList', reqId: '1' })).code, '200');
    });

    each('a message has 64 KiB at most', async () => {
      const { a, b } = await two();
      assert.equal((await a.ask(sized(LIMIT))).code, '200');
      a.send(sized(LIMIT + 1));
      await until('disconnected', () => a.ends.length === 1);
      await a.ready();
      const back = await a.ask({
        eventOp: 'register',
        reqId: 'r',
        ...license,
        userId: a.userId,
        resume: a.resume,
      });
      assert.deepEqual([back.code, back.resumed], ['200', true]);
      assert.equal(b.messages.find((m) => m.type === 'leave'), undefined);
    });

    each('a client comes back after its network was cut, and nobody sees it', async () => {
      const a = await register(await member(io, transports, proxy.origin), 'a');
      const b = await register(await member(null), 'b');
      const roomId = await room(a, b);
      const before = await connections();
      proxy.cut();
      await until('disconnected', () => a.ends.length === 1);
      // What is written to a connection that has just broken is lost, as with any TCP connection.
      await until('lost at the server too', async () => (await connections()) < before);
      b.send({
        eventOp: 'sdp',
        target: a.userId,
        sdp: { type: 'offer', sdp: 'waited' },
        type: 'cam',
      });
      proxy.pass();
      await a.ready();
      const back = await a.ask({
        eventOp: 'register',
        reqId: 'r',
        ...license,
        userId: a.userId,
        resume: a.resume,
      });
      assert.deepEqual([back.code, back.resumed, back.room.roomId], ['200', true, roomId]);
      await got(a, { eventOp: 'sdp' });
      assert.deepEqual(b.messages.filter((m) => m.eventOp === 'presence'), []);
    });

    each('a client that disconnects leaves at once', async () => {
      const { a, b } = await two();
      a.close();
      assert.equal((await got(b, { eventOp: 'presence', type: 'leave' })).user, a.userId);
    });

    each('a client whose user id was taken over does not come back', async () => {
      const { a } = await two();
      const next = await member(io, transports);
      const answer = await next.ask({
        eventOp: 'register',
        reqId: 'r',
        ...license,
        userId: a.userId,
        resume: a.resume,
        forced: true,
      });
      assert.equal(answer.code, '200', JSON.stringify(answer));
      await until('disconnected', () => a.ends.length === 1);
      assert.deepEqual(a.ends, ['io server disconnect']);
      assert.equal(a.socket.connected, false);
    });

    each('there is no other namespace', async () => {
      const m = await SocketMember.open(io, server.origin, transports, '/other');
      open.add(m);
      const error = await new Promise((resolve) =>
        m.socket.on(version === 'client 2' ? 'error' : 'connect_error', resolve),
      );
      assert.equal(error.message ?? error, 'Invalid namespace');
      m.close();
    });
  }
}

test('two clients of different protocol versions meet in a room', async () => {
  const a = await register(await member(CLIENTS['client 4'], TRANSPORTS.websocket), 'a');
  const b = await register(await member(CLIENTS['client 2'], TRANSPORTS.polling), 'b');
  await room(a, b);
  b.send({ eventOp: 'sdp', target: a.userId, sdp: { type: 'offer', sdp: '가' }, type: 'cam' });
  assert.equal((await got(a, { eventOp: 'sdp' })).sdp.sdp, '가');
});
