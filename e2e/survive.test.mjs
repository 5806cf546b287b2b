// What a call survives: what networks, servers and laptops do to it, in the network lab. After each
// case: video both ways in the same streams, nobody has left or joined, one primary connection and
// at most one backup, and no allocation that outlives the call.
// How long the video froze is printed here, and judged by make bench-call; no test reads a clock.
//
//     IEUM_SOAK=1 sh e2e/run.sh survive.test.mjs   # longer outages, two minutes in the background

import { describe, test } from 'node:test';
import assert from 'node:assert/strict';
import { LANES, direct, inCall, session, settled } from './lib/homes.mjs';
import { cut, labMissing, nft, readdress, restore, run } from './lib/lab.mjs';
import { paint } from './lib/media.mjs';
import { LIMIT, until } from './lib/wait.mjs';
import { SOAK } from './lib/work.mjs';

const missing = labMissing();
if (missing) console.log(`SKIPPED: what a call survives, ${missing}`);

const FPS = 15;
const DIRECT = direct('srflx', 'prflx');

const cases = [];

/**
 * Adds a case: a call that both sides watch while something happens to it.
 * returns: a is away for so long that it leaves and joins again.
 */
function survives(name, { a = 'cone', b = 'cone', want = DIRECT, returns = false, ...more }, body) {
  const during = async (call, t) => {
    const { p, q } = call;
    await settled(p, q, want);
    const both = [[p, q], [q, p]];
    if (!call.firefox) {
      const ready = () => e2e.backup.some((pc) => pc.connectionState === 'connected');
      for (const [x] of both) await x.until('having a backup connection', ready);
    }
    for (const [x, y] of both) await x.evaluate(watch, y.id);
    await Promise.all([watched(p), watched(q)]);
    const before = await membership(both);
    try {
      await body({ ...call, both, t });
      await Promise.all([watched(p, 40), watched(q, 40)]);
    } catch (e) {
      for (const [x, y] of both) {
        e.message += `\n${x.name}: ${JSON.stringify(await x.evaluate(state, y.id))}`;
      }
      throw e;
    }
    for (const [x, y] of both) {
      await x.until('told that it is connected',
        (id) => app.peerStates(id).at(-1) === 'connected', y.id);
      await x.until('left with one connection and at most one backup', () =>
        e2e.open().length === 1
        && e2e.backup.filter((pc) => pc.connectionState !== 'closed').length <= 1);
      const same = (id) => k.getStream(id) === shown.srcObject;
      assert.equal(await x.evaluate(same, y.id), true, 'the same stream');
      const freeze = await x.evaluate(() => Math.round(gap));
      t.diagnostic(`${x.name} saw the video of ${y.name} freeze for ${freeze} ms at most`);
    }
    // A user who was away for too long has left, for the others; they have not, for that user.
    if (returns) for (const event of ['join', 'leave']) before[1][event]++;
    assert.deepEqual(await membership(both), before);
    await noAllocationStays(call);
  };
  cases.push(() => test(name, { skip: missing ?? false }, (t) =>
    inCall({ a, b, ...more }, (call) => during(call, t))));
}

/** When both have left the room, the relay has nothing of them. */
async function noAllocationStays({ server, p, q }) {
  for (const x of [p, q]) assert.equal((await x.evaluate(() => k.leaveRoom())).code, '200');
  let left;
  await until(
    () => `without an allocation: ${left}`,
    async () => (left = await allocations(server)) === 0,
  );
}

const allocations = async (server) =>
  JSON.parse(await server().get('/dev/stats')).relay.Allocations;

for (const { oneWay = false, firefox = false } of [{}, { oneWay: true }, { firefox: true }]) {
  const way = `${oneWay ? ' in one direction' : ''}${firefox ? ' (Firefox)' : ''}`;
  survives(
    `the direct path breaks${way}: media fails over to the relay, then back`,
    { firefox },
    async ({ lab, p, q, both }) => {
      // Firefox does not count them, and may need another connection, whose count begins anew.
      const keys = () =>
        Promise.all(
          (firefox ? [] : both).map(([x]) =>
            x.evaluate(async () => (await e2e.report(e2e.made[0])).video.keys),
          ),
        );
      const before = await keys();
      const using = !oneWay && !firefox;
      if (using) await q.evaluate(use, p.id);
      cut(lab.a, lab.b, oneWay);
      await overRelay(both);
      // What is published meanwhile goes that way too.
      await showScreen(p, q);
      const seconds = SOAK ? 30 : 5;
      await Promise.all([watched(p, seconds * FPS), watched(q, seconds * FPS)]);
      if (using) await stillUsed(q);
      restore(lab.a, lab.b);
      await failedBack(both);
      if (using) await stillUsed(q);
      // It may have been found over the relay meanwhile, and does not stay there.
      await settled(p, q, DIRECT, 90_000);
      // A request for a key frame may have died with the path: it is not waited for.
      for (const [i, count] of (await keys()).entries())
        assert.ok(count > before[i], 'a key frame when the path lives again');
      for (const [x, y] of both) {
        assert.deepEqual(
          await x.evaluate(
            (id) =>
              app.events
                .filter((e) => e.type === 'peerState' && e.user === id)
                .map((e) => e.state)
                .slice(-2),
            y.id,
          ),
          ['recovering', 'connected'],
        );
        assert.equal(await x.evaluate(() => e2e.backup.length), 1);
        if (!firefox) assert.equal(await x.evaluate(() => e2e.made.length), 1);
      }
    },
  );
}

