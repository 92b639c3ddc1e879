/** The one field and the one button, with the picture to start from and the drawer of settings. */

import { api, ApiError, thumbnailOf } from './api.js';
import { StudioConsent } from './consent.js';
import { h, icon, iconButton } from './dom.js';
import { tell, tellPhrase } from './failures.js';
import { bind } from './i18n.js';
import { draft } from './preferences.js';
import { varied } from './requests.js';
import { StudioSettings } from './settings.js';
import { StudioSketch } from './sketch.js';

const EXAMPLES = 3;

export class StudioComposer extends HTMLElement {
  /** @type {string | null} id of the picture to start from */
  #start = null;
  #problem = h('p', { class: 'problem', role: 'alert' });
  #field = h('textarea', { id: 'prompt', rows: 1, maxLength: 10000, autocomplete: 'off', 'aria-describedby': 'how' });
  #chip = h('div', { class: 'chip', hidden: true });
  #picture = h('img', { alt: '', width: 40, height: 40 });
  #strength = h('select', { id: 'strength' });
  #file = h('input', { type: 'file', accept: 'image/png,image/jpeg,image/webp', hidden: true });
  #consent = new StudioConsent();
  #settings = new StudioSettings();
  #sketch = new StudioSketch();
  #drawer = iconButton('settings', 'settings', () => this.#show(this.#settings.hidden), { 'aria-controls': 'settings' });
  #button = h('button', { type: 'submit', class: 'draw', t: 'draw' });

