// Fails when the script that pages load grows over its budget.
import { readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';

const BUDGET = 28_000; // bytes, gzip -9
const size = gzipSync(readFileSync(new URL('../web/dist/knowledgetalk.min.js', import.meta.url)), {
  level: 9,
}).length;
console.log(`knowledgetalk.min.js: ${size} of ${BUDGET} bytes gzip`);
if (size > BUDGET) process.exit(1);
