// Firefox ESR, Debian's own, through WebDriver BiDi. BiDi is a WebSocket on the loopback of the
// namespace that Firefox runs in, so its driver (firefox-driver.mjs) is a process inside the
// namespace too, spoken to over its standard input and output.

import fs from 'node:fs';
import path from 'node:path';
import readline from 'node:readline';
import { spawn } from 'node:child_process';
import { firefoxProfile } from './ca.mjs';
import { PATH } from './process.mjs';
import { LIMIT, until, within } from './wait.mjs';
import { ROOT } from './work.mjs';

export class Firefox {
  #next = 0;
  #asked = new Map();

  /**
   * @param {{dir: string, ns?: string, secure?: string[], ca?: string, names?: [string, string]}} o
   * secure: host names where the camera is allowed over plain HTTP
   * ca: the only authority whose certificates are accepted; without it, all are
   * names: a host name and its address, which in Firefox all names then have
   */
  static async start({ dir, ns, secure = [], ca, names }) {
    const f = new Firefox();
    f.dir = dir;
    f.pages = [];
    f.log = fs.createWriteStream(path.join(dir, 'firefox.log'), { flags: 'a' });
    const driver = [process.execPath, path.join(ROOT, 'e2e', 'lib', 'firefox-driver.mjs')];
    const argv = ns ? ['ip', 'netns', 'exec', ns, ...driver] : driver;
    f.child = spawn(argv[0], argv.slice(1), {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: {
        ...process.env,
        PATH,
        FIREFOX_SECURE: secure.join(','),
        FIREFOX_PROFILE: ca ? firefoxProfile(dir, ca) : '',
        FIREFOX_RESOLVE: names?.[1] ?? '',
      },
    });
    f.child.stderr.pipe(f.log, { end: false });
    f.gone = new Promise((resolve) => f.child.on('close', resolve));
    readline.createInterface({ input: f.child.stdout }).on('line', (line) => {
      const m = JSON.parse(line);
      f.#asked.get(m.id)?.(m);
      f.#asked.delete(m.id);
    });
    f.gone.then(() =>
      f.#asked.forEach((answer) => answer({ error: 'the Firefox driver has ended' })),
    );
    f.version = await f.ask({ do: 'start' }, 60_000);
    return f;
  }

  async ask(message, limit = LIMIT) {
    const id = ++this.#next;
    const answered = new Promise((resolve) => this.#asked.set(id, resolve));
    this.child.stdin.write(`${JSON.stringify({ id, ...message })}\n`);
    const m = await within(`answered by Firefox: ${message.do}`, answered, limit);
    if (m.error) throw new Error(`Firefox: ${m.error}`);
    return m.value;
  }

  async open(url, { name = `firefox${this.pages.length}` } = {}) {
    const inject = fs.readFileSync(path.join(ROOT, 'e2e/lib/rtc.inject.js'), 'utf8');
    const p = new FirefoxPage(this, await this.ask({ do: 'open', inject }), name);
    this.pages.push(p);
    await p.goto(url);
    return p;
  }

  async keep() {
    for (const p of this.pages) {
      await this.ask({
        do: 'screenshot',
        page: p.tab,
        path: path.join(this.dir, `${p.name}.png`),
      }).catch(() => {});
    }
  }

  async close() {
    this.child.stdin.end();
    const timer = setTimeout(() => this.child.kill('SIGKILL'), 10_000);
    await this.gone;
    clearTimeout(timer);
    this.log.end();
  }
}

export class FirefoxPage {
  constructor(browser, tab, name) {
    Object.assign(this, { browser, tab, name, console: [], errors: [] });
  }

  goto(url) {
    return this.browser.ask({ do: 'goto', page: this.tab, url });
  }

  evaluate(f, arg) {
    return this.browser.ask(
      { do: 'evaluate', page: this.tab, f: String(f), arg: arg ?? null },
      60_000,
    );
  }

  until(what, f, arg, limit = LIMIT) {
    return until(`${this.name}: ${what}`, () => this.evaluate(f, arg), limit, 100);
  }

  close() {
    return this.browser.ask({ do: 'close', page: this.tab });
  }
}
