// npm's clients in Chromium, on a page of another origin than the server: there CORS decides, which
// Node does not know.

import { after, before, test } from 'node:test';
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Stage } from '../lib/stage.mjs';

const CLIENTS = {
  'client 2': 'socket.io-client-2/dist/socket.io.js',
  'client 4': 'socket.io-client/dist/socket.io.js',
};
const OPTIONS = {
  'as it comes': {},
  'polling alone': { transports: ['polling'] },
  'websocket alone': { transports: ['websocket'] },
  'with credentials': { withCredentials: true },
  'with credentials, polling alone': { withCredentials: true, transports: ['polling'] },
  'with credentials and a header': {
    withCredentials: true,
    transports: ['polling'],
    extraHeaders: { 'x-app': '1' },
  },
  'client 2, with a header': {
    transports: ['polling'],
    transportOptions: { polling: { extraHeaders: { 'x-app': '1' } } },
  },
  'without credentials': { withCredentials: false, transports: ['polling'] },
};

let stage;
before(async () => {
  stage = await Stage.up('socketio-browser');
  for (const [name, path] of Object.entries(CLIENTS)) {
    const script = fs.readFileSync(
      fileURLToPath(new URL(`node_modules/${path}`, import.meta.url)),
      'utf8',
    );
    stage.pages.write(`${name.replace(' ', '-')}.js`, script);
    stage.pages.write(
      `${name.replace(' ', '-')}.html`,
      `<!doctype html><title>${name}</title><script src="${name.replace(' ', '-')}.js"></script>`,
    );
  }
});
after(() => stage?.down());

for (const client of Object.keys(CLIENTS)) {
  for (const [name, options] of Object.entries(OPTIONS)) {
    test(`${client}, ${name}`, async () => {
      const page = await stage.open(`${client.replace(' ', '-')}.html`);
      assert.notEqual(await page.evaluate(() => location.origin), stage.origin);
      const answer = await page.evaluate(
        ({ origin, o, license }) =>
          new Promise((resolve) => {
            const socket = io(origin, { ...o, forceNew: true, reconnection: false });
            for (const event of ['connect_error', 'error'])
              socket.on(event, (e) => resolve(`${event}: ${e?.message ?? e}`));
            socket.on('connect', () => {
              socket.emit('knowledgetalk', { eventOp: 'register', reqId: 'r', ...license }, (a) => {
                socket.disconnect();
                resolve(a.code);
              });
            });
          }),
        { origin: stage.origin, o: options, license: stage.license },
      );
      assert.equal(answer, '200', page.console.join('\n'));
      await page.page.close();
    });
  }
}
