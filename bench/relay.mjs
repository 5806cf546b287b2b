// Measures our relay and coturn with the same load, alternating. Prints medians and ratios as
// Markdown, and progress to standard error. Linux, as root: server and load run in two network
// namespaces, joined by a veth pair.
//
//   node relay.mjs [--rounds 5] [--duration 2s] [--shapes up,down,…] [--ours "COMMAND"]
//     [--coturn turnserver]
//
// The server has CPU 0 to itself, as far as the machine is quiet, and the load CPU 1. In COMMAND,
// {ip}, {port} and {secret} stand for the server's address, its port and a file that holds the
// secret of credentials.

import { spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus, release, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const here = dirname(fileURLToPath(import.meta.url));
const ieum = join(here, "../bin/ieum");
const ieumBench = join(here, "../bin/ieum-bench");
const ip = "10.88.0.1"; // of the server
const peer = "10.88.0.2";
const port = 3478;
// A relay limits clients by address and by network, so these use several.
const clients = Array.from({ length: 20 }, (_, i) => `10.88.${i + 1}.1`);

const { values: flags } = parseArgs({
  options: {
    rounds: { type: "string", default: "5" },
    duration: { type: "string", default: "2s" },
    shapes: { type: "string" },
    ours: {
      type: "string",
      default:
        `${ieum} relay --listen {ip}:{port} --stun-listen off --admin-listen off ` +
        "--relay-ip {ip} --relay-ports 20000-59999 --relay-allow-peer 10.0.0.0/8 " +
        "--relay-secret-file {secret} --relay-quota-total 100000 --relay-quota-per-license=-1 " +
        "--relay-bandwidth=-1 --relay-workers 1 --log-level warn",
    },
    coturn: { type: "string", default: "turnserver" },
  },
});

// A relay of its own uses 6/16 of its file descriptors for allocations. One is the probe's.
const limit = spawnSync("sh", ["-c", "ulimit -n"], { encoding: "utf8" }).stdout;
const files = Number(limit) || Infinity; // "unlimited"
const idle = Math.min(10_000, 1000 * Math.floor((6 * files / 16 - 1) / 1000));

// Goals, as ratios of our CPU to coturn's, or what is said here. `fixed` has two ways to be met:
// p50 is one way, in ms.
const fixed = [{ ratio: 0.7, p50: 0.9 }, { ratio: 0.86, p50: 0.5 }];
const all = [
  { key: "up", name: "up, bursts of 6", args: ["--shape", "up"], goal: [{ ratio: 0.55 }] },
  { key: "down", name: "down, bursts of 6", args: ["--shape", "down"], goal: [{ ratio: 0.55 }] },
  {
    key: "hairpin",
    name: "relay to relay, bursts of 6",
    args: ["--shape", "hairpin"],
    goal: [{ ratio: 0.33 }],
  },
  {
    key: "hairpin1",
    name: "relay to relay, every packet another allocation",
    args: ["--shape", "hairpin", "--burst", "1"],
    goal: [{ ratio: 0.33 }],
  },
  {
    key: "up1",
    name: "up, every packet another allocation",
    args: ["--shape", "up", "--burst", "1"],
    goal: [{ ratio: 0.9 }],
  },
  {
    key: "down1",
    name: "down, every packet another allocation",
    args: ["--shape", "down", "--burst", "1"],
    goal: [{ ratio: 0.9 }],
  },
  {
    key: "both20k",
    name: "both ways, 20,000 packets/s in all",
    args: ["--shape", "both", "--rate", "20000"],
    goal: fixed,
  },
  {
    key: "both40k",
    name: "both ways, 40,000 packets/s in all",
    args: ["--shape", "both", "--rate", "40000"],
    goal: fixed,
  },
  {
    key: "idle",
    name: `${idle.toLocaleString("en")} idle allocations`,
    args: ["--shape", "idle", "--allocations", String(idle)],
    idle: true,
    goal: [{ kb: 4 }],
  },
];
const rounds = Number(flags.rounds);
const wanted = flags.shapes?.split(",") ?? all.map((s) => s.key);
const shapes = all.filter((s) => wanted.includes(s.key));
if (!(Number.isInteger(rounds) && rounds >= 1 && rounds <= 100))
  throw new Error("--rounds takes a number from 1 to 100");
if (shapes.length !== wanted.length)
  throw new Error(`--shapes takes ${all.map((s) => s.key).join(", ")}`);
if (process.platform !== "linux" || process.getuid() !== 0)
  throw new Error("this needs Linux, and root to make network namespaces");
if (availableParallelism() < 2)
  throw new Error("this needs two CPUs, one for the server and one for the load");

// the secret is for this run alone
const secret = randomBytes(16).toString("hex");
const folder = mkdtempSync(join(tmpdir(), "ieum-bench-"));
const secretFile = join(folder, "secret");
writeFileSync(secretFile, secret, { mode: 0o600 });

const fill = (command) =>
  command
    .replaceAll("{ip}", ip)
    .replaceAll("{port}", port)
    .replaceAll("{secret}", secretFile)
    .split(/\s+/)
    .filter(Boolean);
const coturnVersion = spawnSync(flags.coturn, ["--version"], { encoding: "utf8" })
  .stdout?.trim()
  .split("\n")
  .at(-1);
if (!coturnVersion)
  throw new Error(`${flags.coturn} does not run; on Debian: apt-get install coturn`);
const servers = [
  { name: "Ieum", command: fill(flags.ours) },
  {
    name: `coturn ${coturnVersion}`,
    command:
      fill(`${flags.coturn} -n --no-tls --no-dtls --no-cli
      --no-stdout-log --log-file=/dev/null --simple-log --pidfile=/dev/null
      -L {ip} -E {ip} --listening-port={port} --min-port=20000 --max-port=59999 -m 1
      --lt-cred-mech --use-auth-secret --static-auth-secret=${secret} --realm=bench`),
  },
];

// Namespaces carry the number of the process that made them, so that those of one that was killed
// can be told and removed.
const prefix = "ieum-bench-relay-";
const [serverSide, loadSide] = ["s", "l"].map((side) => `${prefix}${process.pid}-${side}`);

function run(...command) {
  const { status, stderr, error } = spawnSync(command[0], command.slice(1), { encoding: "utf8" });
  if (status !== 0) throw new Error(`${command.join(" ")}: ${error ?? stderr}`);
}

function makeNetwork() {
  for (const name of existsSync("/run/netns") ? readdirSync("/run/netns") : []) {
    const maker = name.startsWith(prefix) && Number.parseInt(name.slice(prefix.length));
    if (maker && !existsSync(`/proc/${maker}`)) run("ip", "netns", "del", name);
  }
  run("ip", "netns", "add", serverSide);
  run("ip", "netns", "add", loadSide);
  run(
    "ip",
    "link",
    "add",
    "server",
    "netns",
    serverSide,
    "type",
    "veth",
    "peer",
    "name",
    "load",
    "netns",
    loadSide,
  );
  run("ip", "-n", serverSide, "addr", "add", `${ip}/16`, "dev", "server");
  for (const a of [peer, ...clients])
    run("ip", "-n", loadSide, "addr", "add", `${a}/16`, "dev", "load");
  // sockets whose port no server chose stay out of the range that it relays from
  run(
    "ip",
    "netns",
    "exec",
    serverSide,
    "sh",
    "-c",
    "echo 1024 19999 >/proc/sys/net/ipv4/ip_local_port_range",
  );
  for (const [side, device] of [
    [serverSide, "server"],
    [loadSide, "load"],
  ]) {
    for (const d of ["lo", device]) run("ip", "-n", side, "link", "set", d, "up");
  }
}

function removeNetwork() {
  // They may not be there yet.
  for (const name of [serverSide, loadSide]) spawnSync("ip", ["netns", "del", name]);
}

// A signal ends what runs, and with it this program, by way of its finally.
const stop = new AbortController();
for (const name of ["SIGINT", "SIGTERM", "SIGHUP"])
  process.on(name, () => stop.abort(new Error(name)));
const env = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !name.startsWith("IEUM_")),
); // the flags alone count