// Browsers keep what earlier generations of ICE have found for up to two minutes.
if (SOAK) {
  survives(
    'twenty outages in a row leave no connection or allocation behind',
    {},
    async ({ lab, server, p, q, both, t }) => {
      const before = await allocations(server);
      let most = before;
      for (let i = 0; i < 20; i++) {
        cut(lab.a, lab.b);
        await overRelay(both);
        restore(lab.a, lab.b);
        await failedBack(both);
        most = Math.max(most, await allocations(server));
      }
      await settled(p, q, DIRECT, 90_000);
      let now;
      await until(
        () => `back to ${before} allocations: ${now}`,
        async () => (now = await allocations(server)) <= before,
        240_000,
      );
      t.diagnostic(`${before} allocations before, ${most} at most`);
    },
  );
}

survives('a client gets another address', {}, async ({ lab, both }) => {
  readdress(lab.a.ns);
  await aware(both);
});

survives('a NAT assigns a client other ports', {}, async ({ lab, both }) => {
  rebind(lab.a.ns.replace(/a$/, 'nata'));
  await aware(both);
});

survives('a network starts to block UDP', {}, async ({ lab, p, both }) => {
  nft(
    lab.a.ns,
    `table ip cut {
      chain arriving { type filter hook input priority 0; meta l4proto udp drop; }
      chain leaving { type filter hook output priority 0; meta l4proto udp drop; }
    }`,
  );
  await aware(both);
  await p.until('sending over TCP', async () =>
    (await e2e.reports()).some(
      (r) => r?.state === 'connected' && r.local?.relayProtocol === 'tcp',
    ),
  );
});

for (const [seconds, returns] of [
  [5, false],
  [30, true],
]) {
  survives(
    `a client's cable is unplugged for ${seconds} seconds`,
    { returns },
    async ({ lab, p, q, both }) => {
      const times = await membership(both);
      await lab.set({ link: 'a', set: { down: 'true' } });
      await p.until('aware that the server is away', () => !k.getSocket().connected);
      const left =
        returns &&
        q.until(
          'told that the other has left',
          (x) => app.count('leave', x.id) > x.leave,
          { id: p.id, leave: times[1].leave },
          60_000,
        );
      await Promise.all([lasting(seconds * 1000), left]);
      await lab.set({ link: 'a', set: { down: 'false' } });
      await p.until('answered again', async () => (await k.memberList()).code === '200');
      if (returns) {
        await q.until(
          'told that the other is here again',
          (x) => app.count('join', x.id) > x.join,
          { id: p.id, join: times[1].join },
        );
        // What an app does with `subscribed`.
        await q.until(
          'shown the other again',
          (id) => (shown.srcObject = k.getStream(id) ?? null),
          p.id,
        );
      }
    },
  );
}

survives("the server's cable is unplugged: a direct call continues", {}, async ({ lab, p, q }) => {
  await lab.set({ link: 'srv', set: { down: 'true' } });
  // Nothing closes these sockets; the SDK has to find out by itself, while the picture goes on.
  for (const x of [p, q])
    await x.until('aware that the server is away', () => !k.getSocket().connected);
  await Promise.all([watched(p, 30), watched(q, 30)]);
  await lab.set({ link: 'srv', set: { down: 'false' } });
  for (const x of [p, q])
    await x.until('answered again', async () => (await k.memberList()).code === '200');
});

