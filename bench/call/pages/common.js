// What the pages of all contestants share: how they are configured, and when pictures of the other
// side were shown. Each page adds bench.ready(), true once it is loaded and idle, and bench.call().
// Times are of the machine's clock, so that those of two browsers compare.
const config = JSON.parse(new URLSearchParams(location.search).get("config"));
const now = () => performance.timeOrigin + performance.now();
const bench = { at: { load: performance.timeOrigin }, frames: 0, last: 0, gap: 0, smooth: 0 };
window.bench = bench;

/** Takes down when something happened first. */
bench.mark = (what) => (bench.at[what] ??= now());

bench.camera = async () => {
  const stream = await navigator.mediaDevices.getUserMedia({
    video: { width: 320, height: 240, frameRate: 30 },
    audio: true,
  });
  bench.mark("camera");
  return stream;
};

/** Shows the other side's stream, and watches its pictures. */
bench.show = (stream) => {
  if (bench.video) {
    if (bench.video.srcObject !== stream) bench.video.srcObject = stream;
    return;
  }
  const video = document.body.appendChild(document.createElement("video"));
  bench.video = Object.assign(video, {
    muted: true,
    autoplay: true,
    playsInline: true,
    srcObject: stream,
  });
  const shown = () => {
    const t = now();
    bench.mark("frame");
    if (bench.last) bench.pause(t - bench.last);
    bench.last = t;
    bench.frames++;
    bench.after?.(t);
    video.requestVideoFrameCallback(shown);
  };
  video.requestVideoFrameCallback(shown);
};

/**
 * Between two pictures so much time has passed; smooth counts the pictures since the last
 * standstill.
 */
bench.pause = (ms) => {
  bench.gap = Math.max(bench.gap, ms);
  bench.smooth = ms > 250 ? 0 : bench.smooth + 1;
};

/** From here on gap is the longest pause between two pictures, one that lasts still included. */
bench.watch = () => Object.assign(bench, { gap: 0, smooth: 0 });
bench.standing = () => ({
  gap: Math.max(bench.gap, now() - bench.last),
  smooth: now() - bench.last > 250 ? 0 : bench.smooth,
});

/** Keeps in at[what] when the first picture after t was shown. */
bench.expect = (what, t) => (bench.after = (shown) => shown > t && bench.mark(what));

/** A connection is direct, and could be relayed. */
bench.direct = async (pc) => {
  const found = [...(await pc.getStats()).values()];
  const relay = found.some((s) => s.type === "local-candidate" && s.candidateType === "relay");
  return relay && (await e2e.report(pc)).local?.type !== "relay";
};
