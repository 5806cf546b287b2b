import type { MediaType, PeerStateEvent } from '../../types/knowledgetalk';
import type { Reason } from '../errors';
import { negotiates, NONE, type Signal } from '../signaling/messages';
import { Demands } from './budget';
import { TYPES } from './layout';
import { HEARTBEAT } from './liveness';
import { Pair, type PairHooks } from './pair';
import { changes } from './report';

export interface PathsHooks extends Omit<PairHooks, 'withdrawn' | 'dead' | 'firstResponse' | 'alive' | 'usable' | 'failed' | 'closed' | 'needed' | 'overChannel'> {
  /** The server can be reached. */
  online(): boolean;
  /** A second connection may be kept with this user. */
  standby(): boolean;
  /** Asks the server for a sign of life. */
  probeServer(): Promise<boolean>;
}

/** Milliseconds. */
export const PATHS = {
  /**
   * Between attempts to find another path for the first connection: the first wait, doubled each time, and the longest. Chromium tries
   * what it has found in earnest only when the path in use has been silent for 2.5 s.
   */
  retry: 3_500,
  retryMost: 16_000,
  /** The same, when the first connection has given a sign of life: its heartbeats may come so much later. */
  sign: 4_000,
  /** The same, for a connection that was direct and is relayed now. */
  better: 2_000,
  betterMost: 60_000,
  /** Media goes both ways for so long before the second connection stops, so that the first one's picture is there when it is needed. */
  overlap: 700,
  /** Between replacements of a second connection: the least, doubled each time while the first stays dead, and the longest. */
  replace: 3_000,
  replaceMost: 24_000,
  /** Until a second connection that nobody answered for is tried again, doubled each time, and the longest: the other side may not want any. */
  refused: 60_000,
  refusedMost: 960_000,
  /** From a change of the room, or of the way, until a second connection is made or given up for it: the other side has heard of it by then. */
  settle: 2_000,
};

const hasRelay = (servers: RTCIceServer[]) => servers.some(({ urls }) => [urls].flat().some((url) => /^turns?:/.test(url)));

/**
 * The ways to one user: the connection of the pair, and a second one over the relay, ready and empty. When nothing passes on the first, what
 * is published is published on the second, which takes a replaceTrack and one message; the first is mended behind it and takes the media
 * back. Each side decides for what it sends; what it receives is shown from the second as long as something is published there.
 */
export class Paths {
  private readonly primary: Pair;
  private backup: Pair | null = null;
  /** What we send goes over the second one. */
  private onBackup = false;
  private tried = 0;
  private retry: ReturnType<typeof setTimeout> | undefined;
  private failBackTimer: ReturnType<typeof setTimeout> | undefined;
  private review: ReturnType<typeof setTimeout> | undefined;
  private reviewDue = 0;
  private preparing = false;
  /** When the second connection was replaced last, and how often since the first one died. */
  private replacedAt = -Infinity;
  private replacements = 0;
  /** Second connections in a row that nobody answered for. */
  private refusals = 0;
  /** The first connection was direct when it died. */
  private direct = false;
  /** The first connection, dead, has given a sign of life: since it was last tried to be mended, and at all. */
  private responding = false;
  private believed = false;
  /** What the other side said last came over a data channel: it may not reach the server. */
  private peerOffline = false;
  private disposed = false;
  private reported: PeerStateEvent['state'] | '' = '';
  private readonly tell = changes((state, reason) => {
    this.reported = state;
    this.hooks.report(state, reason);
  });
  private readonly tracks: Record<'primary' | 'backup', Record<MediaType, MediaStreamTrack[] | null>> = {
    primary: { cam: null, screen: null }, backup: { cam: null, screen: null },
  };

