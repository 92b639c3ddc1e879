/** The drawer of settings, made from what the server says of the model's options. What is left empty is the model's choice. */

import { api } from './api.js';
import { h, quoted } from './dom.js';
import { bind, unbind } from './i18n.js';
import { preference, prefer } from './preferences.js';

/** @import {Model, Schema, SchemaField} from './types.js' */

/** Fields that the drawer shows, if the model's family has them, in this order. */
const SHOWN = ['n', 'steps', 'guidance_scale', 'seed', 'negative_prompt', 'fast'];
const WHOLE = new Set(['n', 'steps', 'seed']);
const PICTURES = 4;
const SHAPES = /** @type {const} */ ({ square: [1, 1], portrait: [0.75, 1], landscape: [1, 0.75], wide: [1.25, 0.75] });
const AREA = 256 * 256;

/** @typedef {HTMLInputElement | HTMLSelectElement} Control */

export class StudioSettings extends HTMLElement {
  /** @type {Model[]} */
  #models = [];
  /** @type {Map<string, Control>} */
  #controls = new Map();

  /** Ask for models, options and limits, and build the drawer. A server that does not answer is told of elsewhere. */
  async load() {
    try {
      this.#models = (await api.models()).filter((model) => model.available !== false && model.family);
      const family = this.#model()?.family;
      if (!family) return;
      const [schema, caps] = await Promise.all([api.options(family), api.limits()]);
      this.#build(schema, caps);
    } catch {
      // the page says so where the person looks, and asks again
    }
  }

  /** @returns {Record<string, any> | null} fields of a request; null if something is wrong, see complain() */
  values() {
    if ([...this.#controls.values()].some((control) => !control.checkValidity())) return null;
    /** @type {Record<string, any>} */
    const said = { n: PICTURES };
    for (const [name, control] of this.#controls) {
      if (name === 'shape') Object.assign(said, this.#size(control.value));
      else if (control instanceof HTMLInputElement && control.type === 'checkbox') {
        if (control.checked) said[name] = true;
      } else if (control.value.trim()) said[name] = isNumber(control) ? Number(control.value) : control.value.trim();
    }
    return said;
  }

  /** Whether the model is small enough to draw while somebody types. */
  get quick() {
    return (this.#model()?.area ?? Infinity) <= AREA;
  }

  /** Go to the first field that is wrong. */
  complain() {
    const wrong = [...this.#controls.values()].find((control) => !control.checkValidity());
    wrong?.focus();
  }

  #model() {
    const wanted = preference('settings')?.model;
    return this.#models.find((model) => model.id === wanted) ?? this.#models.find((model) => model.default) ?? this.#models[0];
  }

  /** @param {string} shape @returns {{width?: number, height?: number}} the model's own size if it is a square */
  #size(shape) {
    if (!(shape in SHAPES) || shape === 'square') return {};
    const side = Math.sqrt(this.#model()?.area ?? AREA);
    const [width, height] = SHAPES[/** @type {keyof typeof SHAPES} */ (shape)];
    return { width: Math.round(width * side), height: Math.round(height * side) };
  }

  /**
   * @param {Schema} schema
   * @param {Record<string, number>} caps this server's own, for example max_n
   */
  #build(schema, caps) {
    const kept = preference('settings') ?? {};
    this.#controls.clear();
    const grid = h('div', { class: 'fields' });
    const model = h('select', { id: 'field-model' });
    for (const one of this.#models) model.append(quoted('option', one.id, { value: one.id }));
    this.#add(grid, 'model', model, kept.model ?? this.#model()?.id);
    const shape = h('select', { id: 'field-shape' });
    for (const name of Object.keys(SHAPES)) shape.append(h('option', { value: name, t: `shape.${name}` }));
    for (const name of SHOWN) {
      const field = schema.properties[name];
      if (!field) continue;
      this.#add(grid, name, this.#control(name, field, caps[`max_${name}`]), kept[name]);
      if (name === 'n') this.#add(grid, 'shape', shape, kept.shape ?? 'square');
    }
    grid.append(this.#sketches());
    const reset = h('button', { type: 'button', class: 'plain', t: 'settings.reset', onclick: () => this.#reset() });
    grid.append(reset);
    this.replaceChildren(grid);
  }

  /** Whether to sketch while somebody types: the page's own matter, no field of a request. */
  #sketches() {
    const box = h('input', { id: 'field-sketches', type: 'checkbox', checked: preference('sketches') !== false });
    box.addEventListener('input', () => prefer('sketches', box.checked ? null : false));
    return h('div', { class: 'field check sketches' }, h('label', { t: 'field.sketches', htmlFor: box.id }), box);
  }

  /**
   * @param {string} name
   * @param {SchemaField} field
   * @param {number} [cap]
   * @returns {Control}
   */
  #control(name, field, cap = Number.MAX_SAFE_INTEGER) {
    const id = `field-${name}`;
    if (field.type === 'boolean') return h('input', { id, type: 'checkbox' });
    const [low, most] = limits(field);
    if (most === null) return h('input', { id, type: 'text', autocomplete: 'off', placeholder: 'field.nothing' });
    const high = Math.min(most, cap);
    const input = h('input', { id, type: 'number', max: String(high), min: String(low), step: WHOLE.has(name) ? '1' : 'any' });
    input.setAttribute('data-allowed', JSON.stringify([low, high]));
    if (name === 'n') input.placeholder = String(PICTURES);
    else bind(input, 'placeholder', name === 'seed' ? 'field.random' : 'field.auto');
    return input;
  }

  /**
   * @param {HTMLElement} grid
   * @param {string} name
   * @param {Control} control
   * @param {any} value that was kept
   */
  #add(grid, name, control, value) {
    const wrong = h('span', { class: 'problem', id: `wrong-${name}` });
    control.setAttribute('aria-describedby', wrong.id);
    const checkbox = control instanceof HTMLInputElement && control.type === 'checkbox';
    if (checkbox) control.checked = value === true;
    else if (value !== undefined && value !== null) control.value = String(value);
    control.addEventListener('input', () => this.#changed(name, control, wrong));
    const label = h('label', { t: `field.${name}`, htmlFor: control.id });
    grid.append(h('div', { class: `field ${checkbox ? 'check' : ''} ${name}` }, label, control, wrong));
    this.#controls.set(name, control);
  }

  /**
   * @param {string} name
   * @param {Control} control
   * @param {HTMLElement} wrong
   */
  #changed(name, control, wrong) {
    const ok = control.checkValidity();
    control.setAttribute('aria-invalid', String(!ok));
    if (ok) unbind(wrong);
    else bind(wrong, '', 'field.wrong', ...JSON.parse(control.getAttribute('data-allowed') ?? '["", ""]'));
    const value = control instanceof HTMLInputElement && control.type === 'checkbox' ? control.checked : control.value;
    prefer('settings', { ...(preference('settings') ?? {}), [name]: value });
    if (name === 'model') this.load();
  }

  #reset() {
    prefer('settings', null);
    prefer('sketches', null);
    this.load();
  }
}

/** @param {Control} control */
function isNumber(control) {
  return control instanceof HTMLInputElement && control.type === 'number';
}

/**
 * @param {SchemaField} field
 * @returns {[number, number | null]} the lowest and the highest value; null if it is no number
 */
function limits(field) {
  const one = field.anyOf?.find((each) => each.type !== 'null') ?? field;
  if (one.type !== 'integer' && one.type !== 'number') return [0, null];
  return [one.minimum ?? one.ge ?? 0, one.maximum ?? one.le ?? Number.MAX_SAFE_INTEGER];
}

customElements.define('studio-settings', StudioSettings);
