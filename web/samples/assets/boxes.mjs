// @ts-check
// The boxes of the other members: one <article data-member> each, made on join, removed on leave.
//
//   data-member      user id
//   data-state       present | connecting | connected | interrupted | failed
//   data-sending     no | starting | yes | failed: what we send to this member
//   data-video     yes | no: whether this member's video is shown
//   data-path        direct | relayed; absent while unknown
//   data-candidates  types of the candidate pair in use, local–remote, such as "host–host"; absent
//                    while unknown
//   data-frames      decoded frames of this member's video

import {find, fromTemplate, say, write} from './page.mjs';
import {describe} from './path.mjs';

/** @typedef {import('./call.mjs').Member} Member */

export class Boxes {
  /** @type {Map<string, HTMLElement>} */
  #boxes = new Map();

  /**
   * @param {HTMLElement} stage parent of the boxes
   * @param {{send: (id: string) => void, stop: (id: string) => void}} actions
   * @param {boolean} quiet mute playback until the user turns it on, since two pages in one window
   *   would echo
   */
  constructor(stage, actions, quiet) {
    this.stage = stage;
    this.actions = actions;
    this.quiet = quiet;
  }

  /**
   * Updates the boxes to these members.
   * @param {Iterable<Member>} members
   * @param {boolean} hasStream whether we have video to send
   */
  show(members, hasStream) {
    const present = new Set();
    for (const member of members) {
      present.add(member.id);
      let box = this.#boxes.get(member.id);
      if (box === undefined) {
        box = this.#make(member.id);
        this.#boxes.set(member.id, box);
        this.stage.append(box);
      }
      fill(box, member, hasStream);
    }
    for (const [id, box] of this.#boxes) {
      if (present.has(id)) continue;
      find('video', box).srcObject = null;
      box.remove();
      this.#boxes.delete(id);
    }
  }

  /** @param {string} id */
  #make(id) {
    const box = fromTemplate('member-template');
    box.dataset.member = id;
    find('[data-action="send"]', box).addEventListener('click', () => this.actions.send(id));
    find('[data-action="stop"]', box).addEventListener('click', () => this.actions.stop(id));
    const sound = find('[data-action="sound"]', box);
    find('video', box).muted = this.quiet;
    sound.addEventListener('click', () => {
      find('video', box).muted = false;
      sound.hidden = true;
    });
    return box;
  }
}

/**
 * @param {HTMLElement} box
 * @param {Member} member
 * @param {boolean} hasStream
 */
function fill(box, member, hasStream) {
  const tracks = member.stream?.getTracks() ?? [];
  const seen = tracks.some(track => track.kind === 'video');
  box.dataset.state = member.state;
  box.dataset.sending = member.sending;
  box.dataset.video = seen ? 'yes' : 'no';
  box.dataset.frames = String(member.video?.frames ?? 0);
  box.setAttribute('aria-label', member.name);

  write(find('[data-value="name"]', box), member.name);
  // A name derived from the id already shows it.
  write(find('[data-value="id"]', box), member.named ? member.id : '');
  find('[data-value="muted"]', box).hidden = !member.muted;
  write(find('[data-value="nothing"]', box), nothing(member, tracks.length > 0));
  play(box, tracks.length > 0 ? member.stream : null);
  find('[data-action="sound"]', box).hidden = !(
    find('video', box).muted && tracks.some(track => track.kind === 'audio')
  );

  const chip = find('[data-value="path"]', box);
  const way = member.way;
  chip.hidden = way === null;
  if (way === null) {
    delete box.dataset.path;
    delete box.dataset.candidates;
  } else {
    box.dataset.path = way.path;
    box.dataset.candidates = way.candidates;
    chip.className = way.path === 'relayed' ? 'chip way warm' : 'chip way calm';
    write(chip, say(`path.${way.path}`));
  }
  write(find('[data-value="way"]', box), way === null ? '' : describe(way));

  const video = seen ? member.video : null;
  const {width, height, rate, frames} = video ?? {width: 0, height: 0, rate: 0, frames: 0};
  write(
    find('[data-value="numbers"]', box),
    width > 0 ? say('numbers', {width, height, rate, frames}) : '',
  );

  const trouble = find('[data-value="trouble"]', box);
  trouble.hidden = member.trouble === null;
  trouble.dataset.problem = member.trouble?.key ?? '';
  write(trouble, member.trouble ? `${member.trouble.title} ${member.trouble.help}` : '');

  write(
    find('[data-value="sending"]', box),
    say(`sending.${member.wanted && !hasStream ? 'waiting' : member.sending}`),
  );
  const going = member.sending === 'yes' || member.sending === 'starting';
  swap(find('[data-action="send"]', box), find('[data-action="stop"]', box), going);
}

/**
 * @param {Member} member
 * @param {boolean} voice
 */
function nothing(member, voice) {
  switch (member.state) {
    case 'connecting':
      return say('member.connecting');
    case 'interrupted':
      return say('member.interrupted');
    case 'failed':
      return say('member.failed');
    default:
      return say(voice ? 'member.voice' : 'member.nothing');
  }
}

/**
 * Shows one of two buttons and keeps the keyboard focus.
 * @param {HTMLElement} first
 * @param {HTMLElement} second
 * @param {boolean} toSecond
 */
function swap(first, second, toSecond) {
  const [from, to] = toSecond ? [first, second] : [second, first];
  const focused = document.activeElement === from;
  to.hidden = false;
  from.hidden = true;
  if (focused) to.focus();
}

/**
 * @param {HTMLElement} box
 * @param {MediaStream | null} stream
 */
function play(box, stream) {
  /** @type {HTMLVideoElement} */
  const video = find('video', box);
  if (video.srcObject === stream) return;
  video.srcObject = stream;
  if (stream === null) return;
  video.play().catch(error => {
    // Autoplay with sound is blocked before a click: show the video and offer the sound.
    if (error.name !== 'NotAllowedError') return;
    video.muted = true;
    video.play().catch(() => {});
  });
}
