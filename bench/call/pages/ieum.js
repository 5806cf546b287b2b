// Ieum: both are in one room. The caller publishes; who is published to answers with its own
// camera.
const k = new Knowledgetalk(config.options);
let other, stream, inRoom;

k.addEventListener("presence", ({ detail: event }) => {
  if (event.type === "join") met(event.user.userId);
  if (event.type === "leave") bench.mark("ended");
  if (event.type !== "subscribed") return;
  bench.mark("subscribed");
  bench.show(k.getStream(event.user));
  if (!config.caller) void publish();
});
k.getSocket().on("connect", () => bench.mark("back"));

const publish = async () => k.publishP2P(other, "cam", (stream ??= await camera));

bench.call = () => {
  bench.mark("call");
  void publish();
};

/** Warm: the connection of the two stands. Cold: nothing is built before the call. */
bench.ready = () =>
  Boolean(stream && other && inRoom) &&
  (config.options.warmPeers === 0 || e2e.open()[0]?.connectionState === "connected");

/** Direct, with the second connection ready where there is one. */
bench.settled = async () => {
  if (config.relayed) return true;
  // The first connection stops gathering when it stands, which may be before the relay has
  // answered.
  const { local } = await e2e.report(k.getPeer(other));
  return (
    local && local.type !== "relay" && e2e.backup.some((pc) => pc.connectionState === "connected")
  );
};
bench.answered = async () => (await k.memberList()).code === "200";

const ok = (result) => {
  if (result.code !== "200") throw new Error(JSON.stringify(result));
  return result;
};

function met(id) {
  other ??= id;
  bench.mark("met");
  if (config.auto && config.caller) bench.call();
}

const camera = config.make ? null : bench.camera().then((s) => (stream = s));
(async () => {
  bench.mark("script");
  ok(await k.init(config.cpCode, config.authKey, config.me));
  bench.mark("registered");
  if (config.make) return void (bench.made = ok(await k.createRoom(config.room, "", 2, false)));
  // A connection that is warmed up before the camera is allowed knows fewer addresses.
  if (!config.auto) await camera;
  const { members } = ok(await k.joinRoom(config.room));
  inRoom = true;
  bench.mark("joined");
  Object.keys(members).filter((id) => id !== config.me).forEach(met);
})();
