// Measures three nodes of a cluster on this machine beside a server that stands alone. The setups
// alternate. Prints medians as Markdown, and progress to standard error.
//
//   node cluster.mjs [--rounds 3] [--conns 1000] [--messages 100000] [--latency-rate 1000]

import { spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
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
    conns: { type: "string", default: "1000" },
    messages: { type: "string", default: "100000" },
    "latency-rate": { type: "string", default: "1000" },
  },
});
const rounds = Number(flags.rounds);
if (!(rounds >= 1 && rounds <= 100)) throw new Error("--rounds takes 1 to 100");

// secrets of this run alone; the programs find them in the environment
const env = {
  ...process.env,
  IEUM_LICENSE_SIGNING_KEY: randomBytes(32).toString("hex"),
  IEUM_CLUSTER_SECRET: randomBytes(32).toString("hex"),
};
delete env.NODE_OPTIONS;

const patience = 30_000; // for a node to start, in ms

/** Starts a node and returns what it printed. It founds a cluster, or joins that of peer. */
async function start(name, clustered, peer) {
  const args = ["serve", "--listen", "127.0.0.1:0", "--stun-listen", "off"];
  args.push("--admin-listen", "127.0.0.1:0", "--relay-ip", "127.0.0.1", "--log-level", "error");
  args.push("--session-rate", "1000000", "--session-burst", "1000000");
  const own = { ...env };
  if (clustered)
    args.push("--node", name, "--cluster-listen", "127.0.0.1:0", "--cluster-expect", "3");
  else delete own.IEUM_CLUSTER_SECRET;
  if (peer) args.push("--cluster-peer", peer);
  const child = spawn(ieum, args, { env: own, stdio: ["ignore", "pipe", "inherit"] });
  const node = { pid: child.pid, child, ended: once(child, "exit") };
  const printed = new Promise((resolve) => {
    createInterface({ input: child.stdout }).on("line", (line) => {
      node.admin ??= /(http:\/\/[\d.:]+)\/metrics/.exec(line)?.[1];
      node.base ??= /(http:\/\/[\d.:]+)\/(?!metrics)/.exec(line)?.[1];
      node.peer ??= /--cluster-peer (\S+)/.exec(line)?.[1];
      if (node.base && node.admin && (node.peer || !clustered)) resolve(true);
    });
  });
  if ((await Promise.race([printed, node.ended])) !== true)
    throw new Error(`${name} ended before it listened`);
  return node;
}

/** Waits until a node admits users. */
async function ready({ admin }) {
  const deadline = Date.now() + patience;
  while (!(await fetch(`${admin}/readyz`).then((r) => r.ok, () => false))) {
    if (Date.now() > deadline) throw new Error(`${admin} is not ready`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function stop({ child, ended }) {
  child.kill("SIGKILL"); // measured; what a stop does is not of interest
  await ended;
}

/** Starts the nodes of a setup, runs the load and returns its report. */
async function measure({ nodes: count, second }) {
  const nodes = [];
  try {
    for (let i = 0; i < count; i++)
      nodes.push(await start(`n${i + 1}`, count > 1, nodes[0]?.peer));
    await Promise.all(nodes.map(ready));
    return await load(nodes, nodes[second]);
  } finally {
    await Promise.all(nodes.map(stop));
  }
}

async function load(nodes, second) {
  const url = ({ base }) => `${base.replace("http", "ws")}/signal`;
  const args = ["pair", "--url", url(nodes[0]), "--second-url", url(second)];
  args.push("--pid", nodes[0].pid, ...nodes.slice(1).flatMap(({ pid }) => ["--other-pid", pid]));
  for (const name of ["conns", "messages", "latency-rate"]) args.push(`--${name}`, flags[name]);
  const child = spawn(ieumBench, args.map(String), { env, stdio: ["ignore", "pipe", "inherit"] });
  let out = "";
  child.stdout.on("data", (chunk) => (out += chunk));
  const [code] = await once(child, "close");
  if (code !== 0) throw new Error(`the load failed (${code}) ${out}`);
  return JSON.parse(out);
}

const setups = [
  { name: "one server", nodes: 1, second: 0 },
  { name: "three nodes, both members on one", nodes: 3, second: 0 },
  { name: "three nodes, members on two", nodes: 3, second: 1 },
].map((setup) => ({ ...setup, reports: [] }));

for (let round = 0; round < rounds; round++) {
  for (let i = 0; i < setups.length; i++) {
    const setup = setups[(i + round) % setups.length]; // no setup always comes first
    const report = await measure(setup);
    setup.reports.push(report);
    console.error(`round ${round + 1}, ${setup.name}: ${JSON.stringify(report)}`);
  }
}

function median(values) {
  const v = values.toSorted((a, b) => a - b);
  const mid = v.length >> 1;
  return v.length % 2 ? v[mid] : (v[mid - 1] + v[mid]) / 2;
}

const columns = [
  ["CPU-s of all nodes per million messages", (r) => r.cpuPerMillion, 1],
  ["messages/s", (r) => r.perSecond, 0],
  [`p50 ms at ${flags["latency-rate"]}/s`, (r) => r.fixedRateP50us / 1000, 3],
  [`p99 ms at ${flags["latency-rate"]}/s`, (r) => r.fixedRateP99us / 1000, 2],
  ["KB of all nodes per idle connection", (r) => r.kbPerConn, 1],
  ["CPU-s of all nodes per 1,000 connects", (r) => r.cpuPer1kConnect, 2],
];
const show = (n, digits) =>
  n.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

console.log(
  `${cpus().length} × ${cpus()[0].model}; medians of ${rounds} alternating rounds (lowest to ` +
    `highest), ${flags.conns} connections,\n${flags.messages} messages of 1,500 bytes each time.\n`,
);
console.log(`| setup | ${columns.map(([name]) => name).join(" | ")} |`);
console.log(`|---|${columns.map(() => "---|").join("")}`);
for (const { name, reports } of setups) {
  const cells = columns.map(([, get, digits]) => {
    const all = reports.map(get);
    const [low, high] = [Math.min(...all), Math.max(...all)];
    return `${show(median(all), digits)} (${show(low, digits)}–${show(high, digits)})`;
  });
  console.log(`| ${name} | ${cells.join(" | ")} |`);
}

// claims of user ids, three nodes in one process: those that another node decides, one at a time;
// and 192 at a time
const bench = spawnSync(
  process.env.GO ?? "go",
  ["test", "-run", "^$", "-bench", "^BenchmarkClaims?$", "-benchtime", "5000x", "-count",
    String(rounds), "./internal/cluster"],
  { cwd: join(here, ".."), encoding: "utf8" },
);
if (bench.status !== 0) throw new Error(`claims: ${bench.stdout}${bench.stderr}`);
const values = (unit) => {
  const pattern = new RegExp(String.raw`([\d.]+) ${unit}`, "g");
  return [...bench.stdout.matchAll(pattern)].map((m) => Number(m[1]));
};
console.log(
  `\nA claim that another node decides: p50 ${show(median(values("p50-µs")) / 1000, 2)} ms, ` +
    `p99 ${show(median(values("p99-µs")) / 1000, 2)} ms. ` +
    `192 at a time: ${show(median(values("claims/s")), 0)} per second.`,
);
