import type { Feed, Member, Presence, Share } from '../../types/knowledgetalk';
import { isMember, type Push, type RoomInfo } from './messages';

/**
 * The members of the room, as far as the server has told: every presence event passes this roster.
 */
export class Room {
  readonly members = new Map<string, Member>();
  /** Who shares what, this user included. */
  share: Share | undefined;
  /** Epochs of the feeds that the app has been told of, by user and type. */
  private readonly feeds = new Map<string, Map<unknown, unknown>>();
  private seq: number;
  /**
   * No message before this event is missing. After a resume the state is newer, and missed messages
   * follow.
   */
  seen: number;
  /** A new session is asking to join. */
  entering = false;

  constructor(readonly info: RoomInfo) {
    for (const member of Object.values(info.members)) this.members.set(member.id, member);
    this.share = info.share;
    this.seq = this.seen = info.seq;
  }

  get id(): string {
    return this.info.roomId;
  }

  /**
   * Applies one event. Returns the events for the app: none for what it knows already (after a
   * resume the state may include later events), and a `leave` first for a member who comes back
   * without a seen leave.
   */
  apply(push: Push): Presence[] {
    if (push.seq === undefined) {
      if (push.roomId === this.id && push.type === 'publish') return this.list(push);
      if (push.roomId === this.id) this.note(push);
    } else {
      const said = push.type === 'chat' || push.type === 'inform';
      if (push.roomId !== this.id || push.seq <= (said ? this.seen : this.seq)) return [];
      this.seen = push.seq;
      this.seq = Math.max(this.seq, push.seq);
    }
    if (push.type === 'join' && isMember(push.user)) {
      const before = this.members.has(push.user.id) ? [this.made('leave', push.user.id)] : [];
      this.members.delete(push.user.id);
      this.members.set(push.user.id, push.user);
      return [...before, whole(push)];
    }
    if (push.type === 'leave') {
      this.feeds.delete(push.user as string);
      if (!this.members.delete(push.user as string)) return [];
    }
    if (push.type === 'publish') this.fresh(push);
    if (push.seq !== undefined) this.note(push);
    return [whole(push)];
  }

  /** The feeds there are, after joinRoom or a resume: what the app knows already is left out. */
  private list(push: Push): Presence[] {
    const feeds = this.fresh(push);
    const user = feeds[0]?.user;
    return user === undefined ? [] : [whole({ ...push, feeds, user, sender: user })];
  }

  /** The feeds of a message that are new, noted. */
  private fresh({ feeds }: Push): Feed[] {
    return (Array.isArray(feeds) ? (feeds as Feed[]) : []).filter((feed) => {
      const { user, type, epoch } = feed ?? {};
      if (typeof user !== 'string') return false;
      const known = this.feeds.get(user) ?? new Map<unknown, unknown>();
      const fresh = known.get(type) !== epoch;
      this.feeds.set(user, known.set(type, epoch));
      return fresh;
    });
  }

  /** The session is a new one: nothing that was received stands. */
  forgetFeeds(): void {
    this.feeds.clear();
  }

  /** What an event changes in what is known of the room, beside who is in it. */
  private note({ type, user, permit, name, video, audio, title, capacity }: Push): void {
    if (typeof user !== 'string') return;
    const member = this.members.get(user);
    if (type === 'screen' || type === 'whiteboard' || type === 'document') {
      this.share = { type, user };
    } else if (type === 'shareStop' && this.share?.user === user) this.share = undefined;
    else if (type === 'editRoomInfo' && typeof title === 'string') {
      Object.assign(this.info, { title, capacity });
    } else if (type === 'hostChange') {
      for (const m of this.members.values()) m.userType = m === member ? 'host' : 'guest';
    } else if (member && type === 'permit' && permit) Object.assign(member.permit, permit);
    else if (member && type === 'editUserInfo') Object.assign(member, { name, video, audio });
  }

  /**
   * Applies the present state of the room and returns the events that lead to it. None is about
   * `self`.
   */
  update(info: RoomInfo, self: string): Presence[] {
    const events: Presence[] = [];
    const now = new Map(Object.values(info.members).map((member) => [member.id, member]));
    // In a room created again after a restart without state everybody has just joined: that means
    // nothing.
    const same = info.createdAt === this.info.createdAt;
    for (const [id, was] of [...this.members]) {
      // A member who left and joined again meanwhile is a new one: connection and streams are gone
      // with the page.
      if (now.has(id) && (id === self || !same || now.get(id)!.since === was.since)) continue;
      this.feeds.delete(id);
      this.members.delete(id);
      if (id !== self) events.push(this.made('leave', id));
    }
    for (const [id, member] of now) {
      if (this.members.has(id) || id === self) continue;
      events.push({ eventOp: 'presence', type: 'join', roomId: this.id, user: member, sender: id });
    }
    for (const member of now.values()) events.push(...this.changes(member, self));
    this.members.clear();
    for (const [id, member] of now) this.members.set(id, member);
    const before = this.share;
    this.share = info.share;
    if (before && before.user !== self && before.user !== info.share?.user) {
      events.unshift(this.made('shareStop', before.user));
    }
    if (
      info.share
      && info.share.user !== self
      && (before?.user !== info.share.user || before.type !== info.share.type)
    ) {
      events.push(this.made(info.share.type, info.share.user));
    }
    const { title, capacity } = info;
    const host = info.host?.id ?? '';
    if (same && (title !== this.info.title || capacity !== this.info.capacity)) {
      // Only the host may have done it, or who was host at the time.
      events.push({
        eventOp: 'presence',
        type: 'editRoomInfo',
        roomId: this.id,
        user: host,
        sender: host,
        title,
        capacity,
        host,
      });
    }
    this.seq = info.seq;
    if (!same) this.seen = info.seq;
    Object.assign(this.info, info);
    return events;
  }

  /** What changed of a member who was there before as well. */
  private changes(now: Member, self: string): Presence[] {
    const was = this.members.get(now.id);
    if (!was) return [];
    const { id: user, name, video, audio, permit } = now;
    const about = { eventOp: 'presence', roomId: this.id, user, sender: user } as const;
    const events: Presence[] = [];
    if (user !== self && (was.name !== name || was.video !== video || was.audio !== audio)) {
      events.push({ ...about, type: 'editUserInfo', name, video, audio });
    }
    if (JSON.stringify(was.permit) !== JSON.stringify(permit)) {
      events.push({ ...about, type: 'permit', permit });
    }
    if (now.userType === 'host' && was.userType !== 'host') {
      events.push({ ...about, type: 'hostChange' });
    }
    return events;
  }

  private made(type: Share['type'] | 'shareStop' | 'leave', user: string): Presence {
    return { eventOp: 'presence', type, roomId: this.id, user, sender: user };
  }
}

/**
 * A push as the app gets it: with the fields that every event has, and whether somebody talks under
 * both of its names.
 */
export const whole = (push: Push): Presence => {
  const { talking, message } = push;
  const both =
    push.type === 'talking' ? { talking: talking ?? message, message: message ?? talking } : {};
  return { roomId: '', user: '', sender: '', ...push, ...both } as unknown as Presence;
};
