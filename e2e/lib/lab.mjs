// The network laboratory (netlab) from a test's side.

import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import { PATH, Process } from './process.mjs';
import { NETLAB } from './work.mjs';
import { within } from './wait.mjs';

/**
 * Why the laboratory cannot stand here; null when it can. As root on Linux it must: what is missing there is a fault, not an excuse.
 */
export function labMissing() {
  if (process.platform !== 'linux') return 'network namespaces need Linux';
  if (process.geteuid() !== 0) return 'network namespaces need root';
  for (const tool of ['ip', 'nft']) {
    try {
      execFileSync('sh', ['-c', `command -v ${tool}`], { env: { ...process.env, PATH }, stdio: 'ignore' });
    } catch {
      throw new Error(`${tool} is missing; install what e2e/packages.txt lists`);
    }
  }
  if (!fs.existsSync('/dev/net/tun')) throw new Error('/dev/net/tun is missing');
  return null;
}

export class Lab {
  /** @param {{a?: string, b?: string, rtt?: string, tcpPorts?: string, dir: string}} o as netlab's flags */
  static async up({ a = 'cone', b = 'cone', rtt = '20ms', tcpPorts = '80,443', dir }) {
    const lab = new Lab();
    const argv = [NETLAB, 'up', '--a', a, '--b', b, '--rtt', rtt, '--tcp-ports', tcpPorts];
    // Its standard input is this process's: if the tests die, the laboratory goes with them.
    lab.process = new Process(argv, { dir, name: 'netlab', stdin: 'pipe' });
    const [line] = await lab.process.said(/^\{.*\}$/m);
    Object.assign(lab, JSON.parse(line));
    return lab;
  }

  /** Changes a cable ("a", "b" or "srv"): set({link: 'srv', set: {down: 'true'}}); resolves with its state and counters. */
  set(request) {
    const answer = new Promise((resolve, reject) => {
      const socket = net.connect(this.control);
      let text = '';
      socket.setEncoding('utf8');
      socket.on('error', reject);
      socket.on('connect', () => socket.write(`${JSON.stringify(request)}\n`));
      socket.on('data', (chunk) => {
        text += chunk;
        if (!text.includes('\n')) return;
        socket.destroy();
        const reply = JSON.parse(text);
        if (reply.error) reject(new Error(reply.error));
        else resolve(reply);
      });
    });
    return within('answered by netlab', answer);
  }

  async down() {
    this.process.child.stdin.end();
    const end = await this.process.gone;
    if (end.code !== 0) throw new Error(`netlab ended with ${JSON.stringify(end)}, see ${this.process.logFile}`);
  }
}
