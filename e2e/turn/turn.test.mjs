// Foreign WebRTC stacks through `ieum relay`: libdatachannel (npm node-datachannel), werift and
// aiortc, among themselves and with each other. Only relayed candidates are exchanged, so all that
// the ends say to each other passes the relay.
//
// node-datachannel is built with libjuice, which knows TURN over UDP alone.

import { before, test } from 'node:test';
import assert from 'node:assert/strict';
import { createHmac, randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { authority } from '../lib/ca.mjs';
import { Process } from '../lib/process.mjs';
import { IEUM, folder } from '../lib/work.mjs';

const MESSAGES = 50;
const BYTES = MESSAGES * 1000; // at least, each way
const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const STACKS = {
  'node-datachannel': [process.execPath, here('stack.mjs'), 'node-datachannel'],
  werift: [process.execPath, here('stack.mjs'), 'werift'],
  aiortc: ['/usr/bin/python3', here('stack.py')],
};

const dir = folder('turn');
const secret = randomBytes(24).toString('base64');
const secretFile = join(dir, 'secret');
let certificates;

before(() => {
  writeFileSync(secretFile, secret, { mode: 0o600 });
  certificates = authority(dir, ['127.0.0.1']);
});

/**
 * A relay of the test's own: what it has relayed it says of all allocations when it ends, since not
 * every stack ends its own.
 */
async function startRelay(name) {
  const relay = new Process(
    [
      IEUM,
      'relay',
      '--listen',
      '127.0.0.1:0',
      '--stun-listen',
      'off',
      '--admin-listen',
      'off',
      '--relay-ip',
      '127.0.0.1',
      '--relay-allow-peer',
      '127.0.0.0/8',
      '--relay-secret-file',
      secretFile,
      '--tls-cert',
      certificates.cert,
      '--tls-key',
      certificates.key,
    ],
    { dir, name },
  );
  [, relay.port] = await relay.said(/port (\d+), relayed addresses/);
  return relay;
}

let sessions = 0;

/**
 * ICE servers for a session of its own, whose credentials are made as a TURN REST service makes
 * them.
 */
function servers(port, transport) {
  const username = `${Math.floor(Date.now() / 1000) + 600}:tenant.s${++sessions}`;
  const credential = createHmac('sha1', secret).update(username).digest('base64');
  const urls = {
    udp: `turn:127.0.0.1:${port}?transport=udp`,
    tcp: `turn:127.0.0.1:${port}?transport=tcp`,
    tls: `turns:127.0.0.1:${port}?transport=tcp`,
  };
  return [{ urls: urls[transport], username, credential }];
}

/** One end of a call. */
class End {
  #said = 0;

  constructor(stack, name) {
    this.name = name;
    this.process = new Process(STACKS[stack], {
      dir,
      name,
      stdin: 'pipe',
      env: { NODE_EXTRA_CA_CERTS: certificates.ca, SSL_CERT_FILE: certificates.ca },
    });
  }

  tell(what) {
    this.process.child.stdin.write(`${JSON.stringify(what)}\n`);
  }

  /** The next line that it says. */
  async says() {
    const [, line] = await this.process.said(
      new RegExp(`^(?:\\{.*\\}\\r?\\n){${this.#said}}(\\{.*\\})\\r?\\n`),
    );
    this.#said++;
    return JSON.parse(line);
  }

  async close() {
    this.tell({ do: 'close' });
    this.process.child.stdin.end();
    assert.deepEqual(
      await this.process.gone,
      { code: 0, signal: null },
      `${this.name}: ${this.process.output.slice(-2000)}`,
    );
  }
}

const candidates = (sdp) => sdp.match(/a=candidate:.*/g) ?? [];
/** Allocations that have ended, as the relay's log tells them. */
const ended = (relay) =>
  [
    ...relay.output.matchAll(
      /relay allocation ended.*transport=(\w+).*upBytes=(\d+) downBytes=(\d+)/g,
    ),
  ].map(([, transport, up, down]) => ({ transport, up: Number(up), down: Number(down) }));

for (const [one, other, transports] of [
  ['node-datachannel', 'node-datachannel', ['udp']],
  ['werift', 'werift', ['udp', 'tcp', 'tls']],
  ['aiortc', 'aiortc', ['udp', 'tcp', 'tls']],
  ['node-datachannel', 'werift', ['udp']],
  ['werift', 'aiortc', ['udp']],
  ['aiortc', 'node-datachannel', ['udp']],
]) {
  for (const transport of transports) {
    test(`${one} calls ${other}, both relayed over ${transport}`, async (t) => {
      const call = `${one}-${other}-${transport}`;
      const relay = await startRelay(`relay-${call}`);
      const [a, b] = [new End(one, `${call}-calls`), new End(other, `${call}-answers`)];
      // Of a test that has failed, they would go on.
      t.after(() => Promise.all([a.process, b.process, relay].map((p) => p.kill('SIGKILL'))));
      a.tell({ do: 'offer', servers: servers(relay.port, transport) });
      const offer = await a.says();
      b.tell({ do: 'answer', servers: servers(relay.port, transport), sdp: offer.sdp });
      const answer = await b.says();
      for (const { sdp } of [offer, answer]) {
        assert.ok(candidates(sdp).length > 0, 'a relayed candidate');
        for (const c of candidates(sdp)) assert.match(c, / typ relay/);
      }
      a.tell({ do: 'accept', sdp: answer.sdp });
      assert.deepEqual(await a.says(), { echoed: MESSAGES });
      for (const end of [a, b]) {
        end.tell({ do: 'pair' });
        assert.deepEqual(await end.says(), { local: 'relay', remote: 'relay' }, end.name);
      }
      await a.close();
      await b.close();
      assert.deepEqual(await relay.stop(), { code: 0, signal: null });
      assert.doesNotMatch(relay.output, /panic|level=ERROR/);
      const mine = ended(relay);
      assert.deepEqual(mine.map((m) => m.transport), [transport, transport]);
      // Each message goes there and back, through both allocations.
      for (const { up, down } of mine)
        assert.ok(
          up >= BYTES && down >= BYTES,
          `an allocation has passed ${up} bytes up and ${down} down`,
        );
    });
  }
}
