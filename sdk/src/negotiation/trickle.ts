/**
 * Candidates within this many milliseconds go into one message: most host candidates come at once.
 */
const BATCH = 5;
/** Candidates kept for sending again. More than a host with many interfaces has. */
const KEPT = 128;

/** A host candidate that is unreachable from other networks. */
export function isPrivate({ candidate = '' }: RTCIceCandidateInit): boolean {
  const [, address = ''] = /^candidate:\S+ \d+ \S+ \d+ (\S+) \d+ typ host/i.exec(candidate) ?? [];
  // RFC 1918, 3927 and 6598, mDNS names, and unique or link-local IPv6.
  return (
    /^(10|127|192\.168|169\.254|172\.(1[6-9]|2\d|3[01])|100\.(6[4-9]|[7-9]\d|1[01]\d|12[0-7]))\./
      .test(address) || /\.local$|^(f[cd]|fe[89ab])[0-9a-f]*:/i.test(address)
  );
}

/** Sends local candidates after their description, several in a message. */
export class Trickle {
  private unsent: RTCIceCandidateInit[] = [];
  private all: RTCIceCandidateInit[] = [];
  private described = false;
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly send: (list: RTCIceCandidateInit[]) => void) {}

  add(candidate: RTCIceCandidateInit): void {
    if (this.all.length >= KEPT) return;
    this.unsent.push(candidate);
    this.all.push(candidate);
    this.arm();
  }

  /** A description is being made: earlier candidates are void, new ones wait for it. */
  hold(): void {
    this.stop();
    this.unsent = [];
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
    if (!this.described || this.timer || this.unsent.length === 0) return;
    this.timer = setTimeout(() => {
      this.timer = undefined;
      const list = this.unsent;
      this.unsent = [];
      this.send(list);
    }, BATCH);
  }
}
