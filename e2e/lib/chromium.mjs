// Chromium, Debian's own, headless with a fake camera; in a network namespace when asked.
//
// Most tests drive Debian's headless shell: Chromium's engine without its windows, for half the
// CPU. The whole browser runs in the network lab, and everywhere with CHROMIUM=/usr/bin/chromium.

import fs from 'node:fs';
import path from 'node:path';
import { chromium } from 'playwright-core';
import { chromiumHome } from './ca.mjs';
import { PATH } from './process.mjs';
import { LIMIT, until } from './wait.mjs';
import { ROOT } from './work.mjs';

const INJECT = path.join(ROOT, 'e2e', 'lib', 'rtc.inject.js');
const WHOLE = '/usr/bin/chromium';
const SHELL = '/usr/bin/chromium-headless-shell';

export class Chromium {
  /**
   * @param {{dir: string, ns?: string, secure?: string[], ca?: string, names?: [string, string],
   *   ask?: boolean, fps?: number, loopback?: boolean}} o
   * secure: plain HTTP origins where the camera is allowed all the same
   * ca: the only authority whose certificates are accepted; without it, all are
   * names: a host name and its address
   * ask: the camera is not allowed before ChromiumPage.allow(); until then addresses are hidden
   * fps: frames per second of the camera
   * loopback: calls may use the loopback interface, as calls within one machine must
   */
  static async start({ dir, ns, secure = [], ca, names, ask, fps = 15, loopback = true }) {
    // The shell knows neither certificates of the user nor origins that are treated as secure.
    const binary = process.env.CHROMIUM ?? (ca || secure.length > 0 ? WHOLE : SHELL);
    let executablePath = binary;
    if (ns) {
      // Playwright talks through a pipe on descriptors 3 and 4, which `ip netns exec` hands on: no
      // debugging port, no control network.
      executablePath = path.join(dir, `chromium-${ns}`);
      fs.writeFileSync(
        executablePath,
        `#!/bin/sh\nPATH="${PATH}"\nexec ip netns exec ${ns} ${binary} "$@"\n`,
        { mode: 0o755 },
      );
    }
    const flags = [
      '--no-sandbox',
      '--disable-gpu',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--disable-quic',
      `--use-fake-device-for-media-stream=fps=${fps}`,
      ...(ask ? [] : ['--use-fake-ui-for-media-stream']),
      '--autoplay-policy=no-user-gesture-required',
      // The calls of one machine must not depend on its having a network.
      ...(loopback ? ['--allow-loopback-in-peer-connection'] : []),
      // STUN and TURN servers are looked up with a dot at the end, and pages without.
      ...(names ? [`--host-resolver-rules=MAP ${names.join(' ')},MAP ${names.join('. ')}`] : []),
      ...(secure.length ? [`--unsafely-treat-insecure-origin-as-secure=${secure.join(',')}`] : []),
    ];
    const b = new Chromium();
    b.dir = dir;
    b.ns = ns;
    b.pages = [];
    b.strict = Boolean(ca);
    const home = ca ? { HOME: chromiumHome(dir, ns, ca) } : {};
    b.browser = await chromium.launch({
      executablePath,
      headless: true,
      args: flags,
      env: { ...process.env, PATH, ...home },
    });
    return b;
  }

  /**
   * A page in a profile of its own (another user), or beside `sibling` (the same user's next tab).
   */
  async open(url, { sibling, name = `page${this.pages.length}` } = {}) {
    const context =
      sibling?.page.context() ??
      (await this.browser.newContext({ ignoreHTTPSErrors: !this.strict }));
    if (!sibling) await context.addInitScript({ path: INJECT });
    const p = new ChromiumPage(this, await context.newPage(), name);
    await p.goto(url);
    return p;
  }

  /** Pictures of what was open, for a test that failed. */
  async keep() {
    for (const p of this.pages) {
      await p.page
        .screenshot({ path: path.join(this.dir, `${p.name}.png`), timeout: 5000 })
        .catch(() => {});
      fs.writeFileSync(path.join(this.dir, `${p.name}.console.txt`), p.console.join('\n'));
    }
  }

  async closePages() {
    for (const context of this.browser.contexts()) await context.close();
    this.pages = [];
  }

  close() {
    return this.browser.close();
  }
}

/**
 * One tab. Firefox's driver has the same methods, so that tests need not know which browser they
 * drive.
 */
export class ChromiumPage {
  constructor(browser, page, name) {
    this.page = page;
    this.name = name;
    this.console = [];
    /** Exceptions nobody caught. */
    this.errors = [];
    page.on('pageerror', (e) => this.errors.push(e.stack ?? String(e)));
    page.on('console', (m) => this.console.push(`${m.type()}: ${m.text()}`));
    page.setDefaultTimeout(LIMIT);
    browser.pages.push(this);
  }

  async goto(url) {
    // Chromium breaks navigations off while it still sees interfaces of a fresh namespace come up.
    for (let i = 0; ; i++) {
      try {
        await this.page.goto(url, { waitUntil: 'load' });
        return;
      } catch (e) {
        if (i === 5 || !/ERR_NETWORK_CHANGED/.test(String(e))) throw e;
      }
    }
  }

  evaluate(f, arg) {
    return this.page.evaluate(f, arg);
  }

  /**
   * Resolves with f(arg)'s value in the page (awaited, if it is a promise) as soon as that is
   * something true.
   */
  async until(what, f, arg, limit = LIMIT) {
    // Not waitForFunction: it takes the promise of an async function for its answer.
    const tried = async () => {
      try {
        return await this.page.evaluate(f, arg);
      } catch (e) {
        // Asked in the middle of a reload.
        if (/context was destroyed|navigat/i.test(String(e))) return false;
        throw e;
      }
    };
    const tail = () => `${this.name}: ${what}; console:\n${this.console.slice(-15).join('\n')}\n`;
    return until(tail, tried, limit, 50);
  }

  /** The user says yes to the camera. */
  allow() {
    return this.page.context().grantPermissions(['camera', 'microphone']);
  }

  close() {
    return this.page.close();
  }
}
