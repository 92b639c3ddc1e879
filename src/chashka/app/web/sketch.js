/** What is being typed, as a small picture: asked for when the typing rests, always with the same seed until it is drawn. */

import { api, ApiError } from './api.js';
import { h } from './dom.js';
import { bind } from './i18n.js';
import { preference } from './preferences.js';

/** Milliseconds without a key after which a sketch is asked for. */
const REST = 300;
/** Fields that a sketch leaves to the model: it is a draft whatever the drawer says. */
const OWN = ['n', 'steps', 'guidance_scale', 'fast'];

export class StudioSketch extends HTMLElement {
  #picture = h('img', { alt: '', width: 256, height: 256, hidden: true });
  #seed = chance();
  #timer = 0;
  /** What is shown, and what was asked for last: requests as JSON. */
  #shown = '';
  #asked = '';
  /** @type {AbortController | null} */
  #asking = null;

  connectedCallback() {
    if (this.childElementCount) return;
    bind(this.#picture, 'alt', 'sketch');
    this.append(this.#picture);
    this.hidden = true;
  }

  /**
   * Show what this says, soon; nothing for an empty prompt.
   *
   * @param {string} prompt
   * @param {Record<string, any> | null} settings as the drawer gives them
   */
  follow(prompt, settings) {
    const wanted = prompt && settings && preference('sketches') !== false ? this.#request(prompt, settings) : '';
    if (wanted === this.#asked) return; // it is shown, or under way
    clearTimeout(this.#timer);
    this.#asked = wanted;
    this.#asking?.abort();
    this.classList.toggle('stale', wanted !== this.#shown);
    if (wanted) this.#timer = setTimeout(() => this.#ask(wanted), REST);
    else this.#show('', null);
  }

  /**
   * The seed of the sketch that is shown, if it is of this; drawn with it, the first picture comes out much like it. The next
   * sketches have another one.
   *
   * @param {string} prompt
   * @param {Record<string, any>} settings
   * @returns {{seed?: number}}
   */
  take(prompt, settings) {
    const seed = this.#shown && this.#shown === this.#request(prompt, settings) ? { seed: this.#seed } : {};
    this.#seed = chance();
    this.follow('', null);
    return settings.seed === undefined ? seed : {};
  }

  /** @param {string} prompt @param {Record<string, any>} settings */
  #request(prompt, settings) {
    const kept = Object.fromEntries(Object.entries(settings).filter(([name]) => !OWN.includes(name)));
    return JSON.stringify({ seed: this.#seed, ...kept, prompt });
  }

  /** @param {string} wanted */
  async #ask(wanted) {
    if (document.querySelector('job-card:not(.over)')) return this.#later(wanted, 1); // jobs go first
    this.#asking = new AbortController();
    try {
      const file = await api.sketch(wanted, this.#asking.signal);
      if (wanted === this.#asked) this.#show(wanted, file);
    } catch (error) {
      if (wanted !== this.#asked) return;
      // somebody else's job is drawn, or it was too many; whatever else is wrong the button will tell
      if (error instanceof ApiError && error.wait) this.#later(wanted, error.wait);
      else this.#show('', null);
    }
  }

  /** @param {string} wanted @param {number} seconds */
  #later(wanted, seconds) {
    this.#timer = setTimeout(() => this.#ask(wanted), 1000 * seconds);
  }

  /** @param {string} wanted @param {Blob | null} file */
  #show(wanted, file) {
    const before = this.#picture.getAttribute('src');
    if (before) URL.revokeObjectURL(before);
    this.#shown = wanted;
    this.classList.toggle('stale', wanted !== this.#asked);
    this.hidden = this.#picture.hidden = !file;
    if (file) this.#picture.src = URL.createObjectURL(file);
    else this.#picture.removeAttribute('src');
  }
}

/** A seed. */
function chance() {
  return crypto.getRandomValues(new Uint32Array(1))[0];
}

customElements.define('studio-sketch', StudioSketch);
