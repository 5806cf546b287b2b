import { expect, it } from 'vitest';
import { Camera } from '../src/media/camera';
import { App } from './app';
import { track } from './browser';
import { random } from './simulation';

/** One object of the SDK on a page, as its camera sees it. */
class Owner {
  muted = false;
  sends = false;
  readonly camera = new Camera({
    muted: () => this.muted,
    sends: () => this.sends,
    ended: () => undefined,
  });

  constructor(private readonly track: MediaStreamTrack) {}

  publish(): void {
    this.camera.pass(this.track);
    this.sends = true;
  }

  mute(on: boolean): void {
    this.muted = on;
    if (this.sends) this.camera.enable(this.track, !on);
  }
}

it('a track of several objects is silent while one of them is muted (1000 schedules)', () => {
  for (let seed = 0; seed < 1000; seed++) {
    const fraction = random(seed);
    const next = (below: number) => Math.floor(fraction() * below);
    const microphone = track('audio');
    const owners = [1, 2, 3].map(() => new Owner(microphone));
    for (let step = 0; step < 40; step++) {
      const owner = owners[next(owners.length)]!;
      const what = next(4);
      if (what === 0) owner.publish();
      else if (what === 1) owner.sends = false;
      else owner.mute(what === 2);
      const silent = owners.some(({ muted, sends }) => muted && sends);
      if (silent) expect(microphone.enabled, `seed ${seed}, step ${step}`).toBe(false);
      else if (what === 3 && owner.sends) {
        expect(microphone.enabled, `seed ${seed}, step ${step}`).toBe(true);
      }
    }
  }
});

it('another object unmutes a track only when this one does not send it', async () => {
  const app = await App.open({ warmPeers: 0 });
  try {
    const stream = app.stream('audio');
    const [microphone] = stream.getTracks();
    const other = new Camera({ muted: () => false, sends: () => true, ended: () => undefined });
    void app.k.publishP2P('b', 'cam', stream);
    await app.pass();
    await app.mute(['audio']);
    other.enable(microphone!, true);
    expect(microphone!.enabled).toBe(false);
    await app.k.removeLocalPeer('b', 'cam');
    await app.pass();
    other.enable(microphone!, true);
    expect(microphone!.enabled).toBe(true);
  } finally {
    app.close();
  }
});
