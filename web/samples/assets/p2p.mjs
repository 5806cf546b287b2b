// @ts-check
// The call page. It opens no camera and sends nothing before a button is pressed.
//
// Controls:  data-action = create | join | leave | copy-invite | everyone | camera | test-video |
//            microphone | language
//            inside a member's box: send | stop | sound;  inside a notice: dismiss | test-video
// A reload during a call returns to it: room, name, video and microphone (again.mjs).
// Fields:    #cpCode #authKey (both absent in development mode) #name #roomId, and #invite, which
//            holds the link
// Values:    [data-value="room"] [data-value="user"] (in [data-part="room"], shown while in a
//            room), #status (live region)
// Notices:   [data-problem="<key>"] in #problems, keys as in problems.mjs
// Boxes:     [data-member="<userId>"], attributes as listed in boxes.mjs; ours is [data-self] with
//            data-camera="off|camera|drawn" and data-microphone="off|on|muted"
// Address:   ?room=ID and ?cp=CPCODE fill the fields; ?side=a|b is a frame of /sample. A key is
//            never read from or put into it.

import {forget, keep, returning, staying} from './again.mjs';
import {Boxes} from './boxes.mjs';
import {Call} from './call.mjs';
import {obey} from './frame.mjs';
import {Own} from './own.mjs';
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
const drawnButton = find('[data-action="test-video"]', self);
const microphone = find('[data-action="microphone"]');
const everyone = find('[data-action="everyone"]');

const own = new Own();
const call = new Call();
const boxes = new Boxes(find('[data-part="stage"]'), {
  send: id => attempt(async () => {
    call.send(id);
    if (own.stream === null) await useCamera();
  }),
  stop: id => call.stop(id),
}, side !== '');

/**
 * Runs the action of a button and shows its error.
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

/** Joining or leaving a room. */
let moving = false;

/**
 * attempt for joining and leaving: one at a time, a second click is ignored.
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
  const problem =
    error instanceof Problem ? error : new Problem('other', {code: '–', reason: String(error)});
  tell('');
  showProblem(problem, {onTestVideo: useDrawn});
  const field = document.querySelector(
    problem.key.startsWith('room-')
      ? '#roomId'
      : problem.key.startsWith('key-')
        ? '#cpCode'
        : 'none',
  );
  if (side === '' && field instanceof HTMLElement) field.focus();
}

// Joining and leaving.

/** @returns {Promise<import('./call.mjs').License>} */
async function license() {
  if (!dev) return {cpCode: find('#cpCode').value.trim(), authKey: find('#authKey').value.trim()};
  try {
    const answer = await fetch(root + 'dev/license');
    if (answer.ok) return await answer.json();
  } catch {
    // Reported below: the server does not respond.
  }
  throw new Problem('unreachable', {origin: server});
}

/** @param {import('./call.mjs').License} [given] */
async function connect(given) {
  settle();
  tell(say('connecting'));
  const name =
    find('#name').value.trim() ||
    (side === '' ? '' : say('sample.user', {side: side.toUpperCase()}));
  await call.connect(given ?? (await license()), name);
}

/** Whether this page created the room it is in. */
let made = false;

/** @param {import('./call.mjs').License} [given] */
async function create(given) {
  await connect(given);
  tell(say('creating'));
  const id = await call.create();
  made = true;
  await joinRoom(id);
}

/**
 * @param {string} id
 * @param {import('./call.mjs').License} [given]
 */
async function join(id, given) {
  settle();
  if (id === '') throw new Problem('room-needed');
  await connect(given);
  made = false;
  await joinRoom(id);
}

/**
 * After a reload. If this user was alone, the room has ended and is created again with its id.
 * @param {import('./again.mjs').Kept} kept
 */
async function comeBack(kept) {
  find('#name').value = kept.name;
  find('#roomId').value = kept.room;
  call.everyone = kept.everyone;
  if (!dev && kept.license !== null) {
    find('#cpCode').value = kept.license.cpCode;
    find('#authKey').value = kept.license.authKey;
  }
  try {
    await connect();
    made = kept.made;
    await joinRoom(await call.create(kept.room));
  } catch (error) {
    forget();
    throw error;
  }
  if (kept.video === 'drawn') useDrawn();
  if (kept.voice !== 'off' && (kept.video !== 'camera' || kept.voice === 'muted'))
    await own.useVoice(kept.voice === 'muted');
  if (kept.video === 'camera') await useCamera(kept.voice !== 'off');
}

/** @param {string} id */
async function joinRoom(id) {
  tell(say('joining'));
  await call.join(id);
  const count = call.members.size;
  tell(count === 0 ? say('waiting') : say('with', {count}));
  find('#invite').value = invitation();
  // For developers on their own machine. Guests cannot change it, and behind a proxy it would be
  // wrong.
  find('[data-part="local-only"]').hidden = !(
    dev &&
    made &&
    ['localhost', '127.0.0.1', '[::1]'].includes(location.hostname)
  );
  setAddress(call.room);
  refresh();
  if (side === '') find('#room-title').focus();
}

async function leave() {
  const left = call.leave();
  // At once, without waiting for the server.
  ended();
  tell(say('left.me'));
  await left;
}

