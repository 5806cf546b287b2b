// One scene for each operation of docs/protocol.md. `s.ask(who, op, fields)` sends with a reqId and
// waits for the answer, `s.tell` sends without one; both then wait until whatever it causes has
// come to everybody. What stands in `s.before` is not written down.

const OFFER = { type: 'offer', sdp: 'v=0\r\ns=안녕하세요 😀 \u2028 "quoted" \\ back\r\n' };
const ICE = {
  candidate: 'candidate:1 1 udp 2113937151 192.0.2.7 54321 typ host',
  sdpMid: '0',
  sdpMLineIndex: 0,
  usernameFragment: 'abcd',
};

/** The members of the room, the host first; the rest of the users is in none. */
const inRoom = (...members) => (s) => s.before(async () => {
  const roomId = s.room('room');
  await s.ask(members[0], 'createRoom', { roomId, title: 'Weekly' });
  for (const m of members) await s.ask(m, 'joinRoom', { roomId });
});

/** Operations that are passed on all fail alike. */
async function unreachable(s, op, fields) {
  await s.ask('a', op, { ...fields, target: s.id('c') });
  await s.ask('a', op, { ...fields, target: s.id('nobody') });
  await s.tell('a', op, { ...fields, target: s.id('nobody') });
  await s.ask('a', op, { ...fields, target: s.id('b'), userId: s.id('b') });
}

