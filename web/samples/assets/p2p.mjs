// @ts-check
// The call page. It opens no camera and tells nobody anything before a button is pressed.
//
// Controls:  data-action = create | join | leave | copy-invite | everyone | camera | test-picture | microphone | language
//            inside a member's box: send | stop | sound;  inside a notice: dismiss | test-picture
// Fields:    #cpCode #authKey (both absent in development mode) #name #roomId, and #invite, which holds the link
// Values:    [data-value="room"] [data-value="user"] (in [data-part="room"], shown while in a room), #status (live region)
// Notices:   [data-problem="<key>"] in #problems, keys as in problems.mjs
// Boxes:     [data-member="<userId>"], attributes as listed in boxes.mjs; ours is [data-self] with data-camera="off|camera|drawn"
// Address:   ?room=ID and ?cp=CPCODE fill the fields; ?side=a|b is a frame of /sample. A key is never read from or put into it.

import {Boxes} from './boxes.mjs';
import {Call} from './call.mjs';
import {drawTestPicture, openCamera, openMicrophone} from './camera.mjs';
import {obey} from './frame.mjs';
import {copy, find, root, say, server, settle, showProblem, tell, write} from './page.mjs';
import {describe} from './path.mjs';
import {Problem} from './problems.mjs';

const query = new URLSearchParams(location.search);
const side = window.parent !== window ? query.get('side') ?? '' : '';
const dev = 'dev' in document.body.dataset;

const enter = find('#enter');
const room = find('#room');
const self = find('[data-self]');
const preview = find('video', self);
const cameraButton = find('[data-action="camera"]', self);
const drawnButton = find('[data-action="test-picture"]', self);
const microphone = find('[data-action="microphone"]');
const everyone = find('[data-action="everyone"]');

const call = new Call();
const boxes = new Boxes(find('[data-part="stage"]'), {
  send: id => attempt(async () => {
    call.send(id);
    if (call.stream === null) await useCamera();
  }),
  stop: id => call.stop(id),
});

/**
 * Runs what a button asked for and shows what went wrong with it.
 * @param {() => Promise<void>} action
 */
async function attempt(action) {
  try {
    await action();
  } catch (error) {
    show(error);
  }
  refresh();
}

/** On the way into a room or out of it. */
let moving = false;

/**
 * attempt for entering and leaving: one of them at a time, a second press means nothing.
 * @param {() => Promise<void>} action
 */
async function move(action) {
  if (moving) return;
  moving = true;
  refresh();
  await attempt(action);
  moving = false;
  refresh();
}

/** @param {unknown} error */
function show(error) {
  const problem = error instanceof Problem ? error : new Problem('other', {code: '–', reason: String(error)});
  tell('');
  showProblem(problem, {onTestPicture: () => attempt(useDrawn)});
  const field = document.querySelector(problem.key.startsWith('room-') ? '#roomId' : problem.key.startsWith('key-') ? '#cpCode' : 'none');
  if (side === '' && field instanceof HTMLElement) field.focus();
}

// Entering and leaving.

/** @returns {Promise<import('./call.mjs').License>} */
async function license() {
  if (!dev) return {cpCode: find('#cpCode').value.trim(), authKey: find('#authKey').value.trim()};
  try {
    const answer = await fetch(root + 'dev/license');
    if (answer.ok) return await answer.json();
  } catch {
    // Told below: the server is away.
  }
  throw new Problem('unreachable', {origin: server});
}

/** @param {import('./call.mjs').License} [given] */
async function connect(given) {
  settle();
  tell(say('connecting'));
  const name = find('#name').value.trim() || (side === '' ? '' : say('sample.user', {side: side.toUpperCase()}));
  await call.connect(given ?? await license(), name);
}

/** @param {import('./call.mjs').License} [given] */
async function create(given) {
  await connect(given);
  tell(say('creating'));
  await joinRoom(await call.create());
}

