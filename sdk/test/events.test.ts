import { describe, expect, it, vi } from 'vitest';
import type { Presence } from '../types/knowledgetalk';
import { Backlog, Emitter } from '../src/events';

const event = (sender: string): Presence => ({
  eventOp: 'presence',
  type: 'leave',
  roomId: 'R',
  user: sender,
  sender,
});

describe('presence before the first listener', () => {
  it('is kept and delivered in order, after the code that added the listener', async () => {
    const seen: string[] = [];
    const backlog = new Backlog((e) => {
      seen.push(e.sender);
      if (e.sender === 'a') backlog.push(event('caused by a'));
    });
    backlog.push(event('a'));
    backlog.push(event('b'));
    backlog.open();
    backlog.push(event('c'));
    expect(seen).toEqual([]);
    await Promise.resolve();
    expect(seen).toEqual(['a', 'b', 'c', 'caused by a']);
    backlog.push(event('d'));
    expect(seen.pop()).toBe('d');
  });

  it('is bounded: the newest 256 stay', async () => {
    const seen: string[] = [];
    const backlog = new Backlog((e) => seen.push(e.sender));
    for (let i = 0; i < 300; i++) backlog.push(event(`${i}`));
    backlog.open();
    await Promise.resolve();
    expect(seen).toHaveLength(256);
    expect([seen[0], seen[255]]).toEqual(['44', '299']);
  });

  it('is a copy that belongs to the app', () => {
    const seen: Presence[] = [];
    const backlog = new Backlog((e) => seen.push(e));
    backlog.open();
    const e = event('a');
    backlog.push(e);
    return Promise.resolve().then(() => {
      expect(seen[0]).toEqual(e);
      expect(seen[0]).not.toBe(e);
    });
  });

  it('goes to the first listener once, however many are added', async () => {
    const seen: string[] = [];
    const backlog = new Backlog((e) => seen.push(e.sender));
    backlog.push(event('a'));
    backlog.open();
    backlog.open();
    await Promise.resolve();
    await Promise.resolve();
    expect(seen).toEqual(['a']);
  });
});

describe('listeners of the wire', () => {
  it('are added, called once or always, and removed', () => {
    const seen: string[] = [];
    const always = () => seen.push('always');
    const emitter = new Emitter().on('x', always).once('x', () => seen.push('once'));
    emitter.fire('x', 1);
    emitter.fire('x', 1);
    emitter.off('x', always).fire('x', 1);
    emitter.on('x', always).off('x').fire('x', 1);
    expect(seen).toEqual(['always', 'once', 'always']);
  });

  it('hear as often as they were added, and all go together', () => {
    const heard = vi.fn();
    const emitter = new Emitter().on('x', heard).once('x', heard).on('y', heard);
    emitter.fire('x', 1, 2);
    expect(heard.mock.calls).toEqual([[1, 2], [1, 2]]);
    emitter.fire('x');
    expect(heard).toHaveBeenCalledTimes(3);
    emitter.off('x', heard).fire('x');
    expect(heard).toHaveBeenCalledTimes(3);
    emitter.off().fire('y');
    expect(heard).toHaveBeenCalledTimes(3);
  });

  it('that are no functions are no listeners', () => {
    new Emitter().on('x', undefined as never).fire('x');
  });

  it('do not affect each other by throwing', () => {
    const error = vi.spyOn(console, 'error').mockImplementation(() => undefined);
    const heard = vi.fn();
    new Emitter().on('x', () => { throw new Error('app'); }).on('x', heard).fire('x', 1);
    expect(heard).toHaveBeenCalledOnce();
    expect(error).toHaveBeenCalledOnce();
  });
});
