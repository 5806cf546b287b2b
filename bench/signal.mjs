// Measures our signaling server, over both of its transports, and three npm servers with the same
// load. The servers alternate. Prints medians and ratios as Markdown, and progress to standard
// error.
//
//   node signal.mjs [--rounds 3] [--conns 1000,10000] [--messages 100000] [--latency-rate 1000]
//     [--only ieum,ieum-socketio,peerjs,socketio,ws]

import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { cpus } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const here = dirname(fileURLToPath(import.meta.url));
const ieum = join(here, "../bin/ieum");
const ieumBench = join(here, "../bin/ieum-bench");
const { values: flags } = parseArgs({
  options: {
    rounds: { type: "string", default: "3" },
    conns: { type: "string", default: "1000,10000" },
    messages: { type: "string", default: "100000" },
    "latency-rate": { type: "string", default: "1000" },
    only: { type: "string", default: "ieum,ieum-socketio,peerjs,socketio,ws" },
  },
});
const rounds = Number(flags.rounds);
const sizes = flags.conns.split(",").map(Number);
if (!(rounds >= 1 && rounds <= 100) || !sizes.every((n) => Number.isInteger(n)))
  throw new Error("--rounds and --conns take numbers");

// the key is for this run alone: the server and the load generator find it in the environment
const env = {
  ...process.env,
  NODE_ENV: "production",
  IEUM_LICENSE_SIGNING_KEY: randomBytes(32).toString("hex"),
};
delete env.NODE_OPTIONS;
const version = (name) =>
  JSON.parse(readFileSync(join(here, "node_modules", name, "package.json"), "utf8")).version;

// session limits of a million, so that no session is closed for sending too much
const own = [
  ieum,
  "serve",
  "--listen",
  "127.0.0.1:0",
  "--stun-listen",
  "off",
  "--admin-listen",
  "off",
  "--relay-ip",
  "127.0.0.1",
  "--session-rate",
  "1000000",
  "--session-burst",
  "1000000",
];
const at = (path) => (line) =>
  /http:\/\/([\d.:]+)\//.exec(line)?.[1].replace(/^/, "ws://").concat(path);
const only = flags.only.split(",");

const servers = [
  { name: "Ieum", key: "ieum", protocol: "ieum", command: own, url: at("/signal") },
  {
    name: "Ieum over Socket.IO",
    key: "ieum-socketio",
    protocol: "ieum-socketio",
    command: own,
    url: at("/socket.io/"),
  },
  {
    name: `peer ${version("peer")} (PeerJS)`,
    key: "peerjs",
    protocol: "peerjs",
    command: ["node", join(here, "peerjs.mjs")],
    url: address,
  },
  {
    name: `socket.io ${version("socket.io")}`,
    key: "socketio",
    protocol: "socketio",
    command: ["node", join(here, "socketio.mjs")],
    url: address,
  },
  {
    name: `bare ws ${version("ws")}`,
    key: "ws",
    protocol: "peerjs",
    command: ["node", join(here, "ws.mjs")],
    url: address,
  },
].filter((s) => only.includes(s.key));
if (servers.length !== only.length)
  throw new Error("--only takes ieum, ieum-socketio, peerjs, socketio and ws");

function address(line) {
  return /^ws:\/\/\S+$/.exec(line)?.[0];
}

/** Starts a server, runs f with its process and address, and stops it. */
async function withServer(server, f) {
  const child = spawn(server.command[0], server.command.slice(1), {
    env,
    stdio: ["ignore", "pipe", "ignore"],
  });
  const ended = once(child, "exit");
  try {
    return await f(child.pid, await firstAddress(server, child, ended));
  } finally {
    child.kill("SIGTERM");
    const patience = setTimeout(() => child.kill("SIGKILL"), 10_000);
    await ended;
    clearTimeout(patience);
  }
}

async function firstAddress(server, child, ended) {
  const found = new Promise((resolve) => {
    createInterface({ input: child.stdout }).on("line", (line) => {
      const url = server.url(line);
      if (url) resolve(url);
    });
  });
  const url = await Promise.race([found, ended]);
  if (typeof url !== "string") throw new Error(`${server.name} ended before it listened`);
  return url;
}

