// The network laboratory (netlab) from a test's side.

import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import { PATH, Process } from './process.mjs';
import { NETLAB } from './work.mjs';
import { within } from './wait.mjs';

/**
 * The laboratory's addresses are of the documentation ranges, which the relay refuses unless told
 * otherwise.
 */
export const ALLOW = ['198.51.100.0/24', '203.0.113.0/24', '2001:db8::/32'].flatMap((net) => [
  '--relay-allow-peer',
  net,
]);

/** Runs a program of the system to its end and returns what it says. */
export const run = ([program, ...args], options) =>
  execFileSync(program, args, { env: { ...process.env, PATH }, encoding: 'utf8', ...options });

/** Has rules taken in a namespace. */
export const nft = (ns, rules) =>
  run(['ip', 'netns', 'exec', ns, 'nft', '-f', '-'], { input: rules });

/**
 * Nothing passes between two homes any more, or nothing from b to a; what comes from the server
 * does.
 */
export function cut(a, b, oneWay = false) {
  for (const [x, y] of oneWay
    ? [[a, b]]
    : [
        [a, b],
        [b, a],
      ]) {
    nft(
      x.ns,
      `table ip cut { chain arriving {
        type filter hook input priority 0; ip saddr ${y.public} drop;
      }
      }`,
    );
  }
}

/** Ends what cut() began. */
export const restore = (...ends) =>
  ends.forEach(({ ns }) => nft(ns, 'table ip cut\ndelete table ip cut'));

/**
 * Gives a client another address of its network, as a new lease would: each time the other one of
 * two.
 */
export function readdress(ns) {
  const ip = (...args) => run(['ip', '-n', ns, ...args]);
  const [, device, old] = /^\d+: (\S+) +inet (\S+) /m.exec(
    ip('-o', '-4', 'addr', 'show', 'scope', 'global'),
  );
  const [, gateway] = /^default via (\S+)/m.exec(ip('-4', 'route'));
  ip('addr', 'del', old, 'dev', device);
  ip('addr', 'add', old.replace(/\.\d+\//, old.includes('.77/') ? '.78/' : '.77/'), 'dev', device);
  ip('route', 'replace', 'default', 'via', gateway);
}

/**
 * Why the laboratory cannot stand here; null when it can. As root on Linux it must: what is missing
 * there is a fault, not an excuse.
 */
export function labMissing() {
  if (process.platform !== 'linux') return 'network namespaces need Linux';
  if (process.geteuid() !== 0) return 'network namespaces need root';
  for (const tool of ['ip', 'nft']) {
    try {
      run(['sh', '-c', `command -v ${tool}`], { stdio: 'ignore' });
    } catch {
      throw new Error(`${tool} is missing; install what e2e/packages.txt lists`);
    }
  }
  if (!fs.existsSync('/dev/net/tun')) throw new Error('/dev/net/tun is missing');
  return null;
}

export class Lab {
  /**
   * @param {{a?: string, b?: string, rtt?: string, tcpPorts?: string, dir: string}} o as netlab's
   * flags
   */
  static async up({ a = 'cone', b = 'cone', rtt = '20ms', tcpPorts = '80,443', dir }) {
    const lab = new Lab();
    const argv = [NETLAB, 'up', '--a', a, '--b', b, '--rtt', rtt, '--tcp-ports', tcpPorts];
    // Its standard input is this process's: if the tests die, the laboratory goes with them.
    lab.process = new Process(argv, { dir, name: 'netlab', stdin: 'pipe' });
    const [line] = await lab.process.said(/^\{.*\}$/m);
    Object.assign(lab, JSON.parse(line));
    return lab;
  }

  /**
   * Changes a cable ("a", "b" or "srv"): set({link: 'srv', set: {down: 'true'}}); resolves with its
   * state and counters.
   */
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
    if (end.code !== 0)
      throw new Error(`netlab ended with ${JSON.stringify(end)}, see ${this.process.logFile}`);
  }
}
