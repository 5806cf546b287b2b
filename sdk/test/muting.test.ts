import { afterEach, expect, it } from 'vitest';
import { FakeConnection } from './connections';
import { App } from './app';

let app: App;
afterEach(() => app.close());

type Way = (app: App, id: string, first: MediaStream) => Promise<unknown>;

/** Every way in which what a member is sent can begin or change. The member has been sent a stream before. */
const ways: Record<string, Way> = {
  'is left as it is': async () => undefined,
  'is published again': ({ k }, id, first) => k.publishP2P(id, 'cam', first),
  'is published again as another stream': (a, id) => a.k.publishP2P(id, 'cam', a.stream()),
  'is published again with a kind less': (a, id) => a.k.publishP2P(id, 'cam', a.stream('audio')),
  'is published to another member as well': (a, _, first) => a.k.publishP2P('c', 'cam', first),
  'is another stream for another member': (a) => a.k.publishP2P('c', 'cam', a.stream()),
  'is taken back and published again': async (a, id) => {
    await a.k.removeLocalPeer(id, 'cam');
    return a.k.publishP2P(id, 'cam', a.stream());
  },
  'is a feed for who subscribes late': async (a) => {
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
      if (sender.track) await sender.replaceTrack(a.stream().getTracks().find(({ kind }) => kind === sender.track!.kind)!);
    }
  },
  'goes over another connection when the path dies': async (a, id) => {
    if (id === 'raw') return;
    await a.pass(2_500);
    const [main, spare] = a.open;
    a.cut(main!);
    await a.pass(1_500);
    expect(spare!.getSenders()[0]!.track).not.toBeNull();
  },
  'goes over a new connection': async (a, id) => {
    a.k.getPeer(id)!.close();
    await a.pass();
    return id === 'raw' ? a.k.publishP2P(id, 'cam', a.stream()) : undefined;
  },
  'is sent again by a new session': (a) => a.loseSession(),
  'is sent in the next room': async (a, id) => {
    await a.k.leaveRoom();
    await a.k.joinRoom('R');
    return a.k.publishP2P(id, 'cam', a.stream());
  },
  'has a screen beside it': async (a) => {
    const screen = a.stream();
    for (const track of screen.getTracks()) Object.assign(track, { screen: true });
    await a.k.screenStart(screen);
    await a.pass();
    expect(a.screens().length).toBeGreaterThan(0);
  },
};

const STATES = [[], ['audio'], ['video'], ['audio', 'video']] as const;
const TIMES = ['before it is sent', 'before', 'while', 'after'] as const;

for (const id of ['b', 'raw']) {
  it.each(Object.entries(ways))(`who is muted sends nothing of that kind to ${id}: it %s`, async (_, way) => {
    for (const off of STATES) {
      for (const time of TIMES) {
        app = await App.open({ warmPeers: 4 });
        const first = app.stream();
        if (time === 'before it is sent') await app.say(off);
        const published = app.k.publishP2P(id, 'cam', first);
        await app.pass();
        expect(await published).toBe(true);
        if (time === 'before') await app.say(off);
        const done = way(app, id, first);
        if (time === 'while') await app.say(off);
        await app.pass();
        await done;
        await app.pass();
        if (time === 'after') await app.say(off);
        const heard = (tracks: MediaStreamTrack[]) => tracks.map(({ kind, enabled }) => `${kind} ${enabled}`);
        const sent = app.cameras();
        expect(sent.length, `${off} ${time}`).toBeGreaterThan(0);
        expect(heard(sent), `${off} ${time}`).toEqual(sent.map(({ kind }) => `${kind} ${!(off as readonly string[]).includes(kind)}`));
        expect(app.faults, `${off} ${time}`).toEqual([]);
        expect(heard(app.screens()).filter((text) => text.includes('false'))).toEqual([]);
        await app.say([]);
        expect(heard(app.cameras()).filter((text) => text.includes('false')), 'on again').toEqual([]);
        app.close();
        expect(FakeConnection.open).toBe(0);
      }
    }
    app = await App.open();
  });
}

it('what was sent while it was muted is heard when it is sent again later, and what the app has muted itself is not', async () => {
  app = await App.open({ warmPeers: 0 });
  const [one, two, own] = [app.stream(), app.stream(), app.stream()];
  own.getAudioTracks()[0]!.enabled = false;
  await app.say(['audio']);
  for (const stream of [one, two, own]) {
    void app.k.publishP2P('b', 'cam', stream);
    await app.pass();
  }
  await app.say([]);
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

it('a track is muted that the app puts on a sender while the user mutes', async () => {
  app = await App.open({ warmPeers: 0 });
  void app.k.publishP2P('b', 'cam', app.stream());
  await app.pass();
  const [sender] = app.k.getPeer('b')!.getSenders();
  const other = app.stream('audio').getAudioTracks()[0]!;
  const replaced = sender!.replaceTrack(other);
  const said = app.say(['audio']);
  await Promise.all([replaced, said]);
  expect([sender!.track, other.enabled]).toEqual([other, false]);
});
