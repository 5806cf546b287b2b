// @ts-check
// What we send: video (camera or test video) and voice, switched independently and sent in one
// stream.

import {drawTestVideo, openCamera, openMicrophone} from './camera.mjs';
import {Problem} from './problems.mjs';

/**
 * Events: change (video, voice or stream changed) and problem (CustomEvent with a Problem: video or
 * voice was lost).
 */
export class Own extends EventTarget {
  /** @type {'off' | 'camera' | 'drawn'} */
  video = 'off';
  /** @type {'off' | 'on' | 'muted'} muted: the microphone is open, and nothing of it is sent */
  voice = 'off';
  /** @type {MediaStream | null} null: neither */
  stream = null;

  /** @type {MediaStreamTrack | null} */
  #video = null;
  /** @type {MediaStreamTrack | null} */
  #audio = null;
  // The last request. The browser's prompt may stay open while the user requests something else.
  #videoRequest = 0;
  #voiceWish = 0;

  /**
   * Opens the camera, and the microphone unless it is open.
   * @param {boolean} [withVoice]
   */
  async useCamera(withVoice = true) {
    const wish = ++this.#videoRequest;
    const voiceWish = this.#voiceWish;
    const {video, audio, trouble} = await openCamera(withVoice && this.#audio === null);
    if (wish !== this.#videoRequest) {
      video.stop();
      audio?.stop();
      return;
    }
    this.#show(video, 'camera');
    if (audio !== null && voiceWish === this.#voiceWish) this.#speak(audio, false);
    else audio?.stop();
    this.#changed();
    if (trouble !== null) this.#problem(trouble);
  }

  /** @param {string} letter shown in the test video */
  useDrawn(letter) {
    this.#videoRequest++;
    this.#show(drawTestVideo(letter).getVideoTracks()[0], 'drawn');
    this.#changed();
  }

  /** The voice stays. */
  closeVideo() {
    this.#videoRequest++;
    this.#video = null;
    this.video = 'off';
    this.#changed();
  }

  /**
   * Opens the microphone.
   * @param {boolean} [muted] whether it begins muted
   */
  async useVoice(muted = false) {
    const wish = ++this.#voiceWish;
    const track = await openMicrophone();
    if (wish !== this.#voiceWish) {
      track.stop();
      return;
    }
    this.#speak(track, muted);
    this.#changed();
  }

  /** Mutes or unmutes the open microphone. */
  toggleMute() {
    if (this.#audio === null) return;
    this.voice = this.voice === 'muted' ? 'on' : 'muted';
    this.#audio.enabled = this.voice === 'on';
    this.dispatchEvent(new Event('change'));
  }

  close() {
    this.#videoRequest++;
    this.#voiceWish++;
    this.#video = this.#audio = null;
    this.video = this.voice = 'off';
    this.#changed();
  }

  /**
   * @param {MediaStreamTrack} track
   * @param {'camera' | 'drawn'} kind
   */
  #show(track, kind) {
    this.#video = track;
    this.video = kind;
    // Unplugging the camera, or revoking its permission, ends the track.
    track.addEventListener('ended', () => {
      if (this.#video !== track) return;
      this.closeVideo();
      this.#problem(new Problem('camera-missing'));
    });
  }

  /**
   * @param {MediaStreamTrack} track
   * @param {boolean} muted
   */
  #speak(track, muted) {
    track.enabled = !muted;
    this.#audio = track;
    this.voice = muted ? 'muted' : 'on';
    track.addEventListener('ended', () => {
      if (this.#audio !== track) return;
      this.#audio = null;
      this.voice = 'off';
      this.#changed();
      this.#problem(new Problem('microphone', {reason: 'ended'}));
    });
  }

  /** Makes a new stream of the current tracks and stops the others. */
  #changed() {
    const tracks = [this.#video, this.#audio].filter(track => track !== null);
    const old = this.stream?.getTracks() ?? [];
    if (tracks.length !== old.length || tracks.some(track => !old.includes(track))) {
      this.stream = tracks.length === 0 ? null : new MediaStream(tracks);
    }
    this.dispatchEvent(new Event('change'));
    for (const track of old) {
      if (!tracks.includes(track)) track.stop();
    }
  }

  /** @param {Problem} problem */
  #problem(problem) {
    this.dispatchEvent(new CustomEvent('problem', {detail: problem}));
  }
}
