// @ts-check
// Shared by all pages: texts, elements, notices, the clipboard.
// Text is set by textContent only: names and room ids are untrusted.

/**
 * The server's root as seen by this page, possibly under a path of another site. Ends with a slash.
 */
export const root = new URL('..', import.meta.url).href;

/** The same without the slash. */
export const server = root.slice(0, -1);

/** @type {Readonly<Record<string, string>>} */
const texts = /** @type {any} */ (globalThis).ieumText;

/**
 * A text in the page's language with its {placeholders} replaced.
 * @param {string} key without the leading "say."
 * @param {Record<string, string | number>} [values]
 */
export function say(key, values = {}) {
  const text = texts[key];
  if (text === undefined) throw new Error(`no text ${key}`);
  return text.replace(/\{(\w+)\}/g, (place, name) => name in values ? String(values[name]) : place);
}

/**
 * The matching element. Throws if the page has none.
 * @param {string} selector
 * @param {ParentNode} [within]
 * @returns {any}
 */
export function find(selector, within = document) {
  const found = within.querySelector(selector);
  if (found === null) throw new Error(`no element ${selector}`);
  return found;
}

/**
 * @param {string} id of a template with one element
 * @returns {HTMLElement}
 */
export function fromTemplate(id) {
  const template = /** @type {HTMLTemplateElement} */ (find('#' + id));
  return /** @type {HTMLElement} */ (template.content.firstElementChild?.cloneNode(true));
}

/**
 * Sets text only if it differs, so that screen readers do not repeat it and a selection survives.
 * @param {HTMLElement} element
 * @param {string} text
 */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * @param {string} text for the status line of the page, which is a live region
 */
export function tell(text) {
  write(find('#status'), text);
}

/**
 * Shows a problem and its fix; data-problem has the key. The same problem is not shown twice.
 * @param {import('./problems.mjs').Problem} problem
 * @param {{onTestVideo?: () => void}} [offer] an alternative, shown if it helps
 */
export function showProblem(problem, offer = {}) {
  settle(problem.key);
  const notice = fromTemplate('problem-template');
  notice.dataset.problem = problem.key;
  find('.title', notice).textContent = problem.title;
  find('.what-to-do', notice).textContent = problem.help;
  find('[data-action="dismiss"]', notice).addEventListener('click', () => notice.remove());
  if (offer.onTestVideo && (problem.key === 'insecure' || problem.key.startsWith('camera-'))) {
    const button = find('[data-action="test-video"]', notice);
    button.hidden = false;
    button.addEventListener('click', () => { notice.remove(); offer.onTestVideo?.(); });
  }
  const list = find('#problems');
  list.append(notice);
  while (list.children.length > 3) list.firstElementChild.remove();
}

/**
 * Removes the notice of one key, or all.
 * @param {string} [key]
 */
export function settle(key) {
  for (const notice of document.querySelectorAll('#problems [data-problem]')) {
    if (key === undefined || /** @type {HTMLElement} */ (notice).dataset.problem === key)
      notice.remove();
  }
}

/**
 * Copies text. Outside a secure context there is no clipboard API: then by a selection.
 * @param {string} text
 * @returns {Promise<boolean>} false: the user has to copy manually
 */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const focused = document.activeElement;
    const field = document.createElement('textarea');
    field.className = 'unseen';
    field.value = text;
    document.body.append(field);
    field.select();
    const done = document.execCommand('copy');
    field.remove();
    if (focused instanceof HTMLElement) focused.focus();
    return done;
  }
}

// The language switch keeps the query of an invite link.
for (const link of /** @type {NodeListOf<HTMLAnchorElement>} */ (
  document.querySelectorAll('[data-action="language"]')
)) {
  link.addEventListener('click', () => {
    const query = new URLSearchParams(location.search);
    query.set('lang', link.lang);
    link.href = '?' + query + location.hash;
  });
}
