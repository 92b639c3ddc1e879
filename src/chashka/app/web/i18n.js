/** Words of the page in the person's language. What is bound changes by itself when the language does. */

import en from './en.js';
import { preference, prefer } from './preferences.js';
import ru from './ru.js';

/** @typedef {string | ((...values: any[]) => string)} Phrase */

/** @type {Record<string, Record<string, Phrase>>} */
const LANGUAGES = { en, ru };

/** @type {WeakMap<Element, Map<string, [string, ...any[]]>>} */
const bound = new WeakMap();

let current = chosen();

/** What the person chose, or the first of the browser's languages that the page speaks. */
function chosen() {
  const wanted = [preference('language'), ...navigator.languages.map((code) => code.slice(0, 2).toLowerCase())];
  return wanted.find((code) => code in LANGUAGES) ?? 'en';
}

/** The language's code: en or ru. */
export function language() {
  return current;
}

/** @param {string} code */
export function setLanguage(code) {
  current = code in LANGUAGES ? code : 'en';
  prefer('language', current);
  document.documentElement.lang = current;
  for (const element of document.querySelectorAll('*')) {
    for (const name of bound.get(element)?.keys() ?? []) apply(element, name);
  }
}

/**
 * The phrase of a key.
 *
 * @param {string} key
 * @param {...any} values
 * @returns {string}
 */
export function t(key, ...values) {
  const phrase = LANGUAGES[current]?.[key];
  if (phrase === undefined) throw new Error(`no phrase for ${key} in ${current}`);
  return typeof phrase === 'function' ? phrase(...values) : phrase;
}

/** @param {string} key */
export function known(key) {
  return key in en;
}

/**
 * Say a phrase in an element, now and in whatever language is chosen later.
 *
 * @param {Element} element
 * @param {string} attribute its name, or '' for the element's text
 * @param {string} key
 * @param {...any} values
 */
export function bind(element, attribute, key, ...values) {
  const names = bound.get(element) ?? new Map();
  bound.set(element, names.set(attribute, [key, ...values]));
  apply(element, attribute);
}

/**
 * Say nothing any more.
 *
 * @param {Element} element
 * @param {string} [attribute]
 */
export function unbind(element, attribute = '') {
  bound.get(element)?.delete(attribute);
  if (attribute) element.removeAttribute(attribute);
  else element.textContent = '';
}

/**
 * @param {Element} element
 * @param {string} attribute
 */
function apply(element, attribute) {
  const [key, ...values] = bound.get(element)?.get(attribute) ?? [''];
  const text = t(key, ...values);
  if (attribute) element.setAttribute(attribute, text);
  else if (element.textContent !== text) element.textContent = text;
}
