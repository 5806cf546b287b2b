/** Entry of knowledgetalk.mjs, and of the package's CommonJS. */
import { noteModule } from './global';
import { Knowledgetalk } from './knowledgetalk';

noteModule(import.meta.url, () => import('./knowledgetalk.polling.mjs'));

export { Knowledgetalk, Knowledgetalk as KnowledgeTalk };
export default Knowledgetalk;
