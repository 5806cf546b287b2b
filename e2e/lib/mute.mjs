// What of a user's camera really arrives at another: sound as energy, pictures as light.

/**
 * Packets of sound or frames that are let pass first: what was on its way when something was
 * switched off, and what makes up for it.
 */
const TAIL = 20;
const ENOUGH = 50;

/**
 * Whether q, who receives from nobody else, hears the user: over a second of packets, and over the
 * next one as well. A browser that is behind plays for a while what came before.
 */
export async function listens(q, user) {
  const heard = () =>
    q.evaluate(async (id) => {
      // Chromium plays, and so measures, only what an element plays.
      const box = (app.sound ??= document.body.appendChild(
        Object.assign(document.createElement('audio'), { autoplay: true }),
      ));
      if (box.srcObject !== k.getStream(id)) box.srcObject = k.getStream(id);
      // By connection: on a busy machine media may go over the second one for a while.
      const all = {};
      for (const [i, pc] of [...e2e.made, ...e2e.backup].entries()) {
        if (pc.connectionState === 'closed') continue;
        (await pc.getStats()).forEach((s) => {
          if (s.type === 'inbound-rtp' && s.kind === 'audio')
            all[`${i} ${s.id}`] = [s.packetsReceived, s.totalAudioEnergy ?? 0];
        });
      }
      return all;
    }, user);
  const since = (now, then, i) =>
    Object.entries(now).reduce((sum, [id, x]) => sum + x[i] - (then[id]?.[i] ?? 0), 0);
  const more = async (then, n) => {
    for (;;) {
      const now = await heard();
      if (since(now, then, 0) >= n) return now;
      await new Promise((next) => setTimeout(next, 50));
    }
  };
  let begin = await more(await heard(), TAIL);
  for (let before; ;) {
    const end = await more(begin, ENOUGH);
    const now = since(end, begin, 1) > 1e-3;
    if (now === before) return now;
    [begin, before] = [end, now];
  }
}

/** Whether the pictures of the user that arrive are black. */
export async function darkness(q, user, type = 'cam') {
  await q.evaluate(
    (x) => {
      const video = (app.light ??= document.body.appendChild(
        Object.assign(document.createElement('video'), { muted: true, autoplay: true }),
      ));
      video.srcObject = k.getStream(x.user, x.type);
      video.before = e2e.frames(video);
    },
    { user, type },
  );
  // Browsers send about one black picture a second.
  await q.until(
    `showing ${user}'s ${type}`,
    () => app.light.videoWidth > 0 && e2e.frames(app.light) >= app.light.before + 2,
  );
  let dark = false;
  // The first pictures of a camera that was on may still be seen: it has to stay as it is.
  for (let same = 0; same < 4;) {
    const now = await q.evaluate(() => {
      const canvas = Object.assign(document.createElement('canvas'), { width: 32, height: 24 });
      const pen = canvas.getContext('2d');
      pen.drawImage(app.light, 0, 0, 32, 24);
      return pen.getImageData(0, 0, 32, 24).data.every((x, i) => i % 4 === 3 || x < 24);
    });
    same = now === dark ? same + 1 : 0;
    dark = now;
    await new Promise((next) => setTimeout(next, 100));
  }
  return dark;
}
