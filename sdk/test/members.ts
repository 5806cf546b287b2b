/** Members and rooms in the format of the wire. */
import type { Member } from '../types/knowledgetalk';
import type { RoomInfo } from '../src/signaling/messages';

export const member = (id: string, features?: string[]): Member => ({
  id,
  userId: id,
  name: id,
  userType: 'guest',
  device: '',
  video: true,
  audio: true,
  publishing: false,
  pulishing: false,
  permit: { screen: true, chat: true, whiteboard: true, draw: true, document: true },
  identity: `party ${id}`,
  ...(features ? { features } : {}),
});
export const info = (seq: number, ...ids: string[]): RoomInfo => ({
  roomId: 'R',
  title: '',
  capacity: 16,
  createdAt: '',
  host: member(ids[0] ?? 'x'),
  members: Object.fromEntries(ids.map((id) => [id, member(id, ['pair', 'candidates'])])),
  media: false,
  isRecording: false,
  talkingNoty: false,
  fileServerUrl: '',
  seq,
});
