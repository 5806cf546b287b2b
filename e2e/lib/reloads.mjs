// A page whose address holds its room, taken through what people do with addresses: reload, follow
// an old link, reload together.

import assert from 'node:assert/strict';

const LINK = /^#K[0-9A-HJKMNP-TV-Z]{12}$/;

/**
 * @param {(hash: string, name: string) => Promise<import('./chromium.mjs').ChromiumPage>} open the
 *   page with this end of its address
 * @param {string} remote selector of the video elements that show others
 */
export async function survivesReloads(open, remote) {
  const alone = (p) =>
    p.until('alone', (s) => [...document.querySelectorAll(s)].every((v) => !v.srcObject), remote);
  const host = await open('', 'host');
  const hash = await host.until('in its room', () => location.hash);
  assert.match(hash, LINK);

  // Its room has ended when it asks for it again.
  await host.page.reload();
  const guest = await open(hash, 'guest');
  await inACall(host, guest, remote);

  for (const [gone, stays] of [[guest, host], [host, guest]]) {
    await gone.page.reload();
    await inACall(host, guest, remote);
    assert.equal(
      await stays.evaluate((s) => document.querySelectorAll(s).length, remote),
      1,
      'one box for one other',
    );
  }
  await Promise.all([host.page.reload(), guest.page.reload()]);
  await inACall(host, guest, remote);
  await guest.close();
  await alone(host);
  await host.close();

  // Yesterday's link.
  const [first, second] = await Promise.all([open(hash, 'first'), open(hash, 'second')]);
  await inACall(first, second, remote);
  for (const p of [first, second]) {
    assert.equal(await p.evaluate(() => location.hash), hash);
    await p.close();
  }
  for (const p of [host, guest, first, second]) {
    assert.deepEqual(p.errors, [], p.name);
    assert.deepEqual(p.console.filter((line) => /^(error|warning):/.test(line)), [], p.name);
  }
}

/** Resolves when each shows the other's video, and hears sound of it, on one connection. */
async function inACall(a, b, remote) {
  for (const p of [a, b]) {
    await p.until(
      'seeing and hearing the other',
      async (s) => {
        const reports = await Promise.all(e2e.open().map(e2e.report));
        const audible = reports.some((r) => r.video.decoded > 10 && r.audio.received > 10);
        return (
          audible && [...document.querySelectorAll(s)].some((v) => !v.muted && e2e.frames(v) > 10)
        );
      },
      remote,
    );
  }
}
