/**
 * An app may leave in any handler that the SDK calls. The same call is played again and again; the
 * app leaves in the first of its handlers, then in the second, and so on. Afterwards nothing may be
 * left: connections, timers, open sockets, requests that wait.
 */
import { expect, it, vi } from 'vitest';
import { App } from './app';
import { FakeSocket } from './browser';
import { FakeConnection } from './connections';
import { member } from './members';

class Leaver {
  calls = 0;
  late: string[] = [];
  pending = 0;
  left = false;
  private readonly seen = new WeakSet<object>();

  constructor(
    readonly app: App,
    private readonly nth: number,
    private readonly leave: (app: App) => unknown,
  ) {
    app.k.addEventListener('presence', (event: any) =>
      this.called(`presence ${event.detail.type} ${event.detail.state ?? ''}`),
    );
    app.k.getSocket().on('knowledgetalk', (m: any) => this.called(`socket ${m.eventOp}`));
  }

  /** The app awaits what it asks for, and may leave in the continuation. */
  ask(name: string, request: () => Promise<unknown>): void {
    if (this.left) return;
    this.pending++;
    void request()
      .catch((error: unknown) => this.late.push(`${name} throws ${String(error)}`))
      .then(() => {
        this.pending--;
        this.called(`then ${name}`, true);
      });
  }

  /** Listens to what the SDK has handed out by now. */
  listen(): void {
    const { k } = this.app;
    for (const [id, object, events] of [
      ...Object.entries(k.getAllStreams()).map(
        ([id, stream]) => [id, stream, ['addtrack', 'removetrack']] as const,
      ),
      ...Object.entries(k.getAllPeers()).map(
        ([id, pc]) => [id, pc, ['connectionstatechange', 'track']] as const,
      ),
    ]) {
      if (this.seen.has(object)) continue;
      this.seen.add(object);
      for (const event of events) {
        object.addEventListener(event, () => this.called(`${event} of ${id}`, true));
      }
    }
  }

  private called(what: string, own = false): void {
    // Events of what the app holds, and results of its own requests, may still come.
    if (this.left && !own) this.late.push(what);
    if (++this.calls !== this.nth) return;
    this.leave(this.app);
    this.left = true;
  }
}

async function play(nth: number, leave: (app: App) => unknown): Promise<Leaver> {
  const app = await App.open({ warmPeers: 2 }, ['d']);
  const { k } = app;
  const l = new Leaver(app, nth, leave);
  const step = async (ms = 50) => {
    l.listen();
    await app.pass(ms);
    l.listen();
  };
  const camera = app.stream();
  l.ask('publishP2P b', () => k.publishP2P('b', 'cam', camera));
  await step();
  app.from('b', {
    eventOp: 'sdp',
    gen: 5,
    n: 1,
    type: 'cam',
    sdp: { type: 'offer', sdp: 'theirs' },
  });
  await step();
  l.ask('publishP2P legacy', () => k.publishP2P('legacy', 'cam', camera));
  await step();
  const e = member('e', ['pair', 'publish', 'candidates', 'standby']);
  for (const [i, event] of [
    { type: 'chat', sender: 'b', message: 'hello' },
    { type: 'join', sender: 'e', user: e },
    { type: 'publish', sender: 'b', user: 'b' },
    { type: 'leave', sender: 'd', user: 'd' },
  ].entries()) {
    FakeSocket.last.receive({ eventOp: 'presence', roomId: 'R', seq: i + 2, ...event });
  }
  const events = ['f', 'g'].map((id, i) => ({
    eventOp: 'presence',
    type: 'join',
    roomId: 'R',
    seq: i + 6,
    sender: id,
    user: member(id),
  }));
  FakeSocket.last.receive({ eventOp: 'presence', type: 'roster', roomId: 'R', seq: 7, events });
  await step();
  const feed = { type: 'cam', epoch: 1, audio: true, video: true, gen: 5 };
  app.from('b', { eventOp: 'publish', rev: 0, ...feed });
  await step();
  app.from('b', { eventOp: 'unpublish', rev: 1, ...feed });
  await step();
  l.ask('publishP2P nobody', () => k.publishP2P('nobody', 'cam', camera));
  l.ask('changeLocalStream', () => k.changeLocalStream(app.stream()));
  l.ask('publishVideo', () => k.publishVideo('screen', app.stream('video')));
  await step();
  app.from('c', { eventOp: 'subscribe', type: 'screen' });
  await step(2_500);
  const [primary] = app.open;
  if (primary) app.cut(primary);
  await step(1_500);
  l.ask('chat', () => k.chat('hello'));
  l.ask('editUserInfo', () => k.editUserInfo(undefined, true, false));
  l.ask('removeLocalPeer', () => k.removeLocalPeer('legacy', 'cam'));
  await step();
  FakeConnection.made.forEach((c) => c.connectionState !== 'closed' && c.become('failed'));
  await step(1_000);
  await app.loseSession();
  l.listen();
  l.ask('publishP2P again', () => k.publishP2P('b', 'cam', camera));
  await step();
  return l;
}

const ways: Record<string, (app: App) => unknown> = {
  disconnect: ({ k }) => k.disconnect(),
  'leaveRoom, then disconnect': ({ k }) => {
    void k.leaveRoom();
    k.disconnect();
  },
};

for (const [name, leave] of Object.entries(ways)) {
  it(`nothing is left after ${name} in any handler`, async () => {
    let total = Number.MAX_SAFE_INTEGER;
    for (let nth = 1; nth <= total; nth++) {
      const l = await play(nth, leave);
      const where = `handler ${nth}`;
      if (!l.left) {
        total = l.calls;
        expect(total, 'handlers called').toBeGreaterThan(25);
        l.app.close();
        break;
      }
      await l.app.pass(120_000);
      expect(l.late, where).toEqual([]);
      expect(l.pending, where).toBe(0);
      expect(FakeConnection.open, where).toBe(0);
      expect(vi.getTimerCount(), where).toBe(0);
      expect(FakeSocket.last.closed, where).toBeDefined();
      l.app.close();
    }
  });
}
