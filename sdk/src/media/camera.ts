export interface CameraHooks {
  /** The user has said that this kind is off. */
  muted(kind: string): boolean;
  /** A track that is or was sent has ended: its device is gone. */
  ended(): void;
}

/**
 * This user's camera and microphone, whichever tracks they are and whoever they are sent to: what is off is not heard or seen. Every
 * track passes here before a sender gets it.
 */
export class Camera {
  /** Switched off here, to be switched on again here; what an app has switched off itself stays off. */
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
