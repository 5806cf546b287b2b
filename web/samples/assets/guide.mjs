// @ts-check
// Fills the guide's code with this server's address, and in development mode with its license, and
// copies it.
//
// Controls:  data-action = copy (one beside each step) | copy-page | language
// Code:      code[data-step] in order are one whole page; [data-fill="origin|cpCode|authKey"] are
//            the places filled in

import {copy, find, root, say, server, write} from './page.mjs';

/** @type {NodeListOf<HTMLElement>} */
const steps = document.querySelectorAll('code[data-step]');
const copied = find('#copied');

/**
 * @param {string} name
 * @param {string} value
 */
function fill(name, value) {
  for (const place of document.querySelectorAll(`[data-fill="${name}"]`)) place.textContent = value;
}

/** @param {boolean} done */
function tellCopied(done) {
  // Cleared first, so that screen readers announce a second copy.
  copied.textContent = '';
  requestAnimationFrame(() => write(copied, say(done ? 'copied' : 'copy.failed')));
}

for (const step of steps) {
  find('[data-action="copy"]', /** @type {HTMLElement} */ (step.closest('.code'))).addEventListener(
    'click',
    async () => {
      tellCopied(await copy(step.textContent ?? ''));
    },
  );
}
find('[data-action="copy-page"]').addEventListener('click', async () => {
  tellCopied(await copy([...steps].map(step => step.textContent).join('\n')));
});

fill('origin', server);
if ('dev' in document.body.dataset) {
  const answer = await fetch(root + 'dev/license');
  if (answer.ok) {
    const license = await answer.json();
    fill('cpCode', license.cpCode);
    fill('authKey', license.authKey);
  }
}
