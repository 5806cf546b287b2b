// The process beside Firefox, see firefox.mjs: one JSON command a line on standard input, one JSON
// answer a line on standard output. Firefox ends when standard input does.

import readline from 'node:readline';
import puppeteer from 'puppeteer-core';

const browser = await puppeteer.launch({
  browser: 'firefox',
  executablePath: process.env.FIREFOX ?? '/usr/bin/firefox-esr',
  headless: true,
  // With a profile of its own it takes what the profile trusts, and nothing else.
  acceptInsecureCerts: !process.env.FIREFOX_PROFILE,
  ...(process.env.FIREFOX_PROFILE ? { userDataDir: process.env.FIREFOX_PROFILE } : {}),
  env: { ...process.env, MOZ_DISABLE_CONTENT_SANDBOX: '1' },
  extraPrefsFirefox: {
    'media.navigator.streams.fake': true,
    'media.navigator.permission.disabled': true,
    'media.devices.insecure.enabled': true,
    'media.getusermedia.insecure.enabled': true,
    'dom.securecontext.allowlist': process.env.FIREFOX_SECURE ?? '',
    'media.autoplay.default': 0,
    'network.dns.forceResolve': process.env.FIREFOX_RESOLVE ?? '',
    'network.connectivity-service.enabled': false,
    'network.captive-portal-service.enabled': false,
  },
});

const pages = new Map();
let made = 0;

const commands = {
  start: () => browser.version(),
  async open({ inject }) {
    const page = await browser.newPage();
    const id = ++made;
    page.on('console', (m) => process.stderr.write(`page ${id} ${m.type()}: ${m.text()}\n`));
    page.on('pageerror', (e) => process.stderr.write(`page ${id} error: ${e.stack ?? e}\n`));
    await page.evaluateOnNewDocument(inject);
    pages.set(id, page);
    return id;
  },
  goto: async ({ page, url }) => void (await pages.get(page).goto(url, { waitUntil: 'load' })),
  evaluate: ({ page, f, arg }) => pages.get(page).evaluate(`(${f})(${JSON.stringify(arg)})`),
  screenshot: async ({ page, path }) => void (await pages.get(page).screenshot({ path })),
  async close({ page }) {
    await pages.get(page).close();
    pages.delete(page);
  },
};

const running = new Set();
for await (const line of readline.createInterface({ input: process.stdin })) {
  const m = JSON.parse(line);
  const work = Promise.resolve()
    .then(() => commands[m.do](m))
    .then(
      (value) => ({ id: m.id, value: value ?? null }),
      (e) => ({ id: m.id, error: e.message ?? String(e) }),
    )
    .then((answer) => process.stdout.write(`${JSON.stringify(answer)}\n`))
    .finally(() => running.delete(work));
  running.add(work);
}
await browser.close();
await Promise.all(running);
