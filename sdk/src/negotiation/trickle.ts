/** Milliseconds in which candidates are gathered into one message: a host finds most of its own at once. */
const BATCH = 20;
/** Candidates remembered for sending again. More than a host with many interfaces has. */
const KEPT = 128;

/** Local candidates on their way out: after the description they belong to, several in a message. */
export class Trickle {
  private waiting: RTCIceCandidateInit[] = [];
  private all: RTCIceCandidateInit[] = [];
  private described = false;
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly send: (list: RTCIceCandidateInit[]) => void) {}

  add(candidate: RTCIceCandidateInit): void {
    if (this.all.length >= KEPT) return;
    this.waiting.push(candidate);
    this.all.push(candidate);
    this.arm();
  }

  /** A description is being made: earlier candidates are void, new ones wait until it is sent. */
  hold(): void {
    this.stop();
    this.waiting = [];
    this.all = [];
    this.described = false;
  }

  /** The description is sent. */
  release(): void {
    this.described = true;
    this.arm();
  }

  again(): void {
    if (this.described && this.all.length) this.send(this.all);
  }

  stop(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
  }

  private arm(): void {
    if (!this.described || this.timer || this.waiting.length === 0) return;
    this.timer = setTimeout(() => {
      this.timer = undefined;
      const list = this.waiting;
      this.waiting = [];
      this.send(list);
    }, BATCH);
  }
}
