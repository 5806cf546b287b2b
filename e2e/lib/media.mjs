// Pictures to send, and whether they arrive: a painted canvas stands for a screen, and what counts
// are frames that a video element shows.

import assert from 'node:assert/strict';

/**
 * Opens pages that sit in one room, in this order; resolves with them, an id each. `make` makes the
 * room and returns its result.
 */
export async function gather(stage, ids, make = () => k.createRoom()) {
  const pages = await Promise.all(ids.map((name) => stage.open('app.html', { name })));
  for (const [i, p] of pages.entries()) p.id = await p.evaluate((id) => app.init(id), ids[i]);
  const { code, roomId } = await pages[0].evaluate(make);
  assert.equal(code, '200');
  for (const p of pages) await enter(p, roomId, pages);
  return { pages, roomId };
}

/** One more joins; those who are there have seen it when this resolves. */
export async function enter(p, roomId, others) {
  const members = await p.evaluate((r) => app.join(r), roomId);
  for (const q of others) {
    if (q !== p && members.includes(q.id))
      await q.until(`seeing ${p.id} join`, (id) => app.count('join', id) > 0, p.id);
  }
}

/** A moving picture of this shape in window.screenStream. */
export function paint(p, width = 320, height = 160) {
  return p.evaluate(
    (x) => {
      const canvas = Object.assign(document.createElement('canvas'), x);
      const pen = canvas.getContext('2d');
      let hue = 0;
      clearInterval(window.painting);
      window.painting = setInterval(
        () => (
          (pen.fillStyle = `hsl(${(hue += 9)} 90% 50%)`),
          pen.fillRect(0, 0, x.width, x.height)
        ),
        60,
      );
      window.screenStream = canvas.captureStream(15);
    },
    { width, height },
  );
}

/**
 * Resolves when p shows `more` frames of getStream(user, type), in the shape given (width by
 * height).
 */
export async function shows(p, user, type, shape = null, more = 10) {
  await p.until(`having ${user}'s ${type}`, (x) => Boolean(k.getStream(x.user, x.type)), {
    user,
    type,
  });
  await p.evaluate(
    (x) => {
      window.shown ??= {};
      const key = `${x.type} ${x.user}`;
      const element = () =>
        Object.assign(document.createElement('video'), { muted: true, autoplay: true });
      const video = (shown[key] ??= document.body.appendChild(element()));
      const stream = k.getStream(x.user, x.type);
      if (video.srcObject !== stream) video.srcObject = stream;
      video.before = e2e.frames(video);
    },
    { user, type },
  );
  await p.until(
    `showing ${user}'s ${type}`,
    (x) => {
      const video = shown[`${x.type} ${x.user}`];
      const right = !x.shape || Math.abs(video.videoWidth / video.videoHeight - x.shape) < 0.05;
      return right && e2e.frames(video) >= video.before + x.more;
    },
    { user, type, shape, more },
  );
}

/** Events of one type that p has seen, without what differs from run to run. */
export function events(p, type) {
  return p.evaluate((t) => app.events.filter((e) => e.type === t), type);
}