/**
 * Starts a command in a namespace, on one CPU. `ip` and `taskset` give way to it, so the process is
 * the command's own.
 */
function start(side, cpu, command, stdout) {
  const child = spawn("ip", ["netns", "exec", side, "taskset", "-c", String(cpu), ...command], {
    env,
    stdio: ["ignore", stdout, "pipe"],
  });
  const kill = () => child.kill("SIGTERM");
  stop.signal.addEventListener("abort", kill);
  child.said = "";
  child.stderr.on("data", (chunk) => (child.said = (child.said + chunk).slice(-2000)));
  child.ended = once(child, "close").finally(() => stop.signal.removeEventListener("abort", kill));
  child.ended.catch(() => {}); // reported where it is awaited
  return child;
}

/** Runs the load generator and returns its report, or nothing when it failed and may. */
async function load(args, mayFail = false) {
  const command = [
    ieumBench,
    "turn",
    "--server",
    `${ip}:${port}`,
    "--peer-ip",
    peer,
    "--relay-secret-file",
    secretFile,
  ];
  for (const c of clients) command.push("--client-ip", c);
  const child = start(loadSide, 1, [...command, ...args], "pipe");
  let out = "";
  child.stdout.on("data", (chunk) => (out += chunk));
  const [code] = await child.ended;
  stop.signal.throwIfAborted();
  if (code === 0) return JSON.parse(out);
  if (mayFail) return undefined;
  throw new Error(`the load failed (${code}) ${out}${child.said}`);
}

