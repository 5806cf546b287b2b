// Where a test run keeps its files. What a test leaves here is looked at when it has failed; git
// ignores it.

import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..', '..');
export const WORK = path.join(ROOT, 'e2e', '.work');

/** The server that make builds. */
export const IEUM = process.env.IEUM_BINARY ?? path.join(ROOT, 'bin', 'ieum');
export const NETLAB = process.env.NETLAB_BINARY ?? path.join(ROOT, 'bin', 'netlab');

/** make soak: the same tests, far more rounds. */
export const SOAK = Boolean(process.env.IEUM_SOAK);

let count = 0;

/** A fresh folder for one group of processes, named so that it can be found again. */
export function folder(name) {
  const dir = path.join(WORK, `${name}-${process.pid}-${++count}`);
  fs.rmSync(dir, { recursive: true, force: true });
  fs.mkdirSync(dir, { recursive: true });
  return dir;
}
