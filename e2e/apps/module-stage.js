let asked;

/** The camera, asked for once. */
export function camera() {
  asked ??= navigator.mediaDevices.getUserMedia({
    video: { width: 320, height: 240 },
    audio: false,
  });
  return asked;
}

export class Stage {
  #videos = new Map();

  constructor(root) {
    this.root = root;
  }

  add(user) {
    const video = Object.assign(document.createElement('video'), {
      autoplay: true,
      muted: true,
      playsInline: true,
      width: 160,
    });
    video.id = `video-${user}`;
    this.#videos.set(user, video);
    this.root.append(video);
  }

  show(user, stream) {
    this.#videos.get(user).srcObject = stream;
  }

  drop(user) {
    this.#videos.get(user).remove();
    this.#videos.delete(user);
  }
}
