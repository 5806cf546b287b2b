// The page of examples/ in a browser: two of it call each other, and the echo bot answers it.

import { after, afterEach, before, test } from 'node:test';
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { Process } from './lib/process.mjs';
import { Stage } from './lib/stage.mjs';
import { ROOT } from './lib/work.mjs';

let stage;
before(async () => (stage = await Stage.up('examples')));
afterEach((t) => stage.after(t));
after(() => stage?.down());

/** Puts the page under another name, in a room of its own. */
function page(name) {
  const text = fs.readFileSync(path.join(ROOT, 'examples/browser/call.html'), 'utf8');
  const filled = text
    .replace("http://127.0.0.1:7102'", `${stage.origin}'`)
    .replace(`'lobby'`, `'${name}'`)
    .replace('CP-CODE', stage.license.cpCode)
    .replace('AUTH-KEY', stage.license.authKey);
  assert.equal(
    [stage.origin, name, stage.license.cpCode, stage.license.authKey].filter((x) =>
      filled.includes(x),
    ).length,
    4,
  );
  const file = `example-${name}.html`;
  stage.pages.write(file, filled.replace('<title>', '<link rel="icon" href="data:,"><title>'));
  return file;
}

const shows = (p) =>
  p.until('showing the other one', () => theirs.getVideoPlaybackQuality().totalVideoFrames >= 10);

test('two pages of examples/browser call each other', async () => {
  const file = page('pages');
  const one = await stage.open(file);
  await one.until('having its camera', () => mine.srcObject);
  const two = await stage.open(file);
  await Promise.all([shows(one), shows(two)]);
});

test('the echo bot answers a page', async () => {
  const bin = path.join(stage.dir, 'echo');
  execFileSync(process.env.GO ?? 'go', ['build', '-o', bin, './echo'], {
    cwd: path.join(ROOT, 'examples'),
    stdio: 'inherit',
  });
  const bot = new Process([bin, '-server', stage.origin, '-room', 'bot'], {
    dir: stage.dir,
    name: 'echo',
  });
  stage.onEnd(() => bot.kill('SIGKILL'));
  await bot.said(/^(waiting) in bot$/m);
  await shows(await stage.open(page('bot')));
});