/** Starts a server, runs f with its process id, and stops it. */
async function withServer(server, f) {
  const child = start(serverSide, 0, server.command, "ignore");
  try {
    await serving(server, child);
    return await f(child.pid);
  } finally {
    child.kill("SIGTERM");
    const patience = setTimeout(() => child.kill("SIGKILL"), 10_000);
    await child.ended;
    clearTimeout(patience);
  }
}

/** Returns when the server has made an allocation. */
async function serving(server, child) {
  for (let i = 0; i < 50; i++) {
    if (child.exitCode !== null || child.signalCode !== null)
      throw new Error(`${server.name} ended: ${child.said}`);
    if (await load(["--shape", "idle", "--allocations", "1"], true)) return;
    await pause(100, undefined, { signal: stop.signal });
  }
  throw new Error(`${server.name} gives no allocation: ${child.said}`);
}

/** Measures everything; the reports, by shape and server. */
async function measure() {
  const results = new Map();
  for (let round = 0; round < rounds; round++) {
    for (const shape of shapes) {
      for (let i = 0; i < servers.length; i++) {
        const server = servers[(i + round) % servers.length]; // no server always comes first
        const times = shape.idle ? [] : ["--warm-up", "500ms", "--duration", flags.duration];
        const report = await withServer(server, (pid) =>
          load([...shape.args, ...times, "--pid", String(pid)]),
        );
        const key = `${shape.key} ${server.name}`;
        results.set(key, [...(results.get(key) ?? []), report]);
        console.error(
          `round ${round + 1}, ${server.name}, ${shape.name}: ${JSON.stringify(report)}`,
        );
      }
    }
  }
  return results;
}

function median(values) {
  const v = values.toSorted((a, b) => a - b);
  const mid = v.length >> 1;
  return v.length % 2 ? v[mid] : (v[mid - 1] + v[mid]) / 2;
}

const show = (n, digits) =>
  n.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

function spread(values, digits) {
  const range =
    values.length > 1
      ? ` (${show(Math.min(...values), digits)}–${show(Math.max(...values), digits)})`
      : "";
  return show(median(values), digits) + range;
}

const wish = (g) =>
  g.kb ? `≤ ${g.kb} KB` : `≤ ${g.ratio.toFixed(2)}×${g.p50 ? ` at ≤ ${g.p50} ms` : ""}`;

function row(shape, results) {
  const [ours, theirs] = servers.map((s) => results.get(`${shape.key} ${s.name}`));
  const of = (reports, get) => reports.map(get);
  const both = (get, digits, format = spread) =>
    [ours, theirs].map((r) => format(of(r, get), digits));
  const cost = shape.idle ? (r) => r.kbPerAllocation : (r) => r.cpuPerMillion;
  const p50 = median(of(ours, (r) => (r.p50us ?? 0) / 1000));
  const ratio = median(of(ours, cost)) / median(of(theirs, cost));
  const met = shape.goal.some((g) =>
    g.kb ? median(of(ours, cost)) <= g.kb : ratio <= g.ratio && (!g.p50 || p50 <= g.p50),
  );
  const middle = (values, digits) => show(median(values), digits);
  const pair = (get, digits) => (shape.idle ? "–" : both(get, digits, middle).join(" / "));
  return [
    shape.name,
    ...both(cost, 2),
    `${ratio.toFixed(2)}×`,
    `${shape.goal.map(wish).join(" or ")}: ${met ? "met" : "missed"}`,
    pair((r) => r.p50us / 1000, 2),
    pair((r) => r.p99us / 1000, 1),
    pair((r) => r.perSecond, 0),
    pair((r) => r.lossPercent, 2),
  ];
}

function print(results) {
  const [ours, theirs] = servers.map((s) => s.name);
  console.log(
    `${cpus().length} × ${cpus()[0].model}, Linux ${release()}; medians of ${rounds} alternating ` +
      `rounds of ${flags.duration} (lowest to highest), 1,100-byte`,
  );
  console.log(
    "packets, 100 allocations. CPU-seconds of the server for a million packets received at the " +
      "far end; for idle allocations KB of its",
  );
  console.log(
    `resident memory for each. Pairs are ${ours} / ${theirs}. Latency is one way, from send to ` +
      "arrival.\n",
  );
  for (const s of servers) {
    const command = s.command.join(" ").replaceAll(secret, "…").replaceAll(folder, "…");
    console.log(`- ${s.name}: \`${command.replaceAll(dirname(here), ".")}\``);
  }
  console.log(
    `\n| shape | ${ours} | ${theirs} | ratio | goal | p50 ms | p99 ms | packets/s | lost % |`,
  );
  console.log("|---|---|---|---|---|---|---|---|---|");
  for (const shape of shapes) console.log(`| ${row(shape, results).join(" | ")} |`);
}

try {
  makeNetwork();
  print(await measure());
} finally {
  removeNetwork();
  rmSync(folder, { recursive: true });
}
