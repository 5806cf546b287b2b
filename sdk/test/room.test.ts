import { describe, expect, it } from 'vitest';
import type { Push } from '../src/signaling/messages';
import { Room } from '../src/signaling/room';
import { info, member } from './members';

const push = (type: string, seq: number, id: string, roomId = 'R'): Push => ({
  eventOp: 'presence', type, roomId, seq, sender: id, user: type === 'join' ? member(id) : id,
});
const brief = (events: { type: string; sender: string }[]) =>
  events.map(({ type, sender }) => `${type} ${sender}`);

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

  it.each([[{ talking: true }], [{ message: true }], [{ talking: true, message: true }]])(
    'reports talking under both names (%j)',
    (said) => {
      expect(
        new Room(info(1, 'me', 'a')).apply({ ...push('talking', 2, 'a'), ...said }),
      ).toMatchObject([{ talking: true, message: true }]);
      const not = Object.fromEntries(Object.keys(said).map((name) => [name, false]));
      expect(
        new Room(info(1, 'me', 'a')).apply({ ...push('talking', 2, 'a'), ...not }),
      ).toMatchObject([{ talking: false, message: false }]);
    },
  );

  it('leaves the messages of other events alone', () => {
    expect(
      new Room(info(1, 'me', 'a')).apply({ ...push('chat', 2, 'a'), message: 'x' })[0],
    ).not.toHaveProperty('talking');
  });

  it('ignores other rooms', () =>
    expect(new Room(info(1, 'me')).apply(push('join', 2, 'a', 'S'))).toEqual([]));

  it('shows a missed leave before the next join', () => {
    expect(brief(new Room(info(1, 'me', 'a')).apply(push('join', 2, 'a')))).toEqual([
      'leave a',
      'join a',
    ]);
  });

  it('passes events it does not know', () => {
    expect(new Room(info(1, 'me')).apply({ ...push('hostChange', 2, 'a') })).toHaveLength(1);
  });

  it('tells two stays of a member apart, but not across a restart of the room', () => {
    const stay = (since: number, createdAt = 'then') => {
      const state = { ...info(9, 'me', 'a'), createdAt };
      state.members.a!.since = since;
      return state;
    };
    const room = new Room(stay(2));
    expect(brief(room.update(stay(2), 'me'))).toEqual([]);
    expect(brief(room.update(stay(7), 'me'))).toEqual(['leave a', 'join a']);
    expect(room.members.get('a')!.since).toBe(7);
    expect(brief(room.update(stay(1, 'now'), 'me'))).toEqual([]);
  });

  it('creates events for what was missed, never about this user', () => {
    const room = new Room(info(3, 'me', 'a', 'b'));
    expect(brief(room.update(info(9, 'b', 'c', 'me'), 'me'))).toEqual(['leave a', 'join c']);
    expect([...room.members.keys()]).toEqual(['b', 'c', 'me']);
    // An event that the state already includes may still arrive.
    expect(room.apply(push('join', 8, 'c'))).toEqual([]);
    expect(brief(room.update({ ...info(1), members: {} }, 'me'))).toEqual(['leave b', 'leave c']);
  });

  it('gets missed messages once and in order, although the state is newer', () => {
    const room = new Room(info(1, 'me', 'a'));
    const seqs = (events: { seq?: number }[]) => events.map(({ seq }) => seq);
    expect(seqs(room.apply(push('chat', 2, 'a')))).toEqual([2]);
    expect(room.seen).toBe(2);
    expect(room.update(info(9, 'me', 'a'), 'me')).toEqual([]);
    expect(room.seen).toBe(2);
    expect(seqs(room.apply(push('chat', 2, 'a')))).toEqual([]);
    expect(seqs(room.apply(push('chat', 4, 'a')))).toEqual([4]);
    expect(room.seen).toBe(4); // a connection lost now asks for the rest
    expect(seqs(room.apply(push('inform', 7, 'a')))).toEqual([7]);
    expect(seqs(room.apply(push('chat', 4, 'a')))).toEqual([]);
    expect(seqs(room.apply(push('talking', 8, 'a')))).toEqual([]); // over by now
    expect(brief(room.apply(push('join', 9, 'b')))).toEqual([]);
    expect(brief(room.apply(push('join', 10, 'b')))).toEqual(['join b']);
    expect(seqs(room.apply(push('chat', 9, 'a')))).toEqual([]);
    expect(room.seen).toBe(10);
    room.update({ ...info(3, 'me', 'a'), createdAt: 'after a restart' }, 'me');
    expect(seqs(room.apply(push('chat', 3, 'a')))).toEqual([]);
    expect(seqs(room.apply(push('chat', 4, 'a')))).toEqual([4]);
  });

  it('creates events for missed changes of the room', () => {
    const room = new Room(info(1, 'me', 'a'));
    room.apply({ ...push('editRoomInfo', 2, 'a'), title: 'T', capacity: 4, host: 'me' });
    const edited = (seq: number, title: string, capacity: number) => ({
      ...info(seq, 'me', 'a'),
      title,
      capacity,
      host: member('a'),
    });
    expect(room.update(edited(3, 'T', 4), 'me')).toEqual([]);
    expect(room.update(edited(4, 'U', 4), 'me')).toEqual([
      {
        eventOp: 'presence',
        type: 'editRoomInfo',
        roomId: 'R',
        user: 'a',
        sender: 'a',
        title: 'U',
        capacity: 4,
        host: 'a',
      },
    ]);
    expect(brief(room.update(edited(5, 'U', 5), 'me'))).toEqual(['editRoomInfo a']);
    expect(room.info).toMatchObject({ title: 'U', capacity: 5 });
    expect(room.update({ ...edited(6, 'V', 5), createdAt: 'made anew' }, 'me')).toEqual([]);
  });

  it('passes private messages, in any order and from any room', () => {
    const room = new Room(info(5, 'me', 'a'));
    const kick = {
      eventOp: 'presence',
      type: 'kickOut',
      roomId: 'R',
      user: 'me',
      sender: 'a',
    } as const;
    expect(room.apply(kick)).toEqual([kick]);
    expect(
      room.apply({ eventOp: 'presence', type: 'chat', user: 'z', sender: 'z', message: 'hi' }),
    ).toMatchObject([{ roomId: '', user: 'z', message: 'hi' }]);
    expect(brief(room.apply(push('join', 6, 'b')))).toEqual(['join b']);
  });

  it('knows shares, permissions and names', () => {
    const room = new Room({ ...info(1, 'me', 'a'), share: { type: 'screen', user: 'a' } });
    expect(room.share?.user).toBe('a');
    room.apply(push('shareStop', 2, 'me'));
    expect(room.share?.user).toBe('a');
    room.apply(push('shareStop', 3, 'a'));
    expect(room.share).toBeUndefined();
    room.apply({ eventOp: 'presence', type: 'screen', roomId: 'R', user: 'a', sender: 'a' });
    expect(room.share).toEqual({ type: 'screen', user: 'a' });
    room.apply({ ...push('permit', 4, 'me'), permit: { ...member('me').permit, chat: false } });
    room.apply({ ...push('editUserInfo', 5, 'a'), name: 'N', video: false, audio: true });
    room.apply(push('hostChange', 6, 'a'));
    room.apply({ ...push('editRoomInfo', 7, 'a'), title: 'T' });
    expect(room.members.get('me')).toMatchObject({
      userType: 'guest',
      permit: { chat: false, screen: true },
    });
    expect(room.members.get('a')).toMatchObject({
      userType: 'host',
      name: 'N',
      video: false,
      audio: true,
    });
    expect(room.info.title).toBe('T');
  });

  it('creates events for missed shares', () => {
    const shared = (user?: string) => ({
      ...info(9, 'me', 'a', 'b'),
      ...(user ? { share: { type: 'screen' as const, user } } : {}),
    });
    const room = new Room(shared('a'));
    expect(brief(room.update(shared('a'), 'me'))).toEqual([]);
    expect(brief(room.update(shared('b'), 'me'))).toEqual(['shareStop a', 'screen b']);
    expect(brief(room.update(shared(), 'me'))).toEqual(['shareStop b']);
    expect(brief(room.update(shared('me'), 'me'))).toEqual([]);
    expect(brief(room.update(shared(), 'me'))).toEqual([]);
  });

  it('creates events for missed changes of members', () => {
    const room = new Room(info(1, 'me', 'a'));
    const { me, a } = info(9, 'me', 'a').members;
    const members = {
      me: {
        ...me!,
        userType: 'host' as const,
        video: false,
        permit: { ...me!.permit, chat: false },
      },
      a: { ...a!, name: 'N', audio: false },
    };
    expect(room.update({ ...info(9), members }, 'me')).toEqual([
      {
        eventOp: 'presence',
        type: 'permit',
        roomId: 'R',
        user: 'me',
        sender: 'me',
        permit: members.me.permit,
      },
      { eventOp: 'presence', type: 'hostChange', roomId: 'R', user: 'me', sender: 'me' },
      {
        eventOp: 'presence',
        type: 'editUserInfo',
        roomId: 'R',
        user: 'a',
        sender: 'a',
        name: 'N',
        video: true,
        audio: false,
      },
    ]);
    expect(room.update({ ...info(9), members }, 'me')).toEqual([]);
  });

  it('reports each feed once, also when a list after a resume repeats it', () => {
    const room = new Room(info(1, 'me', 'a', 'b'));
    const feed = (user: string, type: string, epoch: number) => ({
      id: user,
      userId: user,
      user,
      type,
      epoch,
      audio: true,
      video: true,
    });
    const list = (...feeds: object[]) =>
      room.apply({
        eventOp: 'presence',
        type: 'publish',
        roomId: 'R',
        user: 'a',
        sender: 'a',
        feeds,
      }) as any[];
    const users = (events: any[]) =>
      events.map((e) => [e.user, e.sender, e.feeds.map((f: any) => `${f.user} ${f.type}`)]);
    expect(users(list(feed('a', 'cam', 1), feed('b', 'cam', 1)))).toEqual([
      ['a', 'a', ['a cam', 'b cam']],
    ]);
    expect(
      room.apply({ ...push('publish', 2, 'b'), feeds: [feed('b', 'screen', 2)] }),
    ).toHaveLength(1);
    expect(list(feed('a', 'cam', 1), feed('b', 'cam', 1), feed('b', 'screen', 2))).toEqual([]);
    expect(users(list(feed('a', 'cam', 1), feed('b', 'cam', 3)))).toEqual([['b', 'b', ['b cam']]]);
    room.apply(push('leave', 3, 'a'));
    room.apply(push('join', 4, 'a'));
    expect(users(list(feed('a', 'cam', 1)))).toEqual([['a', 'a', ['a cam']]]);
    room.forgetFeeds();
    expect(list(feed('a', 'cam', 1))).toHaveLength(1);
    expect(list()).toEqual([]);
    expect(
      room.apply({
        eventOp: 'presence',
        type: 'publish',
        roomId: 'R',
        feeds: [null, 7, { user: 7 }],
      }),
    ).toEqual([]);
  });
});
