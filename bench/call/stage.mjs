// Where calls are measured: a laboratory with a browser in each of two homes, and on its internet
// our server, the web pages of all contestants, what these need there, and our relay once more, for
// those that have none.

import { createHmac, randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Chromium } from "../../e2e/lib/chromium.mjs";
import { ALLOW, Lab } from "../../e2e/lib/lab.mjs";
import { Process } from "../../e2e/lib/process.mjs";
import { Server } from "../../e2e/lib/server.mjs";
import { IEUM, folder } from "../../e2e/lib/work.mjs";

const here = dirname(fileURLToPath(import.meta.url));
/** For so long browsers are left alone before they load pages whose loading is measured. */
const IDLE = 700;
const PORT = { ieum: 8080, peerjs: 9000, relay: 3479 };

export class Stage {
  #ends = [];
  #pairs = 0;

  /**
   * @param {{rtt: number, nat: string}} scene round trip in ms between any two of the three; what
   * both homes are behind
   */
  static async up(scene) {
    const { rtt, nat } = scene;
    const s = new Stage();
    s.scene = scene;
    s.dir = folder(`bench-call-${rtt}-${nat}`);
    try {
      s.lab = await Lab.up({ a: nat, b: nat, rtt: `${rtt}ms`, dir: s.dir });
      s.#ends.push(() => s.lab.down());
      await s.#startServer();
      s.#ends.push(() => s.server.stop());
      s.license = await s.server.license();
      await s.#startInternet();
      s.#ends.push(() => s.internet.stop());
      s.#startRelay();
      s.#ends.push(() => s.relay.stop());
      await s.relay.said(/relay is running/);
      const secure = [`http://${s.lab.server.v4}`];
      s.browsers = [];
      for (const { ns } of [s.lab.a, s.lab.b]) {
        const browser = await Chromium.start({ dir: s.dir, ns, secure, fps: 30, loopback: false });
        s.browsers.push(browser);
        s.#ends.push(() => browser.close());
      }
      return s;
    } catch (e) {
      await s.down().catch(() => {});
      throw e;
    }
  }

  /** Ends the server that a contestant's signaling goes over, without a word. */
  kill({ page }) {
    return page === "ieum" ? this.server.kill() : this.internet.kill();
  }

  /** Starts that server again; resolves when it listens. */
  restart({ page }) {
    return page === "ieum" ? this.#startServer() : this.#startInternet();
  }

  async #startServer() {
    const { ns, v4 } = this.lab.server;
    const args = ["--relay-ip", v4, ...ALLOW, "--relay-ports", "50000-59999"];
    this.server = await Server.start({
      dir: this.dir,
      ns,
      listen: `${v4}:${PORT.ieum}`,
      data: join(this.dir, "data"),
      args,
    });
  }

  async #startInternet() {
    const { ns, v4 } = this.lab.server;
    const argv = [
      process.execPath,
      join(here, "internet.mjs"),
      v4,
      String(PORT.peerjs),
      `http://${v4}:${PORT.ieum}`,
    ];
    this.internet = new Process(argv, { dir: this.dir, name: "internet", ns });
    await this.internet.said(/listening/);
  }

  #startRelay() {
    const { ns, v4 } = this.lab.server;
    this.secret = randomBytes(16).toString("hex"); // for this run alone
    const file = join(this.dir, "secret");
    writeFileSync(file, this.secret, { mode: 0o600 });
    const argv = [
      IEUM,
      "relay",
      "--listen",
      `${v4}:${PORT.relay}`,
      "--stun-listen",
      "off",
      "--admin-listen",
      "off",
      "--relay-ip",
      v4,
      "--relay-ports",
      "40000-49999",
      "--relay-secret-file",
      file,
      ...ALLOW,
    ];
    this.relay = new Process(argv, { dir: this.dir, name: "relay", ns });
  }

  /** For those that have no server of their own for it. */
  #iceServers(turn, id) {
    const at = `${this.lab.server.v4}:${PORT.relay}`;
    if (!turn) return [{ urls: `stun:${at}` }];
    const username = `${Math.floor(Date.now() / 1000) + 3600}:bench.${id}`;
    const credential = createHmac("sha1", this.secret).update(username).digest("base64");
    return [{ urls: `stun:${at}` }, { urls: `turn:${at}?transport=udp`, username, credential }];
  }

  /**
   * Opens a contestant's page in both homes, for a call of the first to the second; resolves with
   * the two pages, loaded and idle.
   * @param {{page: string, options?: object}} contestant
   * @param {{auto?: boolean, turn?: boolean, relayed?: boolean}} o auto: the call begins by itself
   *   as soon as it can; turn: the relay may
   *   be used (ours always may); relayed: it has to be
   */
  async pair({ page, options = {} }, { auto = false, turn = false, relayed = false } = {}) {
    const n = ++this.#pairs;
    const room = `room${n}`;
    const ids = [`a${n}`, `b${n}`];
    const common = { room, auto, relayed, options, port: PORT.peerjs, ...this.license };
    const blank = (i) => this.browsers[i].open("about:blank", { name: ids[i] });
    const load = (p, i, more) => {
      const own = {
        caller: i === 0,
        me: ids[i],
        other: ids[1 - i],
        iceServers: this.#iceServers(turn, ids[i]),
      };
      const config = JSON.stringify({ ...common, ...own, ...more });
      return p.goto(`http://${this.lab.server.v4}/${page}.html?${new URLSearchParams({ config })}`);
    };
    if (page === "ieum") {
      const maker = await blank(0);
      await load(maker, 0, { make: true, me: `m${n}` });
      await maker.until("having made a room", () => bench.made);
      await maker.page.context().close();
    }
    // Opening a tab takes the browser longer than the two may differ in beginning to load.
    const pages = await Promise.all([blank(0), blank(1)]);
    if (auto) await pause(IDLE);
    await Promise.all(pages.map((p, i) => load(p, i)));
    if (!auto) for (const p of pages) await p.until("loaded and idle", () => bench.ready());
    return pages;
  }

  async closePages() {
    for (const b of this.browsers) await b.closePages();
  }

  /** Ends everything, also when something of it cannot be ended. */
  async down() {
    const errors = [];
    for (const end of this.#ends.reverse())
      await Promise.resolve()
        .then(end)
        .catch((e) => errors.push(e));
    if (errors.length)
      throw new AggregateError(
        errors,
        `while ending: ${errors.map((e) => e.message).join("; ")} (see ${this.dir})`,
      );
  }
}