  connectedCallback() {
    if (this.childElementCount) return;
    this.#settings.id = 'settings';
    this.#settings.addEventListener('input', () => this.#follow());
    this.#show(false);
    bind(this.#field, 'placeholder', `example.${1 + Math.floor((Date.now() / 3.6e6) % EXAMPLES)}`);
    this.#field.value = draft.read();
    this.#field.addEventListener('input', () => this.#typed());
    this.#field.addEventListener('keydown', (event) => this.#key(event));
    this.#file.addEventListener('change', () => this.#chosen(this.#file.files?.[0]));
    this.#consent.addEventListener('studio:agreed', (event) => this.#chosen(/** @type {CustomEvent<File>} */ (event).detail, true));
    for (const name of ['subtle', 'strong']) this.#strength.append(h('option', { value: name, t: `strength.${name}` }));
    this.#strength.value = 'strong';
    this.#chip.append(
      this.#picture,
      h('span', { t: 'attached', class: 'grow' }),
      h('label', { t: 'strength', htmlFor: 'strength', class: 'hidden' }),
      this.#strength,
      iconButton('close', 'attached.remove', () => this.startFrom(null)),
    );
    const form = h(
      'form',
      { class: 'composer', noValidate: true, onsubmit: (/** @type {Event} */ event) => this.#submit(event) },
      h('h1', {}, h('label', { t: 'title', htmlFor: 'prompt' })),
      h(
        'div',
        { class: 'card' },
        h('div', { class: 'typed' }, this.#field, this.#sketch),
        this.#chip,
        this.#consent,
        h(
          'div',
          { class: 'row' },
          this.#drawer,
          iconButton('attach', 'attach', () => this.#file.click()),
          h('span', { t: 'draw.hint', class: 'hint grow', id: 'how' }),
          this.#button,
        ),
        this.#settings,
        this.#file,
      ),
      this.#problem,
    );
    this.append(form);
    this.#drops(form);
    this.#grow();
  }

  /** Into the field. @override */
  focus() {
    this.#field.focus({ preventScroll: true });
  }

  /** Ask for models and options again: after a login there are some. */
  reload() {
    return this.#settings.load();
  }

  /** @param {string | null} id of the picture that the next drawing starts from */
  startFrom(id) {
    const had = this.#start !== null;
    this.#start = id;
    this.#chip.hidden = id === null;
    if (id !== null) this.#picture.src = thumbnailOf(id);
    else this.#picture.removeAttribute('src');
    if (id !== null) this.#follow();
    if (id !== null || had) this.#field.focus();
  }

  /** Draw variations of a picture. @param {string} id */
  vary(id) {
    return this.send(varied(id, this.#settings.values() ?? {}));
  }

  /** Send a request; tells the page what came of it. @param {object} body */
  async send(body) {
    tell(this.#problem, null);
    this.#button.setAttribute('aria-disabled', 'true');
    try {
      const job = await api.submit(body);
      this.dispatchEvent(new CustomEvent('studio:job', { bubbles: true, detail: job }));
      return true;
    } catch (error) {
      tell(this.#problem, error);
      this.#problem.scrollIntoView({ block: 'nearest' });
      return false;
    } finally {
      this.#button.removeAttribute('aria-disabled');
    }
  }

  /** @param {Event} event */
  async #submit(event) {
    event.preventDefault();
    if (this.#button.getAttribute('aria-disabled')) return; // sent a moment ago
    const prompt = this.#field.value.trim();
    const said = this.#settings.values();
    if (!prompt) {
      tellPhrase(this.#problem, 'error.empty');
      this.#field.focus();
    } else if (said) {
      const start = this.#start ? { inputs: { init: this.#start }, strength: this.#strength.value } : {};
      const seed = this.#start ? {} : this.#sketch.take(prompt, said);
      if (await this.send({ ...said, ...seed, ...start, prompt })) this.startFrom(null);
    } else {
      this.#show(true);
      this.#settings.complain();
    }
  }

  /** @param {boolean} open whether the drawer is */
  #show(open) {
    this.#settings.hidden = !open;
    this.#drawer.setAttribute('aria-expanded', String(open));
  }

  #typed() {
    draft.keep(this.#field.value);
    tell(this.#problem, null);
    this.#grow();
    this.#follow();
  }

  /** Sketch what is in the field; a drawing that starts from a picture has none. */
  #follow() {
    const wanted = !this.#start && this.#settings.quick;
    this.#sketch.follow(wanted ? this.#field.value.trim() : '', this.#settings.values());
  }

  /** The field is as high as its text. */
  #grow() {
    this.#field.style.height = 'auto';
    this.#field.style.height = `${this.#field.scrollHeight}px`;
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.#field.form?.requestSubmit();
  }

  /** @param {File | undefined} file @param {boolean} [agreed] whether the people in it did; a shared server asks for that */
  async #chosen(file, agreed = false) {
    this.#file.value = '';
    if (!file) return;
    tell(this.#problem, null);
    this.#consent.ask(null);
    try {
      this.startFrom((await api.upload(file, agreed)).id);
    } catch (error) {
      if (error instanceof ApiError && error.code === 'consent') this.#consent.ask(file);
      else tell(this.#problem, error);
    }
  }

  /** Files of the desktop, and pictures of this page. @param {HTMLElement} form */
  #drops(form) {
    const overlay = h('div', { class: 'drop', hidden: true }, icon('attach'), h('span', { t: 'attach.drop' }));
    form.append(overlay);
    form.addEventListener('dragover', (event) => {
      const kinds = event.dataTransfer?.types ?? [];
      if (!kinds.includes('Files') && !kinds.includes('application/x-chashka')) return;
      event.preventDefault();
      overlay.hidden = false;
    });
    form.addEventListener('dragleave', (event) => {
      if (!(event.relatedTarget instanceof Node && form.contains(event.relatedTarget))) overlay.hidden = true;
    });
    form.addEventListener('drop', (event) => {
      event.preventDefault();
      overlay.hidden = true;
      const id = event.dataTransfer?.getData('application/x-chashka');
      if (id) this.startFrom(id);
      else this.#chosen(event.dataTransfer?.files[0]);
    });
  }
}

/** Let a picture of the page be dragged into the field. @param {HTMLElement} element @param {string} id */
export function draggable(element, id) {
  element.draggable = true;
  element.addEventListener('dragstart', (event) => event.dataTransfer?.setData('application/x-chashka', id));
}

customElements.define('studio-composer', StudioComposer);
