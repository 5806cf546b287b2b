import { describe, expect, it } from 'vitest';
import type { Push } from '../src/signaling/messages';
import { Room } from '../src/signaling/room';
import { info, member } from './members';

const push = (type: string, seq: number, id: string, roomId = 'R'): Push => ({
  eventOp: 'presence', type, roomId, seq, sender: id, user: type === 'join' ? member(id) : id,
});
const brief = (events: { type: string; sender: string }[]) => events.map(({ type, sender }) => `${type} ${sender}`);

describe('a room', () => {
  it('passes each event once, in order', () => {
    const room = new Room(info(1, 'me'));
    expect(brief(room.apply(push('join', 2, 'a')))).toEqual(['join a']);
    expect(brief(room.apply(push('join', 2, 'a')))).toEqual([]);
    expect(brief(room.apply(push('leave', 3, 'a')))).toEqual(['leave a']);
    expect(brief(room.apply(push('leave', 4, 'a')))).toEqual([]);
    expect(brief(room.apply(push('join', 1, 'b')))).toEqual([]);
    expect([...room.members.keys()]).toEqual(['me']);
  });

  it('ignores other rooms', () => expect(new Room(info(1, 'me')).apply(push('join', 2, 'a', 'S'))).toEqual([]));

  it('shows a leave before a join of one who was never seen to go', () => {
    expect(brief(new Room(info(1, 'me', 'a')).apply(push('join', 2, 'a')))).toEqual(['leave a', 'join a']);
  });

  it('passes events it does not know', () => {
    expect(new Room(info(1, 'me')).apply({ ...push('hostChange', 2, 'a') })).toHaveLength(1);
  });

  it('makes up for what was missed, without ever showing the caller to himself', () => {
    const room = new Room(info(3, 'me', 'a', 'b'));
    expect(brief(room.update(info(9, 'b', 'c', 'me'), 'me'))).toEqual(['leave a', 'join c']);
    expect([...room.members.keys()]).toEqual(['b', 'c', 'me']);
    // What the state held already may still arrive.
    expect(room.apply(push('join', 8, 'c'))).toEqual([]);
    expect(brief(room.update({ ...info(1), members: {} }, 'me'))).toEqual(['leave b', 'leave c']);
  });
});
