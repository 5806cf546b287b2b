// @ts-check
// Two call pages in one window, and a button that starts a call between them.
//
// Controls:  data-action = start | end | use-camera | use-drawn | language;  inside a notice:
//            dismiss | test-video
// Fields:    #cpCode #authKey (absent in development mode; handed to the frames by message, never
//            in an address)
// Result:    .console has data-result = idle | starting | running | failed, and while running
//            data-path = direct | relayed, data-candidates = "host–host" and data-frames-a,
//            data-frames-b: decoded video frames of each side; #status has the text
// Frames:    iframe[data-side="a"] creates the room, iframe[data-side="b"] joins it

import {Frame} from './frame.mjs';
import {find, say, settle, showProblem, tell, write} from './page.mjs';
import {beforeInit, Problem} from './problems.mjs';

const dev = 'dev' in document.body.dataset;
const panel = find('.console');
const start = find('[data-action="start"]');
const end = find('[data-action="end"]');

const a = new Frame(find('iframe[data-side="a"]'), refresh);
const b = new Frame(find('iframe[data-side="b"]'), refresh);

/** @type {'idle' | 'starting' | 'running' | 'failed'} */
let result = 'idle';

/** @returns {import('./call.mjs').License | undefined} undefined: the frames get it themselves */
function license() {
  if (dev) return undefined;
  const given = {cpCode: find('#cpCode').value.trim(), authKey: find('#authKey').value.trim()};
  const problem = beforeInit(given);
  if (problem !== null) throw problem;
  return given;
}

async function startCall() {
  settle();
  const given = license();
  const kind = find('input[name="video"]:checked').value;
  tell(say('sample.loading'));
  await Promise.all([a.ready, b.ready]);
  await leaveBoth();
  tell(say('sample.camera'));
  // One after the other, so that the browser asks once.
  await a.do('camera', kind);
  await b.do('camera', kind);
  tell(say('sample.creating'));
  const room = await a.do('create', {license: given});
  tell(say('sample.joining', {room}));
  await b.do('join', {license: given, room});
  tell(say('sample.connecting'));
}

async function leaveBoth() {
  await Promise.all([a, b].map(frame => frame.do('leave')));
}

/** Summary of both frames. */
function refresh() {
  start.disabled = result === 'starting' || result === 'running';
  end.disabled = result !== 'running';
  panel.dataset.result = result;
  if (result !== 'running') return;

  const [seenByA, seenByB] = [a.state.members[0], b.state.members[0]];
  if (a.state.room === '' || b.state.room === '') {
    finish('idle', 'sample.lost');
    return;
  }
  const trouble = seenByA?.trouble || seenByB?.trouble || '';
  const chip = find('[data-value="path"]');
  const path = seenByA?.path || seenByB?.path || '';
  const running = path !== '' && seenByA?.frames > 0 && seenByB?.frames > 0;
  chip.hidden = path === '';
  if (path !== '') {
    // Candidates as seen by A; B has the same pair from the other end.
    const seen = seenByA?.path ? seenByA : seenByB;
    panel.dataset.path = path;
    panel.dataset.candidates = seen.candidates;
    chip.className = path === 'relayed' ? 'chip way warm' : 'chip way calm';
    write(chip, say(`path.${path}`));
    write(find('[data-value="way"]'), seen.way);
  }
  panel.dataset.framesA = String(seenByA?.frames ?? 0);
  panel.dataset.framesB = String(seenByB?.frames ?? 0);
  write(
    find('[data-value="numbers"]'),
    running ? say('sample.numbers', {a: seenByA.frames, b: seenByB.frames}) : '',
  );
  if (trouble !== '') tell(trouble);
  else tell(say(running ? `sample.${path}` : 'sample.connecting'));
}

/**
 * @param {typeof result} how
 * @param {string} key
 */
function finish(how, key) {
  result = how;
  for (const name of ['path', 'candidates', 'framesA', 'framesB']) delete panel.dataset[name];
  find('[data-value="path"]').hidden = true;
  write(find('[data-value="way"]'), '');
  write(find('[data-value="numbers"]'), '');
  if (key !== '') tell(say(key));
  refresh();
}

async function run() {
  if (result === 'starting' || result === 'running') return;
  finish('starting', '');
  try {
    await startCall();
    result = 'running';
    refresh();
    end.focus();
  } catch (error) {
    finish('failed', 'sample.failed');
    const told =
      error instanceof Problem || /** @type {any} */ (error)?.key
        ? /** @type {any} */ (error)
        : new Problem('other', {code: '–', reason: String(error)});
    showProblem(told, {
      onTestVideo: () => {
        find('[data-action="use-drawn"]').checked = true;
        run();
      },
    });
  }
}

find('#start').addEventListener('submit', (/** @type {SubmitEvent} */ event) => {
  event.preventDefault();
  run();
});
end.addEventListener('click', async () => {
  await leaveBoth();
  finish('idle', 'sample.ended');
  start.focus();
});
refresh();
