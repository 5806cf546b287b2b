// @ts-check
// What a reload needs so that the call page comes back into its call by itself. It is kept for this tab alone, and only while in a call.

const place = 'ieum.call';

/**
 * @typedef {object} Kept
 * @property {string} room
 * @property {boolean} made whether this page created the room
 * @property {string} name
 * @property {import('./call.mjs').License | null} license null: the server lends one
 * @property {'off' | 'camera' | 'drawn'} picture
 * @property {'off' | 'on' | 'muted'} voice
 * @property {boolean} everyone
 */

/** @param {Kept} kept */
export function keep(kept) {
  store(JSON.stringify(kept));
}

export function forget() {
  store(null);
}

let moving = false;

/**
 * The next page of this tab is this one in another language, not another visit.
 * @param {MouseEvent} click on a link that leads there; with a key held it opens another tab, and this one stays
 */
export function staying(click) {
  if (!(click.ctrlKey || click.metaKey || click.shiftKey || click.altKey)) moving = true;
}

addEventListener('pagehide', () => {
  const kept = read();
  if (moving && kept !== null) store(JSON.stringify({...kept, moved: true}));
});

/**
 * What to come back to. A link that was followed, a duplicated tab and the way back from another page are visits of their own: there
 * nobody expects a camera to go on.
 * @returns {Kept | null}
 */
export function returning() {
  const kept = read();
  const [entry] = performance.getEntriesByType('navigation');
  const reloaded = entry instanceof PerformanceNavigationTiming && entry.type === 'reload';
  if (kept !== null && (reloaded || kept.moved)) return kept;
  forget();
  return null;
}

/** @returns {(Kept & {moved?: boolean}) | null} */
function read() {
  try {
    return JSON.parse(sessionStorage.getItem(place) ?? 'null');
  } catch {
    return null; // storage that is switched off, or was written by somebody else
  }
}

/** @param {string | null} text */
function store(text) {
  try {
    if (text === null) sessionStorage.removeItem(place);
    else sessionStorage.setItem(place, text);
  } catch {
    // Without storage a reload leads to the form, as it always can.
  }
}