  constructor(
    private readonly me: string, private readonly other: string, private readonly hooks: PathsHooks, private readonly demands = new Demands(),
  ) {
    this.primary = new Pair(me, other, {
      send: (signal) => this.send(signal),
      iceServers: () => hooks.iceServers(),
      apart: () => hooks.apart(),
      pass: (track) => hooks.pass(track),
      stream: (type, tracks) => this.show('primary', type, tracks),
      subscribed: (type) => {
        hooks.subscribed(type);
        this.prepare();
      },
      // While media goes another way, how the first one does is no concern of the app.
      report: (state, reason) => (this.onBackup ? undefined : this.report(state, reason)),
      withdrawn: (type) => {
        this.backup?.unpublish(type);
        this.reviewSoon();
      },
      overChannel: (signal) => this.overChannel(signal),
      dead: () => this.dead(),
      firstResponse: () => this.firstResponse(),
      alive: () => this.alive(),
      usable: () => this.showAll(),
      failed: () => undefined,
      closed: () => undefined,
      needed: () => false,
    }, demands);
  }

  /** The one that carries what we send. */
  get connection(): RTCPeerConnection | undefined {
    return (this.onBackup ? this.backup?.connection : undefined) ?? this.primary.connection;
  }

  get waiting(): boolean {
    return this.primary.waiting;
  }

  /** Nothing has come through of late. */
  get silent(): boolean {
    return this.reported === 'interrupted' || this.reported === 'recovering' || this.reported === 'failed';
  }

  sending(type: MediaType): MediaStream | null {
    return this.primary.sending(type);
  }

  warm(): void {
    this.primary.warm();
  }

  async publish(type: MediaType, stream: MediaStream): Promise<boolean> {
    const outcome = this.primary.publish(type, stream);
    if (this.onBackup) void this.backup?.publish(type, stream);
    const ok = await outcome;
    if (ok) this.prepare();
    return ok;
  }

  unpublish(type: MediaType): void {
    this.primary.unpublish(type);
  }

  ended(type: MediaType): void {
    for (const pair of this.pairs) pair.ended(type);
  }

  senders(): RTCRtpSender[] {
    return this.pairs.flatMap((pair) => pair.senders());
  }

  private get pairs(): Pair[] {
    return this.backup ? [this.primary, this.backup] : [this.primary];
  }

  refuse(type: MediaType): void {
    this.primary.refuse(type);
    this.backup?.refuse(type);
  }

  signal(signal: Signal): void {
    this.peerOffline = false;
    this.take(signal);
  }

  private overChannel(signal: Signal): void {
    this.peerOffline = true;
    this.take(signal);
  }

  private take(signal: Signal): void {
    if (!('link' in signal) || signal.link !== 'standby') this.primary.signal(signal);
    else if (this.backup || (this.hooks.standby() && (this.used || !this.primary.creator))) (this.backup ??= this.make()).signal(signal);
  }

  resumed(): void {
    this.primary.resumed();
    this.backup?.resumed();
    if (!this.primary.dead) return;
    // The server may have been all that was missing: back-off begins anew.
    this.tried = 0;
    this.recover();
  }

  /** What a data channel can carry does not wait for the server: a second connection half made, or a restart unanswered. */
  offline(): void {
    if (this.primary.ready) this.backup?.resumed();
    if (this.primary.ready || this.backup?.ready) this.primary.resumed();
  }

  /** Another network is in use: what was found in the old one may still work, but something better is looked for at once. */
  network(): void {
    this.primary.regather();
    this.backup?.regather();
  }

  /** The room has other members, or less is sent: a second connection may be kept now, or no longer. */
  reviewSoon(): void {
    this.reviewIn(PATHS.settle);
  }

  dispose(): void {
    this.disposed = true;
    clearTimeout(this.retry);
    clearTimeout(this.failBackTimer);
    clearTimeout(this.review);
    this.primary.dispose();
    this.backup?.dispose();
  }

  /**
   * Over the server, as long as it is there: what it takes arrives, if in no haste. Without it descriptions and candidates go over a data
   * channel on which something gets through. They may overtake others then; the machine tells them apart by their numbers, and repeats.
   */
  private async send(signal: Signal): Promise<string> {
    if (!negotiates(signal)) return this.hooks.send(signal);
    const overEither = () => this.primary.sendOverChannel(signal) || (this.backup?.sendOverChannel(signal) ?? false);
    if ((this.peerOffline || !this.hooks.online()) && overEither()) return '200';
    const code = await this.hooks.send(signal);
    return code === '504' && !this.disposed && !this.hooks.online() && overEither() ? '200' : code;
  }

