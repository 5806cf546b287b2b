export interface CameraHooks {
  /** The user has muted this kind. */
  muted(kind: string): boolean;
  /** The track is being sent. */
  sends(track: MediaStreamTrack): boolean;
  /** A track that is or was sent has ended: its device is gone. */
  readonly ended: () => void;
}

/**
 * Who has disabled a track, and not enabled it again: several objects may send one track. A track
 * that an app has disabled stays disabled.
 */
const disabledBy = new WeakMap<MediaStreamTrack, Set<Camera>>();

/**
 * The camera and microphone of this user, whatever tracks they are and wherever they are sent: a
 * muted kind is not sent. Every track passes here before a sender gets it.
 */
export class Camera {
  constructor(private readonly hooks: CameraHooks) {}

  pass(track: MediaStreamTrack): void {
    if (this.hooks.muted(track.kind)) this.enable(track, false);
    else if (disabledBy.get(track)?.has(this)) this.enable(track, true);
    track.addEventListener('ended', this.hooks.ended); // once, as it is the same function
  }

  /** Enables the track unless another object sends it and is muted. */
  enable(track: MediaStreamTrack, on: boolean): void {
    const by = disabledBy.get(track) ?? new Set();
    disabledBy.set(track, by);
    if (on) by.delete(this);
    else if (track.enabled || by.size) by.add(this);
    track.enabled = on && ![...by].some(({ hooks }) => hooks.sends(track));
  }
}
