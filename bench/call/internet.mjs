// What the contestants' pages need on the internet: a web server on port 80 that serves the pages
// and the libraries and, for simple-peer, hands the messages of two sockets to each other; and
// PeerJS's own server. Arguments: address to listen on, PeerJS's port, Ieum's origin.

import { readFile, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { basename, dirname, extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { PeerServer } from "peer";
import { WebSocketServer } from "ws";

const [host, port, ieum] = process.argv.slice(2);
const here = dirname(fileURLToPath(import.meta.url));
const { resolve } = createRequire(import.meta.url);
// Compressed, as our server sends its own: over a long path that saves round trips.
const library = (file) => gzipSync(readFileSync(file));
const libraries = {
  "peerjs.min.js": library(join(dirname(resolve("peerjs/package.json")), "dist/peerjs.min.js")),
  "simplepeer.min.js": library(resolve("simple-peer/simplepeer.min.js")),
};
const types = { ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8" };

const web = createServer((req, res) => {
  const name = basename(new URL(req.url, "http://x").pathname);
  // Nothing is kept, so that every page load is a first one.
  const headers = {
    "content-type": types[extname(name)] ?? "text/plain",
    "cache-control": "no-store",
  };
  if (libraries[name])
    return res.writeHead(200, { ...headers, "content-encoding": "gzip" }).end(libraries[name]);
  readFile(join(here, "pages", name), (error, body) => {
    res.writeHead(error ? 404 : 200, headers);
    res.end(error ? "" : name.endsWith(".html") ? String(body).replaceAll("{{IEUM}}", ieum) : body);
  });
});

const rooms = new Map(); // by the query of the address: the sockets that are open, two at most
new WebSocketServer({ server: web, path: "/room" }).on("connection", (socket, req) => {
  const name = new URL(req.url, "http://x").search;
  const room = rooms.get(name) ?? new Set();
  if (room.size === 2) return socket.close();
  rooms.set(name, room.add(socket));
  const others = () => [...room].filter((s) => s !== socket);
  for (const other of others()) for (const s of [other, socket]) s.send('{"met":true}');
  socket.on("message", (data) => others().forEach((s) => s.send(String(data))));
  socket.on("close", () => {
    room.delete(socket);
    if (room.size === 0) rooms.delete(name);
  });
});

web.listen(80, host, () => {
  PeerServer({ host, port: Number(port), path: "/" }, () => console.log("listening"));
});
