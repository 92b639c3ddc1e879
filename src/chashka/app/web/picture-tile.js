/** The place of one picture: it has its size from the beginning, so that nothing moves while the picture forms. */

import { draggable } from './composer.js';
import { fileOf } from './api.js';
import { describe, h } from './dom.js';
import { bind, unbind } from './i18n.js';
import { pictureActions } from './picture-actions.js';

/** @import {JobPicture} from './types.js' */

const SOFTEST = 14;

export class PictureTile extends HTMLElement {
  #frame = h('div', { class: 'frame', role: 'img' });
  #preview = h('img', { class: 'preview', alt: '', hidden: true });
  #actions = h('div', { class: 'actions' });
  #done = false;
  /** id of the picture once it is there */
  picture = '';

  /**
   * @param {number} number from 1, for people
   * @param {number} width pixels
   * @param {number} height
   * @param {string} prompt
   */
  constructor(number, width, height, prompt) {
    super();
    this.number = number;
    this.prompt = prompt;
    this.#frame.style.aspectRatio = `${width} / ${height}`;
    this.#frame.append(this.#preview);
    bind(this.#frame, 'aria-label', 'tile.waiting', number);
  }

  connectedCallback() {
    if (this.#frame.isConnected) return;
    this.append(this.#frame, this.#actions);
  }

  /** What the picture may become. @param {string} address of a small picture */
  preview(address) {
    if (this.#done) return;
    this.#preview.src = address;
    this.#preview.hidden = false;
    this.classList.add('forming');
    bind(this.#frame, 'aria-label', 'tile.forming', this.number);
  }

  /** Soft at the beginning, sharp at the end. @param {number} share of the steps */
  sharpen(share) {
    this.#preview.style.filter = `blur(${(SOFTEST * (1 - share) ** 2 + 2).toFixed(1)}px)`;
  }

  /** Nothing more will come. */
  stop() {
    this.classList.remove('forming');
    if (!this.#done) this.classList.add('empty');
  }

  /** The finished picture, faded in over its preview. @param {JobPicture} picture */
  ready(picture) {
    if (this.#done) return;
    this.#done = true;
    this.picture = picture.id;
    const image = h('img', { class: 'final', src: fileOf(picture.id), draggable: false });
    describe(image, this.prompt);
    image.addEventListener('load', () => {
      image.classList.add('shown');
      this.#preview.remove();
    });
    const open = h('button', { type: 'button', class: 'open', hint: 'picture.open', onclick: () => this.#open(picture) }, image);
    draggable(open, picture.id);
    this.#frame.removeAttribute('role');
    unbind(this.#frame, 'aria-label');
    this.#frame.append(open);
    this.classList.remove('forming');
    this.classList.add('done');
    this.#actions.replaceChildren(...pictureActions({ id: picture.id, prompt: this.prompt, favourite: false }));
  }

  /** @param {JobPicture} picture */
  #open(picture) {
    this.dispatchEvent(new CustomEvent('studio:open', { bubbles: true, detail: picture.id }));
  }
}

customElements.define('picture-tile', PictureTile);
