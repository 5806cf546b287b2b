import type { MediaType } from '../../types/knowledgetalk';
import { isFirefox } from '../global';

/** One live track of each kind at most: what is sent of a stream. */
export const liveTracks = (stream: MediaStream): MediaStreamTrack[] => {
  const live = stream.getTracks().filter((track) => track.readyState === 'live');
  return live.filter((track, i) => live.findIndex(({ kind }) => kind === track.kind) === i);
};

/**
 * Whether there is something to send. A stream of another frame is not an instance of the class of
 * this frame, and that of a canvas is a CanvasCaptureMediaStream in Firefox.
 */
export const isLive = (x: unknown): x is MediaStream =>
  /MediaStream]$/.test(Object.prototype.toString.call(x))
  && liveTracks(x as MediaStream).length > 0;

/** The kinds that a stream has to send. A track that has ended is not sent. */
export const kindsOf = (stream: MediaStream): { audio: boolean; video: boolean } => {
  const has = (wanted: string) => liveTracks(stream).some(({ kind }) => kind === wanted);
  return { audio: has('audio'), video: has('video') };
};

interface Entry {
  stream: MediaStream;
  on: boolean;
}

/**
 * Fires what the browser fires when it changes a stream itself: an app may have copied the tracks.
 */
function tell(
  stream: MediaStream,
  what: 'addtrack' | 'removetrack',
  tracks: MediaStreamTrack[],
): void {
  for (const track of tracks) stream.dispatchEvent(Object.assign(new Event(what), { track }));
}

/**
 * Remote media by user and type. The MediaStream of a user stays the same object during one call,
 * since apps give it to a video element once. Only its tracks change, with events.
 */
export class Streams {
  /** In the order in which they were last published. */
  private readonly byUser = new Map<string, Map<MediaType, Entry>>();
  private screens: string[] = [];

  /**
   * Gives the stream exactly these tracks. New ones are added before old ones are removed, so that
   * it is never empty. In Firefox it is the other way round: its video element freezes for good
   * when its track is removed while the stream has another.
   */
  set(user: string, type: MediaType, tracks: readonly MediaStreamTrack[]): void {
    const types = this.byUser.get(user) ?? new Map<MediaType, Entry>();
    this.byUser.set(user, types);
    const entry = types.get(type) ?? { stream: new MediaStream(), on: false };
    types.set(type, entry);
    const { stream } = entry;
    const had = stream.getTracks();
    const fresh = tracks.filter((track) => !had.includes(track));
    const gone = had.filter((track) => !tracks.includes(track));
    const add = () => fresh.forEach((track) => stream.addTrack(track));
    const remove = () => gone.forEach((track) => stream.removeTrack(track));
    for (const step of isFirefox() ? [remove, add] : [add, remove]) step();
    // At the end: an app may use the first track as a source.
    tell(stream, 'removetrack', gone);
    tell(stream, 'addtrack', fresh);
    if (type === 'screen' && !entry.on) {
      this.screens = [...this.screens.filter((id) => id !== user), user];
    }
    entry.on = true;
  }

  /** Nothing is published any more. The object is kept for the next publication, empty. */
  drop(user: string, type: MediaType): void {
    const entry = this.byUser.get(user)?.get(type);
    if (!entry) return;
    entry.on = false;
    const gone = entry.stream.getTracks();
    for (const track of gone) entry.stream.removeTrack(track);
    tell(entry.stream, 'removetrack', gone);
    if (type === 'screen') this.screens = this.screens.filter((id) => id !== user);
  }

  /** The call with this user is over: the next one gets new objects. */
  forget(user: string): void {
    for (const type of this.byUser.get(user)?.keys() ?? []) this.drop(user, type);
    this.byUser.delete(user);
  }

  get(user: string, type: MediaType): MediaStream | undefined {
    const entry = this.byUser.get(user)?.get(type);
    return entry?.on ? entry.stream : undefined;
  }

  /** As in getStream: `screen` alone names the newest screen, never a user with that id. */
  find(user: string, type?: MediaType): MediaStream | undefined {
    return user === 'screen' && !type
      ? this.get(this.screens[this.screens.length - 1] ?? '', 'screen')
      : this.get(user, type ?? 'cam');
  }

  all(): { [id: string]: MediaStream } {
    const all: { [id: string]: MediaStream } = {};
    for (const user of [...this.byUser.keys(), 'screen']) {
      const stream = this.find(user);
      if (stream) all[user] = stream;
    }
    return all;
  }
}
