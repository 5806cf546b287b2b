// What README says, as it stands there, in both languages: the commands start a server and make a
// license, and the code makes a call with them from a page of another origin.

import { after, afterEach, before, describe, test } from 'node:test';
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { authority } from './lib/ca.mjs';
import { Chromium } from './lib/chromium.mjs';
import { Process } from './lib/process.mjs';
import { survivesReloads } from './lib/reloads.mjs';
import { servePages } from './lib/stage.mjs';
import { until } from './lib/wait.mjs';
import { IEUM, ROOT, folder } from './lib/work.mjs';

/**
 * Ports of the machine's choice, since the documented ones may be taken; everything else is as
 * documented.
 */
const PORTS = ['--listen', '127.0.0.1:0', '--stun-listen', '127.0.0.1:0', '--admin-listen', 'off'];

/** The code blocks of one language in a Markdown file. */
function blocks(file, language) {
  const text = fs.readFileSync(path.join(ROOT, file), 'utf8');
  return [...text.matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\`$`, 'gms'))].map(
    (m) => m[1],
  );
}

/** The arguments of a documented `ieum serve`. */
function serveArgs(line) {
  const argv = line.trim().split(/\s+/);
  assert.deepEqual(argv.slice(0, 2), ['./bin/ieum', 'serve'], line);
  return argv.slice(1).filter((x, i, all) => x !== '--listen' && all[i - 1] !== '--listen');
}

const FILES = ['README.md', 'README.ko.md'];

test('the code of both languages differs in its comments only', () => {
  const [en, ko] = FILES.map((file) => blocks(file, 'html')[0]);
  const withoutComments = (code) => code.replace(/<!--.*-->|(^|\s)\/\/ .*$/gm, '');
  assert.notEqual(ko, en);
  assert.equal(withoutComments(ko), withoutComments(en));
});

for (const file of FILES) {
  describe(file, () => {
    let dir, server, license, pages, browser;

    before(async () => {
      dir = folder('readme');
      fs.mkdirSync(path.join(dir, 'bin'));
      fs.symlinkSync(IEUM, path.join(dir, 'bin', 'ieum'));
      const made = authority(dir, ['127.0.0.1']);
      fs.renameSync(made.cert, path.join(dir, 'cert.pem'));
      fs.renameSync(made.key, path.join(dir, 'key.pem'));

      const commands = blocks(file, 'sh')
        .find((block) => block.includes('license issue'))
        .trim()
        .split('\n');
      assert.equal(commands.shift(), 'make build');
      const serve = commands.pop();
      const said = execFileSync('sh', ['-euc', commands.join('\n')], {
        cwd: dir,
        encoding: 'utf8',
      });
      license = Object.fromEntries(
        ['cpCode', 'authKey'].map((name) => [
          name,
          new RegExp(`^${name}:? +(\\S+)$`, 'm').exec(said)?.[1],
        ]),
      );
      assert.ok(license.authKey, `no authKey in:\n${said}`);

      const argv = ['-c', `cd "$0" && exec "$@"`, dir, './bin/ieum', ...serveArgs(serve), ...PORTS];
      server = new Process(['sh', ...argv], { dir, name: 'ieum' });
      const [origin] = await server.said(/https:\/\/[^\s"/]+/);
      pages = await servePages({ dir, origin, license });
      const [code] = blocks(file, 'html');
      assert.ok(code.includes(`'CP-CODE', 'AUTH-KEY'`));
      const filled = code
        .replaceAll('http://127.0.0.1:7102', origin)
        .replace('CP-CODE', license.cpCode)
        .replace('AUTH-KEY', license.authKey);
      pages.write(
        'readme.html',
        `<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">\n${filled}`,
      );
      browser = await Chromium.start({ dir });
    });
    afterEach(async (t) => {
      if (!t.passed) await browser?.keep();
    });
    after(async () => {
      await browser?.close();
      await pages?.process.stop();
      if (server) assert.equal((await server.stop()).code, 0);
    });

    const open = (hash, name) =>
      browser.open(`${pages.origin}/readme.html${hash}`, { name: `${file}-${name}` });

    if (file !== FILES[0]) {
      test('the code enters a room on the server of the commands', async () => {
        const page = await open('', 'host');
        await page.until('in its room', () => location.hash.slice(1));
        assert.deepEqual(page.errors, []);
        await page.close();
      });
    } else {
      test('the code makes a call on the server of the commands, and survives reloads', () =>
        survivesReloads(open, '#theirs'));

      test('the code reports why it stops, and puts no refused room into the address', async () => {
        pages.write(
          'swapped.html',
          fs
            .readFileSync(path.join(dir, 'pages', 'readme.html'), 'utf8')
            .replace(license.authKey, 'x'),
        );
        for (const [address, reason, name] of [
          ['swapped.html', /401 .+/, 'license'],
          [`readme.html#${'x'.repeat(129)}`, /422 .+/, 'room'],
        ]) {
          const p = await browser.open(`${pages.origin}/${address}`, { name: `${file}-${name}` });
          await until(`${name} refused`, () => reason.test(p.errors.join()));
          assert.equal(await p.evaluate(() => location.hash), new URL(address, pages.origin).hash);
          await p.close();
        }
      });
    }

    test('make run starts what the page promises, with and without HTTPS', async () => {
      for (const [i, args] of ['', '--listen :7102 --tls-self-signed'].entries()) {
        if (args) assert.ok(blocks(file, 'sh').some((b) => b.trim() === `make run ARGS="${args}"`));
        else assert.ok(blocks(file, 'sh').some((b) => b.trim().endsWith('\nmake run')));
        const plan = execFileSync('make', ['-n', '--no-print-directory', 'run', `ARGS=${args}`], {
          cwd: ROOT,
          encoding: 'utf8',
        })
          .trim()
          .split('\n');
        const started = new Process([IEUM, ...serveArgs(plan.at(-1)), ...PORTS], {
          dir,
          name: `run-${i}`,
        });
        const [origin] = await started.said(
          args ? /https:\/\/127\.0\.0\.1:\d+/ : /http:\/\/127\.0\.0\.1:\d+/,
        );
        if (!args)
          assert.match(await (await fetch(`${origin}/sample`)).text(), /data-action="start"/);
        assert.equal((await started.stop()).code, 0);
      }
    });
  });
}