/** name: {users: who there are, fresh: they are changed by the scene and not used again, play}. */
export const SCENES = {
  register: {
    users: [],
    async play(s) {
      const a = {
        userId: s.id('a'),
        name: 'Kim',
        device: 'pc',
        features: ['pair', 'publish', 'candidates'],
      };
      await s.open('a');
      await s.ask('a', 'createRoom', {});
      await s.ask('a', 'register', { cpCode: s.license.cpCode });
      await s.ask('a', 'register', { ...s.license, authKey: 'nonsense', ...a });
      await s.ask('a', 'register', { cpCode: s.license.authKey, authKey: s.license.cpCode, ...a });
      const { resume } = await s.ask('a', 'register', { ...s.license, ...a });
      await s.ask('a', 'register', { ...s.license, ...a });
      await s.open('b');
      await s.ask('b', 'register', { ...s.license, userId: s.id('a') });
      await s.ask('b', 'register', { ...s.license, userId: s.id('a'), forced: true });
      await s.ask('b', 'register', { ...s.license, userId: s.id('a'), resume: 'nonsense' });
      await s.ask('b', 'register', { ...s.license, userId: s.id('b') });
      await s.open('c');
      await s.ask('c', 'register', { ...s.license });
      await inRoom('a', 'b')(s);
      await s.open('d', 'a');
      s.gone('a');
      await s.ask('d', 'register', { ...s.license, userId: s.id('a'), resume });
      await s.ask('d', 'chat', { message: 'back', roomId: s.room('room') });
    },
  },
  createRoom: {
    users: ['a'],
    async play(s) {
      const roomId = s.room('room');
      await s.ask('a', 'createRoom', { roomId, title: 'Weekly', capacity: '4', destroy: 'true' });
      await s.ask('a', 'createRoom', { roomId });
      await s.ask('a', 'createRoom');
      await s.ask('a', 'createRoom', { roomId: s.room('other'), capacity: 0 });
      await s.ask('a', 'createRoom', { roomId: '__proto__' });
      await s.ask('a', 'createRoom', { roomId: s.room('other'), userId: s.id('b') });
      await s.ask('a', 'joinRoom', { roomId });
    },
  },
  createVideoRoom: {
    users: ['a', 'b'],
    async play(s) {
      const roomId = s.room('room');
      await s.ask('a', 'createVideoRoom', {
        roomId,
        title: 'Weekly',
        capacity: 1,
        destroy: true,
        talkingNoty: true,
      });
      await s.ask('a', 'createVideoRoom', { roomId });
      await s.ask('a', 'createVideoRoom', { roomId: s.room('other'), capacity: 1001 });
      await s.ask('a', 'joinRoom', { roomId });
      await s.ask('b', 'joinRoom', { roomId });
      await s.ask('b', 'createVideoRoom');
    },
  },
  joinRoom: {
    users: ['a', 'b', 'c'],
    async play(s) {
      const roomId = s.room('room');
      await s.before(async () => {
        await s.ask('a', 'createRoom', { roomId, title: 'Weekly', capacity: 2 });
        await s.ask('a', 'createRoom', { roomId: s.room('other') });
      });
      await s.ask('a', 'joinRoom', {});
      await s.ask('a', 'joinRoom', { roomId: s.room('none') });
      await s.ask('a', 'joinRoom', { roomId });
      await s.ask('b', 'joinRoom', { roomId });
      await s.ask('b', 'joinRoom', { roomId });
      await s.ask('b', 'joinRoom', { roomId: s.room('other') });
      await s.ask('c', 'joinRoom', { roomId });
    },
  },
  leaveRoom: {
    users: ['a', 'b', 'c'],
    async play(s) {
      await inRoom('a', 'b', 'c')(s);
      const roomId = s.room('room');
      await s.ask('b', 'leaveRoom', { roomId: s.room('none') });
      await s.ask('b', 'leaveRoom', { roomId });
      await s.ask('b', 'leaveRoom', { roomId });
      await s.ask('b', 'leaveRoom');
      await s.ask('a', 'leaveRoom');
      await s.ask('c', 'leaveRoom', { roomId });
      await s.ask('c', 'joinRoom', { roomId });
    },
  },
  memberList: {
    users: ['a', 'b', 'c'],
    async play(s) {
      await inRoom('b', 'a')(s);
      await s.ask('a', 'memberList', { reqId: 5, roomId: s.room('room') });
      await s.ask('b', 'memberList');
      await s.ask('c', 'memberList', { roomId: s.room('room') });
      await s.ask('c', 'memberList', { roomId: s.room('none') });
    },
  },
  destroyRoom: {
    users: ['a', 'b', 'c'],
    async play(s) {
      await inRoom('a', 'b')(s);
      const roomId = s.room('room');
      await s.ask('b', 'screen');
      await s.ask('a', 'destroyRoom');
      await s.ask('b', 'destroyRoom', { roomId });
      await s.ask('c', 'destroyRoom', { roomId });
      await s.ask('a', 'destroyRoom', { roomId: s.room('none') });
      await s.ask('a', 'destroyRoom', { roomId });
      await s.ask('b', 'memberList', { roomId });
    },
  },
  editRoomInfo: {
    users: ['a', 'b', 'c'],
    async play(s) {
      await inRoom('a', 'b')(s);
      const roomId = s.room('room');
      await s.ask('b', 'editRoomInfo', { roomId, title: 'Mine' });
      await s.ask('c', 'editRoomInfo', { roomId, title: 'Mine' });
      await s.ask('a', 'editRoomInfo', { roomId, capacity: 1 });
      await s.ask('a', 'editRoomInfo', { roomId, title: 'Monthly', capacity: '12' });
      await s.ask('a', 'editRoomInfo', { roomId, host: s.id('c') });
      await s.ask('a', 'editRoomInfo', { roomId, host: s.id('b') });
      await s.ask('a', 'editRoomInfo', { roomId, title: 'Mine again' });
      await s.ask('c', 'joinRoom', { roomId });
    },
  },
  kickOut: {
    users: ['a', 'b', 'c'],
    async play(s) {
      await inRoom('a', 'b', 'c')(s);
      await s.ask('b', 'kickOut', { target: s.id('c') });
      await s.ask('a', 'kickOut');
      await s.ask('a', 'kickOut', { target: s.id('nobody') });
      await s.ask('a', 'kickOut', { target: s.id('c') });
      await s.ask('c', 'leaveRoom');
      await s.ask('a', 'kickOut', { target: s.id('b') });
      // It stays, and is put out. The time of c, who was asked before, is over by then: nobody sees
      // c leave twice.
      await s.comes('b', { eventOp: 'presence', type: 'leave', user: s.id('b') });
      await s.ask('a', 'memberList');
      await s.ask('b', 'memberList', { roomId: s.room('room') });
      await s.ask('b', 'joinRoom', { roomId: s.room('room') });
    },
  },
  permit: {
    users: ['a', 'b', 'c'],
    async play(s) {
      await inRoom('a', 'b')(s);
      await s.ask('b', 'permit', { target: s.id('a'), chat: false });
      await s.ask('a', 'permit', { target: s.id('b') });
      await s.ask('a', 'permit', { chat: false });
      await s.ask('a', 'permit', { target: s.id('c'), chat: false });
      await s.ask('a', 'permit', { target: s.id('b'), chat: false, draw: 'false' });
      await s.ask('b', 'chat', { message: 'hello', roomId: s.room('room') });
      await s.ask('b', 'chat', { message: 'hello', target: s.id('a') });
      await s.ask('a', 'permit', { target: s.id('b'), chat: true });
      await s.ask('b', 'chat', { message: 'hello', roomId: s.room('room') });
    },
  },
  editUserInfo: {
    users: ['a', 'b', 'c', 'd'],
    fresh: true,
    async play(s) {
      await inRoom('a', 'b', 'c')(s);
      await s.ask('b', 'editUserInfo', { name: 'Lee', video: false, audio: 'true' });
      await s.ask('b', 'editUserInfo', { video: true, target: s.id('a') });
      await s.ask('b', 'editUserInfo', { audio: false, broadcast: false });
      await s.ask('b', 'editUserInfo', { name: 7 });
      await s.ask('d', 'editUserInfo', { name: 'Choi' });
      await s.ask('d', 'joinRoom', { roomId: s.room('room') });
    },
  },
  changeName: {
    users: ['a', 'b'],
    fresh: true,
    async play(s) {
      await inRoom('a', 'b')(s);
      await s.ask('b', 'changeName', { name: '이몽룡' });
      await s.ask('b', 'changeName', { name: 'x'.repeat(257) });
      await s.ask('a', 'memberList');
    },
  },
  chat: {
    users: ['a', 'b', 'c'],
    async play(s) {
      await inRoom('a', 'b')(s);
      const roomId = s.room('room');
      await s.ask('b', 'chat', { message: '안녕하세요 😀', roomId });
      await s.ask('b', 'chat', { message: 'to you', target: s.id('a') });
      await s.ask('b', 'chat', { message: 'outside', target: s.id('c') });
      await s.ask('c', 'chat', { message: 'inside', target: s.id('a') });
      await s.ask('b', 'chat', { message: 'hello', target: s.id('nobody') });
      await s.ask('b', 'chat', { message: 'hello' });
      await s.ask('b', 'chat', { roomId });
      await s.ask('b', 'chat', { message: { not: 'a string' }, roomId });
      await s.ask('b', 'chat', { message: 'hello', roomId: s.room('none') });
      await s.ask('c', 'chat', { message: 'hello', roomId });
    },
  },
  inform: {
    users: ['a', 'b', 'c'],
    async play(s) {
      await inRoom('a', 'b')(s);
      await s.ask('b', 'inform', { message: { page: 3, seen: [true, null, 'é\u2028'] } });
      await s.ask('b', 'inform', { message: 'to you', target: s.id('a') });
      await s.ask('b', 'inform', { message: [0], target: s.id('c') });
      await s.ask('b', 'inform', { message: 0, target: s.id('nobody') });
      await s.ask('b', 'inform');
      await s.ask('c', 'inform', { message: 'hello' });
    },
  },
  talking: {
    users: ['a', 'b', 'c'],
    async play(s) {
      await s.before(async () => {
        await s.ask('a', 'createVideoRoom', { roomId: s.room('room'), talkingNoty: true });
        await s.ask('c', 'createVideoRoom', { roomId: s.room('silent') });
        for (const m of ['a', 'b']) await s.ask(m, 'joinRoom', { roomId: s.room('room') });
      });
      await s.ask('b', 'talking', { message: true });
      await s.ask('b', 'talking', { message: false });
      await s.ask('b', 'talking');
      await s.ask('c', 'talking', { message: true });
      await s.ask('b', 'leaveRoom');
      await s.ask('b', 'joinRoom', { roomId: s.room('silent') });
      await s.ask('c', 'joinRoom', { roomId: s.room('silent') });
      await s.ask('c', 'talking', { message: true });
    },
  },
  screen: {
    users: ['a', 'b', 'c'],
    async play(s) {
      await inRoom('a', 'b')(s);
      await s.ask('c', 'screen');
      await s.ask('b', 'screen');
      await s.ask('a', 'screen');
      await s.ask('c', 'joinRoom', { roomId: s.room('room') });
      await s.ask('b', 'screen', { target: s.id('c') });
      await s.ask('b', 'leaveRoom');
      await s.ask('a', 'permit', { target: s.id('c'), screen: false });
      await s.ask('c', 'screen');
    },
  },
  shareStop: {
    users: ['a', 'b', 'c'],
    async play(s) {
      await inRoom('a', 'b')(s);
      await s.ask('a', 'shareStop');
      await s.ask('a', 'screen');
      await s.ask('b', 'shareStop');
      await s.ask('a', 'shareStop');
      await s.ask('a', 'shareStop');
      await s.ask('c', 'shareStop');
    },
  },
  publish: {
    users: ['a', 'b', 'c'],
    async play(s) {
      await inRoom('a', 'b')(s);
      await s.ask('b', 'publish', { type: 'cam', epoch: 1, audio: true, video: true });
      await s.ask('b', 'publish', { type: 'screen', epoch: 2, audio: false, video: true });
      await s.ask('a', 'publish', { type: 'cam', epoch: 7, audio: 'true', video: 'false' });
      await s.ask('b', 'publish', { type: 'cam', epoch: 3, audio: false, video: true });
      await s.ask('b', 'publish', { epoch: 4, audio: true, video: true });
      await s.ask('b', 'publish', { type: 'window', epoch: 4, audio: true, video: true });
      await s.ask('c', 'publish', { type: 'cam', epoch: 1, audio: true, video: true });
      await s.ask('c', 'joinRoom', { roomId: s.room('room') });
    },
  },
  unpublish: {
    users: ['a', 'b', 'c'],
    async play(s) {
      await inRoom('a', 'b')(s);
      await s.ask('b', 'publish', { type: 'cam', epoch: 1, audio: true, video: true });
      await s.ask('b', 'publish', { type: 'screen', epoch: 2, audio: false, video: true });
      await s.ask('b', 'unpublish', { type: 'screen' });
      await s.ask('b', 'unpublish', { type: 'screen' });
      await s.ask('b', 'unpublish');
      await s.ask('b', 'unpublish', { type: 'window' });
      await s.ask('c', 'unpublish', { type: 'cam' });
      await s.ask('c', 'joinRoom', { roomId: s.room('room') });
    },
  },
  createGroup: {
    users: ['a', 'b', 'c'],
    async play(s) {
      await inRoom('a', 'b', 'c')(s);
      await s.ask('a', 'createGroup', { list: [s.id('b')], title: 'Team' });
      await s.ask('b', 'createGroup', { list: [s.id('a'), s.id('c')] });
      await s.ask('a', 'createGroup', { list: 'everybody' });
      await s.ask('a', 'leaveRoom');
      await s.ask('a', 'createGroup', { list: [s.id('b')] });
    },
  },
  endGroup: {
    users: ['a', 'b', 'c'],
    async play(s) {
      await inRoom('a', 'b', 'c')(s);
      const { groupId } = await s.ask('b', 'createGroup', { list: [s.id('a')] });
      await s.ask('c', 'endGroup', { groupId });
      await s.ask('b', 'endGroup');
      await s.ask('b', 'endGroup', { groupId: 'none' });
      await s.ask('a', 'endGroup', { groupId });
      await s.ask('b', 'endGroup', { groupId });
      const other = await s.ask('c', 'createGroup', { list: [s.id('b')] });
      for (const m of ['c', 'b']) {
        await s.ask(m, 'leaveRoom');
        await s.ask(m, 'joinRoom', { roomId: other.groupId });
      }
      await s.ask('c', 'endGroup', { groupId: other.groupId });
      await s.ask('b', 'joinRoom', { roomId: s.room('room') });
    },
  },
  sdp: {
    users: ['a', 'b', 'c'],
    async play(s) {
      await inRoom('a', 'b')(s);
      const ours = { type: 'cam', gen: 1, n: 1, link: 'main' };
      await s.ask('a', 'sdp', {
        target: s.id('b'),
        sdp: OFFER,
        ...ours,
        unknown: { to: ['the', 'server'] },
      });
      await s.tell('b', 'sdp', { target: s.id('a'), sdp: { ...OFFER, type: 'answer' }, ...ours });
      await unreachable(s, 'sdp', { sdp: OFFER, type: 'cam' });
    },
  },
  candidate: {
    users: ['a', 'b', 'c'],
    async play(s) {
      await inRoom('a', 'b')(s);
      await s.ask('a', 'candidate', {
        target: s.id('b'),
        candidate: ICE,
        type: 'cam',
        cam: true,
        gen: 1,
        link: 'main',
      });
      await s.tell('b', 'candidate', {
        target: s.id('a'),
        candidates: [ICE, ICE],
        type: 'cam',
        gen: 1,
        link: 'main',
      });
      await s.tell('b', 'candidate', {
        target: s.id('a'),
        candidates: [],
        type: 'cam',
        gen: 1,
        link: 'main',
      });
      await unreachable(s, 'candidate', { candidate: ICE, type: 'cam', cam: true });
    },
  },
  subscribe: {
    users: ['a', 'b', 'c'],
    async play(s) {
      await inRoom('a', 'b')(s);
      await s.ask('a', 'subscribe', { target: s.id('b'), type: 'cam', audio: true, video: true });
      await s.tell('b', 'subscribe', {
        target: s.id('a'),
        type: 'screen',
        audio: false,
        video: true,
      });
      await unreachable(s, 'subscribe', { type: 'cam', audio: true, video: true });
    },
  },
  'publish to a member': {
    users: ['a', 'b', 'c'],
    async play(s) {
      await inRoom('a', 'b')(s);
      await s.ask('a', 'publish', {
        target: s.id('b'),
        type: 'cam',
        epoch: 1,
        audio: true,
        video: true,
        rev: 1,
        gen: 0,
      });
      await s.tell('b', 'publish', {
        target: s.id('a'),
        type: 'screen',
        epoch: 1,
        audio: false,
        video: true,
      });
      await unreachable(s, 'publish', { type: 'cam', epoch: 1, audio: true, video: true });
    },
  },
  'unpublish to a member': {
    users: ['a', 'b', 'c'],
    async play(s) {
      await inRoom('a', 'b')(s);
      await s.ask('a', 'unpublish', { target: s.id('b'), type: 'cam', epoch: 1 });
      await s.tell('b', 'unpublish', {
        target: s.id('a'),
        type: 'cam',
        epoch: 1,
        owner: s.id('a'),
      });
      await unreachable(s, 'unpublish', { type: 'cam', epoch: 1 });
    },
  },
  keepAlive: {
    users: ['a'],
    async play(s) {
      await s.ask('a', 'keepAlive');
      await s.ask('a', 'keepAlive', { reqId: 7 });
      await s.tell('a', 'keepAlive');
      await s.ask('a', 'keepAlive', { userId: s.id('b') });
    },
  },
  iceServers: {
    users: ['a'],
    async play(s) {
      await s.ask('a', 'iceServers');
    },
  },
  unknown: {
    users: ['a', 'b'],
    async play(s) {
      await inRoom('a', 'b')(s);
      await s.ask('a', 'startRecording', { target: s.id('b') });
      await s.ask('a', 'sdpRoom', { sdp: OFFER });
      await s.ask('a', 'presence', { type: 'leave', user: s.id('b') });
      await s.tell('a', 'startRecording');
    },
  },
};
