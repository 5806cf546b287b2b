import type { MediaType } from '../../types/knowledgetalk';
import { isFirefox } from '../global';

/** One live track of each kind at most: what is sent of a stream. */
export const liveTracks = (stream: MediaStream): MediaStreamTrack[] => {
  const live = stream.getTracks().filter((track) => track.readyState === 'live');
  return live.filter((track, i) => live.findIndex(({ kind }) => kind === track.kind) === i);
};

/**
 * Whether there is something to send. A stream made in another frame is not an instance of this frame's class, and that
 * of a canvas is a CanvasCaptureMediaStream in Firefox.
 */
export const isLive = (x: unknown): x is MediaStream =>
  /MediaStream]$/.test(Object.prototype.toString.call(x)) && liveTracks(x as MediaStream).length > 0;

/** What a stream has to send. A track that has ended is not sent. */
export const kindsOf = (stream: MediaStream): { audio: boolean; video: boolean } => {
  const has = (wanted: string) => liveTracks(stream).some(({ kind }) => kind === wanted);
  return { audio: has('audio'), video: has('video') };
};

interface Entry {
  stream: MediaStream;
  on: boolean;
}

/** As the browser does when it changes a stream itself: what an app has made of the tracks does not follow the stream. */
function tell(stream: MediaStream, what: 'addtrack' | 'removetrack', tracks: MediaStreamTrack[]): void {
  for (const track of tracks) stream.dispatchEvent(Object.assign(new Event(what), { track }));
}

/**
 * Remote media by user and type. A user's MediaStream object stays the same through every re-publish and restart of one call, since apps
 * put it into a video element once; only its tracks change, and it says so.
 */
export class Streams {
  /** In the order in which they were last switched on. */
  private readonly entries = new Map<string, Map<MediaType, Entry>>();
  private screens: string[] = [];

  /**
   * Makes the stream hold exactly these tracks. New ones go in before old ones go out, so that it is never empty in between; but for
   * Firefox, whose video element stands still for good when the track that it shows goes while there is another.
   */
  set(user: string, type: MediaType, tracks: readonly MediaStreamTrack[]): void {
    const types = this.entries.get(user) ?? new Map<MediaType, Entry>();
    this.entries.set(user, types);
    const entry = types.get(type) ?? { stream: new MediaStream(), on: false };
    types.set(type, entry);
    const { stream } = entry;
    const had = stream.getTracks();
    const fresh = tracks.filter((track) => !had.includes(track));
    const gone = had.filter((track) => !tracks.includes(track));
    const add = () => fresh.forEach((track) => stream.addTrack(track));
    const remove = () => gone.forEach((track) => stream.removeTrack(track));
    for (const step of isFirefox() ? [remove, add] : [add, remove]) step();
    // When all is done: who makes a source of the stream then takes its first track.
    tell(stream, 'removetrack', gone);
    tell(stream, 'addtrack', fresh);
    if (type === 'screen' && !entry.on) this.screens = [...this.screens.filter((id) => id !== user), user];
    entry.on = true;
  }

  /** Nothing is published any more. The object is kept for the next publication, empty. */
  drop(user: string, type: MediaType): void {
    const entry = this.entries.get(user)?.get(type);
    if (!entry) return;
    entry.on = false;
    const gone = entry.stream.getTracks();
    for (const track of gone) entry.stream.removeTrack(track);
    tell(entry.stream, 'removetrack', gone);
    if (type === 'screen') this.screens = this.screens.filter((id) => id !== user);
  }

  /** The call with this user is over: the next one gets new objects. */
  forget(user: string): void {
    for (const type of this.entries.get(user)?.keys() ?? []) this.drop(user, type);
    this.entries.delete(user);
  }

  get(user: string, type: MediaType): MediaStream | undefined {
    const entry = this.entries.get(user)?.get(type);
    return entry?.on ? entry.stream : undefined;
  }

  /** As getStream has it: 'screen' alone names the newest screen, never a user who is called so. */
  find(user: string, type?: MediaType): MediaStream | undefined {
    return user === 'screen' && !type ? this.get(this.screens[this.screens.length - 1] ?? '', 'screen') : this.get(user, type ?? 'cam');
  }

  all(): { [id: string]: MediaStream } {
    const all: { [id: string]: MediaStream } = {};
    for (const user of [...this.entries.keys(), 'screen']) {
      const stream = this.find(user);
      if (stream) all[user] = stream;
    }
    return all;
  }
}