/**
 * @param {string} id
 * @param {import('./call.mjs').License} [given]
 */
async function join(id, given) {
  settle();
  if (id === '') throw new Problem('room-needed');
  await connect(given);
  await joinRoom(id);
}

/** @param {string} id */
async function joinRoom(id) {
  tell(say('joining'));
  await call.join(id);
  const count = call.members.size;
  tell(count === 0 ? say('waiting') : say('with', {count}));
  find('#invite').value = invitation();
  find('[data-part="local-only"]').hidden = !['localhost', '127.0.0.1', '[::1]'].includes(location.hostname);
  setAddress(call.room);
  refresh();
  if (side === '') find('#room-title').focus();
}

async function leave() {
  const left = call.leave();
  // At once for the one who leaves, however long the server takes to hear of it.
  ended();
  tell(say('left.me'));
  await left;
}

function ended() {
  closePicture();
  setAddress('');
  refresh();
  if (side === '') find('[data-action="create"]').focus();
}

/** The address an invited person opens. It carries the public tenant code where one has to be typed, never the key. */
function invitation() {
  const link = new URL('p2p', root);
  link.searchParams.set('room', call.room);
  if (!dev && find('#cpCode').value.trim() !== '') link.searchParams.set('cp', find('#cpCode').value.trim());
  return link.href;
}

/**
 * Keeps the room in the page's own address, so that a reload leads back. Not in a frame: its parent decides where it is.
 * @param {string} id
 */
function setAddress(id) {
  if (side !== '') return;
  const url = new URL(location.href);
  if (id === '') url.searchParams.delete('room');
  else url.searchParams.set('room', id);
  history.replaceState(null, '', url);
}

// Our picture.

/** Counts the wishes for a picture: while the browser asks for the camera, another may overtake it. */
let wish = 0;

async function useCamera() {
  const mine = ++wish;
  const stream = await openCamera();
  if (mine !== wish) {
    for (const track of stream.getTracks()) track.stop();
    return;
  }
  settleCamera();
  watchEnd(stream);
  usePicture(stream, 'camera');
}

async function useDrawn() {
  wish++;
  settleCamera();
  usePicture(drawTestPicture(side.toUpperCase()), 'drawn');
}

function settleCamera() {
  for (const key of ['insecure', 'camera-denied', 'camera-missing', 'camera-busy', 'camera-other']) settle(key);
}

/**
 * @param {MediaStream} stream
 * @param {'camera' | 'drawn'} kind
 */
function usePicture(stream, kind) {
  const voice = call.stream?.getAudioTracks()[0];
  if (voice) stream.addTrack(voice);
  self.dataset.camera = kind;
  call.useStream(stream);
  refresh();
}

/**
 * A camera that is unplugged, or taken back in the browser's bar, ends its track by itself.
 * @param {MediaStream} stream
 */
function watchEnd(stream) {
  stream.getVideoTracks()[0].addEventListener('ended', () => {
    if (call.stream !== stream) return;
    closePicture();
    showProblem(new Problem('camera-missing'), {onTestPicture: () => attempt(useDrawn)});
  });
}

function closePicture() {
  wish++;
  self.dataset.camera = 'off';
  microphone.checked = false;
  call.useStream(null);
  refresh();
}

async function useMicrophone() {
  /** @type {MediaStreamTrack[]} */
  const voice = [];
  if (microphone.checked) {
    try {
      voice.push(await openMicrophone());
      settle('microphone');
    } catch (error) {
      microphone.checked = false;
      throw error;
    }
  }
  // The picture may be another one by now, or gone, and the box unchecked.
  const picture = call.stream?.getVideoTracks() ?? [];
  if (picture.length === 0 || microphone.checked !== voice.length > 0) {
    for (const track of voice) track.stop();
    return;
  }
  const stream = new MediaStream([...picture, ...voice]);
  if (self.dataset.camera === 'camera') watchEnd(stream);
  call.useStream(stream);
}

