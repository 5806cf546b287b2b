// @ts-check
// Video source: the camera, or a test video without one.

import {say} from './page.mjs';
import {ofCamera, Problem} from './problems.mjs';

const voice = {echoCancellation: true, noiseSuppression: true};

/**
 * Camera and microphone together, so that the browser asks once. Without the microphone there is
 * still video.
 * @param {boolean} withVoice
 * @returns {Promise<{video: MediaStreamTrack, audio: MediaStreamTrack | null, trouble: Problem |
 *   null}>} trouble: why there is no audio; rejects with a Problem
 */
export async function openCamera(withVoice) {
  if (!isSecureContext || !navigator.mediaDevices) throw new Problem('insecure');
  const size = {width: {ideal: 1280}, height: {ideal: 720}};
  /** @param {boolean} both */
  const open = async both => {
    const stream = await navigator.mediaDevices.getUserMedia({video: size, audio: both && voice});
    return {
      video: stream.getVideoTracks()[0],
      audio: stream.getAudioTracks()[0] ?? null,
      trouble: null,
    };
  };
  try {
    return await open(withVoice);
  } catch (error) {
    if (!withVoice || !await cameraMayOpenAlone(error)) throw ofCamera(error);
    try {
      return {...await open(false), trouble: ofMicrophone(error)};
    } catch (alone) {
      throw ofCamera(alone);
    }
  }
}

/**
 * If both were denied, do not ask again. If only the microphone was denied, the camera may still be
 * allowed.
 * @param {unknown} error of opening both
 */
async function cameraMayOpenAlone(error) {
  if (!(error instanceof DOMException && error.name === 'NotAllowedError')) return true;
  try {
    const [camera, microphone] = await Promise.all(['camera', 'microphone'].map(
      name => navigator.permissions.query({name: /** @type {PermissionName} */ (name)}),
    ));
    return microphone.state === 'denied' && camera.state !== 'denied';
  } catch {
    return false; // a browser that does not tell
  }
}

/** @returns {Promise<MediaStreamTrack>} rejects with a Problem */
export async function openMicrophone() {
  if (!isSecureContext || !navigator.mediaDevices) throw new Problem('insecure');
  try {
    const stream = await navigator.mediaDevices.getUserMedia({audio: voice});
    return stream.getAudioTracks()[0];
  } catch (error) {
    throw ofMicrophone(error);
  }
}

/** @param {unknown} error */
function ofMicrophone(error) {
  return new Problem('microphone', {reason: error instanceof Error ? error.name : String(error)});
}

// Frames a second: enough to see that it lives, little enough for two senders on one machine.
const rate = 15;

/**
 * An animated test video: two arcs, a clock, and a letter to distinguish two of them.
 * Stopping its track ends the drawing.
 * @param {string} letter
 * @returns {MediaStream}
 */
export function drawTestVideo(letter) {
  const canvas = document.createElement('canvas');
  canvas.width = 640;
  canvas.height = 360;
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d', {alpha: false}));
  const ground = letter === 'B' ? ['#3b2a57', '#7b4a6d'] : ['#0b3d46', '#0f6d63'];
  const stream = canvas.captureStream(rate);
  const track = stream.getVideoTracks()[0];
  const draw = () => {
    if (track.readyState === 'ended') {
      clearInterval(timer);
      return;
    }
    paint(pen, ground, letter, performance.now() / 1000);
  };
  const timer = setInterval(draw, 1000 / rate);
  draw();
  return stream;
}

/**
 * @param {CanvasRenderingContext2D} pen
 * @param {string[]} ground
 * @param {string} letter
 * @param {number} t seconds
 */
function paint(pen, ground, letter, t) {
  const {width, height} = pen.canvas;
  const shade = pen.createLinearGradient(0, 0, width, height);
  shade.addColorStop(0, ground[0]);
  shade.addColorStop(1, ground[1]);
  pen.fillStyle = shade;
  pen.fillRect(0, 0, width, height);

  const swing = Math.sin(t * 0.8) * 24;
  pen.lineWidth = 18;
  pen.lineCap = 'round';
  pen.strokeStyle = '#ffffffcc';
  pen.beginPath();
  pen.arc(width / 2 - 60, height / 2 + swing / 3, 60, Math.PI, 2 * Math.PI);
  pen.stroke();
  pen.strokeStyle = '#ffb27d';
  pen.beginPath();
  pen.arc(width / 2 + 60, height / 2 + swing / 3, 60, Math.PI, 0, true);
  pen.stroke();

  pen.fillStyle = '#ffffff';
  pen.beginPath();
  pen.arc(((t * 60) % (width + 40)) - 20, height - 34, 8, 0, 2 * Math.PI);
  pen.fill();

  pen.textBaseline = 'top';
  pen.font = '600 28px system-ui, sans-serif';
  pen.fillText([say('test.video'), letter].filter(Boolean).join(' '), 28, 26);
  pen.font = '24px ui-monospace, monospace';
  pen.textAlign = 'right';
  pen.fillText(new Date().toLocaleTimeString('en-GB'), width - 28, 28);
  pen.textAlign = 'left';
}
