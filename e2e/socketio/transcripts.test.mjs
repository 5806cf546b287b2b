// The whole wire protocol, an operation at a time, by users on each transport: what everybody sends
// and gets is the golden file of the operation, transcripts/*.json, whichever client and transport
// it is. IEUM_RECORD=1 writes the files anew, from the WebSocket transport; then read each against
// docs/protocol.md.

import fs from 'node:fs';
import { after, before, test } from 'node:test';
import assert from 'node:assert/strict';
import { Server } from '../lib/server.mjs';
import { folder } from '../lib/work.mjs';
import { Stage } from './transcripts/stage.mjs';
import { SCENES } from './transcripts/scenes.mjs';
import { CLIENTS, TRANSPORTS } from './member.mjs';

const RECORD = Boolean(process.env.IEUM_RECORD);
const FOLDER = new URL('transcripts/', import.meta.url);
const golden = (name) => new URL(`${name.replaceAll(' ', '-')}.json`, FOLDER);

const ALL = { WebSocket: {} };
for (const [version, io] of Object.entries(CLIENTS)) {
  for (const [name, transports] of Object.entries(TRANSPORTS))
    ALL[`${version}, ${name}`] = { io, transports };
}

let server;
const stages = {};

before(async () => {
  // The window is so long that a lost session never leaves within a test. A stage marks what it has
  // seen with messages to users in no common room, of which the server takes a thirtieth of the
  // rate of all.
  const args = ['--resume-window', '10m', '--session-rate', '3000', '--session-burst', '30000'];
  server = await Server.start({ dir: folder('transcripts'), args });
  const license = await server.license();
  for (const [name, transport] of Object.entries(ALL))
    stages[name] = new Stage(server, license, transport);
});

after(async () => {
  for (const s of Object.values(stages)) s.close();
  const end = await server?.stop();
  assert.deepEqual(end, { code: 0, signal: null });
  assert.doesNotMatch(server.log, /eyJ[\w-]{10,}|panic|level=ERROR/);
});

for (const [name, scene] of Object.entries(SCENES)) {
  test(name, { concurrency: true }, async (t) => {
    const [first, ...others] = Object.keys(ALL);
    const on = (transport) => t.test(transport, async () => {
      const transcript = await stages[transport].play(scene);
      if (RECORD && transport === first) fs.writeFileSync(golden(name), transcript);
      assert.equal(transcript, fs.readFileSync(golden(name), 'utf8'));
    });
    if (RECORD) await on(first);
    await Promise.all((RECORD ? others : [first, ...others]).map(on));
  });
}

test('there is no golden file without a scene', () => {
  const files = fs.readdirSync(FOLDER).filter((f) => f.endsWith('.json'));
  assert.deepEqual(
    files.sort(),
    Object.keys(SCENES)
      .map((name) => golden(name).pathname.split('/').pop())
      .sort(),
  );
});
