/** One picture, large: what it was drawn with, where it comes from, and what can be done with it. */

import { api, fileOf, thumbnailOf } from './api.js';
import { describe, h, icon, iconButton, quoted } from './dom.js';
import { tell } from './failures.js';
import { download, favouriteButton } from './picture-actions.js';

/** @import {Picture} from './types.js' */

/** Fields of the request that are shown, and the phrase before each. */
const SHOWN = { steps: 'view.steps', guidance_scale: 'view.guidance', negative_prompt: 'view.negative' };

export class StudioViewer extends HTMLElement {
  #id = '';
  #dialog = h('dialog', { class: 'viewer', 'aria-labelledby': 'viewer-title' });
  #image = h('img', { class: 'whole' });
  #body = h('div', { class: 'about' });
  #heart = h('span');
  #problem = h('p', { class: 'problem', role: 'alert' });
  #previous = iconButton('left', 'view.previous', () => this.#step(-1), { class: 'turn' });
  #next = iconButton('right', 'view.next', () => this.#step(1), { class: 'turn' });

  /** @param {(id: string, step: number) => string | undefined} beside the picture before or behind another one */
  constructor(beside) {
    super();
    this.beside = beside;
  }

  connectedCallback() {
    if (this.childElementCount) return;
    const close = iconButton('close', 'view.close', () => this.#dialog.close());
    const remove = iconButton('delete', 'picture.delete', () => this.#act('studio:delete'));
    this.#dialog.append(
      h('div', { class: 'tools' }, this.#heart, remove, h('span', { class: 'grow' }), close),
      h('div', { class: 'show' }, this.#image, this.#previous, this.#next),
      h('div', { class: 'side' }, this.#problem, this.#body),
    );
    this.#dialog.addEventListener('close', () => this.#closed());
    this.#dialog.addEventListener('keydown', (event) => this.#key(event));
    this.#dialog.addEventListener('click', (event) => {
      if (event.target === this.#dialog) this.#dialog.close(); // beside it
    });
    this.append(this.#dialog);
  }

  /** @param {string} id */
  async open(id) {
    this.#id = id;
    tell(this.#problem, null);
    this.#image.src = fileOf(id);
    this.#previous.hidden = !this.beside(id, -1);
    this.#next.hidden = !this.beside(id, 1);
    history.replaceState(null, '', `#${id}`);
    if (!this.#dialog.open) this.#dialog.showModal();
    try {
      const [known, family] = await Promise.all([api.metadata(id), api.lineage(id)]);
      if (this.#id === id) this.#show(known.picture, known.metadata, family);
    } catch (error) {
      this.#body.replaceChildren();
      tell(this.#problem, error);
    }
  }

  /** @param {number} step */
  #step(step) {
    const id = this.beside(this.#id, step);
    if (id) this.open(id);
  }

  #closed() {
    this.#id = '';
    this.#image.removeAttribute('src');
    this.#body.replaceChildren();
    history.replaceState(null, '', location.pathname);
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.key === 'ArrowLeft') this.#step(-1);
    else if (event.key === 'ArrowRight') this.#step(1);
    else if (event.key === 'Delete') this.#act('studio:delete');
  }

  /**
   * @param {Picture} picture
   * @param {Record<string, any>} metadata
   * @param {{ancestors: string[], descendants: string[]}} family
   */
  #show(picture, metadata, family) {
    describe(this.#image, picture.prompt);
    const title = picture.prompt
      ? quoted('h2', picture.prompt, { id: 'viewer-title' })
      : h('h2', { t: picture.source === 'drawn' ? 'picture' : `view.source.${picture.source}`, id: 'viewer-title' });
    this.#heart.replaceChildren(favouriteButton(picture));
    this.#body.replaceChildren(
      title,
      this.#actions(picture),
      this.#facts(picture, metadata.request ?? {}, metadata.picture),
      ...this.#relatives('view.from', family.ancestors),
      ...this.#relatives('view.into', family.descendants),
      h('details', {}, h('summary', { t: 'view.metadata' }), quoted('pre', JSON.stringify(metadata, null, 2), { tabIndex: 0, label: 'view.metadata' })),
    );
  }

  /** @param {Picture} picture */
  #actions(picture) {
    const again = this.#action('again', 'view.again', () => this.#act('studio:again', picture.job));
    again.hidden = picture.job === null;
    return h(
      'div',
      { class: 'buttons' },
      download(picture, 'png', 'view.png'),
      download(picture, 'jpeg', 'view.jpeg'),
      this.#action('vary', 'view.vary', () => this.#act('studio:vary')),
      this.#action('attach', 'view.start', () => this.#act('studio:start')),
      again,
    );
  }

  /** @param {string} name of the icon @param {string} key of the text @param {() => void} clicked */
  #action(name, key, clicked) {
    return h('button', { type: 'button', class: 'plain', onclick: clicked }, icon(name), h('span', { t: key }));
  }

  /** Leave the picture, and let the page do something with it. @param {string} name @param {string | null} [detail] */
  #act(name, detail = this.#id) {
    this.#dialog.close();
    this.dispatchEvent(new CustomEvent(name, { bubbles: true, detail }));
  }

  /**
   * @param {Picture} picture
   * @param {Record<string, any>} request
   * @param {number | undefined} number of the picture of its seed
   */
  #facts(picture, request, number) {
    const list = h('dl', {});
    /** @param {string} key @param {any} value */
    const fact = (key, value) => {
      if (value !== undefined && value !== null && value !== '') list.append(h('dt', { t: key }), quoted('dd', String(value)));
    };
    fact('view.model', picture.model);
    fact('view.seed', picture.seed);
    if (number) fact('view.number', number + 1);
    list.append(h('dt', { t: 'view.size' }), h('dd', { t: ['view.size.value', picture.width, picture.height] }));
    for (const [name, key] of Object.entries(SHOWN)) fact(key, request[name]);
    list.append(h('dt', { t: picture.source === 'drawn' ? 'view.date' : `view.source.${picture.source}` }));
    list.append(h('dd', { t: ['view.date.value', picture.created] }));
    return list;
  }

  /**
   * @param {string} key
   * @param {string[]} ids
   * @returns {HTMLElement[]}
   */
  #relatives(key, ids) {
    if (!ids.length) return [];
    const items = ids.map((id) =>
      h('li', {}, h('button', { type: 'button', class: 'thumbnail', label: 'picture.open', onclick: () => this.open(id) }, h('img', { src: thumbnailOf(id), alt: '', width: 64, height: 64 }))),
    );
    return [h('h3', { t: key }), h('ul', { class: 'relatives', role: 'list' }, ...items)];
  }
}

customElements.define('studio-viewer', StudioViewer);
