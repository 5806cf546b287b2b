/** Whoever is sent a camera is sent what the app has given last, whenever either of them came. */
import { afterEach, expect, it, vi } from 'vitest';
import { FakeSocket } from './browser';
import { App } from './app';

let app: App;
afterEach(() => app.close());

const USERS = ['b', 'legacy'] as const;

/** Ways to give another stream. */
const ways: Record<string, (stream: MediaStream) => Promise<boolean>> = {
  publishVideo: (s) => app.k.publishVideo('cam', s),
  changeLocalStream: (s) => app.k.changeLocalStream(s),
  'publishP2P to each': async (s) => {
    const sent = USERS.map((id) => app.k.publishP2P(id, 'cam', s));
    return (await Promise.all(sent)).every(Boolean);
  },
};

const subscribe = async () => {
  for (const id of USERS) app.from(id, { eventOp: 'subscribe', type: 'cam' });
  await app.pass();
};

/** The page does not wait for the outcome, and uses the old stream no more. */
const give = async (way: string, next: MediaStream, old: MediaStream) => {
  const given = ways[way]!(next);
  for (const track of old.getTracks()) track.stop();
  await app.pass();
  return given;
};

/** The server has forgotten the session; the page acts when the new one asks for the room. */
const lose = async (act: () => Promise<unknown>) => {
  const serve = app.serve.bind(app);
  let acted: Promise<unknown> | undefined;
  vi.spyOn(app, 'serve').mockImplementation((socket, message) => {
    if (message.eventOp === 'joinRoom') acted ??= act();
    serve(socket, message);
  });
  await app.loseSession();
  expect(acted).toBeDefined();
  await acted;
  await app.pass();
};

type Course = (way: string, first: MediaStream, next: MediaStream) => Promise<unknown>;

/** When subscribers come, and when the stream changes. */
const courses: Record<string, Course> = {
  'with subscribers': async (way, first, next) => {
    await subscribe();
    return give(way, next, first);
  },
  'before subscribers': async (way, first, next) => {
    const given = await give(way, next, first);
    await subscribe();
    return given;
  },
  'before the session is lost': async (way, first, next) => {
    await subscribe();
    const given = await give(way, next, first);
    await app.loseSession();
    return given;
  },
  'while the session is lost': async (way, first, next) => {
    await subscribe();
    await lose(() => give(way, next, first));
    return true;
  },
  'after the session was lost': async (way, first, next) => {
    await subscribe();
    await app.loseSession();
    await app.pass();
    return give(way, next, first);
  },
};

const sent = () => app.cameras().map(({ id }) => id).sort();

for (const way of Object.keys(ways)) {
  it.each(Object.entries(courses))(`a feed is the stream of ${way} %s`, async (_, course) => {
    app = await App.open({ warmPeers: 0 });
    const [first, next] = [app.stream(), app.stream()];
    const published = app.k.publishVideo('cam', first);
    await app.pass();
    expect(await published).toBe(true);
    expect(await course(way, first, next)).toBe(true);
    await app.pass();
    // Each of the two users gets both tracks, over one connection or two.
    const ids = next.getTracks().map(({ id }) => id);
    expect(sent()).toEqual([...ids, ...ids].sort());
    // And whoever subscribes now.
    if (way === 'publishP2P to each') return;
    app.from('c', { eventOp: 'subscribe', type: 'cam' });
    await app.pass();
    expect(sent()).toEqual([...ids, ...ids, ...ids].sort());
    const told = FakeSocket.last.sent.filter((m) => m.eventOp === 'publish' && !m.target);
    expect(told.at(-1)).toMatchObject({ type: 'cam', audio: true, video: true });
  });
}

it('a screen whose share ends while the session is lost is not sent again', async () => {
  app = await App.open({ warmPeers: 0 });
  const screen = app.stream('video');
  Object.assign(screen.getTracks()[0]!, { screen: true });
  const shared = app.k.screenStart(screen);
  await app.pass();
  expect((await shared).code).toBe('200');
  expect(app.screens()).toHaveLength(3);
  // The page goes on using the capture.
  await lose(() => app.k.shareStop());
  expect(app.screens()).toEqual([]);
});

it('without a feed, a lost camera is sent again as the stream given meanwhile', async () => {
  app = await App.open({ warmPeers: 0 });
  const [first, next] = [app.stream(), app.stream()];
  await give('publishP2P to each', first, app.stream());
  expect(sent()).toHaveLength(4);
  await lose(() => give('changeLocalStream', next, first));
  const ids = next.getTracks().map(({ id }) => id);
  expect(sent()).toEqual([...ids, ...ids].sort());
});
