/** Milliseconds in which candidates are gathered into one message: a host finds most of its own at once. */
const BATCH = 5;
/** Candidates remembered for sending again. More than a host with many interfaces has. */
const KEPT = 128;

/** An own address of the other side that nobody outside its network can reach. */
export function isPrivate({ candidate = '' }: RTCIceCandidateInit): boolean {
  const [, address = ''] = /^candidate:\S+ \d+ \S+ \d+ (\S+) \d+ typ host/i.exec(candidate) ?? [];
  return /\.local$|^(10|127|192\.168|169\.254|172\.(1[6-9]|2\d|3[01])|100\.(6[4-9]|[7-9]\d|1[01]\d|12[0-7]))\.|^(f[cd]|fe[89ab])[0-9a-f]*:/i.test(address);
}

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
