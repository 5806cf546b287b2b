/** Entry of knowledgetalk.mjs. */
import { noteScript } from './global';
import { Knowledgetalk } from './knowledgetalk';

noteScript(import.meta.url);

export { Knowledgetalk, Knowledgetalk as KnowledgeTalk };
export default Knowledgetalk;