survives(
  'the server restarts: a direct call continues, restarts ICE and shares a screen',
  { keepData: true },
  async ({ server, again, p, q }) => {
    await server().kill();
    for (const x of [p, q])
      await x.until('aware that the server is away', () => !k.getSocket().connected);
    const before = [await session(p), await session(q)];
    await p.evaluate(() => window.dispatchEvent(new Event('online')));
    for (const [i, x] of [p, q].entries()) {
      await x.until(
        'in another ICE session',
        (was) =>
          !e2e.open()[0].localDescription.sdp.includes(was) &&
          e2e.open()[0].signalingState === 'stable',
        before[i],
      );
    }
    await showScreen(p, q);
    const seconds = SOAK ? 20 : 5;
    await Promise.all([watched(p, seconds * FPS), watched(q, seconds * FPS)]);
    await again();
    for (const x of [p, q])
      await x.until('answered again', async () => (await k.memberList()).code === '200');
  },
);

survives(
  'the server restarts: a relayed call resumes',
  { a: 'sym', b: 'sym', want: { relayed: 1 }, keepData: true },
  async ({ server, again, p, q, both }) => {
    await server().kill();
    await aware(both);
    await lasting(SOAK ? 20_000 : 5_000);
    await again();
    for (const x of [p, q])
      await x.until('answered again', async () => (await k.memberList()).code === '200');
  },
);

survives('a laptop sleeps for ten seconds', {}, async ({ lab, q }) => {
  const pids = run(['ip', 'netns', 'pids', lab.a.ns]).trim().split(/\s+/).map(Number);
  assert.ok(pids.length > 1);
  for (const pid of pids) process.kill(pid, 'SIGSTOP');
  try {
    await q.until(
      'aware of it',
      () => app.events.filter((e) => e.type === 'peerState').at(-1).state === 'recovering',
    );
    await lasting(10_000);
  } finally {
    for (const pid of pids) process.kill(pid, 'SIGCONT');
  }
});

survives(
  `a tab is hidden for ${SOAK ? 'two minutes' : 'ten seconds'}: nothing changes`,
  { firefox: true },
  async ({ p, q, both }) => {
    const paths = () =>
      Promise.all(
        both.map(([x, y]) =>
          x.evaluate(
            (id) => ({
              states: app.events
                .filter((e) => e.type === 'peerState' && e.user === id)
                .map((e) => e.state),
              made: e2e.made.length,
              backup: e2e.backup.length,
            }),
            y.id,
          ),
        ),
      );
    const before = await paths();
    // Chromium's pages stay visible in a test; Firefox hides a tab behind another one and slows its
    // timers down.
    const other = await q.browser.open('about:blank', { name: 'other' });
    await q.until('hidden', () => document.visibilityState === 'hidden');
    await watched(p, (SOAK ? 120 : 10) * FPS);
    assert.equal(await q.evaluate(() => document.visibilityState), 'hidden');
    await other.close();
    await q.until('visible', () => document.visibilityState === 'visible');
    assert.deepEqual(await paths(), before);
  },
);

/** A wait whose length is the thing that is tested: an outage of so long. */
const lasting = (ms) => new Promise((over) => setTimeout(over, ms));

/** In the page: what there is with a user, for understanding a failure. */
async function state(user) {
  const connections = [];
  for (const pc of [...e2e.made, ...e2e.backup]) {
    const { local, remote, video, pairBytes } = await e2e.report(pc);
    const sends = pc
      .getSenders()
      .map(({ track }) => track?.kind ?? '-')
      .join();
    connections.push({
      backup: e2e.backup.includes(pc),
      used: k.getPeer(user) === pc,
      state: pc.connectionState,
      ice: pc.iceConnectionState,
      signaling: pc.signalingState,
      local,
      remote,
      video,
      pairBytes,
      sends,
    });
  }
  return {
    socket: k.getSocket().connected,
    events: app.events
      .filter((e) => e.user === user)
      .map((e) => `${e.type} ${e.state ?? ''} ${e.reason ?? ''}`),
    connections,
    shown: shown.srcObject
      ?.getTracks()
      .map((track) => `${track.kind} ${track.readyState} ${track.muted ? 'muted' : ''}`),
    element: {
      paused: shown.paused,
      ended: shown.ended,
      readyState: shown.readyState,
      frames: e2e.frames(shown),
      shownFrames,
    },
    used: window.used && {
      context: used.meter.context.state,
      loudest: used.loudest,
      recorded: [used.before, used.copy.bytes],
    },
  };
}

/** How often each has been told of the other's coming and going. */
const membership = (both) =>
  Promise.all(
    both.map(([x, y]) =>
      x.evaluate((id) => ({ join: app.count('join', id), leave: app.count('leave', id) }), y.id),
    ),
  );

/**
 * In the page: what an app may make of a user's stream, the way docs/migrating.md tells: a meter
 * whose source follows the tracks, and a recording of a copy. Beside it a recording of the stream
 * itself.
 */
