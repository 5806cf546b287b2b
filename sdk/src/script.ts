/** Entry of knowledgetalk.min.js: one class under two names, for script tags. */
import { expose, noteScript, scriptFolder } from './global';
import { Knowledgetalk } from './knowledgetalk';

const load = (folder: string) =>
  import(/* webpackIgnore: true */ /* @vite-ignore */ `${folder}knowledgetalk.polling.mjs`);

// From the folder of the script, which the CSP of the page allows. A copy of the script may be
// alone; then from the server.
noteScript((base) => {
  const folder = scriptFolder();
  return folder ? load(folder).catch(() => load(`${base}/`)) : load(`${base}/`);
});
expose('Knowledgetalk', Knowledgetalk);
expose('KnowledgeTalk', Knowledgetalk);
