/** Entry of knowledgetalk.min.js: one class under two names, for pages that load it with a script tag. */
import { expose, noteScript } from './global';
import { Knowledgetalk } from './knowledgetalk';

noteScript();
expose('Knowledgetalk', Knowledgetalk);
expose('KnowledgeTalk', Knowledgetalk);