// What the page shows.

function refresh() {
  const inRoom = call.room !== '';
  // In a call the pictures come first, and the page's own words make room.
  document.body.toggleAttribute('data-in-room', inRoom);
  enter.hidden = inRoom;
  room.hidden = !inRoom;
  write(find('[data-value="room"]'), call.room);
  write(find('[data-value="user"]'), call.user);
  for (const button of document.querySelectorAll('[data-action="create"], [data-action="join"], [data-action="leave"]')) {
    // Not disabled: that would take the keyboard's place away. move() ignores them meanwhile.
    button.setAttribute('aria-disabled', String(moving));
  }
  everyone.checked = call.everyone;

  const picture = self.dataset.camera ?? 'off';
  if (preview.srcObject !== call.stream) preview.srcObject = call.stream;
  for (const [button, kind, key] of [[cameraButton, 'camera', 'camera'], [drawnButton, 'drawn', 'drawn']]) {
    button.dataset.on = String(picture === kind);
    write(button, say(picture === kind ? `${key}.off` : `${key}.on`));
  }
  microphone.disabled = call.stream === null;
  find('[data-part="alone"]').hidden = !inRoom || call.members.size > 0;
  boxes.show(call.members.values(), call.stream !== null);
  report();
}

call.addEventListener('change', refresh);
call.addEventListener('news', event => {
  const {key, name} = /** @type {CustomEvent} */ (event).detail;
  tell(say(key, {name}));
});
call.addEventListener('problem', event => show(/** @type {CustomEvent} */ (event).detail));
call.addEventListener('ended', ended);

enter.addEventListener('submit', (/** @type {SubmitEvent} */ event) => {
  event.preventDefault();
  move(() => join(find('#roomId').value.trim()));
});
find('[data-action="create"]').addEventListener('click', () => move(() => create()));
find('[data-action="leave"]').addEventListener('click', () => move(leave));
find('[data-action="copy-invite"]').addEventListener('click', async () => {
  tell(say(await copy(find('#invite').value) ? 'copied' : 'copy.failed'));
});
everyone.addEventListener('change', () => call.sendToEveryone(everyone.checked));
cameraButton.addEventListener('click', () => attempt(async () => {
  if (self.dataset.camera === 'camera') closePicture();
  else await useCamera();
}));
drawnButton.addEventListener('click', () => attempt(async () => {
  if (self.dataset.camera === 'drawn') closePicture();
  else await useDrawn();
}));
microphone.addEventListener('change', () => attempt(useMicrophone));

// In a frame of /sample.

let report = () => {};
if (side !== '') {
  document.documentElement.dataset.side = side;
  const main = find('main');
  const told = obey({
    hello: async () => report(),
    camera: async kind => {
      await (kind === 'drawn' ? useDrawn() : useCamera());
    },
    create: async ({license: given}) => {
      await create(given);
      return call.room;
    },
    join: async ({room: id, license: given}) => join(id, given),
    leave: async () => { if (call.room !== '') await leave(); },
  });
  new ResizeObserver(() => report()).observe(main);
  report = () => told({
    room: call.room,
    height: Math.ceil(main.getBoundingClientRect().height) + 2,
    members: [...call.members.values()].map(member => ({
      id: member.id, state: member.state, path: member.way?.path ?? '', way: member.way ? describe(member.way) : '',
      candidates: member.way?.candidates ?? '', frames: member.picture?.frames ?? 0,
      trouble: member.trouble ? `${member.trouble.title} ${member.trouble.help}` : '',
    })),
  });
}

find('#roomId').value = query.get('room') ?? '';
if (!dev) find('#cpCode').value = query.get('cp') ?? '';
self.dataset.camera = 'off';
if (!isSecureContext) showProblem(new Problem('insecure'), {onTestPicture: () => attempt(useDrawn)});
refresh();
