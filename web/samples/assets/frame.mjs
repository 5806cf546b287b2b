// @ts-check
// How /sample speaks with the two /p2p pages in its frames: postMessage within one origin, each
// message checked for both its origin and its window.
//
//   to a frame     {ieum: 'do', id, action, value}    action: camera | create | join | leave
//   to the parent  {ieum: 'done', id, value}          the action succeeded
//                  {ieum: 'failed', id, key, title, help}
//                  {ieum: 'state', state}             State below, at every change; the first means
//                                                     that the frame is ready

import {Problem} from './problems.mjs';

/**
 * @typedef {object} State
 * @property {string} room '' outside of a room
 * @property {number} height of the page's content, CSS pixels: the frame is made as high
 * @property {{id: string, path: string, way: string, candidates: string, frames: number, state:
 *   string, trouble: string}[]} members
 */

/**
 * @typedef {{key: string, title: string, help: string}} Told a Problem as a message between frames
 */

/**
 * The frame's end.
 * @param {Record<string, (value: any) => Promise<unknown>>} actions
 * @returns {(state: State) => void} notifies the parent
 */
export function obey(actions) {
  addEventListener('message', async event => {
    if (event.origin !== location.origin || event.source !== parent || event.data?.ieum !== 'do')
      return;
    const {id, action, value} = event.data;
    if (!Object.hasOwn(actions, action)) return;
    try {
      post({ieum: 'done', id, value: await actions[action](value)});
    } catch (error) {
      const problem =
        error instanceof Problem ? error : new Problem('other', {code: '–', reason: String(error)});
      post({ieum: 'failed', id, key: problem.key, title: problem.title, help: problem.help});
    }
  });
  return state => post({ieum: 'state', state});
}

/** @param {object} message */
function post(message) {
  parent.postMessage(message, location.origin);
}

/** The parent's end of one frame. */
export class Frame {
  /** @type {State} */
  state = {room: '', height: 0, members: []};

  #next = 1;
  /** @type {Map<number, {resolve: (value: any) => void, reject: (told: Told) => void}>} */
  #waiting = new Map();
  /** @type {() => void} */
  #ready = () => {};

  /**
   * @param {HTMLIFrameElement} element
   * @param {() => void} onState
   */
  constructor(element, onState) {
    this.element = element;
    /** Resolves when the frame listens. */
    this.ready = new Promise(resolve => { this.#ready = () => resolve(undefined); });
    addEventListener('message', event => {
      if (event.origin !== location.origin || event.source !== element.contentWindow) return;
      this.#onMessage(event.data, onState);
    });
    // It may have loaded before we did; it answers with its state.
    this.#post({ieum: 'do', id: 0, action: 'report'});
  }

  /**
   * @param {string} action
   * @param {unknown} [value]
   * @returns {Promise<any>} rejects with a Told
   */
  do(action, value) {
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, {resolve, reject});
      this.#post({ieum: 'do', id, action, value});
    });
  }

  /** @param {object} message */
  #post(message) {
    this.element.contentWindow?.postMessage(message, location.origin);
  }

  /**
   * @param {any} message
   * @param {() => void} onState
   */
  #onMessage(message, onState) {
    const waiting = this.#waiting.get(message?.id);
    switch (message?.ieum) {
      case 'state':
        this.state = message.state;
        this.element.style.height = `${Math.min(Math.max(this.state.height, 320), 4000)}px`;
        this.#ready();
        onState();
        break;
      case 'done':
        this.#waiting.delete(message.id);
        waiting?.resolve(message.value);
        break;
      case 'failed':
        this.#waiting.delete(message.id);
        waiting?.reject(message);
        break;
    }
  }
}
