/** Making elements, and nothing that is written as HTML text: what people type can never become markup. */

import { bind, unbind } from './i18n.js';

const SVG = 'http://www.w3.org/2000/svg';

/**
 * An element. Of `given`: `t` is the key of its text, `label` of its aria-label, `hint` of its title, `placeholder` of its
 * placeholder (an array is a key with values); `on…` are listeners; `class` and names with a dash are attributes; the rest
 * are properties.
 *
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, any>} [given]
 * @param {...(Node | string | null)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function h(tag, given = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (value === null || value === undefined) continue;
    if (name === 't') bind(element, '', ...keyed(value));
    else if (name === 'label') bind(element, 'aria-label', ...keyed(value));
    else if (name === 'hint') bind(element, 'title', ...keyed(value));
    else if (name === 'placeholder') bind(element, 'placeholder', ...keyed(value));
    else if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (name === 'class' || name.includes('-') || name === 'role' || name === 'for' || name === 'translate') {
      element.setAttribute(name, String(value));
    } else Reflect.set(element, name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/**
 * @param {string | [string, ...any[]]} value
 * @returns {[string, ...any[]]}
 */
function keyed(value) {
  return Array.isArray(value) ? value : [value];
}

/**
 * A picture of `icons.svg`; it says nothing, so its button needs a label.
 *
 * @param {string} name
 * @returns {SVGSVGElement}
 */
export function icon(name) {
  const image = document.createElementNS(SVG, 'svg');
  const use = document.createElementNS(SVG, 'use');
  image.setAttribute('class', 'icon');
  image.setAttribute('aria-hidden', 'true');
  use.setAttribute('href', `/web/icons.svg#${name}`);
  image.append(use);
  return image;
}

/**
 * A button that is an icon.
 *
 * @param {string} name of the icon
 * @param {string} key of its label and of its hint
 * @param {(event: MouseEvent) => void} clicked
 * @param {Record<string, any>} [given]
 */
export function iconButton(name, key, clicked, given = {}) {
  const class_ = `quiet ${given.class ?? ''}`;
  return h('button', { type: 'button', label: key, hint: key, onclick: clicked, ...given, class: class_ }, icon(name));
}

/**
 * Say what a picture shows: its words, which stay in their language, or that there are none.
 *
 * @param {HTMLImageElement} image
 * @param {string} prompt
 */
export function describe(image, prompt) {
  image.translate = !prompt;
  if (prompt) {
    unbind(image, 'alt');
    image.alt = prompt;
  } else bind(image, 'alt', 'picture');
}

/**
 * Text that somebody wrote: a prompt, a model's name. It stays in its own language.
 *
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {string} text
 * @param {Record<string, any>} [given]
 */
export function quoted(tag, text, given = {}) {
  return h(tag, { translate: 'no', dir: 'auto', ...given }, text);
}
