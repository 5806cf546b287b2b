export interface CameraHooks {
  /** The user has muted this kind. */
  muted(kind: string): boolean;
  /** A track that is or was sent has ended: its device is gone. */
  ended(): void;
}

/**
 * The camera and microphone of this user, whatever tracks they are and wherever they are sent: a
 * muted kind is not sent. Every track passes here before a sender gets it.
 */
export class Camera {
  /** Muted here, and unmuted here again. A track that an app has disabled stays disabled. */
  private readonly silenced = new WeakSet<MediaStreamTrack>();
  private readonly known = new WeakSet<MediaStreamTrack>();

  constructor(private readonly hooks: CameraHooks) {}

  pass(track: MediaStreamTrack): void {
    if (this.hooks.muted(track.kind)) this.enable(track, false);
    else if (this.silenced.has(track)) this.enable(track, true);
    if (this.known.has(track)) return;
    this.known.add(track);
    track.addEventListener('ended', () => this.hooks.ended());
  }

  enable(track: MediaStreamTrack, on: boolean): void {
    if (on) this.silenced.delete(track);
    else if (track.enabled) this.silenced.add(track);
    track.enabled = on;
  }
}
