// PeerJS: both have ids that they chose, which saves asking the server for one; the callee answers
// with its own camera.
let stream, open;
const peer = new Peer(config.me, {
  host: location.hostname,
  port: config.port,
  path: "/",
  secure: false,
  config: { iceServers: config.iceServers },
});

function talk(connection) {
  connection.on("stream", bench.show);
  connection.on("close", () => bench.mark("ended"));
}
peer.on("call", async (connection) => {
  talk(connection);
  connection.answer((stream ??= await camera));
});
peer.on("open", () => {
  open = true;
  bench.mark("registered");
  if (peer.lost) bench.mark("back");
  start();
});
peer.on("disconnected", () => (peer.lost = true));

bench.call = () => {
  bench.mark("call");
  talk(peer.call(config.other, stream));
};
bench.ready = () => Boolean(stream && open);
// The first one may be PeerJS's probe of what the browser can do.
bench.settled = () => bench.direct(e2e.made.at(-1));

/** Its server keeps a call for a callee that is still loading. */
const start = () => config.auto && config.caller && stream && open && bench.call();
const camera = bench.camera().then((s) => ((stream = s), start(), s));
