import type { Member, Presence } from '../../types/knowledgetalk';
import { isMember, type Push, type RoomInfo } from './messages';

/** Who is in the room, as far as the server has told: the roster that every presence event passes. */
export class Room {
  readonly members = new Map<string, Member>();
  private seq: number;

  constructor(readonly info: RoomInfo) {
    for (const member of Object.values(info.members)) this.members.set(member.id, member);
    this.seq = info.seq;
  }

  get id(): string {
    return this.info.roomId;
  }

  /**
   * Takes one event in. Returns what the app is to see: nothing for what it knows already (the room's state after a resume holds
   * events that may still be on their way), a `leave` first for a member who comes back without having been seen to go.
   */
  apply(push: Push): Presence[] {
    if (push.roomId !== this.id || push.seq <= this.seq) return [];
    this.seq = push.seq;
    if (push.type === 'join' && isMember(push.user)) {
      const before = this.members.has(push.user.id) ? [this.made('leave', push.user.id)] : [];
      this.members.delete(push.user.id);
      this.members.set(push.user.id, push.user);
      return [...before, push as unknown as Presence];
    }
    if (push.type === 'leave' && !this.members.delete(push.user as string)) return [];
    return [push as unknown as Presence];
  }

  /** Takes the room's present state and returns the events that lead there from what was known. `self` is never among them. */
  update(info: RoomInfo, self: string): Presence[] {
    const events: Presence[] = [];
    const now = new Map(Object.values(info.members).map((member) => [member.id, member]));
    for (const id of [...this.members.keys()]) {
      if (!now.has(id) && id !== self) events.push(this.made('leave', id));
    }
    for (const [id, member] of now) {
      if (!this.members.has(id) && id !== self) events.push({ ...this.made('leave', id), type: 'join', user: member });
    }
    this.members.clear();
    for (const [id, member] of now) this.members.set(id, member);
    this.seq = info.seq;
    Object.assign(this.info, info);
    return events;
  }

  private made(type: 'leave', user: string): Presence {
    return { eventOp: 'presence', type, roomId: this.id, user, sender: user };
  }
}