  /** Makes the second connection once media flows on the first. The same side makes both. */
  private prepare(): void {
    if (this.backup || this.preparing || !this.primary.creator || !this.hooks.standby()) return;
    this.preparing = true;
    void this.hooks.iceServers().then((servers) => {
      this.preparing = false;
      if (this.disposed || this.backup || !hasRelay(servers) || !this.hooks.standby()) return;
      this.backup = this.make();
    });
  }

  /** Something is sent, or shown. */
  private get used(): boolean {
    return TYPES.some((type) => this.primary.sending(type) || this.tracks.primary[type]);
  }

  private reviewBackup(): void {
    this.review = undefined;
    const { primary, backup, tracks, used } = this;
    const allowed = this.hooks.standby();
    if (used && allowed) return this.prepare();
    // Whether there is a use for it is for the side to judge that makes it: the other one may not have heard yet.
    if (!backup || (allowed && !primary.creator)) return;
    if ((used && (this.onBackup || primary.dead)) || (backup.ready && TYPES.some((type) => tracks.backup[type]))) this.reviewSoon();
    else this.drop();
  }

  /** Nobody there takes it. What changes the room, or what is sent, has it tried again at once. */
  private giveUp(): void {
    this.drop();
    this.reviewIn(Math.min(PATHS.refusedMost, PATHS.refused * 2 ** this.refusals++));
  }

  private drop(): void {
    this.backup?.dispose();
    this.backup = null;
    clearTimeout(this.failBackTimer);
    this.onBackup = false;
    this.primary.routedElsewhere(false);
    this.primary.pause(false);
    for (const type of TYPES) this.show('backup', type, null);
  }

  private make(): Pair {
    const backup = new Pair(this.me, this.other, {
      // Publications go over its own data channel alone: over the server they would be taken for those of the first one.
      // One that is to say that there is no connection says so itself.
      send: async (signal) => {
        if (negotiates(signal)) return this.send({ ...signal, link: 'standby' });
        return 'gen' in signal && signal.gen === 0 ? this.send({ ...NONE, link: 'standby' }) : '200';
      },
      iceServers: () => this.hooks.iceServers(),
      apart: () => false,
      pass: (track) => this.hooks.pass(track),
      stream: (type, tracks) => this.show('backup', type, tracks),
      subscribed: () => undefined,
      report: () => undefined,
      withdrawn: () => undefined,
      overChannel: (signal) => this.overChannel(signal),
      dead: () => {
        this.primary.routedElsewhere(false);
        this.showAll();
        void this.replaceBackup();
      },
      firstResponse: () => undefined,
      alive: () => undefined,
      usable: () => {
        this.refusals = 0;
        this.showAll();
        if (this.primary.dead) this.failOver();
      },
      failed: (reason) => {
        if (reason === 'no-answer') this.giveUp();
        else if (this.onBackup) this.failBack();
      },
      closed: () => (this.primary.creator && this.used && this.hooks.standby() ? backup.renew() : this.drop()),
      needed: () => this.primary.doubtful,
    }, this.demands, true);
    backup.warm();
    // What it is made for may be over.
    this.reviewSoon();
    return backup;
  }

  private show(way: 'primary' | 'backup', type: MediaType, tracks: MediaStreamTrack[] | null): void {
    this.tracks[way][type] = tracks;
    if (way === 'primary' && !tracks) this.reviewSoon();
    if (way === 'primary' || this.tracks.primary[type]) this.hooks.stream(type, this.best(type));
  }

  /** From the second connection while it carries, or nothing does: what came over one that is dead has ended. */
  private best(type: MediaType): MediaStreamTrack[] | null {
    const { primary, backup } = this.tracks;
    return primary[type] && ((this.backup?.ready || this.primary.dead) && backup[type] ? backup[type] : primary[type]);
  }

  private showAll(): void {
    for (const type of TYPES) if (this.tracks.primary[type]) this.hooks.stream(type, this.best(type));
  }

