import { hasUserActed } from '../global';

/**
 * Milliseconds between two samples, samples without voice until speech has ended, and milliseconds
 * between two messages.
 */
const INTERVAL = 100;
const SILENT = 8;
const PAUSE = 500;

/** The level of a microphone: the only place that names AudioContext. */
export class Meter {
  private readonly context: AudioContext;
  private readonly analyser: AnalyserNode;
  private readonly samples: Float32Array<ArrayBuffer>;

  constructor(readonly track: MediaStreamTrack) {
    this.context = new AudioContext();
    this.analyser = this.context.createAnalyser();
    // All sound since the last sample: a pulse in step with the samples would be missed otherwise.
    this.analyser.fftSize = 2 ** Math.ceil(Math.log2((this.context.sampleRate * INTERVAL) / 1000));
    this.samples = new Float32Array(this.analyser.fftSize);
    this.context.createMediaStreamSource(new MediaStream([track])).connect(this.analyser);
  }

  /**
   * Root mean square since the last sample, 0 to 1; 0 while the browser waits for a user gesture.
   */
  level(): number {
    if (this.context.state !== 'running') {
      if (hasUserActed()) void this.context.resume();
      return 0;
    }
    this.analyser.getFloatTimeDomainData(this.samples);
    return Math.sqrt(this.samples.reduce((sum, x) => sum + x * x, 0) / this.samples.length);
  }

  close(): void {
    void this.context.close();
  }
}

export interface TalkingHooks {
  /** The microphone that is sent; undefined without one, or when the room does not ask. */
  track(): MediaStreamTrack | undefined;
  say(talking: boolean): void;
}

/**
 * Speech begins above `on` and ends below `off`. It is some ten times louder than `on`; a quiet
 * room is below `off`.
 */
const LEVEL = { on: 0.02, off: 0.01 };

/** Tells the room when this user begins and ends to talk. */
export class Talking {
  private meter: Meter | null = null;
  private timer: ReturnType<typeof setInterval> | undefined;
  private said = false;
  private talking = false;
  private silent = 0;
  private looks = 0;

  constructor(
    private readonly hooks: TalkingHooks,
    private readonly create: (track: MediaStreamTrack) => Meter = (track) => new Meter(track),
  ) {}

  /** A room with talkingNoty is entered. */
  start(): void {
    this.timer ??= setInterval(() => this.look(), INTERVAL);
  }

  /** It is left. */
  stop(): void {
    clearInterval(this.timer);
    this.timer = undefined;
    this.drop();
    this.talking = this.said = false;
    this.looks = 0;
  }

  private look(): void {
    const track = this.hooks.track();
    if (track !== this.meter?.track) {
      this.drop();
      try {
        this.meter = track ? this.create(track) : null;
      } catch (error) {
        // There is no AudioContext.
        console.warn('Ieum: the audio level cannot be measured.', error);
        return this.stop();
      }
    }
    const level = this.meter?.level() ?? 0;
    this.silent = level < LEVEL.off ? this.silent + 1 : 0;
    if (level > LEVEL.on) this.talking = true;
    else if (this.silent >= SILENT) this.talking = false;
    this.looks = Math.max(0, this.looks - 1);
    if (this.talking === this.said || this.looks > 0) return;
    this.said = this.talking;
    this.looks = PAUSE / INTERVAL;
    this.hooks.say(this.said);
  }

  private drop(): void {
    this.meter?.close();
    this.meter = null;
  }
}