/** Runs the load generator and returns its report. */
async function load(server, conns, pid, url) {
  const args = [
    "pair",
    "--protocol",
    server.protocol,
    "--url",
    url,
    "--pid",
    pid,
    "--conns",
    conns,
    "--messages",
    flags.messages,
    "--latency-rate",
    flags["latency-rate"],
  ];
  const child = spawn(ieumBench, args.map(String), { env, stdio: ["ignore", "pipe", "inherit"] });
  let out = "";
  child.stdout.on("data", (chunk) => (out += chunk));
  const [code] = await once(child, "close");
  if (code !== 0)
    throw new Error(`${server.name} with ${conns} connections: the load failed (${code}) ${out}`);
  return JSON.parse(out);
}

const results = new Map();
const reports = (server, conns) => results.get(`${server.key} ${conns}`);
for (let round = 0; round < rounds; round++) {
  for (const conns of sizes) {
    for (let i = 0; i < servers.length; i++) {
      const server = servers[(i + round) % servers.length]; // no server always comes first
      const report = await withServer(server, (pid, url) => load(server, conns, pid, url));
      const key = `${server.key} ${conns}`;
      results.set(key, [...(results.get(key) ?? []), report]);
      console.error(
        `round ${round + 1}, ${server.name}, ${conns} connections: ${JSON.stringify(report)}`,
      );
    }
  }
}

function median(values) {
  const v = values.toSorted((a, b) => a - b);
  const mid = v.length >> 1;
  return v.length % 2 ? v[mid] : (v[mid - 1] + v[mid]) / 2;
}

const columns = [
  ["connections", (r) => r.conns, 0],
  ["CPU-s per million messages", (r) => r.cpuPerMillion, 1, true],
  ["KB per idle connection", (r) => r.kbPerConn, 1, true],
  ["CPU-s per 1,000 connects", (r) => r.cpuPer1kConnect, 2, true],
  ["messages/s", (r) => r.perSecond, 0],
  ["p50 ms", (r) => r.p50us / 1000, 2],
  ["p99 ms", (r) => r.p99us / 1000, 1],
  [`p50 ms at ${flags["latency-rate"]}/s`, (r) => r.fixedRateP50us / 1000, 2, true],
  [`p99 ms at ${flags["latency-rate"]}/s`, (r) => r.fixedRateP99us / 1000, 1],
];

console.log(
  `${cpus().length} × ${cpus()[0].model}, Node ${process.version}; medians of ${rounds} ` +
    "alternating rounds (lowest to highest),",
);
console.log(
  `${Number(flags.messages).toLocaleString("en")} messages of 1,500 bytes each time. ` +
    "×: relative to ours.\n",
);
// the Socket.IO transport is compared only with the server of that protocol
table(servers.filter((s) => s.key !== "ieum-socketio"));
table(servers.filter((s) => s.key.endsWith("socketio")));

/** Prints the rows of some servers; the first is what the others are compared with. */
function table(rows) {
  if (rows.length === 0) return;
  console.log(`| server | ${columns.map(([name]) => name).join(" | ")} |`);
  console.log(`|---|${columns.map(() => "---|").join("")}`);
  for (const conns of sizes)
    for (const server of rows)
      console.log(`| ${server.name} | ${cells(server, rows[0], conns).join(" | ")} |`);
  console.log();
}

function cells(server, first, conns) {
  return columns.map(([, get, digits, compared], i) => {
    const values = reports(server, conns).map(get);
    const show = (n) =>
      n.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
    const m = median(values);
    if (i === 0) return show(m);
    const spread =
      compared && rounds > 1 ? ` (${show(Math.min(...values))}–${show(Math.max(...values))})` : "";
    const ratio =
      compared && server !== first
        ? `, ${(m / median(reports(first, conns).map(get))).toFixed(2)}×`
        : "";
    return `${show(m)}${spread}${ratio}`;
  });
}
