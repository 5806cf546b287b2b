// simple-peer: it has no server of its own; a socket hands every message to the other one in the
// room.
let stream, met, peer;
const early = []; // what the other has sent before the camera was there
const socket = new WebSocket(`ws://${location.host}/room?${config.room}`);

function make() {
  peer = new SimplePeer({
    initiator: config.caller,
    stream,
    config: { iceServers: config.iceServers },
  });
  peer.on("signal", (signal) => socket.send(JSON.stringify({ signal })));
  peer.on("stream", bench.show);
  peer.on("close", () => bench.mark("ended"));
  peer.on("error", (error) => console.log(String(error)));
}
const hear = () => {
  if (!stream || !early.length) return;
  if (!peer) make();
  early.splice(0).forEach((signal) => peer.signal(signal));
};
socket.onmessage = ({ data }) => {
  const message = JSON.parse(data);
  if (message.signal) early.push(message.signal);
  else bench.mark("met"), (met = true);
  hear();
  start();
};

bench.call = () => {
  bench.mark("call");
  make();
};
bench.ready = () => Boolean(stream && met);
bench.settled = () => bench.direct(e2e.made.at(-1));

const start = () => config.auto && config.caller && stream && met && !peer && bench.call();
bench.camera().then((s) => ((stream = s), hear(), start()));
