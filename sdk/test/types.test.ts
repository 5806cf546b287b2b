/** The published types against the class: a difference is a compile error (`npm run types`). */
import { expect, it, vi } from 'vitest';
import type * as api from '../types/knowledgetalk';
import { Knowledgetalk } from '../src/knowledgetalk';

type Same<A, B> =
  (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const same = <A, B>(equal: Same<A, B>): boolean => equal;

// The class has exactly the declared members.
export const declared: new (options?: api.Options) => api.Knowledgetalk = Knowledgetalk;
export const built: new (options?: api.Options) => Pick<Knowledgetalk, keyof Knowledgetalk> =
  Knowledgetalk as unknown as typeof api.Knowledgetalk;

/** Code of an app in TypeScript. */
export async function app(k: api.Knowledgetalk): Promise<void> {
  k.addEventListener('presence', (event) => {
    const m = event.detail;
    if (m.type === 'join') m.user.userId.trim();
    else if (m.type === 'peerState') m.hint.trim();
    else m.user.trim();
    if (m.type === 'subscribed') same<typeof m.cam, boolean>(true);
    switch (m.type) {
      case 'chat':
        m.message.trim();
        break;
      case 'publish':
        for (const feed of m.feeds) void k.subscribeVideo(feed.user, feed.type);
        break;
      case 'permit':
        same<typeof m.permit.chat, boolean>(true);
        break;
      case 'editRoomInfo':
        m.capacity.toFixed();
        break;
      // @ts-expect-error a chat has a message, a leave has none
      case 'leave': m.message; break;
    }
  });
  const room = await k.joinroom('R');
  for (const id in room.members) room.members[id]?.name.trim();
  const said = await k.chat('hi', room.roomId);
  if (`${said}` !== '200' || said.code !== '200') return;
  const stream = await k.subscribeVideo('x', 'cam');
  if (stream) stream.getTracks();
  // @ts-expect-error the type is cam or screen
  await k.publishP2P('x', 'camera', new MediaStream());
}

it('declares every public name, and no other', () => {
  expect(same<keyof Knowledgetalk, keyof api.Knowledgetalk>(true)).toBe(true);
  const names = Object.getOwnPropertyNames(Knowledgetalk.prototype).filter(
    (n) => n !== 'constructor' && n !== 'presence',
  );
  expect(names.filter((n) => !['media', 'entered', 'known'].includes(n)).sort()).toEqual([
    'addEventListener',
    'canvasClear',
    'canvasInit',
    'changeLocalStream',
    'changeName',
    'chat',
    'createGroup',
    'createRoom',
    'createVideoRoom',
    'destroyRoom',
    'disconnect',
    'documentShare',
    'documentStart',
    'drawingClassStart',
    'drawingClassStop',
    'drawingInit',
    'drawingShareStart',
    'drawingShareStop',
    'drawingStop',
    'editRoomInfo',
    'editUserInfo',
    'endGroup',
    'getAllPeers',
    'getAllStreams',
    'getName',
    'getPeer',
    'getRoomId',
    'getShareType',
    'getSocket',
    'getStream',
    'getUserId',
    'inform',
    'init',
    'isMedia',
    'joinRoom',
    'joinroom',
    'kickOut',
    'leaveRoom',
    'memberList',
    'permit',
    'publishP2P',
    'publishVideo',
    'publishvideo',
    'removeLocalPeer',
    'removePeer',
    'reqCanvasImage',
    'screenStart',
    'setTool',
    'shareStop',
    'subscribeVideo',
    'whiteBoardStart',
  ]);
});

it('returns the expected shape for what is not supported, and never throws', async () => {
  const warned = vi.spyOn(console, 'warn').mockImplementation(() => undefined);
  const k: api.Knowledgetalk = new Knowledgetalk();
  const canvas = {} as HTMLCanvasElement;
  const later = [
    k.whiteBoardStart(canvas),
    k.drawingClassStart(),
    k.drawingClassStop(),
    k.drawingShareStart(canvas),
    k.drawingShareStop(),
  ];
  expect(await Promise.all(later)).toEqual(Array(5).fill(false));
  for (const answer of await Promise.all([
    k.documentStart(canvas),
    k.documentShare('x'),
    k.reqCanvasImage('u'),
  ])) {
    expect(answer).toEqual({ code: '405', message: expect.any(String), hint: expect.any(String) });
  }
  expect([
    k.drawingInit(),
    k.drawingStop(),
    k.canvasInit(canvas),
    k.setTool('pen', 'black', 1),
    k.canvasClear(),
  ]).toEqual([false, false, undefined, undefined, undefined]);
  expect(warned).toHaveBeenCalledTimes(13);
  warned.mockRestore();
});
