// @ts-check
// Common errors as keys of the texts: a sentence and the fix.

import {say, server} from './page.mjs';

/** An error that a user can fix. `key` is stable, and the value of data-problem. */
export class Problem extends Error {
  /**
   * @param {string} key
   * @param {Record<string, string | number>} [values]
   */
  constructor(key, values = {}) {
    super(key);
    this.key = key;
    this.title = say(`problem.${key}.title`, values);
    this.help = say(`problem.${key}.help`, values);
  }
}

/**
 * @typedef {{code: string, message?: string, hint?: string}} Answer what a method of the SDK
 *   resolves with
 */

/**
 * @param {unknown} error from getUserMedia
 * @returns {Problem}
 */
export function ofCamera(error) {
  if (!isSecureContext || !navigator.mediaDevices) return new Problem('insecure');
  const name = error instanceof DOMException ? error.name : '';
  switch (name) {
    case 'NotAllowedError':
    case 'SecurityError':
      return new Problem('camera-denied');
    case 'NotFoundError':
    case 'OverconstrainedError':
      return new Problem('camera-missing');
    case 'NotReadableError':
    case 'AbortError':
      return new Problem('camera-busy');
    default:
      return new Problem('camera-other', {reason: String(error)});
  }
}

/**
 * The reason why init failed. A refused license is also inspected here, to name what is wrong with
 * it.
 * @param {Answer} answer
 * @param {{cpCode: string, authKey: string}} license
 * @returns {Problem}
 */
export function ofInit(answer, license) {
  switch (answer.code) {
    case '401':
      return ofLicense(license);
    case '409':
      return new Problem('id-in-use');
    case '413':
      return new Problem('origin', {origin: location.origin});
    case '445':
      return new Problem('license-full');
    case '504':
      return new Problem('unreachable', {origin: server});
    default:
      return ofAny(answer);
  }
}

/**
 * Errors visible in the two values, or null. Only the server can verify them.
 * @param {{cpCode: string, authKey: string}} license
 * @returns {Problem | null}
 */
export function beforeInit({cpCode, authKey}) {
  if (looksLikeKey(cpCode) && !looksLikeKey(authKey)) return new Problem('key-swapped');
  if (cpCode === '' || authKey === '') return new Problem('key-needed');
  return null;
}

/**
 * @param {{cpCode: string, authKey: string}} license
 * @returns {Problem}
 */
function ofLicense({cpCode, authKey}) {
  const claims = readKey(authKey);
  const now = Date.now();
  const end = day(claims.endDate, true);
  if (end !== null && end < now) return new Problem('key-expired', {date: dateOf(end - 1)});
  const start = day(claims.startDate, false);
  if (start !== null && start > now) return new Problem('key-early', {date: dateOf(start)});
  if (typeof claims.authCode === 'string' && claims.authCode !== cpCode)
    return new Problem('key-other', {code: claims.authCode});
  return new Problem('key-refused');
}

/** @param {string} value */
function looksLikeKey(value) {
  return value.split('.').length === 3 && value.startsWith('eyJ');
}

/**
 * The claims of an authKey, unverified: they only select a message.
 * @param {string} key
 * @returns {Record<string, unknown>}
 */
function readKey(key) {
  try {
    const part = key.split('.')[1].replace(/-/g, '+').replace(/_/g, '/');
    const claims = JSON.parse(atob(part));
    return typeof claims === 'object' && claims !== null ? claims : {};
  } catch {
    return {};
  }
}

/**
 * Milliseconds of an ISO 8601 date. A bare date is UTC; as an end date it includes the whole day.
 * @param {unknown} value
 * @param {boolean} end
 */
function day(value, end) {
  if (typeof value !== 'string') return null;
  const at = Date.parse(value);
  if (Number.isNaN(at)) return null;
  return end && /^\d{4}-\d{2}-\d{2}$/.test(value) ? at + 24 * 60 * 60 * 1000 : at;
}

/** @param {number} at milliseconds; the day in UTC, as licenses count */
function dateOf(at) {
  return new Date(at).toISOString().slice(0, 10);
}

/**
 * @param {Answer} answer of createRoom or joinRoom
 * @param {string} room
 * @returns {Problem}
 */
export function ofRoom(answer, room) {
  switch (answer.code) {
    case '441':
      return new Problem('room-missing', {room});
    case '442':
      return new Problem('already-in');
    case '444':
      return new Problem('room-full', {room});
    case '409':
      return new Problem('id-in-use');
    case '429':
      return new Problem('too-many');
    case '504':
      return new Problem('unreachable', {origin: server});
    default:
      return ofAny(answer);
  }
}

/** @param {Answer} answer */
function ofAny(answer) {
  return new Problem('other', {
    code: answer.code,
    reason: [answer.message, answer.hint].filter(Boolean).join(' ') || '–',
  });
}