  private dead(): void {
    clearTimeout(this.failBackTimer);
    void this.hooks.probeServer();
    this.believed = false;
    this.replacements = 0;
    this.tried = 0;
    void this.primary.relayed().then((relayed) => (this.direct ||= relayed === false));
    this.recover();
  }

  /** Media does not wait for the proof that all is well, which may take three seconds; what goes over the second one goes on until then. */
  private firstResponse(): void {
    if (this.responding) return;
    this.responding = true;
    this.primary.pause(false);
    this.primary.refresh();
    // Once: whose first sign meant nothing is believed when it lives.
    if (this.connection && !this.believed) this.report('connected', '');
    this.believed = true;
    clearTimeout(this.retry);
    this.retry = setTimeout(() => this.recover(), PATHS.sign);
  }

  /** Again and again until it lives. */
  private recover(): void {
    this.responding = false;
    this.report('recovering', 'path-dead');
    if (this.onBackup) this.primary.pause(true);
    else this.failOver();
    // Unless the other side has been first.
    if (!this.primary.restarted(HEARTBEAT.limit)) this.primary.regather();
    void this.replaceBackup();
    clearTimeout(this.retry);
    this.retry = setTimeout(() => this.recover(), Math.min(PATHS.retryMost, PATHS.retry * 2 ** this.tried++));
  }

  /**
   * Neither way carries anything, and the server answers: what has broken is not this side's network, which would bring both back with it.
   * ICE of a connection that stood takes seconds to try anything else in earnest; that of another one does so at once.
   */
  private async replaceBackup(): Promise<void> {
    const { backup } = this;
    const lost = () => !this.disposed && this.primary.dead && backup?.dead && backup === this.backup;
    const wait = Math.min(PATHS.replaceMost, PATHS.replace * 2 ** (this.replacements - 1));
    if (!lost() || performance.now() - this.replacedAt < wait || !(await this.hooks.probeServer()) || !lost()) return;
    this.replacedAt = performance.now();
    this.replacements++;
    backup?.renew();
  }

  private failOver(): void {
    if (!this.backup?.ready) return;
    this.onBackup = true;
    this.primary.routedElsewhere(true);
    for (const type of TYPES) {
      const stream = this.primary.sending(type);
      if (stream) void this.backup.publish(type, stream);
    }
    this.backup.refresh();
    this.primary.pause(true);
  }

  private alive(): void {
    this.tried = 0;
    this.showAll();
    this.probeDirect();
    this.primary.pause(false);
    this.primary.refresh();
    if (this.connection) this.report('connected', '');
    if (!this.onBackup) return;
    clearTimeout(this.failBackTimer);
    this.failBackTimer = setTimeout(() => this.failBack(), PATHS.overlap);
  }

  /** What lives again over the relay need not stay there: a direct way is looked for behind it, by one side, as long as there was one. */
  private probeDirect(): void {
    clearTimeout(this.retry);
    if (!this.primary.creator || !this.direct) return;
    this.retry = setTimeout(() => void this.primary.relayed().then((relayed) => {
      if (this.disposed || this.primary.dead || !relayed) return;
      this.primary.regather();
      this.probeDirect();
    }), Math.min(PATHS.betterMost, PATHS.better * 2 ** this.tried++));
  }

  /** Nothing of a connection that is only kept ready. */
  private report(state: PeerStateEvent['state'], reason: Reason | ''): void {
    if (state !== 'recovering' || this.connection) this.tell(state, reason);
  }

  private failBack(): void {
    this.onBackup = false;
    this.primary.routedElsewhere(false);
    this.primary.pause(false);
    for (const type of TYPES) this.backup?.unpublish(type);
    // The other side is to hear of it before a connection that is not wanted any more is closed.
    clearTimeout(this.review);
    this.review = undefined;
    this.reviewSoon();
  }

  /** Unless it is sooner. */
  private reviewIn(ms: number): void {
    const due = performance.now() + ms;
    if (this.review && this.reviewDue <= due) return;
    clearTimeout(this.review);
    this.reviewDue = due;
    this.review = setTimeout(() => this.reviewBackup(), ms);
  }
}
