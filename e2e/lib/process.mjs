// Child processes that are waited for by what they say and ended by their own handle.

import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { LIMIT, within } from './wait.mjs';

/** ip and nft are not in an ordinary user's path on Debian. */
export const PATH = `${process.env.PATH}:/usr/sbin:/sbin`;

/** How long a process may take to end by itself after SIGTERM. */
const GRACE = 10_000;

export class Process {
  #waiting = new Set();
  #text = '';

  /**
   * @param {string[]} argv
   * @param {{ns?: string, dir: string, name: string, env?: object, stdin?: 'pipe' | 'ignore'}} o
   *   ns: network namespace to run in; dir: where the log goes, as name.log
   */
  constructor(argv, { ns, dir, name, env = {}, stdin = 'ignore' }) {
    const all = ns ? ['ip', 'netns', 'exec', ns, ...argv] : argv;
    this.name = name;
    this.logFile = path.join(dir, `${name}.log`);
    this.#text = '';
    const log = fs.createWriteStream(this.logFile, { flags: 'a' });
    // `ip netns exec` becomes the program itself, so that the handle is the program's.
    this.child = spawn(all[0], all.slice(1), {
      stdio: [stdin, 'pipe', 'pipe'],
      env: { ...process.env, PATH, ...env },
    });
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream.setEncoding('utf8');
      stream.on('data', (chunk) => {
        log.write(chunk);
        this.#text += chunk;
        for (const look of this.#waiting) look();
      });
    }
    /**
     * Resolves with {code, signal} when the process is gone and everything it said has been read.
     */
    this.gone = new Promise((resolve) => {
      this.child.on('error', (error) => resolve({ error }));
      this.child.on('close', (code, signal) => resolve({ code, signal }));
    }).then((end) => {
      this.ended = end;
      for (const look of this.#waiting) look();
      return new Promise((closed) => log.end(() => closed(end)));
    });
  }

  /** Everything said so far, on both outputs. */
  get output() {
    return this.#text;
  }

  /** Resolves with the match when the output matches; rejects when the process ends without. */
  said(pattern, limit = LIMIT) {
    let look;
    const answer = new Promise((resolve, reject) => {
      look = () => {
        const m = pattern.exec(this.#text);
        if (m) resolve(m);
        else if (this.ended) {
          reject(
            new Error(
              `${this.name} ended with ${JSON.stringify(this.ended)} without saying ${pattern}:\n` +
                this.#text.slice(-2000),
            ),
          );
        }
      };
      this.#waiting.add(look);
      look();
    });
    return within(`${this.name} saying ${pattern} (log: ${this.logFile})`, answer, limit).finally(
      () => this.#waiting.delete(look),
    );
  }

  /** CPU-seconds it has used so far; undefined where there is no /proc. */
  get cpu() {
    if (!fs.existsSync(`/proc/${this.child.pid}/stat`)) return undefined;
    // After the name in parentheses; fields 14 and 15 of proc(5), in hundredths of a second on
    // every Linux that browsers run on.
    const fields = fs
      .readFileSync(`/proc/${this.child.pid}/stat`, 'utf8')
      .replace(/^.*\) /, '')
      .split(' ');
    return (Number(fields[11]) + Number(fields[12])) / 100;
  }

  kill(signal = 'SIGKILL') {
    this.child.kill(signal);
    return this.gone;
  }

  /** Ends it in good order; resolves with how it ended. */
  async stop() {
    if (this.ended) return this.ended;
    this.child.kill('SIGTERM');
    const timer = setTimeout(() => this.child.kill('SIGKILL'), GRACE);
    const end = await this.gone;
    clearTimeout(timer);
    return end;
  }
}
