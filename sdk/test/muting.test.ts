import { afterEach, expect, it } from 'vitest';
import { FakeConnection } from './connections';
import { App } from './app';

let app: App;
afterEach(() => app.close());

type Change = (app: App, id: string, first: MediaStream) => Promise<unknown>;

/** Every way to begin or change what a member is sent. The member has been sent a stream before. */
const changes: Record<string, Change> = {
  'is left as it is': async () => undefined,
  'is published again': ({ k }, id, first) => k.publishP2P(id, 'cam', first),
  'is published again as another stream': (a, id) => a.k.publishP2P(id, 'cam', a.stream()),
  'is published again without video': (a, id) => a.k.publishP2P(id, 'cam', a.stream('audio')),
  'is published to another member as well': (a, _, first) => a.k.publishP2P('c', 'cam', first),
  'is another stream for another member': (a) => a.k.publishP2P('c', 'cam', a.stream()),
  'is unpublished and published again': async (a, id) => {
    await a.k.removeLocalPeer(id, 'cam');
    return a.k.publishP2P(id, 'cam', a.stream());
  },
  'is a feed with a late subscriber': async (a) => {
    await a.k.publishVideo('cam', a.stream());
    a.from('c', { eventOp: 'subscribe', type: 'cam' });
  },
  'is a feed that is published again': async (a, id) => {
    await a.k.publishVideo('cam', a.stream());
    for (const from of [id, 'c']) a.from(from, { eventOp: 'subscribe', type: 'cam' });
    await a.pass();
    return a.k.publishVideo('cam', a.stream());
  },
  'is changed before the feed has a subscriber': async (a) => {
    await a.k.publishVideo('cam', a.stream());
    await a.k.changeLocalStream(a.stream());
    a.from('c', { eventOp: 'subscribe', type: 'cam' });
  },
  'is changed for all': (a) => a.k.changeLocalStream(a.stream()),
  'is changed for one': (a, id) => a.k.changeLocalStream(a.stream(), id),
  'is replaced on the senders by the app': async (a, id) => {
    for (const sender of a.k.getPeer(id)!.getSenders()) {
      if (sender.track) {
        await sender.replaceTrack(
          a
            .stream()
            .getTracks()
            .find(({ kind }) => kind === sender.track!.kind)!,
        );
      }
    }
  },
  'goes over another connection when the path dies': async (a, id) => {
    if (id === 'legacy') return;
    await a.pass(2_500);
    const backup = a.open.find((c) => c.getConfiguration().iceTransportPolicy === 'relay');
    a.cut(a.k.getPeer(id) as unknown as FakeConnection);
    await a.pass(1_500);
    expect(backup!.getSenders()[0]!.track).not.toBeNull();
  },
  'goes over a new connection': async (a, id) => {
    a.k.getPeer(id)!.close();
    await a.pass();
    return id === 'legacy' ? a.k.publishP2P(id, 'cam', a.stream()) : undefined;
  },
  'is sent again by a new session': (a) => a.loseSession(),
  'is sent in the next room': async (a, id) => {
    await a.k.leaveRoom();
    await a.k.joinRoom('R');
    return a.k.publishP2P(id, 'cam', a.stream());
  },
  'is sent beside a screen': async (a) => {
    const screen = a.stream();
    for (const track of screen.getTracks()) Object.assign(track, { screen: true });
    await a.k.screenStart(screen);
    await a.pass();
    expect(a.screens().length).toBeGreaterThan(0);
  },
};

const STATES = [[], ['audio'], ['video'], ['audio', 'video']] as const;
const TIMES = ['before it is sent', 'before', 'while', 'after'] as const;

for (const id of ['b', 'legacy']) {
  it.each(Object.entries(changes))(
    `a muted kind is not sent to ${id} when the camera %s`,
    async (_, change) => {
      for (const off of STATES) {
        for (const time of TIMES) {
          app = await App.open({ warmPeers: 4 });
          const first = app.stream();
          if (time === 'before it is sent') await app.mute(off);
          const published = app.k.publishP2P(id, 'cam', first);
          await app.pass();
          expect(await published).toBe(true);
          if (time === 'before') await app.mute(off);
          const done = change(app, id, first);
          if (time === 'while') await app.mute(off);
          await app.pass();
          await done;
          await app.pass();
          if (time === 'after') await app.mute(off);
          const heard = (tracks: MediaStreamTrack[]) =>
            tracks.map(({ kind, enabled }) => `${kind} ${enabled}`);
          const sent = app.cameras();
          expect(sent.length, `${off} ${time}`).toBeGreaterThan(0);
          expect(heard(sent), `${off} ${time}`).toEqual(
            sent.map(({ kind }) => `${kind} ${!(off as readonly string[]).includes(kind)}`),
          );
          expect(app.errors, `${off} ${time}`).toEqual([]);
          expect(heard(app.screens()).filter((text) => text.includes('false'))).toEqual([]);
          await app.mute([]);
          expect(
            heard(app.cameras()).filter((text) => text.includes('false')),
            'on again',
          ).toEqual([]);
          app.close();
          expect(FakeConnection.open).toBe(0);
        }
      }
      app = await App.open();
    },
  );
}

it('a stream is unmuted when it is sent again later, unless the app has muted it', async () => {
  app = await App.open({ warmPeers: 0 });
  const [one, two, own] = [app.stream(), app.stream(), app.stream()];
  own.getAudioTracks()[0]!.enabled = false;
  await app.mute(['audio']);
  for (const stream of [one, two, own]) {
    void app.k.publishP2P('b', 'cam', stream);
    await app.pass();
  }
  await app.mute([]);
  const states: boolean[] = [];
  for (const stream of [one, two]) {
    void app.k.publishP2P('b', 'cam', stream);
    await app.pass();
    states.push(stream.getAudioTracks()[0]!.enabled);
  }
  expect(states).toEqual([true, true]);
  own.getAudioTracks()[0]!.enabled = false;
  void app.k.publishP2P('b', 'cam', own);
  await app.pass();
  expect(own.getAudioTracks()[0]!.enabled).toBe(false);
});

it('a track that the app gives a sender during muting is muted', async () => {
  app = await App.open({ warmPeers: 0 });
  void app.k.publishP2P('b', 'cam', app.stream());
  await app.pass();
  const [sender] = app.k.getPeer('b')!.getSenders();
  const other = app.stream('audio').getAudioTracks()[0]!;
  const replaced = sender!.replaceTrack(other);
  const said = app.mute(['audio']);
  await Promise.all([replaced, said]);
  expect([sender!.track, other.enabled]).toEqual([other, false]);
});