function ended() {
  own.close();
  forget();
  setAddress('');
  refresh();
  if (side === '') find('[data-action="create"]').focus();
}

/**
 * The invite link. It contains the public tenant code if the form asks for it, but never the
 * authKey.
 */
function invitation() {
  const link = new URL('p2p', root);
  link.searchParams.set('room', call.room);
  if (!dev && find('#cpCode').value.trim() !== '')
    link.searchParams.set('cp', find('#cpCode').value.trim());
  return link.href;
}

/**
 * Keeps the room in the page's address for a reload. Not in a frame, whose address belongs to its
 * parent.
 * @param {string} id
 */
function setAddress(id) {
  if (side !== '') return;
  const url = new URL(location.href);
  if (id === '') url.searchParams.delete('room');
  else url.searchParams.set('room', id);
  history.replaceState(null, '', url);
}

// What we send.

/** @param {boolean} [withVoice] */
async function useCamera(withVoice) {
  await own.useCamera(withVoice);
  settleCamera();
}

function useDrawn() {
  settleCamera();
  own.useDrawn(side.toUpperCase());
}

function settleCamera() {
  for (const key of ['insecure', 'camera-denied', 'camera-missing', 'camera-busy', 'camera-other'])
    settle(key);
}

async function useMicrophone() {
  if (own.voice !== 'off') {
    own.toggleMute();
    return;
  }
  await own.useVoice();
  settle('microphone');
}

own.addEventListener('change', () => {
  call.mute(own.voice === 'muted');
  call.useStream(own.stream);
  refresh();
});
own.addEventListener('problem', event => show(/** @type {CustomEvent} */ (event).detail));

// What the page shows.

function refresh() {
  const inRoom = call.room !== '';
  // During a call the videos come first, and the introduction is hidden.
  document.body.toggleAttribute('data-in-room', inRoom);
  enter.hidden = inRoom;
  room.hidden = !inRoom;
  write(find('[data-value="room"]'), call.room);
  write(find('[data-value="user"]'), call.user);
  for (const button of document.querySelectorAll(
    '[data-action="create"], [data-action="join"], [data-action="leave"]',
  )) {
    // Not disabled, which would lose the keyboard focus. move() ignores clicks meanwhile.
    button.setAttribute('aria-disabled', String(moving));
  }
  everyone.checked = call.everyone;

  self.dataset.camera = own.video;
  self.dataset.microphone = own.voice;
  if (preview.srcObject !== own.stream) preview.srcObject = own.stream;
  for (const [button, kind, key] of [
    [cameraButton, 'camera', 'camera'],
    [drawnButton, 'drawn', 'drawn'],
  ]) {
    button.dataset.on = String(own.video === kind);
    write(button, say(own.video === kind ? `${key}.off` : `${key}.on`));
  }
  write(microphone, say(`microphone.${own.voice}`));
  microphone.dataset.on = String(own.voice === 'on');
  find('[data-part="alone"]').hidden = !inRoom || call.members.size > 0;
  boxes.show(call.members.values(), own.stream !== null);
  if (inRoom && side === '') remember();
  report();
}

/** The current state, for a reload. */
function remember() {
  const license = dev
    ? null
    : {cpCode: find('#cpCode').value.trim(), authKey: find('#authKey').value.trim()};
  const name = find('#name').value.trim();
  keep({
    room: call.room,
    made,
    name,
    license,
    video: own.video,
    voice: own.voice,
    everyone: call.everyone,
  });
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
  if (own.video === 'camera') own.closeVideo();
  else await useCamera();
}));
drawnButton.addEventListener('click', () => attempt(async () => {
  if (own.video === 'drawn') own.closeVideo();
  else useDrawn();
}));
microphone.addEventListener('click', () => attempt(useMicrophone));
find('[data-action="language"]').addEventListener('click', staying);

// In a frame of /sample.

let report = () => {};
if (side !== '') {
  document.documentElement.dataset.side = side;
  const main = find('main');
  const told = obey({
    report: async () => report(),
    camera: async kind => {
      if (kind === 'drawn') useDrawn();
      else await useCamera();
    },
    create: async ({license: given}) => {
      await create(given);
      return call.room;
    },
    join: async ({room: id, license: given}) => join(id, given),
    leave: async () => { if (call.room !== '') await leave(); },
  });
  new ResizeObserver(() => report()).observe(main);
  report = () =>
    told({
      room: call.room,
      height: Math.ceil(main.getBoundingClientRect().height) + 2,
      members: [...call.members.values()].map(member => ({
        id: member.id,
        state: member.state,
        path: member.way?.path ?? '',
        way: member.way ? describe(member.way) : '',
        candidates: member.way?.candidates ?? '',
        frames: member.video?.frames ?? 0,
        trouble: member.trouble ? `${member.trouble.title} ${member.trouble.help}` : '',
      })),
    });
}

find('#roomId').value = query.get('room') ?? '';
if (!dev) find('#cpCode').value = query.get('cp') ?? '';
if (!isSecureContext) showProblem(new Problem('insecure'), {onTestVideo: useDrawn});
refresh();
const kept = side === '' ? returning() : null;
if (kept !== null) move(() => comeBack(kept));
