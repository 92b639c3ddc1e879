/** All pictures: searched in any language, loaded as far as one looks, walked with the arrow keys. */

import { announce } from './announce.js';
import { api, thumbnailOf } from './api.js';
import { draggable } from './composer.js';
import { describe, h, icon } from './dom.js';
import { tell, tellPhrase } from './failures.js';
import { showFavourite } from './picture-actions.js';
import { complain, toast } from './toast.js';

/** @import {Picture} from './types.js' */

const PAGE = 48;
const TYPING = 250;

export class StudioGallery extends HTMLElement {
  /** @type {Map<string, Picture>} in the order of the page, newest first */
  #pictures = new Map();
  /** @type {number | null} where the next page begins */
  #next = null;
  #asked = 0;
  #timer = 0;
  #search = h('input', { type: 'search', id: 'search', autocomplete: 'off', placeholder: 'gallery.search', label: 'gallery.search' });
  #only = h('button', { type: 'button', class: 'toggle', 'aria-pressed': 'false' }, icon('heart'), h('span', { t: 'gallery.favourites' }));
  #grid = h('ul', { class: 'grid', role: 'list', 'aria-describedby': 'gallery-keys' });
  #empty = h('p', { class: 'empty', hidden: true });
  #end = h('div', { class: 'end' });

