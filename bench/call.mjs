// Measures calls in real browsers, ours against PeerJS and simple-peer in turn, and prints medians
// and ratios as Markdown: how soon the first picture comes, and how long it stands still when
// something breaks. Progress goes to standard error. Linux, as root: the two browsers are in homes
// of their own, behind port-restricted NATs, in e2e's laboratory.
//
//   node call.mjs [--rounds 7] [--cases warm,cold,cut]

import { cpus, loadavg, release } from "node:os";
import { readFileSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Stage } from "./call/stage.mjs";
import { address, away, close, cut, load, start } from "./call/cases.mjs";
import { labMissing } from "../e2e/lib/lab.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const version = (name) =>
  JSON.parse(readFileSync(join(here, "node_modules", name, "package.json"), "utf8")).version;

const ieum = { name: "Ieum", page: "ieum" };
const cold = { name: "Ieum, cold", page: "ieum", options: { warmPeers: 0 } };
const peerjs = { name: "PeerJS", page: "peerjs" };
const simple = { name: "simple-peer", page: "simple-peer" };

const FAR = { rtt: 100, nat: "cone" };
const NEAR = { rtt: 50, nat: "cone" };
const RELAYED = { rtt: 50, nat: "sym" };

// A row of the table: what of a run it shows, and the goal, as a ratio to PeerJS or in ms (of the
// median, and p95). Rows of one run in one scene share it.
const all = [
  {
    key: "warm",
    name: "publishP2P → first picture, warm pair, RTT 100 ms",
    scene: FAR,
    run: start,
    ours: ieum,
    peers: [peerjs, simple],
    value: "first",
    goal: { ratio: 0.22 },
  },
  {
    key: "cold",
    name: "the same, cold pair (`warmPeers: 0`)",
    scene: FAR,
    run: start,
    ours: cold,
    peers: [peerjs, simple],
    value: "first",
    goal: { ratio: 0.7 },
  },
  {
    key: "load",
    name: "page load → first picture, both loading at once, RTT 50 ms",
    scene: NEAR,
    run: load,
    ours: ieum,
    peers: [peerjs, simple],
    value: "first",
    goal: { ratio: 0.6 },
  },
  {
    key: "cut",
    name: "standstill when the direct path dies, RTT 50 ms",
    scene: NEAR,
    run: cut,
    ours: ieum,
    peers: [peerjs, simple],
    value: "freeze",
    goal: { ms: 1000, p95: 1500 },
  },
  {
    key: "address",
    name: "standstill when a client's address changes, RTT 50 ms",
    scene: NEAR,
    run: address,
    ours: ieum,
    peers: [peerjs, simple],
    value: "freeze",
    goal: { ms: 2000 },
  },
  {
    key: "away",
    name: "longest time between pictures of a direct call while the server is dead for 20 s",
    scene: NEAR,
    run: away,
    ours: ieum,
    peers: [peerjs],
    value: "freeze",
    goal: { ms: 250, says: "0: none over 250" },
  },
  {
    key: "away",
    name: "server up again → session back at both",
    scene: NEAR,
    run: away,
    ours: ieum,
    peers: [peerjs],
    value: "back",
    goal: { ms: 2000 },
  },
  {
    key: "away",
    name: "the same, relayed call: server up again → pictures at both",
    scene: RELAYED,
    run: away,
    ours: ieum,
    peers: [],
    value: "back",
    goal: { ms: 2000 },
  },
  {
    key: "close",
    name: "closing the tab → the other is told (`leave`; of the peers `close`)",
    scene: NEAR,
    run: close,
    ours: ieum,
    peers: [peerjs, simple],
    value: "told",
    goal: { ms: 500 },
  },
];

const keys = [...new Set(all.map((row) => row.key))];
const { values: flags } = parseArgs({
  options: {
    rounds: { type: "string", default: "7" },
    cases: { type: "string", default: keys.join() },
  },
});
const rounds = Number(flags.rounds);
const wanted = flags.cases.split(",");
const rows = all.filter((row) => wanted.includes(row.key));
if (!(Number.isInteger(rounds) && rounds >= 1 && rounds <= 100))
  throw new Error("--rounds takes a number from 1 to 100");
if (!wanted.every((key) => keys.includes(key))) throw new Error(`--cases takes ${keys.join(", ")}`);
const missing = labMissing();
if (missing) throw new Error(missing);

const results = new Map(); // by measurement: what its runs have given
const idOf = (row, contestant) => `${row.run.name}, ${row.scene.nat}, ${contestant.name}`;
const loads = [];
let chromium = "";

