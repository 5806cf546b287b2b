// What most tests stand on: a server, an app's web server on another origin, and a browser; all
// ended in good order, and what is needed to understand a failure kept.

import fs from 'node:fs';
import path from 'node:path';
import { Chromium } from './chromium.mjs';
import { Process } from './process.mjs';
import { HttpProxy, Proxy } from './proxy.mjs';
import { Server } from './server.mjs';
import { ROOT, folder } from './work.mjs';

/** What must never stand in a server's log: license keys, session descriptions, candidates. */
const SECRETS = [
  /eyJ[\w-]{10,}/,
  /v=0\\?[\r\n]/,
  /a=(candidate|ice-ufrag|fingerprint)/,
  /candidate:\d/,
  /"resume"/,
];

export class Stage {
  #ends = [];
  #failed = false;

  /**
   * @param {string} name of the folder that keeps logs and screenshots
   * @param {{proxy?: boolean, site?: string, keepData?: boolean, args?: string[]}} o
   * proxy: the browser reaches the server through a proxy that can be cut
   * site: through the proxy of a site that has the server under this path; stage.origin is then
   *   the server's address there
   * keepData: the server has a folder, stage.data, that outlasts its restart
   * args: more flags for the server
   */
  static async up(name, { proxy = false, site, keepData = false, args = [] } = {}) {
    const s = new Stage();
    s.dir = folder(name);
    // It starts beside the server, which takes less long.
    const browser = Chromium.start({ dir: s.dir });
    browser.catch(() => {}); // awaited below, unless something else fails first
    try {
      if (keepData) s.data = path.join(s.dir, 'data');
      s.server = await Server.start({ dir: s.dir, data: s.data, args });
      s.onEnd(async () => s.#stopServer());
      s.license = await s.server.license();
      s.origin = s.server.origin;
      if (proxy) {
        s.proxy = await Proxy.listen(s.server.host);
        s.onEnd(() => s.proxy.close());
        s.origin = s.proxy.origin;
      }
      if (site !== undefined) {
        s.proxy = await HttpProxy.listen(s.server.host, site);
        s.onEnd(() => s.proxy.close());
        s.origin = s.proxy.base;
      }
      s.pages = await servePages({ dir: s.dir, origin: s.origin, license: s.license });
      s.onEnd(() => s.pages.process.stop());
      s.browser = await browser;
      s.onEnd(() => s.browser.close());
      return s;
    } catch (e) {
      s.#failed = true;
      await browser.then((b) => b.close(), () => {});
      await s.down().catch(() => {});
      throw e;
    }
  }

  /** Things are ended in the opposite order of their beginning. */
  onEnd(f) {
    this.#ends.unshift(f);
  }

  /** Opens one of our pages (guide.html, app.html). */
  open(page, options) {
    return this.browser.open(`${this.pages.origin}/${page}`, options);
  }

  /**
   * For afterEach: when the test has failed, keeps the pictures and closes what it has left open,
   * or the next would fail as well.
   */
  async after(t, { close = true } = {}) {
    if (t.passed) return;
    this.#failed = true;
    await this.browser?.keep();
    if (close) await this.browser?.closePages();
  }

  async #stopServer() {
    const end = await this.server.stop();
    if (end.code !== 0) throw new Error(`the server ended with ${JSON.stringify(end)}`);
  }

  async down() {
    const errors = [];
    for (const f of this.#ends) await Promise.resolve().then(f).catch((e) => errors.push(e));
    for (const log of fs.readdirSync(this.dir).filter((f) => /^ieum.*\.log$/.test(f))) {
      errors.push(
        ...leaks(fs.readFileSync(path.join(this.dir, log), 'utf8')).map(
          (l) => new Error(`${log} tells a secret: ${l}`),
        ),
      );
    }
    if (errors.length === 1) throw errors[0];
    if (errors.length) throw new AggregateError(errors, errors.map((e) => e.message).join('; '));
    if (!this.#failed) fs.rmSync(this.dir, { recursive: true });
  }
}

/** The lines of a log that hold what no log may. */
export function leaks(log, more = []) {
  return log
    .split('\n')
    .filter((line) => [...SECRETS, ...more].some((secret) => secret.test(line)));
}

/** Starts a web server with the pages of e2e/pages, made for this call server. */
export async function servePages({ dir, origin, license, ns, host = '127.0.0.1', port = 0 }) {
  const to = path.join(dir, 'pages');
  fs.mkdirSync(to, { recursive: true });
  fillPages(to, origin, license);
  const argv = [
    process.execPath,
    path.join(ROOT, 'e2e/lib/pages-server.mjs'),
    host,
    String(port),
    to,
  ];
  const server = new Process(argv, { dir, name: 'pages', ns });
  const [, got] = await server.said(/pages on port (\d+)/);
  return {
    process: server,
    origin: `http://127.0.0.1:${got}`,
    write: (name, text) => fs.writeFileSync(path.join(to, name), text),
  };
}

function fillPages(to, origin, { cpCode, authKey }) {
  for (const name of fs.readdirSync(path.join(ROOT, 'e2e/pages'))) {
    const text = fs.readFileSync(path.join(ROOT, 'e2e/pages', name), 'utf8');
    fs.writeFileSync(
      path.join(to, name),
      text
        .replaceAll('{{HOST}}', origin)
        .replaceAll('{{CPCODE}}', cpCode)
        .replaceAll('{{AUTHKEY}}', authKey),
    );
  }
}
