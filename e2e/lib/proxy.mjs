// A TCP proxy in front of the server: a network that can be cut while both ends live on.

import net from 'node:net';

/** Ends a socket with a reset, so that the other end sees a broken connection and not a closed one. */
function reset(socket) {
  if (socket.destroyed) return;
  // Before it is connected there is nobody to tell; and one that is closing in good order cannot be reset any more (Node 20 would never
  // let go of it).
  if (socket.connecting || socket.writableEnded) socket.destroy();
  else socket.resetAndDestroy();
}

export class Proxy {
  #pairs = new Set();
  #mode = 'pass';

  /** @param {string} target host:port, changeable later (a restarted server has another port) */
  static async listen(target) {
    const p = new Proxy();
    p.target = target;
    p.server = net.createServer((near) => p.#accept(near));
    await new Promise((ready) => p.server.listen(0, '127.0.0.1', ready));
    p.host = `127.0.0.1:${p.server.address().port}`;
    p.origin = `http://${p.host}`;
    return p;
  }

  #accept(near) {
    near.on('error', () => {});
    if (this.#mode === 'refuse') {
      reset(near);
      return;
    }
    const i = this.target.lastIndexOf(':');
    const far = net.connect({ host: this.target.slice(0, i), port: Number(this.target.slice(i + 1)) });
    const pair = [near, far];
    this.#pairs.add(pair);
    for (const [from, to] of [[near, far], [far, near]]) {
      from.on('error', () => reset(to));
      from.on('close', () => {
        this.#pairs.delete(pair);
        to.destroy();
      });
      from.on('data', (d) => {
        if (!to.destroyed) to.write(d);
      });
      from.on('end', () => to.end());
    }
  }

  /** Resets every connection, on both sides, and lets no new one in until pass(). */
  cut() {
    this.#mode = 'refuse';
    for (const pair of this.#pairs) pair.forEach(reset);
  }

  /** Nothing passes any more on the connections there are, but they stand: a network that vanished, seen from both sides. New ones work. */
  hold() {
    for (const pair of this.#pairs) pair.forEach((s) => s.pause());
  }

  pass() {
    this.#mode = 'pass';
  }

  get connections() {
    return this.#pairs.size;
  }

  close() {
    this.cut();
    return new Promise((done) => this.server.close(done));
  }
}