  connectedCallback() {
    if (this.childElementCount) return;
    this.#search.addEventListener('input', () => {
      window.clearTimeout(this.#timer);
      this.#timer = window.setTimeout(() => this.load(true), TYPING);
    });
    this.#only.addEventListener('click', () => {
      this.#only.setAttribute('aria-pressed', String(!this.#favourites));
      this.load(true);
    });
    this.#grid.addEventListener('keydown', (event) => this.#key(event));
    new IntersectionObserver((seen) => {
      if (seen.some((entry) => entry.isIntersecting)) this.#more();
    }, { rootMargin: '600px' }).observe(this.#end);
    this.append(
      h(
        'section',
        { 'aria-labelledby': 'gallery-title', id: 'gallery' },
        h('header', { class: 'bar' }, h('h2', { t: 'gallery', id: 'gallery-title' }), h('div', { class: 'search' }, icon('search'), this.#search), this.#only),
        h('p', { class: 'hidden', id: 'gallery-keys', t: 'gallery.keys' }),
        this.#grid,
        this.#empty,
        this.#end,
      ),
    );
  }

  get #favourites() {
    return this.#only.getAttribute('aria-pressed') === 'true';
  }

  /** Ask for the first page again. @param {boolean} [searched] whether to say how many were found */
  async load(searched = false) {
    const number = ++this.#asked;
    const page = await this.#page(null);
    if (!page || number !== this.#asked) return; // a newer question is on its way
    this.#pictures = new Map(page.data.map((picture) => [picture.id, picture]));
    this.#next = page.next;
    this.#show();
    if (searched) announce('say.found', page.data.length, page.next !== null);
  }

  /** Put new pictures in front, and leave everything else where it is. */
  async refresh() {
    if (!this.#pictures.size || this.#search.value || this.#favourites) return this.load();
    const page = await this.#page(null);
    if (!page) return;
    const fresh = page.data.filter((picture) => !this.#pictures.has(picture.id));
    this.#pictures = new Map([...fresh.map((picture) => /** @type {[string, Picture]} */ ([picture.id, picture])), ...this.#pictures]);
    this.#show();
  }

  async #more() {
    if (this.#next === null) return;
    const [number, before] = [this.#asked, this.#next];
    this.#next = null;
    const page = await this.#page(before);
    if (number !== this.#asked) return;
    if (!page) {
      this.#next = before;
      return;
    }
    for (const picture of page.data) this.#pictures.set(picture.id, picture);
    this.#next = page.next;
    this.#show();
  }

  /** @param {number | null} before */
  async #page(before) {
    try {
      return await api.pictures({ words: this.#search.value.trim(), favourite: this.#favourites || undefined, before, limit: PAGE });
    } catch (error) {
      tell(this.#empty, error);
      this.#empty.hidden = this.#pictures.size > 0;
      return null;
    }
  }

  /** Bring the grid to what is known, touching only what differs: focus and loaded pictures stay. */
  #show() {
    const items = new Map([...this.#grid.children].map((item) => [item.getAttribute('data-id'), item]));
    let place = this.#grid.firstElementChild;
    for (const [id, picture] of this.#pictures) {
      const item = items.get(id) ?? this.#item(picture);
      items.delete(id);
      if (item === place) place = place.nextElementSibling;
      else this.#grid.insertBefore(item, place);
      showFavourite(id, picture.favourite);
      item.classList.toggle('favourite', picture.favourite);
    }
    for (const item of items.values()) item.remove();
    this.#rove();
    this.#empty.hidden = this.#pictures.size > 0;
    const why = this.#search.value ? 'gallery.nothing' : this.#favourites ? 'gallery.no_favourites' : 'gallery.empty';
    if (this.#pictures.size) tell(this.#empty, null);
    else tellPhrase(this.#empty, why);
  }

  /** @param {Picture} picture */
  #item(picture) {
    const image = h('img', { src: thumbnailOf(picture.id), loading: 'lazy', decoding: 'async', width: picture.width, height: picture.height, draggable: false });
    describe(image, picture.prompt);
    const button = h('button', { type: 'button', class: 'thumbnail', onclick: () => this.open(picture.id) }, image);
    draggable(button, picture.id);
    return h('li', { 'data-id': picture.id }, button, icon('heart-full'));
  }

  /** One of the grid's buttons is reached with Tab, the others with arrows. @param {HTMLElement} [wanted] */
  #rove(wanted) {
    const buttons = this.#buttons();
    const current = wanted ?? buttons.find((button) => button.tabIndex === 0) ?? buttons[0];
    for (const button of buttons) button.tabIndex = button === current ? 0 : -1;
  }

  #buttons() {
    return /** @type {HTMLElement[]} */ ([...this.#grid.querySelectorAll('button.thumbnail')]);
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const buttons = this.#buttons();
    const at = buttons.indexOf(/** @type {HTMLElement} */ (document.activeElement));
    if (at < 0) return;
    const columns = getComputedStyle(this.#grid).gridTemplateColumns.split(' ').length;
    /** @type {Record<string, number>} */
    const moves = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + columns, ArrowUp: at - columns, Home: 0, End: buttons.length - 1 };
    const to = moves[event.key];
    if (to !== undefined) {
      event.preventDefault();
      const button = buttons[to];
      if (!button) return;
      this.#rove(button);
      button.focus();
    } else if (event.key === 'Delete') this.discard(this.#id(at));
  }

  /** @param {number} at */
  #id(at) {
    return [...this.#pictures.keys()][at] ?? '';
  }

  /** @param {string} id */
  open(id) {
    this.dispatchEvent(new CustomEvent('studio:open', { bubbles: true, detail: id }));
  }

  /** The one before (-1) or behind (1) a picture. @param {string} id @param {number} step @returns {string | undefined} */
  beside(id, step) {
    const ids = [...this.#pictures.keys()];
    const at = ids.indexOf(id);
    return at < 0 ? undefined : ids[at + step];
  }

  /** @param {string} id @param {boolean} favourite */
  favour(id, favourite) {
    const picture = this.#pictures.get(id);
    if (!picture) return;
    picture.favourite = favourite;
    if (this.#favourites && !favourite) this.#pictures.delete(id);
    this.#show();
  }

  /** Delete a picture, with a way back. @param {string} id */
  async discard(id) {
    const at = [...this.#pictures.keys()].indexOf(id);
    const focused = this.#grid.contains(document.activeElement);
    try {
      await api.remove(id);
    } catch (error) {
      return complain(error);
    }
    this.#pictures.delete(id);
    this.#show();
    if (focused) (this.#buttons()[at] ?? this.#buttons()[at - 1] ?? this.#search).focus();
    this.#tell(id, true);
    toast('picture.deleted', () => this.#restore(id));
  }

  /** @param {string} id */
  async #restore(id) {
    try {
      await api.restore(id);
    } catch (error) {
      return complain(error);
    }
    this.#tell(id, false);
    await this.load();
    toast('undone');
  }

  /** @param {string} id @param {boolean} gone */
  #tell(id, gone) {
    this.dispatchEvent(new CustomEvent('studio:deleted', { bubbles: true, detail: { id, gone } }));
  }
}

customElements.define('studio-gallery', StudioGallery);
