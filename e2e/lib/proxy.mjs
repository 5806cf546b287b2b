// What stands in front of the server: a TCP proxy, a network that can be cut while both ends live
// on; and an HTTP proxy, that of a site that has the server under a path, or of a company that lets
// no WebSocket through.

import http from 'node:http';
import net from 'node:net';

/**
 * Ends a socket with a reset, so that the other end sees a broken connection and not a closed one.
 */
function reset(socket) {
  if (socket.destroyed) return;
  // Before it is connected there is nobody to tell; and one that is closing in good order cannot be
  // reset any more (Node 20 would never let go of it). A Unix socket knows no reset; it has no
  // remote address.
  if (socket.connecting || socket.writableEnded || !socket.remoteAddress) socket.destroy();
  else socket.resetAndDestroy();
}

export class Proxy {
  #pairs = new Set();
  #mode = 'pass';

  /**
   * @param {string} target host:port, or the path of a Unix socket; changeable later (a restarted
   *   server has
   * another port)
   */
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
    const unix = this.target.startsWith('/');
    const far = net.connect(
      unix
        ? { path: this.target }
        : { host: this.target.slice(0, i), port: Number(this.target.slice(i + 1)) },
    );
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

  /**
   * Nothing passes any more on the connections there are, but they stand: a network that vanished,
   * seen from both sides. New ones work.
   */
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

/** An HTTP proxy. What is asked for outside its path gets 404, as from a site's own web server. */
export class HttpProxy {
  /** What WebSocket upgrades get: 'pass', 'hang' (no answer), or a status. */
  upgrades = 'pass';
  /** Requests and upgrades as they came in: method, address. */
  seen = [];
  #sockets = new Set();
  #carried = new Set();

  /**
   * @param {string} target host:port. @param {string} [path] where the server is on this site,
   *   without a slash at
   * its end
   */
  static async listen(target, path = '') {
    const p = new HttpProxy();
    p.target = target;
    p.path = path;
    p.server = http.createServer((req, res) => p.#request(req, res));
    p.server.on('upgrade', (req, socket, head) => p.#upgrade(req, socket, head));
    p.server.on('connection', (socket) => {
      p.#sockets.add(socket.on('error', () => {}));
      socket.on('close', () => p.#sockets.delete(socket));
    });
    await new Promise((ready) => p.server.listen(0, '127.0.0.1', ready));
    p.origin = `http://127.0.0.1:${p.server.address().port}`;
    p.base = p.origin + path;
    return p;
  }

  /** A request on its way to the server; null outside the path. */
  #forward(req) {
    this.seen.push(`${req.method} ${req.url}`);
    if (!req.url.startsWith(`${this.path}/`)) return null;
    const [host, port] = this.target.split(':');
    return http.request({
      host,
      port,
      method: req.method,
      path: req.url.slice(this.path.length),
      headers: req.headers,
      agent: false,
    });
  }

  #request(req, res) {
    const far = this.#forward(req);
    if (!far) return res.writeHead(404).end('of the site itself');
    far.on('response', (answer) => {
      res.writeHead(answer.statusCode, answer.headers);
      answer.pipe(res);
      answer.on('error', () => res.destroy());
    });
    far.on('error', () => (res.headersSent ? res.destroy() : res.writeHead(502).end()));
    res.on('close', () => far.destroy());
    req.pipe(far);
  }

  #upgrade(req, near, head) {
    if (this.upgrades !== 'pass') this.seen.push(`${req.method} ${req.url}`);
    if (this.upgrades === 'hang') return;
    const far = this.upgrades === 'pass' && this.#forward(req);
    const no = (status) =>
      near.end(`HTTP/1.1 ${status} no\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);
    if (!far) return no(this.upgrades === 'pass' ? 404 : this.upgrades);
    const refuse = () => no(502);
    far
      .on('error', refuse)
      .on('response', refuse)
      .on('upgrade', (answer, socket, first) => {
        const headers = Object.entries(answer.headers)
          .map(([name, value]) => `${name}: ${value}\r\n`)
          .join('');
        near.write(`HTTP/1.1 101 Switching Protocols\r\n${headers}\r\n`);
        near.write(first);
        socket.write(head);
        this.#carried.add(near);
        near.on('close', () => (this.#carried.delete(near), socket.destroy()));
        socket.on('error', () => near.destroy()).on('close', () => near.destroy());
        near.pipe(socket).pipe(near);
      });
    far.end();
  }

  /** Lets no WebSocket through from now on, nor those there are. */
  block(how) {
    this.upgrades = how;
    for (const socket of this.#carried) reset(socket);
  }

  /** WebSockets there are. */
  get carried() {
    return this.#carried.size;
  }

  close() {
    for (const socket of this.#sockets) socket.destroy();
    return new Promise((done) => this.server.close(done));
  }
}
