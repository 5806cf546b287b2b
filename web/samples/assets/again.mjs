// @ts-check
// State with which the call page returns to its call after a reload. It is stored for this tab,
// during a call only.

const place = 'ieum.call';

/**
 * @typedef {object} Kept
 * @property {string} room
 * @property {boolean} made whether this page created the room
 * @property {string} name
 * @property {import('./call.mjs').License | null} license null: the server provides one
 * @property {'off' | 'camera' | 'drawn'} video
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
 * Marks that the next page of this tab is the same one in another language, not a new visit.
 * @param {MouseEvent} click on a link that leads there; with a modifier key it opens another tab
 */
export function staying(click) {
  if (!(click.ctrlKey || click.metaKey || click.shiftKey || click.altKey)) moving = true;
}

addEventListener('pagehide', () => {
  const kept = read();
  if (moving && kept !== null) store(JSON.stringify({...kept, moved: true}));
});

/**
 * State to return to. A followed link, a duplicated tab and navigating back are new visits, which
 * must not turn on a camera.
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
    return null; // storage is disabled, or has foreign data
  }
}

/** @param {string | null} text */
function store(text) {
  try {
    if (text === null) sessionStorage.removeItem(place);
    else sessionStorage.setItem(place, text);
  } catch {
    // Without storage a reload leads to the form.
  }
}