function use(user) {
  const stream = k.getStream(user);
  const context = new AudioContext();
  const meter = context.createAnalyser();
  const mixed = context.createMediaStreamDestination();
  let source;
  const listen = () => {
    source?.disconnect();
    source = context.createMediaStreamSource(stream);
    source.connect(meter);
    source.connect(mixed);
  };
  listen();
  stream.addEventListener('addtrack', ({ track }) => track.kind === 'audio' && listen());
  const canvas = Object.assign(document.createElement('canvas'), { width: 320, height: 240 });
  const draw = () => {
    canvas.getContext('2d').drawImage(shown, 0, 0, 320, 240);
    requestAnimationFrame(draw);
  };
  draw();
  const copy = canvas.captureStream();
  copy.addTrack(mixed.stream.getAudioTracks()[0]);
  const record = (what) => {
    const recorder = new MediaRecorder(what);
    recorder.bytes = 0;
    recorder.ondataavailable = ({ data }) => (recorder.bytes += data.size);
    recorder.start(100);
    return recorder;
  };
  window.used = { meter, loudest: 0, copy: record(copy), itself: record(stream) };
  setInterval(() => {
    const samples = new Float32Array(meter.fftSize);
    meter.getFloatTimeDomainData(samples);
    used.loudest = Math.max(used.loudest, ...samples);
  }, 20);
}

/**
 * The meter hears the other side, the copy is still being recorded, and the recording of the stream
 * itself has ended, as it is documented.
 */
async function stillUsed(p) {
  await p.evaluate(() => Object.assign(used, { loudest: 0, before: used.copy.bytes }));
  await p.until(
    'heard, and recorded on',
    () => used.loudest > 0.01 && used.copy.bytes > used.before + 5_000,
  );
  assert.deepEqual(await p.evaluate(() => [used.copy.state, used.itself.state]), [
    'recording',
    'inactive',
  ]);
}

async function showScreen(p, q) {
  await paint(p);
  assert.equal(await p.evaluate((id) => k.publishP2P(id, 'screen', screenStream), q.id), true);
  await q.until(
    'shown the screen',
    (id) => {
      const video = (window.screenShown ??= document.body.appendChild(
        Object.assign(document.createElement('video'), { muted: true, autoplay: true }),
      ));
      video.srcObject ??= k.getStream(id, 'screen') ?? null;
      return e2e.frames(video) > 10;
    },
    p.id,
  );
}

/** Both know that nothing passes. */
async function aware(both) {
  for (const [x, y] of both) {
    await x.until(
      'aware of it',
      (id) =>
        app.events.some((e) => e.type === 'peerState' && e.user === id && e.state === 'recovering'),
      y.id,
    );
  }
}

async function overRelay(both) {
  for (const [x, y] of both)
    await x.until(
      'sending over the backup connection',
      (id) => e2e.backup.includes(k.getPeer(id)),
      y.id,
    );
}

async function failedBack(both) {
  for (const [x, y] of both) {
    await x.until('sending over the primary again', (id) => e2e.open()[0] === k.getPeer(id), y.id);
    await x.until('the backup silent', () =>
      e2e.backup.every((pc) => pc.getSenders().every((s) => !s.track)),
    );
  }
}

/**
 * Forgets a NAT's mappings and makes new ones at other ports, among which no client's own are:
 * those would be kept.
 */
function rebind(ns) {
  nft(
    ns,
    `table ip ports { chain after {
      type nat hook postrouting priority srcnat - 1;
      oifname "wan" meta l4proto { tcp, udp } masquerade to :20000-29999;
    }
    }`,
  );
  run(['ip', 'netns', 'exec', ns, 'conntrack', '-F'], { stdio: 'ignore' });
}

/** In the page: shows a user's camera and keeps the longest time between two pictures in `gap`. */
function watch(user) {
  window.shown = document.body.appendChild(
    Object.assign(document.createElement('video'), {
      muted: true,
      autoplay: true,
      srcObject: k.getStream(user),
    }),
  );
  window.gap = 0;
  let last = performance.now();
  const next = (now) => {
    window.gap = Math.max(window.gap, now - last);
    last = now;
    window.shownFrames = (window.shownFrames ?? 0) + 1;
    shown.requestVideoFrameCallback(next);
  };
  shown.requestVideoFrameCallback(next);
}

/** Resolves when the page has shown some more pictures in that element. */
async function watched(p, more = 20) {
  const now = await p.evaluate(() => window.shownFrames ?? 0);
  await p.until(
    'showing frames',
    (n) => (window.shownFrames ?? 0) >= n,
    now + more,
    LIMIT + (2_000 * more) / FPS,
  );
}

describe('a call survives', { concurrency: LANES }, () => cases.forEach((add) => add()));
