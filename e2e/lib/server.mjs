// The server as users start it: the built binary.

import fs from 'node:fs';
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { PATH, Process } from './process.mjs';
import { IEUM } from './work.mjs';

export class Server {
  /**
   * @param {{dir: string, ns?: string, listen?: string, args?: string[], name?: string,
   *   data?: string, ca?: string}} o
   * data: a folder that outlasts a restart, and with it licenses and resume tokens
   * ca: the authority of the server's certificate (see ca.mjs)
   */
  static async start({ dir, ns, listen = '127.0.0.1:0', args = [], name = 'ieum', data, ca }) {
    if (!fs.existsSync(IEUM)) throw new Error(`${IEUM} is missing; run make first`);
    const s = new Server();
    s.ns = ns;
    s.ca = ca;
    // Of one machine's namespace servers must not share a fixed port; in one of their own they have
    // it.
    const ports = ns ? [] : ['--stun-listen', '127.0.0.1:0', '--admin-listen', 'off'];
    const argv = [
      IEUM,
      'serve',
      '--dev',
      '--listen',
      listen,
      ...ports,
      ...(data ? ['--data', data] : []),
      ...args,
    ];
    s.process = new Process(argv, { dir, name, ns });
    // The first address is the one to open.
    const [origin] = await s.process.said(/https?:\/\/[^\s"/]+/);
    s.origin = origin;
    s.host = new URL(origin).host;
    return s;
  }

  /** A GET from where the server is, as text. */
  async get(route) {
    if (!this.ns) {
      const res = await fetch(this.origin + route);
      if (!res.ok) throw new Error(`${route}: ${res.status}`);
      return res.text();
    }
    const code =
      'fetch(process.argv[1]).then(async (r) => { if (!r.ok) throw new Error(r.status); ' +
      'process.stdout.write(await r.text()) })';
    const argv = ['netns', 'exec', this.ns, process.execPath, '-e', code, this.origin + route];
    const env = { ...process.env, PATH, ...(this.ca ? { NODE_EXTRA_CA_CERTS: this.ca } : {}) };
    return (await promisify(execFile)('ip', argv, { encoding: 'utf8', env })).stdout;
  }

  /** @returns {Promise<{cpCode: string, authKey: string}>} */
  async license() {
    return JSON.parse(await this.get('/dev/license'));
  }

  /** What it has logged. */
  get log() {
    return this.process.output;
  }

  kill() {
    return this.process.kill('SIGKILL');
  }

  stop() {
    return this.process.stop();
  }
}