/** What there is to run in a scene: rows that show the same runs share them. */
function measurements(scene) {
  const found = new Map();
  for (const row of rows.filter((r) => r.scene === scene)) {
    for (const contestant of [row.ours, ...row.peers])
      found.set(idOf(row, contestant), { run: row.run, contestant });
  }
  return [...found];
}

async function measure(scene) {
  const list = measurements(scene);
  const stage = await Stage.up(scene);
  chromium = stage.browsers[0].browser.version();
  try {
    for (let round = 0; round <= rounds; round++) {
      for (let i = 0; i < list.length; i++) {
        // Nobody always comes first.
        const [id, { run, contestant }] = list[(i + round) % list.length];
        const got = await run(stage, contestant).catch((error) => ({
          error: String(error).split("\n")[0],
        }));
        await stage.closePages();
        loads.push(loadavg()[0]);
        console.error(
          `round ${round || "0 (not counted)"}, ${id}: ${JSON.stringify(got, rounded)}`,
        );
        if (round) results.set(id, [...(results.get(id) ?? []), got]);
      }
    }
  } finally {
    await stage.down();
  }
  rmSync(stage.dir, { recursive: true });
}

/**
 * The value below which a share of them is, the nearest there is; of an even number the median is
 * the mean of two.
 */
function quantile(values, share) {
  const v = values.toSorted((a, b) => a - b);
  const upper = v[Math.max(0, Math.ceil(share * v.length) - 1)];
  return share === 0.5 && v.length % 2 === 0 ? (upper + v[v.length / 2]) / 2 : upper;
}

/** For JSON.stringify: times without fractions. */
const rounded = (_, v) => (typeof v === "number" ? ms(v) : v);

const ms = (n) => (n === Infinity ? "never" : Math.round(n).toLocaleString("en"));
const valuesOf = (row, contestant) =>
  (results.get(idOf(row, contestant)) ?? []).filter((r) => !r.error).map((r) => r[row.value]);

function cell(row, contestant, p95) {
  const values = valuesOf(row, contestant);
  const failed = (results.get(idOf(row, contestant)) ?? []).length - values.length;
  const note = failed ? `, ${failed} failed` : "";
  if (values.length === 0) return `–${note}`;
  if (Math.min(...values) === Infinity) return `never${note}`;
  const tail = p95 ? `, p95 ${ms(quantile(values, 0.95))}` : "";
  const range = `${ms(Math.min(...values))}–${ms(Math.max(...values))}`;
  return `${ms(quantile(values, 0.5))} (${range}${tail})${note}`;
}

function cells(row) {
  const ours = valuesOf(row, row.ours);
  const theirs = row.peers.includes(peerjs) ? valuesOf(row, peerjs) : [];
  const { ratio, ms: limit, p95, says } = row.goal;
  const found = quantile(ours, 0.5) / quantile(theirs, 0.5);
  // A run that failed meets no goal.
  const met =
    ours.length === results.get(idOf(row, row.ours))?.length &&
    (ratio
      ? found <= ratio
      : quantile(ours, 0.5) <= limit && (!p95 || quantile(ours, 0.95) <= p95));
  const goal =
    says ??
    (ratio ? `≤ ${ratio.toFixed(2)}× PeerJS` : `≤ ${ms(limit)}${p95 ? `, p95 ≤ ${ms(p95)}` : ""}`);
  const peers = [peerjs, simple].map((c) => (row.peers.includes(c) ? cell(row, c, p95) : "–"));
  return [
    row.name,
    goal,
    ...peers,
    cell(row, row.ours, p95),
    found > 0 && found < Infinity ? `${found.toFixed(2)}×` : "–",
    met ? "met" : "missed",
  ];
}

/** What has been measured so far. */
function print() {
  const [quiet, busy] = [Math.min(...loads), Math.max(...loads)].map((n) => n.toFixed(1));
  const peerjs = `PeerJS ${version("peerjs")} with its server peer ${version("peer")}`;
  const peers = `${peerjs}, simple-peer ${version("simple-peer")}`;
  console.log(
    `${cpus().length} × ${cpus()[0].model}, Linux ${release()}, Node ${process.version}, ` +
      `Chromium ${chromium}; load of the machine ${quiet}–${busy}.`,
  );
  console.log(
    `${peers}. Milliseconds, medians of ${rounds} runs each, in turn\n(lowest–highest).\n`,
  );
  console.log("| what | goal | PeerJS | simple-peer | Ieum | Ieum / PeerJS | |");
  console.log("|---|---|---|---|---|---|---|");
  for (const row of rows)
    if (results.has(idOf(row, row.ours))) console.log(`| ${cells(row).join(" | ")} |`);
}

try {
  for (const scene of new Set(rows.map((row) => row.scene))) await measure(scene);
} finally {
  print();
}
