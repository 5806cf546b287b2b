/** Entry of knowledgetalk.min.js: one class under two names, for pages that load it with a script tag. */
import { expose, noteScript, scriptFolder } from './global';
import { Knowledgetalk } from './knowledgetalk';

const load = (folder: string) => import(/* webpackIgnore: true */ /* @vite-ignore */ `${folder}knowledgetalk.polling.mjs`);

// From where the script came from, which the page's policy lets in. Beside a copy of the script it may be missing;
// the server has it.
noteScript((base) => {
  const folder = scriptFolder();
  return folder ? load(folder).catch(() => load(`${base}/`)) : load(`${base}/`);
});
expose('Knowledgetalk', Knowledgetalk);
expose('KnowledgeTalk', Knowledgetalk);
