import Knowledgetalk from '{{HOST}}/knowledgetalk.mjs';
import { camera, Stage } from './module-stage.js';

const status = document.querySelector('#status');
const stage = new Stage(document.querySelector('#stage'));
const kt = new Knowledgetalk();

/** Methods answer with a code; here anything but success is an exception. */
async function ok(promise) {
  const result = await promise;
  if (result.code !== '200') throw new Error(`${result.code} ${result.message}`);
  return result;
}

const handlers = {
  join: ({ user }) => greet(user.userId),
  leave: ({ user }) => stage.drop(user),
  subscribed: ({ user }) => stage.show(user, kt.getStream(user)),
};
kt.addEventListener('presence', ({ detail }) => handlers[detail.type]?.(detail));

async function greet(user) {
  stage.add(user);
  if (!(await kt.publishP2P(user, 'cam', await camera())))
    throw new Error(`no connection with ${user}`);
}

await camera();
const { userId } = await ok(kt.init('{{CPCODE}}', '{{AUTHKEY}}'));
const roomId = new URL(location).searchParams.get('room') ?? (await ok(kt.createRoom())).roomId;
const { members } = await ok(kt.joinRoom(roomId));
status.textContent = `${roomId} ${userId}`;
await Promise.all(Object.keys(members).filter((id) => id !== userId).map(greet));
